"""How strong would a hidden confounder have to be? Robustness value and E-value, held against what was observed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from causalrec._display import Displayable
from causalrec.blocks import Block
from causalrec.estimate import Fit
from causalrec.estimate.analysis import Analysis
from causalrec.nuisance import refit_nuisances
from causalrec.nuisance.batch import TARGETS

F64 = npt.NDArray[np.float64]
Nodes = tuple[str, ...]
MOST = 10


@dataclass(frozen=True)
class Sensitivity(Displayable):
    """Sensitivity of the effect to confounders that were not measured.

    Attributes
    ----------
    robustness_value : float
        Share r such that a confounder that explains r of the residual variance of the outcome and of the
        treatment's weights could bring the effect to 0. Chernozhukov et al. (2022), *Long story short*.
    robustness_value_ci : float
        The same for the end of the 95 % interval that is nearer to 0; 0 if the interval includes it.
    e_value, e_value_ci : float or None
        VanderWeele & Ding (2017), on the risk-ratio scale; None for an outcome that is not 0/1.
    benchmarks : tuple of dict
        For each thing that was adjusted for (all representations of a text column together), as if it had not been:
        ``left_out``, ``gain_outcome`` and ``gain_treatment`` (shares as
        above), ``bias`` (the largest bias that a hidden confounder as strong could cause) and ``effect_without``.
    """

    robustness_value: float
    robustness_value_ci: float
    e_value: float | None
    e_value_ci: float | None
    benchmarks: tuple[dict[str, Any], ...]

    def _rows(self) -> list[dict[str, Any]]:
        return list(self.benchmarks)

    def _notes(self) -> list[str]:
        e = "" if self.e_value is None else f"; E-value {self.e_value:.2f} (interval {self.e_value_ci:.2f})"
        return [f"Robustness value {self.robustness_value:.3f} (interval {self.robustness_value_ci:.3f}){e}."]


def sensitivity(fit: Fit) -> Sensitivity:
    """Robustness value, E-value and benchmarks of a fit."""
    a = fit.analysis
    scale = bias_scale(a)
    nearest = 0.0 if fit.ci_lower <= 0 <= fit.ci_upper else min(abs(fit.ci_lower), abs(fit.ci_upper))
    e_value, e_value_ci = _e_values(fit)
    return Sensitivity(
        robustness_value(fit.effect, scale),
        robustness_value(nearest, scale),
        e_value,
        e_value_ci,
        benchmarks(a, scale),
    )


def bias_scale(a: Analysis) -> float:
    """S in |bias| ≤ S · C_Y · C_D: S² = E[(Y − m_T)²] · E[α²], with the Riesz representer α of the estimand.

    α = T/e − (1−T)/(1−e) for the ATE, (T − (1−T) e/(1−e)) / P(T=1) for the ATT, (T − e) / E[e(1−e)] for the ATO.
    Chernozhukov et al. (2022), theorem 2.
    """
    nu, t = a.nuisances, a.inputs.t
    residual = a.inputs.y - np.where(t == 1, nu.outcome_1, nu.outcome_0)
    return float(
        np.sqrt(
            np.average(residual**2, weights=nu.problem.w)
            * np.average(representer(a, nu.propensity) ** 2, weights=nu.problem.w)
        )
    )


def representer(a: Analysis, propensity: F64) -> F64:
    """(n,) Riesz representer of the estimand, at clipped propensities."""
    t, w = a.inputs.t, a.nuisances.problem.w
    e = a.settings.clip.apply(propensity)
    if a.settings.estimand == "att":
        return (t - (1 - t) * e / (1 - e)) / float(np.average(t, weights=w))
    if a.settings.estimand == "ato":
        return (t - e) / float(np.average(e * (1 - e), weights=w))
    return t / e - (1 - t) / (1 - e)


def robustness_value(effect: float, scale: float) -> float:
    """The r with |effect| = S √(r · r/(1 − r)):  r = (√(f⁴ + 4 f²) − f²)/2,  f = |effect|/S."""
    f2 = (effect / scale) ** 2
    return float((np.sqrt(f2**2 + 4 * f2) - f2) / 2)


def e_value(ratio: float) -> float:
    """RR + √(RR (RR − 1)), with RR turned to be at least 1."""
    rr = max(ratio, 1 / ratio) if ratio > 0 else float("inf")
    return float(rr + np.sqrt(rr * (rr - 1)))


def _e_values(fit: Fit) -> tuple[float | None, float | None]:
    a = fit.analysis
    if not a.nuisances.problem.binary:
        return None, None
    base = control_mean(a)
    if base <= 0:
        return None, None
    if base + fit.effect <= 0:
        return None, None
    value = e_value((base + fit.effect) / base)
    if fit.ci_lower <= 0 <= fit.ci_upper:
        return value, 1.0
    near = fit.ci_lower if fit.effect > 0 else fit.ci_upper
    return value, e_value(max((base + near) / base, 1e-9))


def control_mean(a: Analysis) -> float:
    """E[Y(0)] in the estimand's population, by AIPW (by the fitted mean under overlap weights for the ATO)."""
    nu, t, y, w = a.nuisances, a.inputs.t, a.inputs.y, a.nuisances.problem.w
    e, m0 = a.settings.clip.apply(nu.propensity), nu.outcome_0
    residual = (1 - t) * (y - m0)
    if a.settings.estimand == "att":
        return float((w * (t * m0 + residual * e / (1 - e))).sum() / (w * t).sum())
    if a.settings.estimand == "ato":
        return float((w * (e * (1 - e) * m0 + e * residual)).sum() / (w * e * (1 - e)).sum())
    return float(np.average(m0 + residual / (1 - e), weights=w))


def benchmarks(a: Analysis, scale: float) -> tuple[dict[str, Any], ...]:
    """Leave out, one at a time, what was adjusted for, MOST of it at the most, and refit.

    All representations of one text column are left out together: each of them alone has the others to stand in for it.
    """
    problem = a.nuisances.problem
    groups = strongest(a, together(a, problem.outcome_design.owners))
    if not groups:
        return ()
    t, y, w = (np.repeat(v[:, None], len(groups), axis=1) for v in (problem.t, problem.y, problem.w))
    short = refit_nuisances(a.nuisances, t, y, w, TARGETS, left_out=groups)
    return tuple(
        _benchmark(a, group, scale, short.propensity[:, r], short.outcome_0[:, r], short.outcome_1[:, r])
        for r, group in enumerate(groups)
    )


def together(a: Analysis, owners: tuple[str, ...]) -> tuple[Nodes, ...]:
    """The nodes in groups: blocks that were read from the same columns are one, everything else stands alone."""
    read_from = {c.name: c.columns for c in a.inputs.covariates if isinstance(c, Block)}
    groups: dict[tuple[str, ...], Nodes] = {}
    for name in owners:
        key = ("block", *read_from[name]) if name in read_from else ("column", name)
        groups[key] = (*groups.get(key, ()), name)
    return tuple(groups.values())


def strongest(a: Analysis, groups: tuple[Nodes, ...]) -> tuple[Nodes, ...]:
    """The groups whose coefficients move the fitted log-odds of exposure and outcome most."""
    ridge = a.nuisances.ridge
    if ridge is None or len(groups) <= MOST:
        return groups[:MOST]
    weight: dict[str, float] = {}
    for target, betas in ridge.betas.items():
        design = a.nuisances.problem.designs[target]
        variance = design.variances(np.ones((design.n, 1), dtype=np.float32))[:, 0]
        moved = (betas**2).mean(axis=1) * variance
        names = [owner for part in design.parts for owner in part.owners]
        for name, value in zip(names, moved[1:], strict=True):
            weight[name] = weight.get(name, 0.0) + float(value)
    return tuple(sorted(groups, key=lambda group: -sum(weight.get(name, 0.0) for name in group))[:MOST])


def _benchmark(a: Analysis, left_out: Nodes, scale: float, e: F64, m0: F64, m1: F64) -> dict[str, Any]:
    nu, t, y, w = a.nuisances, a.inputs.t, a.inputs.y, a.nuisances.problem.w
    loss_long = np.average((y - np.where(t == 1, nu.outcome_1, nu.outcome_0)) ** 2, weights=w)
    loss_short = np.average((y - np.where(t == 1, m1, m0)) ** 2, weights=w)
    gain_y = max(0.0, float((loss_short - loss_long) / loss_short))
    long, short = (np.average(representer(a, p) ** 2, weights=w) for p in (nu.propensity, e))
    gain_t = max(0.0, float(1 - short / long))
    numerator, denominator = a.settings.score(t, y, (e, m0, m1))
    return {
        "left_out": " + ".join(left_out),
        "gain_outcome": gain_y,
        "gain_treatment": gain_t,
        "bias": scale * float(np.sqrt(gain_y * gain_t / max(1 - gain_t, 1e-9))),
        "effect_without": float((w * numerator).sum() / (w * denominator).sum()),
    }
