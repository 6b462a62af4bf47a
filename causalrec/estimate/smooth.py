"""Weighted local regression on a dose: values, influence functions, and a bandwidth by cross-validation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
BINS = 300
CANDIDATES = (0.15, 0.22, 0.33, 0.5, 0.75)
"""Bandwidths that are tried, in standard deviations of the dose."""


def kernel(u: F64) -> F64:
    """Epanechnikov, .75 (1 − u²) within ±1."""
    return np.asarray(0.75 * np.maximum(1 - u**2, 0))


def local_parabola(dose: F64, r: F64, omega: F64, at: float, width: float) -> tuple[float, F64, F64]:
    """The value at one dose of a parabola fitted near it, its influence function, and the rows' weights.

    β = argmin Σ k_i (r_i − Z_i'β)²,  z = (D − at) / width,  Z = (1, z, z²),  k = K(z) ω,  M = Σ k Z Z';
    φ_i = n e₁' M⁻¹ Z_i k_i (r_i − Z_i'β) / (1 − h_i), with the leverage h_i = k_i Z_i' M⁻¹ Z_i held below ½.
    A parabola at the bandwidth that is best for a line is free of the line's bias: Calonico, Cattaneo & Farrell (2018),
    J. Am. Stat. Assoc. 113. Returns (β₀, φ (n,), k (n,)).
    """
    z = (dose - at) / width
    k = kernel(z) * omega
    here = np.flatnonzero(k > 0)
    basis, kept = np.vander(z[here], 3, increasing=True), k[here]
    inverse = np.linalg.pinv((basis * kept[:, None]).T @ basis)
    beta = inverse @ (basis.T @ (kept * r[here]))
    leverage = kept * np.einsum("ij,jk,ik->i", basis, inverse, basis)
    phi = np.zeros(len(dose))
    phi[here] = kept * (basis @ inverse[0]) * (r[here] - basis @ beta) / (1 - np.minimum(leverage, 0.5))
    return float(beta[0]), len(dose) * phi, k


def choose_width(dose: F64, r: F64, omega: F64, fold: Ints) -> float:
    """The bandwidth at which local *lines* have the least squared error on the rows of left-out folds.

    Doses are binned (300 bins) for the choice only. For ``local_parabola`` it is an undersmoothed one.
    """
    edges = np.linspace(dose.min(), dose.max(), BINS + 1)
    centre = (edges[:-1] + edges[1:]) / 2
    place = np.clip(np.digitize(dose, edges) - 1, 0, BINS - 1)
    n_folds, sd = int(fold.max()) + 1, float(dose.std())
    cell = fold * BINS + place
    mass, total = (
        np.bincount(cell, v, n_folds * BINS).astype(np.float64).reshape(n_folds, BINS)
        for v in (omega, omega * r)
    )
    losses = [_held_out_loss(centre, mass, total, c * sd) for c in CANDIDATES]
    return float(CANDIDATES[int(np.argmin(losses))] * sd)


def _held_out_loss(centre: F64, mass: F64, total: F64, width: float) -> float:
    """Σ ω (r − r̂)² over left-out folds, but for what does not depend on r̂."""
    z = (centre[None, :] - centre[:, None]) / width  # (at, bin)
    k = kernel(z)
    loss = 0.0
    for f in range(len(mass)):
        m, t = mass.sum(axis=0) - mass[f], total.sum(axis=0) - total[f]
        s0, s1, s2 = k @ m, (k * z) @ m, (k * z * z) @ m
        b0, b1 = k @ t, (k * z) @ t
        determinant = s0 * s2 - s1**2
        safe = determinant > 1e-9 * max(float(determinant.max()), 1e-300)
        fitted = np.where(safe, (s2 * b0 - s1 * b1) / np.where(safe, determinant, 1.0), 0.0)
        loss += float((mass[f] * fitted**2 - 2 * total[f] * fitted).sum())
    return loss
