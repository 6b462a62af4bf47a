"""S-, T- and X-learners on shared nuisances: adjusted, in probabilities, out of fold; and EconML's families beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from small_logs import ROLES, make_world

import causalrec as cr
from causalrec.errors import ArgumentError, EstimationError
from causalrec.estimate.bridge import Predictions, fit_econml, without_fold
from causalrec.estimate.metalearners import ConstantEffect, SLearner, Stack, TLearner, XLearner
from causalrec.scores import aipw_ate

F64 = npt.NDArray[np.float64]
LEARNERS = {"S": SLearner, "T": TLearner, "X": XLearner}


@pytest.fixture(scope="module")
def case() -> tuple[cr.Fit, F64]:
    world = make_world(4000, 800, seed=6, heterogeneity=1.2, effect=0.6)
    log = cr.read_log(world.frame, **ROLES)
    return cr.estimate(log, cr.identify(log), random_state=0), world.tau


@pytest.mark.parametrize("name", LEARNERS)
def test_effects_are_found_beyond_confounding(case: tuple[cr.Fit, F64], name: str) -> None:
    """By the age alone the effect would be off by the confounding of rate and device."""
    fit, tau = case
    other = fit.with_model(LEARNERS[name]())
    found = other.cate(fit.log)
    assert other.effect == fit.effect
    assert np.corrcoef(found, tau)[0, 1] > 0.8
    assert abs(found.mean() - tau.mean()) < 0.05 < fit.naive_effect - tau.mean()
    with pytest.raises(EstimationError, match="made without inference and gives no intervals"):
        other.cate_interval(fit.log)


def test_by_hand(case: tuple[cr.Fit, F64]) -> None:
    fit, _ = case
    i, n, x = fit.analysis.inputs, fit.nuisances, fit.modifiers.apply(fit.log.frame)
    assert x is not None
    t = fit.with_model(TLearner()).cate(fit.log)
    np.testing.assert_allclose(t, LinearRegression().fit(x, n.outcome_1 - n.outcome_0).predict(x))
    g = LinearRegression().fit(x, fit.analysis.settings.clip.apply(n.propensity)).predict(x).clip(0, 1)
    ones = i.t == 1
    one = LinearRegression().fit(x[ones], (i.y - n.outcome_0)[ones]).predict(x)
    zero = LinearRegression().fit(x[~ones], (n.outcome_1 - i.y)[~ones]).predict(x)
    np.testing.assert_allclose(fit.with_model(XLearner()).cate(fit.log), g * zero + (1 - g) * one)
    e = fit.analysis.settings.clip.apply(n.propensity)
    mean = aipw_ate(i.t, i.y, e, n.outcome_0, n.outcome_1)[0].mean()
    np.testing.assert_allclose(fit.with_model(ConstantEffect()).cate(fit.log), mean)


def test_a_single_model_gives_probabilities_and_never_labels(case: tuple[cr.Fit, F64]) -> None:
    fit, _ = case
    forms = (
        SLearner(),
        SLearner(learner=LogisticRegression(C=1e4, max_iter=2000)),
        SLearner(learner=LinearRegression()),
    )
    found = [fit.with_model(m).cate(fit.log) for m in forms]
    for one in found:
        assert np.abs(one).max() < 1
        assert np.corrcoef(one, found[0])[0, 1] > 0.95


def test_weights_are_repetitions_and_reach_the_last_step_of_a_pipeline() -> None:
    rng = np.random.default_rng(0)
    n = 300
    x, t, y = (
        rng.standard_normal((n, 2)),
        rng.integers(0, 2, n).astype(float),
        rng.integers(0, 2, n).astype(float),
    )
    m0, m1, e = rng.random(n), rng.random(n), rng.uniform(0.2, 0.8, n)
    times = rng.integers(1, 4, n)
    fold = np.arange(n) % 3
    for model in (TLearner(), XLearner(), XLearner(final=make_pipeline(StandardScaler(), LinearRegression())),
                  SLearner(learner=LinearRegression()), ConstantEffect()):  # fmt: skip

        def fitted(rows: Any, weights: F64 | None, model: Any = model) -> F64:
            parts = Predictions(e[rows], m0[rows], m1[rows], fold[rows])
            return fit_econml(model, y[rows], t[rows], x[rows], parts, cr.Clip(0.0), weights).effect(x)

        repeated = fitted(np.repeat(np.arange(n), times), None)
        np.testing.assert_allclose(fitted(np.arange(n), times.astype(float)), repeated, atol=1e-8)


def test_without_modifiers_there_is_one_effect(case: tuple[cr.Fit, F64]) -> None:
    fit, _ = case
    roles = {**ROLES, "modifiers": [], "confounders": ["age", "rate", "device"]}
    log = cr.read_log(fit.log.frame, **roles)
    plain = cr.estimate(log, cr.identify(log), folds=cr.Folds(3), random_state=0)
    for learner in LEARNERS.values():
        found = plain.with_model(learner()).cate(log)
        assert np.ptp(found) == 0
        assert abs(found[0] - plain.effect) < 3 * plain.std_error


def test_a_stack_is_the_weighted_sum_of_its_members(case: tuple[cr.Fit, F64]) -> None:
    fit, _ = case
    members = tuple(fit.with_model(m).model for m in (TLearner(), ConstantEffect()))
    x = fit.modifiers.apply(fit.log.frame)
    stack = Stack(members, (0.3, 0.7))
    np.testing.assert_allclose(stack.effect(x), 0.3 * members[0].effect(x) + 0.7 * members[1].effect(x))
    with pytest.raises(ArgumentError, match="a Stack is made of fitted models"):
        fit.with_model(Stack(members, (0.3, 0.7)))


def econml_models() -> dict[str, Any]:
    from econml.dml import CausalForestDML, LinearDML, NonParamDML
    from econml.dr import DRLearner, ForestDRLearner, LinearDRLearner, SparseLinearDRLearner

    small: dict[str, Any] = {"n_estimators": 12, "min_samples_leaf": 50}
    return {
        "LinearDRLearner": LinearDRLearner(),
        "SparseLinearDRLearner": SparseLinearDRLearner(random_state=0),
        "DRLearner": DRLearner(model_final=Ridge()),
        "ForestDRLearner": ForestDRLearner(**small),
        "LinearDML": LinearDML(discrete_treatment=True),
        "CausalForestDML": CausalForestDML(**small, discrete_treatment=True),
        "NonParamDML": NonParamDML(
            model_y="auto", model_t="auto", model_final=Ridge(), discrete_treatment=True
        ),
    }


def test_every_econml_family_takes_the_nuisances_and_fits_none(
    case: tuple[cr.Fit, F64], monkeypatch: pytest.MonkeyPatch
) -> None:
    from causalrec.nuisance import crossfit

    fit, tau = case
    calls = []
    monkeypatch.setattr(crossfit, "choose", lambda *a: calls.append(a))
    for name, model in econml_models().items():
        other = fit.with_model(model)
        assert type(other.model).__name__ == name
        assert np.corrcoef(other.cate(fit.log), tau)[0, 1] > 0.8, name
    assert not calls


@pytest.mark.parametrize("pairs", [False, True])
def test_predictions_without_a_fold_have_not_seen_it(pairs: bool) -> None:
    """Outcomes of fold 2 change; what models that left it out say of the other folds does not, out-of-fold predictions do."""
    world = make_world(1500, 300, seed=8)
    rng = np.random.default_rng(0)
    frame = world.frame.assign(item=rng.integers(0, 60, 1500))
    log = cr.read_log(frame, **ROLES, item="item")
    order = cr.Correction(order=2, kernels=("same_item",)) if pairs else cr.Correction(order=1)
    fit = cr.estimate(log, cr.identify(log), correction=order, random_state=0)
    fold = fit.nuisances.fold
    assert bool(fit.nuisances.ridge and fit.nuisances.ridge.eta) is pairs
    from dataclasses import replace

    from causalrec.nuisance.nuisances import fit_nuisances

    y = np.where(fold == 2, 1 - log.outcome, log.outcome)
    again = fit_nuisances(replace(fit.nuisances.problem, y=y), fit.nuisances.recipe)
    here, there = without_fold(fit.nuisances, 2), without_fold(again, 2)
    assert here is not None
    assert there is not None
    assert len(here.propensity) == (fold != 2).sum()
    np.testing.assert_allclose(here.outcome_1, there.outcome_1, atol=2e-3)
    np.testing.assert_allclose(here.outcome_0, there.outcome_0, atol=2e-3)
    moved = np.abs(fit.nuisances.outcome_1 - again.outcome_1)[fold != 2]
    assert moved.mean() > 0.02
    close = np.abs(here.outcome_1 - fit.nuisances.outcome_1[fold != 2])
    assert close.mean() < 0.03


def test_learners_that_are_not_ridge_have_no_predictions_without_a_fold(
    log: cr.ImpressionLog, plan: cr.Plan
) -> None:
    recipe = cr.NuisanceRecipe(outcome=LogisticRegression())
    fit = cr.estimate(log, plan, nuisances=recipe, folds=cr.Folds(3), random_state=0)
    assert without_fold(fit.nuisances, 0) is None
