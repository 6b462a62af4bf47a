"""EconML on the cached nuisances, and EconML by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import LogisticRegression
from small_logs import ROLES, World, make_world

import causalrec as cr
from causalrec.errors import ArgumentError, CausalRecWarning, EstimationError
from causalrec.estimate.fit import Fit

F64 = npt.NDArray[np.float64]


class InEachArm(RegressorMixin, BaseEstimator):
    """Logistic regressions in each arm, as EconML calls an outcome model: the arm is the last column."""

    def fit(self, x: F64, y: F64) -> InEachArm:
        self.models_ = [
            LogisticRegression(C=0.1, tol=1e-10, max_iter=5000).fit(
                x[x[:, -1] == arm, :-1], y[x[:, -1] == arm]
            )
            for arm in (0, 1)
        ]
        return self

    def predict(self, x: F64) -> F64:
        both = np.column_stack([m.predict_proba(x[:, :-1])[:, 1] for m in self.models_])
        return both[np.arange(len(x)), (x[:, -1] > 0.5).astype(int)]


def without_modifiers(log: cr.ImpressionLog) -> cr.ImpressionLog:
    return cr.read_log(log.frame, **{**ROLES, "modifiers": [], "confounders": ["age", "rate", "device"]})


def splits(fit: Fit) -> list[tuple[Any, Any]]:
    fold = fit.nuisances.fold
    return [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(fold.max() + 1)]


def test_the_ate_is_econmls_on_the_same_nuisances(fit: Fit) -> None:
    x = fit.modifiers.apply(fit.log.frame)
    assert float(fit.model.ate(x)) == pytest.approx(fit.effect, abs=1e-8)
    assert fit.model_average == pytest.approx(fit.effect, abs=1e-8)
    assert fit.scores.mean() == pytest.approx(fit.effect, abs=1e-12)


def test_the_ate_is_econmls_without_modifiers_too(log: cr.ImpressionLog) -> None:
    plain = without_modifiers(log)
    fit = cr.estimate(plain, cr.identify(plain), random_state=0)
    assert float(np.ravel(fit.model.const_marginal_ate())[0]) == pytest.approx(fit.effect, abs=1e-8)
    assert np.ptp(fit.cate(plain)) == 0
    lower, upper = fit.cate_interval(plain)
    assert (lower[0] + upper[0]) / 2 == pytest.approx(fit.effect, abs=1e-9)
    # the same standard error; the effect's quantile knows how few users the smaller arm has
    assert upper[0] - lower[0] == pytest.approx(fit.ci_upper - fit.ci_lower, rel=0.002)


@pytest.mark.parametrize("bound", [0.01, 0.2])
def test_the_ate_is_that_of_econml_run_by_itself(log: cr.ImpressionLog, plan: cr.Plan, bound: float) -> None:
    from econml.dr import LinearDRLearner

    learner = LogisticRegression(C=0.1, tol=1e-10, max_iter=5000)
    recipe = cr.NuisanceRecipe(propensity=learner, outcome=learner)
    fit = cr.estimate(log, plan, nuisances=recipe, clip=cr.Clip(bound), random_state=0)
    own = LinearDRLearner(
        model_propensity=learner, model_regression=InEachArm(), cv=splits(fit), min_propensity=bound
    )
    w = fit.nuisances.problem.outcome_design.dense().astype(float)
    own.fit(log.outcome, log.treatment, X=None, W=w)
    assert float(np.ravel(own.const_marginal_ate())[0]) == pytest.approx(fit.effect, abs=1e-5)
    if bound > 0.1:
        assert fit.share_clipped > 0.02


def test_with_rows_as_units_the_cate_interval_is_econmls() -> None:
    world = make_world(1000, 1000, seed=5)
    log = cr.read_log(world.frame, **{**ROLES, "unit": None})
    fit = cr.estimate(log, cr.identify(log), random_state=0)
    lower, upper = fit.cate_interval(log)
    theirs = fit.model.effect_interval(fit.modifiers.apply(log.frame))
    np.testing.assert_allclose((lower + upper) / 2, fit.cate(log), atol=1e-9)
    np.testing.assert_allclose(upper - lower, np.ravel(theirs[1] - theirs[0]), rtol=0.01)


def test_the_cate_finds_for_whom(fit: Fit, world: World) -> None:
    assert np.corrcoef(fit.cate(fit.log), world.tau)[0, 1] > 0.5
    lower, upper = fit.cate_interval(fit.log)
    covered = (lower <= world.tau) & (world.tau <= upper)
    assert covered.mean() > 0.6  # the truth is not linear in age
    narrow = fit.cate_interval(fit.log, alpha=0.5)
    assert ((narrow[1] - narrow[0]) < (upper - lower)).all()


def model(name: str) -> Any:
    import econml.dml
    import econml.dr

    return {
        "LinearDRLearner": lambda: econml.dr.LinearDRLearner(),
        "ForestDRLearner": lambda: econml.dr.ForestDRLearner(
            n_estimators=20, min_samples_leaf=40, random_state=0
        ),
        "DRLearner": lambda: econml.dr.DRLearner(random_state=0),
        "LinearDML": lambda: econml.dml.LinearDML(discrete_treatment=True),
        "LinearDML, T continuous": lambda: econml.dml.LinearDML(),
        "CausalForestDML": lambda: econml.dml.CausalForestDML(
            discrete_treatment=True, n_estimators=24, random_state=0
        ),
    }[name]()


@pytest.mark.parametrize(
    "name", ["ForestDRLearner", "DRLearner", "LinearDML", "LinearDML, T continuous", "CausalForestDML"]
)
def test_other_econml_estimators_model_the_cate_and_leave_the_effect_alone(fit: Fit, name: str) -> None:
    unfitted = model(name)
    before = dict(unfitted.__dict__)
    other = cr.estimate(fit.log, fit.plan, model=unfitted, nuisances=fit.nuisances)
    assert other.effect == fit.effect
    assert other.std_error == fit.std_error
    assert other.cate(fit.log).shape == (fit.n,)
    assert np.corrcoef(other.cate(fit.log), fit.cate(fit.log))[0, 1] > 0.5
    assert unfitted.__dict__.keys() == before.keys()
    assert "ForestDML" not in name or abs(other.model_average - fit.effect) < 0.1


def test_a_dml_models_average_is_the_overlap_weighted_one(fit: Fit) -> None:
    other = cr.estimate(fit.log, fit.plan, model=model("LinearDML"), nuisances=fit.nuisances)
    assert "overlap-weighted, another estimand" in other.summary()
    plain = without_modifiers(fit.log)
    alone = cr.estimate(plain, cr.identify(plain), model=model("LinearDML"), random_state=0)
    assert alone.model_average == pytest.approx(alone.under("ato").effect, abs=0.002)


def test_intervals_of_other_models_say_that_they_are_not_clustered(fit: Fit) -> None:
    forest = cr.estimate(fit.log, fit.plan, model=model("CausalForestDML"), nuisances=fit.nuisances)
    with pytest.warns(CausalRecWarning, match="CausalForestDML's intervals take the rows for independent"):
        lower, upper = forest.cate_interval(fit.log)
    assert (lower <= upper).all()


def test_what_cannot_take_nuisances_is_refused(fit: Fit) -> None:
    from econml.iv.dml import OrthoIV
    from econml.metalearners import SLearner

    for wrong in (
        SLearner(overall_model=LogisticRegression()),
        OrthoIV(),
        LogisticRegression(),
        "LinearDML",
    ):
        with pytest.raises(
            ArgumentError, match=r"model is a \w+; must be an EconML estimator of the DR or DML family"
        ):
            cr.estimate(fit.log, fit.plan, model=wrong, nuisances=fit.nuisances)

    with pytest.raises(
        ArgumentError, match=r"model is the class SLearner; pass an unfitted estimator, SLearner\(\.\.\.\)"
    ):
        fit.with_model(SLearner)


@pytest.mark.filterwarnings("ignore:KernelDML's intervals")
def test_a_model_of_points_only_says_so_where_an_interval_is_asked_for(fit: Fit) -> None:
    from econml.dml import KernelDML

    points = fit.with_model(KernelDML(discrete_treatment=True, dim=5))
    with pytest.raises(EstimationError, match="KernelDML gives point estimates only"):
        points.cate_interval(fit.log)


def test_a_forest_needs_modifiers(log: cr.ImpressionLog) -> None:
    plain = without_modifiers(log)
    with pytest.raises(
        ArgumentError,
        match="CausalForestDML models how the effect varies, and the log declares no modifiers=",
    ):
        cr.estimate(plain, cr.identify(plain), model=model("CausalForestDML"), random_state=0)
