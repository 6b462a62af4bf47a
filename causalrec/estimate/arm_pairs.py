"""The effect of one of several arms against the control, corrected by pairs of rows: of the rows that had either."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from causalrec import scores
from causalrec.errors import EstimationError, OverlapError
from causalrec.estimate.analysis import Analysis, Settings, analyse
from causalrec.estimate.contrasts import Effect
from causalrec.estimate.correction import Correction, by_likeness, wants_pairs
from causalrec.estimate.fit import inputs_of
from causalrec.estimate.partners import NOTICEABLE, repeated_items
from causalrec.estimate.several import Adjusted
from causalrec.identify import Plan
from causalrec.log import ImpressionLog
from causalrec.nuisance import Clip, Folds, NuisanceRecipe

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
PRIOR_ROWS = 1.0
"""Rows with which an item's count of rows of either arm is drawn to what its x predict."""


@dataclass(frozen=True, eq=False)
class ArmPairs:
    """What pairs of rows said of one arm against the control.

    Attributes
    ----------
    arm : label
    rows : (m,) positions of the rows that had this arm or the control
    analysis : Analysis or None
        Of these rows, weighed by 1 / P(either arm | x) so that they stand for the whole log; None where it could not be made.
    reason : str
        Why there is no analysis.
    share : float
        Of the rows' weight, that of items with a row of either arm: for them the contrast speaks.
    """

    arm: Any
    rows: Ints
    analysis: Analysis | None
    reason: str = ""
    share: float = 1.0

    @property
    def corrected(self) -> bool:
        """Whether the contrast is of second order."""
        return self.analysis is not None and self.analysis.correction.order == 2

    @property
    def may_remain(self) -> float:
        """A bias for which the contrast's interval allows."""
        return 0.0 if self.analysis is None else self.analysis.correction.may_remain

    def sentence(self) -> str:
        """The verdict in plain words."""
        if self.analysis is None:
            return f"{self.arm!r}: first order, since its rows and the control's cannot be compared in pairs: {self.reason}"
        return f"{self.arm!r} against the control: {self.analysis.correction.sentence()}"

    @property
    def caveats(self) -> tuple[str, ...]:
        """What a reader of the contrast has to know, the arm named."""
        if self.analysis is None:
            return ()
        told = list(self.analysis.caveats)
        if self.corrected and self.share < 1 - NOTICEABLE:
            told.insert(
                0,
                f"items with rows of either arm have {100 * self.share:.0f} % of the weight, and the contrast is theirs: where effects go with what decides how often an item has these arms, "
                "it is not that of all items. Longer series, or fewer arms, would tell.",
            )
        return tuple(f"{self.arm!r} against the control: {t}" for t in told)


def arm_pairs(
    log: ImpressionLog,
    plan: Plan,
    adjusted: Adjusted,
    e: F64,
    correction: Correction,
    folds: Folds,
    clip: Clip,
    recipe: NuisanceRecipe | None,
    seed: int,
) -> tuple[ArmPairs, ...]:
    """(K − 1,) of each arm against the control; empty where no pair of rows could say anything.

    The rows of arm k and of the control are a log with two arms, in which what is confounded with the item cancels between partners
    as in ``estimate``. Weights make it stand for all rows (``standing_for_all``).

    Parameters
    ----------
    e : (n, K) P(arm | x)

    Raises
    ------
    EstimationError
        Pairs were asked for by name, and there are none.
    """
    asked = correction.order == 2 or correction.kernels is not None
    if log.arm_propensities is not None:
        if asked:
            raise EstimationError(
                "the propensities are logged, so that no confounding is left for pairs of rows to find; leave correction out, or use Correction(order=1)."
            )
        return ()
    whole = inputs_of(log, plan, np.zeros(len(log)), None, None)
    items = repeated_items(whole)
    looks = wants_pairs(correction, whole, items, adjusted.outcome_design) or by_likeness(
        correction, whole, items
    )
    if not asked and not looks:
        return ()
    found = []
    for k in range(1, e.shape[1]):
        rows = np.flatnonzero((log.treatment == 0) | (log.treatment == k))
        weights = standing_for_all(adjusted.weights, np.maximum(e[:, 0] + e[:, k], clip.bound), rows, items)
        one = log.take(rows)
        inputs = inputs_of(one, plan, (one.treatment == k).astype(np.float64), weights, None)
        settings = Settings("ate", clip, folds, correction)
        try:
            made = analyse(inputs, settings, recipe, np.random.default_rng(seed + k))
            found.append(ArmPairs(log.arms[k], rows, made, share=_share_met(adjusted.weights, rows, items)))
        except (OverlapError, EstimationError) as error:
            if asked:
                raise type(error)(f"arm {log.arms[k]!r} against {log.arms[0]!r}: {error}") from error
            found.append(ArmPairs(log.arms[k], rows, None, str(error)))
    return tuple(found)


def standing_for_all(w: F64, either: F64, rows: Ints, items: Ints | None) -> F64:
    """(m,) weights by which the rows that had either arm stand for all n rows: w / P(either | x), made to add up to each item's rows.

    An item's trait that no column shows may decide how many of its rows had either arm; without the second step the
    contrast would be that of another mix of items. Among the rows of an item the weights depend on x and on how many had either arm, not on which of the two
    nor on the outcome, so that partners stay independent; errors in them move the population and confound nothing.

    Parameters
    ----------
    w, either : (n,) row weights, and P(either arm | x)
    rows : (m,)
    items : (n,) codes, −1 where shown once; or None
    """
    found = (w / either)[rows]
    if items is None or (items < 0).all():
        return found
    known = items >= 0
    size = int(items.max()) + 1
    here = items[rows]
    whole = np.bincount(items[known], w[known], size)
    had = np.bincount(here[here >= 0], found[here >= 0], size)
    prior = PRIOR_ROWS * float(w.mean())
    return np.where(here >= 0, found * ((whole + prior) / (had + prior))[here], found)


def _share_met(w: F64, rows: Ints, items: Ints | None) -> float:
    """Share of the weight of all rows that is not of repeated items without one of these rows; those shown once are stood for by their like."""
    known = np.zeros(len(w), dtype=bool) if items is None else items >= 0
    if items is None or not known.any():
        return 1.0
    here = items[rows]
    met = np.bincount(here[here >= 0], minlength=int(items.max()) + 1) > 0
    return float(w[~known | met[np.maximum(items, 0)]].sum() / w.sum())


def effects(psi: F64, weights: F64, pairs: tuple[ArmPairs, ...]) -> Iterator[Effect]:
    """Of each arm against the control: the first-order one from psi (n, K), or what pairs of rows made of it."""
    n = len(psi)
    for k in range(1, psi.shape[1]):
        first = Effect(*scores.ratio_influence(psi[:, k] - psi[:, 0], np.ones(n), weights))
        by_pairs = pairs[k - 1] if pairs else None
        if by_pairs is None or by_pairs.analysis is None:
            yield first
        elif not by_pairs.corrected:
            yield replace(first, bias=by_pairs.may_remain)
        else:
            effect = by_pairs.analysis.effect
            influence = np.zeros(n)
            influence[by_pairs.rows] = effect.influence * n / len(by_pairs.rows)
            yield Effect(effect.value, influence, by_pairs.may_remain)
