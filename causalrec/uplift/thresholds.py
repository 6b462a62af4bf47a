"""From predicted effects to who is served: prices, limits, and the cut-offs that they imply on the training users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from causalrec._checks import check_scalar
from causalrec.errors import ArgumentError
from causalrec.estimate import Fit
from causalrec.log import ImpressionLog
from causalrec.uplift.fairness import GroupCurve, choose_shares
from causalrec.uplift.policy import CutOffs, Predictor, Prices, cut_offs
from causalrec.uplift.protected import Groups

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Limits:
    """How many may be served, and how evenly.

    Attributes
    ----------
    budget : float or None
        Share of the impressions.
    min_share : float
        Of every protected group; 0 is no constraint.
    max_gap : float or None
        Between the groups' predicted effects among those served, clicks per impression.
    """

    budget: float | None
    min_share: float
    max_gap: float | None

    @property
    def by_group(self) -> bool:
        """Whether groups need cut-offs of their own."""
        return self.min_share > 0 or self.max_gap is not None


def check_prices(value: float, cost: float) -> Prices:
    """Prices, or ``ArgumentError`` where the cost is negative or the value not positive."""
    if check_scalar(cost, "cost") < 0:
        raise ArgumentError(
            f"cost is {cost!r}, must be >= 0: what one recommendation costs, in the unit of value=. "
            "If recommending earns something by itself, add it to value=."
        )
    return Prices(check_scalar(value, "value", gt=0), float(cost))


def check_limits(
    budget: float | None, protected: Any, min_share: float | None, max_gap: float | None
) -> Limits:
    """Limits, or ``ArgumentError`` where one is out of its bounds, has no groups, or contradicts another."""
    if budget is not None and check_scalar(budget, "budget") == 0:
        raise ArgumentError(
            "budget is 0: no one is recommended anything, and every policy gains exactly 0. Pass a share in (0, 1], or None."
        )
    share = None if budget is None else check_scalar(budget, "budget", gt=0, le=1)
    least = 0.0 if min_share is None else check_scalar(min_share, "min_share", ge=0, le=1)
    gap = None if max_gap is None else check_scalar(max_gap, "max_gap", gt=0)
    if protected is None and (min_share is not None or max_gap is not None):
        raise ArgumentError(
            "min_share and max_gap bound what differs between protected groups, and protected is None; name a declared column."
        )
    if share is not None and least > share:
        raise ArgumentError(
            f"min_share is {least:g} and budget {share:g}: serving every group that share takes more than the budget; lower one or raise the other."
        )
    return Limits(share, least, gap)


def free_cut(predictor: Predictor, fit: Fit, w: F64, prices: Prices, budget: float | None) -> CutOffs:
    """Serve what is predicted to gain; on a budget, the best of it."""
    priority = prices.net(predictor.effect(fit, fit.log))
    gains = np.average(priority > 0, weights=w)
    if budget is None or gains <= budget:
        return CutOffs((0.0,), (0.0,))
    return cut_offs(priority, w, np.zeros(len(w), dtype=np.int64), np.array([budget]))


def fair_cut(
    predictor: Predictor, fit: Fit, w: F64, prices: Prices, limits: Limits, groups: Groups
) -> CutOffs:
    """Cut-offs of each group under the constraints, chosen on the training users."""
    effect, codes = predictor.effect(fit, fit.log), groups.codes(fit.log, "training")
    priority = prices.net(effect)
    curves = [
        GroupCurve.of(priority[codes == k], effect[codes == k], w[codes == k], float(w.sum()))
        for k in range(len(groups.names))
    ]
    shares = choose_shares(curves, limits.budget or 1.0, limits.min_share, limits.max_gap)
    return cut_offs(priority, w, codes, shares)


def served_by(
    policies: Mapping[str, tuple[Predictor, CutOffs]],
    fit: Fit,
    log: ImpressionLog,
    prices: Prices,
    codes: Ints | None,
) -> dict[str, F64]:
    """(n,) probabilities of being served, by policy."""
    one = np.zeros(len(log), dtype=np.int64)
    return {
        name: cut.served(
            prices.net(p.effect(fit, log)), one if codes is None or len(cut.above) == 1 else codes
        )
        for name, (p, cut) in policies.items()
    }
