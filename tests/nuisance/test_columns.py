from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from causalrec.blocks import Block
from causalrec.errors import EstimationError
from causalrec.nuisance.columns import learn_design

N = 200
X = pd.Series(np.random.default_rng(0).standard_normal(N), name="x")
DEVICE = pd.Series(np.array(["tv", "web", "phone"])[np.arange(N) % 3], name="device")


def block(values: np.ndarray, codes: np.ndarray) -> Block:
    return Block("text:t", "text", values.astype(np.float32), codes, ("t",), "test")


def test_a_number_becomes_a_standardised_piecewise_linear_basis() -> None:
    _, design = learn_design([X], N)
    columns = design.dense()
    assert columns.shape == (N, 5)
    np.testing.assert_allclose(columns.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(columns.std(axis=0), 1, atol=1e-5)
    knot = np.quantile(X, 0.4)
    hinge = np.maximum(X - knot, 0)
    np.testing.assert_allclose(np.corrcoef(columns[:, 2], hinge)[0, 1], 1, atol=1e-6)


def test_labels_become_one_column_a_level_and_a_new_level_none() -> None:
    recipe, design = learn_design([DEVICE], N)
    np.testing.assert_array_equal(design.dense().sum(axis=1), 1)
    new = recipe.apply([pd.Series(["car", "tv"], name="device")], 2)
    np.testing.assert_array_equal(new.dense(), [[0, 0, 0], [0, 1, 0]])


def test_a_block_is_centred_over_the_rows_not_over_the_distinct_texts() -> None:
    values, codes = np.array([[1.0, 2.0], [3.0, 8.0]]), np.r_[np.zeros(150, int), np.ones(50, int)]
    _, design = learn_design([block(values, codes)], N)
    np.testing.assert_allclose(design.dense().mean(axis=0), 0, atol=1e-6)


def test_the_recipe_makes_the_same_columns_again_row_by_row() -> None:
    rng = np.random.default_rng(1)
    words = block(rng.standard_normal((9, 4)), rng.integers(0, 9, N))
    recipe, design = learn_design([words, X, DEVICE], N)
    rows = rng.permutation(N)[:50]
    again = recipe.apply([words.take(rows), X.iloc[rows], DEVICE.iloc[rows]], 50)
    np.testing.assert_allclose(again.dense(), design.dense()[rows], atol=1e-6)
    np.testing.assert_array_equal(again.row_hash, design.row_hash[rows])


def test_another_width_is_refused() -> None:
    codes = np.zeros(N, dtype=np.int64)
    recipe, _ = learn_design([block(np.ones((1, 4)), codes)], N)
    with pytest.raises(
        EstimationError,
        match=r"block 'text:t' has 3 columns, 4 when the nuisances were fitted; embed both logs alike",
    ):
        recipe.apply([block(np.ones((1, 3)), codes)], N)


@pytest.mark.parametrize("dtype", ["bool", "Int64", "boolean", "float32", "int8", "uint8"])
def test_a_number_of_any_dtype_makes_the_same_columns(dtype: str) -> None:
    flag = pd.Series(np.arange(N) % 2, name="flag")
    columns, recoded = (learn_design([c], N)[1] for c in (flag, flag.astype(dtype)))
    np.testing.assert_array_equal(recoded.dense(), columns.dense())
    np.testing.assert_array_equal(recoded.row_hash, columns.row_hash)


def test_a_categorical_is_its_labels() -> None:
    one, two = (learn_design([c], N)[1] for c in (DEVICE, DEVICE.astype("category")))
    np.testing.assert_array_equal(one.dense(), two.dense())
    np.testing.assert_array_equal(one.row_hash, two.row_hash)


def test_many_plain_columns_are_shrunk_like_a_representation() -> None:
    rng = np.random.default_rng(2)
    many = [pd.Series(rng.standard_normal(N), name=f"x{j}") for j in range(40)]
    few, wide = learn_design(many[:5], N)[1], learn_design(many, N)[1]
    assert {p.shrinkage for p in few.parts} == {"light"}
    assert {p.shrinkage for p in wide.parts} == {"chosen"}
    assert wide.p == 41


def test_no_covariate_is_an_intercept_only() -> None:
    _, design = learn_design([], N)
    assert design.p == 1
    np.testing.assert_array_equal(design.matmul(np.full((1, 2), 3, np.float32)), np.full((N, 2), 3))
