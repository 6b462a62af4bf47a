"""What does more of it cause? The verb ``dose_response`` and its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from causalrec import scores
from causalrec._checks import as_generator, check_scalar
from causalrec._display import Displayable, fmt
from causalrec.errors import ArgumentError, EstimationError
from causalrec.estimate.dose_curve import Curve, by_kernel, by_level
from causalrec.estimate.several import Adjusted, adjust, back_door_nodes, check_call, check_options
from causalrec.identify import Plan
from causalrec.joint import DRAWS, covariance_of, largest, max_t
from causalrec.log import ImpressionLog
from causalrec.nuisance import Clip, Folds
from causalrec.nuisance.parallel import one_blas_thread

F64 = npt.NDArray[np.float64]
MAX_LEVELS = 12
"""A dose of at most so many values is taken level by level."""
DEFAULT_POINTS = 21
DEFAULT_RANGE = (0.05, 0.95)
DEFAULT_CLIP = Clip(0.02)
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class DoseResponse(Displayable):
    """θ(d) = E[Y(d)], the mean outcome had every row been given dose d, with a pointwise interval and a joint band.

    Attributes
    ----------
    log, plan : what was analysed, and what was adjusted for
    grid : (G,)
        Doses, increasing.
    effect : (G,)
        θ at each dose, clicks per impression.
    std_error, ci_lower, ci_upper : (G,)
        Pointwise, 95 %, clustered by unit (and item, where items repeat).
    band_lower, band_upper : (G,)
        Joint: covers the whole curve with 95 % confidence (max-t).
    ess : (G,)
        Effective rows behind each point.
    slope : Estimate or None
        Average derivative effect, E[∂Y(d)/∂d at d = D], per unit of the dose; for a dose of few values the slope of
        the straight line nearest to the levels' means, each weighted by its rows. None where a level is left out.
    unsupported : tuple of (dose, reason)
        Doses of the default grid that were left out.
    bandwidth : float or None
        In units of the dose, wider where rows are few; None for a dose of few values.
    share_clipped : float
        Share of the rows whose weight was held at its bound.
    p_constant : float
        P-value of a constant curve (max-t of each point against the mean of the points).
    influence : (n, G)
        Influence functions, mean zero.
    """

    log: ImpressionLog = field(repr=False)
    plan: Plan = field(repr=False)
    grid: F64
    effect: F64
    std_error: F64 = field(repr=False)
    ci_lower: F64 = field(repr=False)
    ci_upper: F64 = field(repr=False)
    band_lower: F64 = field(repr=False)
    band_upper: F64 = field(repr=False)
    ess: F64 = field(repr=False)
    slope: scores.Estimate | None = field(repr=False)
    unsupported: tuple[tuple[float, str], ...]
    bandwidth: float | None
    share_clipped: float
    p_constant: float
    influence: F64 = field(repr=False)
    adjusted: Adjusted = field(repr=False)

    def contrast(self, dose: float, against: float) -> scores.Estimate:
        """θ(dose) − θ(against), two doses of the grid.

        Raises
        ------
        ArgumentError
            A dose is not in the grid.
        """
        j, k = (self._place(check_scalar(d, n)) for d, n in ((dose, "dose"), (against, "against")))
        influence = self.influence[:, j] - self.influence[:, k]
        value = float(self.effect[j] - self.effect[k])
        return scores.estimate_of(value, influence, self.adjusted.units, self.adjusted.items)

    def rearranged(self, increasing: bool = True) -> DoseResponse:
        """The curve and its band made monotone by sorting.

        The band stays as wide on average, and covers no less often if the true curve is monotone in this direction.
        Chernozhukov, Fernández-Val & Galichon (2009), "Improving point and interval estimators of monotone functions by
        rearrangement", Biometrika 96. It holds for the joint band; the pointwise intervals are left as they were.
        """
        order = slice(None) if increasing else slice(None, None, -1)
        curve, lower, upper = (np.sort(v)[order] for v in (self.effect, self.band_lower, self.band_upper))
        return replace(self, effect=curve, band_lower=lower, band_upper=upper)

    def _place(self, dose: float) -> int:
        k = int(np.argmin(np.abs(self.grid - dose)))
        if abs(self.grid[k] - dose) > 1e-9 * max(1.0, abs(dose)):
            raise ArgumentError(
                f"dose {dose:g} is not in the grid {[float(f'{d:g}') for d in self.grid]}; pass it in grid= to dose_response."
            )
        return k

    def _title(self) -> str:
        name, outcome = self.log.roles.treatment[0], self.log.roles.outcome[0]
        unit = self.log.roles.unit[0] if self.log.roles.unit else "row (no unit declared)"
        item = (self.log.roles.item or self.log.roles.text or ("item",))[0]
        by = unit if self.adjusted.items is None else f"{unit} and {item}"
        return f"Dose-response of {name} → {outcome}: mean outcome at each dose, 95 %, clustered by {by}"

    def _rows(self) -> list[dict[str, Any]]:
        names = ("dose", "mean", "std_error", "ci_lower", "ci_upper", "band_lower", "band_upper", "ess")
        columns = (
            self.grid, self.effect, self.std_error, self.ci_lower, self.ci_upper, self.band_lower, self.band_upper, self.ess,
        )  # fmt: skip
        return [dict(zip(names, map(float, row), strict=True)) for row in zip(*columns, strict=True)]

    def _notes(self) -> list[str]:
        notes = [
            f"Population: all impressions of the log; {len(self.log):,} impressions, {self.log.n_units:,} units. "
            "ci_*: for one dose alone; band_*: for the whole curve.",
            f"A constant curve: p {_equals(self.p_constant)}.",
        ]
        if self.slope is not None:
            s = self.slope
            notes.append(
                f"Average effect of one more unit: {s.value:+.4g} [{s.ci_lower:+.4g}, {s.ci_upper:+.4g}]."
            )
        if self.bandwidth is not None:
            notes.append(
                f"Local parabolas of bandwidth {self.bandwidth:.3g}, wider where rows are few; {100 * self.share_clipped:.1f} % of the weights held at their bound."
            )
        notes += [f"Dose {d:g} is left out: {reason}." for d, reason in self.unsupported]
        return notes + [f"Untested: {a}" for a in self.plan.assumptions]


def dose_response(
    log: ImpressionLog,
    plan: Plan,
    *,
    grid: Sequence[float] | F64 | None = None,
    outcome_model: Any = None,
    dose_model: Any = None,
    bandwidth: float | None = None,
    clip: Clip | None = None,
    folds: Folds | None = None,
    random_state: int | np.random.Generator | None = None,
) -> DoseResponse:
    r"""Estimate the mean outcome had every row been given dose d, for the doses of a grid.

    With μ(x, d) = E[Y | x, d] and the density π(d | x), both cross-fitted by unit,

    .. math:: \hat\theta(d) = \frac1n \sum_i \mu(X_i, d) + \hat r(d)

    where r̂(d) is the value at d of a parabola fitted near d to the residuals Y − μ(X, D), each row weighted by a kernel
    around d and by 1/π(D | X) relative to the marginal density. It is right if either model is. This is the doubly
    robust curve of Kennedy, Ma, McHugh & Small (2017, J. R. Stat. Soc. B 79), with three changes: μ is known at d and is not
    smoothed, the weights are normalised, and the bandwidth is that of a local line, so that its bias is taken out. The density is that of D = m(x) + s(x) U.

    A dose of at most 12 values is taken level by level, with the scores of ``estimate_arms``; `outcome_model`,
    `dose_model` and `bandwidth` have no use there.

    Parameters
    ----------
    log : ImpressionLog
        Read with ``treatment_kind="dose"``.
    plan : Plan
    grid : doses, optional
        Default: 21 from the 5 % to the 95 % quantile (or the levels), those without support left out and named.
    outcome_model : scikit-learn regressor, optional
        Of the outcome in the covariates and, as the last column, the dose. Default: ridge regression with a cubic spline
        of the dose, and the dose interacting with every covariate.
    dose_model : scikit-learn regressor, optional
        Of the dose's mean. Default: ridge regression.
    bandwidth : float, optional
        In units of the dose, the same everywhere. Default: the best one for local lines, by cross-validation, and wider
        (up to .75 standard deviations of the dose) where fewer than 50 effective rows are near.
    clip : Clip
        Bound of π(d | x) relative to the marginal density (default .02), or of the probability of a level.
    folds : Folds
    random_state : int, Generator or None

    Returns
    -------
    DoseResponse

    Raises
    ------
    OverlapError
        A dose that was asked for has no support, or hardly any dose has; the message says which.
    LogError, EstimationError, IdentificationError, ArgumentError
    """
    log, plan = check_call("dose_response", log, plan)
    log.require_kind("dose", "dose_response")
    folds = check_options(folds, clip, None)
    wanted = _check_grid(grid, log)
    levels = np.unique(log.treatment)
    few = len(levels) <= MAX_LEVELS
    if few and (outcome_model is not None or dose_model is not None or bandwidth is not None):
        raise ArgumentError(
            f"the dose has {len(levels)} values and is taken level by level; outcome_model, dose_model and bandwidth must be None."
        )
    if bandwidth is not None:
        bandwidth = check_scalar(bandwidth, "bandwidth", gt=0)
    rng = as_generator(random_state)
    adjusted = adjust(log, back_door_nodes(plan), log.strata, folds, rng)
    if few:
        curve = by_level(log, adjusted, wanted, clip)
    else:
        low, high = (float(q) for q in np.quantile(log.treatment, DEFAULT_RANGE))
        default = np.linspace(low, high, DEFAULT_POINTS)
        with one_blas_thread():
            curve = by_kernel(
                log, adjusted, wanted, default, outcome_model, dose_model, bandwidth, clip or DEFAULT_CLIP
            )
    return _result(log, plan, adjusted, curve, rng)


def _check_grid(grid: Sequence[float] | F64 | None, log: ImpressionLog) -> F64 | None:
    if grid is None:
        return None
    try:
        doses = np.unique(np.asarray(grid, dtype=np.float64).ravel())
    except (TypeError, ValueError):
        raise ArgumentError(f"grid is {grid!r}, must be a list of doses (numbers).") from None
    if len(doses) < 2 or not np.isfinite(doses).all():
        raise ArgumentError(f"grid is {grid!r}, must hold at least two different finite doses.")
    low, high = float(log.treatment.min()), float(log.treatment.max())
    outside = doses[(doses < low) | (doses > high)]
    if len(outside):
        raise ArgumentError(
            f"grid holds {[float(d) for d in outside[:5]]}, outside the doses that were given ({low:g} to {high:g}); nothing in the log speaks of them."
        )
    return doses


def _result(
    log: ImpressionLog, plan: Plan, adjusted: Adjusted, curve: Curve, rng: np.random.Generator
) -> DoseResponse:
    """Intervals, band and test of a curve."""
    units, items = adjusted.units, adjusted.items
    points = [
        scores.estimate_of(float(v), curve.influence[:, k], units, items, at_most=int(few))
        for k, (v, few) in enumerate(zip(curve.effect, curve.n_units, strict=True))
    ]
    se = np.array([p.std_error for p in points])
    if not (se > 0).all():
        raise EstimationError(
            "the outcome does not vary near a dose of the grid; use a coarser grid or a longer log."
        )
    covariance, _ = covariance_of(curve.influence, units, items)
    df = max(min(*(p.n_clusters for p in points), int(curve.n_units.min())) - 1, 1)
    half = largest(covariance, df, LEVEL, DRAWS, rng) * se
    return DoseResponse(
        log, plan, curve.grid, curve.effect, se,
        np.array([p.ci_lower for p in points]), np.array([p.ci_upper for p in points]),
        curve.effect - half, curve.effect + half,
        curve.ess, curve.slope, curve.unsupported, curve.bandwidth, curve.share_clipped,
        _p_constant(curve.effect, covariance, df, rng), curve.influence, adjusted,
    )  # fmt: skip


def _p_constant(effect: F64, covariance: F64, df: int, rng: np.random.Generator) -> float:
    """P-value of the largest |t| of the points against their mean."""
    centred = np.eye(len(effect)) - 1 / len(effect)
    around = centred @ covariance @ centred
    sd = np.sqrt(np.maximum(np.diag(around), 0))
    statistic = float(np.max(np.abs(centred @ effect) / np.where(sd > 1e-12 * sd.max(), sd, np.inf)))
    draws = max_t(around, df, DRAWS, rng)
    return float((1 + (draws >= statistic).sum()) / (1 + len(draws)))


def _equals(p: float) -> str:
    shown = fmt(p, "p_value")
    return shown if shown.startswith("<") else f"= {shown}"
