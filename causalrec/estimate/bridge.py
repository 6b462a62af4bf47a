"""Any EconML estimator of the DR or DML family on nuisances that are already there.

EconML fits its nuisances inside ``fit``. Here it is given models that look the cached out-of-fold predictions
up by row number, which travels as the only column of W; so that its final stage, its intervals and its
``effect`` are its own, and six final stages cost one cross-fit.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt

from causalrec.errors import ArgumentError
from causalrec.nuisance import Clip, Nuisances

F64 = npt.NDArray[np.float64]


class _Cached:
    """Out-of-fold predictions by row number; cloning it copies nothing."""

    def __init__(self, table: F64, row_at: int) -> None:
        self.table, self.row_at = table, row_at

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {"table": self.table, "row_at": self.row_at}

    def set_params(self, **params: Any) -> _Cached:
        self.__dict__.update(params)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> _Cached:
        return self

    def __sklearn_clone__(self) -> _Cached:
        return self

    def fit(self, x: F64, y: F64, sample_weight: F64 | None = None) -> _Cached:
        self.classes_ = np.array([0.0, 1.0])
        return self

    def score(self, x: F64, y: F64, sample_weight: F64 | None = None) -> float:
        return float("nan")

    def rows(self, x: F64) -> npt.NDArray[np.int64]:
        return np.rint(x[:, self.row_at]).astype(np.int64)


class _CachedClassifier(_Cached):
    """P(T=1 | row)."""

    _estimator_type = "classifier"

    def predict_proba(self, x: F64) -> F64:
        p = self.table[self.rows(x)]
        return np.column_stack([1 - p, p])

    def predict(self, x: F64) -> F64:
        return (self.table[self.rows(x)] > 0.5).astype(np.float64)


class _CachedRegressor(_Cached):
    """E[· | row]; a table of two columns is looked up by the arm that stands in x's last column."""

    _estimator_type = "regressor"

    def predict(self, x: F64) -> F64:
        if self.table.ndim == 1:
            return self.table[self.rows(x)]
        return self.table[self.rows(x), (x[:, -1] > 0.5).astype(np.int64)]


def _carrying(scores: F64, y: F64, t: F64, nuisances: Nuisances, least: float) -> F64:
    """m₁ (n,) with which EconML's own doubly robust pseudo-outcome, m₁ − m₀ + T (Y − m₁)/e − (1 − T)(Y − m₀)/(1 − e), is the score."""
    e, m0 = np.clip(nuisances.propensity, least, 1 - least), nuisances.outcome_0
    rest = -m0 + t * y / e - (1 - t) * (y - m0) / (1 - e)
    return (scores - rest) / (1 - t / e)


def default_model() -> Any:
    """``LinearDRLearner()``, a linear model of the doubly robust pseudo-outcomes in the modifiers."""
    from econml.dr import LinearDRLearner

    return LinearDRLearner()


def fit_econml(
    model: Any,
    y: F64,
    t: F64,
    x: F64 | None,
    nuisances: Nuisances,
    clip: Clip,
    weights: F64 | None = None,
    random_state: int | None = None,
    scores: F64 | None = None,
) -> Any:
    """A copy of `model` fitted on cached nuisances; `model` itself stays as it was.

    Parameters
    ----------
    model : unfitted EconML estimator with ``model_regression`` (DR) or ``model_y`` (DML)
    x : (n, q) modifiers or None
    scores : (n,) or None
        Pseudo-outcomes that a DR learner is to regress instead of the first-order ones.

    Raises
    ------
    ArgumentError
        The estimator is of another family, or needs modifiers and there are none.
    """
    own = copy.deepcopy(model)
    index = np.arange(len(y), dtype=np.float64)[:, None]
    splits = [
        (np.flatnonzero(nuisances.fold != f), np.flatnonzero(nuisances.fold == f))
        for f in range(int(nuisances.fold.max()) + 1)
    ]
    of_dr = hasattr(own, "model_regression") and hasattr(own, "model_propensity")
    of_dml = hasattr(own, "model_y") and hasattr(own, "model_t") and not hasattr(own, "model_z")
    if not (of_dr or of_dml) or isinstance(model, type):
        raise ArgumentError(
            f"model is a {type(model).__name__}; must be an EconML estimator of the DR or DML family "
            "(LinearDRLearner, ForestDRLearner, LinearDML, CausalForestDML, …), which can take nuisances that are already fitted."
        )
    own.cv, own.mc_iters, own.discrete_outcome = splits, None, False
    if getattr(own, "random_state", 0) is None:
        own.random_state = random_state
    e = clip.apply(nuisances.propensity)
    if of_dr:
        own.min_propensity = max(clip.bound, 1e-12)
        own.model_propensity = _CachedClassifier(nuisances.propensity, -1)
        m1 = nuisances.outcome_1 if scores is None else _carrying(scores, y, t, nuisances, own.min_propensity)
        own.model_regression = _CachedRegressor(np.column_stack([nuisances.outcome_0, m1]), -2)
    else:
        mean = e * nuisances.outcome_1 + (1 - e) * nuisances.outcome_0
        own.model_y = _CachedRegressor(mean, -1)
        own.model_t = (_CachedClassifier if own.discrete_treatment else _CachedRegressor)(e, -1)
    try:
        return own.fit(y, t, X=x, W=index, **({} if weights is None else {"sample_weight": weights}))
    except (AttributeError, ValueError) as error:
        if x is None:
            raise ArgumentError(
                f"{type(model).__name__} models how the effect varies, and the log declares no modifiers= ({error})."
            ) from error
        raise
