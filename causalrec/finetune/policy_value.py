"""What a ranker would show of what there was, and what that is worth off policy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from causalrec.finetune.labels import Labels
from causalrec.finetune.risk import Ratio
from causalrec.scores import Estimate

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def chosen(f: F64, r: Labels) -> npt.NDArray[np.float64]:
    """(n,) how much of each row the ranker would show: see ``first_of_each``."""
    return first_of_each(f, r.e, r.units)


def first_of_each(f: F64, slots: F64, units: Ints) -> npt.NDArray[np.float64]:
    """(n,) in [0, 1]: the first rows of each user by score f, as many as the sum of his `slots`; the last one in part, rows that tie in equal parts.

    With the propensities as slots that is how many he is shown in expectation, so that the ranker's choice and today's are as large in every
    user. What he *was* shown will not do where the choice is scored by 1 / e: a policy that knows T picks rows whose weight it knows. Where every
    user has one row, they are chosen among like the rows of one.
    """
    if len(np.unique(units)) == len(units):
        units = np.zeros(len(units), dtype=np.int64)
    order = np.lexsort((-f, units))
    user, score = units[order], f[order]
    new_user = np.r_[True, np.diff(user) > 0]
    first = np.flatnonzero(new_user)
    place = np.arange(len(f)) - np.repeat(first, np.diff(np.r_[first, len(f)]))
    room = np.bincount(units, slots)
    part = np.clip(room[user] - place, 0.0, 1.0)
    tie = np.cumsum(new_user | np.r_[True, np.diff(score) != 0]) - 1
    shared = np.bincount(tie, part) / np.bincount(tie)
    out = np.empty(len(f))
    out[order] = shared[tie]
    return out


def values(f: F64, r: Labels) -> dict[str, Estimate]:
    """Clicks per impression shown, of the ranker's choice and of today's, off policy by DR scores; their difference; caused clicks.

    V(π) = Σ π ψ₁ / Σ π with π how much of each row the ranker would show, as many a user as he is shown in expectation, Σ e. Today's is Σ T Y / Σ T.
    """
    pi = chosen(f, r)
    ours = Ratio.of(lambda q: (pi * q.psi1, pi), r)
    today = Ratio.of(lambda q: (q.t * q.y, q.t), r)
    found = {"value": ours, "value_today": today, "gain": ours.less(today)}
    if r.control_seen:
        found["caused"] = Ratio.of(lambda q: (pi * (q.psi1 - q.psi0), pi), r)
    return {name: ratio.estimate(r) for name, ratio in found.items()}
