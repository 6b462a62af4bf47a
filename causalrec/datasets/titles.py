"""Titles written from latents: topic, sentiment and quality in, readable and distinct sentences out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from causalrec.datasets.vocabulary import QUALITY, SENTIMENT, TOPICS
from causalrec.errors import ArgumentError

Ints = npt.NDArray[np.int64]

N_TOPICS = len(TOPICS)
TOPIC_NAMES = tuple(t.name for t in TOPICS)
TEMPLATE = "{section}: {source} on the {adjective} {noun} {verb} {place}, {remark}"
_TRIES = 50


def write_titles(topic: Ints, sentiment: Ints, quality: Ints, rng: np.random.Generator) -> list[str]:
    """One distinct title for each triple of latents.

    Parameters
    ----------
    topic : (m,) codes 0 … 7 into ``vocabulary.TOPICS``
    sentiment, quality : (m,) levels −2 … 2
    rng : Generator

    Returns
    -------
    list of m different strings; a title that was drawn before is drawn again.

    Raises
    ------
    ArgumentError
        So many titles are asked for that the grammar runs out of new ones.
    """
    titles: list[str] = []
    taken: set[str] = set()
    for k, s, q in zip(topic.tolist(), sentiment.tolist(), quality.tolist(), strict=True):
        for _ in range(_TRIES):
            title = _one_title(k, s + 2, q + 2, rng)
            if title not in taken:
                break
        else:
            raise ArgumentError(
                f"n_items is {len(topic):,}, more distinct titles than the grammar writes; ask for fewer."
            )
        taken.add(title)
        titles.append(title)
    return titles


def _one_title(topic: int, sentiment: int, quality: int, rng: np.random.Generator) -> str:
    words = TOPICS[topic]
    adjectives, remarks = SENTIMENT[sentiment]
    tables = (QUALITY[quality], adjectives, words.nouns, words.verbs, words.places, remarks)
    draws = rng.random(len(tables))
    source, adjective, noun, verb, place, remark = (
        table[int(u * len(table))] for table, u in zip(tables, draws, strict=True)
    )
    return TEMPLATE.format(
        section=words.name.capitalize(),
        source=source,
        adjective=adjective,
        noun=noun,
        verb=verb,
        place=place,
        remark=remark,
    )
