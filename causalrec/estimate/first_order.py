"""The first-order score of an estimand at clipped propensities."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from causalrec import scores
from causalrec.nuisance import Clip

F64 = npt.NDArray[np.float64]


def first_order(estimand: str, clip: Clip, t: F64, y: F64, e: F64, m0: F64, m1: F64) -> scores.Pair:
    """(a, b), (n,) each, of ``"ate"``, ``"att"`` (clipped above only) or ``"ato"`` (needs no clipping)."""
    if estimand == "att":
        return scores.aipw_att(t, y, clip.apply_above(e), m0, m1)
    return scores.SCORES[estimand](t, y, e if estimand == "ato" else clip.apply(e), m0, m1)
