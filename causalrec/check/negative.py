"""Negative controls: outcomes that the exposure cannot have moved, so that any effect on them is bias."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from causalrec import scores
from causalrec.check.refuters import CheckRecord
from causalrec.errors import EstimationError
from causalrec.estimate import Fit
from causalrec.nuisance import fit_nuisances


def negative_controls(fit: Fit) -> tuple[CheckRecord, ...]:
    """The fit's estimator on each declared negative-control outcome; p-values adjusted by Holm's method.

    Lipsitch, Tchetgen Tchetgen & Cohen (2010).
    """
    names = fit.log.roles.negative_controls
    tried = {name: _effect_on(fit, name) for name in names}
    refused = tuple(r for r in tried.values() if isinstance(r, CheckRecord))
    names = tuple(name for name, r in tried.items() if not isinstance(r, CheckRecord))
    estimates = [r for r in tried.values() if not isinstance(r, CheckRecord)]
    p_values = [e.p_value for e in estimates]
    order = np.argsort(p_values)
    adjusted = np.empty(len(names))
    running = 0.0
    for rank, j in enumerate(order):
        running = max(running, min(1.0, p_values[j] * (len(names) - rank)))
        adjusted[j] = running
    return (
        *(_record(name, e, float(p)) for name, e, p in zip(names, estimates, adjusted, strict=True)),
        *refused,
    )


def _effect_on(fit: Fit, name: str) -> scores.Estimate | CheckRecord:
    """The effect on one control, or a record that says why there is none."""
    a = fit.analysis
    y = fit.log.frame[name].to_numpy(dtype=np.float64)
    problem = replace(
        a.nuisances.problem, y=y, binary=bool(np.isin(y, (0.0, 1.0)).all()), logged=a.nuisances.propensity
    )
    try:
        nu = fit_nuisances(problem, a.nuisances.recipe)
    except EstimationError as error:
        said = f"{name!r} varies too little to serve as a negative control: {error}"
        return CheckRecord(f"negative_control:{name}", None, float("nan"), None, said)
    pair = a.settings.score(a.inputs.t, y, (nu.propensity, nu.outcome_0, nu.outcome_1))
    return scores.clustered_ratio(pair, a.inputs.units, None, a.inputs.weights)


def _record(name: str, e: scores.Estimate, p: float) -> CheckRecord:
    ok = p > 0.05
    said = f"On {name!r}, which the exposure cannot have moved, the estimator finds {e.value:+.4f} [{e.ci_lower:+.4f}, {e.ci_upper:+.4f}]"
    tail = (
        ", compatible with none."
        if ok
        else ": what is adjusted for leaves a difference between the arms. The effect shares this bias."
    )
    return CheckRecord(f"negative_control:{name}", ok, e.value, p, said + tail)
