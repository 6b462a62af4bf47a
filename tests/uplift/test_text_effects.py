from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causalrec.uplift.shrinkage import shrink
from causalrec.uplift.text_effects import Items, fit_text_effects, item_means, kernel, unit_rows

F64 = npt.NDArray[np.float64]


def items_of(seed: int, signal: float, u: int = 120, noise: float = 0.02) -> tuple[Items, F64]:
    """Items on a circle whose effect goes with the angle."""
    rng = np.random.default_rng(seed)
    angle = rng.random(u) * np.pi
    z = np.column_stack([np.cos(angle), np.sin(angle), 0 * angle])
    effect = 0.1 + signal * np.cos(angle)
    variance = noise / rng.integers(1, 9, u)
    return Items(z, effect + rng.standard_normal(u) * np.sqrt(variance), variance, 1 / variance), effect


def test_the_posterior_is_that_of_a_gaussian_process() -> None:
    items, _ = items_of(0, 0.3, u=40)
    found = fit_text_effects(items)
    assert found.signal > 0
    k = found.signal * kernel(items.z, items.z, found.length)
    d = np.diag(items.noise + found.nugget)
    new = unit_rows(np.random.default_rng(1).standard_normal((7, 3)))
    cross = found.signal * kernel(new, items.z, found.length)
    solved = np.linalg.inv(k + d)
    mean, variance = found.predict(new)
    np.testing.assert_allclose(mean, found.mean + cross @ solved @ (items.y - found.mean), atol=2e-3)
    exact = found.signal - np.sum(cross @ solved * cross, axis=1) + found.nugget + found.mean_variance
    np.testing.assert_allclose(variance, exact, rtol=0.02, atol=1e-5)


def test_effects_that_go_with_words_are_predicted_and_others_are_not() -> None:
    items, effect = items_of(2, 0.3)
    found = fit_text_effects(items)
    new, truth = items_of(3, 0.3)
    mean, _ = found.predict(new.z)
    assert np.mean((mean - truth) ** 2) < 0.05 * truth.var()
    flat = fit_text_effects(items_of(4, 0.0)[0])
    assert flat.signal + flat.nugget < 0.2 * effect.var()
    assert flat.mean == pytest.approx(0.1, abs=0.03)


def test_the_interval_widens_with_the_distance_from_what_was_seen() -> None:
    found = fit_text_effects(items_of(5, 0.3)[0])
    tilt = np.linspace(0, np.pi / 2, 6)
    away = np.column_stack([np.cos(tilt), 0 * tilt, np.sin(tilt)])
    variance, distance = found.predict(away)[1], found.distance(away)
    assert (np.diff(distance) > 0).all()
    assert (np.diff(variance) > -1e-9).all()
    assert variance[-1] > 2 * variance[0]
    assert variance[-1] <= found.signal + found.nugget + found.mean_variance + 1e-9
    assert distance[-1] == pytest.approx(np.sqrt(2))


def test_without_words_there_is_one_prediction() -> None:
    found = fit_text_effects(items_of(6, 0.3)[0], words=False)
    mean, variance = found.predict(np.eye(3))
    assert found.signal == 0
    np.testing.assert_allclose(mean, found.mean)
    np.testing.assert_allclose(variance, found.nugget + found.mean_variance)
    assert found.nugget > 0.01


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 9))
def test_item_means_by_hand_and_the_scale_of_weights_has_no_say(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    codes = np.concatenate([np.arange(5), rng.integers(0, 5, 35)])
    psi, w, z = rng.standard_normal(40), rng.random(40) + 0.1, rng.standard_normal((5, 2))
    found, again = item_means(psi, w, codes, z), item_means(psi, scale * w, codes, z)
    for k in range(5):
        assert found.y[k] == pytest.approx(np.average(psi[codes == k], weights=w[codes == k]))
    np.testing.assert_allclose(found.noise, again.noise)
    np.testing.assert_allclose(np.linalg.norm(found.z, axis=1), 1)
    equal = item_means(psi, np.ones(40), codes, z)
    np.testing.assert_allclose(equal.n, np.bincount(codes))
    rest = psi - equal.y[codes]
    np.testing.assert_allclose(equal.noise, (rest**2).sum() / 35 / equal.n)


def test_items_shown_once_have_the_noise_of_the_scores() -> None:
    psi = np.random.default_rng(0).standard_normal(60)
    found = item_means(psi, np.ones(60), np.arange(60), np.eye(60))
    np.testing.assert_allclose(found.noise, psi.var())


def test_shrunken_effects_of_independent_groups_by_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    values = 0.2 + 0.3 * rng.standard_normal(200) + 0.1 * rng.standard_normal(200)
    centre, lower, upper = shrink(values, 0.01 * np.eye(200))
    a = values.var() - 0.01
    np.testing.assert_allclose(centre, values.mean() + a / (a + 0.01) * (values - values.mean()), atol=2e-3)
    np.testing.assert_allclose(upper - lower, 2 * 1.96 * np.sqrt(a * 0.01 / (a + 0.01)), rtol=0.02)


def test_groups_that_noise_tells_apart_are_drawn_together() -> None:
    values, spread = np.array([0.1, 0.3, 0.2]), 0.04 * np.eye(3)
    centre, lower, upper = shrink(values, spread)
    np.testing.assert_allclose(centre, 0.2)
    np.testing.assert_allclose(upper - lower, 2 * 1.96 * np.sqrt(0.04 / 3))
    alone = shrink(values[:1], spread[:1, :1])
    assert alone[0][0] == 0.1
    assert alone[2][0] - alone[1][0] == pytest.approx(2 * 1.96 * 0.2)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_shrinking_keeps_the_order_within_one_precision_and_the_range(seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal(6)
    centre, lower, upper = shrink(values, 0.3 * np.eye(6))
    assert (centre[np.argsort(values)][1:] >= centre[np.argsort(values)][:-1] - 1e-12).all()
    assert values.min() - 1e-9 <= centre.min() <= centre.max() <= values.max() + 1e-9
    assert ((lower <= centre) & (centre <= upper)).all()
