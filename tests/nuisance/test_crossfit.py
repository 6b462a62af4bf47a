from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from small_logs import make_world, noise_block

from causalrec.errors import EstimationError, HonestyError
from causalrec.nuisance import (
    NuisanceRecipe,
    Nuisances,
    Problem,
    auc,
    fit_nuisances,
    learn_design,
    parallel,
    refit_nuisances,
)
from causalrec.nuisance.batch import TARGETS, Batch, Task
from causalrec.nuisance.crossfit import search_sets
from causalrec.nuisance.design import Design, Part
from causalrec.nuisance.options import RidgeLogistic

N, K = 900, 4
NAMES = ("propensity", "outcome_0", "outcome_1")


def make_problem(width: int = 40, seed: int = 0) -> Problem:
    world = make_world(N, 300, seed=seed)
    inputs = world.inputs
    _, design = learn_design([*inputs.covariates, noise_block(N, width, seed)], N)
    fold = np.random.default_rng(seed).permutation(np.arange(N) % K)
    return Problem(inputs.t, inputs.y, np.ones(N), design, design, fold, True)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return make_problem()


@pytest.fixture(scope="module")
def fitted(problem: Problem) -> Nuisances:
    return fit_nuisances(problem, NuisanceRecipe())


def poisoned(problem: Problem, f: int) -> Problem:
    """Treatment and outcome of one fold turned round, the folds kept."""
    here = problem.fold == f
    return replace(
        problem, t=np.where(here, 1 - problem.t, problem.t), y=np.where(here, 1 - problem.y, problem.y)
    )


@pytest.mark.parametrize("f", range(K))
def test_nothing_in_a_fold_has_seen_the_fold(problem: Problem, fitted: Nuisances, f: int) -> None:
    other = fit_nuisances(poisoned(problem, f), NuisanceRecipe())
    here = problem.fold == f
    for name in NAMES:
        mine, again = getattr(fitted, name), getattr(other, name)
        np.testing.assert_allclose(again[here], mine[here], atol=2e-4)  # the solver's own tolerance
        assert np.abs(again[~here] - mine[~here]).max() > 0.01
    assert fitted.ridge is not None
    assert other.ridge is not None
    for target in TARGETS:
        assert (
            fitted.ridge.inner.choices[target].variances[f] == other.ridge.inner.choices[target].variances[f]
        )


def test_scikit_learn_models_have_not_seen_the_fold_either_to_the_last_bit(problem: Problem) -> None:
    recipe = NuisanceRecipe(LogisticRegression(max_iter=500), LogisticRegression(max_iter=500))
    mine, other = fit_nuisances(problem, recipe), fit_nuisances(poisoned(problem, 1), recipe)
    here = problem.fold == 1
    for name in NAMES:
        np.testing.assert_array_equal(getattr(mine, name)[here], getattr(other, name)[here])
        assert (getattr(mine, name)[~here] != getattr(other, name)[~here]).mean() > 0.9


def test_the_scale_of_a_folds_rows_has_no_say_in_its_penalties() -> None:
    rng = np.random.default_rng(0)
    fold = np.arange(N) % K
    x = rng.standard_normal((N, 6)).astype(np.float32)
    stretched = np.where(fold[:, None] == 2, 50 * x, x)

    def penalties(values: npt.NDArray[np.float32], shrinkage: str) -> npt.NDArray[np.float64]:
        design = Design((Part(("x",) * 6, values, None, shrinkage),), N, np.zeros(N, np.uint64))  # type: ignore[arg-type]
        batch = Batch(
            dict.fromkeys(TARGETS, design),
            fold,
            dict.fromkeys(TARGETS, RidgeLogistic()),
            dict.fromkeys(TARGETS, True),
        )
        batch.prepare([(f,) for f in range(K)])
        return np.array([batch.penalty(Task("propensity", (f,), (1.0,))) for f in range(K)])

    for shrinkage in ("chosen", "light"):
        before, after = penalties(x, shrinkage), penalties(stretched, shrinkage)
        np.testing.assert_array_equal(before[2], after[2])
        assert (after[[0, 1, 3], 1:] > 2 * before[[0, 1, 3], 1:]).all()


def test_the_penalty_hears_signal_from_noise() -> None:
    """A block that says nothing is shrunk away; one that decides exposure is not."""
    problem = make_problem(width=60)
    quiet = fit_nuisances(problem, NuisanceRecipe()).ridge
    rng = np.random.default_rng(0)
    loud_block = noise_block(N, 60, 1)
    t = (rng.random(N) < expit(3 * loud_block.dense() @ rng.standard_normal(60) / np.sqrt(60))).astype(float)
    _, design = learn_design([loud_block], N)
    loud = fit_nuisances(
        replace(problem, t=t, propensity_design=design, outcome_design=design), NuisanceRecipe()
    ).ridge
    assert quiet is not None
    assert loud is not None
    assert max(quiet.inner.choices["propensity"].variances) <= (0.03,)
    assert min(loud.inner.choices["propensity"].variances) >= (0.3,)


def test_pairs_of_folds_cover_every_fold_and_thin_out_on_long_logs() -> None:
    assert len(search_sets(5, 1000, 2)) == 10
    long = search_sets(5, 1_000_000, 2)
    assert len(long) == 5
    assert {f for pair in long for f in pair} == set(range(5))
    assert all(a < b for a, b in long)
    assert len(search_sets(3, 1_000_000, 2)) == 3


def test_out_of_fold_probabilities_are_calibrated_and_informative(
    fitted: Nuisances, problem: Problem
) -> None:
    world = make_world(N, 300, seed=0)
    assert np.corrcoef(fitted.propensity, world.e)[0, 1] > 0.85
    assert abs(fitted.propensity.mean() - problem.t.mean()) < 0.02
    assert fitted.propensity.min() > 0
    assert fitted.propensity.max() < 1
    gains = {g["model"]: g["share_explained"] for g in fitted.gains}
    assert min(gains.values()) > 0.02


def test_predicting_new_rows_averages_the_fold_models(problem: Problem, fitted: Nuisances) -> None:
    e, m0, m1 = fitted.predict(problem.propensity_design, problem.outcome_design)
    for new, mine in ((e, fitted.propensity), (m0, fitted.outcome_0), (m1, fitted.outcome_1)):
        assert new.shape == (N,)
        assert np.corrcoef(new, mine)[0, 1] > 0.95


def test_a_logged_propensity_is_used_as_it_is_and_not_modelled(problem: Problem) -> None:
    logged = np.random.default_rng(0).uniform(0.2, 0.8, N)
    made = fit_nuisances(replace(problem, logged=logged), NuisanceRecipe())
    np.testing.assert_array_equal(made.propensity, logged)
    assert {g["model"] for g in made.gains} == {"outcome_0", "outcome_1"}
    assert np.isnan(made.predict(problem.propensity_design, problem.outcome_design)[0]).all()


@pytest.mark.parametrize("calibrate", [True, False])
def test_a_refit_on_the_log_itself_is_the_fit(problem: Problem, calibrate: bool) -> None:
    made = fit_nuisances(problem, NuisanceRecipe(calibrate=calibrate))
    t, y, w = (np.repeat(v[:, None], 2, axis=1) for v in (problem.t, problem.y, problem.w))
    again = refit_nuisances(made, t, y, w, TARGETS)
    for name in NAMES:
        mine, anew = getattr(made, name)[:, None], getattr(again, name)
        np.testing.assert_allclose(anew[:, 0], anew[:, 1], atol=2e-3)
        if calibrate:  # by one held-out fold, where the fit takes all
            assert np.abs(anew - mine).mean() < 0.1
            assert np.corrcoef(anew[:, 0], mine[:, 0])[0, 1] > 0.9
        else:
            np.testing.assert_allclose(anew, np.repeat(mine, 2, axis=1), atol=2e-3)


def test_a_refit_leaves_untouched_targets_alone_and_learns_the_touched(
    problem: Problem, fitted: Nuisances
) -> None:
    rng = np.random.default_rng(0)
    t, w = problem.t[:, None], problem.w[:, None]
    y = rng.permutation(problem.y)[:, None]
    made = refit_nuisances(fitted, t, y, w, ("outcome_0", "outcome_1"))
    np.testing.assert_array_equal(made.propensity[:, 0], fitted.propensity)
    assert abs(np.corrcoef(made.outcome_1[:, 0], fitted.outcome_1)[0, 1]) < 0.6


def test_repetitions_do_not_see_each_other(problem: Problem, fitted: Nuisances) -> None:
    rng = np.random.default_rng(1)
    t = np.column_stack([rng.permutation(problem.t) for _ in range(3)])
    y, w = (np.repeat(v[:, None], 3, axis=1) for v in (problem.y, problem.w))
    z = rng.standard_normal((N, 3))
    together = refit_nuisances(fitted, t, y, w, TARGETS, z)
    alone = refit_nuisances(fitted, t[:, [1]], y[:, [1]], w[:, [1]], TARGETS, z[:, [1]])
    for name in NAMES:
        np.testing.assert_allclose(getattr(together, name)[:, 1], getattr(alone, name)[:, 0], atol=2e-3)


def test_a_refit_with_scikit_learn_models(problem: Problem) -> None:
    recipe = NuisanceRecipe(LogisticRegression(max_iter=500), RidgeLogistic())
    made = fit_nuisances(problem, recipe)
    t, y, w = problem.t[:, None], problem.y[:, None], problem.w[:, None]
    np.testing.assert_allclose(
        refit_nuisances(made, t, y, w, TARGETS).propensity[:, 0], made.propensity, atol=1e-6
    )
    z = np.random.default_rng(0).standard_normal((N, 1))
    with_noise = refit_nuisances(made, t, y, w, TARGETS, z).propensity[:, 0]
    assert 0 < np.abs(with_noise - made.propensity).max() < 0.2


def test_a_forest_is_cross_fitted(problem: Problem) -> None:
    recipe = NuisanceRecipe(
        RandomForestClassifier(20, random_state=0), RandomForestClassifier(20, random_state=0)
    )
    made = fit_nuisances(problem, recipe)
    assert auc(made.propensity, problem.t) < 0.9  # a forest that has seen its rows is near 1
    e, *_ = made.predict(problem.propensity_design, problem.outcome_design)
    assert auc(e, problem.t) > 0.95


@pytest.mark.parametrize(
    ("recipe", "change", "says"),
    [
        (
            NuisanceRecipe(outcome=LogisticRegression()),
            {"binary": False},
            r"LogisticRegression is a classifier but the outcome is continuous; pass a regressor",
        ),
        (
            NuisanceRecipe(outcome=RidgeClassifier()),
            {},
            r"RidgeClassifier gives no probabilities; pass one with predict_proba",
        ),
        (
            NuisanceRecipe(propensity=KNeighborsClassifier()),
            {"w": np.r_[2.0, np.ones(N - 1)]},
            r"KNeighborsClassifier.fit takes no sample_weight",
        ),
    ],
)
def test_a_learner_that_cannot_do_it(
    problem: Problem, recipe: NuisanceRecipe, change: dict, says: str
) -> None:
    with pytest.raises(EstimationError, match=says):
        fit_nuisances(replace(problem, **change), recipe)


def test_a_regressor_may_model_a_click(problem: Problem) -> None:
    made = fit_nuisances(problem, NuisanceRecipe(outcome=LinearRegression()))
    assert abs(made.outcome_1.mean() - problem.y[problem.t == 1].mean()) < 0.15


def test_an_arm_that_lives_in_one_fold(problem: Problem) -> None:
    with pytest.raises(
        EstimationError, match=r"without fold 0 there is no treated row: treatment goes with few users"
    ):
        fit_nuisances(replace(problem, t=(problem.fold == 0).astype(float)), NuisanceRecipe())
    clicks = np.where(problem.t == 1, problem.fold == 0, problem.y).astype(float)
    with pytest.raises(
        EstimationError, match=r"without fold 0 all .* treated rows have outcome 0: too few clicks to model"
    ):
        fit_nuisances(replace(problem, y=clicks), NuisanceRecipe())


def test_weights_count_like_repeated_rows(problem: Problem) -> None:
    twice = np.r_[np.arange(N), np.arange(N)[problem.fold == 0], np.arange(N)[problem.fold == 1]]
    w = np.where(problem.fold <= 1, 2.0, 1.0)
    _, design = learn_design([pd.Series(make_world(N, 300, seed=0).frame["rate"].to_numpy(), name="rate")], N)
    weighted = replace(problem, w=w, propensity_design=design, outcome_design=design)
    part = design.parts[0]
    longer = Design((replace(part, values=part.values[twice]),), len(twice), design.row_hash[twice])
    repeated = Problem(
        problem.t[twice], problem.y[twice], np.ones(len(twice)), longer, longer, problem.fold[twice], True
    )
    a, b = (fit_nuisances(p, NuisanceRecipe(calibrate=False)) for p in (weighted, repeated))
    np.testing.assert_allclose(a.propensity, b.propensity[:N], atol=1e-3)


def test_nuisances_know_the_log_they_are_of(problem: Problem, fitted: Nuisances) -> None:
    with pytest.raises(HonestyError, match=r"were fitted on 900 rows, the log has 899"):
        fitted.check_matches(np.zeros(899), np.zeros(899))
    fitted.check_matches(problem.t, problem.y)
    with pytest.raises(
        HonestyError, match=r"fitted on another log: 1 of 900 rows have another treatment or outcome"
    ):
        fitted.check_matches(problem.t, np.r_[problem.y[:-1], 1 - problem.y[-1]])


def test_auc_by_hand() -> None:
    assert auc(np.array([1.0, 2, 3, 4]), np.array([0.0, 0, 1, 1])) == 1
    assert auc(np.array([1.0, 1, 1, 1]), np.array([0.0, 1, 0, 1])) == 0.5
    assert auc(np.array([3.0, 1, 2]), np.array([0.0, 1, 1])) == 0
    assert np.isnan(auc(np.ones(2), np.ones(2)))


def test_a_constant_learner_says_that_it_explains_nothing(problem: Problem) -> None:
    made = fit_nuisances(problem, NuisanceRecipe(DummyClassifier(), DummyClassifier()))
    assert all(abs(g["share_explained"]) < 0.01 for g in made.gains)
    assert "share_explained" in made.summary()


def test_the_number_of_threads_has_no_say(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, whichever thread comes first; refits too."""
    t, y, w = (np.repeat(v[:, None], 6, axis=1) for v in (problem.t, problem.y, problem.w))
    made = []
    for cores in (1, 2, 4, 4):
        monkeypatch.setattr(parallel, "workers", lambda cores=cores: cores)
        one = fit_nuisances(problem, NuisanceRecipe())
        made.append((one, refit_nuisances(one, t, y, w, TARGETS)))
    for fitted, again in made[1:]:
        for name in NAMES:
            np.testing.assert_array_equal(getattr(fitted, name), getattr(made[0][0], name))
            np.testing.assert_array_equal(getattr(again, name), getattr(made[0][1], name))
