"""Topics of a log read from its text embedding, named by their words; blind to who was shown what and who clicked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import CountVectorizer

from causalrec.blocks import Block
from causalrec.log import ImpressionLog
from causalrec.represent.words import WORDS
from causalrec.uplift.text_effects import unit_rows

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
MOST_TOPICS = 10
TEXTS_A_TOPIC = 15
"""Distinct texts that a topic has to stand for, on average."""
LOOKED_AT = 1_000
"""Texts on which the number of topics is chosen."""
SHOWN = 3
"""Words by which a topic is named."""


@dataclass(frozen=True, eq=False)
class TextTopics:
    """A partition of texts.

    Attributes
    ----------
    names : tuple of str, (k,)
        The words most characteristic of each topic.
    centres : (k, d)
        In the space of embeddings of unit length.
    sizes : (k,) distinct texts of each
    """

    names: tuple[str, ...]
    centres: F64 = field(repr=False)
    sizes: Ints

    def of(self, z: npt.NDArray[np.floating]) -> Ints:
        """(m,) the topic with the nearest centre, of embeddings (m, d)."""
        squared = np.sum(self.centres**2, axis=1) - 2 * unit_rows(z) @ self.centres.T
        return np.argmin(squared, axis=1).astype(np.int64)


def text_block(log: ImpressionLog) -> Block | None:
    """The embedding of the first text column, or None where the log has none."""
    return next((b for b in log.blocks.values() if b.kind == "text"), None)


def texts_of(block: Block, log: ImpressionLog) -> list[str]:
    """The distinct texts of a text block, in the order of its vectors."""
    if block.texts is not None:
        return list(block.texts)
    found = [""] * len(block.values)
    for code, text in zip(block.codes, log.frame[block.columns[0]].fillna("").astype(str), strict=True):
        found[code] = text
    return found


def find_text_topics(
    z: npt.NDArray[np.floating], texts: Sequence[str], n_topics: int | None = None, random_state: int = 0
) -> TextTopics | None:
    """k-means on embeddings of unit length, every distinct text counting once.

    The number of topics is that of the greatest silhouette (Rousseeuw 1987) among 2 … 10, at least 15 texts a topic on
    average. Names are the words of the greatest class-based TF-IDF, tf · log(1 + mean words of a topic / frequency of the
    word); Grootendorst (2022), §3.3.

    Parameters
    ----------
    z : (u, d) embeddings of distinct texts
    texts : (u,) str
    n_topics : int or None
    random_state : int

    Returns
    -------
    TextTopics, largest first; or None where there are too few texts for two topics.
    """
    z = unit_rows(z)
    most = min(MOST_TOPICS, len(z) // TEXTS_A_TOPIC, len(np.unique(z, axis=0)))
    k = n_topics or (_number_of_topics(z, most, random_state) if most >= 2 else 0)
    if k < 2 or k > len(np.unique(z, axis=0)):
        return None
    model = KMeans(k, n_init=3, random_state=random_state).fit(z)
    order = np.argsort(-np.bincount(model.labels_, minlength=k), kind="stable")
    labels = np.argsort(order)[model.labels_]
    return TextTopics(
        _names(texts, labels, k), model.cluster_centers_[order], np.bincount(labels, minlength=k)
    )


def _number_of_topics(z: F64, most: int, random_state: int) -> int:
    """The k of the greatest mean silhouette on at most ``LOOKED_AT`` texts."""
    from sklearn.metrics import silhouette_score

    some = z[np.random.default_rng(random_state).permutation(len(z))[:LOOKED_AT]]
    found = {}
    for k in range(2, most + 1):
        labels = KMeans(k, n_init=1, random_state=random_state).fit_predict(some)
        if len(np.unique(labels)) > 1:
            found[k] = float(silhouette_score(some, labels))
    return max(found, key=lambda k: found[k]) if found else 0


def _names(texts: Sequence[str], labels: Ints, k: int) -> tuple[str, ...]:
    """The words of the greatest class TF-IDF of each topic; "topic 2" for one without a word."""
    joined = [" ".join(t for t, j in zip(texts, labels, strict=True) if j == topic) for topic in range(k)]
    counter = CountVectorizer(**WORDS)
    try:
        counts = counter.fit_transform(joined).toarray().astype(np.float64)
    except ValueError:  # no word in any text
        return tuple(f"topic {j + 1}" for j in range(k))
    total = counts.sum(axis=1, keepdims=True)
    weight = counts / np.maximum(total, 1) * np.log1p(total.mean() / counts.sum(axis=0))
    vocabulary = counter.get_feature_names_out()
    names = []
    for j, row in enumerate(weight):
        best = [str(vocabulary[i]) for i in np.argsort(-row, kind="stable")[:SHOWN] if row[i] > 0]
        names.append(", ".join(best) or f"topic {j + 1}")
    return tuple(names)
