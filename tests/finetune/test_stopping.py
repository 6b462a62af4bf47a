"""The rule that stops a run: the latest state that is not shown to be worse."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from causalrec.finetune.stopping import Latest


def losses(seed: int, shift: float, n: int = 4_000) -> np.ndarray:
    return np.random.default_rng(seed).exponential(size=n) + shift


UNITS = np.arange(4_000) // 4


def test_a_lucky_early_state_does_not_win() -> None:
    rule = Latest()
    assert rule.order(losses(0, -0.01), UNITS) == -1
    assert rule.order(losses(1, 0.0), UNITS) == -2
    assert rule.order(losses(2, -0.02), UNITS) == -3


def test_a_state_that_is_shown_to_be_worse_is_not_kept_and_a_good_one_after_it_is() -> None:
    rule, noise = Latest(), losses(0, 0.0)
    assert rule.order(noise, UNITS) == -1
    assert rule.order(noise + 0.01 * losses(1, 0.0), UNITS) == 1
    assert rule.order(noise - 0.001, UNITS) == -2
    np.testing.assert_allclose(rule.lowest, np.bincount(UNITS, noise - 0.001))


def test_users_are_what_varies_not_rows() -> None:
    """A rise that 4,000 independent rows would show, but which comes from 20 users."""
    users = np.arange(4_000) // 200
    base, rise = np.ones(4_000), np.random.default_rng(3).standard_normal(20)[users]
    rise += 0.06 - rise.mean()
    alone, together = Latest(), Latest()
    for loss in (base, base + rise):
        by_row, by_user = alone.order(loss, np.arange(4_000)), together.order(loss, users)
    assert (by_row, by_user) == (1, -2)


def test_what_is_not_finite_is_never_kept_and_one_user_has_no_doubt() -> None:
    rule, spoilt = Latest(), losses(0, 0.0)
    spoilt[7] = np.nan
    assert rule.order(spoilt, UNITS) == 1
    assert rule.lowest is None
    assert rule.order(losses(0, 0.0), UNITS) == -1
    assert rule.order(spoilt, UNITS) == 1
    alone, one = Latest(), np.zeros(4, dtype=int)
    assert [alone.order(np.full(4, v), one) for v in (1.0, 1.5, 0.5)] == [-1, 1, -2]


def test_the_rule_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    one, other = Latest(), Latest()
    one.order(losses(0, 0.0), UNITS)
    one.save(tmp_path)
    other.load(tmp_path)
    for seed, shift in ((1, 0.0), (2, 0.3), (3, -0.1)):
        assert one.order(losses(seed, shift), UNITS) == other.order(losses(seed, shift), UNITS)
    fresh = Latest()
    fresh.load(tmp_path / "nothing")
    assert fresh.lowest is None
