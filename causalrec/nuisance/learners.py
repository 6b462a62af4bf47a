"""Any scikit-learn classifier or regressor as a nuisance, cross-fitted on the dense design."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import numpy.typing as npt

from causalrec.errors import EstimationError
from causalrec.nuisance.design import Design

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def predict(model: Any, x: npt.NDArray[Any]) -> F64:
    """P(1 | x) of a classifier, E[y | x] of a regressor, (n,)."""
    if hasattr(model, "predict_proba"):
        return np.asarray(model.predict_proba(x), dtype=np.float64)[:, list(model.classes_).index(1)]
    return np.asarray(model.predict(x), dtype=np.float64)


def cross_fit(
    learner: Any, design: Design, y: F64, w: F64, probability: bool, fold: Ints, extra: F64 | None = None
) -> tuple[F64, list[Any]]:
    """Out-of-fold predictions (n,) and the K fitted clones; rows of weight 0 do not train.

    Raises
    ------
    EstimationError
        A classifier for a continuous outcome, or one without probabilities for a binary one.
    """
    from sklearn.base import BaseEstimator, clone, is_classifier

    classifier = hasattr(learner, "predict_proba")
    if classifier and not probability:
        raise EstimationError(
            f"{type(learner).__name__} is a classifier but the outcome is continuous; pass a regressor."
        )
    if probability and not classifier and isinstance(learner, BaseEstimator) and is_classifier(learner):
        raise EstimationError(
            f"{type(learner).__name__} gives no probabilities; pass one with predict_proba."
        )
    x = design.dense()
    if extra is not None:
        x = np.column_stack([x, extra.astype(np.float32)])
    weighted = np.ptp(w[w > 0]) > 0
    if weighted and "sample_weight" not in inspect.signature(learner.fit).parameters:
        raise EstimationError(
            f"{type(learner).__name__}.fit takes no sample_weight, but the rows are weighted."
        )
    out = np.empty(len(y))
    models = []
    for f in range(int(fold.max()) + 1):
        train, test = (fold != f) & (w > 0), fold == f
        target = y[train].astype(int) if classifier else y[train]
        weights = {"sample_weight": w[train]} if weighted else {}
        model = clone(learner).fit(x[train], target, **weights)
        out[test] = predict(model, x[test])
        models.append(model)
    return out, models
