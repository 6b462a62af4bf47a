"""Refuters: quiet on estimators that are right, loud on broken ones, at measured rates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from small_logs import ROLES, make_world, noise_block

import causalrec as cr
from causalrec import scores
from causalrec.check.refuters import KNOWN, CheckRecord, repeat, run_refuters
from causalrec.check.words import verdict_known
from causalrec.errors import ArgumentError
from causalrec.estimate.analysis import Analysis, Inputs, Settings, analyse
from causalrec.estimate.fit import Fit
from causalrec.nuisance import Folds, NuisanceRecipe, RidgeLogistic
from causalrec.nuisance import nuisances as nuisance_room

REPS = 30


def quiet(_: int) -> None:
    return None


def run(inputs: Inputs, seed: int, recipe: NuisanceRecipe | None = None, folds: int = 3) -> Analysis:
    return analyse(
        inputs, Settings.of("ate", None, Folds(folds), inputs.t), recipe, np.random.default_rng(seed)
    )


def verdicts(a: Analysis, seed: int) -> dict[str, CheckRecord]:
    records, _ = run_refuters(a, REPS, np.random.default_rng(seed), quiet)
    return {r.name: r for r in records}


def passes(a: Analysis, seed: int, name: str, reps: int = REPS) -> bool:
    """The verdict of one of the refuters whose right answer is known."""
    runs = repeat(a, KNOWN[name], reps, np.random.default_rng(seed), quiet)
    return verdict_known(name, runs, a.effect.std_error)[0]


def caught(name: str, make: Callable[[int], Analysis]) -> int:
    """In how many of six logs the refuter raises its hand."""
    return sum(not passes(make(seed), seed, name) for seed in range(6))


def test_a_good_fit_is_left_alone() -> None:
    """False alarms of five refuters on twelve honest fits."""
    alarms: list[str] = []
    for seed in range(12):
        found = verdicts(run(make_world(800, 250, seed=seed).inputs, seed, folds=5), seed)
        alarms += [f"{seed}: {r.message}" for r in found.values() if not r.passed]
    assert len(alarms) <= 4, alarms


def leaky(fitted: Any, t: Any, y: Any, w: Any, touched: Any, z: Any = None) -> Any:
    """Least squares with hardly a penalty, fitted on the rows that it predicts; the propensity stays out of fold."""
    x = np.column_stack([np.ones(len(t)), fitted.problem.outcome_design.dense().astype(float)])
    out = {"propensity": np.repeat(fitted.propensity[:, None], t.shape[1], axis=1)}
    for arm in (0, 1):
        betas = []
        for r in range(t.shape[1]):
            own = x[t[:, r] == arm]
            gram = own.T @ own + 1e-3 * np.eye(x.shape[1])
            betas.append(np.linalg.solve(gram, own.T @ y[t[:, r] == arm, r]))
        out[f"outcome_{arm}"] = x @ np.column_stack(betas)
    return nuisance_room.Perturbed(**out)


def overfitted(seed: int) -> Analysis:
    world = make_world(500, 500, seed=seed)
    inputs = replace(world.inputs, covariates=[*world.inputs.covariates, noise_block(500, 170, seed)])
    return run(inputs, seed)


def test_nuisances_that_have_seen_their_rows_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outcome models of 180 columns fitted in sample: residuals shrink, and with them the interval."""
    analyses = {s: overfitted(s) for s in range(6)}
    monkeypatch.setattr(nuisance_room, "refit_nuisances", leaky)
    hits = [not passes(a, s, "dummy_outcome", 100) for s, a in analyses.items()]
    assert sum(hits) >= 5


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refits that drop the confounder `rate` from every design."""
    real = nuisance_room.refit_nuisances

    def without_rate(fitted: Any, *args: Any, **kwargs: Any) -> Any:
        problem = fitted.problem
        short = problem.outcome_design.keep(["age", "device"])
        blind = nuisance_room.fit_nuisances(
            replace(problem, propensity_design=short, outcome_design=short), fitted.recipe
        )
        made = real(blind, *args, **kwargs)
        return replace(made, propensity=np.repeat(blind.propensity[:, None], made.outcome_0.shape[1], axis=1))

    monkeypatch.setattr(nuisance_room, "refit_nuisances", without_rate)


@pytest.mark.usefixtures("forgetful")
def test_a_forgotten_confounder_is_caught_by_the_dummy_outcome() -> None:
    assert caught("dummy_outcome", lambda s: run(make_world(800, 250, seed=s).inputs, s)) == 6


class WrongSign(Settings):
    """An estimator that reports minus the effect."""

    def score(self, t: Any, y: Any, nuisances: Any) -> Any:
        a, b = super().score(t, y, nuisances)
        return -a, b


def test_a_wrong_sign_is_caught_by_the_planted_effect() -> None:
    def make(seed: int) -> Analysis:
        return replace(run(make_world(800, 250, seed=seed).inputs, seed), settings=WrongSign())

    assert caught("planted_effect", make) == 6


def test_errors_that_are_too_small_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users treated throughout, with habits of their own, but standard errors that take rows for independent."""
    real = scores.cluster_variance
    monkeypatch.setattr(scores, "cluster_variance", lambda phi, units: real(phi, np.arange(len(phi))))

    def make(seed: int) -> Analysis:
        world = make_world(1200, 60, seed=seed, by_user=True, user_sd=2.5, confounding=0.2, heterogeneity=0)
        return run(world.inputs, seed)

    assert caught("placebo_treatment", make) >= 5


def test_a_logged_propensity_makes_no_false_alarm() -> None:
    """Propensities that vary and outcomes that no linear model fits: the placebo is drawn by the design."""
    alarms = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        world = make_world(900, 900, seed=seed)
        bump = (np.abs(world.frame["rate"]) < 0.6).to_numpy()
        e = np.where(bump, 0.85, 0.15)
        t = (rng.random(900) < e).astype(float)
        y = (rng.random(900) < 0.2 + 0.6 * bump).astype(float)
        a = run(replace(world.inputs, t=t, y=y, logged=e, covariates=[]), seed)
        alarms += not passes(a, seed, "placebo_treatment")
    assert alarms <= 1


def test_the_verb_and_its_result(fit: Fit) -> None:
    checks = cr.refute(fit, n_simulations=20, random_state=0, progress=False)
    again = cr.refute(fit, n_simulations=20, random_state=0, progress=False)
    names = [r.name for r in checks]
    assert names == [
        "overlap",
        "balance",
        "placebo_treatment",
        "dummy_outcome",
        "planted_effect",
        "random_common_cause",
        "data_subset",
    ]
    assert len(checks) == len(names)
    assert [r.statistic for r in checks if r.name != "balance"] == [
        r.statistic for r in again if r.name != "balance"
    ]
    assert checks["balance"].passed is None
    assert checks.passed == all(r.passed is not False for r in checks)
    assert all(r.message.endswith(".") for r in checks)
    assert "passed" in checks.summary()
    assert len(checks.propensity_histogram["edges"]) == 21
    assert sum(checks.propensity_histogram["treated"]) == pytest.approx(1)
    with pytest.raises(KeyError, match="the checks are"):
        checks["placebo"]


@pytest.mark.parametrize(
    ("reps", "says"), [(19, "n_simulations is 19, must be >= 20"), (30.0, "must be a whole number")]
)
def test_wrong_numbers_of_repetitions(fit: Fit, reps: Any, says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        cr.refute(fit, n_simulations=reps)


def test_only_fits_are_refuted(fit: Fit) -> None:
    with pytest.raises(ArgumentError, match="refute takes the Fit that estimate returned; got ImpressionLog"):
        cr.refute(fit.log)  # type: ignore[arg-type]


def test_balance_looks_at_what_was_held_back() -> None:
    world = make_world(1500, 300, seed=1)
    blind = cr.read_log(world.frame, **{**ROLES, "confounders": ["device"]})
    checks = cr.refute(
        cr.estimate(blind, cr.identify(blind), folds=Folds(3), random_state=0),
        n_simulations=20,
        random_state=0,
        progress=False,
    )
    assert checks["balance"].passed is False
    assert "(rate): above 0.1" in checks["balance"].message
    proxy = world.frame.assign(proxy=world.frame["rate"] + np.random.default_rng(0).standard_normal(1500))
    seeing = cr.read_log(proxy, **ROLES)
    checks = cr.refute(
        cr.estimate(seeing, cr.identify(seeing), folds=Folds(3), random_state=0),
        n_simulations=20,
        random_state=0,
        progress=False,
    )
    assert checks["balance"].passed is True
    assert abs(checks.balance[0]["before"]) > 0.3


def test_a_negative_control_hears_a_hidden_confounder_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    flagged = {"hidden": 0, "seen": 0}
    for seed in range(8):
        frame = make_world(900, 900, seed=seed).frame
        yesterday = rng.random(900) < 1 / (1 + np.exp(-1.2 * frame["rate"]))
        log = cr.read_log(frame.assign(yesterday=yesterday), **ROLES, negative_controls="yesterday")
        blind = cr.read_log(log.frame, **{**ROLES, "confounders": ["device"]}, negative_controls="yesterday")
        for name, one in (("seen", log), ("hidden", blind)):
            made = cr.estimate(one, cr.identify(one), folds=Folds(3), random_state=0)
            from causalrec.check.negative import negative_controls

            (record,) = negative_controls(made)
            flagged[name] += record.passed is False
    assert flagged["hidden"] >= 7
    assert flagged["seen"] <= 2


def test_light_and_heavy_penalties_are_refuted_alike() -> None:
    """The refuters run the estimator that was fitted, whatever its learners."""
    a = run(make_world(600, 200, seed=1).inputs, 0, NuisanceRecipe(outcome=RidgeLogistic(light=50.0)))
    assert set(verdicts(a, 0)) == {
        "placebo_treatment",
        "dummy_outcome",
        "planted_effect",
        "random_common_cause",
        "data_subset",
    }
