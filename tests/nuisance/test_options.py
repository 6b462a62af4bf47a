from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from causalrec.errors import ArgumentError, EstimationError
from causalrec.nuisance import Clip, Folds, NuisanceRecipe, RidgeLogistic


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Clip(-0.1), "bound is -0.1, must be >= 0"),
        (lambda: Clip(0.5), "bound is 0.5, must be < 0.5"),
        (lambda: Clip(float("nan")), "bound is nan"),
        (lambda: Folds(2), "n_splits is 2, must be >= 3"),
        (lambda: Folds(5.0), "n_splits is 5.0, must be a whole number"),
        (lambda: Folds(99), "n_splits is 99, must be <= 50"),
        (lambda: Folds(5, by="row"), r"by is 'row', must be one of \['user'\]"),
        (lambda: RidgeLogistic(variances=()), "variances is empty"),
        (lambda: RidgeLogistic(variances=(1, 0)), "variances is 0, must be > 0"),
        (lambda: RidgeLogistic(light=0), "light is 0, must be > 0"),
        (lambda: NuisanceRecipe(propensity="logistic"), "propensity is 'logistic'; must be RidgeLogistic"),
        (
            lambda: NuisanceRecipe(outcome=LogisticRegression),
            "outcome is .* must be RidgeLogistic.* instance",
        ),
        (lambda: NuisanceRecipe(propensity=LinearRegression()), "LinearRegression without predict_proba"),
    ],
)
def test_a_wrong_option_says_so_at_once(make: object, says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        make()  # type: ignore[operator]


def test_clipping_counts_what_it_moved() -> None:
    e = np.array([0.001, 0.05, 0.5, 0.99])
    np.testing.assert_allclose(Clip(0.05).apply(e), [0.05, 0.05, 0.5, 0.95])
    assert Clip(0.05).share(e) == 0.5
    np.testing.assert_array_equal(Clip(0).apply(e), e)


def assign(units: np.ndarray, seed: int = 0, k: int = 5) -> np.ndarray:
    content = (units.astype(np.uint64) + np.uint64(1)) * np.uint64(2654435761)
    return Folds(k).assign(units, content, (units % 3).astype(float), np.random.default_rng(seed))


def test_each_unit_is_in_one_fold_and_folds_are_balanced_and_deterministic() -> None:
    units = np.random.default_rng(0).integers(0, 200, 3000)
    units = np.unique(units, return_inverse=True)[1]
    fold = assign(units)
    per_unit = [set(fold[units == u]) for u in range(units.max() + 1)]
    assert all(len(folds) == 1 for folds in per_unit)
    sizes = np.bincount([next(iter(f)) for f in per_unit])
    assert len(sizes) == 5
    assert sizes.max() - sizes.min() <= 1
    np.testing.assert_array_equal(fold, assign(units))
    assert (fold != assign(units, seed=1)).any()


def test_folds_are_stratified() -> None:
    units = np.arange(300)
    fold = assign(units)
    counts = np.array([[((fold == f) & (units % 3 == s)).sum() for s in range(3)] for f in range(5)])
    assert counts.max() - counts.min() <= 2


@pytest.mark.parametrize("n_units", [1, 2, 4])
def test_fewer_users_than_folds(n_units: int) -> None:
    with pytest.raises(EstimationError, match=rf"the log has {n_units} units, fewer than the 5 folds"):
        assign(np.arange(40) % n_units)
