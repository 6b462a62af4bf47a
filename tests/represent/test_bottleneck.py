from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from causalrec.errors import ArgumentError, RepresentationError
from causalrec.represent.bottleneck import _Objective, _start, fit_bottleneck
from causalrec.represent.counts import TextCounts, nuisance_loss

U, D = 600, 20
VALUES = np.random.default_rng(0).standard_normal((U, D)).astype(np.float32)
SIGNAL = 1.5 * np.tanh(VALUES[:, 0] + VALUES[:, 1])
KEYS = [f"text {i}" for i in range(U)]


def draw(signal: np.ndarray, rows: int = 8, seed: int = 1, texts: int = U) -> TextCounts:
    """Counts of `rows` rows a text; exposure follows the signal, clicks its negative."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(texts), rows)
    t = rng.random(len(codes)) < expit(signal[codes])
    y = rng.random(len(codes)) < expit(-1 - signal[codes] + 0.5 * t)
    return TextCounts.of(codes, t.astype(float), y.astype(float), np.ones(len(codes)), U)


def constants(counts: TextCounts) -> float:
    return nuisance_loss(np.tile(counts.constants, (U, 1)), counts)


def test_rows_are_counted_by_text_arm_and_click() -> None:
    counts = TextCounts.of(
        np.array([0, 0, 0, 2]),
        np.array([1.0, 1, 0, 0]),
        np.array([1.0, 0, 1, 0]),
        np.array([1.0, 2, 1, 1]),
        3,
    )
    assert counts.totals.tolist() == [[4, 1, 3], [0, 0, 0], [1, 1, 0]]
    assert counts.successes.tolist() == [[3, 1, 1], [0, 0, 0], [0, 0, 0]]


def test_the_loss_is_the_mean_log_loss_of_rows() -> None:
    rng = np.random.default_rng(0)
    codes, t, y = rng.integers(0, 5, 50), rng.integers(0, 2, 50), rng.integers(0, 2, 50)
    z = rng.standard_normal((5, 3))
    counts = TextCounts.of(codes, t.astype(float), y.astype(float), np.ones(50), 5)
    p = expit(z[codes])
    chance = np.where(t == 1, p[:, 0], 1 - p[:, 0]) * np.where(
        y == 1, p[np.arange(50), 1 + t], 1 - p[np.arange(50), 1 + t]
    )
    assert nuisance_loss(z, counts) == pytest.approx(-np.log(chance).mean())


def test_what_cannot_be_counted_is_refused() -> None:
    one = np.ones(3)
    with pytest.raises(ArgumentError, match="contradictory for 3 of 3"):
        TextCounts(one, 2 * one, 0 * one, 0 * one)
    with pytest.raises(ArgumentError, match="shapes"):
        TextCounts(one, np.ones(2), one, one)


def test_the_gradient_is_that_of_the_loss() -> None:
    counts = draw(SIGNAL)
    objective = _Objective(VALUES, counts.totals, counts.successes, 3)
    start = _start(D, 3, counts.constants, 0) + 0.1
    gradient = objective(start, 2.0)[1]
    for direction in np.random.default_rng(5).standard_normal((5, len(start))):
        up, down = (objective(start + step * direction, 2.0)[0] for step in (1e-3, -1e-3))
        assert gradient @ direction == pytest.approx((up - down) / 2e-3, rel=1e-3, abs=0.5)


def test_it_finds_what_acts_and_predicts_texts_without_rows() -> None:
    fitted = fit_bottleneck(VALUES, draw(SIGNAL, texts=400), width=4, keys=KEYS)
    z = fitted.predict(VALUES)
    assert z.shape == (U, 3)
    assert fitted.embed(VALUES).shape == (U, 4)
    new = slice(400, None)
    assert np.corrcoef(z[new, 0], SIGNAL[new])[0, 1] > 0.9
    assert np.corrcoef(z[new, 1], -SIGNAL[new])[0, 1] > 0.8
    assert np.corrcoef(z[new, 2], -SIGNAL[new])[0, 1] > 0.8


def test_noise_is_not_learnt() -> None:
    fresh = draw(np.zeros(U), seed=9)
    fitted = fit_bottleneck(VALUES, draw(np.zeros(U)), keys=KEYS)
    assert nuisance_loss(fitted.predict(VALUES), fresh) > constants(fresh) - 0.002
    assert nuisance_loss(fitted.predict(VALUES), fresh) < constants(fresh) + 0.02


def test_held_out_rows_choose_and_do_not_train() -> None:
    train, held = draw(SIGNAL, seed=2), draw(SIGNAL, seed=3)
    fitted = fit_bottleneck(VALUES, train, holdout=held)
    assert fitted.held_out[fitted.penalty] == min(fitted.held_out.values())
    assert nuisance_loss(fitted.predict(VALUES), held) == pytest.approx(
        fitted.held_out[fitted.penalty], abs=1e-4
    )
    assert nuisance_loss(fitted.predict(VALUES), held) < constants(held) - 0.05


def test_the_order_of_the_texts_has_no_say() -> None:
    counts = draw(SIGNAL)
    order = np.random.default_rng(4).permutation(U)
    first = fit_bottleneck(VALUES, counts, keys=KEYS, penalties=(4.0,))
    turned = fit_bottleneck(VALUES[order], counts.at(order), keys=[KEYS[i] for i in order], penalties=(4.0,))
    assert np.allclose(turned.predict(VALUES), first.predict(VALUES), atol=0.05)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"width": 0}, "width"),
        ({"penalties": ()}, "penalties"),
        ({"holdout": 1.0}, "holdout"),
        ({"penalties": (-1.0,)}, "penalties"),
    ],
)
def test_settings_out_of_bounds_are_refused(wrong: dict[str, object], what: str) -> None:
    with pytest.raises(ArgumentError, match=what):
        fit_bottleneck(VALUES, draw(SIGNAL), **wrong)  # type: ignore[arg-type]


def test_too_few_texts_and_other_texts_are_refused() -> None:
    with pytest.raises(RepresentationError, match="must be >= 4"):
        fit_bottleneck(VALUES, draw(SIGNAL, texts=3))
    with pytest.raises(RepresentationError, match="have rows, must be >= 2"):
        fit_bottleneck(VALUES, draw(SIGNAL, texts=1))
    with pytest.raises(RepresentationError, match="has 600 texts, must have 599"):
        fit_bottleneck(VALUES[1:], draw(SIGNAL))
