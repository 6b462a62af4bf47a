"""How far an effect can move if hidden causes change the odds of exposure: a marginal sensitivity model. Arrays only.

The model (Tan 2006) lets the odds of exposure, given the covariates *and* whatever is hidden, differ from the odds given the
covariates by a factor between 1/Γ and Γ. In the arm that was not observed the mean of Y(t) is then a reweighting of the
observed arm, E[L Y | X, T = t] with 1/Γ ≤ L ≤ Γ and E[L | X, T = t] = 1, whose largest value puts Γ on the upper tail:

    ρ(X) = E[H | X, T = t],   H = Y + (1 − 1/Γ) ((q − Y) + (1 + Γ)(Y − q)₊),   q = quantile of Y at Γ/(1 + Γ).

Any other q makes the bound wider, never invalid. The orthogonal score of the largest E[Y(1)] is

    T Y + (1 − T) ρ + T (1 − e)/e (H − ρ),

which is AIPW at Γ = 1. Dorn, Guo & Kallus (2022), *Doubly-valid/doubly-sharp sensitivity analysis*; Dorn & Guo (2022),
*Sharp sensitivity analysis for inverse propensity weighting via quantile balancing*. Everything below is in *excesses* over
Γ = 1: H − Y in the rows of an arm, ρ − m for all rows, and the score's own, in units of the outcome.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
LEAST_SCALE = 0.1
"""Share of the mean absolute residual below which no row's scale falls."""


@dataclass(frozen=True, eq=False)
class Sample:
    """What bounds are computed from, (n,) each.

    Attributes
    ----------
    t, y, w : treatment 0/1, outcome, row weight
    e, m0, m1 : out-of-fold propensity (clipped) and outcome means
    fold : folds of users
    binary : bool
        The outcome is 0/1, and the bounds have a closed form.
    basis : (n, k)
        What the spread of a continuous outcome may depend on beside its mean and the propensity; not used if `binary`.
    """

    t: F64
    y: F64
    w: F64
    e: F64
    m0: F64
    m1: F64
    fold: Ints
    binary: bool
    basis: F64


Excess = tuple[F64, F64]


def excess(sample: Sample, estimand: str, gamma: float) -> Excess:
    """(lower, upper), (n,) each: what Γ adds to the rows' scores at the two ends of the identified set; 0 at Γ = 1.

    For the ATE the upper end is the largest E[Y(1)] less the smallest E[Y(0)], for the ATT only Y(0) is in doubt. Both hold
    at once, so that the ends are sharp. Divide the mean by that of the score's denominator (1, or T for the ATT).
    """
    low_0, high_0 = _arm_scores(sample, 0, gamma)
    if estimand == "att":
        return -high_0, -low_0
    low_1, high_1 = _arm_scores(sample, 1, gamma)
    return low_1 - high_0, high_1 - low_0


def _arm_scores(sample: Sample, arm: int, gamma: float) -> Excess:
    """Excess of the score of the smallest and of the largest E[Y(arm)] over the unobserved rows of the arm."""
    here = sample.t == arm
    other_odds = (1 - sample.e) / sample.e if arm == 1 else sample.e / (1 - sample.e)
    m = sample.m1 if arm == 1 else sample.m0
    ends = []
    for sign in (-1.0, 1.0):
        if sample.binary:
            of_rows, of_means = binary_tilt(sample.y, m, gamma, sign)
        else:
            of_rows, of_means = continuous_tilt(sample, arm, gamma, sign)
        ends.append(np.where(here, other_odds * (of_rows - of_means), of_means))
    return ends[0], ends[1]


def binary_bound(p: F64, gamma: float) -> F64:
    """Largest P(Y(t) = 1 | X) in the arm that was not observed, min(Γ p, 1 − (1 − p)/Γ), (n,)."""
    return np.minimum(gamma * p, 1 - (1 - p) / gamma)


def binary_tilt(y: F64, p: F64, gamma: float, sign: float) -> Excess:
    """(H − Y, ρ − p) of a 0/1 outcome with mean p, at the upper (`sign` = 1) or lower end, (n,) each.

    H = Γ Y where p ≤ 1/(1 + Γ), else 1 − (1 − Y)/Γ; the lower end is the upper end of 1 − Y, turned round.
    """
    p = np.clip(p, 0.0, 1.0)
    if sign < 0:
        rows, means = binary_tilt(1 - y, 1 - p, gamma, 1.0)
        return -rows, -means
    likely = p > 1 / (1 + gamma)
    rows, means = (np.where(likely, (1 - 1 / gamma) * (1 - v), (gamma - 1) * v) for v in (y, p))
    return rows, means


def continuous_tilt(sample: Sample, arm: int, gamma: float, sign: float) -> Excess:
    """(H − Y, ρ − m) of an outcome that is a number, at the upper (`sign` = 1) or lower end, (n,) each.

    The quantile is m(X) + s(X) z, the scale s regressed on the mean, the propensity and `basis`, z the quantile of the
    scaled residuals (restricted regression quantiles, He 1997: quantiles do not cross); the mean of H by least squares on
    the same columns. For the rows of a fold both come from the arm's rows in the other folds.
    """
    m = sign * (sample.m1 if arm == 1 else sample.m0)
    y, mine = sign * sample.y, (sample.t == arm) & (sample.w > 0)
    columns = np.column_stack([np.ones_like(m), *(_in_units(c) for c in (m, sample.e, *sample.basis.T))])
    of_rows, of_means = np.zeros_like(y), np.zeros_like(y)
    for f in np.unique(sample.fold):
        train, apply = mine & (sample.fold != f), sample.fold == f
        scale = _scale(columns, np.abs(y - m), sample.w, train)
        z = weighted_quantile((y - m)[train] / scale[train], sample.w[train], gamma / (1 + gamma))
        beyond = y - m - scale * z
        tilt = (1 - 1 / gamma) * ((1 + gamma) * np.maximum(beyond, 0) - beyond)
        of_rows[apply] = tilt[apply]
        of_means[apply] = np.maximum(columns[apply] @ _least_squares(columns, tilt, sample.w, train), 0.0)
    return sign * of_rows, sign * of_means


def weighted_quantile(x: F64, w: F64, level: float) -> float:
    """The least x whose share of the weight reaches `level`."""
    order = np.argsort(x)
    share = np.cumsum(w[order])
    return float(x[order][min(int(np.searchsorted(share, level * share[-1])), len(x) - 1)])


def _scale(columns: F64, size: F64, w: F64, train: Mask) -> F64:
    """(n,) expected size of a residual, fitted on `train` and kept away from zero."""
    least = LEAST_SCALE * float(np.average(size[train], weights=w[train]))
    return np.maximum(columns @ _least_squares(columns, size, w, train), max(least, 1e-300))


def _in_units(column: F64) -> F64:
    """A column of mean 0 and standard deviation 1; 0 where it is constant."""
    spread = float(column.std())
    return (column - column.mean()) / spread if spread > 0 else np.zeros_like(column)


def _least_squares(columns: F64, target: F64, w: F64, train: Mask) -> F64:
    """Weighted least squares on some rows, (k,); of columns that say the same, the shortest solution."""
    weighted = columns[train] * w[train, None]
    gram = np.linalg.pinv(weighted.T @ columns[train], rcond=1e-10, hermitian=True)
    return np.asarray(gram @ (weighted.T @ target[train]), dtype=np.float64)
