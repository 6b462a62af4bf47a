"""Negative controls: what the exposure cannot have moved, and an exposure that cannot have moved anything yet.

Lipsitch, Tchetgen Tchetgen & Cohen (2010). A click before the exposure must show no effect of it; and the *next*
exposure of the same user must show none on today's click. Standard errors are clustered by user, and by item
where one is declared; p-values are adjusted over all controls by Holm's method.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec import scores
from causalrec.check.refuters import CheckRecord
from causalrec.errors import EstimationError
from causalrec.estimate import Fit
from causalrec.estimate.analysis import analyse
from causalrec.joint import holm

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
FUTURE = "negative_control:future_exposure"
LEAST_PAIRS = 100
"""Pairs of one user's neighbouring impressions from which the future exposure is looked at."""
LEVEL = 0.05


def negative_controls(fit: Fit) -> tuple[CheckRecord, ...]:
    """The fit's estimator on each declared negative-control outcome, and today's clicks against the next exposure.

    The latter needs ``time=`` and ``unit=``. P-values over all of them are adjusted by Holm's method.
    """
    tried = {name: effect_on(fit, name) for name in fit.log.roles.negative_controls}
    refused = tuple(r for r in tried.values() if isinstance(r, CheckRecord))
    found = {name: r for name, r in tried.items() if not isinstance(r, CheckRecord)}
    future = future_exposure(fit)
    p_values = [e.p_value for e in found.values()] + ([] if future is None else [future.p_value])
    adjusted = holm(np.array(p_values))
    records = [_record(name, e, float(p)) for (name, e), p in zip(found.items(), adjusted, strict=False)]
    if future is not None:
        records.append(_future_record(future, float(adjusted[-1]), fit.analysis.correction.kernels))
    return (*records, *refused)


def effect_on(fit: Fit, name: str) -> scores.Estimate | CheckRecord:
    """The effect on one control column, or a record that says why there is none.

    The estimator is that of the fit, of the same order and with the same pairs of rows: nuisances are fitted anew.
    """
    a = fit.analysis
    y = fit.log.frame[name].to_numpy(dtype=np.float64)
    order: Literal[1, 2] = 2 if a.correction.order == 2 else 1
    done = replace(a.settings.correction, order=order, kernels=a.correction.kernels or None)
    settings = replace(a.settings, correction=done)
    rng = np.random.default_rng(fit.seed)
    try:
        return analyse(replace(a.inputs, y=y), settings, a.nuisances.recipe, rng).effect
    except EstimationError as error:
        said = f"{name!r} varies too little to serve as a negative control: {error}"
        return CheckRecord(f"negative_control:{name}", None, float("nan"), None, said)


def future_exposure(fit: Fit) -> scores.Estimate | None:
    """Partially linear effect of a user's next exposure on today's outcome, which it cannot have moved.

    With k' the user's next impression after k:  θ = Σ (T_k' − e_k') (Y_k − m_T(X_k)) / Σ (T_k' − e_k')².

    Zero where today's covariates and exposure explain today's outcome, or the next covariates the next exposure, up to
    chance; a hidden trait of the user that acts on both moves it. All of a user's rows share a fold, so that both
    residuals are out of fold. Robinson (1988); Flanders et al. (2011), "A method for detection of residual
    confounding", Epidemiology 22(1).

    Returns
    -------
    Estimate, clustered by user and, where one is declared, item of today's rows; None without ``time=`` and ``unit=`` or with too few pairs.
    """
    if not (fit.log.roles.time and fit.log.roles.unit):
        return None
    a = fit.analysis
    nu, t = a.nuisances, a.inputs.t
    today, later = next_impressions(a.inputs.units, _moments(fit))
    of_exposure = (t - nu.propensity)[later]
    if len(today) < LEAST_PAIRS or not np.ptp(of_exposure) > 0:
        return None
    of_outcome = (a.inputs.y - np.where(t == 1, nu.outcome_1, nu.outcome_0))[today]
    weights = None if a.inputs.weights is None else a.inputs.weights[today]
    if weights is not None and not weights.any():
        return None
    units = np.unique(a.inputs.units[today], return_inverse=True)[1]
    items = None if a.inputs.items is None else np.unique(a.inputs.items[today], return_inverse=True)[1]
    pair = (of_exposure * of_outcome, of_exposure**2)
    return scores.clustered_ratio(pair, units, _items(items), weights)


def next_impressions(units: Ints, moments: Ints) -> tuple[Ints, Ints]:
    """(today, later), row numbers of each unit's neighbouring impressions, the second strictly later.

    Impressions of one moment (a page of several items) are neighbours of nobody at that moment.
    """
    order = np.lexsort((moments, units))
    same = units[order][1:] == units[order][:-1]
    later = same & (moments[order][1:] > moments[order][:-1])
    return order[:-1][later], order[1:][later]


def _moments(fit: Fit) -> Ints:
    """(n,) rank of each row's time: of the last declared one, which is nearest to the impression."""
    column = fit.log.frame[fit.log.roles.time[-1]]
    if not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column)):
        column = pd.to_datetime(column, utc=True)
    return np.unique(column.to_numpy(), return_inverse=True)[1].astype(np.int64)


def _items(items: Ints | None) -> Ints | None:
    """Items to cluster by, or None where there are too few for a variance."""
    return None if items is None or int(items.max()) < 1 else items


def _record(name: str, e: scores.Estimate, p: float) -> CheckRecord:
    ok = p > LEVEL
    said = f"On {name!r}, which the exposure cannot have moved, the estimator finds {_interval(e)}"
    tail = (
        ", compatible with none."
        if ok
        else ": what is adjusted for leaves a difference between the arms. The effect shares this bias."
    )
    return CheckRecord(f"negative_control:{name}", ok, e.value, p, said + tail)


def _future_record(e: scores.Estimate, p: float, kernels: tuple[str, ...]) -> CheckRecord:
    """A verdict only where nothing is found: a recommender that reacts to clicks moves the next exposure too."""
    ok = p > LEVEL
    said = f"The user's next exposure, which cannot have moved today's clicks, goes with a difference in them of {_interval(e)}"
    why = (
        ": either something about the users that was not adjusted for moves both, or the recommender reacts to "
        "their clicks. "
    )
    then = (
        "What is constant in a user, pairs of a user's rows have taken out of the effect."
        if "same_user" in kernels
        else "If it does not, the effect is biased."
    )
    tail = ", compatible with none." if ok else why + then
    return CheckRecord(FUTURE, True if ok else None, e.value, p, said + tail)


def _interval(e: scores.Estimate) -> str:
    return f"{e.value:+.4f} [{e.ci_lower:+.4f}, {e.ci_upper:+.4f}]"
