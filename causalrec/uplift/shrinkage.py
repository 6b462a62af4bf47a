"""Effects of groups drawn towards each other: empirical Bayes with correlated errors. Arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
STEPS = 200


def shrink(values: F64, covariance: F64, z: float = 1.96) -> tuple[F64, F64, F64]:
    """Posterior (mean, lower, upper), (K,) each, of effects θ ~ N(μ, A I) that were seen as N(θ, V).

    μ by generalised least squares, A by restricted maximum likelihood on a grid from 0; the posterior variance has the part
    that is due to μ: A I − A W A + (1 − A W 1)(1'W1)⁻¹(1 − A W 1)', W = (V + A I)⁻¹. That of A is left out, so that with
    few groups intervals are somewhat short. Morris (1983); Harville (1977), eq. 3.

    Returns
    -------
    Means, and means ± z standard deviations.
    """
    k = len(values)
    if k < 2:
        half = z * np.sqrt(np.diag(covariance))
        return values.copy(), values - half, values + half
    spread = _Spread(values, *np.linalg.eigh(covariance))
    top = 4 * max(float(np.var(values)), float(np.mean(np.diag(covariance))))
    a = float(max(np.linspace(0, 1, STEPS) ** 2 * top, key=spread.likelihood))
    w = spread.inverse(a)
    mean = float(w.sum(axis=0) @ values / w.sum())
    rest = 1 - a * w.sum(axis=1)
    posterior = a * np.eye(k) - a**2 * w + np.outer(rest, rest) / w.sum()
    centre = mean + a * w @ (values - mean)
    half = z * np.sqrt(np.maximum(np.diag(posterior), 0.0))
    return centre, centre - half, centre + half


@dataclass(frozen=True, eq=False)
class _Spread:
    """V + A I on the axes of V, in which every A is cheap. Directions without variance count for a hair of it."""

    values: F64
    variances: F64
    axes: F64

    def _at(self, a: float) -> F64:
        return np.maximum(self.variances, 1e-9 * self.variances[-1]) + a

    def inverse(self, a: float) -> F64:
        """(V + A I)⁻¹."""
        return np.asarray((self.axes / self._at(a)) @ self.axes.T)

    def likelihood(self, a: float) -> float:
        """Restricted log likelihood of A, up to a constant."""
        d, one, y = self._at(a), self.axes.sum(axis=0), self.axes.T @ self.values
        total = float(np.sum(one**2 / d))
        rest = y - one * float(np.sum(one * y / d)) / total
        return float(-0.5 * (np.log(d).sum() + np.log(total) + np.sum(rest**2 / d)))
