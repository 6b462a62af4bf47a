"""Models of a dose: its mean and density given what is adjusted for, and the outcome at every dose."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, RegressorMixin

from causalrec.estimate.several import Adjusted
from causalrec.nuisance import learners

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
KNOTS = (0.01, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.99)
PENALTIES = tuple(float(v) for v in np.logspace(-2, 5, 15))
FINE = 2048
"""Points of the grid on which the residuals' density is tabulated."""
COARSE = 200
"""Points of the grid on which the dose's marginal density is tabulated."""
WIDEST = 10.0
"""How much more or less than the typical spread a row's spread may be."""
DERIVATIVE_WIDTH = 1.6
"""The density's bandwidth for its derivative, in units of that for the density itself."""


class DoseRidge(RegressorMixin, BaseEstimator):
    """Ridge regression in the covariates, a cubic spline of the dose, and dose × covariates; the dose is the last column.

    The penalty is chosen by generalised cross-validation. A click is modelled as a linear probability.
    """

    def fit(self, X: F64, y: F64, sample_weight: F64 | None = None) -> DoseRidge:
        """Fit to X (n, p + 1) and y (n,)."""
        from sklearn.linear_model import RidgeCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import SplineTransformer, StandardScaler

        dose = X[:, -1:].astype(np.float64)
        self.middle_, self.spread_ = float(dose.mean()), float(dose.std()) or 1.0
        knots = np.unique(np.quantile(dose, KNOTS))[:, None]
        self.spline_ = SplineTransformer(knots=knots, extrapolation="linear", include_bias=False).fit(dose)
        self.model_ = make_pipeline(StandardScaler(), RidgeCV(PENALTIES))
        self.model_.fit(self._basis(X), y, ridgecv__sample_weight=sample_weight)
        return self

    def predict(self, X: F64) -> F64:
        """E[y | X], (n,)."""
        return np.asarray(self.model_.predict(self._basis(X)))

    def _basis(self, X: F64) -> F64:
        dose = X[:, -1:].astype(np.float64)
        z = (dose - self.middle_) / self.spread_
        return np.column_stack([X[:, :-1], self.spline_.transform(dose), X[:, :-1] * z])


@dataclass(frozen=True, eq=False)
class _ResidualDensity:
    """A density of standardised residuals, tabulated, and the derivative of its logarithm."""

    at: F64
    density: F64
    slope: F64

    @classmethod
    def of(cls, u: F64, weights: F64) -> _ResidualDensity:
        """Gaussian kernels with Silverman's bandwidth, .9 min(sd, IQR / 1.34) n^(−1/5)."""
        quartiles = np.quantile(u, (0.25, 0.75))
        spread = min(float(u.std()), float(np.ptp(quartiles)) / 1.34) or float(u.std())
        width = 0.9 * spread * len(u) ** -0.2
        at = np.linspace(u.min() - 5 * width, u.max() + 5 * width, FINE)
        count = np.histogram(u, FINE, (at[0], at[-1]), weights=weights)[0]
        step = at[1] - at[0]
        smooth = [_convolve(count, step, k * width) / (weights.sum() * step) for k in (1.0, DERIVATIVE_WIDTH)]
        floor = 1e-3 / len(u)
        slope = np.gradient(np.log(np.maximum(smooth[1], floor)), step)
        return cls(at, np.maximum(smooth[0], floor), slope)

    def __call__(self, u: F64) -> F64:
        return np.interp(u, self.at, self.density)


def _convolve(count: F64, step: float, width: float) -> F64:
    from scipy.ndimage import gaussian_filter1d

    return np.asarray(gaussian_filter1d(count.astype(np.float64), width / step, mode="constant", truncate=5))


@dataclass(frozen=True, eq=False)
class DoseModels:
    """Cross-fitted models of a dose and of the outcome at every dose.

    D = m(x) + s(x) U, with U independent of x and of a density that the residuals of the other folds give.

    Attributes
    ----------
    dose, mean, spread : (n,)
        D, and out-of-fold m(x) and s(x).
    outcome : (n,)
        Out-of-fold E[Y | x, D] at the dose that was given.
    """

    dose: F64
    mean: F64
    spread: F64
    outcome: F64
    fold: Ints
    densities: tuple[_ResidualDensity, ...] = field(repr=False)
    models: tuple[Any, ...] = field(repr=False)
    x: npt.NDArray[np.float32] = field(repr=False)

    @classmethod
    def fit(
        cls, adjusted: Adjusted, dose: F64, y: F64, outcome_model: Any = None, dose_model: Any = None
    ) -> DoseModels:
        """Cross-fit all of them on the folds of `adjusted`.

        Parameters
        ----------
        outcome_model : scikit-learn regressor
            Its last column is the dose; default ``DoseRidge()``.
        dose_model : scikit-learn regressor
            Of the dose's mean; default ridge regression. The spread is modelled by ridge regression of log |residual|.
        """
        fold, w, design = adjusted.fold, adjusted.weights, adjusted.propensity_design
        ridge = _ridge(design.p - 1)
        mean, _ = learners.cross_fit(dose_model or ridge, design, dose, w, False, fold)
        residual = dose - mean
        size = np.log(np.maximum(np.abs(residual), 1e-3 * residual.std()))
        log_spread, _ = learners.cross_fit(ridge, design, size, w, False, fold)
        spread = np.exp(log_spread - np.median(log_spread))
        spread = np.clip(spread, 1 / WIDEST, WIDEST)
        spread = spread * np.sqrt(np.average((residual / spread) ** 2, weights=w))
        u = residual / spread
        densities = tuple(
            _ResidualDensity.of(u[rest], w[rest])
            for rest in ((fold != f) & (w > 0) for f in range(adjusted.n_folds))
        )
        outcome, models = learners.cross_fit(
            outcome_model or DoseRidge(), adjusted.outcome_design, y, w, False, fold, dose
        )
        x = adjusted.outcome_design.dense()
        return cls(dose, mean, spread, outcome, fold, densities, tuple(models), x)

    def outcome_at(self, dose: float | F64) -> F64:
        """(n,) out-of-fold E[Y | x, dose] of every row, at one dose or at one for each row."""
        at = np.broadcast_to(np.asarray(dose, dtype=np.float64), self.dose.shape)
        out = np.empty(len(self.dose))
        for f, model in enumerate(self.models):
            here = self.fold == f
            given = np.column_stack([self.x[here], at[here].astype(np.float32)])
            out[here] = learners.predict(model, given)
        return out

    def density(self, dose: float | F64) -> F64:
        """(n,) out-of-fold density π(dose | x), per unit of the dose."""
        u = (dose - self.mean) / self.spread
        out = np.empty(len(u))
        for f, density in enumerate(self.densities):
            here = self.fold == f
            out[here] = density(u[here])
        return out / self.spread

    def marginal(self, weights: F64) -> tuple[F64, F64]:
        """(doses, density): the marginal density, the mean of π(dose | x) over the rows, on a grid of 200 doses."""
        at = np.linspace(float(self.dose.min()), float(self.dose.max()), COARSE)
        return at, np.array([np.average(self.density(float(d)), weights=weights) for d in at])

    def representer(self, weights: F64) -> F64:
        """(n,) α = −∂ log π(D | x) / ∂D, scaled so that the mean of α (D − m(x)) is 1, as it is of the true one."""
        u = (self.dose - self.mean) / self.spread
        slope = np.empty(len(u))
        for f, density in enumerate(self.densities):
            here = self.fold == f
            slope[here] = np.interp(u[here], density.at, density.slope)
        alpha = -slope / self.spread
        return np.asarray(alpha / np.average(alpha * (self.dose - self.mean), weights=weights))


def _ridge(width: int) -> Any:
    from sklearn.dummy import DummyRegressor
    from sklearn.linear_model import RidgeCV

    return RidgeCV(PENALTIES) if width else DummyRegressor()
