"""Are the arms alike once weighted? Judged on things that the fit has not used."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata

from causalrec.blocks import Block
from causalrec.check.refuters import CheckRecord
from causalrec.check.topics import find_topics
from causalrec.estimate import Fit
from causalrec.estimate.overlap import balancing_weights
from causalrec.log import ImpressionLog

F64 = npt.NDArray[np.float64]
LIMIT = 0.1
"""Standardised mean difference above which arms count as unlike (Austin 2009)."""
SAME = 0.99
"""Rank correlation from which a column is taken to say what another one says."""
ROWS_OF = "log rows of {}"


def balance(fit: Fit) -> tuple[tuple[dict[str, Any], ...], CheckRecord]:
    """Standardised mean differences before and after weighting by 1/e and 1/(1−e), and their record.

    SMD = (mean₁ − mean₀) / √((var₁ + var₀)/2), variances before weighting. Columns: numeric columns of the table
    without a role; topics of each text, found in its words without a look at exposure or clicks; and how often
    each item was shown. None of them was used in the fit as such.
    """
    t = fit.log.treatment
    base = np.ones_like(t) if fit.log.weights is None else fit.log.weights
    settings = fit.analysis.settings
    w = base * balancing_weights(t, fit.nuisances.propensity, settings.clip, settings.estimand)
    rows: tuple[dict[str, Any], ...] = tuple(
        {"column": name, "before": smd(x, t, base), "after": smd(x, t, w)}
        for name, x in held_back(fit).items()
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
    tail = ", no more than chance or 0.1." if ok else f": above 0.1. {_next_step(str(worst['column']))}"
    return rows, CheckRecord("balance", ok, float(worst["after"]), None, message + tail + _same_words(fit))


def _next_step(column: str) -> str:
    """What to do about a column on which the arms differ."""
    if column.startswith("topic of "):
        return (
            "The fit does not take account of all that these words say: add a representation of them "
            "(ngrams=True in embed)."
        )
    if column.startswith(ROWS_OF.format("")):
        return "If how often an item is shown was fixed before the exposure, declare it as a confounder."
    return "If that column was fixed before the exposure, declare it as a confounder."


def _same_words(fit: Fit) -> str:
    """A caution where the topics are made of the very words that were adjusted for."""
    if not adjusts_for_ngrams(fit):
        return ""
    return " The topics were built from the same words as the n-grams that were adjusted for, and so are no independent witness."


def adjusts_for_ngrams(fit: Fit) -> bool:
    """The plan adjusts for a block of word n-grams."""
    return any(isinstance(c, Block) and c.kind == "ngrams" for c in fit.analysis.inputs.covariates)


def held_back(fit: Fit) -> dict[str, F64]:
    """Name → (n,) finite values that no adjusted block or column was built from, as they stand."""
    log = fit.log
    used = {name for names in log.roles.as_dict().values() for name in names}
    out: dict[str, F64] = {}
    for name in log.frame.columns:
        column = log.frame[name]
        if name in used or not isinstance(column, pd.Series) or not pd.api.types.is_numeric_dtype(column):
            continue
        x = column.to_numpy(dtype=np.float64, na_value=np.nan)
        if np.isfinite(x).all() and np.ptp(x) > 0:
            out[str(name)] = x
    return {**out, **_topic_shares(log), **_popularity(fit)}


def _topic_shares(log: ImpressionLog) -> dict[str, F64]:
    """Share of each topic of each text column, (n,)."""
    out: dict[str, F64] = {}
    for column in log.roles.text:
        topics = find_topics(*log.texts(column))
        if topics is None:
            continue
        for name, share in zip(topics.names, topics.shares.T, strict=True):
            x = share[topics.codes]
            if np.ptp(x) > 0:
                out[f"topic of {column}: {name}"] = x
    return out


def _popularity(fit: Fit) -> dict[str, F64]:
    """Log of the rows of each item, (n,), unless a column that was adjusted for says the same."""
    items = fit.log.items
    if items is None:
        return {}
    x = np.log(np.bincount(items).astype(np.float64))[items]
    if np.ptp(x) == 0:
        return {}
    ranks = rankdata(x)
    for c in fit.analysis.inputs.covariates:
        if isinstance(c, Block) or not pd.api.types.is_numeric_dtype(c):
            continue
        other = rankdata(c.to_numpy(dtype=np.float64))
        if np.ptp(other) > 0 and abs(np.corrcoef(ranks, other)[0, 1]) > SAME:
            return {}
    return {ROWS_OF.format(fit.log.roles.item[0]): x}


def smd(x: F64, t: F64, w: F64) -> float:
    """Weighted standardised mean difference between the arms."""
    means = [np.average(x[t == arm], weights=w[t == arm]) for arm in (1, 0)]
    scale = np.sqrt((x[t == 1].var() + x[t == 0].var()) / 2)
    return float((means[0] - means[1]) / scale) if scale > 0 else 0.0
