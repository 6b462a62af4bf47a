from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.special import expit
from scipy.stats import norm

from causalrec import scores
from causalrec.check.msm import (
    Sample,
    binary_bound,
    binary_tilt,
    continuous_tilt,
    excess,
    weighted_quantile,
)

F64 = npt.NDArray[np.float64]
CHANCE = st.floats(0.001, 0.999)
GAMMA = st.floats(1.0, 20.0)


def binary_sample(n: int, seed: int, gamma: float = 1.0) -> tuple[Sample, float, float]:
    """Clicks whose unobserved arms are as bad as Γ allows, with true nuisances; and E[Y(1) − Y(0)], E[the same | T = 1]."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n)
    e, m0, m1 = expit(0.7 * x), expit(0.5 * x - 1), expit(0.8 * x - 0.3)
    worst_1, worst_0 = binary_bound(m1, gamma), 1 - binary_bound(1 - m0, gamma)
    t = (rng.random(n) < e) * 1.0
    y = (rng.random(n) < np.where(t == 1, m1, m0)) * 1.0
    truth = e * (m1 - worst_0) + (1 - e) * (worst_1 - m0)
    sample = Sample(t, y, np.ones(n), e, m0, m1, rng.integers(0, 5, n), True, np.zeros((n, 0)))
    return sample, float(truth.mean()), float(np.average(m1 - worst_0, weights=e))


def ends(sample: Sample, estimand: str, gamma: float) -> tuple[scores.Estimate, scores.Estimate]:
    a, b = scores.SCORES[estimand](sample.t, sample.y, sample.e, sample.m0, sample.m1)
    rows = np.arange(len(a))
    low, high = (
        scores.clustered_ratio((a + more, b), rows, None, sample.w)
        for more in excess(sample, estimand, gamma)
    )
    return low, high


@settings(max_examples=40, deadline=None)
@given(CHANCE, GAMMA)
def test_the_closed_form_is_the_largest_reweighting(p: float, gamma: float) -> None:
    """max E[L Y] with 1/Γ ≤ L ≤ Γ and E[L] = 1, by linear programming."""
    found = linprog([-p, 0.0], A_eq=[[p, 1 - p]], b_eq=[1.0], bounds=[(1 / gamma, gamma)] * 2)
    assert binary_bound(np.array([p]), gamma)[0] == pytest.approx(-found.fun, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(CHANCE, GAMMA, st.sampled_from([-1.0, 1.0]))
def test_the_pseudo_outcome_has_the_bound_as_its_mean(p: float, gamma: float, sign: float) -> None:
    rows, means = binary_tilt(np.array([0.0, 1.0]), np.array([p, p]), gamma, sign)
    assert (1 - p) * rows[0] + p * rows[1] == pytest.approx(means[0], abs=1e-12)
    bound = binary_bound(np.array([p]), gamma) if sign > 0 else 1 - binary_bound(np.array([1 - p]), gamma)
    assert p + means[0] == pytest.approx(bound[0], abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(CHANCE, GAMMA, GAMMA)
def test_bounds_widen_with_gamma(p: float, one: float, other: float) -> None:
    narrow, wide = sorted((one, other))
    for sign in (-1.0, 1.0):
        near, far = (sign * binary_tilt(np.zeros(1), np.array([p]), g, sign)[1][0] for g in (narrow, wide))
        assert -1e-12 <= near <= far + 1e-12


@pytest.mark.parametrize("estimand", ["ate", "att"])
def test_the_bound_is_sharp_where_hidden_causes_do_their_worst(estimand: str) -> None:
    sample, ate, att = binary_sample(60_000, 1, gamma=1.8)
    high = ends(sample, estimand, 1.8)[1]
    truth = ate if estimand == "ate" else att
    assert abs(high.value - truth) < 4 * high.std_error
    assert high.std_error < 0.01
    assert ends(sample, estimand, 1.5)[1].value < truth - 4 * high.std_error


@pytest.mark.parametrize(("wrong", "slack"), [("outcome", 0.05), ("propensity", 0.01)])
def test_one_wrong_nuisance_leaves_the_bound_valid_and_near(wrong: str, slack: float) -> None:
    """With wrong outcome means the quantile is wrong too, so that the bound may be too wide, never too narrow."""
    sample, truth, _ = binary_sample(100_000, 2, gamma=1.5)
    level = np.ones(len(sample.y))
    e_only = replace(sample, m0=0.2 * level, m1=0.3 * level)
    high = ends(replace(sample, e=0.5 * level) if wrong == "propensity" else e_only, "ate", 1.5)[1]
    assert truth - 4 * high.std_error < high.value < truth + slack


def test_the_intervals_of_the_ends_hold_the_set() -> None:
    """One-sided 97.5 %, 300 logs."""
    truth = np.mean([binary_sample(50_000, s, 2.0)[1] for s in range(20)])
    held = [ends(binary_sample(1_000, s, 2.0)[0], "ate", 2.0)[1].ci_upper >= truth for s in range(300)]
    assert 0.95 <= np.mean(held) <= 0.995


def normal_sample(n: int, seed: int) -> Sample:
    """Y(t) normal with a spread that goes with x; true means and propensity."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n)
    e, m0, m1, spread = expit(0.5 * x), x, 1 + 2 * x, 1 + 0.5 * (x > 0)
    t = (rng.random(n) < e) * 1.0
    y = np.where(t == 1, m1, m0) + spread * rng.standard_normal(n)
    return Sample(t, y, np.ones(n), e, m0, m1, rng.integers(0, 3, n), False, (x > 0).astype(float)[:, None])


@pytest.mark.parametrize("gamma", [1.0, 1.5, 4.0])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_the_tail_of_a_normal_outcome(gamma: float, sign: float) -> None:
    """ρ − m = ± s (1 − 1/Γ)(1 + Γ) φ(z),  z the normal quantile at Γ/(1 + Γ)."""
    sample = normal_sample(30_000, 0)
    rows, means = continuous_tilt(sample, 1, gamma, sign)
    wide = sample.basis[:, 0] == 1
    unit = sign * (1 - 1 / gamma) * (1 + gamma) * norm.pdf(norm.ppf(gamma / (1 + gamma)))
    for here, s in ((wide, 1.5), (~wide, 1.0)):
        assert means[here].mean() == pytest.approx(s * unit, abs=0.07)
        assert rows[here & (sample.t == 1)].mean() == pytest.approx(s * unit, abs=0.1)


def test_a_wrong_spread_only_widens_the_bound() -> None:
    sample = normal_sample(30_000, 3)
    blind = replace(sample, basis=np.zeros((30_000, 0)))
    for estimand in ("ate", "att"):
        fine, rough = ends(sample, estimand, 3.0), ends(blind, estimand, 3.0)
        assert rough[1].value > fine[1].value - 0.01
        assert rough[0].value < fine[0].value + 0.01


@settings(max_examples=10, deadline=None)
@given(st.floats(0.01, 1000), st.floats(-50, 50), st.sampled_from([1.3, 3.0]))
def test_units_and_sign_of_a_continuous_outcome(scale: float, shift: float, gamma: float) -> None:
    s = normal_sample(400, 5)
    low, high = excess(s, "ate", gamma)
    moved = replace(s, y=scale * s.y + shift, m0=scale * s.m0 + shift, m1=scale * s.m1 + shift)
    turned = replace(s, y=-s.y, m0=-s.m0, m1=-s.m1)
    for found, expected in (
        (excess(moved, "ate", gamma), (scale * low, scale * high)),
        (excess(turned, "ate", gamma), (-high, -low)),
    ):
        np.testing.assert_allclose(found[0], expected[0], atol=1e-6 * scale)
        np.testing.assert_allclose(found[1], expected[1], atol=1e-6 * scale)


def test_two_values_as_numbers_have_the_bounds_of_clicks_or_wider() -> None:
    sample = binary_sample(30_000, 7)[0]
    as_number = replace(sample, binary=False)
    for gamma in (1.5, 3.0):
        click, number = ends(sample, "ate", gamma), ends(as_number, "ate", gamma)
        assert number[1].value > click[1].value - 2 * click[1].std_error
        assert number[0].value < click[0].value + 2 * click[0].std_error
        assert number[1].value < click[1].value + 0.1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(1, 4)), min_size=1, max_size=20), CHANCE)
def test_the_weighted_quantile_is_that_of_repeated_values(
    pairs: list[tuple[float, int]], level: float
) -> None:
    x, w = (np.array(v, dtype=float) for v in zip(*pairs, strict=True))
    long = np.sort(np.repeat(x, w.astype(int)))
    at = min(int(np.ceil(level * len(long) - 1e-9)) - 1, len(long) - 1)
    assert weighted_quantile(x, w, level) == long[max(at, 0)]
