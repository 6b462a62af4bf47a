"""Targeting curves from doubly robust scores, with clustered errors: arrays in, arrays out.

Rows are ranked by a score that has not seen them; ψ_i is the doubly robust score of row i. Treating the
best-ranked share q gains G(q) = E[ψ 1{rank ≤ q}] per impression; rows with equal ranks are in random order, so
that G is linear between the ends of ties. Random targeting gains q·ATE.

    AUUC   = ∫₀¹ G(q) dq
    Qini   = ∫₀¹ (G(q) − q·ATE) dq          clicks per impression
    TOC(q) = G(q)/q − ATE,   AUTOC = ∫₀¹ TOC(q) dq

All are E[ψ k(R)] with R the rank in (0, 1) and k = 1/2 − R (Qini), −1 − log R (AUTOC), 1{R ≤ q} (G). The ranks are
estimated too, and move when a user's weight does. With k̄_g the mean of k over the tie g, which lies between the
shares a_g and b_g, V_g its part of E[ψ], and all weights one, the influence function is

    φ_i = ψ_i k̄_g(i) − θ + Σ_g V_g [∂k̄_g/∂a (1{i ranks above g} − a_g) + ∂k̄_g/∂b (1{i ranks above or in g} − b_g)],

exact for both areas. For G(q) the bracket is −G'(q) (1{i in the best q} − q), G' a slope over a window. Errors are
those of the sums of φ by user (and item). Multiplying these sums by independent standard normals is the multiplier
bootstrap; given the data its draws are N(0, Σ), Σ the clustered covariance, and are drawn from it at once.

Yadlowsky, Fleming, Shah, Brunskill & Wager (2024), *Evaluating treatment prioritization rules via rank-weighted
average treatment effects*, eqs. 2.2–2.5 (Qini there with weight q, which is the same area).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from causalrec.joint import Index, two_way

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
WINDOW = 0.05
"""Half the width, in shares, over which the slope of G is taken."""
NARROW = 1e-4
"""A tie narrower than this share of its own place counts as a point: differences of logarithms would be rounding."""


@dataclass(frozen=True, eq=False)
class Gains:
    """The gain curve at the ends of ties: q and G(q), both with 0 in front."""

    q: F64
    gain: F64

    @property
    def ate(self) -> float:
        """G(1)."""
        return float(self.gain[-1])

    def at(self, grid: F64) -> F64:
        """G on a grid of shares."""
        return np.interp(grid, self.q, self.gain)

    def auuc(self) -> float:
        """Area under the gain curve."""
        return float(np.sum(0.5 * (self.gain[1:] + self.gain[:-1]) * np.diff(self.q)))

    def qini(self) -> float:
        """Area between the curve and random targeting."""
        return self.auuc() - 0.5 * self.ate

    def autoc(self) -> float:
        """∫ G(q)/q dq − ATE, exact for a piecewise linear G: on a piece G = a + b q it is a·log(q₂/q₁) + b (q₂ − q₁)."""
        dq = np.diff(self.q)
        slope = np.diff(self.gain) / dq
        level = self.gain[1:] - slope * self.q[1:]
        ratio = np.log(self.q[2:] / self.q[1:-1])
        return float((slope * dq).sum() + (level[1:] * ratio).sum() - self.ate)


def ties(score: F64) -> Ints:
    """(n,) rank of each row's tie, 0 = highest score."""
    return (np.unique(-score, return_inverse=True)[1]).astype(np.int64)


def gains(tie: Ints, psi: F64, w: F64) -> Gains:
    """The gain curve under row weights w, (n,)."""
    mass, value = np.bincount(tie, w), np.bincount(tie, w * psi)
    kept = mass > 0
    mass, value = mass[kept], value[kept]
    total = mass.sum()
    q = np.concatenate([[0.0], np.cumsum(mass) / total])
    q[-1] = 1.0
    return Gains(q, np.concatenate([[0.0], np.cumsum(value) / total]))


def bands_of(tie: Ints, w: F64, k: int) -> Ints:
    """(n,) which k-th of the ranking each row is in, 0 = best; a tie is in the k-th of its middle."""
    mass = np.bincount(tie, w)
    middle = (np.cumsum(mass) - 0.5 * mass) / mass.sum()
    return np.minimum((k * middle).astype(np.int64), k - 1)[tie]


@dataclass(frozen=True, eq=False)
class Ranked:
    """The areas and the curve of a ranking with their joint covariance.

    Attributes
    ----------
    qini, autoc, auuc : float
    gain, toc : (m,) on the grid
    covariance : (3 + 2m, 3 + 2m)
        Of (qini, autoc, auuc, gain, toc), clustered.
    n_clusters : int
    """

    qini: float
    autoc: float
    auuc: float
    gain: F64
    toc: F64
    covariance: F64
    n_clusters: int

    @property
    def std_errors(self) -> tuple[float, float, float]:
        """Of qini, autoc, auuc."""
        sd = np.sqrt(np.diag(self.covariance)[:3])
        return float(sd[0]), float(sd[1]), float(sd[2])

    @property
    def of_gain(self) -> F64:
        """(m, m) covariance of the gain curve."""
        m = len(self.gain)
        return self.covariance[3 : 3 + m, 3 : 3 + m]

    @property
    def of_toc(self) -> F64:
        """(m, m) covariance of the TOC curve."""
        m = len(self.gain)
        return self.covariance[3 + m :, 3 + m :]


def rank(tie: Ints, psi: F64, w: F64, units: Ints, items: Ints | None, grid: F64) -> Ranked:
    """Areas and curve of a ranking, with errors clustered by user, or by user and item.

    Parameters
    ----------
    tie : (n,) from ``ties``
    psi, w : (n,) scores and weights
    units, items : (n,) codes, items or None
    grid : (m,) shares in (0, 1], the last of them 1

    Returns
    -------
    Ranked
        In O(n log n + n m) time and O(n + m²) memory.
    """
    curve = gains(tie, psi, w)
    gain = curve.at(grid)
    influence = _Influence(tie, psi, w, grid, curve)
    m = len(grid)
    eye, ate = np.eye(m), np.zeros(m)
    ate[-1] = 1.0
    linear = np.zeros((3 + 2 * m, 2 + m))  # from (qini, autoc, gain) to (qini, autoc, auuc, gain, toc)
    linear[0, 0] = linear[1, 1] = linear[2, 0] = 1.0
    linear[2, 2:] = 0.5 * ate
    linear[3 : 3 + m, 2:] = eye
    linear[3 + m :, 2:] = eye / grid[:, None] - ate
    covariance, g = two_way(influence, units, items, linear)
    return Ranked(
        curve.qini(), curve.autoc(), curve.auuc(), gain, gain / grid - curve.ate, covariance, g
    )  # fmt: skip


class _Influence:
    """φ of (Qini, AUTOC, G on the grid) for some rows, (m, 2 + grid): w_i (ψ_i a_g + b_g) with a, b of the row's tie g."""

    def __init__(self, tie: Ints, psi: F64, w: F64, grid: F64, curve: Gains) -> None:
        kept = np.bincount(tie, w) > 0
        self.tie = np.maximum(np.cumsum(kept) - 1, 0)[tie]  # ties without weight have no influence either
        self.psi, self.w, self.grid = psi, w / w.mean(), grid
        self.low, self.width = curve.q[:-1], np.diff(curve.q)
        value = np.diff(curve.gain)
        self.qini = _area(self.low, self.width, value, _of_qini(self.low, self.width))
        self.autoc = _area(self.low, self.width, value, _of_autoc(self.low, self.width))
        self.gain = curve.at(grid)
        left, right = np.maximum(grid - WINDOW, 0.0), np.minimum(grid + WINDOW, 1.0)
        self.slope = (curve.at(right) - curve.at(left)) / (right - left)

    def __call__(self, rows: Index) -> F64:
        tie, psi = self.tie[rows], self.psi[rows]
        share = (self.grid - self.low[tie][:, None]) / self.width[tie][:, None]
        np.clip(share, 0.0, 1.0, out=share)
        out = np.empty((len(rows), 2 + len(self.grid)))
        for column, (a, b) in enumerate((self.qini, self.autoc)):
            out[:, column] = psi * a[tie] + b[tie]
        out[:, 2:] = share * (psi[:, None] - self.slope) + (self.slope * self.grid - self.gain)
        out *= self.w[rows][:, None]
        return out


def _of_qini(low: F64, width: F64) -> tuple[F64, F64, F64]:
    """k̄, ∂k̄/∂a, ∂k̄/∂b for k = 1/2 − R, (T,) each."""
    half = np.full_like(low, -0.5)
    return 0.5 - low - 0.5 * width, half, half


def _of_autoc(low: F64, width: F64) -> tuple[F64, F64, F64]:
    """The same for k = −1 − log R, whose integral is −q log q. The best tie starts at 0 whatever the weights are."""
    high, middle = low + width, low + 0.5 * width
    safe = np.where(low > 0, low, 1.0)
    mean = np.where(low > 0, low * np.log(safe), 0.0) / width - high * np.log(high) / width
    above, below = -1 - np.log(safe), -1 - np.log(high)
    narrow = width < NARROW * middle
    mean = np.where(narrow, -1 - np.log(middle), mean)
    d_low = np.where(narrow, -0.5 / middle, (mean - above) / width)
    d_high = np.where(narrow, -0.5 / middle, (below - mean) / width)
    return mean, np.where(low > 0, d_low, 0.0), d_high


def _area(low: F64, width: F64, value: F64, k: tuple[F64, F64, F64]) -> tuple[F64, F64]:
    """(a, b), (T,) each, with φ_i = ψ_i a_g + b_g."""
    mean, d_low, d_high = k
    to_low, to_high = value * d_low, value * d_high
    below = np.cumsum(to_low[::-1])[::-1] - to_low  # Σ over ties ranked below g
    with_own = np.cumsum(to_high[::-1])[::-1]
    level = float((value * mean).sum()) + float((to_low * low).sum() + (to_high * (low + width)).sum())
    return mean, below + with_own - level
