"""Effects of all segments of an analysis at once: every level of every declared modifier, corrected for their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from causalrec import scores
from causalrec.estimate.caveats import units_in_smaller_arm
from causalrec.estimate.fit import Fit
from causalrec.estimate.groups import GroupEffects, group_effect, group_labels
from causalrec.estimate.same_pairs import clusters
from causalrec.joint import DRAWS, covariance_of, holm, largest

Mask = npt.NDArray[np.bool_]
Found = tuple[dict[str, Any], scores.Estimate | None]
LEVEL = 0.95
BINS = 4


@dataclass(frozen=True)
class Segments:
    """Group effects of several modifiers, with intervals that hold for all of their groups at once.

    Attributes
    ----------
    groups : tuple of GroupEffects
        One a modifier, with pointwise intervals.
    records : tuple of dict
        modifier, group, n, n_units, effect, ci_lower, ci_upper (pointwise), joint_lower, joint_upper (max-t over all
        groups of all modifiers), p_value, p_holm (Holm over all of them); None where a group is too small for an effect.
    width : float
        Standard errors of a joint interval to either side.
    """

    groups: tuple[GroupEffects, ...]
    records: tuple[dict[str, Any], ...] = field(repr=False)
    width: float

    @property
    def known(self) -> list[dict[str, Any]]:
        """Records of the groups that have an effect."""
        return [r for r in self.records if r["effect"] is not None]


def segments(fit: Fit, modifiers: Sequence[str]) -> Segments:
    r"""Effects in the groups of these declared modifiers, numbers in quartiles, as ``fit.by`` gives them.

    The joint interval of group g is :math:`\hat\tau_g \pm c\, \hat\sigma_g` with c the 95 % quantile of
    :math:`\max_g |t_g|`, drawn with the clustered correlations of the groups, which overlap between modifiers.
    Hothorn, Bretz & Westfall (2008), "Simultaneous inference in general parametric models"; Holm (1979).
    """
    found = [_group(fit, name, label, here) for name in modifiers for label, here in _groups(fit, name)]
    known = [(row, estimate) for row, estimate in found if estimate is not None]
    width = _width(fit, known)
    adjusted = iter(holm(np.array([e.p_value for _, e in known], dtype=np.float64)).tolist())
    records = []
    for row, e in found:
        blank: dict[str, Any] = dict.fromkeys(
            ("effect", "ci_lower", "ci_upper", "joint_lower", "joint_upper", "p_value", "p_holm")
        )
        records.append(row | (blank if e is None else _corrected(e, width, next(adjusted))))
    return Segments(tuple(_by(fit, name, found) for name in modifiers), tuple(records), width)


def _groups(fit: Fit, modifier: str) -> list[tuple[str, Mask]]:
    """(label, (n,) whether a row is of the group) of each group of a modifier."""
    labels = group_labels(fit.log.frame[modifier], BINS)
    return [(str(label), (labels == label).to_numpy()) for label in labels.cat.categories]


def _group(fit: Fit, modifier: str, label: str, here: Mask) -> Found:
    """Who they are, and their effect with influence (n,), or None."""
    units = len(np.unique(fit.analysis.inputs.units[here]))
    row: dict[str, Any] = {"modifier": modifier, "group": label, "n": int(here.sum()), "n_units": units}
    return row, group_effect(fit.analysis, here)


def _width(fit: Fit, known: Sequence[tuple[dict[str, Any], scores.Estimate]]) -> float:
    """Quantile of the largest |t| over the groups; 0 without groups."""
    if not known:
        return 0.0
    inputs = fit.analysis.inputs
    influences = np.column_stack([e.influence for _, e in known])
    items = clusters(inputs, fit.correction)
    covariance, g = covariance_of(influences, inputs.units, items)
    df = max(min(g, units_in_smaller_arm(inputs), *(e.n_clusters for _, e in known)) - 1, 1)
    return largest(covariance, df, LEVEL, DRAWS, np.random.default_rng(0))


def _corrected(e: scores.Estimate, width: float, p_holm: float) -> dict[str, Any]:
    """An effect with its own and its joint interval, which is no narrower."""
    half = width * e.std_error + e.bias_bound
    return {
        "effect": e.value,
        "ci_lower": e.ci_lower,
        "ci_upper": e.ci_upper,
        "joint_lower": min(e.value - half, e.ci_lower),
        "joint_upper": max(e.value + half, e.ci_upper),
        "p_value": e.p_value,
        "p_holm": p_holm,
    }


def _by(fit: Fit, modifier: str, found: Sequence[Found]) -> GroupEffects:
    """The groups of one modifier as ``fit.by`` gives them."""
    keys = ("effect", "std_error", "ci_lower", "ci_upper", "p_value")
    records = []
    for row, e in found:
        if row["modifier"] == modifier:
            values = (
                dict.fromkeys(keys)
                if e is None
                else {k: getattr(e, k) for k in keys[1:]} | {"effect": e.value}
            )
            records.append({k: row[k] for k in ("group", "n", "n_units")} | {k: values[k] for k in keys})
    return GroupEffects(modifier, fit.estimand, tuple(records))
