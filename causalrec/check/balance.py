"""Are the arms alike once weighted? Judged on things that the fit has not used."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec.check.refuters import CheckRecord
from causalrec.estimate import Fit
from causalrec.estimate.overlap import balancing_weights
from causalrec.log import ImpressionLog

F64 = npt.NDArray[np.float64]
LIMIT = 0.1
"""Standardised mean difference above which arms count as unlike (Austin 2009)."""


def balance(fit: Fit) -> tuple[tuple[dict[str, Any], ...], CheckRecord]:
    """Standardised mean differences before and after weighting by 1/e and 1/(1−e), and their record.

    SMD = (mean₁ − mean₀) / √((var₁ + var₀)/2), variances before weighting. Columns: numeric columns of the table
    without a role, and the length of each text in words and letters; none of them was used in the fit.
    """
    t = fit.log.treatment
    base = np.ones_like(t) if fit.log.weights is None else fit.log.weights
    settings = fit.analysis.settings
    w = base * balancing_weights(t, fit.nuisances.propensity, settings.clip, settings.estimand)
    rows: tuple[dict[str, Any], ...] = tuple(
        {"column": name, "before": smd(x, t, base), "after": smd(x, t, w)}
        for name, x in held_back(fit.log).items()
    )
    if not rows:
        return (), CheckRecord(
            "balance",
            None,
            float("nan"),
            None,
            "No column was held back from the fit, so that balance cannot be checked on one.",
        )
    worst = max(rows, key=lambda r: abs(r["after"]))
    by_chance = 3 * float(np.sqrt(1 / fit.overlap.ess_treated + 1 / fit.overlap.ess_control))
    ok = abs(worst["after"]) < max(LIMIT, by_chance)
    before = max(abs(r["before"]) for r in rows)
    message = (
        f"On {len(rows)} held-back columns the largest difference between the arms is {before:.2f} standard deviations before and "
        f"{abs(worst['after']):.2f} after weighting ({worst['column']})"
    )
    tail = (
        ", no more than chance or 0.1."
        if ok
        else ": above 0.1. If that column was fixed before the exposure, declare it as a confounder."
    )
    return rows, CheckRecord("balance", ok, float(worst["after"]), None, message + tail)


def held_back(log: ImpressionLog) -> dict[str, F64]:
    """Name → (n,) finite values that no part of the fit has used."""
    used = {name for names in log.roles.as_dict().values() for name in names}
    out: dict[str, F64] = {}
    for name in log.frame.columns:
        column = log.frame[name]
        if name in used or not isinstance(column, pd.Series) or not pd.api.types.is_numeric_dtype(column):
            continue
        x = column.to_numpy(dtype=np.float64, na_value=np.nan)
        if np.isfinite(x).all() and np.ptp(x) > 0:
            out[str(name)] = x
    for name in log.roles.text:
        texts, codes = log.texts(name)
        words = np.array([len(re.findall(r"\w+", s)) for s in texts], dtype=np.float64)
        letters = np.array([len(s) for s in texts], dtype=np.float64)
        for label, of_text in ((f"words in {name}", words), (f"letters in {name}", letters)):
            if np.ptp(of_text) > 0:
                out[label] = of_text[codes]
    return out


def smd(x: F64, t: F64, w: F64) -> float:
    """Weighted standardised mean difference between the arms."""
    means = [np.average(x[t == arm], weights=w[t == arm]) for arm in (1, 0)]
    scale = np.sqrt((x[t == 1].var() + x[t == 0].var()) / 2)
    return float((means[0] - means[1]) / scale) if scale > 0 else 0.0
