"""One arm against the rest: its nuisances, and whether its rows can stand for all rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from causalrec import scores
from causalrec.errors import EstimationError, OverlapError
from causalrec.estimate.overlap import MAX_AUC, MAX_CLIPPED, MIN_ESS, MIN_ESS_SHARE
from causalrec.estimate.several import Adjusted
from causalrec.nuisance import Clip, NuisanceRecipe, Nuisances, auc

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ArmOverlap:
    """How well one arm's rows stand for all rows.

    Attributes
    ----------
    n, n_units : int
        Rows and units that had the arm.
    ess : float
        Kish's effective sample size of the weights 1/e, rows.
    share_clipped : float
        Share of all rows whose probability of the arm is below the clip.
    auc : float
        Of the arm by its out-of-fold probability; .5 = as if randomised.
    """

    arm: Any
    n: int
    n_units: int
    ess: float
    share_clipped: float
    auc: float


def fit_arm(
    label: Any,
    given: npt.NDArray[np.bool_],
    y: F64,
    adjusted: Adjusted,
    recipe: NuisanceRecipe | None,
    known: F64 | None = None,
) -> Nuisances:
    """Nuisances of one arm against the rest: ``propensity`` is P(arm | x), ``outcome_1`` is E[Y | arm, x].

    Raises
    ------
    EstimationError
        A fold's training rows lack the arm, or its clicks; the message names the arm.
    """
    try:
        return adjusted.cross_fit(given.astype(np.float64), y, recipe, known)
    except EstimationError as error:
        raise EstimationError(
            f"arm {label!r} (as 'treated') against the rest (as 'control') cannot be modelled: {error}"
        ) from error


def measure_arm(
    label: Any, given: npt.NDArray[np.bool_], e: F64, adjusted: Adjusted, clip: Clip
) -> ArmOverlap:
    """The overlap of one arm from its probability e (n,)."""
    return ArmOverlap(
        label,
        int(given.sum()),
        adjusted.units_with(given),
        scores.ess((adjusted.weights / np.maximum(e, clip.bound))[given]),
        float((e < clip.bound)[adjusted.weights > 0].mean()),
        auc(e, given.astype(np.float64)),
    )


def why_no_overlap(found: ArmOverlap, clip: Clip, known: bool) -> str:
    """Why the mean under this arm would be an extrapolation; empty where it would not. `known`: e was logged."""
    if found.auc > MAX_AUC and not known:
        return f"what is adjusted for predicts it almost perfectly (held-out AUC {found.auc:.3f} > {MAX_AUC})"
    if found.share_clipped > MAX_CLIPPED:
        return f"its probability is below the clip ({clip.bound:.3g}) in {100 * found.share_clipped:.0f} % of the rows (more than {100 * MAX_CLIPPED:.0f} %)"
    if found.ess < max(MIN_ESS * min(1.0, found.n / 100), MIN_ESS_SHARE * found.n):
        return f"its {found.n:,} rows have an effective sample size of {found.ess:.0f}"
    return ""


def refuse_without_overlap(overlap: tuple[ArmOverlap, ...], clip: Clip, known: bool) -> None:
    """Raise ``OverlapError`` for the first arm whose mean would be an extrapolation."""
    for found in overlap:
        reason = why_no_overlap(found, clip, known)
        if reason:
            raise OverlapError(
                f"the mean under arm {found.arm!r} cannot be estimated: {reason}. It would be an extrapolation: leave this arm's rows out, "
                "join it with a similar arm, or keep to the rows where every arm was possible."
            )
