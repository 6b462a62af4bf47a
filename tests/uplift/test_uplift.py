from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm
from small_logs import ROLES, make_world

import causalrec as cr
from causalrec import joint as covariance_of
from causalrec.errors import ArgumentError, EstimationError, HonestyError
from causalrec.estimate.fit import Fit
from causalrec.log import ImpressionLog
from causalrec.uplift import ranking

F64 = npt.NDArray[np.float64]
ONES = np.ones(4)


def areas(score: F64, psi: F64, w: F64 | None = None) -> tuple[float, float]:
    curve = ranking.gains(ranking.ties(score), psi, np.ones_like(psi) if w is None else w)
    return curve.qini(), curve.autoc()


def test_the_gain_curve_of_a_known_ranking_by_hand() -> None:
    psi = np.array([4.0, 2, 0, -2])
    curve = ranking.gains(ranking.ties(np.array([4.0, 3, 2, 1])), psi, ONES)
    np.testing.assert_allclose(curve.gain, [0, 1, 1.5, 1.5, 1.0])
    np.testing.assert_allclose(curve.q, [0, 0.25, 0.5, 0.75, 1])
    assert curve.ate == 1
    assert curve.qini() == pytest.approx(0.25 * (0.5 + 1.25 + 1.5 + 1.25) - 0.5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([3, 1000]))
def test_areas_are_those_of_brute_force(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    score, psi, w = (
        rng.integers(0, levels, 40).astype(float),
        rng.standard_normal(40),
        rng.exponential(size=40) + 0.1,
    )
    qini, autoc = areas(score, psi, w)
    ends = [(0.0, 0.0)]
    for s in sorted(set(score), reverse=True):
        above = score >= s
        ends.append((w[above].sum() / w.sum(), (w * psi)[above].sum() / w.sum()))
    q, g = np.array(ends).T
    grid = (np.arange(400_000) + 0.5) / 400_000
    gain = np.interp(grid, q, g)
    assert qini == pytest.approx(gain.mean() - g[-1] / 2, abs=1e-5)
    assert autoc == pytest.approx((gain / grid).mean() - g[-1], abs=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_order_monotone_scores_and_the_scale_of_weights_have_no_say(seed: int) -> None:
    rng = np.random.default_rng(seed)
    score, psi, w = rng.integers(0, 9, 50).astype(float), rng.standard_normal(50), rng.random(50) + 0.1
    p = rng.permutation(50)
    assert areas(np.exp(score[p]), psi[p], 7 * w[p]) == pytest.approx(areas(score, psi, w), abs=1e-10)


def test_a_constant_ranking_is_random_targeting() -> None:
    psi = np.random.default_rng(0).standard_normal(50)
    assert areas(np.zeros(50), psi) == pytest.approx((0, 0), abs=1e-12)


def test_a_ranking_and_its_reverse() -> None:
    score = np.random.default_rng(0).standard_normal(200)
    assert areas(score, score)[0] > 0.2
    assert areas(score, score)[0] == pytest.approx(-areas(-score, score)[0])


def test_a_weight_is_a_repetition() -> None:
    rng = np.random.default_rng(1)
    score, psi, times = rng.standard_normal(30), rng.standard_normal(30), rng.integers(1, 4, 30)
    assert areas(score, psi, times.astype(float)) == pytest.approx(
        areas(np.repeat(score, times), np.repeat(psi, times))
    )


def test_the_interval_of_a_noise_ranking_covers_nothing_as_often_as_it_says() -> None:
    """Users of four rows with effects of their own, ranked at random."""
    covered = {"qini": 0, "autoc": 0}
    runs = 120
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        units = np.repeat(np.arange(120), 4)
        psi = 0.1 + rng.standard_normal(480) + rng.standard_normal(120)[units]
        tie = ranking.ties(rng.standard_normal(120)[units])
        found = ranking.rank(tie, psi, np.ones(480), units, None, np.array([0.5, 1.0]))
        for name, value, sd in zip(covered, (found.qini, found.autoc), found.std_errors, strict=False):
            covered[name] += abs(value) < 1.98 * sd
    assert binom.ppf(0.001, runs, 0.95) <= covered["qini"] <= runs
    assert binom.ppf(0.001, runs, 0.95) <= covered["autoc"] <= runs


def test_a_joint_band_is_wider_than_a_pointwise_one_and_holds_the_curve() -> None:
    rng = np.random.default_rng(0)
    covariance = np.diag([1.0, 4, 9, 16, 0])
    width = covariance_of.largest(covariance, 10_000, 0.95, 20_000, rng)
    assert width == pytest.approx(norm.ppf(1 - (1 - 0.95**0.25) / 2), abs=0.05)  # four independent means
    one = covariance_of.largest(np.ones((5, 5)), 10_000, 0.95, 20_000, rng)
    assert one == pytest.approx(1.96, abs=0.04)
    assert covariance_of.largest(np.zeros((3, 3)), 10, 0.95, 100, rng) == 0


@pytest.fixture(scope="module")
def halves() -> tuple[Fit, ImpressionLog, F64]:
    world = make_world(3000, 600, seed=4, heterogeneity=1.5)
    frame = world.frame.assign(tau=world.tau)
    train, test = cr.read_log(frame, **ROLES).split(0.5, random_state=0)
    return (
        cr.estimate(train, cr.identify(train), folds=cr.Folds(3), random_state=0),
        test,
        test.frame["tau"].to_numpy(),
    )


def test_a_real_ranking_beats_a_random_one(halves: tuple[Fit, ImpressionLog, F64]) -> None:
    fit, test, tau = halves
    curve = cr.uplift(fit, test, n_bootstrap=200)
    assert curve.qini_ci[0] < curve.qini < curve.qini_ci[1]
    assert curve.qini_ci[0] > 0
    assert curve.autoc_ci[0] > 0
    oracle = areas(tau, tau)[0]
    assert curve.qini_ci[0] < oracle
    assert not curve.constant
    assert "beats recommending at random" in curve.summary()
    assert curve.n == len(test)
    assert curve.n_units == test.n_units
    assert (curve.gain_lower <= curve.gain).all()
    assert (curve.gain <= curve.gain_upper).all()
    assert curve.toc[-1] == pytest.approx(0, abs=1e-12)
    same = cr.uplift(fit, test, n_bootstrap=200)
    assert same.qini_ci == curve.qini_ci


def test_the_decile_table(halves: tuple[Fit, ImpressionLog, F64]) -> None:
    fit, test, tau = halves
    table = cr.uplift(fit, test, n_bootstrap=100).table
    assert table["decile"].tolist() == list(range(1, 11))
    assert table["n"].sum() == len(test)
    assert table["mean_cate"].is_monotonic_decreasing
    assert (table["ci_lower"] < table["effect"]).all()
    top = np.argsort(-fit.cate(test))[: len(test) // 10]
    assert table["ci_lower"].iloc[0] < tau[top].mean() < table["ci_upper"].iloc[0]


def test_held_out_scores_average_to_the_effect(halves: tuple[Fit, ImpressionLog, F64]) -> None:
    fit, test, tau = halves
    curve = cr.uplift(fit, test, n_bootstrap=100)
    assert abs(curve.gain[-1] - tau.mean()) < 4 * fit.std_error
    assert curve.gain_lower[-1] < tau.mean() < curve.gain_upper[-1]


def refuse(test: ImpressionLog, fit: Fit, error: type[Exception], says: str, **options: Any) -> None:
    with pytest.raises(error, match=says):
        cr.uplift(fit, test, **options)


def test_users_of_the_fit_are_refused(halves: tuple[Fit, ImpressionLog, F64]) -> None:
    fit, test, _ = halves
    refuse(fit.log, fit, HonestyError, r"300 of 300 units of the test log were in the fit")
    mixed = cr.read_log(pd.concat([test.frame, fit.log.frame.iloc[:1]]), **ROLES)
    refuse(mixed, fit, HonestyError, r"1 of 301 units of the test log were in the fit")


def test_rows_of_the_fit_are_refused_where_there_are_no_users() -> None:
    log = cr.read_log(make_world(600, 600, seed=1).frame, **{**ROLES, "unit": None})
    train, test = log.split(0.4, random_state=0)
    fit = cr.estimate(train, cr.identify(train), folds=cr.Folds(3), random_state=0)
    assert cr.uplift(fit, test, n_bootstrap=100).n == 240
    refuse(log, fit, HonestyError, r"360 of 600 units")


def test_what_cannot_be_judged(halves: tuple[Fit, ImpressionLog, F64]) -> None:
    fit, test, _ = halves
    treated = np.flatnonzero(test.treatment == 1)
    thin = test.take(np.r_[np.flatnonzero(test.treatment == 0), treated[:49]])
    refuse(
        thin, fit, EstimationError, r"the test log has 49 treated rows, must have >= 50; split off more users"
    )
    refuse(test.take(np.flatnonzero(test.treatment == 1)), fit, EstimationError, r"has 0 control rows")
    refuse(test, fit, ArgumentError, r"n_bootstrap is 99, must be >= 100", n_bootstrap=99)
    refuse(test.frame, fit, ArgumentError, r"got \(Fit, DataFrame\)")  # type: ignore[arg-type]
    bare = {k: v for k, v in ROLES.items() if k != "confounders"}
    lacking = cr.read_log(test.frame.drop(columns="rate"), **bare)
    refuse(lacking, fit, EstimationError, r"adjusts for 'rate', which the log does not have")


def test_a_fit_by_logged_propensities_needs_those_of_the_test_log() -> None:
    world = make_world(1000, 300, seed=3)
    log = cr.read_log(world.frame.assign(p=world.e), **ROLES, propensity="p")
    train, test = log.split(0.4, random_state=0)
    fit = cr.estimate(train, cr.identify(train), folds=cr.Folds(3), random_state=0)
    assert np.isfinite(cr.uplift(fit, test, n_bootstrap=100).qini)
    refuse(
        cr.read_log(test.frame, **ROLES),
        fit,
        EstimationError,
        r"propensities were logged.*read both logs alike",
    )


def test_row_weights_reach_the_curve(halves: tuple[Fit, ImpressionLog, F64]) -> None:
    fit, test, _ = halves
    weighted = cr.read_log(
        test.frame.assign(w=np.where(test.frame["age"] > 0, 3.0, 1.0)), **ROLES, weight="w"
    )
    plain, one = cr.uplift(fit, test, n_bootstrap=100), cr.uplift(fit, weighted, n_bootstrap=100)
    assert one.gain[-1] > plain.gain[-1]
    equal = cr.read_log(test.frame.assign(w=3.0), **ROLES, weight="w")
    assert cr.uplift(fit, equal, n_bootstrap=100).qini_ci == pytest.approx(plain.qini_ci, rel=1e-6)


def test_a_randomised_log_without_any_covariate() -> None:
    rng = np.random.default_rng(0)
    frame = make_world(600, 200, seed=1).frame.assign(shown=rng.integers(0, 2, 600), p=0.5)
    log = cr.read_log(frame, treatment="shown", outcome="clicked", unit="user", propensity="p")
    train, test = log.split(0.4, random_state=0)
    fit = cr.estimate(train, cr.identify(train), folds=cr.Folds(3), random_state=0)
    curve = cr.uplift(fit, test, n_bootstrap=100)
    assert curve.constant
    assert curve.qini == pytest.approx(0, abs=1e-12)
    assert "one effect for everyone" in curve.summary()
    assert curve.table["n"].tolist() == [len(test)]
