from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression, Ridge

from causalrec.nuisance.crossfit import PRIOR_SLOPE, platt_scale
from causalrec.nuisance.design import Design, Part, PrivateColumn
from causalrec.nuisance.ridge import Inverse, Problems, _factor, solve

F32 = npt.NDArray[np.float32]
N, D = 500, 12


def design_of(*parts: Part) -> Design:
    return Design(parts, N, np.arange(N, dtype=np.uint64))


def part(x: npt.NDArray[np.floating], codes: npt.NDArray[np.int64] | None = None) -> Part:
    return Part(("x",) * x.shape[1], x.astype(np.float32), codes, "chosen")


def problems(y: F32, w: F32, penalty: float, p: int, logistic: bool) -> Problems:
    k = y.shape[1]
    lam = np.full((p, k), penalty)
    lam[0] = 0
    return Problems(y, w, lam, np.full(k, logistic), np.zeros(k, dtype=np.int64))


@pytest.fixture(scope="module")
def x() -> F32:
    return np.random.default_rng(0).standard_normal((N, D)).astype(np.float32)


def clicks(x: F32, rate: float, seed: int) -> F32:
    rng = np.random.default_rng(seed)
    eta = x @ rng.standard_normal(D) * 0.5
    return (rng.random(N) < expit(eta + np.log(rate / (1 - rate)))).astype(np.float32)


@pytest.mark.parametrize("penalty", [0.1, 3.0, 100.0])
@pytest.mark.parametrize("rate", [0.03, 0.5])
def test_logistic_ridge_is_scikit_learns(x: F32, penalty: float, rate: float) -> None:
    y = clicks(x, rate, 1)
    w = np.random.default_rng(2).integers(0, 3, N).astype(np.float32)
    beta = solve(design_of(part(x)), problems(y[:, None], w[:, None], penalty, D + 1, True))[:, 0]
    exact = x.astype(float)
    reference = LogisticRegression(C=1 / penalty, tol=1e-12, solver="newton-cholesky").fit(
        exact, y, sample_weight=w
    )
    np.testing.assert_allclose(beta[0] + x @ beta[1:], reference.decision_function(exact), atol=1e-3)


@pytest.mark.parametrize("penalty", [0.1, 30.0])
def test_least_squares_ridge_is_scikit_learns(x: F32, penalty: float) -> None:
    y = (x[:, 0] + np.random.default_rng(3).standard_normal(N)).astype(np.float32)
    w = np.random.default_rng(4).exponential(size=N).astype(np.float32)
    beta = solve(design_of(part(x)), problems(y[:, None], w[:, None], penalty, D + 1, False))[:, 0]
    reference = Ridge(alpha=penalty, solver="cholesky").fit(x.astype(float), y, sample_weight=w)
    np.testing.assert_allclose(beta[0] + x @ beta[1:], reference.predict(x), atol=1e-3)


def test_problems_that_are_solved_together_are_solved_as_if_alone(x: F32) -> None:
    y = np.column_stack([clicks(x, 0.2, s) for s in range(5)])
    w = (np.random.default_rng(5).random((N, 5)) < 0.8).astype(np.float32)
    together = solve(design_of(part(x)), problems(y, w, 2.0, D + 1, True))
    for j in range(5):
        alone = solve(design_of(part(x)), problems(y[:, [j]], w[:, [j]], 2.0, D + 1, True))[:, 0]
        np.testing.assert_allclose(together[:, j], alone, atol=1e-3)


@pytest.mark.parametrize("how_far", [0.1, 2.0, 20.0, 1e3])
@pytest.mark.parametrize("rate", [0.02, 0.3])
def test_a_warm_start_ends_at_the_same_place(x: F32, how_far: float, rate: float) -> None:
    y, w = clicks(x, rate, 6)[:, None], np.ones((N, 1), dtype=np.float32)
    made = problems(y, w, 1.0, D + 1, True)
    cold = solve(design_of(part(x)), made)
    far = solve(design_of(part(x)), made, cold + np.random.default_rng(0).normal(0, how_far, cold.shape))
    np.testing.assert_allclose(far, cold, atol=2e-3)


def test_separated_arms_are_held_by_the_penalty(x: F32) -> None:
    y = (x[:, :1] > 0).astype(np.float32)
    beta = solve(design_of(part(x)), problems(y, np.ones_like(y), 0.01, D + 1, True))[:, 0]
    assert np.isfinite(beta).all()
    reference = LogisticRegression(C=100, tol=1e-10, max_iter=10_000).fit(x, y[:, 0])
    np.testing.assert_allclose(beta[1], reference.coef_[0, 0], rtol=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_coded_parts_are_the_dense_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 20, N), rng.integers(0, 7, N)
    values = rng.standard_normal((20, 3)).astype(np.float32), rng.standard_normal((7, 2)).astype(np.float32)
    plain = rng.standard_normal((N, 2)).astype(np.float32)
    coded = design_of(part(values[0], codes[0]), part(values[1], codes[1]), part(plain))
    dense = design_of(part(np.hstack([values[0][codes[0]], values[1][codes[1]], plain])))
    b, r = rng.standard_normal((8, 4)).astype(np.float32), rng.standard_normal((N, 4)).astype(np.float32)
    w = rng.random((N, 2)).astype(np.float32)
    np.testing.assert_allclose(coded.matmul(b), dense.matmul(b), atol=1e-4)
    np.testing.assert_allclose(coded.rmatmul(r), dense.rmatmul(r), atol=1e-3)
    np.testing.assert_allclose(coded.gram, dense.gram, atol=1e-4)
    np.testing.assert_allclose(coded.variances(w), dense.variances(w), atol=1e-4)
    np.testing.assert_array_equal(coded.dense(), dense.dense())
    columns = dense.dense()
    by_hand = (
        np.average(columns**2, axis=0, weights=w[:, 0]) - np.average(columns, axis=0, weights=w[:, 0]) ** 2
    )
    np.testing.assert_allclose(coded.variances(w)[1:, 0], by_hand, atol=1e-4)


def test_a_private_column_is_an_explicit_one(x: F32) -> None:
    z = np.random.default_rng(8).standard_normal((N, 3)).astype(np.float32)
    y = np.column_stack([clicks(x, 0.3, s) for s in range(3)])
    w = np.ones_like(y)
    found = solve(PrivateColumn(design_of(part(x)), z), problems(y, w, 1.0, D + 2, True))
    for c in range(3):
        explicit = design_of(part(np.column_stack([x, z[:, c]])))
        alone = solve(explicit, problems(y[:, [c]], w[:, [c]], 1.0, D + 2, True))
        np.testing.assert_allclose(found[:, c], alone[:, 0], atol=1e-3)


def test_keeping_nodes_keeps_their_columns() -> None:
    rng = np.random.default_rng(0)
    mixed = Part(("a", "b", "a"), rng.standard_normal((N, 3)).astype(np.float32), None, "light")
    coded = Part(("c", "c"), rng.standard_normal((4, 2)).astype(np.float32), np.arange(N) % 4, "chosen")
    design = design_of(coded, mixed)
    assert design.owners == ("c", "a", "b")
    np.testing.assert_array_equal(design.keep(["a"]).dense(), mixed.values[:, [0, 2]])
    np.testing.assert_array_equal(
        design.keep(["c", "b"]).dense(), np.hstack([coded.values[coded.codes], mixed.values[:, [1]]])
    )
    assert design.keep([]).dense().shape == (N, 0)


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_platt_scaling_is_the_minimum(spread: float) -> None:
    rng = np.random.default_rng(0)
    eta = np.column_stack([rng.normal(-1, 1, 400), rng.normal(2, 3, 400)])
    t = (rng.random((400, 2)) < expit(spread * eta - 0.5)).astype(float)
    w = rng.exponential(size=(400, 2))
    found = platt_scale(eta, t, w)
    for c in range(2):

        def loss(ab: npt.NDArray[np.float64], c: int = c) -> float:
            s = ab[0] + ab[1] * eta[:, c]
            return float(
                (w[:, c] * (np.logaddexp(0, s) - t[:, c] * s)).sum() + PRIOR_SLOPE / 2 * (ab[1] - 1) ** 2
            )

        best = minimize(
            loss, [0.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10, "maxiter": 4000}
        )
        np.testing.assert_allclose(found[:, c], best.x, atol=1e-4)


def test_platt_scaling_leaves_calibrated_and_constant_predictors_alone() -> None:
    rng = np.random.default_rng(0)
    eta = rng.normal(0, 1, (20_000, 1))
    t = (rng.random(eta.shape) < expit(eta)).astype(float)
    np.testing.assert_allclose(platt_scale(eta, t, np.ones_like(t))[:, 0], [0, 1], atol=0.05)
    flat = platt_scale(np.zeros((100, 1)), np.r_[np.ones(25), np.zeros(75)][:, None], np.ones((100, 1)))
    np.testing.assert_allclose(expit(flat[0]), 0.25, atol=1e-6)
    assert flat[1, 0] == pytest.approx(1)


def test_a_gram_that_rounding_left_indefinite_is_factored_all_the_same():
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    for least in (-1e-5, -5e-4):
        matrix = turn @ np.diag([least, 0.0, 1.0, 2.0, 3.0, 1.0]) @ turn.T
        lower = _factor(matrix)
        assert np.abs(lower @ lower.T - matrix).max() < 0.05


@pytest.mark.parametrize(("alike", "kept"), [(0.9, np.float32), (1 - 1e-12, np.float64)])
def test_an_inverse_is_kept_short_only_where_rounding_leaves_it_definite(alike: float, kept: type) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 30))
    x[:, 1] = alike * x[:, 0] + np.sqrt(1 - alike**2) * x[:, 1]
    units = np.append([10.0, 10.0], 10.0 ** rng.uniform(-1, 1, 28))
    matrix = (x * units).T @ (x * units)
    found = Inverse.of(matrix)
    assert found.core.dtype == kept
    assert np.linalg.eigvalsh(found.core.astype(float)).min() > 0
    r = rng.standard_normal((30, 4))
    if kept is np.float32:
        np.testing.assert_allclose(matrix @ found.times(r), r, atol=0.02)
