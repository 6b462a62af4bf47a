"""Calibration of propensities: the error is what it should be, scaling repairs what it can, and no user scales himself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit

from causalrec.errors import ArgumentError, EstimationError
from causalrec.finetune.calibration import (
    debiased_calibration_error,
    equal_mass_bins,
    expected_calibration_error,
    platt_cross_fitted,
)


def draw(seed: int, n: int = 6000, users: int = 300, slope: float = 1.0, shift: float = 0.0) -> tuple[Any, Any, Any]:
    """Propensities whose log-odds are `slope` times too extreme, treatments at the true ones, users."""
    rng = np.random.default_rng(seed)
    eta = rng.normal(-1, 1, n)
    t = (rng.random(n) < expit(eta)).astype(float)
    return expit(shift + slope * eta), t, rng.integers(0, users, n)


def test_ece_by_hand() -> None:
    p = np.array([0.1, 0.1, 0.3, 0.3, 0.6, 0.6, 0.9, 0.9])
    t = np.array([0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0])
    assert expected_calibration_error(p, t, bins=4) == pytest.approx((0.1 + 0.2 + 0.1 + 0.1) / 4)
    assert equal_mass_bins(p, 4).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert equal_mass_bins(np.full(5, 0.5), 10).tolist() == [0] * 5


def test_debiased_error_is_nought_where_the_plain_one_is_noise() -> None:
    plain, debiased = [], []
    for seed in range(40):
        p, t, _ = draw(seed, n=1000)
        plain.append(expected_calibration_error(p, t))
        debiased.append(debiased_calibration_error(p, t))
    assert np.mean(plain) > 0.02
    assert np.median(debiased) < 0.012


def test_scaling_repairs_propensities_that_are_too_extreme() -> None:
    found = platt_cross_fitted(*draw(1, slope=2.5, shift=0.7), random_state=0)
    assert found.ece_before > 0.1
    assert found.ece_before_ci[0] > 0.08
    assert found.ece_after < 0.02
    assert found.rms_after < 0.02
    assert found.log_loss_after < found.log_loss_before
    assert found.slope == pytest.approx(np.full(5, 0.4), abs=0.04)
    truth = expit((logit(found.before) - 0.7) / 2.5)
    assert np.abs(found.after - truth).max() < 0.03


def test_calibrated_propensities_stay() -> None:
    found = platt_cross_fitted(*draw(2), random_state=0)
    assert np.abs(found.after - found.before).max() < 0.04
    assert found.ece_before_ci[0] < 0.005


def test_no_user_scales_himself() -> None:
    """One user's treatments turned round change the others' propensities and not his own."""
    p, t, units = draw(3, users=40)
    mine = units == 7
    turned = np.where(mine, 1 - t, t)
    one, other = (platt_cross_fitted(p, v, units, random_state=0).after for v in (t, turned))
    assert np.array_equal(one[mine], other[mine])
    assert not np.array_equal(one[~mine], other[~mine])


def test_the_same_seed_the_same_numbers_and_a_readable_result() -> None:
    one, other = (platt_cross_fitted(*draw(4, slope=2), random_state=5) for _ in range(2))
    assert one.summary() == other.summary()
    assert one.table == other.table
    assert "as handed in" in one.summary()
    assert "Platt-scaled" in one._repr_html_()
    assert list(one.to_frame()["ece"]) == [one.ece_before, one.ece_after]
    rows = [r for r in one.table if r["propensity"] == "as handed in"]
    assert sum(r["rows"] for r in rows) == one.n


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"p": np.array([0.5, 1.2, 0.4, 0.4])}, ArgumentError, "p is 1.2 in 1 of 4"),
        ({"p": np.array([0.5, np.nan, 0.4, 0.4])}, ArgumentError, "p is nan"),
        ({"p": np.array([0.5])}, ArgumentError, "shape"),
        ({"t": np.array([0, 1, 2, 0])}, ArgumentError, "t holds 2"),
        ({"t": np.ones(4)}, EstimationError, "one arm"),
        ({"units": np.array([1, 1, 1, 1])}, EstimationError, "1 users"),
        ({"units": np.array([1, 2])}, ArgumentError, "units has shape"),
        ({"folds": 1}, ArgumentError, "folds"),
        ({"weights": np.zeros(4)}, ArgumentError, "weights"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Exception], says: str) -> None:
    given: dict[str, Any] = {"p": np.array([0.2, 0.8, 0.3, 0.7]), "t": np.array([0, 1, 0, 1]), "units": np.arange(4), "folds": 2, **change}
    with pytest.raises(error, match=says):
        platt_cross_fitted(given.pop("p"), given.pop("t"), given.pop("units"), **given)


def test_certain_propensities_do_not_break_the_log_odds() -> None:
    p, t, units = draw(5)
    found = platt_cross_fitted(np.round(p), t, units, random_state=0)
    assert np.isfinite(found.after).all()
    assert found.after.min() > 0
    assert found.after.max() < 1
