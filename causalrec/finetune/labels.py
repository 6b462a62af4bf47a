"""What is known of each row beside its words: was it shown, what happened, how likely either was."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from causalrec.finetune.looked_at import CurveError
from causalrec.nuisance import Clip

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Labels:
    """Arrays of n rows, (n,) each.

    Attributes
    ----------
    t, y : shown 0/1; the outcome, divided by P(examined) where a curve was given; 0 in rows not shown unless it was seen there
    e : P(shown), not clipped
    m0, m1 : models of the outcome, fitted without the row's user; m0 NaN where no outcome of rows not shown was seen
    units : codes
    items : codes or None, for errors clustered both ways
    clip : Clip
    logged : bool
    examined : P(examined at the row's position) over its mean given what is known of the row, 1 where no curve was given: among rows
        alike, those that were likely to be looked at say more, and are learnt from in proportion
    curve_error : CurveError or None
        Of rows that rankers are judged on, where the curve was estimated.
    if_examined : bool
        Whether outcomes were divided by P(examined).
    users : uint64 hashes of the rows' users, which stay the same from log to log as codes do not; None where they are not known
    """

    t: F64
    y: F64
    e: F64
    m0: F64
    m1: F64
    units: Ints
    items: Ints | None
    clip: Clip
    logged: bool
    examined: F64 | None = None
    curve_error: CurveError | None = None
    if_examined: bool = False
    users: Hashes | None = None

    def __len__(self) -> int:
        return len(self.t)

    @property
    def w1(self) -> F64:
        """1 / e, clipped."""
        return np.asarray(1 / self.clip.apply(self.e))

    @property
    def w0(self) -> F64:
        """1 / (1 − e), clipped."""
        return np.asarray(1 / (1 - self.clip.apply(self.e)))

    @property
    def control_seen(self) -> bool:
        """Whether outcomes of rows that were not shown are known."""
        return bool(np.isfinite(self.m0).all())

    @property
    def psi1(self) -> F64:
        """(n,) doubly robust scores of E[Y(1)]."""
        return np.asarray(self.m1 + self.t * self.w1 * (self.y - self.m1))

    @property
    def psi0(self) -> F64:
        """(n,) doubly robust scores of E[Y(0)]."""
        return np.asarray(self.m0 + (1 - self.t) * self.w0 * (self.y - self.m0))

    def take(self, rows: Ints) -> Labels:
        """Some rows; users and items are numbered anew."""
        units = np.unique(self.units[rows], return_inverse=True)[1]
        items = None if self.items is None else np.unique(self.items[rows], return_inverse=True)[1]
        return Labels(
            self.t[rows], self.y[rows], self.e[rows], self.m0[rows], self.m1[rows], units, items, self.clip, self.logged,
            None if self.examined is None else self.examined[rows], None if self.curve_error is None else self.curve_error.take(rows),
            self.if_examined, None if self.users is None else self.users[rows],
        )  # fmt: skip

    def joined(self, other: Labels) -> Labels:
        """These rows and another log's; its users and items count as others."""
        pairs = ((self.t, other.t), (self.y, other.y), (self.e, other.e), (self.m0, other.m0), (self.m1, other.m1))
        t, y, e, m0, m1 = (np.concatenate(p) for p in pairs)
        units = np.concatenate([self.units, other.units + int(self.units.max()) + 1])
        items = None
        if self.items is not None and other.items is not None:
            items = np.concatenate([self.items, other.items + int(self.items.max()) + 1])
        examined = None
        if self.examined is not None or other.examined is not None:
            examined = np.concatenate([np.ones(len(one)) if one.examined is None else one.examined for one in (self, other)])
        users = None if self.users is None or other.users is None else np.concatenate([self.users, other.users])
        return Labels(t, y, e, m0, m1, units, items, self.clip, self.logged, examined, if_examined=self.if_examined, users=users)

    @property
    def half(self) -> Ints:
        """(n,) 0 or 1, the same for all rows of a user and in every log: which imputation head serves him; the other learns from him."""
        return np.asarray((self.units if self.users is None else self.users) % 2, dtype=np.int64)

    @property
    def learnt(self) -> F64:
        """w1 × `examined`: the weight of a shown row where something is learnt from it; its values are taken with w1."""
        return self.w1 if self.examined is None else self.w1 * self.examined

    def under(self, clip: Clip | None) -> Labels:
        """The same rows under an objective's own clip; as they are where it has none."""
        return self if clip is None else replace(self, clip=clip)

    def columns(self, clip: Clip | None) -> dict[str, npt.NDArray[np.float32]]:
        """What an objective reads of each row, under its own clip if it has one."""
        mine = self.under(clip)
        found = {
            "t": self.t, "y": self.y, "w1": mine.learnt, "w0": mine.w0, "m0": self.m0, "m1": self.m1,
            "e": mine.clip.apply(self.e),
        }  # fmt: skip
        return {name: v.astype(np.float32) for name, v in found.items()}
