"""The doubly robust curve of a dose, by local parabolas or level by level, with influence functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from causalrec import scores
from causalrec.errors import EstimationError, OverlapError
from causalrec.estimate.arm_overlap import fit_arm, measure_arm, why_no_overlap
from causalrec.estimate.dose_models import DoseModels
from causalrec.estimate.overlap import MAX_CLIPPED, MIN_ESS
from causalrec.estimate.several import Adjusted
from causalrec.estimate.smooth import CANDIDATES, choose_width, kernel, local_parabola
from causalrec.log import MIN_ARM, ImpressionLog
from causalrec.nuisance import Clip

F64 = npt.NDArray[np.float64]
MIN_UNITS = 10
MIN_POINTS = 3
WIDEN = 1.4
"""By which the bandwidth grows, step by step, where rows are few."""


@dataclass(frozen=True, eq=False)
class Curve:
    """A curve on G doses, before intervals; ``influence`` is (n, G), all else as in ``DoseResponse``."""

    grid: F64
    effect: F64
    influence: F64
    ess: F64
    n_units: F64
    slope: scores.Estimate | None
    unsupported: tuple[tuple[float, str], ...]
    bandwidth: float | None
    share_clipped: float


def by_kernel(
    log: ImpressionLog,
    adjusted: Adjusted,
    wanted: F64 | None,
    default: F64,
    outcome_model: Any,
    dose_model: Any,
    bandwidth: float | None,
    clip: Clip,
) -> Curve:
    """The curve of a dose with many values; see ``dose_response``.

    Raises
    ------
    OverlapError
        A wanted dose, or all but a few of the default ones, have no support.
    """
    dose, w = log.treatment, adjusted.weights
    models = DoseModels.fit(adjusted, dose, log.outcome, outcome_model, dose_model)
    marginal = models.marginal(w)
    relative = models.density(dose) / np.interp(dose, *marginal)
    omega = w / np.maximum(relative, clip.bound)
    residual = log.outcome - models.outcome
    width = bandwidth or choose_width(dose, residual, omega, adjusted.fold)
    widest = width if bandwidth else max(width, max(CANDIDATES) * float(dose.std()))
    near = _Neighbours(models, marginal, adjusted, omega, clip, (width, widest))
    points, left_out = {}, []
    for d in map(float, default if wanted is None else wanted):
        found = near.width_at(d)
        if isinstance(found, str):
            left_out.append((d, found))
        else:
            points[d] = _point(d, found, models, residual, omega, adjusted)
    grid, unsupported = _keep(list(points), left_out, wanted is not None)
    effect, influence, ess, n_units = (list(v) for v in zip(*points.values(), strict=True))
    clipped = float((relative < clip.bound)[w > 0].mean())
    slope = _average_derivative(models, residual, adjusted)
    return Curve(
        grid, np.array(effect), np.column_stack(influence), np.array(ess), np.array(n_units), slope, unsupported, width, clipped,
    )  # fmt: skip


def _point(
    d: float, width: float, models: DoseModels, residual: F64, omega: F64, adjusted: Adjusted
) -> tuple[float, F64, float, float]:
    """(θ(d), its influence function (n,), effective rows, units near it)."""
    w = adjusted.weights
    mean, of_mean = scores.ratio_influence(models.outcome_at(d), np.ones_like(w), w)
    left, of_left, weights = local_parabola(models.dose, residual, omega, d, width)
    return mean + left, of_mean + of_left, scores.ess(weights), float(adjusted.units_with(weights > 0))


@dataclass(frozen=True, eq=False)
class _Neighbours:
    """Which rows stand for a dose, and how far from it they have to be fetched.

    Attributes
    ----------
    marginal : (doses, density)
    omega : (n,) weights of the rows
    widths : the bandwidth, and the largest that it may be widened to where rows are few
    """

    models: DoseModels
    marginal: tuple[F64, F64]
    adjusted: Adjusted
    omega: F64
    clip: Clip
    widths: tuple[float, float]

    def width_at(self, d: float) -> float | str:
        """The bandwidth at this dose, or the reason why it has no support."""
        thin = self.models.density(d) < self.clip.bound * np.interp(d, *self.marginal)
        share = float(np.average(thin, weights=self.adjusted.weights))
        if share > MAX_CLIPPED:
            return f"{100 * share:.0f} % of the rows could hardly have had it (more than {100 * MAX_CLIPPED:.0f} %)"
        width, widest = self.widths
        while (reason := self._too_few(d, width)) and width < widest:
            width = min(WIDEN * width, widest)
        return reason or width

    def _too_few(self, d: float, width: float) -> str:
        near = kernel((self.models.dose - d) / width) * self.omega
        effective, units = scores.ess(near), self.adjusted.units_with(near > 0)
        if effective >= MIN_ESS and units >= MIN_UNITS:
            return ""
        return f"{int((near > 0).sum()):,} rows of {units:,} units lie near it, {effective:.0f} effective (must be >= {MIN_ESS:.0f}, and >= {MIN_UNITS} units)"


def _keep(
    kept: list[float], left_out: list[tuple[float, str]], asked: bool
) -> tuple[F64, tuple[tuple[float, str], ...]]:
    """Raise ``OverlapError`` if a dose that was asked for is left out, or too few remain."""
    if left_out and (asked or len(kept) < MIN_POINTS):
        named = "; ".join(f"dose {d:g}: {reason}" for d, reason in left_out[:4])
        more = f"; and {len(left_out) - 4} more" if len(left_out) > 4 else ""
        raise OverlapError(
            f"the mean outcome at {len(left_out)} of {len(left_out) + len(kept)} doses would be an extrapolation ({named}{more}). "
            + (
                "Take these doses out of grid=."
                if asked
                else "What is adjusted for all but decides the dose: ask for fewer doses with grid=, or adjust for less."
            )
        )
    return np.array(kept), tuple(left_out)


def _average_derivative(models: DoseModels, residual: F64, adjusted: Adjusted) -> scores.Estimate:
    """E[∂μ(X, D)/∂D + α (Y − μ)], α = −∂ log π(D | X)/∂D; where the density is zero at the ends of the dose's range.

    Powell, Stock & Stoker (1989); Chernozhukov, Newey & Singh (2022), example 3.
    """
    step = 0.1 * float(models.dose.std())
    ahead, behind = (models.outcome_at(models.dose + s * step) for s in (0.5, -0.5))
    psi = (ahead - behind) / step + models.representer(adjusted.weights) * residual
    pair = (psi, np.ones_like(psi))
    return scores.clustered_ratio(pair, adjusted.units, adjusted.items, adjusted.weights)


def by_level(log: ImpressionLog, adjusted: Adjusted, wanted: F64 | None, clip: Clip | None) -> Curve:
    """The curve of a dose with few values: each value is an arm, scored as in ``estimate_arms``.

    Raises
    ------
    OverlapError
        A wanted level, or all but two, have no support.
    """
    dose, w = log.treatment, adjusted.weights
    levels, counts = np.unique(dose, return_counts=True)
    if wanted is not None and not np.isin(wanted, levels).all():
        raise OverlapError(
            f"grid holds {[float(d) for d in wanted[~np.isin(wanted, levels)]]}, but the dose has the values {[float(d) for d in levels]} only."
        )
    columns, left_out = {}, []
    for level, count in zip(levels, counts, strict=True):
        if wanted is not None and level not in wanted:
            continue
        bound = clip or Clip(min(Clip().bound, count / len(dose) / 10))
        found = _level(log, adjusted, float(level), int(count), bound)
        if isinstance(found, str):
            left_out.append((float(level), found))
        else:
            columns[float(level)] = found
    grid, unsupported = _keep(list(columns), left_out, wanted is not None)
    psi = np.column_stack([columns[float(d)][0] for d in grid])
    ones = np.ones(len(dose))
    means = [scores.ratio_influence(psi[:, k], ones, w) for k in range(len(grid))]
    effect, influence = np.array([m for m, _ in means]), np.column_stack([phi for _, phi in means])
    rows = [columns[float(d)][1] for d in grid]
    share = np.bincount(np.searchsorted(levels, dose), w, len(levels)).astype(np.float64)
    complete = len(grid) == len(levels)
    slope = _slope_of_levels(grid, share, effect, influence, adjusted) if complete else None
    return Curve(
        grid, effect, influence, np.array([o.ess for o in rows]), np.array([o.n_units for o in rows]),
        slope, unsupported, None, max(o.share_clipped for o in rows),
    )  # fmt: skip


def _level(log: ImpressionLog, adjusted: Adjusted, level: float, count: int, clip: Clip) -> Any:
    """(scores (n,), ArmOverlap) of one level, or the reason why it has no support."""
    given = log.treatment == level
    if count < MIN_ARM or adjusted.units_with(given) < MIN_UNITS:
        return f"it was given in {count:,} rows of {adjusted.units_with(given):,} units (must be >= {MIN_ARM} rows, {MIN_UNITS} units)"
    try:
        fitted = fit_arm(level, given, log.outcome, adjusted, None)
    except EstimationError as error:
        return str(error)
    found = measure_arm(level, given, fitted.propensity, adjusted, clip)
    reason = why_no_overlap(found, clip, known=False)
    if reason:
        return reason
    e = np.maximum(fitted.propensity, clip.bound)
    return fitted.outcome_1 + given * (log.outcome - fitted.outcome_1) / e, found


def _slope_of_levels(
    grid: F64, share: F64, effect: F64, influence: F64, adjusted: Adjusted
) -> scores.Estimate:
    """The least-squares slope of the levels' means on the dose, weighted by the rows' share of each level (taken as given)."""
    p = share / share.sum()
    centred = p * (grid - p @ grid)
    weights = centred / (centred @ grid)
    return scores.estimate_of(float(weights @ effect), influence @ weights, adjusted.units, adjusted.items)
