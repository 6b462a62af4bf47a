"""Influence functions against the derivative, clustered covariance against the closed form, and coverage."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from scipy.stats import t as student

from causalrec import joint as covariance
from causalrec import scores
from causalrec.uplift import ranking

F64 = npt.NDArray[np.float64]
TENTHS = np.linspace(0.1, 1, 10)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 4, 1000]))
def test_the_influence_of_a_row_is_the_derivative_by_its_weight(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    n = 40
    score, psi = rng.integers(0, levels, n).astype(float), rng.standard_normal(n) + 0.3
    w = rng.exponential(size=n) + 0.1
    tie = ranking.ties(score)
    curve = ranking.gains(tie, psi, w)
    phi = ranking._Influence(tie, psi, w, TENTHS, curve)(np.arange(n))
    np.testing.assert_allclose(phi.mean(axis=0), 0, atol=1e-12)
    for i in (0, int(tie.argmin()), int(tie.argmax())):
        step = 1e-6 * np.eye(n)[i]
        up, down = ranking.gains(tie, psi, w + step), ranking.gains(tie, psi, w - step)
        slope = (np.array([up.qini(), up.autoc(), up.ate]) - [down.qini(), down.autoc(), down.ate]) / 2e-6
        np.testing.assert_allclose(phi[i, [0, 1, -1]] * w[i] ** -1, n * slope, rtol=1e-4, atol=1e-6)


def test_narrow_ties_take_the_limit_of_the_formula() -> None:
    edge = ranking.NARROW * 0.2
    for part in ranking._of_autoc(np.array([0.2, 0.2]), np.array([0.9 * edge, 1.1 * edge])):
        assert part[0] == pytest.approx(part[1], rel=1e-3)


def test_the_errors_of_the_whole_sample_are_those_of_a_clustered_mean() -> None:
    rng = np.random.default_rng(0)
    units, items = rng.integers(0, 50, 400), rng.integers(0, 30, 400)
    psi, w = rng.standard_normal(400) + rng.standard_normal(50)[units], rng.exponential(size=400)
    for by in (None, items):
        found = ranking.rank(ranking.ties(rng.standard_normal(400)), psi, w, units, by, TENTHS)
        mean = scores.clustered_ratio((psi, np.ones(400)), units, by, w)
        assert found.gain[-1] == pytest.approx(mean.value)
        assert np.sqrt(found.of_gain[-1, -1]) == pytest.approx(mean.std_error, rel=1e-9)
        assert found.toc[-1] == found.of_toc[-1, -1] == pytest.approx(0, abs=1e-12)
    assert found.auuc == pytest.approx(found.qini + mean.value / 2)


def test_blocks_of_clusters_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    rows, codes = rng.standard_normal((3000, 4)), rng.integers(0, 70, 3000)
    whole, g = covariance.clustered(lambda r: rows[r], codes)
    monkeypatch.setattr(covariance, "BLOCK", 100)
    parts, _ = covariance.clustered(lambda r: rows[r], codes)
    np.testing.assert_allclose(whole, parts, rtol=1e-10)
    assert g == 70
    np.testing.assert_allclose(np.diag(whole), [scores.cluster_variance(c, codes)[0] for c in rows.T])


def test_a_two_way_covariance_is_one_and_has_the_two_way_variances() -> None:
    rng = np.random.default_rng(2)
    rows, units, items = rng.standard_normal((500, 6)), rng.integers(0, 40, 500), rng.integers(0, 25, 500)
    found, g = covariance.two_way(lambda r: rows[r], units, items)
    np.testing.assert_allclose(np.diag(found), [scores.two_way_variance(c, units, items)[0] for c in rows.T])
    assert np.linalg.eigvalsh(found).min() > 0
    assert g == 25


def test_a_wald_test_of_true_zeros_is_uniform_and_of_others_small() -> None:
    rng = np.random.default_rng(3)
    p = []
    for _ in range(400):
        x = rng.standard_normal((30, 3)) @ np.array([[1, 0.5, 0], [0, 1, 0.5], [0, 0, 1]])
        p.append(covariance.wald(x.mean(axis=0), np.cov(x.T) / 30, 30)[2])
    assert binom.ppf(0.001, 400, 0.05) <= np.sum(np.array(p) < 0.05) <= binom.ppf(0.999, 400, 0.05)
    assert covariance.wald(np.ones(2), np.eye(2) / 100, 50)[2] < 1e-6
    assert np.isnan(covariance.wald(np.ones(2), np.eye(2), 2)[2])


def draw(seed: int, users: int = 120) -> tuple[npt.NDArray[np.int64], F64, F64, F64]:
    """Users of 5 to 50 rows whose noise and ranking score are their own in part: units, score, tau, psi."""
    rng = np.random.default_rng([7, seed])
    units = np.repeat(np.arange(users), rng.integers(5, 51, users))
    n = len(units)
    score = 0.9 * rng.standard_normal(users)[units] + 0.4 * rng.standard_normal(n)
    tau = 0.08 + 0.06 * score
    return units, score, tau, tau + 0.8 * rng.standard_normal(n) + 0.4 * rng.standard_normal(users)[units]


def test_intervals_by_user_cover_the_fitted_rankings_areas_and_intervals_by_row_do_not() -> None:
    _, score, tau, _ = draw(-1 % 2**31, 30_000)
    true = ranking.gains(ranking.ties(score), tau, np.ones_like(tau))
    target = np.array([true.qini(), true.autoc(), true.at(TENTHS)[0], true.ate])
    runs, covered, by_row = 200, np.zeros(4), np.zeros(4)
    for seed in range(runs):
        units, score, _, psi = draw(seed)
        tie, ones = ranking.ties(score), np.ones_like(psi)
        for counts, codes, c in (
            (covered, units, student.ppf(0.975, 119)),
            (by_row, np.arange(len(psi)), 1.96),
        ):
            r = ranking.rank(tie, psi, ones, codes, None, TENTHS)
            value = np.array([r.qini, r.autoc, r.gain[0], r.gain[-1]])
            sd = np.sqrt([r.covariance[0, 0], r.covariance[1, 1], r.of_gain[0, 0], r.of_gain[-1, -1]])
            counts += np.abs(value - target) < c * sd
    assert (covered >= binom.ppf(0.0005, runs, 0.95)).all()
    assert (by_row < binom.ppf(0.0005, runs, 0.95)).all()
