"""S-, T- and X-learners for clicks on shared nuisances: adjusted for the words, in probabilities, by user, with weights.

The textbook learners model the outcome by the modifiers alone, so that whatever else confounds (the words) goes into the
effect; with a classifier they difference labels. Here the outcome models and propensities are those of the log, cross-fitted by
user with everything that is adjusted for, and a regressor carries what they say over to the modifiers.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, clone

from causalrec.errors import ArgumentError

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class OutOfFold(Protocol):
    """Cross-fitted predictions of some rows: P(T=1), E[Y | T=0], E[Y | T=1] and the fold that each row was left out of."""

    @property
    def propensity(self) -> F64: ...  # noqa: D102
    @property
    def outcome_0(self) -> F64: ...  # noqa: D102
    @property
    def outcome_1(self) -> F64: ...  # noqa: D102
    @property
    def fold(self) -> Ints: ...  # noqa: D102


class OnNuisances(BaseEstimator):
    """A model of the effect that is fitted to nuisances: a subclass writes ``_fit``.

    Attributes
    ----------
    average_ : float
        Weighted mean of what was regressed; the effect where there are no modifiers.
    n_features_in_ : int
    """

    def fit(
        self,
        y: F64,
        t: F64,
        x: F64 | None,
        nuisances: OutOfFold,
        *,
        propensity: F64,
        weights: F64 | None = None,
        scores: F64 | None = None,
    ) -> OnNuisances:
        """Fit.

        Parameters
        ----------
        y, t : (n,)
        x : (n, q) modifiers, or None
        nuisances : OutOfFold
        propensity : (n,)
            Clipped.
        weights : (n,) or None
        scores : (n,) or None
            Doubly robust scores of the ATE, for models that regress them.
        """
        self.n_features_in_ = 0 if x is None else x.shape[1]
        self._fit(y, t, np.zeros((len(y), 0)) if x is None else x, nuisances, propensity, weights, scores)
        return self

    def effect(self, x: F64 | None) -> F64:
        """(m,) effect at x (m, q), clicks per impression; (1,) without modifiers."""
        return self._effect(np.zeros((1, 0)) if x is None else np.asarray(x, dtype=np.float64))

    def _fit(
        self, y: F64, t: F64, x: F64, nuisances: OutOfFold, e: F64, w: F64 | None, scores: F64 | None
    ) -> None:
        raise NotImplementedError

    def _effect(self, x: F64) -> F64:
        raise NotImplementedError


class ConstantEffect(OnNuisances):
    """The same effect for everyone: the mean doubly robust score. What every other model has to beat."""

    def _fit(
        self, y: F64, t: F64, x: F64, nuisances: OutOfFold, e: F64, w: F64 | None, scores: F64 | None
    ) -> None:
        self.average_ = float(np.average(scores_of(y, t, nuisances, e, scores), weights=w))

    def _effect(self, x: F64) -> F64:
        return np.full(len(x), self.average_)


class TLearner(OnNuisances):
    """E[m₁ − m₀ | X]: the difference of the two arms' outcome models, carried over to the modifiers.

    Parameters
    ----------
    final : scikit-learn regressor
        Default ``LinearRegression()``. Takes ``sample_weight`` where the log has weights.
    """

    def __init__(self, final: Any = None) -> None:
        self.final = final

    def _fit(
        self, y: F64, t: F64, x: F64, nuisances: OutOfFold, e: F64, w: F64 | None, scores: F64 | None
    ) -> None:
        self.model_ = _regress(self.final, x, nuisances.outcome_1 - nuisances.outcome_0, w)

    def _effect(self, x: F64) -> F64:
        return _predict(self.model_, x)


class SLearner(OnNuisances):
    """One model of the outcome with the treatment among its columns: p(1, z) − p(0, z), carried over to the modifiers.

    z holds the modifiers and two numbers that stand for all the rest, the log odds of the mean outcome e m₁ + (1 − e) m₀
    and of the propensity e (for an outcome that is no probability, the mean itself). It is fitted out of fold, by user.

    Parameters
    ----------
    learner : scikit-learn classifier with ``predict_proba``, or regressor
        Takes (T, X, z's two columns, T × X). Default: a logistic regression on standardised columns for clicks,
        a linear one otherwise.
    final : scikit-learn regressor
        Default ``LinearRegression()``.
    """

    def __init__(self, learner: Any = None, final: Any = None) -> None:
        self.learner = learner
        self.final = final

    def _fit(
        self, y: F64, t: F64, x: F64, nuisances: OutOfFold, e: F64, w: F64 | None, scores: F64 | None
    ) -> None:
        mean = e * nuisances.outcome_1 + (1 - e) * nuisances.outcome_0
        binary = bool(np.isin(y, (0.0, 1.0)).all())
        rest = np.column_stack([log_odds(mean) if binary else mean, log_odds(e)])
        learner = _default_single(binary) if self.learner is None else self.learner
        difference = np.empty(len(y))
        for fold in np.unique(nuisances.fold):
            out = nuisances.fold == fold
            model = clone(learner).fit(_columns(t, x, rest)[~out], y[~out], **_weighted(learner, w, ~out))
            one, zero = (_columns(np.full(int(out.sum()), arm), x[out], rest[out]) for arm in (1.0, 0.0))
            difference[out] = _mean_of(model, one) - _mean_of(model, zero)
        self.model_ = _regress(self.final, x, difference, w)

    def _effect(self, x: F64) -> F64:
        return _predict(self.model_, x)


class XLearner(OnNuisances):
    """Imputed effects, regressed on the modifiers in each arm and mixed by the propensity.

    τ₁ regresses Y − m₀ of the treated and τ₀ regresses m₁ − Y of the others; with g(x) = E[e | X = x],

        τ(x) = g(x) τ₀(x) + (1 − g(x)) τ₁(x).

    Where effects vary with the words beyond the modifiers, τ₁ and τ₀ are effects on the treated and on the untreated, and
    the mixture is of the two. Künzel, Sekhon, Bickel & Yu (2019).

    Parameters
    ----------
    final : scikit-learn regressor
        For τ₀, τ₁ and g. Default ``LinearRegression()``.
    """

    def __init__(self, final: Any = None) -> None:
        self.final = final

    def _fit(
        self, y: F64, t: F64, x: F64, nuisances: OutOfFold, e: F64, w: F64 | None, scores: F64 | None
    ) -> None:
        ones, zeros = t > 0.5, t <= 0.5
        self.treated_ = _regress(
            self.final, x[ones], (y - nuisances.outcome_0)[ones], None if w is None else w[ones]
        )
        self.others_ = _regress(
            self.final, x[zeros], (nuisances.outcome_1 - y)[zeros], None if w is None else w[zeros]
        )
        self.share_ = _regress(self.final, x, e, w)

    def _effect(self, x: F64) -> F64:
        g = np.clip(_predict(self.share_, x), 0.0, 1.0)
        return g * _predict(self.others_, x) + (1 - g) * _predict(self.treated_, x)


class Stack(OnNuisances):
    """A convex combination of models of the effect that are already fitted.

    Parameters
    ----------
    models : tuple of fitted models with ``effect``
    shares : tuple of float
        Non-negative, summing to 1.
    widths : tuple of int, or None
        How many columns of x each model takes, from the first on; None = all.
    """

    def __init__(
        self, models: tuple[Any, ...], shares: tuple[float, ...], widths: tuple[int, ...] | None = None
    ) -> None:
        self.models = models
        self.shares = shares
        self.widths = widths

    def _fit(
        self, y: F64, t: F64, x: F64, nuisances: OutOfFold, e: F64, w: F64 | None, scores: F64 | None
    ) -> None:
        raise ArgumentError("a Stack is made of fitted models and is not fitted; choose_model makes one.")

    def _effect(self, x: F64) -> F64:
        widths = self.widths or (x.shape[1],) * len(self.models)
        given = [x[:, :q] if q else None for q in widths]
        parts = [
            s * np.ravel(m.effect(own)) for m, s, own in zip(self.models, self.shares, given, strict=True)
        ]
        return np.sum(np.broadcast_arrays(np.zeros(len(x)), *parts), axis=0)


def scores_of(y: F64, t: F64, nuisances: OutOfFold, e: F64, scores: F64 | None) -> F64:
    """(n,) the given doubly robust scores, or those of first order."""
    from causalrec.scores import aipw_ate

    return aipw_ate(t, y, e, nuisances.outcome_0, nuisances.outcome_1)[0] if scores is None else scores


def _regress(final: Any, x: F64, target: F64, w: F64 | None) -> Any:
    """A fitted regression of `target` on x, or the mean where x has no column."""
    from sklearn.linear_model import LinearRegression

    if x.shape[1] == 0:
        return float(np.average(target, weights=w))
    model = LinearRegression() if final is None else clone(final)
    return model.fit(x, target, **_weighted(model, w, slice(None)))


def _predict(model: Any, x: F64) -> F64:
    return np.full(len(x), model) if isinstance(model, float) else np.ravel(model.predict(x))


def _weighted(model: Any, w: F64 | None, rows: Any) -> dict[str, F64]:
    """The weights as the model's ``fit`` takes them: by its last step if it is a pipeline."""
    if w is None:
        return {}
    steps = getattr(model, "steps", None)
    return {"sample_weight" if steps is None else f"{steps[-1][0]}__sample_weight": w[rows]}


def _default_single(binary: bool) -> Any:
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500) if binary else LinearRegression())


def _columns(t: F64, x: F64, rest: F64) -> F64:
    return np.column_stack([t, x, rest, t[:, None] * x])


def _mean_of(model: Any, columns: F64) -> F64:
    """E[Y] of a classifier (its probability, never its label) or a regressor."""
    if hasattr(model, "predict_proba"):
        return np.asarray(model.predict_proba(columns)[:, 1], dtype=np.float64)
    return np.asarray(model.predict(columns), dtype=np.float64)


def log_odds(p: F64) -> F64:
    """The log odds, log p/(1 − p), with p held within .0001 of 0 and 1."""
    from scipy.special import logit

    return np.asarray(logit(np.clip(p, 1e-4, 1 - 1e-4)), dtype=np.float64)
