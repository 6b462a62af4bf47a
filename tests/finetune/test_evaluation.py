"""Values off policy: right where either the propensity or the outcome model is; the choice does not know what was shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from causalrec.finetune import risk
from causalrec.finetune.evaluation import evaluate
from causalrec.finetune.labels import Labels
from causalrec.finetune.looked_at import CurveError
from causalrec.finetune.objectives import pairwise_loss
from causalrec.finetune.policy_value import chosen, first_of_each, values
from causalrec.finetune.ranking import auc, ndcg_by_user
from causalrec.finetune.risk import pair_losses, pair_masses, risk_difference, risks
from causalrec.nuisance import Clip


def drawn(seed: int, rows: int, outcome_model: float | None, users: int = 800) -> tuple[np.ndarray, Labels, np.ndarray]:
    """Scores, labels and P(Y(1)) of rows shown independently; m₁ is the truth, or a constant."""
    rng = np.random.default_rng(seed)
    units = np.repeat(np.arange(users), rows)
    x = rng.standard_normal(len(units))
    p1, e = 1 / (1 + np.exp(-x)), 0.1 + 0.6 / (1 + np.exp(-x))
    t = (rng.random(len(x)) < e).astype(float)
    y = (rng.random(len(x)) < p1) * t
    m1 = p1 if outcome_model is None else np.full(len(x), outcome_model)
    return 0.5 * x + rng.standard_normal(len(x)), Labels(t, y, e, np.full(len(x), np.nan), m1, units, None, Clip(0.01), True), p1


@pytest.mark.parametrize("rows", [2, 5, 10])
@pytest.mark.parametrize("outcome_model", [None, 0.0, 0.5])
def test_the_value_is_right_at_true_propensities_whatever_the_outcome_model(rows: int, outcome_model: float | None) -> None:
    z = []
    for seed in range(60):
        f, r, p1 = drawn(990_000 + seed, rows, outcome_model)
        v = values(f, r)["value"]
        z.append((v.value - np.average(p1, weights=chosen(f, r))) / v.std_error)
    assert abs(np.mean(z)) < 4 / np.sqrt(60)
    assert np.std(z) < 1.35


def test_the_errors_hold_those_of_an_estimated_curve() -> None:
    """Clicks are divided by a curve that is off by its own errors: the interval of the value has to know of them, and a given curve has none."""
    spread = np.array([[0.0, 0.0, 0.0], [0.0, 0.02, 0.01], [0.0, 0.01, 0.03]])
    root, z, without = np.linalg.cholesky(spread[1:, 1:]), [], []
    for seed in range(60):
        f, r, p1 = drawn(990_000 + seed, 5, None)
        rng = np.random.default_rng(seed)
        at = np.where(r.t == 1, rng.integers(0, 3, len(r)), -1)
        theta, wrong = np.array([1.0, 0.6, 0.4]), np.exp(np.r_[0.0, root @ rng.standard_normal(2)])
        seen = r.y * (rng.random(len(r)) < theta[at])
        r = replace(r, y=np.where(r.t == 1, seen / (theta * wrong)[at], 0.0))
        truth = np.average(p1, weights=chosen(f, r))
        found = values(f, replace(r, curve_error=CurveError(at, spread)))["value"]
        plain = values(f, r)["value"]
        assert found.value == plain.value
        assert found.std_error > plain.std_error
        z.append((found.value - truth) / found.std_error)
        without.append((plain.value - truth) / plain.std_error)
    assert np.std(z) < 1.35
    assert np.std(without) > 1.5


def test_the_slope_of_the_curve_is_a_derivative() -> None:
    """Of values and of risks; the outcome model stays as it is."""
    f, r, _ = drawn(990_001, 5, 0.4)
    at = np.where(r.t == 1, np.arange(len(r)) % 3, -1)
    covariance, h = np.zeros((3, 3)), 1e-5
    covariance[1, 1] = 0.04
    curve = CurveError(at, covariance)
    moved = replace(r, y=r.y * np.where(at == 1, np.exp(-h), 1.0))
    given = replace(r, curve_error=curve)
    for of in (values, risks):
        for name, found in of(f, given).items():
            change = (of(f, moved)[name].value - of(f, r)[name].value) / h
            beyond = found.std_error**2 - of(f, r)[name].std_error ** 2
            assert beyond == pytest.approx(0.04 * change**2, rel=1e-3), name
    assert "hold those of the estimated P(examined)" in evaluate(f, given, None).summary()
    assert "P(examined)" not in evaluate(f, r, None).summary()


def test_a_value_that_cannot_be_is_said() -> None:
    """Clicks divided by an examination that is far too small are worth more than one click an impression."""
    f, r, _ = drawn(990_000, 5, None)
    assert not any("cannot be" in note for note in evaluate(f, r, None).notes)
    wrong = evaluate(f, replace(r, y=r.y / 0.1, m1=r.m1 / 0.1), None)
    assert "more than once, which cannot be" in wrong.summary()


def test_pairs_on_held_out_users_are_those_of_the_objective() -> None:
    """Rows by rows the loss of ``objectives.pairwise_loss`` at weight 1; its slopes by labels and by the curve are derivatives."""
    rng = np.random.default_rng(0)
    f, y, units = rng.standard_normal(40), rng.random(40), rng.integers(0, 9, 40)
    loss, slope = pair_losses(f, y, units)
    expected = pairwise_loss(*(torch.from_numpy(v) for v in (f, np.ones(40), y, units)))
    np.testing.assert_allclose(loss, expected.numpy())
    mass, of_mass = pair_masses(y, units)
    np.testing.assert_allclose(mass, pair_losses(np.zeros(40), y, units)[0] / np.log(2))
    for k in (3, 17):
        moved = y + 1e-6 * (np.arange(40) == k)
        assert (pair_losses(f, moved, units)[0].sum() - loss.sum()) / 1e-6 == pytest.approx(slope[k], rel=1e-4)
        assert (pair_masses(moved, units)[0].sum() - mass.sum()) / 1e-6 == pytest.approx(of_mass[k], rel=1e-4)


@pytest.mark.parametrize("at_once", [1, 50, 1_000])
def test_a_user_of_many_rows_is_read_in_slices(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    f, y, units = rng.standard_normal(70), rng.random(70), np.minimum(np.arange(70), 30) // 3
    whole = pair_losses(f, y, units)
    sizes: list[int] = []
    add = np.logaddexp
    monkeypatch.setattr(np, "logaddexp", lambda *given: sizes.append(np.size(given[1])) or add(*given))
    monkeypatch.setattr(risk, "AT_ONCE", at_once)
    for sliced, direct in zip(pair_losses(f, y, units), whole, strict=True):
        np.testing.assert_allclose(sliced, direct, rtol=1e-12, atol=1e-12)
    assert max(sizes) <= max(at_once, 40), "40 is one row of the largest user beside all of his"


def test_a_risk_is_of_what_the_score_is_for() -> None:
    f, r, p1 = drawn(990_000, 5, None)
    r = replace(r, m0=np.full(len(r), 0.1), y=np.where(r.t == 1, r.y, 0))
    for aims_at, pairwise, word in (("effect", False, "of the effect"), ("policy", False, "of the policy"), ("clicks", True, "nats a pair")):
        found = evaluate(f, r, None, (), aims_at, pairwise)
        assert set(found.risks) == set(found.risks_before) == {"DR"}
        assert word in found.summary()
        assert "risk by naive" not in found.summary()
    assert evaluate(f, r, None, (), "clicks", True).risks_before["DR"].value == pytest.approx(np.log(2))
    better = risk_difference(np.log(p1 / (1 - p1)), f, r, pairwise=True)
    assert better.ci_upper < 0


def test_the_choice_does_not_know_what_was_shown() -> None:
    f, r, _ = drawn(990_000, 5, None)
    np.testing.assert_array_equal(chosen(f, r), chosen(f, replace(r, t=1 - r.t)))


def test_first_of_each_takes_the_best_of_every_user() -> None:
    f, units = np.array([0.1, 0.9, 0.5, 2.0, 1.0]), np.array([0, 0, 0, 1, 1])
    np.testing.assert_allclose(first_of_each(f, np.array([0.5, 0.5, 1.0, 0.2, 0.2]), units), [0, 1, 1, 0.4, 0])
    np.testing.assert_allclose(first_of_each(np.array([1.0, 1.0, 0.0]), np.full(3, 0.5), np.zeros(3, dtype=int)), [0.75, 0.75, 0])
    np.testing.assert_allclose(first_of_each(f, np.full(5, 0.3), np.arange(5)), [0, 0, 0, 1, 0.5])


@given(st.integers(0, 2**31))
def test_the_choice_is_as_large_as_what_a_user_is_shown(seed: int) -> None:
    rng = np.random.default_rng(seed)
    units = np.sort(rng.integers(0, 6, 30))
    e, f = rng.random(30), rng.integers(0, 4, 30).astype(float)  # scores that tie
    pi = first_of_each(f, e, units)
    assert (pi >= 0).all()
    assert (pi <= 1 + 1e-12).all()
    np.testing.assert_allclose(np.bincount(units, pi), np.bincount(units, e), atol=1e-12)


def test_users_shown_half_a_row_do_not_move_the_gain() -> None:
    """Four rows a user at e = .1: a choice of whole rows would leave all of them out, and today's keeps them."""
    found = []
    for seed in range(40):
        rng = np.random.default_rng(990_000 + seed)
        size = np.r_[np.full(300, 4), np.full(200, 10)]
        units = np.repeat(np.arange(500), size)
        p = np.where(size == 4, 0.4, 0.1)[units]
        n, e = len(units), np.full(len(units), 0.1)
        t = (rng.random(n) < e).astype(float)
        y = (rng.random(n) < p) * t
        r = Labels(t, y, e, np.full(n, np.nan), p, units, None, Clip(0.01), True)
        found.append(values(rng.standard_normal(n), r)["gain"])
    z = np.array([g.value / g.std_error for g in found])
    assert abs(z.mean()) < 4 / np.sqrt(40)
    assert (np.abs(z) < 1.96).sum() >= 34


def test_ndcg_and_auc_are_their_definitions() -> None:
    f, gain, units = np.array([3.0, 2.0, 1.0, 0.0]), np.array([0.0, 1.0, 1.0, 0.0]), np.zeros(4, dtype=int)
    best = 1 + 1 / np.log2(3)
    assert ndcg_by_user(f, gain, units, 3)[0] == pytest.approx((1 / np.log2(3) + 1 / 2) / best)
    assert auc(f, gain) == pytest.approx(auc(f, gain, np.ones(4))) == pytest.approx(0.5)
