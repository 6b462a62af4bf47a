"""What a recommender acts on: how well an item's text matches the texts that a user clicked before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from sklearn.decomposition import PCA

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
CHUNK_ROWS = 65_536  # pairs gathered at once, so that memory does not grow with their number


def unit_rows(values: Floats) -> Floats:
    """Each row divided by its Euclidean length; a zero row stays zero. ``(u, d)`` in and out."""
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.divide(values, np.where(length > 0, length, 1), dtype=np.float32)


def history_vectors(histories: Sequence[Sequence[int]], vectors: Floats) -> Floats:
    """One vector a history: ``h = m / |m|`` with m the mean of its texts' vectors; zero for an empty history.

    Parameters
    ----------
    histories : sequence of h sequences of row numbers of `vectors`; a text clicked twice counts twice
    vectors : (u, d) float32

    Returns
    -------
    (h, d) float32
    """
    sizes = np.array([len(rows) for rows in histories], dtype=np.int64)
    columns = np.fromiter((row for rows in histories for row in rows), dtype=np.int64, count=int(sizes.sum()))
    weights = np.repeat(1 / np.maximum(sizes, 1), sizes).astype(np.float32)
    ends = np.concatenate([[0], np.cumsum(sizes)])
    return unit_rows(csr_array((weights, columns, ends), shape=(len(sizes), len(vectors))) @ vectors)


def distinct_pairs(first: Ints, second: Ints) -> tuple[Ints, Ints, Ints]:
    """Distinct (first, second) code pairs, sorted, and each row's index into them: ``(p,), (p,), (n,)``."""
    width = int(second.max()) + 1
    keys, codes = np.unique(first * width + second, return_inverse=True)
    return keys // width, keys % width, codes.astype(np.int64)


def reduce(vectors: Floats, texts: Floats, components: int) -> Floats:
    """Principal components of `vectors` (h, d) on axes found in `texts` (u, d); zero rows stay zero.

    The axes see distinct texts only, neither exposure nor click. A zero row is a missing history, which has
    no direction: its components are set to 0.
    """
    pca = PCA(n_components=components, random_state=0).fit(texts)
    return (pca.transform(vectors) * vectors.any(axis=1, keepdims=True)).astype(np.float32)


def match_features(
    history: Floats, text: Floats, history_reduced: Floats, text_reduced: Floats, pairs: tuple[Ints, Ints]
) -> Floats:
    """Features of (history, text) pairs: their cosine, and the products of their reduced components.

    ``x(h, t) = (hᵀt, P₁h · P₁t, …, P_k h · P_k t)``.

    Parameters
    ----------
    history, text : (h, d) and (t, d) float32, rows of length 1 or 0
    history_reduced, text_reduced : (h, k) and (t, k) float32
    pairs : two (p,) arrays, row numbers of the histories and of the texts

    Returns
    -------
    (p, 1 + k) float32
    """
    rows, columns = pairs
    features = np.empty((len(rows), 1 + history_reduced.shape[1]), dtype=np.float32)
    for start in range(0, len(rows), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        features[part, 0] = np.einsum("pd,pd->p", history[rows[part]], text[columns[part]])
        features[part, 1:] = history_reduced[rows[part]] * text_reduced[columns[part]]
    return features
