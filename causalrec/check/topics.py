"""Topics of a text column, from its words alone: a reading of the texts that the fit was not given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import NMF
from sklearn.feature_extraction.text import TfidfVectorizer

from causalrec.represent.words import WORDS

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
MOST_TOPICS = 20
TEXTS_A_TOPIC = 10
"""Distinct texts that a topic has to stand for, on average."""
MOST_WORDS = 5_000
SHOWN = 3
"""Words by which a topic is named."""


@dataclass(frozen=True, eq=False)
class Topics:
    """Shares of topics in the distinct texts of one column.

    Attributes
    ----------
    names : tuple of str, (k,)
        The three words that count most in each topic.
    shares : (u, k) in [0, 1]
        Rows sum to 1, or are 0 for a text without a known word.
    codes : (n,)
        Row of ``shares`` of each impression.
    """

    names: tuple[str, ...]
    shares: F64
    codes: Ints


def find_topics(
    texts: list[str], codes: Ints, most: int = MOST_TOPICS, random_state: int = 0
) -> Topics | None:
    """Topics of distinct texts by non-negative matrix factorisation of their TF-IDF, A ≈ W H, W, H ≥ 0.

    Lee & Seung (1999), Nature 401. Words count that stand in at least two texts and at most in a third of them, and
    are no English stop words. Texts count once each, in sorted order, whatever was shown or clicked.

    Parameters
    ----------
    texts : list of str, (u,) distinct
    codes : (n,) index into `texts` of each impression
    most : int
        Topics at most; at most one for every ten distinct texts.
    random_state : int

    Returns
    -------
    Topics, or None where fewer than two topics can be told apart.
    """
    order = np.argsort(np.array(texts, dtype=object), kind="stable")
    vectorizer = TfidfVectorizer(
        **WORDS,
        min_df=2,
        max_df=1 / 3,
        max_features=MOST_WORDS,
        sublinear_tf=True,
        dtype=np.float32,
    )
    try:
        matrix = vectorizer.fit_transform([texts[i] for i in order])
    except ValueError:  # no word stands in two texts
        return None
    k = min(most, len(texts) // TEXTS_A_TOPIC, matrix.shape[1])
    if k < 2:
        return None
    # one text may use no known word at all; NMF's tolerance decides when a step is not worth taking
    model = NMF(k, init="nndsvda", max_iter=100, tol=1e-3, random_state=random_state)
    weights = np.empty((len(texts), k))
    weights[order] = _quietly_fitted(model, matrix)
    total = weights.sum(axis=1, keepdims=True)
    words = vectorizer.get_feature_names_out()
    names = tuple(", ".join(words[j] for j in np.argsort(-row)[:SHOWN]) for row in model.components_)
    return Topics(names, np.divide(weights, total, out=np.zeros_like(weights), where=total > 0), codes)


def _quietly_fitted(model: NMF, matrix: npt.ArrayLike) -> F64:
    """Weights of the texts, (u, k); topics need not have converged to the last digit."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(model.fit_transform(matrix), dtype=np.float64)
