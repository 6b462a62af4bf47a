from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from causalrec.represent import pairs
from causalrec.represent.pairs import distinct_pairs, history_vectors, match_features, reduce, unit_rows


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_a_history_is_the_normalised_mean_of_its_texts() -> None:
    vectors = np.array([[1, 0], [0, 1], [3, 4]], dtype=np.float32)
    found = history_vectors([(0, 1), (), (2,), (0, 0, 1)], vectors)
    expected = [[2**-0.5, 2**-0.5], [0, 0], [0.6, 0.8], [2 / 5**0.5, 1 / 5**0.5]]
    assert found == pytest.approx(np.array(expected), abs=1e-6)
    assert found.dtype == np.float32


def test_texts_that_cancel_out_leave_a_zero_history() -> None:
    vectors = np.array([[1, 0], [-1, 0]], dtype=np.float32)
    assert history_vectors([(0, 1)], vectors).tolist() == [[0, 0]]


@settings(deadline=None, max_examples=50)
@given(hnp.arrays(np.float32, (5, 3), elements=st.floats(-100, 100, width=32)))
def test_rows_have_length_one_or_zero(values: np.ndarray) -> None:
    length = np.linalg.norm(unit_rows(values).astype(np.float64), axis=1)
    own = np.linalg.norm(values, axis=1)
    assert length[own > 1e-15] == pytest.approx(1, abs=1e-5)
    assert (length[(values == 0).all(axis=1)] == 0).all()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=60))
def test_each_row_finds_its_own_pair_and_no_pair_comes_twice(rows: list[tuple[int, int]]) -> None:
    first, second = np.array(rows).T
    a, b, codes = distinct_pairs(first, second)
    assert list(zip(a[codes], b[codes], strict=True)) == rows
    assert len(set(zip(a, b, strict=True))) == len(a) == len(set(rows))


def test_pair_features_by_hand() -> None:
    history = np.array([[1, 0], [0, 0]], dtype=np.float32)
    text = np.array([[0.6, 0.8], [0, 1]], dtype=np.float32)
    reduced = (np.array([[2.0], [0.0]], dtype=np.float32), np.array([[3.0], [-1.0]], dtype=np.float32))
    found = match_features(history, text, *reduced, (np.array([0, 0, 1]), np.array([0, 1, 0])))
    assert found == pytest.approx(np.array([[0.6, 6.0], [0.0, -2.0], [0.0, 0.0]]))


def test_chunks_do_not_change_the_features(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    which = (rng.integers(0, 7, 100), rng.integers(0, 9, 100))
    parts = (random(7, 5), random(9, 5, seed=1), random(7, 2, seed=2), random(9, 2, seed=3), which)
    whole = match_features(*parts)
    monkeypatch.setattr(pairs, "CHUNK_ROWS", 13)
    assert np.array_equal(match_features(*parts), whole)


def test_components_are_those_of_the_texts_and_an_empty_history_has_none() -> None:
    texts = random(50, 6)
    found = reduce(np.vstack([texts[:3], np.zeros((1, 6), dtype=np.float32)]), texts, 2)
    centred = texts - texts.mean(axis=0)
    axes = np.linalg.svd(centred.astype(np.float64), full_matrices=False)[2][:2]
    assert np.abs(found[:3]) == pytest.approx(np.abs(centred[:3] @ axes.T), abs=1e-4)
    assert found[3].tolist() == [0, 0]
    assert found.dtype == np.float32
