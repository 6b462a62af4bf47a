"""Group average effects: the scores of a group, averaged in the group, with pairs inside it where the fit has pairs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec import scores
from causalrec._checks import did_you_mean
from causalrec._display import Displayable
from causalrec.errors import EstimationError
from causalrec.estimate.analysis import Analysis
from causalrec.estimate.same_pairs import clusters, corrected_group
from causalrec.log import ImpressionLog

MIN_ROWS = 50


@dataclass(frozen=True)
class GroupEffects(Displayable):
    """GATE, E[Y(1) − Y(0) | group], under the fit's estimand.

    Attributes
    ----------
    by : str
        The modifier.
    estimand : str
    records : tuple of dict
        group, n, n_units, effect, std_error, ci_lower, ci_upper, p_value; effects are None where an arm
        of the group has fewer than 50 rows, or hardly a row of it has a partner where the fit is of second order.
    """

    by: str
    estimand: str
    records: tuple[dict[str, Any], ...] = field(repr=False)

    def _title(self) -> str:
        return f"Group effects ({self.estimand}) by {self.by}, pointwise 95 % intervals, clustered as the effect is"

    def _rows(self) -> list[dict[str, Any]]:
        return list(self.records)

    def _notes(self) -> list[str]:
        return [
            f"{len(self.records)} groups were looked at; an interval that excludes 0 in one of many is weaker evidence than in the only one."
        ]


def group_effects(log: ImpressionLog, analysis: Analysis, modifier: str, bins: int) -> GroupEffects:
    """Average the scores in each group of a declared modifier.

    Raises
    ------
    EstimationError
        The column is no declared modifier (groups chosen after looking at outcomes have no honest interval).
    """
    declared = log.roles.modifiers
    if modifier not in declared:
        raise EstimationError(
            f"{modifier!r} is not a declared modifier; declared are {list(declared)}.{did_you_mean(modifier, declared)} Declare it in read_log."
        )
    labels = group_labels(log.frame[modifier], bins)
    records = [_record(str(g), labels == g, analysis) for g in labels.cat.categories]
    return GroupEffects(modifier, analysis.settings.estimand.upper(), tuple(records))


def group_labels(column: pd.Series, bins: int) -> pd.Series:
    """Categorical labels of a modifier: its own, or quantile bins of a number with many values."""
    number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if number and column.nunique() > bins:
        cut = pd.qcut(column.astype(float), bins, duplicates="drop").reset_index(drop=True)
        edges = list(cut.cat.categories)
        return cut.cat.rename_categories([_bin_label(k, edges) for k in range(len(edges))])
    return column.astype(str).astype("category").reset_index(drop=True)


def _bin_label(k: int, bins: list[pd.Interval]) -> str:
    if len(bins) == 1:
        return "all"
    if k == 0:
        return f"up to {bins[0].right:g}"
    return f"above {bins[k].left:g}" if k == len(bins) - 1 else f"{bins[k].left:g} to {bins[k].right:g}"


def _record(label: str, rows: pd.Series, analysis: Analysis) -> dict[str, Any]:
    here: npt.NDArray[np.bool_] = rows.to_numpy()
    units = len(np.unique(analysis.inputs.units[here]))
    out: dict[str, Any] = {"group": label, "n": int(here.sum()), "n_units": units}
    keys = ("effect", "std_error", "ci_lower", "ci_upper", "p_value")
    e = group_effect(analysis, here)
    if e is None:
        return out | dict.fromkeys(keys)
    return out | dict(zip(keys, (e.value, e.std_error, e.ci_lower, e.ci_upper, e.p_value), strict=True))


def group_effect(analysis: Analysis, here: npt.NDArray[np.bool_]) -> scores.Estimate | None:
    """The effect in a group with influence (n,), of the order of the fit: by pairs inside the group, or the group's mean score.

    None where an arm has fewer than 50 rows of positive weight, or pairs say nothing. Degrees of freedom rest on the users in
    the group's smaller arm.
    """
    inputs, found = analysis.inputs, analysis.correction
    w = np.where(here, 1.0 if inputs.weights is None else inputs.weights, 0.0)
    arms = [(w > 0) & (inputs.t == arm) for arm in (0, 1)]
    few = min(len(np.unique(inputs.units[arm])) for arm in arms)
    if min(int(arm.sum()) for arm in arms) < MIN_ROWS or few < 2:
        return None
    if found.order == 2:
        try:
            return corrected_group(inputs, found, here, analysis.settings.estimand)
        except EstimationError:
            return None
    value, influence = scores.ratio_influence(*analysis.pair, w)
    return scores.estimate_of(value, influence, inputs.units, clusters(inputs, found), at_most=few)
