"""The estimators for research code: plain arrays in, scikit-learn's conventions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from causalrec import scores
from causalrec._checks import as_generator
from causalrec.errors import ArgumentError
from causalrec.estimate.analysis import Analysis, Settings, analyse
from causalrec.estimate.bridge import default_model, fit_econml
from causalrec.estimate.cate import cate_interval
from causalrec.estimate.caveats import units_in_smaller_arm
from causalrec.estimate.correction import Correction
from causalrec.estimate.inputs import Covariates, as_inputs, as_matrix
from causalrec.estimate.overlap import measure_overlap, refuse_if_hopeless
from causalrec.nuisance import Clip, Folds, NuisanceRecipe, Nuisances

F64 = npt.NDArray[np.float64]


class DoublyRobust(BaseEstimator):
    """Cross-fitted AIPW effect with errors clustered by group, and an EconML model of how it varies.

    Parameters
    ----------
    estimand : "ate", "att" or "ato"
    model : unfitted EconML estimator of the DR or DML family; default ``LinearDRLearner()``
    nuisances : NuisanceRecipe or fitted Nuisances
    folds : Folds
    correction : Correction
    clip : Clip
    random_state : int, Generator or None

    Attributes
    ----------
    effect_, std_error_, ci_lower_, ci_upper_, p_value_ : float
    naive_effect_ : float
    scores_ : (n,)
        Their (weighted) mean is ``effect_``.
    nuisances_ : Nuisances
    model_ : fitted EconML estimator
    n_features_in_ : int
        Columns of X.

    References
    ----------
    Robins, Rotnitzky & Zhao (1994); Chernozhukov et al. (2018), *Double/debiased machine learning*.
    """

    def __init__(
        self,
        *,
        estimand: str = "ate",
        model: Any = None,
        nuisances: NuisanceRecipe | Nuisances | None = None,
        folds: Folds | None = None,
        correction: Correction | None = None,
        clip: Clip | None = None,
        random_state: int | np.random.Generator | None = None,
    ) -> None:
        self.estimand = estimand
        self.model = model
        self.nuisances = nuisances
        self.folds = folds
        self.correction = correction
        self.clip = clip
        self.random_state = random_state

    def fit(
        self,
        Y: npt.ArrayLike,
        T: npt.ArrayLike,
        *,
        X: npt.ArrayLike | pd.DataFrame | None = None,
        W: Covariates = None,
        groups: npt.ArrayLike | None = None,
        items: npt.ArrayLike | None = None,
        propensity: npt.ArrayLike | None = None,
        sample_weight: npt.ArrayLike | None = None,
    ) -> DoublyRobust:
        """Fit.

        Parameters
        ----------
        Y, T : (n,)
            Outcome, and treatment 0/1.
        X : (n, q) numbers or DataFrame
            By which the effect may vary; adjusted for as well.
        W : (n, p) numbers, DataFrame, ``Block``, or a list of these
            Further things to adjust for. A ``Block`` keeps repeated vectors once.
        groups, items : (n,)
            Whose row, and of what. Folds and errors go by `groups`; of `items` the pairs too.
        propensity : (n,)
            Known P(T=1).
        sample_weight : (n,)

        Raises
        ------
        EstimationError, OverlapError, ArgumentError
        """
        inputs, x = as_inputs(Y, T, X, W, groups, items, propensity, sample_weight)
        settings = Settings.of(self.estimand, self.clip, self.folds, inputs.t, self.correction)
        rng = as_generator(self.random_state)
        seed = int(rng.integers(2**31))
        self.analysis_: Analysis = analyse(inputs, settings, self.nuisances, np.random.default_rng(seed))
        self.nuisances_ = self.analysis_.nuisances
        chosen = default_model() if self.model is None else self.model
        self.model_ = fit_econml(
            chosen,
            inputs.y,
            inputs.t,
            x,
            self.nuisances_,
            settings.clip,
            inputs.weights,
            seed,
            self.analysis_.ate_scores,
        )
        self.x_ = x
        self.n_features_in_ = 0 if x is None else x.shape[1]
        _store(self, self.analysis_.effect)
        self.by_item_ = self.analysis_.by_item
        self.naive_effect_ = self.analysis_.naive.value
        self.scores_ = self.analysis_.scores
        self.correction_ = self.analysis_.correction
        return self

    def cate(self, X: npt.ArrayLike | pd.DataFrame | None = None) -> F64:
        """(m,) conditional effect at X (one value if there are no modifiers)."""
        check_is_fitted(self, "model_")
        return np.ravel(self.model_.effect(self._rows(X)))

    def cate_interval(
        self, X: npt.ArrayLike | pd.DataFrame | None = None, alpha: float = 0.05
    ) -> tuple[F64, F64]:
        """(lower, upper) at X, clustered by group for ``LinearDRLearner``."""
        check_is_fitted(self, "model_")
        x = self._rows(X)
        return cate_interval(self.model_, self.analysis_, self.x_, x, 1 if x is None else len(x), alpha)

    def _rows(self, X: npt.ArrayLike | pd.DataFrame | None) -> F64 | None:
        x = None if X is None else as_matrix(X, "X")
        if (0 if x is None else x.shape[1]) != self.n_features_in_:
            raise ArgumentError(
                f"X has {0 if x is None else x.shape[1]} columns, {self.n_features_in_} when fitted."
            )
        return x


class IPW(BaseEstimator):
    """Self-normalised inverse-propensity weighting (Hájek; SNIPS) with errors clustered by group.

    Doubly robust scores are never worse if the outcome model is any good; this one is for comparison, and for
    logs whose propensities are known. Its standard error takes the propensities as given.

    Parameters
    ----------
    nuisances : NuisanceRecipe or fitted Nuisances
    folds : Folds
    clip : Clip
    random_state : int, Generator or None

    Attributes
    ----------
    effect_, std_error_, ci_lower_, ci_upper_, p_value_ : float
    by_item_ : Estimate or None
        The same with errors by group and item, where `items` are given.
    ess_ : float
        Kish's effective sample size, both arms, rows.
    scores_ : (n,)
    """

    def __init__(
        self,
        *,
        nuisances: NuisanceRecipe | Nuisances | None = None,
        folds: Folds | None = None,
        clip: Clip | None = None,
        random_state: int | np.random.Generator | None = None,
    ) -> None:
        self.nuisances = nuisances
        self.folds = folds
        self.clip = clip
        self.random_state = random_state

    def fit(
        self,
        Y: npt.ArrayLike,
        T: npt.ArrayLike,
        *,
        X: npt.ArrayLike | pd.DataFrame | None = None,
        W: Covariates = None,
        groups: npt.ArrayLike | None = None,
        items: npt.ArrayLike | None = None,
        propensity: npt.ArrayLike | None = None,
    ) -> IPW:
        """Fit; arguments as in ``DoublyRobust.fit``. With `propensity` nothing is estimated.

        Raises
        ------
        EstimationError, OverlapError, ArgumentError
        """
        inputs, _ = as_inputs(Y, T, X, W, groups, items, propensity, None)
        settings = Settings.of("ate", self.clip, self.folds, inputs.t, Correction(order=1))
        if inputs.logged is None:
            analysis = analyse(inputs, settings, self.nuisances, as_generator(self.random_state))
            e = analysis.nuisances.propensity
        else:
            e = inputs.logged
            refuse_if_hopeless(measure_overlap(inputs.t, e, settings.clip), inputs, "ate", True)
        pair = scores.hajek(inputs.t, inputs.y, settings.clip.apply(e), inputs.y, inputs.y)
        _store(self, scores.clustered_ratio(pair, inputs.units, at_most=units_in_smaller_arm(inputs)))
        self.by_item_ = (
            None if inputs.items is None else scores.clustered_ratio(pair, inputs.units, inputs.items)
        )
        self.ess_ = measure_overlap(inputs.t, e, settings.clip).ess
        self.scores_ = pair[0]
        return self


def _store(estimator: Any, e: scores.Estimate) -> None:
    estimator.effect_, estimator.std_error_, estimator.p_value_ = e.value, e.std_error, e.p_value
    estimator.ci_lower_, estimator.ci_upper_ = e.ci_lower, e.ci_upper
