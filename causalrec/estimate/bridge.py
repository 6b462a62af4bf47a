"""Any EconML estimator of the DR or DML family on nuisances that are already there.

EconML fits its nuisances inside ``fit``. Here it is given models that look the cached out-of-fold predictions
up by row number, which travels as the only column of W; so that its final stage, its intervals and its
``effect`` are its own, and six final stages cost one cross-fit.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from causalrec.errors import ArgumentError
from causalrec.estimate.metalearners import OnNuisances, OutOfFold
from causalrec.nuisance import Clip, Nuisances
from causalrec.nuisance.batch import TARGETS, Target
from causalrec.nuisance.crossfit import FoldModels

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Out-of-fold nuisances of some rows, (n,) each, without the models behind them.

    Attributes
    ----------
    propensity, outcome_0, outcome_1 : (n,)
    fold : (n,) codes 0 … K − 1
    """

    propensity: F64
    outcome_0: F64
    outcome_1: F64
    fold: Ints

    @classmethod
    def outside(cls, nuisances: OutOfFold, k: int) -> Predictions:
        """Those of the rows outside fold k, from models that left out the row's own fold (and may have seen fold k)."""
        rows = nuisances.fold != k
        fold = np.unique(nuisances.fold[rows], return_inverse=True)[1].astype(np.int64)
        return cls(nuisances.propensity[rows], nuisances.outcome_0[rows], nuisances.outcome_1[rows], fold)


def without_fold(nuisances: Nuisances, k: int) -> Predictions | None:
    """Predictions for the rows outside fold k from models that saw neither fold k nor the row's own fold.

    A ridge fit has them, since penalties were chosen by leaving out a further fold. Where the search left some out (from 50,000
    rows on), the row's own fold was seen, by a model without fold k. None for other learners.
    """
    ridge, problem = nuisances.ridge, nuisances.problem
    targets: tuple[Target, ...] = TARGETS[1:] if nuisances.logged else TARGETS
    if ridge is None or any(t not in ridge.betas for t in targets):
        return None
    rows = np.flatnonzero(nuisances.fold != k)
    found = {t: _eta_without(nuisances, ridge, t, k)[rows] for t in targets}
    e = problem.logged[rows] if problem.logged is not None else expit(found["propensity"])
    m0, m1 = (expit(found[t]) if problem.binary else found[t] for t in TARGETS[1:])
    return Predictions(e, m0, m1, np.unique(nuisances.fold[rows], return_inverse=True)[1].astype(np.int64))


def _eta_without(nuisances: Nuisances, ridge: FoldModels, target: Target, k: int) -> F64:
    """(n,) linear predictor of each row outside fold k; meaningless inside it."""
    fold, outers = nuisances.fold, ridge.inner.outers
    if ridge.eta:
        column = {next(iter(set(o) - {k})): c for c, o in enumerate(outers) if k in o}
        at = np.array([column.get(j, 0) for j in range(int(fold.max()) + 1)])
        return ridge.eta[target][np.arange(len(fold)), at[fold]].astype(np.float64)
    held = ridge.inner.eta[target][:, k].astype(np.float64)
    if np.isnan(held[fold != k]).any():
        beta = ridge.betas[target][:, [k]].astype(np.float32)
        seen = nuisances.problem.designs[target].matmul(beta)[:, 0].astype(np.float64)
        held = np.where(np.isnan(held), seen, held)
    return ridge.platt[target][0, k] + ridge.platt[target][1, k] * held


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


def _carrying(scores: F64, y: F64, t: F64, nuisances: OutOfFold, least: float) -> F64:
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
    nuisances: OutOfFold,
    clip: Clip,
    weights: F64 | None = None,
    random_state: int | None = None,
    scores: F64 | None = None,
) -> Any:
    """A copy of `model` fitted on cached nuisances; `model` itself stays as it was.

    Parameters
    ----------
    model : unfitted EconML estimator with ``model_regression`` (DR) or ``model_y`` (DML), or ``OnNuisances``
    nuisances : Nuisances, or the ``Predictions`` of some of its rows
    x : (n, q) modifiers or None
    scores : (n,) or None
        Pseudo-outcomes that a DR learner is to regress instead of the first-order ones.

    Raises
    ------
    ArgumentError
        The estimator is of another family, or needs modifiers and there are none.
    """
    if isinstance(model, type):
        raise ArgumentError(
            f"model is the class {model.__name__}; pass an unfitted estimator, {model.__name__}(...)."
        )
    own = copy.deepcopy(model)
    if isinstance(own, OnNuisances):
        e = clip.apply(nuisances.propensity)
        return own.fit(y, t, x, nuisances, propensity=e, weights=weights, scores=scores)
    index = np.arange(len(y), dtype=np.float64)[:, None]
    splits = [
        (np.flatnonzero(nuisances.fold != f), np.flatnonzero(nuisances.fold == f))
        for f in range(int(nuisances.fold.max()) + 1)
    ]
    of_dr = hasattr(own, "model_regression") and hasattr(own, "model_propensity")
    of_dml = hasattr(own, "model_y") and hasattr(own, "model_t") and not hasattr(own, "model_z")
    if not (of_dr or of_dml):
        raise ArgumentError(
            f"model is a {type(model).__name__}; must be an EconML estimator of the DR or DML family "
            "(LinearDRLearner, ForestDRLearner, LinearDML, CausalForestDML, …) or one of causalrec's SLearner, TLearner, XLearner, WordEffects, "
            "which can take nuisances that are already fitted."
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
