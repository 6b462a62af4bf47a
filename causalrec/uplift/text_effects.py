"""How the effect goes with the words: a Gaussian process over texts on the mean scores of items. Arrays in, arrays out.

Item j has the mean score y_j over n_j rows, y_j = μ + f(z_j) + u_j + ε_j, with f a Gaussian process of variance A and the kernel
exp(−‖z − z'‖²/(2ℓ²)) over embeddings of unit length, u_j ~ N(0, ν²) what the item has beyond its words, and ε_j of variance
σ²/n_j (clustered, if known). The effect of a new item is f + u, so that its interval widens with the distance from the texts
seen, up to √(A + ν²). Rasmussen & Williams (2006), §2.2, 5.4; inducing texts with the exact prior variance (FITC at new
points): Snelson & Ghahramani (2006).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
MOST_INDUCING = 150
LENGTHS = (0.5, 1.0, 2.0)
"""Length scales that are tried, in median distances between texts."""
SIGNALS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
NUGGETS = (0.0, 0.1, 0.3, 1.0)
"""Variances of f and of u that are tried, as shares of twice the items' spread beyond noise (floored)."""
JITTER = 1e-6


@dataclass(frozen=True, eq=False)
class TextEffects:
    """A fitted process.

    Attributes
    ----------
    mean : float
        μ, the effect of an item of which nothing is known.
    mean_variance : float
        Its own sampling variance.
    signal, nugget : float
        A and ν².
    length : float
        ℓ.
    inducing : (m, d) unit vectors
    root : (m, m)
        K_mm^(−1/2).
    weights : (m,), covariance : (m, m)
        Posterior of the process at the inducing texts.
    texts : (u, d) unit vectors seen
    """

    mean: float
    mean_variance: float
    signal: float
    nugget: float
    length: float
    inducing: F64 = field(repr=False)
    root: F64 = field(repr=False)
    weights: F64 = field(repr=False)
    covariance: F64 = field(repr=False)
    texts: F64 = field(repr=False)

    def predict(self, z: F64) -> tuple[F64, F64]:
        """(mean, variance), (k,) each, of the effects of unseen items with these embeddings (k, d)."""
        z = unit_rows(z)
        phi = kernel(z, self.inducing, self.length) @ self.root
        known = np.sum((phi @ self.covariance) * phi, axis=1)
        unknown = self.signal * np.maximum(1 - np.sum(phi**2, axis=1), 0.0)
        return self.mean + phi @ self.weights, known + unknown + self.nugget + self.mean_variance

    def distance(self, z: F64) -> F64:
        """(k,) distance to the nearest text seen, 0 (the same) to 2 (the opposite)."""
        return np.sqrt(np.maximum(2 - 2 * (unit_rows(z) @ self.texts.T).max(axis=1), 0.0))


def unit_rows(z: npt.NDArray[np.floating]) -> F64:
    """Rows of length 1; a row of zeros stays."""
    z = np.asarray(z, dtype=np.float64)
    length = np.linalg.norm(z, axis=1, keepdims=True)
    return z / np.where(length > 0, length, 1.0)


def kernel(a: F64, b: F64, length: float) -> F64:
    """exp(−‖a − b‖²/(2ℓ²)), (rows of a, rows of b)."""
    squared = np.sum(a**2, axis=1)[:, None] + np.sum(b**2, axis=1) - 2 * a @ b.T
    return np.exp(-np.maximum(squared, 0.0) / (2 * length**2))


@dataclass(frozen=True, eq=False)
class Items:
    """Mean scores of the items: embedding (u, d), mean (u,), variance of the mean (u,), rows (u,)."""

    z: F64
    y: F64
    noise: F64
    n: F64

    def take(self, rows: npt.NDArray[np.bool_]) -> Items:
        """Some of the items."""
        return Items(self.z[rows], self.y[rows], self.noise[rows], self.n[rows])


def item_means(psi: F64, w: F64, codes: Ints, z: npt.NDArray[np.floating]) -> Items:
    """Weighted mean scores of items 0 … u − 1, each of which has a row, with noise of the pooled within-item variance.

    σ² = Σ w (ψ − y_j)² / Σ w (1 − 1/n_j); an item's mean has the variance σ²/n_j, n_j being Kish's effective rows.
    """
    u = len(z)
    mass = np.bincount(codes, w, u)
    y = np.bincount(codes, w * psi, u) / mass
    n = mass**2 / np.bincount(codes, w**2, u)
    within: float = np.sum(w * (psi - y[codes]) ** 2) / max(float(np.sum(mass * (1 - 1 / n))), 1e-12)
    if np.all(n <= 1 + 1e-9):
        within = float(np.average((psi - np.average(psi, weights=w)) ** 2, weights=w))
    return Items(unit_rows(z), y, within / n, n)


def fit_text_effects(items: Items, words: bool = True) -> TextEffects:
    """The process of the greatest marginal likelihood on a grid of (ℓ, A, ν²); without `words`, A = 0.

    Returns
    -------
    TextEffects
    """
    _, signal, solved = max(_candidates(items, words), key=lambda c: c[0])
    return solved.process(signal)


def _candidates(items: Items, words: bool) -> Iterator[tuple[float, float, _Solved]]:
    """(log marginal likelihood, A, normal equations) of each point of the grid, the plainest first."""
    inducing, spread = _inducing(items.z) if words else items.z[:1], _spread(items)
    near = _median_distance(inducing)
    for length in LENGTHS if words and len(inducing) > 1 else LENGTHS[1:2]:
        basis = _Basis.of(items, inducing, near * length)
        for nugget in NUGGETS:
            solved = basis.solve(items, nugget * spread)
            for signal in SIGNALS if words else SIGNALS[:1]:
                yield solved.likelihood(signal * spread), signal * spread, solved


def _spread(items: Items) -> float:
    """Variance of the items' effects beyond noise, by moments, and no less than a tenth of what noise can hide."""
    weight = 1 / items.noise
    centre = np.average(items.y, weights=weight)
    beyond = float(np.average((items.y - centre) ** 2, weights=weight) - len(items.y) / weight.sum())
    hidden = float(np.sqrt(2 / len(items.y)) * len(items.y) / weight.sum())
    return 2 * max(beyond, hidden)


def _inducing(z: F64) -> F64:
    """Distinct texts, at most ``MOST_INDUCING`` spread evenly over them."""
    distinct = np.unique(z, axis=0)
    return distinct[
        np.unique(np.linspace(0, len(distinct) - 1, min(len(distinct), MOST_INDUCING)).astype(int))
    ]


def _median_distance(z: F64) -> float:
    some = z[:: max(1, len(z) // 100)]
    squared = 2 - 2 * some @ some.T
    off = squared[np.triu_indices(len(some), 1)]
    return float(np.sqrt(max(np.median(off), 1e-6))) if len(off) else 1.0


@dataclass(frozen=True, eq=False)
class _Basis:
    """Φ = K_um K_mm^(−1/2), so that f ≈ Φ θ with θ ~ N(0, A I)."""

    length: float
    inducing: F64
    root: F64
    phi: F64

    @classmethod
    def of(cls, items: Items, inducing: F64, length: float) -> _Basis:
        values, axes = np.linalg.eigh(kernel(inducing, inducing, length) + JITTER * np.eye(len(inducing)))
        root = axes / np.sqrt(np.maximum(values, JITTER))
        return cls(length, inducing, root, kernel(items.z, inducing, length) @ root)

    def solve(self, items: Items, nugget: float) -> _Solved:
        d = items.noise + nugget
        weight = 1 / d
        mean = float(np.average(items.y, weights=weight))
        values, axes = np.linalg.eigh((self.phi * weight[:, None]).T @ self.phi)
        turned = axes.T @ (self.phi.T @ (weight * (items.y - mean)))
        return _Solved(self, items, d, nugget, mean, np.maximum(values, 0.0), axes, turned)


@dataclass(frozen=True, eq=False)
class _Solved:
    """The normal equations of one (ℓ, ν²) on their own axes, in which every A is cheap."""

    basis: _Basis
    items: Items
    d: F64
    nugget: float
    mean: float
    values: F64
    axes: F64
    turned: F64

    def likelihood(self, signal: float) -> float:
        """Log marginal likelihood with variance A = signal, up to a constant."""
        shrink = signal / (1 + signal * self.values)
        rest = self.items.y - self.mean
        quadratic = np.sum(rest**2 / self.d) - np.sum(shrink * self.turned**2)
        return float(-0.5 * (np.sum(np.log(self.d)) + np.sum(np.log1p(signal * self.values)) + quadratic))

    def process(self, signal: float) -> TextEffects:
        """The fitted process with variance A = signal."""
        shrink = signal / (1 + signal * self.values)
        return TextEffects(
            self.mean, float(1 / np.sum(1 / self.d)), signal, self.nugget, self.basis.length, self.basis.inducing,
            self.basis.root, self.axes @ (shrink * self.turned), (self.axes * shrink) @ self.axes.T, self.items.z,
        )  # fmt: skip
