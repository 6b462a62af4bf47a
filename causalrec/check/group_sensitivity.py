"""How strong would hidden causes have to be? The verb ``group_sensitivity``: for the effect, and in each group."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from causalrec import scores
from causalrec._checks import as_names, check_scalar, did_you_mean
from causalrec.check import msm
from causalrec.check.group_bounds import MOST_GAMMA, GroupBounds, GroupSensitivity
from causalrec.check.sensitivity import bias_scale, robustness_value, strongest, together
from causalrec.errors import ArgumentError, EstimationError
from causalrec.estimate import Fit
from causalrec.estimate.analysis import Analysis
from causalrec.estimate.caveats import units_in_smaller_arm
from causalrec.estimate.groups import group_effect, group_labels
from causalrec.estimate.same_pairs import clusters
from causalrec.nuisance import refit_nuisances

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
BINS = 4
LADDER = np.geomspace(1.0, MOST_GAMMA, 33)
"""Γ at which bounds are looked at for a breakdown, a tenth apart; between them it is interpolated."""
BENCHMARK_LEVEL = 0.9
"""Quantile, over rows, of the factor by which leaving something out changes the odds of exposure."""


@dataclass(frozen=True, eq=False)
class _Group:
    """Rows of a group with its effect at Γ = 1: clusters are numbered within the group."""

    by: str
    label: str
    here: Mask
    units: Ints
    items: Ints | None
    start: scores.Estimate | None
    at_most: int | None


def group_sensitivity(
    fit: Fit,
    by: str | Iterable[str] | None = None,
    *,
    gamma: float | Iterable[float] = (1.0, 1.25, 1.5, 2.0, 3.0),
) -> GroupSensitivity:
    """Ask of the effect, and of each group's, how strong hidden causes would have to be to explain it away.

    Three answers each: robustness values; bounds under a marginal sensitivity model, sharp, from doubly robust scores on the
    fit's own nuisances (``msm``); and the breakdown Γ, beside what leaving out known causes amounts to.
    Nothing is drawn at random. Where the fit is corrected by pairs of rows the bounds start from the corrected effect: Γ
    then measures causes beyond those that pairs of rows have taken out.

    Parameters
    ----------
    fit : Fit
        Of the ATE or the ATT.
    by : str or list of str, optional
        Declared modifiers, numbers in quarters; each gives groups of its own. None: everyone only.
    gamma : float or list of float
        Factors, at least 1, at which bounds are reported.

    Returns
    -------
    GroupSensitivity

    Raises
    ------
    EstimationError
        The estimand is the ATO, or `by` is no declared modifier.
    ArgumentError
        A Γ below 1, or no fit.
    """
    if not isinstance(fit, Fit):
        raise ArgumentError(f"group_sensitivity takes a Fit; got a {type(fit).__name__}.")
    grid, names, a = _grid(gamma), as_names(by, "by"), fit.analysis
    if a.settings.estimand == "ato":
        raise EstimationError(
            "the fit's estimand is the ATO, whose weights would change with the hidden causes; bounds are for the ATE and the "
            'ATT: group_sensitivity(fit.under("ate")).'
        )
    groups = [_everyone(a)]
    for name in names:
        declared = fit.log.roles.modifiers
        if name not in declared:
            raise EstimationError(
                f"by has {name!r}, which is not a declared modifier; declared are {list(declared)}.{did_you_mean(name, declared)} Declare it in read_log."
            )
        labels = group_labels(fit.log.frame[name], BINS)
        groups += [_group(a, name, str(v), (labels == v).to_numpy()) for v in labels.cat.categories]
    curves = _curves(a, _sample(fit), groups, grid)
    factors, remarks = _odds_factors(a)
    if fit.nuisances.logged:
        remarks += (
            "The propensity is logged: no hidden cause has changed the odds, unless the log is wrong.",
        )
    found = tuple(_finish(a, g, grid, c, factors) for g, c in zip(groups, curves, strict=True))
    return GroupSensitivity(fit.estimand, found, remarks)


def _grid(gamma: float | Iterable[float]) -> tuple[float, ...]:
    values = tuple(gamma) if isinstance(gamma, Iterable) else (gamma,)
    if not values:
        raise ArgumentError("gamma is empty; must hold at least one factor >= 1.")
    return tuple(sorted({check_scalar(v, "gamma", ge=1, le=1000) for v in values}))


def _sample(fit: Fit) -> msm.Sample:
    a, nu = fit.analysis, fit.nuisances
    clip = a.settings.clip
    e = clip.apply_above(nu.propensity) if a.settings.estimand == "att" else clip.apply(nu.propensity)
    x = fit.modifiers.apply(fit.log.frame)
    return msm.Sample(
        a.inputs.t, a.inputs.y, nu.problem.w, e, nu.outcome_0, nu.outcome_1, nu.fold, nu.problem.binary,
        np.zeros((len(e), 0)) if x is None else x,
    )  # fmt: skip


def _everyone(a: Analysis) -> _Group:
    here, items = np.ones(len(a.inputs.t), dtype=bool), clusters(a.inputs, a.correction)
    return _Group(
        "everyone", "everyone", here, a.inputs.units, items, a.effect, units_in_smaller_arm(a.inputs)
    )


def _group(a: Analysis, by: str, label: str, here: Mask) -> _Group:
    """A group with its effect, None where ``fit.by`` gives none."""
    t, items = a.inputs.t[here], clusters(a.inputs, a.correction)
    units = np.unique(a.inputs.units[here], return_inverse=True)[1]
    within = None if items is None else np.unique(items[here], return_inverse=True)[1]
    group = _Group(by, label, here, units, within, None, None)
    of_all = group_effect(a, here)
    if of_all is None:
        return group
    influence = of_all.influence[here] * here.mean()  # of a mean over the group instead of over all rows
    few = min(len(np.unique(units[t == arm])) for arm in (0, 1))
    return replace(group, start=replace(of_all, influence=influence), at_most=few)


Bounds = tuple[float, float, float, float]


def _curves(
    a: Analysis, sample: msm.Sample, groups: Sequence[_Group], grid: tuple[float, ...]
) -> list[dict[float, Bounds]]:
    """Γ → (lower, upper, lower_ci, upper_ci) of each group, on the grid and up the ladder until all intervals include 0."""
    curves: list[dict[float, Bounds]] = [{} for _ in groups]
    open_ = [k for k, g in enumerate(groups) if g.start is not None]
    for value in sorted({*grid, *LADDER.tolist()}):
        if value not in grid and not open_:
            continue
        added = msm.excess(sample, a.settings.estimand, value)
        for k, g in enumerate(groups):
            if g.start is not None and (value in grid or k in open_):
                curves[k][value] = _bounds(a, g, added)
        open_ = [k for k in open_ if not curves[k][value][0] <= 0 <= curves[k][value][1]]
    return curves


def _bounds(a: Analysis, g: _Group, added: msm.Excess) -> Bounds:
    assert g.start is not None
    w = None if a.inputs.weights is None else a.inputs.weights[g.here]
    ends = []
    for excess in added:
        more, influence = scores.ratio_influence(excess[g.here], a.pair[1][g.here], w)
        ends.append(
            scores.estimate_of(
                g.start.value + more,
                g.start.influence + influence,
                g.units,
                g.items,
                at_most=g.at_most,
                bias=g.start.bias_bound,
            )
        )
    low, high = ends
    return low.value, high.value, low.ci_lower, high.ci_upper


def _breakdown(curve: dict[float, Bounds], low: int, high: int) -> float:
    """Least Γ at which [bounds[low], bounds[high]] includes 0, linear between the Γ that were looked at."""
    before = None
    for gamma, bounds in sorted(curve.items()):
        inside = min(bounds[high], -bounds[low])  # >= 0 if 0 is in the interval
        if inside >= 0:
            if before is None:
                return 1.0 if gamma == 1 else gamma
            return before[0] + (gamma - before[0]) * before[1] / (before[1] - inside)
        before = (gamma, inside)
    return float("inf")


def _finish(
    a: Analysis, g: _Group, grid: tuple[float, ...], curve: dict[float, Bounds], factors: dict[str, F64]
) -> GroupBounds:
    bare = GroupBounds(g.by, g.label, int(g.here.sum()), int(g.units.max()) + 1)
    if g.start is None:
        return bare
    problem = a.nuisances.problem
    only = replace(a.nuisances, problem=replace(problem, w=np.where(g.here, problem.w, 0.0)))
    scale, e = bias_scale(replace(a, nuisances=only)), g.start
    nearest = 0.0 if e.ci_lower <= 0 <= e.ci_upper else min(abs(e.ci_lower), abs(e.ci_upper))
    lower, upper, lower_ci, upper_ci = zip(*(curve[v] for v in grid), strict=True)
    return replace(
        bare,
        effect=e.value,
        ci_lower=e.ci_lower,
        ci_upper=e.ci_upper,
        robustness_value=robustness_value(e.value, scale),
        robustness_value_ci=robustness_value(nearest, scale),
        gamma=grid,
        lower=lower,
        upper=upper,
        lower_ci=lower_ci,
        upper_ci=upper_ci,
        breakdown=_breakdown(curve, 2, 3),
        breakdown_point=_breakdown(curve, 0, 1),
        benchmarks=tuple((k, float(np.quantile(v[g.here], BENCHMARK_LEVEL))) for k, v in factors.items()),
    )


def _odds_factors(a: Analysis) -> tuple[dict[str, F64], tuple[str, ...]]:
    """For each thing adjusted for, (n,) factor by which leaving it out changes a row's odds of exposure; and what is missing."""
    nu, problem, clip = a.nuisances, a.nuisances.problem, a.settings.clip
    groups = strongest(a, together(a, problem.propensity_design.owners))
    if nu.logged or not groups:
        return {}, ()
    t, y, w = (np.repeat(v[:, None], len(groups), axis=1) for v in (problem.t, problem.y, problem.w))
    try:
        short = refit_nuisances(nu, t, y, w, ("propensity",), left_out=groups)
    except EstimationError as error:
        return {}, (f"No benchmarks: {error}",)
    log_odds = _log_odds(clip.apply(nu.propensity))
    return {
        " + ".join(names): np.exp(np.abs(log_odds - _log_odds(clip.apply(short.propensity[:, r]))))
        for r, names in enumerate(groups)
    }, ()


def _log_odds(e: F64) -> F64:
    return np.log(e) - np.log1p(-e)
