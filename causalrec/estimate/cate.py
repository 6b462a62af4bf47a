"""Pointwise intervals of a conditional effect."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from causalrec.errors import CausalRecWarning, EstimationError
from causalrec.estimate.analysis import Analysis
from causalrec.estimate.caveats import units_in_smaller_arm
from causalrec.estimate.same_pairs import clusters
from causalrec.scores import aipw_ate

F64 = npt.NDArray[np.float64]


def cate_interval(
    model: Any, analysis: Analysis, x_train: F64 | None, x: F64 | None, n: int, alpha: float
) -> tuple[F64, F64]:
    """(lower, upper) of the model's effect at x; clustered for a linear DR model, EconML's own otherwise."""
    from scipy.stats import t as student

    plain = getattr(model, "featurizer", None) is None and getattr(model, "fit_cate_intercept", True)
    if type(model).__name__ == "LinearDRLearner" and plain:
        basis = _with_ones(x_train, len(analysis.inputs.t))
        coefficients, covariance, g = linear_projection(analysis, basis)
        at = _with_ones(x, n)
        centre = at @ coefficients
        half = student.ppf(
            1 - alpha / 2, max(min(g, units_in_smaller_arm(analysis.inputs)) - 1, 1)
        ) * np.sqrt(np.einsum("ij,jk,ik->i", at, covariance, at))
        return centre - half, centre + half
    if getattr(model, "_inference", None) is None:
        raise EstimationError(
            f"{type(model).__name__} was made without inference and gives no intervals; pass LinearDRLearner, ForestDRLearner or CausalForestDML."
        )
    if analysis.inputs.units.max() + 1 < len(analysis.inputs.units):
        warnings.warn(
            f"{type(model).__name__}'s intervals take the rows for independent; users have several rows each, so that they are too narrow.",
            CausalRecWarning,
            stacklevel=3,
        )
    try:
        lower, upper = model.effect_interval(x, alpha=alpha)
    except AttributeError as error:  # EconML's way to say that its final stage has no standard errors
        raise EstimationError(
            f"{type(model).__name__} gives point estimates only ({error}); pass LinearDRLearner, ForestDRLearner or CausalForestDML for intervals."
        ) from error
    return (
        (np.full(n, float(np.ravel(lower)[0])), np.full(n, float(np.ravel(upper)[0])))
        if x is None
        else (np.ravel(lower), np.ravel(upper))
    )


def linear_projection(analysis: Analysis, basis: F64) -> tuple[F64, F64, int]:
    """Best linear projection of the effect on a basis: least squares of the ATE scores, covariance clustered by unit, and by item where items repeat.

    β = (B'wB)⁻¹ B'wψ;  V = (B'wB)⁻¹ [Σ_g s_g s_g'] (B'wB)⁻¹ G/(G−1),  s_g = Σ_{i in g} w_i B_i (ψ_i − B_i'β).
    Two-way: V_unit + V_item − V_both (Cameron, Gelbach & Miller 2011), without the last term where it is not positive.
    Chernozhukov & Semenova (2021). Returns (β (q,), V (q, q), G).
    """
    inputs, nuisances = analysis.inputs, analysis.nuisances
    psi = analysis.ate_scores
    if psi is None:
        e = analysis.settings.clip.apply(nuisances.propensity)
        psi, _ = aipw_ate(inputs.t, inputs.y, e, nuisances.outcome_0, nuisances.outcome_1)
    w = np.ones_like(psi) if inputs.weights is None else inputs.weights
    bread = np.linalg.pinv((basis * w[:, None]).T @ basis)
    beta = bread @ ((basis * w[:, None]).T @ psi)
    rows = basis * (w * (psi - basis @ beta))[:, None]
    meat, g = _meat(rows, inputs.units)
    items = clusters(inputs, analysis.correction)
    if items is not None:
        by_item, g_item = _meat(rows, items)
        cells = np.unique(inputs.units * (int(items.max()) + 1) + items, return_inverse=True)[1]
        both = meat + by_item - _meat(rows, cells)[0]
        meat = both if np.linalg.eigvalsh(both).min() >= 0 else meat + by_item
        g = min(g, g_item)
    return beta, bread @ meat @ bread, g


def _meat(rows: F64, codes: npt.NDArray[np.int64]) -> tuple[F64, int]:
    """G/(G−1) Σ_g s_g s_g' with s_g the cluster's sum of rows (n, q), and G."""
    used, inside = np.unique(codes, return_inverse=True)
    g = len(used)
    sums = np.column_stack([np.bincount(inside, rows[:, j], g) for j in range(rows.shape[1])])
    return np.asarray(sums.T @ sums * (g / max(g - 1, 1)), dtype=np.float64), g


def _with_ones(x: F64 | None, n: int) -> F64:
    return np.ones((n, 1)) if x is None else np.column_stack([np.ones(n), x])
