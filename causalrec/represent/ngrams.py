"""Which words and letters a text has: TF-IDF of n-grams, reduced without a look at exposure or click."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.utils.validation import check_is_fitted

from causalrec._checks import check_scalar
from causalrec.blocks import Block
from causalrec.errors import RepresentationError
from causalrec.log import ImpressionLog
from causalrec.represent.lexical import text_column_blocks
from causalrec.represent.text import _distinct

Floats = npt.NDArray[np.float32]
KINDS = ("word", "character")
RANGES = {"word": (1, 2), "character": (3, 5)}
NEGLIGIBLE = 1e-5
"""A component whose singular value is below this share of the largest is rounding error and is left out."""


class WordNgrams(TransformerMixin, BaseEstimator):
    """Turn texts into the leading components of their words (1–2) and of their letters (3–5, within words).

    Parameters
    ----------
    components : int
        Components of each of the two, k. Fewer where there are fewer distinct texts or n-grams.
    max_terms : int
        N-grams of each of the two that are kept, the most frequent ones.
    random_state : int
        Seed of the randomised decomposition.

    Attributes
    ----------
    vectorizers_ : dict of str to TfidfVectorizer
        ``"word"`` and ``"character"``, without the one that found no n-gram.
    reducers_ : dict of str to TruncatedSVD or None
        The same keys; ``components_`` has shape (k, terms). None where there is a single n-gram.

    Notes
    -----
    A row is ``[A₁V₁, A₂V₂]`` with A the TF-IDF matrix, rows of length 1, of ``(1 + log tf) · idf``, and V its
    k leading right singular vectors, one decomposition for words and one for letters: latent semantic
    analysis, Deerwester et al. (1990), J. Am. Soc. Inf. Sci. 41(6). Fitted on the distinct texts in sorted
    order, so that neither their order nor how often each was shown has a say.

    Examples
    --------
    >>> from causalrec.represent.ngrams import WordNgrams
    >>> WordNgrams(components=2).fit_transform(["red dress", "red shoe", "blue shoe"]).shape
    (3, 4)
    """

    def __init__(self, components: int = 100, *, max_terms: int = 20_000, random_state: int = 0) -> None:
        self.components = components
        self.max_terms = max_terms
        self.random_state = random_state

    def fit(self, X: Iterable[str | None], y: object = None) -> WordNgrams:
        """Learn vocabularies, idf and components from the distinct texts; `y` is not looked at.

        Parameters
        ----------
        X : (n,) texts; None and NaN read as the empty text

        Raises
        ------
        RepresentationError
            No text has a word or a letter.
        ArgumentError
            `X` is no one-dimensional collection of texts, or a setting is out of its bounds.
        """
        check_scalar(self.components, "components", ge=1, integer=True)
        check_scalar(self.max_terms, "max_terms", ge=1, integer=True)
        check_scalar(self.random_state, "random_state", ge=0, integer=True)
        texts = sorted(_distinct(X)[0])
        self.vectorizers_: dict[str, TfidfVectorizer] = {}
        self.reducers_: dict[str, TruncatedSVD | None] = {}
        for kind in KINDS:
            vectorizer = _vectorizer(kind, self.max_terms)
            matrix = _fitted(vectorizer, texts)
            if matrix is not None:
                self.vectorizers_[kind] = vectorizer
                self.reducers_[kind] = _reducer(matrix, self.components, self.random_state)
        if not self.vectorizers_:
            raise RepresentationError(
                f"{len(texts):,} distinct texts hold no word and no letter (the first: {texts[:3]!r}), must hold "
                "at least one; check which column is declared as text=, or go on without word n-grams."
            )
        return self

    def transform(self, X: Iterable[str | None]) -> Floats:
        """Components of texts, (n, q) float32 with q ≤ 2 k; a text without a known n-gram is a row of zeros."""
        check_is_fitted(self)
        distinct, codes = _distinct(X)
        if not distinct:
            return np.empty((0, len(self.get_feature_names_out())), dtype=np.float32)
        parts = []
        for kind, vectorizer in self.vectorizers_.items():
            matrix, reducer = vectorizer.transform(distinct), self.reducers_[kind]
            parts.append(matrix.toarray() if reducer is None else reducer.transform(matrix))
        return np.hstack(parts).astype(np.float32, copy=False)[codes]

    def get_feature_names_out(self, input_features: object = None) -> npt.NDArray[np.object_]:
        """``word_0``, …, ``character_0``, …, (q,)."""
        check_is_fitted(self)
        widths = {
            kind: 1 if reducer is None else len(reducer.components_)
            for kind, reducer in self.reducers_.items()
        }
        return np.array([f"{kind}_{j}" for kind, width in widths.items() for j in range(width)], dtype=object)

    @property
    def fingerprint(self) -> str:
        """What the components depend on, beside the texts."""
        return f"WordNgrams {self.components} components, {self.max_terms} terms, seed {self.random_state}"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags


def ngram_blocks(log: ImpressionLog, transformer: WordNgrams | None = None) -> list[Block]:
    """One block ``ngrams:<column>`` a text column, on axes found in the distinct texts of all text columns.

    Parameters
    ----------
    log : ImpressionLog
    transformer : WordNgrams or None
        None is ``WordNgrams()``. It is cloned, then fitted.

    Returns
    -------
    list of Block
        In the order of the text columns, (u, q) float32 with one row a distinct text; none without text.

    Raises
    ------
    RepresentationError
        No text has a word or a letter.
    """
    ngrams = WordNgrams() if transformer is None else clone(transformer)
    return text_column_blocks(log, "ngrams", ngrams.fit_transform, ngrams.fingerprint)


def _vectorizer(kind: str, max_terms: int) -> TfidfVectorizer:
    """TF-IDF of one kind of n-gram; words of one letter and single digits count."""
    return TfidfVectorizer(
        analyzer="word" if kind == "word" else "char_wb",
        ngram_range=RANGES[kind],
        token_pattern=r"(?u)\b\w+\b" if kind == "word" else None,
        max_features=max_terms,
        sublinear_tf=True,
        dtype=np.float32,
    )


def _fitted(vectorizer: TfidfVectorizer, texts: list[str]) -> csr_matrix | None:
    """The TF-IDF matrix (u, terms) of these texts, or None if they have no n-gram of this kind."""
    try:
        return vectorizer.fit_transform(texts)
    except ValueError as error:
        if "empty vocabulary" not in str(error):
            raise
        return None


def _reducer(matrix: csr_matrix, components: int, random_state: int) -> TruncatedSVD | None:
    """The decomposition of a TF-IDF matrix (u, terms); None where its single column needs none."""
    if matrix.shape[1] == 1:
        return None
    rank = min(components, *matrix.shape)
    reducer = TruncatedSVD(rank, random_state=random_state)
    with np.errstate(invalid="ignore", divide="ignore"):  # a single text has no variance to explain
        reducer.fit(matrix)
    kept = reducer.singular_values_ > NEGLIGIBLE * reducer.singular_values_.max()
    for name in ("components_", "singular_values_", "explained_variance_", "explained_variance_ratio_"):
        setattr(reducer, name, getattr(reducer, name)[kept])
    return reducer
