"""Several estimates at once: their covariance by clusters, joint intervals, and p-values corrected for their number."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
DRAWS = 20_000


def cluster_covariance(influences: F64, units: Ints, items: Ints | None = None) -> F64:
    """(m, m) covariance of m means from their influence functions (n, m), rows of one cluster being dependent.

    V = G/(G − 1) · n⁻² Σ_g s_g s_g',  s_g = Σ_{i in g} φ_i; with items V_unit + V_item − V_both, or without the last
    term where that has a negative eigenvalue. Liang & Zeger (1986); Cameron, Gelbach & Miller (2011), eq. 2.7.
    """
    by_unit = _one_way(influences, units)
    if items is None:
        return by_unit
    cells = np.unique(units * (int(items.max()) + 1) + items, return_inverse=True)[1]
    wide = by_unit + _one_way(influences, items)
    both = wide - _one_way(influences, cells)
    return both if np.linalg.eigvalsh(both).min() >= 0 else wide


def _one_way(influences: F64, codes: Ints) -> F64:
    n, m = influences.shape
    present, inside = np.unique(codes, return_inverse=True)
    g = len(present)
    sums = np.column_stack([np.bincount(inside, influences[:, j], g) for j in range(m)])
    return np.asarray(sums.T @ sums * (g / max(g - 1, 1)) / n**2)


def max_t(covariance: F64, df: int, rng: np.random.Generator) -> F64:
    """(B,) draws of max_j |T_j| of a multivariate t with this correlation, B = 20,000.

    Gaussian multipliers drawn by cluster give the vector of estimates exactly the distribution N(0, V) that is drawn from
    here, V being the clustered covariance; the t is on `df` degrees of freedom. Estimates without variance are left out.
    Chernozhukov, Chetverikov & Kato (2013).
    """
    sd = np.sqrt(np.diag(covariance))
    kept = sd > 1e-12 * max(float(sd.max(initial=0.0)), 1e-300)
    if not kept.any():
        return np.zeros(DRAWS)
    correlation = covariance[np.ix_(kept, kept)] / np.outer(sd[kept], sd[kept])
    values, vectors = np.linalg.eigh(correlation)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    normal = rng.standard_normal((DRAWS, len(values))) @ root.T
    scale = np.sqrt(rng.chisquare(max(df, 1), DRAWS) / max(df, 1))
    return np.asarray(np.abs(normal).max(axis=1) / scale)


def holm(p: F64) -> F64:
    """(m,) p-values corrected by Holm's (1979) step-down procedure; a NaN stays one."""
    out = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = np.arange(len(order), 0, -1) * p[order]
    out[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return out
