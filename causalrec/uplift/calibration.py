"""Are predicted effects as large as they say? Regression of held-out scores on them, and group means beside predictions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec import scores
from causalrec._checks import check_scalar
from causalrec._display import Displayable
from causalrec.joint import Index, two_way, wald
from causalrec.uplift import ranking
from causalrec.uplift.held_out import HeldOut

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Calibration(Displayable):
    """How predicted effects τ̂ compare with the effects of held-out users.

    Attributes
    ----------
    slope, slope_ci : float, (lower, upper)
        Of the best linear predictor of the effect from τ̂: 1 if predictions are of the right size, 0 if they say nothing,
        below 1 if they exaggerate. NaN for a constant τ̂.
    p_heterogeneity : float
        One-sided test of slope ≤ 0: small if τ̂ tells who gains more.
    p_exaggeration : float
        Two-sided test of slope = 1.
    shift, shift_ci : float, (lower, upper)
        Mean effect less mean τ̂, clicks per impression.
    statistic, groups, p_groups : float, int, float
        Wald (F) test that every group's effect is its mean τ̂; NaN with too few users.
    table : DataFrame
        group (1 = highest τ̂), n, n_units, predicted, effect, ci_lower, ci_upper; the effect of a group without both arms is NaN.
    """

    slope: float
    slope_ci: tuple[float, float]
    p_heterogeneity: float
    p_exaggeration: float
    shift: float
    shift_ci: tuple[float, float]
    statistic: float
    groups: int
    p_groups: float
    table: pd.DataFrame = field(repr=False)

    def _title(self) -> str:
        return "Calibration of predicted effects on held-out users, 95 %, clustered"

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {"quantity": "slope", "estimate": self.slope, "ci_lower": self.slope_ci[0], "ci_upper": self.slope_ci[1]},
            {"quantity": "mean effect less mean prediction", "estimate": self.shift, "ci_lower": self.shift_ci[0],
             "ci_upper": self.shift_ci[1]},
        ]  # fmt: skip

    def _notes(self) -> list[str]:
        said = []
        if np.isfinite(self.slope):
            said.append(self._about_slope())
        if np.isfinite(self.p_groups):
            fits = "agree with" if self.p_groups >= 0.05 else "differ from"
            said.append(
                f"The effects of the {self.groups} groups {fits} their predictions (F = {self.statistic:.2f}, p = {self.p_groups:.3f})."
            )
        return said

    def _about_slope(self) -> str:
        if self.p_heterogeneity >= 0.05:
            return f"Predicted effects do not tell who gains more (slope {self.slope:.2f}, p = {self.p_heterogeneity:.3f})."
        if self.p_exaggeration >= 0.05:
            return f"Predicted differences are of about the right size (slope {self.slope:.2f})."
        word = "exaggerate" if self.slope < 1 else "understate"
        return f"Predictions tell who gains more, but {word} the differences (slope {self.slope:.2f})."


def calibrate(held: HeldOut, cate: F64, n_groups: int = 5) -> Calibration:
    """Compare predicted effects with held-out scores.

    The slope is that of the weighted regression of ψ on (1, τ̂ − mean τ̂): the best linear predictor of the effect
    (Chernozhukov, Demirer, Duflo & Fernández-Val 2018, eq. 3.1). Groups are equal parts of the ranking by τ̂, ties together.

    Parameters
    ----------
    held : HeldOut
    cate : (n,) predicted effects of its rows
    n_groups : int
    """
    groups = check_scalar(n_groups, "n_groups", ge=2, le=100, integer=True)
    tie = ranking.ties(np.round(cate, 12))
    band = np.unique(ranking.bands_of(tie, held.weights, groups), return_inverse=True)[1].astype(np.int64)
    shift = _estimate(held, *scores.ratio_influence(held.psi - cate, np.ones_like(cate), held.weights))
    statistic, k, p = _agreement(held, cate, band)
    slope, ci, p_none, p_one = (
        _slope(held, cate) if int(tie.max()) else (np.nan, (np.nan, np.nan), np.nan, np.nan)
    )
    return Calibration(
        slope, ci, p_none, p_one, shift.value, (shift.ci_lower, shift.ci_upper), statistic, k, p,
        group_table(held, cate, band, "group").rename(columns={"mean_cate": "predicted"}),
    )  # fmt: skip


def group_table(held: HeldOut, cate: F64, band: Ints, name: str) -> pd.DataFrame:
    """Mean prediction and effect (with interval) of each band of rows, best first; NaN for a band without both arms."""
    rows = []
    for b in np.unique(band):
        here = band == b
        e = held.effect(here) if held.has_both_arms(here) else None
        rows.append(
            {
                name: int(b) + 1,
                "n": int(here.sum()),
                "n_units": len(np.unique(held.units[here])),
                "mean_cate": float(np.average(cate[here], weights=held.weights[here])),
                "effect": np.nan if e is None else e.value,
                "ci_lower": np.nan if e is None else e.ci_lower,
                "ci_upper": np.nan if e is None else e.ci_upper,
            }
        )
    return pd.DataFrame(rows)


def _estimate(held: HeldOut, value: float, influence: F64) -> scores.Estimate:
    return scores.estimate_of(value, influence, held.units, held.items, at_most=held.n_clusters)


def _slope(held: HeldOut, cate: F64) -> tuple[float, tuple[float, float], float, float]:
    """(slope, interval, one-sided p of slope ≤ 0, two-sided p of slope = 1)."""
    from scipy.stats import t as student

    centred = cate - np.average(cate, weights=held.weights)
    value, _ = scores.ratio_influence(centred * held.psi, centred**2, held.weights)
    residual = held.psi - np.average(held.psi, weights=held.weights) - value * centred
    influence = held.weights * centred * residual / (held.weights * centred**2).mean()
    e = _estimate(held, value, influence)
    df = max(e.n_clusters - 1, 1)
    if e.std_error == 0:
        return value, (value, value), float("nan"), float("nan")
    p_none = float(student.sf(value / e.std_error, df))
    p_one = float(2 * student.sf(abs(value - 1) / e.std_error, df))
    return value, (e.ci_lower, e.ci_upper), p_none, p_one


def _agreement(held: HeldOut, cate: F64, band: Ints) -> tuple[float, int, float]:
    """Wald test that mean (ψ − τ̂) is 0 in every band that has both arms."""
    judged = [b for b in range(int(band.max()) + 1) if held.has_both_arms(band == b)]
    if not judged:
        return np.nan, 0, np.nan
    place = np.full(int(band.max()) + 1, -1)
    place[judged] = np.arange(len(judged))
    band, k = place[band], len(judged)
    w = held.weights / held.weights.mean()
    gap = held.psi - cate
    used = band >= 0
    mass = np.bincount(band[used], w[used], k) / len(w)
    value = np.bincount(band[used], (w * gap)[used], k) / len(w) / mass

    def influence(rows: Index) -> F64:
        out = np.zeros((len(rows), k))
        inside = np.flatnonzero(used[rows])
        rows = rows[inside]
        b = band[rows]
        out[inside, b] = w[rows] * (gap[rows] - value[b]) / mass[b]
        return out

    covariance, _ = two_way(influence, held.units, held.items)
    return wald(value, covariance, held.n_clusters)
