"""A text that gives the treatment away: the projection brings overlap back, and the direction is found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from causalrec import scores
from causalrec.blocks import Block
from causalrec.errors import ArgumentError, EstimationError
from causalrec.estimate.analysis import Analysis, Inputs, Settings, analyse
from causalrec.estimate.ti import _direction, instrument_like, project_propensity
from causalrec.nuisance import Folds, fit_nuisances


def leaking(n=3_000, seed=0, leak=1.0, width=40, estimand="ate") -> tuple[Analysis, float]:
    """Vectors whose first coordinate confounds and whose last says the treatment by `leak` standard deviations."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, width)).astype(np.float32)
    x = rng.standard_normal(n)
    t = (rng.random(n) < expit(0.8 * z[:, 0] + 0.3 * x)).astype(float)
    p0, p1 = expit(-0.5 + z[:, 0] + 0.3 * x), expit(z[:, 0] + 0.3 * x)
    y = (rng.random(n) < np.where(t == 1, p1, p0)).astype(float)
    z[:, -1] += leak * (2 * t - 1).astype(np.float32)
    block = Block("text:title", "text", z, np.arange(n), ("title",), "test")
    inputs = Inputs(t, y, [block, pd.Series(x, name="x")], np.arange(n))
    settings = Settings.of(estimand, None, Folds(3), t)
    return analyse(inputs, settings, None, np.random.default_rng(seed)), float((p1 - p0).mean())


@pytest.fixture(scope="module")
def given_away():
    return leaking()


def test_the_projection_has_overlap_and_covers(given_away):
    a, truth = given_away
    found = project_propensity(a)
    assert found.auc_before > 0.85
    assert found.auc < 0.75
    assert found.effect.ci_lower < truth < found.effect.ci_upper
    assert found.effect.std_error < 0.8 * a.effect.std_error
    pair = scores.aipw_ate(a.inputs.t, a.inputs.y, found.propensity, found.outcome_0, found.outcome_1)
    assert pair[0].mean() == pytest.approx(found.effect.value)
    assert "no longer corrects" in str(found)


def test_the_projection_of_a_fold_has_not_seen_its_treatments(given_away):
    a, _ = given_away
    rng = np.random.default_rng(1)
    t = a.inputs.t.copy()
    mine = a.nuisances.fold == 0
    t[mine] = rng.permutation(t[mine])
    problem = replace(a.nuisances.problem, t=t)
    other = replace(a, nuisances=replace(a.nuisances, problem=problem))
    np.testing.assert_allclose(
        project_propensity(other).propensity[mine], project_propensity(a).propensity[mine]
    )


@pytest.mark.parametrize("estimand", ["att", "ato"])
def test_other_estimands(estimand):
    a, _ = leaking(n=1_500, estimand=estimand)
    found = project_propensity(a)
    assert np.isfinite(found.effect.std_error)
    assert found.estimand == ("att" if estimand == "att" else "ate")  # overlap weights at another propensity are of another population
    with pytest.raises(ArgumentError, match="estimand"):
        project_propensity(a, "ato")


def test_the_direction_of_a_fold_has_not_seen_its_exposures_where_nuisances_leave_out_pairs_of_folds() -> None:
    rng = np.random.default_rng(4)
    items, n = 120, 1_500
    z, code, x = rng.standard_normal((items, 40)).astype(np.float32), rng.integers(0, items, n), rng.standard_normal(n)
    t = (rng.random(n) < expit(0.8 * z[code, 0] + 0.3 * x)).astype(float)
    y = (rng.random(n) < expit(-0.5 + z[code, 0] + 0.5 * t)).astype(float)
    inputs = Inputs(t, y, [Block("text:title", "text", z, code, ("title",), "test"), pd.Series(x, name="x")], np.arange(n))
    nu = analyse(inputs, Settings.of("ate", None, Folds(5), t), None, np.random.default_rng(0)).nuisances
    assert nu.ridge is not None
    assert nu.ridge.betas["propensity"].shape[1] > 5
    for k in (0, 1, 4):
        other, here = t.copy(), np.flatnonzero(nu.fold == k)
        other[here] = rng.permutation(other[here])
        again = fit_nuisances(replace(nu.problem, t=other), nu.recipe, nu.design_recipe)
        np.testing.assert_allclose(_direction(again, "text:title", k), _direction(nu, "text:title", k), rtol=1e-3, atol=1e-4)


def test_the_direction_is_found_and_costs_nothing(given_away):
    a, truth = given_away
    found = instrument_like(a)
    (row,) = found.records
    assert row["instrument_like"]
    assert row["auc_lost"] > 0.1
    assert row["std_error"] < 0.8 * a.effect.std_error
    assert row["ci_lower"] < truth < row["ci_upper"]
    assert "1 of 1" in str(found)


def test_a_confounder_is_no_instrument():
    a, _ = leaking(seed=3, leak=0.0)
    (row,) = instrument_like(a).records
    assert not row["instrument_like"]


def test_what_cannot_be_done_is_said(given_away):
    a, _ = given_away
    with pytest.raises(EstimationError, match="was logged"):
        project_propensity(replace(a, nuisances=replace(a.nuisances, logged=True)))
    with pytest.raises(EstimationError, match="ridge-logistic"):
        instrument_like(replace(a, nuisances=replace(a.nuisances, ridge=None)))
    with pytest.raises(EstimationError, match="no representation"):
        instrument_like(replace(a, inputs=replace(a.inputs, covariates=a.inputs.covariates[1:])))
    with pytest.raises(ArgumentError, match="min_auc"):
        instrument_like(a, min_auc=0.7)
