"""Closed forms, EconML's definition on equal scores, and bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causalrec.errors import ArgumentError
from causalrec.uplift import metrics, ranking

F64 = npt.NDArray[np.float64]
Y = np.array([1.0, 0, 1, 0, 0, 1, 0, 0])
T = np.array([1, 0, 1, 0, 1, 0, 0, 1])
BEST_FIRST = np.arange(8)[::-1].astype(float)


def test_by_hand() -> None:
    """Treated rows click 2 of 4, others 1 of 4: ATE 1/4; the best half has 2 of 2 against 0 of 2."""
    assert metrics.uplift_at_k(Y, BEST_FIRST, T, k=0.5) == pytest.approx(1.0)
    assert metrics.uplift_at_k(Y, BEST_FIRST, T, k=1.0) == pytest.approx(0.25)
    q, gain = metrics.uplift_curve(Y, BEST_FIRST, T)
    np.testing.assert_allclose(q, np.arange(9) / 8)
    psi = 0.25 + T * (Y - 0.5) / 0.5 - (1 - T) * (Y - 0.25) / 0.5
    np.testing.assert_allclose(gain, np.r_[0, np.cumsum(psi)] / 8)
    np.testing.assert_allclose(metrics.qini_curve(Y, BEST_FIRST, T)[1], gain - q * 0.25)
    assert metrics.uplift_auc_score(Y, BEST_FIRST, T) == pytest.approx(((gain[1:] + gain[:-1]) / 2).mean())
    assert metrics.qini_auc_score(Y, BEST_FIRST, T) == pytest.approx(
        ((gain[1:] + gain[:-1]) / 2).mean() - 0.125
    )


def test_a_constant_prediction_is_random_targeting() -> None:
    flat = np.zeros(8)
    assert metrics.qini_auc_score(Y, flat, T) == pytest.approx(0, abs=1e-12)
    assert metrics.autoc_score(Y, flat, T) == pytest.approx(0, abs=1e-12)
    assert metrics.uplift_auc_score(Y, flat, T) == pytest.approx(0.125)
    assert metrics.uplift_at_k(Y, flat, T, k=0.2) == pytest.approx(0.25)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_order_and_monotone_scores_have_no_say_and_a_weight_is_a_repetition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 60
    y, t, s = rng.integers(0, 2, n), np.arange(n) % 2, rng.integers(0, 9, n).astype(float)
    p, times = rng.permutation(n), rng.integers(1, 4, n)
    for metric in (
        metrics.qini_auc_score,
        metrics.uplift_auc_score,
        metrics.autoc_score,
        metrics.uplift_at_k,
    ):
        value = metric(y, s, t, propensity=0.5)
        assert metric(y[p], np.exp(s[p]), t[p], propensity=0.5) == pytest.approx(value, abs=1e-9)
        repeated = metric(np.repeat(y, times), np.repeat(s, times), np.repeat(t, times), propensity=0.5)
        assert metric(y, s, t, propensity=0.5, sample_weight=times) == pytest.approx(repeated, abs=1e-9)


def test_the_known_areas_of_a_large_experiment() -> None:
    """tau = s − 1/2 with s uniform: G(q) = q(1 − q)/2, Qini 1/12, AUTOC 1/4, uplift@20 % = .4."""
    rng = np.random.default_rng(0)
    n = 400_000
    s, e = rng.random(n), rng.choice([0.2, 0.6], n)
    t = (rng.random(n) < e).astype(float)
    y = rng.standard_normal(n) + t * (s - 0.5)
    known: dict[str, Any] = {"propensity": e}
    assert metrics.qini_auc_score(y, s, t, **known) == pytest.approx(1 / 12, abs=0.005)
    assert metrics.autoc_score(y, s, t, **known) == pytest.approx(1 / 4, abs=0.02)
    assert metrics.uplift_at_k(y, s, t, k=0.2, **known) == pytest.approx(0.4, abs=0.03)


@pytest.mark.parametrize("metric", ["toc", "qini"])
def test_econmls_area_on_equal_scores(metric: Any) -> None:
    from econml.validate import DRTester

    rng = np.random.default_rng(1)
    psi, val, train = rng.standard_normal(800), rng.standard_normal(800), rng.standard_normal(900)
    tester = DRTester(model_regression=None, model_propensity=None, cate=None)
    tester.treatments, tester.n_treat = np.array([0, 1]), 1
    tester.dr_val_, tester.cate_preds_train_, tester.cate_preds_val_ = (
        psi[:, None],
        train[:, None],
        val[:, None],
    )
    theirs = tester.evaluate_uplift(metric=metric, n_bootstrap=2).params[0]
    assert metrics.rate_on_percentiles(psi, val, metric=metric, reference=train) == pytest.approx(
        theirs, abs=1e-10
    )


def test_on_a_fine_grid_econmls_area_is_the_exact_one() -> None:
    rng = np.random.default_rng(2)
    tau = rng.standard_normal(20_000)
    psi = tau + rng.standard_normal(20_000)
    curve = ranking.gains(ranking.ties(tau), psi, np.ones(20_000))
    fine = np.linspace(0.01, 99.99, 5000)
    assert metrics.rate_on_percentiles(psi, tau, percentiles=fine) == pytest.approx(curve.autoc(), abs=0.005)
    assert metrics.rate_on_percentiles(psi, tau, percentiles=fine, metric="qini") == pytest.approx(
        curve.qini(), abs=0.001
    )


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "short": ({"uplift": BEST_FIRST[:7]}, r"uplift has 7 rows, y_true 8"),
    "one arm": (
        {"treatment": np.ones(8)},
        r"treatment has the values \[1\.\], must be 0/1 with both present",
    ),
    "labels": ({"treatment": T + 1}, r"must be 0/1 with both present"),
    "nan": ({"uplift": np.full(8, np.nan)}, r"uplift has shape \(8,\), must be \(n,\) finite"),
    "propensity": ({"propensity": 1.0}, r"must be one number or 8 numbers in \(0, 1\)"),
    "propensities": ({"propensity": np.full(7, 0.5)}, r"8 numbers in \(0, 1\); got 7"),
    "weights": ({"sample_weight": -np.ones(8)}, r"sample_weight is negative"),
    "k": ({"k": 0.0}, r"k is 0.0, must be > 0"),
    "empty arm": ({"k": 0.1}, r"k is 0.1: no control row is among the best-ranked 10 %; take a larger k"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    changed, says = BAD[case]
    given = {"y_true": Y, "uplift": BEST_FIRST, "treatment": T, **changed}
    with pytest.raises(ArgumentError, match=says):
        metrics.uplift_at_k(**given)


def test_bad_percentiles() -> None:
    with pytest.raises(ArgumentError, match="in every row; leave out the last percentiles"):
        metrics.rate_on_percentiles(np.ones(5), np.zeros(5), reference=np.ones(5))
    with pytest.raises(ArgumentError, match="uplift has 5 rows, psi 4"):
        metrics.rate_on_percentiles(np.ones(4), np.zeros(5))
    with pytest.raises(ArgumentError, match="metric is 'auuc'"):
        metrics.rate_on_percentiles(np.ones(5), np.zeros(5), metric="auuc")  # type: ignore[arg-type]
