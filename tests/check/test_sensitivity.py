from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from small_logs import ROLES, make_world

import causalrec as cr
from causalrec.blocks import Block
from causalrec.check.balance import smd
from causalrec.check.sensitivity import (
    bias_scale,
    control_mean,
    e_value,
    representer,
    robustness_value,
    sensitivity,
    together,
)
from causalrec.estimate.fit import Fit
from causalrec.nuisance import refit_nuisances
from causalrec.nuisance.batch import TARGETS


@pytest.mark.parametrize(
    ("ratio", "published"),
    [(10.73, 20.95), (3.9, 7.26), (1 / 3.9, 7.26), (1.0, 1.0), (1.25, 1.81), (0.8, 1.81)],
)
def test_e_values_of_vanderweele_and_ding(ratio: float, published: float) -> None:
    assert e_value(ratio) == pytest.approx(published, abs=0.01)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_a_confounder_as_strong_as_the_robustness_value_explains_the_effect(share: float) -> None:
    effect = 2.0 * np.sqrt(share * share / (1 - share))
    assert robustness_value(effect, 2.0) == pytest.approx(share, rel=1e-9)
    assert robustness_value(-effect, 2.0) == pytest.approx(share, rel=1e-9)
    assert robustness_value(0.0, 2.0) == 0


@pytest.mark.parametrize("estimand", ["ate", "att", "ato"])
def test_the_representer_turns_outcomes_into_the_estimand(fit: Fit, estimand: str) -> None:
    """E[α Y] is a weighting estimate of the effect, and E[α] is near 0."""
    a = fit.under(estimand).analysis
    alpha = representer(a, a.nuisances.propensity)
    assert abs(alpha.mean()) < 0.2
    assert np.mean(alpha * a.inputs.y) == pytest.approx(a.effect.value, abs=4 * a.effect.std_error)
    assert bias_scale(a) > 0


@pytest.mark.parametrize("estimand", ["ate", "att", "ato"])
def test_the_control_mean_is_that_of_the_population(fit: Fit, world: object, estimand: str) -> None:
    a = fit.under(estimand).analysis
    e, t = world.e, a.inputs.t  # type: ignore[attr-defined]
    weights = {"ate": np.ones_like(t), "att": t, "ato": e * (1 - e)}[estimand]
    truth = np.average(world.p0, weights=weights)  # type: ignore[attr-defined]
    assert control_mean(a) == pytest.approx(truth, abs=0.08)


def test_weights_that_repeat_rows_change_the_aggregates_as_repeated_rows_do(fit: Fit) -> None:
    """Doubling all weights of one half is the log with that half twice."""
    a = fit.analysis
    w = np.where(np.arange(fit.n) % 2 == 0, 2.0, 1.0)
    rows = np.r_[np.arange(fit.n), np.arange(0, fit.n, 2)]
    weighted = replace(
        a,
        inputs=replace(a.inputs, weights=w),
        nuisances=replace(a.nuisances, problem=replace(a.nuisances.problem, w=w / w.mean())),
    )
    problem = replace(a.nuisances.problem, t=a.inputs.t[rows], y=a.inputs.y[rows], w=np.ones(len(rows)))
    nuisances = replace(
        a.nuisances,
        propensity=a.nuisances.propensity[rows],
        outcome_0=a.nuisances.outcome_0[rows],
        outcome_1=a.nuisances.outcome_1[rows],
        problem=problem,
    )
    repeated = replace(
        a, inputs=replace(a.inputs, t=a.inputs.t[rows], y=a.inputs.y[rows]), nuisances=nuisances
    )
    for estimand in ("ate", "att", "ato"):
        one, two = (replace(x, settings=replace(x.settings, estimand=estimand)) for x in (weighted, repeated))
        assert control_mean(one) == pytest.approx(control_mean(two), rel=1e-9)
        assert bias_scale(one) == pytest.approx(bias_scale(two), rel=1e-9)


def test_the_whole_of_it(fit: Fit) -> None:
    s = sensitivity(fit)
    assert 0 <= s.robustness_value_ci <= s.robustness_value < 1
    assert s.e_value is not None
    assert s.e_value_ci is not None
    assert 1 <= s.e_value_ci <= s.e_value
    assert (s.robustness_value_ci == 0) == (fit.ci_lower <= 0 <= fit.ci_upper)
    by_name = {b["left_out"]: b for b in s.benchmarks}
    assert set(by_name) == {"age", "rate", "device"}
    strongest = max(by_name, key=lambda name: by_name[name]["bias"])
    assert strongest == "rate"
    assert by_name["rate"]["effect_without"] > fit.effect + fit.std_error
    assert "Robustness value" in s.summary()


def test_all_representations_of_a_column_are_left_out_together() -> None:
    """Two blocks of one text say the same: without either alone nothing changes, without both the effect does."""
    world = make_world(3000, 1500, seed=3)
    frame = world.frame.assign(title=[f"rate {r:.2f}" for r in world.frame["rate"]])
    log = cr.read_log(frame, **{**ROLES, "confounders": ["device"]}, text="title")
    texts, codes = log.texts("title")
    rate = np.array([float(t.split()[1]) for t in texts])
    said, style = (
        Block(name, name.split(":")[0], values.astype(np.float32), codes, ("title",), "by hand")
        for name, values in (
            ("text:title", np.column_stack([rate, rate**2])),
            ("lexical:title", np.column_stack([rate, np.abs(rate)])),
        )
    )
    match = Block(
        "match:seen~title", "match", rate[:, None].astype(np.float32), codes, ("seen", "title"), "by hand"
    )
    log = log.with_blocks([said, style, match])
    made = cr.estimate(log, cr.identify(log), folds=cr.Folds(3), random_state=0)
    owners = made.nuisances.problem.outcome_design.owners
    groups = together(made.analysis, owners)
    assert ("text:title", "lexical:title") in groups
    assert ("match:seen~title",) in groups
    assert sorted(name for group in groups for name in group) == sorted(owners)
    log = log.with_blocks([said, style])
    made = cr.estimate(log, cr.identify(log), folds=cr.Folds(3), random_state=0)
    by_name = {b["left_out"]: b for b in sensitivity(made).benchmarks}
    assert set(by_name) == {"text:title + lexical:title", "age", "device"}
    words = by_name["text:title + lexical:title"]
    assert words["gain_treatment"] > 0.05
    assert words["effect_without"] > made.effect + made.std_error


def test_other_learners_leave_out_together_too() -> None:
    world = make_world(900, 300, seed=1)
    recipe = cr.NuisanceRecipe(propensity=LogisticRegression(), outcome=LogisticRegression())
    log = cr.read_log(world.frame, **ROLES)
    made = cr.estimate(log, cr.identify(log), nuisances=recipe, folds=cr.Folds(3), random_state=0)
    nu, t = made.nuisances, made.nuisances.problem.t[:, None]
    y, w = nu.problem.y[:, None], nu.problem.w[:, None]
    both = refit_nuisances(nu, t, y, w, TARGETS, left_out=(("rate", "device"),))
    one = refit_nuisances(nu, t, y, w, TARGETS, left_out=(("rate",),))
    spread = [np.std(p.propensity) for p in (both, one)]
    assert spread[0] < spread[1] < np.std(nu.propensity)


def test_standardised_differences_by_hand() -> None:
    x, t = np.array([0.0, 2, 1, 3]), np.array([0.0, 0, 1, 1])
    assert smd(x, t, np.ones(4)) == pytest.approx(1.0)
    assert smd(x, t, np.array([1.0, 3, 3, 1])) == pytest.approx(0.0)
    assert smd(np.ones(4), t, np.ones(4)) == 0
