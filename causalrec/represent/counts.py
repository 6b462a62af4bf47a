"""What happened to each distinct text in some rows: all that a representation that learns from outcomes may see."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from causalrec._checks import check_scalar
from causalrec.errors import ArgumentError, RepresentationError

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TextCounts:
    """What happened to each of u distinct texts in some rows; weighted rows count as their weight.

    Attributes
    ----------
    shown, treated : (u,) rows, and those with T = 1
    clicks_0, clicks_1 : (u,) clicks in rows with T = 0, with T = 1
    """

    shown: F64
    treated: F64
    clicks_0: F64
    clicks_1: F64

    def __post_init__(self) -> None:
        columns = (self.shown, self.treated, self.clicks_0, self.clicks_1)
        if any(c.ndim != 1 or len(c) != len(self.shown) or not np.isfinite(c).all() for c in columns):
            shapes = [c.shape for c in columns]
            raise ArgumentError(f"counts have the shapes {shapes}; must be four times (u,), and finite.")
        slack = 1e-6 * (1 + self.shown)
        low = min((float(c.min()) for c in columns if len(c)), default=0.0)
        over = (self.treated > self.shown + slack) | (self.clicks_1 > self.treated + slack)
        over |= self.clicks_0 > self.shown - self.treated + slack
        if low < 0 or over.any():
            raise ArgumentError(
                f"counts are contradictory for {int(over.sum()):,} of {len(over):,} texts, the least is {low:g}; must be "
                "0 <= treated <= shown, 0 <= clicks_1 <= treated and 0 <= clicks_0 <= shown - treated."
            )

    def __len__(self) -> int:
        """Distinct texts, u."""
        return len(self.shown)

    @classmethod
    def of(cls, codes: npt.NDArray[np.int64], t: F64, y: F64, w: F64, n_texts: int) -> TextCounts:
        """Count rows: codes (n,) of their texts, treatment and outcome 0/1 (n,), weights (n,)."""

        def total(x: F64) -> F64:
            return np.bincount(codes, x, minlength=n_texts).astype(np.float64)

        return cls(total(w), total(w * t), total(w * (1 - t) * y), total(w * t * y))

    @property
    def totals(self) -> F64:
        """(u, 3) rows that each head has: shown, untreated, treated."""
        return np.column_stack([self.shown, np.maximum(self.shown - self.treated, 0), self.treated])

    @property
    def successes(self) -> F64:
        """(u, 3) treated rows, untreated clicks, treated clicks."""
        return np.column_stack([self.treated, self.clicks_0, self.clicks_1])

    @property
    def constants(self) -> F64:
        """(3,) log odds of each head in all rows, held off 0 and 1 by half a row."""
        n, s = self.totals.sum(axis=0), self.successes.sum(axis=0)
        return np.asarray(np.log((s + 0.5) / (n - s + 0.5)), dtype=np.float64)

    def keep(self, here: npt.NDArray[np.bool_]) -> TextCounts:
        """The counts of some texts, and zero for the others."""
        return TextCounts(*(np.where(here, c, 0.0) for c in self._columns()))

    def at(self, rows: npt.NDArray[np.int64]) -> TextCounts:
        """The counts of the texts at these places, in that order."""
        return TextCounts(*(c[rows] for c in self._columns()))

    def split(self, share: float, keys: Sequence[object] | None, seed: int) -> tuple[TextCounts, TextCounts]:
        """Counts of a random (1 − share) of the texts that have rows, and of the others.

        The draw runs along the sorted `keys` (the texts themselves, say), so that their order has no say.
        """
        seen = np.flatnonzero(self.shown > 0)
        if len(seen) < 2:
            raise RepresentationError(
                f"{len(seen)} of {len(self):,} texts have rows, must be >= 2 to hold some of them out; take a frozen encoder."
            )
        order = seen if keys is None else np.array(sorted(seen.tolist(), key=lambda i: str(keys[i])))
        held = np.zeros(len(self), dtype=np.bool_)
        count = min(max(1, round(share * len(seen))), len(seen) - 1)
        held[order[np.random.default_rng(seed).permutation(len(seen))[:count]]] = True
        return self.keep(~held), self.keep(held)

    def digest(self, keys: Sequence[object]) -> str:
        """16 hex digits of the sha256 of the texts that have rows, with their counts, in any order."""
        table = np.column_stack(self._columns())
        lines = sorted(f"{keys[i]!r} {table[i].tolist()}" for i in np.flatnonzero(self.shown > 0).tolist())
        return hashlib.sha256("\n".join(lines).encode("utf-8", "replace")).hexdigest()[:16]

    def _columns(self) -> tuple[F64, F64, F64, F64]:
        return self.shown, self.treated, self.clicks_0, self.clicks_1


def nuisance_loss(logits: F64, counts: TextCounts) -> float:
    """Σ over texts and heads of n log(1 + exp z) − s z, per row shown; nats.

    Parameters
    ----------
    logits : (u, 3) of exposure, of an untreated click, of a treated click
    counts : TextCounts, n rows and s successes of each head
    """
    n, s = counts.totals, counts.successes
    return float((n * np.logaddexp(0, logits) - s * logits).sum() / max(counts.shown.sum(), 1e-12))


def training_split(
    counts: TextCounts, holdout: float | TextCounts, n_texts: int, keys: Sequence[object] | None, seed: int
) -> tuple[TextCounts, TextCounts]:
    """Counts to train on and counts to choose by, both checked against the number of texts."""
    for name, given in (("counts", counts), ("holdout", holdout)):
        if isinstance(given, TextCounts) and len(given) != n_texts:
            raise RepresentationError(f"{name} has {len(given):,} texts, must have {n_texts:,}: one a text.")
    if isinstance(holdout, TextCounts):
        return counts, holdout
    return counts.split(check_scalar(holdout, "holdout", gt=0, lt=1), keys, seed)
