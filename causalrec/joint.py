"""Several means at once: their covariance by clusters, joint intervals, tests, and p-values corrected for their number.

Memory does not grow with rows × means.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Index = npt.NDArray[np.intp]
Influence = Callable[[Index], F64]
"""From row numbers (m,) to their influence on q means, (m, q)."""
BLOCK = 1 << 15
DRAWS = 20_000
"""Draws for a joint interval, where nothing else is asked for."""


def clustered(influence: Influence, codes: Ints) -> tuple[F64, int]:
    """Covariance (q, q) of means from their influence functions, clustered by `codes`, and the clusters' number G.

    V = G/(G − 1) · n⁻² Σ_g s_g s_g',  s_g the sum of the influences of cluster g. Rows are sorted by cluster once and
    worked through in blocks of whole clusters. Liang & Zeger (1986).
    """
    n = len(codes)
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(codes[order]) != 0])
    total: F64 | float = 0.0
    first = 0
    while first < len(starts):
        last = max(int(np.searchsorted(starts, starts[first] + BLOCK)), first + 1)
        end = starts[last] if last < len(starts) else n
        rows = influence(order[starts[first] : end])
        sums = np.add.reduceat(rows, starts[first:last] - starts[first], axis=0)
        total = total + sums.T @ sums
        first = last
    g = len(starts)
    return np.asarray(total, dtype=np.float64) / n**2 * (g / max(g - 1, 1)), g


def two_way(
    influence: Influence, units: Ints, items: Ints | None, linear: F64 | None = None
) -> tuple[F64, int]:
    """Covariance (p, p) of `linear` (p, q) times the means, clustered by unit, or by unit and item; and the fewest clusters.

    The variances are V_unit + V_item − V_both, no less than either one-way variance (Cameron, Gelbach & Miller 2011);
    the correlations those of V_unit + V_item, so that the matrix is one.
    """
    by_unit, g = clustered(influence, units)
    turn = np.eye(len(by_unit)) if linear is None else linear
    by_unit = turn @ by_unit @ turn.T
    if items is None:
        np.fill_diagonal(by_unit, np.maximum(np.diag(by_unit), 0.0))  # rounding
        return by_unit, g
    by_item, g_item = clustered(influence, items)
    by_item = turn @ by_item @ turn.T
    both = clustered(influence, units * (int(items.max()) + 1) + items)[0]
    one, other = (np.maximum(np.diag(v), 0.0) for v in (by_unit, by_item))
    variance = np.maximum.reduce([one + other - np.diag(turn @ both @ turn.T), one, other])
    scale = np.sqrt(variance / np.maximum(one + other, 1e-300))
    joint = (by_unit + by_item) * np.outer(scale, scale)
    np.fill_diagonal(joint, variance)
    return joint, min(g, g_item)


def covariance_of(influences: F64, units: Ints, items: Ints | None = None) -> tuple[F64, int]:
    """``two_way`` of influence functions that are there already, (n, q)."""
    return two_way(lambda rows: influences[rows], units, items)


def max_t(covariance: F64, df: int, draws: int, rng: np.random.Generator, two_sided: bool = True) -> F64:
    """(draws,) the largest |t| (or t) over means with this covariance; means without variance are left out.

    Draws of the multiplier bootstrap with normal multipliers, which given the data are N(0, covariance), studentised by a χ²
    of `df` degrees of freedom. Chernozhukov, Chetverikov & Kato (2013).
    """
    sd = np.sqrt(np.diag(covariance))
    used = sd > 1e-12 * max(float(sd.max(initial=0.0)), 1e-300)
    if not used.any():
        return np.zeros(draws)
    values, axes = np.linalg.eigh(covariance)
    root = axes * np.sqrt(np.maximum(values, 0.0))
    z = rng.standard_normal((draws, len(sd))) @ root.T
    t = z[:, used] / sd[used] / np.sqrt(rng.chisquare(max(df, 1), draws) / max(df, 1))[:, None]
    return np.asarray((np.abs(t) if two_sided else t).max(axis=1), dtype=np.float64)


def largest(
    covariance: F64, df: int, level: float, draws: int, rng: np.random.Generator, two_sided: bool = True
) -> float:
    """Quantile of ``max_t``: the width of a joint band in standard errors."""
    return float(np.quantile(max_t(covariance, df, draws, rng, two_sided), level))


def holm(p: F64) -> F64:
    """(m,) p-values corrected by Holm's (1979) step-down procedure; a NaN stays one and counts for no test."""
    out = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = np.arange(len(order), 0, -1) * p[order]
    out[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return out


def wald(values: F64, covariance: F64, n_clusters: int) -> tuple[float, int, float]:
    """(F, k, p) of all values being 0: F = v'V⁻¹v (G − k) / (k (G − 1)) on (k, G − k) degrees of freedom (Hotelling).

    k is the rank of V; p is NaN where clusters do not outnumber it.
    """
    from scipy.stats import f as fisher

    rank = int(np.linalg.matrix_rank(covariance, hermitian=True))
    spare = n_clusters - rank
    if rank == 0 or spare < 1:
        return float("nan"), rank, float("nan")
    quadratic = float(values @ np.linalg.pinv(covariance, hermitian=True) @ values)
    statistic = quadratic * spare / (rank * (n_clusters - 1))
    return statistic, rank, float(fisher.sf(statistic, rank, spare))
