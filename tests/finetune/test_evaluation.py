"""Values off policy: right where either the propensity or the outcome model is; the choice does not know what was shown."""

from __future__ import annotations

import numpy as np
import pytest

from causalrec.finetune.evaluation import auc, chosen, evaluate, first_of_each, ndcg_by_user, values
from causalrec.finetune.labels import Labels
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


def test_a_value_that_cannot_be_is_said() -> None:
    """Clicks divided by an examination that is far too small are worth more than one click an impression."""
    from dataclasses import replace

    f, r, _ = drawn(990_000, 5, None)
    assert not any("cannot be" in note for note in evaluate(f, r, None).notes)
    wrong = evaluate(f, replace(r, y=r.y / 0.1, m1=r.m1 / 0.1), None)
    assert "more than once, which cannot be" in wrong.summary()


def test_the_choice_does_not_know_what_was_shown() -> None:
    from dataclasses import replace

    f, r, _ = drawn(990_000, 5, None)
    np.testing.assert_array_equal(chosen(f, r), chosen(f, replace(r, t=1 - r.t)))


def test_first_of_each_takes_the_best_of_every_user() -> None:
    f, units = np.array([0.1, 0.9, 0.5, 2.0, 1.0]), np.array([0, 0, 0, 1, 1])
    np.testing.assert_array_equal(first_of_each(f, np.array([0.5, 0.5, 1.0, 0.2, 0.2]), units), [0, 1, 1, 0, 0])


def test_ndcg_and_auc_are_their_definitions() -> None:
    f, gain, units = np.array([3.0, 2.0, 1.0, 0.0]), np.array([0.0, 1.0, 1.0, 0.0]), np.zeros(4, dtype=int)
    best = 1 + 1 / np.log2(3)
    assert ndcg_by_user(f, gain, units, 3)[0] == pytest.approx((1 / np.log2(3) + 1 / 2) / best)
    assert auc(f, gain) == pytest.approx(auc(f, gain, np.ones(4))) == pytest.approx(0.5)
