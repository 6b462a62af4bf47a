"""What did we show, and what did they do? A table, the roles of its columns, and its representation blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec import _treatment, _values
from causalrec._checks import as_generator, check_scalar
from causalrec._display import Displayable
from causalrec._treatment import KINDS, VERBS, TreatmentKind
from causalrec.blocks import Block
from causalrec.errors import LogError
from causalrec.units import content_order, shuffled_order

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
MIN_ARM = 50


@dataclass(frozen=True)
class Roles:
    """Which column is what. Every field is a tuple of column names; single-column roles have one or none."""

    treatment: tuple[str, ...]
    outcome: tuple[str, ...]
    text: tuple[str, ...] = ()
    history: tuple[str, ...] = ()
    unit: tuple[str, ...] = ()
    item: tuple[str, ...] = ()
    modifiers: tuple[str, ...] = ()
    confounders: tuple[str, ...] = ()
    propensity: tuple[str, ...] = ()
    score: tuple[str, ...] = ()
    position: tuple[str, ...] = ()
    time: tuple[str, ...] = ()
    weight: tuple[str, ...] = ()
    instrument: tuple[str, ...] = ()
    negative_controls: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, tuple[str, ...]]:
        """Role → columns, declared roles only."""
        return {f.name: v for f in fields(self) if (v := getattr(self, f.name))}


@dataclass(frozen=True, eq=False)
class ImpressionLog(Displayable):
    """A log of impressions, one a row, with its roles declared once.

    Attributes
    ----------
    frame : DataFrame
        The caller's table, in the caller's order and with the caller's index.
    roles : Roles
    treated_level : object
        The value of the treatment column that counts as treated.
    blocks : mapping of str to Block
        Representation blocks by name; empty until ``embed``.
    origin : (token, (n,) positions) or None
        The table that was read and each row's place in it, by which two parts of one log know each other.
    treatment_kind : "binary", "arms" or "dose"
    arms : tuple
        The labels of the arms, the control first; empty unless `treatment_kind` is "arms".
    """

    frame: pd.DataFrame = field(repr=False)
    roles: Roles
    treated_level: Any = 1
    blocks: Mapping[str, Block] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    origin: tuple[object, Ints] | None = field(default=None, repr=False)
    treatment_kind: TreatmentKind = "binary"
    arms: tuple[Any, ...] = ()

    def __len__(self) -> int:
        return len(self.frame)

    def _column(self, role: str) -> pd.Series | None:
        names = getattr(self.roles, role)
        return self.frame[names[0]] if names else None

    @cached_property
    def treatment(self) -> Floats:
        """``(n,)`` 0/1, 1 = treated; the arm's place in ``arms`` (0 = control); or the dose, in its own unit."""
        column = self.frame[self.roles.treatment[0]]
        if self.treatment_kind == "arms":
            return _treatment.arm_codes(column, self.arms)
        if self.treatment_kind == "dose":
            return column.to_numpy(dtype=np.float64)
        return (column == self.treated_level).to_numpy(dtype=np.float64)

    @cached_property
    def outcome(self) -> Floats:
        """``(n,)`` outcome, in clicks per impression if binary."""
        return self.frame[self.roles.outcome[0]].to_numpy(dtype=np.float64)

    @property
    def binary_outcome(self) -> bool:
        """True if the outcome is 0/1."""
        return bool(np.isin(self.outcome, (0.0, 1.0)).all())

    @cached_property
    def unit_labels(self) -> npt.NDArray[Any]:
        """``(n,)`` the caller's own labels of the units (row numbers where no unit is declared)."""
        column = self._column("unit")
        return np.arange(len(self)) if column is None else column.to_numpy(dtype=object)

    @cached_property
    def units(self) -> Ints:
        """``(n,)`` unit codes 0 … G−1; every row its own unit where none is declared."""
        column = self._column("unit")
        return np.arange(len(self)) if column is None else pd.factorize(column)[0].astype(np.int64)

    @cached_property
    def items(self) -> Ints | None:
        """``(n,)`` item codes, or None where no item is declared."""
        column = self._column("item")
        return None if column is None else pd.factorize(column)[0].astype(np.int64)

    @property
    def weights(self) -> Floats | None:
        """``(n,)`` row weights, or None."""
        column = self._column("weight")
        return None if column is None else column.to_numpy(dtype=np.float64)

    @property
    def logged_propensity(self) -> Floats | None:
        """``(n,)`` logged P(treated), or None.

        Raises
        ------
        LogError
            The log has several arms or a dose, so that "treated" has no meaning.
        """
        self.require_kind("binary", "P(treated)")
        column = self._column("propensity")
        return None if column is None else column.to_numpy(dtype=np.float64)

    @property
    def arm_propensities(self) -> Floats | None:
        """``(n, K)`` logged P(arm) in the order of ``arms``, rows summing to one; or None."""
        if self.treatment_kind != "arms" or not self.roles.propensity:
            return None
        e = self.frame[list(self.roles.propensity)].to_numpy(dtype=np.float64)
        return np.asarray(e / e.sum(axis=1, keepdims=True))

    def require_kind(self, kind: TreatmentKind, what: str) -> None:
        """Raise ``LogError`` naming the right verb unless the treatment is of this kind; `what` needs it."""
        if self.treatment_kind != kind:
            raise LogError(
                f"{what} needs a {KINDS[kind]}; {self.roles.treatment[0]!r} was read as a {KINDS[self.treatment_kind]}: "
                f"use {VERBS[self.treatment_kind]}, or read the log again with treatment_kind={kind!r}."
            )

    @cached_property
    def n_units(self) -> int:
        """Distinct units, G."""
        return int(self.units.max()) + 1

    def texts(self, column: str) -> tuple[list[str], Ints]:
        """Distinct texts of one text column (missing reads as empty) and each row's index into them."""
        return _values.distinct_texts(self.frame[column])

    def histories(self) -> tuple[list[tuple[str, ...]], Ints]:
        """Distinct histories (tuples of texts) and each row's index into them."""
        return _values.distinct_histories(self.frame[self.roles.history[0]])

    @cached_property
    def row_hash(self) -> npt.NDArray[np.uint64]:
        """``(n,)`` hash of what each row says in its roles, without its unit, its index or its place."""
        total = np.zeros(len(self), dtype=np.uint64)
        for k, (role, names) in enumerate(self.roles.as_dict().items()):
            if role in ("unit", "history"):
                continue
            for j, name in enumerate(names):
                part = pd.util.hash_pandas_object(self.frame[name], index=False).to_numpy(dtype=np.uint64)
                total = total * np.uint64(1_000_003) + part * np.uint64(2 * (31 * k + j) + 1)
        return total

    @cached_property
    def user_hash(self) -> npt.NDArray[np.uint64]:
        """``(n,)`` hash of each row's unit label; of what the row says where no unit is declared."""
        if not self.roles.unit:
            return self.row_hash
        codes, labels = pd.factorize(self.unit_labels)
        hashes = pd.util.hash_pandas_object(pd.Series([_values.label_of(v) for v in labels], dtype=object), index=False).to_numpy(dtype=np.uint64)
        return np.asarray(hashes[codes])

    @property
    def unit_hashes(self) -> npt.NDArray[np.uint64]:
        """Sorted hashes of the units, (G,), by which an encoder remembers whose clicks it saw."""
        return np.unique(self.user_hash)

    def rows_of(self, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """``(n,)`` True for the rows of these units."""
        return np.isin(self.user_hash, hashes)

    @cached_property
    def unit_order(self) -> Ints:
        """Unit codes in an order given by their rows only, clicks and exposure first (see ``units``)."""
        return content_order(self.units, self.row_hash, self.strata)

    @property
    def strata(self) -> Floats:
        """``(n,)`` along which units are dealt to folds and parts: exposure (a dose: above its mean or not), then outcome."""
        t = self.treatment
        exposure = (t > t.mean()).astype(np.float64) if self.treatment_kind == "dose" else t
        return np.asarray(2 * exposure + (self.outcome > self.outcome.mean()))

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 (16 hex digits) of the declared columns, in row order."""
        digest = hashlib.sha256(repr(self.roles).encode())
        digest.update(self.row_hash.tobytes())
        digest.update(self.units.tobytes())
        return digest.hexdigest()[:16]

    def take(self, rows: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> ImpressionLog:
        """The log of some rows only, by position or mask; blocks come along."""
        where = np.flatnonzero(rows) if rows.dtype == bool else rows
        blocks = {name: block.take(where) for name, block in self.blocks.items()}
        origin = None if self.origin is None else (self.origin[0], self.origin[1][where])
        return replace(self, frame=self.frame.iloc[where], blocks=MappingProxyType(blocks), origin=origin)

    def shared_units(self, other: ImpressionLog) -> int:
        """How many units of another log are units of this one: by label, or by row where no unit is declared."""
        if self.roles.unit and other.roles.unit:
            return len(np.intersect1d(self.unit_hashes, other.unit_hashes))
        if self.origin is not None and other.origin is not None and self.origin[0] is other.origin[0]:
            return len(np.intersect1d(self.origin[1], other.origin[1]))
        mine, others = np.unique(self.row_hash), np.unique(other.row_hash)
        distinct = len(others) > len(other) / 2  # rows that can be told apart by what they say
        return int(np.isin(other.row_hash, mine).sum()) if distinct else 0

    def split(
        self, test_size: float = 0.3, random_state: int | np.random.Generator | None = None
    ) -> tuple[ImpressionLog, ImpressionLog]:
        """Split into (train, test) by unit, so that no user is on both sides.

        Parameters
        ----------
        test_size : float
            Share of the units in the second log, in (0, 1).
        random_state : int, Generator or None

        Raises
        ------
        LogError
            Fewer than two units, so that one side would be empty.
        """
        test_size = check_scalar(test_size, "test_size", gt=0, lt=1)
        if self.roles.unit and self.n_units < 2:
            raise LogError("the log has one unit; it cannot be split by unit.")
        n_test = min(max(round(test_size * self.n_units), 1), self.n_units - 1)
        rng = as_generator(random_state)
        order = shuffled_order(self.units, self.row_hash, self.strata, rng)
        # one test unit at a random place in each stretch of the ordered units: stratified like the folds
        edges = np.linspace(0, self.n_units, n_test + 1)
        low, high = (
            np.ceil(edges[:-1]).astype(int),
            np.maximum(np.ceil(edges[1:]).astype(int), np.ceil(edges[:-1]).astype(int) + 1),
        )
        is_test = np.zeros(self.n_units, dtype=bool)
        is_test[order[rng.integers(low, np.minimum(high, self.n_units))]] = True
        in_test = is_test[self.units]
        return self.take(~in_test), self.take(in_test)

    def with_blocks(self, blocks: Iterable[Block]) -> ImpressionLog:
        """The log with these representation blocks instead of its own."""
        named = {b.name: b for b in blocks}
        for b in named.values():
            if b.n_rows != len(self):
                raise LogError(f"block {b.name!r} has {b.n_rows:,} rows, the log {len(self):,}.")
        return replace(self, blocks=MappingProxyType(named))

    def _title(self) -> str:
        who = (
            f"{self.n_units:,} {self.roles.unit[0]}s"
            if self.roles.unit
            else "no unit declared: every row counts as its own unit"
        )
        return f"Impression log: {len(self):,} impressions, {who}"

    def _rows(self) -> list[dict[str, Any]]:
        return [{"role": role, "columns": ", ".join(names)} for role, names in self.roles.as_dict().items()]

    def _exposure_notes(self) -> list[str]:
        t, y, name = self.treatment, self.outcome, self.roles.treatment[0]
        if self.treatment_kind == "dose":
            low, middle, high = np.quantile(t, (0.05, 0.5, 0.95))
            return [f"dose {name}: median {middle:g}, 5 % below {low:g}, 5 % above {high:g}"]
        if self.treatment_kind == "arms":
            shares = (
                f"{label!r} {100 * (t == k).mean():.1f} %, mean {y[t == k].mean():.4f}"
                for k, label in enumerate(self.arms)
            )
            return [f"arms of {name}, control first (means are no effects): {'; '.join(shares)}"]
        return [
            f"{100 * t.mean():.1f} % of the impressions have {name} = {self.treated_level!r}",
            f"mean {self.roles.outcome[0]}: {y[t == 1].mean():.4f} treated, {y[t == 0].mean():.4f} control (not an effect)",
        ]

    def _notes(self) -> list[str]:
        return self._exposure_notes() + [
            f"block {b.name}: {len(b.values):,} distinct × {b.width} ({b.made_by})"
            for b in self.blocks.values()
        ]
