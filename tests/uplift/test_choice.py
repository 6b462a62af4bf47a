"""Models judged on held-out users: the constant wins unless it is beaten, and nuisances are fitted once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeRegressor
from small_logs import ROLES, make_world

import causalrec as cr
from causalrec import scores
from causalrec.errors import ArgumentError
from causalrec.estimate.metalearners import ConstantEffect, OnNuisances, SLearner, Stack, TLearner, XLearner
from causalrec.nuisance import crossfit
from causalrec.uplift.choice import choose_model, convex_shares


def fit_of(heterogeneity: float, effect: float = 0.6, n: int = 3000, seed: int = 4, **options: Any) -> cr.Fit:
    log = cr.read_log(
        make_world(n, n // 5, seed=seed, heterogeneity=heterogeneity, effect=effect).frame, **ROLES
    )
    return cr.estimate(log, cr.identify(log), random_state=0, **options)


@pytest.fixture(scope="module")
def varied() -> cr.Fit:
    return fit_of(1.5)


FLEXIBLE = {
    "T": TLearner(),
    "X": XLearner(),
    "overfitted": TLearner(final=DecisionTreeRegressor(random_state=0)),
}


def test_a_model_that_finds_for_whom_is_chosen_and_serves_the_curve(varied: cr.Fit) -> None:
    train, test = varied.log.split(0.4, random_state=0)
    choice = choose_model(cr.estimate(train, varied.plan, random_state=0), {"T": TLearner(), "X": XLearner()})
    assert choice.best != "constant"
    assert "Effects differ: held-out scores rise" in choice.summary()
    curve = cr.uplift(choice.best_fit, test)
    assert curve.qini_ci[0] > 0
    frame = choice.to_frame().set_index("model")
    assert frame.index.tolist() == ["constant", "T", "X", "stack"]
    assert (frame.loc[["T", "X"], "r_score"] > 0).all()
    assert (frame.loc[["T", "X"], "joint_lower"] < frame.loc[["T", "X"], "slope"]).all()
    assert frame.loc["constant", "gain"] == 0
    assert np.isnan(frame.loc["constant", "slope"])
    assert frame["share_in_stack"].sum() == pytest.approx(1)


def test_econmls_six_final_stages_and_one_cross_fit(varied: cr.Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(crossfit, "choose", lambda *a, **k: calls.append(1))
    choice = choose_model(varied)
    assert not calls
    assert len(choice.records) == 8
    assert choice.best != "constant"
    assert choice.apart
    assert all(r["gain"] > 0 for r in choice.records[1:])


def test_where_effects_do_not_vary_the_constant_wins() -> None:
    chosen = [choose_model(fit_of(0.0, 0.0, 1000, seed), FLEXIBLE).best for seed in range(12)]
    assert chosen.count("constant") >= 11
    choice = choose_model(fit_of(0.0, 0.0, 1000, 3), FLEXIBLE)
    assert "one effect for everyone stands" in choice.summary()
    assert isinstance(choice.best_fit.model, ConstantEffect)
    assert np.ptp(choice.best_fit.cate(choice.best_fit.log)) == 0


class Recorder(OnNuisances):
    """Keeps the rows it was given."""

    seen: list[Any] = []  # noqa: RUF012
    scores: list[Any] = []  # noqa: RUF012

    def _fit(self, y: Any, t: Any, x: Any, nuisances: Any, e: Any, w: Any, scores: Any) -> None:
        self.seen.append((x, nuisances))
        self.scores.append(scores)

    def _effect(self, x: Any) -> Any:
        return np.zeros(len(x))


def test_a_folds_model_has_seen_no_row_of_its_users(varied: cr.Fit) -> None:
    Recorder.seen.clear()
    choose_model(varied, {"recorder": Recorder()}, stack=False)
    fold, x = varied.nuisances.fold, varied.modifiers.apply(varied.log.frame)
    assert x is not None
    for k, (given_x, nuisances) in enumerate(Recorder.seen[: fold.max() + 1]):
        np.testing.assert_array_equal(given_x, x[fold != k])
        assert not np.allclose(nuisances.outcome_1, varied.nuisances.outcome_1[fold != k], atol=1e-6)
        assert not set(varied.log.units[fold == k]) & set(varied.log.units[fold != k])


def test_without_modifiers_and_words_there_is_nothing_to_choose() -> None:
    world = make_world(1000, 200, seed=0)
    roles = {**ROLES, "modifiers": [], "confounders": [*ROLES["confounders"], *ROLES["modifiers"]]}
    log = cr.read_log(world.frame, **roles)
    choice = choose_model(cr.estimate(log, cr.identify(log), random_state=0))
    assert choice.best == "constant"
    assert len(choice.records) == 1
    assert "There is nothing by which effects could be told apart" in choice.summary()


def test_scores_that_choose_have_met_no_other_fold() -> None:
    """Where pairs of rows correct the fit, models are compared on first-order scores; the winner is fitted to the corrected ones."""
    rng = np.random.default_rng(5)
    n = 6000
    item, x, trait = rng.integers(0, 150, n), rng.standard_normal(n), rng.standard_normal(150)
    t = rng.random(n) < 0.2 + 0.6 / (1 + np.exp(-1.5 * trait[item]))
    y = rng.random(n) < 0.3 + 0.1 * np.tanh(trait[item]) + (0.1 + 0.1 * np.tanh(x)) * t
    frame = pd.DataFrame(
        {"user": rng.integers(0, 900, n), "item": item, "x": x, "t": t.astype(int), "y": y.astype(int)}
    )
    log = cr.read_log(frame, treatment="t", outcome="y", unit="user", item="item", modifiers=["x"])
    fit = cr.estimate(log, cr.identify(log), correction=cr.Correction(order=2), random_state=0)
    assert fit.correction.order == 2
    Recorder.scores.clear()
    choice = choose_model(fit, {"recorder": Recorder()}, stack=False)
    assert all(given is None for given in Recorder.scores)
    assert choice.apart
    assert choice.order == 2
    assert "compared on first-order scores" in choice.summary()
    fit.with_model(Recorder())
    np.testing.assert_array_equal(Recorder.scores[-1], fit.scores)


def test_losses_by_hand(varied: cr.Fit) -> None:
    choice = choose_model(varied, {"T": TLearner()}, stack=False)
    i, n = varied.analysis.inputs, varied.nuisances
    psi = scores.aipw_ate(
        i.t, i.y, varied.analysis.settings.clip.apply(n.propensity), n.outcome_0, n.outcome_1
    )[0]
    found = {r["model"]: r for r in choice.records}
    gain = (psi - choice.cate["constant"]) ** 2 - (psi - choice.cate["T"]) ** 2
    one = scores.clustered_ratio((gain, np.ones_like(gain)), i.units)
    assert found["T"]["gain"] == pytest.approx(one.value)
    assert found["T"]["dr_loss"] == pytest.approx(((psi - choice.cate["T"]) ** 2).mean())
    assert found["T"]["ci_upper"] - found["T"]["ci_lower"] == pytest.approx(
        one.ci_upper - one.ci_lower, rel=0.01
    )
    fold, tau = n.fold, choice.cate["T"].copy()
    for k in range(fold.max() + 1):
        tau[fold == k] -= tau[fold == k].mean()
        psi[fold == k] -= psi[fold == k].mean()
    slope = scores.clustered_ratio((tau * psi, tau**2), i.units)
    assert found["T"]["slope"] == pytest.approx(slope.value)
    below = (slope.value - found["T"]["joint_lower"]) / slope.std_error
    assert below == pytest.approx(np.sqrt(2) * norm.ppf(0.95), rel=0.02)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_shares_are_the_best_convex_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted = 0.1 + 0.05 * rng.standard_normal((400, 3)) @ rng.standard_normal((3, 3))
    psi = predicted @ rng.dirichlet(np.ones(3)) + rng.standard_normal(400)
    w = rng.exponential(size=400)

    def loss(a: Any) -> float:
        return float(np.average((psi - predicted @ a) ** 2, weights=w))

    found = convex_shares(predicted, psi, w)
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1)
    best = minimize(
        loss, np.ones(3) / 3, bounds=[(0, 1)] * 3, constraints={"type": "eq", "fun": lambda a: a.sum() - 1}
    )
    assert loss(found) <= best.fun + 1e-5


def test_identical_models_share_without_complaint() -> None:
    same = np.repeat(np.linspace(0, 1, 50)[:, None], 3, axis=1)
    assert convex_shares(same, same[:, 0], np.ones(50)).sum() == pytest.approx(1)
    assert convex_shares(np.ones((50, 2)), np.ones(50), np.ones(50)).sum() == pytest.approx(1)


def test_a_stack_is_fitted_again_to_all_users(varied: cr.Fit) -> None:
    choice = choose_model(varied, {"S": SLearner(), "X": XLearner()})
    if choice.best == "stack":
        assert isinstance(choice.best_fit.model, Stack)
    assert choice.best_fit.effect == varied.effect
    assert choice.best == min(choice.records, key=lambda r: r["dr_loss"])["model"]
    t = {r["model"]: r["slope_t"] for r in choice.records[1:]}
    assert choice.ranking == next(name for name in t if t[name] >= max(t.values()) - 1)


class Exaggerated(TLearner):
    """Five times what a T-learner says."""

    def _effect(self, x: Any) -> Any:
        return 5 * super()._effect(x)


def test_models_that_exaggerate_are_told_from_effects_that_do_not_differ(varied: cr.Fit) -> None:
    choice = choose_model(varied, {"loud": Exaggerated()}, stack=False)
    assert choice.records[1]["joint_lower"] > 0
    assert (choice.best, choice.ranking) == ("constant", "loud")
    assert "Effects differ, but every model exaggerates" in choice.summary()


def test_a_ranking_is_had_where_effects_are_not_shown_to_differ() -> None:
    choice = choose_model(fit_of(0.0, 0.0, 1000, 3), FLEXIBLE)
    assert choice.best == "constant"
    assert max(r["slope_t"] for r in choice.records[1:] if r["model"] != "stack") > 0  # of this seed: chance points the right way
    assert choice.ranking != "constant"
    assert f"ranking_fit ranks by {choice.ranking}, which may be chance" in choice.summary()
    assert np.ptp(choice.ranking_fit.cate(choice.ranking_fit.log)) > 0


def test_other_learners_say_what_their_nuisances_have_seen() -> None:
    fit = fit_of(1.5, nuisances=cr.NuisanceRecipe(outcome=LogisticRegression()), folds=cr.Folds(3))
    choice = choose_model(fit, {"T": TLearner()})
    assert not choice.apart
    assert "flatters S-, T- and X-learners" in choice.summary()


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "empty": ({"models": {}}, r"models is \{\}, must be a mapping of names to unfitted models"),
    "a list": ({"models": [TLearner()]}, "must be a mapping of names"),
    "reserved": ({"models": {"constant": TLearner()}}, "models has the name 'constant', which is reserved"),
    "no model": (
        {"models": {"logit": LogisticRegression()}},
        "model is a LogisticRegression; must be an EconML",
    ),
    "alpha": ({"alpha": 0.7}, "alpha is 0.7, must be < 0.5"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(varied: cr.Fit, case: str) -> None:
    given_options, says = BAD[case]
    with pytest.raises(ArgumentError, match=says):
        choose_model(varied, **given_options)


def test_a_log_is_no_fit(varied: cr.Fit) -> None:
    with pytest.raises(ArgumentError, match=r"choose_model takes a Fit; got ImpressionLog"):
        choose_model(varied.log)  # type: ignore[arg-type]
