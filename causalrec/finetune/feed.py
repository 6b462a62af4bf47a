"""What a ranker reads of a log: distinct texts, and each row's item and history as places among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from causalrec._values import label_of
from causalrec.errors import ArgumentError, LogError
from causalrec.finetune.options import Kind
from causalrec.log import ImpressionLog

Ints = npt.NDArray[np.int64]
MOST_HISTORY = 20
"""Texts of a history that are read, the last ones."""
BETWEEN = " [SEP] "
"""Between the texts that a cross-encoder reads together; tokenizers of the BERT family know it as their separator."""
BY_WORDS = "words\x1f"
"""Before the words by which an item effect knows an item: an id that reads like the words of another item is not taken for them."""


@dataclass(frozen=True, eq=False)
class Feed:
    """n rows as places among u distinct texts.

    Attributes
    ----------
    texts : tuple of str, (u,)
    item : (n,)
        The text of each row's item; for a cross-encoder, of history and item together.
    starts, members : (h + 1,), (m,)
        The texts of history j are members[starts[j]:starts[j + 1]].
    history : (n,) or None
        The history of each row; None where there is none, or a cross-encoder has read it.
    item_effect : (n,)
        The row's item among the known ones, −1 for another.
    """

    texts: tuple[str, ...] = field(repr=False)
    item: Ints
    starts: Ints
    members: Ints
    history: Ints | None
    item_effect: Ints

    def __len__(self) -> int:
        return len(self.item)

    def take(self, rows: Ints) -> Batch:
        """What a network needs for some rows: their distinct texts, each once."""
        rows = np.asarray(rows, dtype=np.int64)
        if self.history is None:
            used, item = np.unique(self.item[rows], return_inverse=True)
            return Batch(used, item, None, None, None, self.item_effect[rows])
        histories, of_row = np.unique(self.history[rows], return_inverse=True)
        sizes = self.starts[histories + 1] - self.starts[histories]
        segment = np.repeat(np.arange(len(histories)), sizes)
        places = np.concatenate([self.members[self.starts[h] : self.starts[h + 1]] for h in histories])
        used, at = np.unique(np.concatenate([self.item[rows], places]), return_inverse=True)
        return Batch(used, at[: len(rows)], at[len(rows) :], segment, of_row, self.item_effect[rows])


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of a feed.

    Attributes
    ----------
    texts : (v,) places in ``Feed.texts`` of the distinct texts that these rows need
    item : (b,) places in `texts`
    members, segment : (m,) or None
        Places in `texts` of the histories' texts, and the history that each belongs to.
    history : (b,) or None
        The history of each row.
    item_effect : (b,)
    """

    texts: Ints
    item: Ints
    members: Ints | None
    segment: Ints | None
    history: Ints | None
    item_effect: Ints


def joined(first: Feed, second: Feed) -> Feed:
    """The rows of two feeds, the first one's before the second's."""
    index: dict[str, int] = {t: i for i, t in enumerate(first.texts)}
    place = np.array([index.setdefault(t, len(index)) for t in second.texts], dtype=np.int64)
    item = np.concatenate([first.item, place[second.item]])
    effect = np.concatenate([first.item_effect, second.item_effect])
    if first.history is None or second.history is None:
        return Feed(tuple(index), item, first.starts, first.members, None, effect)
    members = np.concatenate([first.members, place[second.members]])
    starts = np.concatenate([first.starts, second.starts[1:] + first.starts[-1]])
    history = np.concatenate([first.history, second.history + len(first.starts) - 1])
    return Feed(tuple(index), item, starts, members, history, effect)


def part_of(feed: Feed, rows: Ints) -> Feed:
    """Some rows of a feed, and the texts that they need."""
    batch = feed.take(rows)
    texts = tuple(feed.texts[i] for i in batch.texts)
    if batch.history is None or batch.members is None or batch.segment is None:
        return Feed(texts, batch.item, feed.starts[:1], feed.members[:0], None, batch.item_effect)
    sizes = np.bincount(batch.segment, minlength=int(batch.history.max()) + 1)
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Feed(texts, batch.item, starts, batch.members, batch.history, batch.item_effect)


def item_texts(log: ImpressionLog) -> list[str]:
    """(n,) the words of each row's item: its text columns, joined."""
    columns = []
    for name in log.roles.text:
        found, codes = log.texts(name)
        columns.append(np.array(found, dtype=object)[codes])
    if len(columns) == 1:
        return list(columns[0])
    return [". ".join(t for t in row if t) for row in zip(*columns, strict=True)]


def item_labels(log: ImpressionLog) -> list[str]:
    """(n,) by what an item effect knows an item: its declared id, or its words."""
    if log.roles.item:
        return [label_of(v) for v in log.frame[log.roles.item[0]]]
    return labels_by_words(item_texts(log))


def labels_by_words(texts: Sequence[str]) -> list[str]:
    """By what an item effect knows items of which the words are all that is known."""
    return [BY_WORDS + t for t in texts]


def numbered(log: ImpressionLog) -> dict[str, int]:
    """The number of each item's effect, by the item's label, and by its words where no other item has them."""
    labels, texts = item_labels(log), labels_by_words(item_texts(log))
    found = {name: i for i, name in enumerate(sorted(set(labels)))}
    owner: dict[str, str | None] = {}
    for text, label in set(zip(texts, labels, strict=True)):
        owner[text] = None if text in owner else label
    return {text: found[label] for text, label in owner.items() if label is not None} | found


def effects_of(known: dict[str, int]) -> int:
    """How many item effects there are."""
    return max(known.values(), default=-1) + 1


def feed_of(
    items: Sequence[str],
    histories: tuple[Sequence[Sequence[str]], Ints] | None,
    kind: Kind,
    labels: Sequence[str] | None,
    known: dict[str, int],
) -> Feed:
    """Rows as places among distinct texts.

    Parameters
    ----------
    items : (n,) words of each row's item
    histories : (distinct histories, (n,) code of each row) or None
    kind : "two-tower" or "cross"
    labels : (n,) or None
        By what an item effect knows the items.
    known : mapping of label to number
        The items that have an effect.
    """
    effect = np.full(len(items), -1, dtype=np.int64)
    if known and labels is not None:
        effect = np.array([known.get(str(v), -1) for v in labels], dtype=np.int64)
    index: dict[str, int] = {}
    nothing = np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int64)
    if kind == "cross" and histories is not None:
        read = [BETWEEN.join(h[: -MOST_HISTORY - 1 : -1]) for h in histories[0]]  # the last first: what is too long is cut at the end
        pairs = [f"{t}{BETWEEN}{read[c]}" if read[c] else t for c, t in zip(histories[1], items, strict=True)]
        place = np.array([index.setdefault(p, len(index)) for p in pairs], dtype=np.int64)
        return Feed(tuple(index), place, *nothing, None, effect)
    place = np.array([index.setdefault(t, len(index)) for t in items], dtype=np.int64)
    if histories is None:
        return Feed(tuple(index), place, *nothing, None, effect)
    short = [tuple(h)[-MOST_HISTORY:] for h in histories[0]]
    members = np.array([index.setdefault(t, len(index)) for h in short for t in h], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum([len(h) for h in short])]).astype(np.int64)
    return Feed(tuple(index), place, starts, members, np.asarray(histories[1], dtype=np.int64), effect)


def feed_of_log(log: ImpressionLog, kind: Kind, known: dict[str, int]) -> Feed:
    """The feed of a log; it must declare texts."""
    if not log.roles.text:
        raise LogError(
            "the log declares no text, so there is nothing to train an encoder on; name the items' words in read_log(text=...)."
        )
    histories = log.histories() if log.roles.history else None
    return feed_of(item_texts(log), histories, kind, item_labels(log) if known else None, known)


def check_texts(values: Any, name: str) -> list[str]:
    """A list of texts, or ``ArgumentError``."""
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise ArgumentError(f"{name} is a {type(values).__name__}; must be a list of texts.")
    found = ["" if v is None or v != v else v for v in values]
    wrong = next((v for v in found if not isinstance(v, str)), None)
    if wrong is not None:
        raise ArgumentError(f"{name} holds {wrong!r} ({type(wrong).__name__}); must hold texts.")
    return [str(v) for v in found]
