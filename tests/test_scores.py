from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causalrec import scores

F64 = npt.NDArray[np.float64]


def sample(n: int = 300, seed: int = 0) -> tuple[F64, F64, F64, F64, F64]:
    """T, Y and arbitrary nuisances of n rows."""
    rng = np.random.default_rng(seed)
    e = rng.uniform(0.2, 0.8, n)
    t = (rng.random(n) < e).astype(float)
    return t, rng.standard_normal(n) + t, e, rng.standard_normal(n), rng.standard_normal(n)


def value(pair: scores.Pair) -> float:
    return float(pair[0].sum() / pair[1].sum())


def test_aipw_with_constant_nuisances_is_the_difference_in_means() -> None:
    t, y, *_ = sample()
    means = [np.full_like(y, y[t == arm].mean()) for arm in (0, 1)]
    e = np.full_like(y, t.mean())
    difference = y[t == 1].mean() - y[t == 0].mean()
    for name in ("ate", "att", "ato"):
        assert value(scores.SCORES[name](t, y, e, *means)) == pytest.approx(difference, abs=1e-12)
    assert value(scores.difference_in_means(t, y)) == pytest.approx(difference, abs=1e-12)


CELLS = {(0, 0): (30, 0.1), (0, 1): (10, 0.4), (1, 0): (20, 0.3), (1, 1): (40, 0.5)}
"""(x, t) → rows and click rate of a table with effects of .3 where x = 0 and .2 where x = 1."""


def table() -> tuple[F64, F64, F64, F64, F64]:
    rows = [(x, t, int(i < round(n * p))) for (x, t), (n, p) in CELLS.items() for i in range(n)]
    x, t, y = np.array(rows, dtype=float).T
    e = np.where(x == 1, 40 / 60, 10 / 40)
    return t, y, e, np.where(x == 1, 0.3, 0.1), np.where(x == 1, 0.5, 0.4)


@pytest.mark.parametrize(
    ("estimand", "by_hand"),
    [
        ("ate", 0.4 * 0.3 + 0.6 * 0.2),
        ("att", (10 * 0.3 + 40 * 0.2) / 50),
        ("ato", (40 * 0.25 * 0.75 * 0.3 + 60 * (2 / 3) * (1 / 3) * 0.2) / (40 * 0.25 * 0.75 + 60 * 2 / 9)),
    ],
)
@pytest.mark.parametrize("wrong", ["nothing", "outcome", "propensity"])
def test_each_estimand_on_a_table_by_hand(estimand: str, by_hand: float, wrong: str) -> None:
    t, y, e, m0, m1 = table()
    if wrong == "outcome":
        m0, m1 = m0 * 0 + 0.7, m1 * 0 - 0.2
    if wrong == "propensity" and estimand != "ato":
        e = np.full_like(e, 0.5)
    assert value(scores.SCORES[estimand](t, y, e, m0, m1)) == pytest.approx(by_hand, abs=1e-12)


def test_the_share_of_clicks_that_would_have_happened_anyway() -> None:
    t, y, e, m0, m1 = table()
    clicks_untreated = (10 * 0.1 + 40 * 0.3) / 50
    assert value(scores.share_anyway(t, y, e, m0, m1)) == pytest.approx(
        clicks_untreated / (24 / 50), abs=1e-12
    )


def test_the_propensity_of_the_treated_is_not_used_by_the_att() -> None:
    t, y, e, m0, m1 = sample()
    elsewhere = np.where(t == 1, 0.5, e)
    np.testing.assert_array_equal(
        scores.aipw_att(t, y, e, m0, m1)[0], scores.aipw_att(t, y, elsewhere, m0, m1 + 9)[0]
    )


def test_hajek_is_the_difference_of_normalised_weighted_means() -> None:
    t, y, e, m0, m1 = sample()
    by_hand = np.average(y, weights=t / e) - np.average(y, weights=(1 - t) / (1 - e))
    assert scores.hajek(t, y, e, m0, m1)[0].mean() == pytest.approx(by_hand, abs=1e-12)
    np.testing.assert_allclose(
        scores.hajek(t, y + 5, e, m0, m1)[0], scores.hajek(t, y, e, m0, m1)[0], atol=1e-9
    )


def test_the_naive_difference_weighs_rows_as_if_they_were_repeated() -> None:
    t, y, *_ = sample(60)
    w = np.arange(60) % 3 + 1.0
    repeated = np.repeat(np.arange(60), w.astype(int))
    weighted = scores.clustered_ratio(scores.difference_in_means(t, y, w), np.arange(60), None, w)
    rows = scores.clustered_ratio(scores.difference_in_means(t[repeated], y[repeated]), repeated)
    assert weighted.value == pytest.approx(rows.value, abs=1e-12)
    assert weighted.std_error == pytest.approx(rows.std_error, rel=1e-9)


def test_ess_counts_equal_weights_and_ignores_their_scale() -> None:
    w = np.random.default_rng(0).exponential(size=50)
    assert scores.ess(np.full(7, 0.3)) == pytest.approx(7)
    assert scores.ess(np.array([1.0, 0, 0])) == 1
    assert scores.ess(1e6 * w) == pytest.approx(scores.ess(w))
    assert 1 < scores.ess(w) < 50
    assert scores.ess(np.zeros(3)) == 0


def test_clustered_errors_are_those_of_an_intercept_only_regression() -> None:
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(2)
    units = rng.integers(0, 40, 300)
    y = rng.standard_normal(300) + rng.standard_normal(40)[units]
    ours = scores.clustered_ratio((y, np.ones(300)), units)
    ols = sm.OLS(y, np.ones(300)).fit(cov_type="cluster", cov_kwds={"groups": units}, use_t=True)
    assert ours.std_error == pytest.approx(ols.bse[0], rel=1e-9)
    assert (ours.ci_lower, ours.ci_upper) == pytest.approx(tuple(ols.conf_int()[0]), rel=1e-9)
    assert ours.p_value == pytest.approx(ols.pvalues[0], rel=1e-6)


def test_weighted_clustered_errors_are_those_of_weighted_least_squares() -> None:
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(3)
    units, y, w = rng.integers(0, 30, 200), rng.standard_normal(200), rng.exponential(size=200)
    ours = scores.clustered_ratio((y, np.ones(200)), units, None, w)
    wls = sm.WLS(y, np.ones(200), weights=w).fit(cov_type="cluster", cov_kwds={"groups": units}, use_t=True)
    assert ours.value == pytest.approx(wls.params[0])
    assert ours.std_error == pytest.approx(wls.bse[0], rel=1e-9)


def test_every_row_its_own_cluster_is_the_textbook_error() -> None:
    y = np.random.default_rng(0).standard_normal(80)
    one = scores.clustered_ratio((y, np.ones(80)), np.arange(80))
    assert one.std_error == pytest.approx(y.std(ddof=1) / np.sqrt(80), rel=1e-12)
    assert one.n_clusters == 80


def test_two_way_errors_have_the_one_way_ones_as_limits() -> None:
    rng = np.random.default_rng(4)
    phi = rng.standard_normal(200)
    units, alone = rng.integers(0, 20, 200), np.arange(200)
    one_way = scores.cluster_variance(phi, units)[0]
    assert scores.two_way_variance(phi, units, units)[0] == pytest.approx(one_way)
    assert scores.two_way_variance(phi, units, alone)[0] == pytest.approx(
        max(one_way, scores.cluster_variance(phi, alone)[0])
    )
    items = rng.integers(0, 15, 200)
    both, count = scores.two_way_variance(phi, units, items)
    assert both >= max(one_way, scores.cluster_variance(phi, items)[0])
    assert count == 15


def test_two_way_errors_cover_when_rows_share_users_and_items() -> None:
    covered = {"both": 0, "users": 0}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        units, items = rng.integers(0, 40, 600), rng.integers(0, 40, 600)
        y = rng.standard_normal(600) + rng.standard_normal(40)[units] + rng.standard_normal(40)[items]
        pair = (y, np.ones(600))
        for name, found in (
            ("both", scores.clustered_ratio(pair, units, items)),
            ("users", scores.clustered_ratio(pair, units)),
        ):
            covered[name] += found.ci_lower <= 0 <= found.ci_upper
    assert covered["both"] >= 179  # binomial(200, .95), 0.1 % quantile
    assert covered["users"] < 175


def test_the_influence_function_is_the_jackknife() -> None:
    t, y, e, m0, m1 = sample(400)
    a, b = scores.aipw_att(t, y, e, m0, m1)
    w = np.random.default_rng(1).exponential(size=400)
    theta, phi = scores.ratio_influence(a, b, w)
    without = np.array([value((np.delete(w * a, i), np.delete(w * b, i))) for i in range(400)])
    np.testing.assert_allclose(399 * (theta - without), phi, rtol=0.05, atol=0.05)
    assert abs(phi.mean()) < 1e-12


def test_no_variation_has_no_p_value() -> None:
    flat = scores.clustered_ratio((np.ones(10), np.ones(10)), np.arange(10))
    assert (flat.value, flat.std_error) == (1, 0)
    assert np.isnan(flat.p_value)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_estimates_ignore_order_names_and_the_scale_of_weights(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    n = 60
    a, w, units, items = (
        rng.standard_normal(n),
        rng.exponential(size=n) + 0.01,
        rng.integers(0, 12, n),
        rng.integers(0, 9, n),
    )
    b = rng.random(n) + 0.1
    first = scores.clustered_ratio((a, b), units, items, w)
    p, names = rng.permutation(n), rng.permutation(12)
    second = scores.clustered_ratio((a[p], b[p]), names[units[p]], items[p], scale * w[p])
    for name in ("value", "std_error", "ci_lower", "ci_upper", "p_value"):
        assert getattr(second, name) == pytest.approx(getattr(first, name), rel=1e-8, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_splitting_the_rows_of_a_user_changes_nothing(seed: int) -> None:
    """A row of weight 3 is three rows of weight 1 of the same user."""
    rng = np.random.default_rng(seed)
    a, b, units, times = (
        rng.standard_normal(30),
        rng.random(30) + 0.1,
        rng.integers(0, 8, 30),
        rng.integers(1, 4, 30),
    )
    whole = scores.clustered_ratio((a, b), units, None, times.astype(float))
    split = np.repeat(np.arange(30), times)
    parts = scores.clustered_ratio((a[split], b[split]), units[split])
    assert parts.value == pytest.approx(whole.value, rel=1e-9)
    assert parts.std_error == pytest.approx(whole.std_error, rel=1e-9)


def test_an_interval_that_allows_for_bias_covers_the_worst_of_it_and_shrinks_to_the_plain_one() -> None:
    assert scores.folded_quantile(0.0, 0.95) == pytest.approx(1.959964, abs=1e-5)
    assert scores.folded_quantile(5.0, 0.95) == pytest.approx(5 + 1.644854, abs=1e-4)  # one tail only
    rng = np.random.default_rng(0)
    drawn = np.abs(1.0 + rng.standard_normal(400_000))
    assert scores.folded_quantile(1.0, 0.95) == pytest.approx(np.quantile(drawn, 0.95), abs=0.01)
    influence, units = rng.standard_normal(2_000), np.arange(2_000)
    influence -= influence.mean()
    plain = scores.estimate_of(0.1, influence, units)
    some = [scores.estimate_of(0.1, influence, units, bias=b) for b in (0.0, 1e-9, 0.01, 0.05)]
    assert some[0] == plain
    assert some[1].ci_upper == pytest.approx(plain.ci_upper, abs=1e-6)
    assert [e.std_error for e in some] == [plain.std_error] * 4
    assert np.all(np.diff([e.ci_upper for e in some]) >= 0)
    assert np.all(np.diff([e.p_value for e in some]) >= -1e-12)


@given(st.floats(0.0, 3.0), st.floats(-0.2, 0.2))
@settings(max_examples=30, deadline=None)
def test_the_p_value_under_bias_agrees_with_the_interval(bias: float, value: float) -> None:
    influence = np.tile([1.0, -1.0], 1_000)
    e = scores.estimate_of(value, influence, np.arange(2_000), bias=bias * 0.0223)
    if abs(e.p_value - 0.05) > 0.002:
        assert (e.p_value < 0.05) == (not e.ci_lower <= 0 <= e.ci_upper)
