"""The verb that turns the words of a log into representation blocks."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.utils import get_tags

from causalrec._checks import check_scalar
from causalrec.blocks import Block
from causalrec.errors import ArgumentError, CausalRecError, HonestyError, RepresentationError
from causalrec.log import ImpressionLog
from causalrec.represent.lexical import lexical_blocks, text_keys
from causalrec.represent.ngrams import ngram_blocks
from causalrec.represent.pairs import distinct_pairs, history_vectors, match_features, reduce, unit_rows
from causalrec.represent.text import TextEmbedder

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
MOST_COLUMNS = 20_000


def embed(
    log: ImpressionLog,
    transformer: Any = None,
    *,
    pair_components: int = 16,
    lexical: bool = True,
    ngrams: bool = False,
) -> ImpressionLog:
    """Give the log its representation blocks: what the words say, as numbers.

    Every distinct text is encoded once, whatever column or history it stands in. The encoder sees texts only,
    neither exposure nor click, and may therefore see all of them; a trainable transformer (TF-IDF with SVD)
    is cloned and fitted once on the distinct texts of all text columns and histories, in sorted order, so
    that all blocks live in one space and the order of the rows has no say.

    Parameters
    ----------
    log : ImpressionLog
        With ``text=`` and perhaps ``history=`` declared.
    transformer : TextEmbedder or any unsupervised scikit-learn transformer of texts
        None is ``TextEmbedder()``.
    pair_components : int
        Principal components, k, of which history and text are multiplied; 0 keeps the cosine only. At most
        the width of the embedding and the number of distinct texts are used.
    lexical, ngrams : bool
        Beside each text's embedding, its lexical and style features (``LexicalStyle``), and its word and character
        n-grams (``WordNgrams``). A text counts as one cause, whatever represents it.

    Returns
    -------
    ImpressionLog
        With the blocks ``text:<column>`` (u, d) for each text column; ``history:<column>`` (h, d), the
        normalised mean of the texts in each history, zero for an empty one; and for each pair of the two
        ``match:<history>~<text>`` (p, 1 + k): their cosine and the products of their components; ``lexical:<column>`` (u, 30) and
        ``ngrams:<column>``. All float32.

    Raises
    ------
    RepresentationError
        No text is declared; the transformer needs an outcome, fails on the texts, or returns a wrong shape,
        NaN, or more than 20,000 sparse columns.
    ArgumentError
        `transformer` is no transformer, or `pair_components` no whole number >= 0.
    HonestyError
        `transformer` was trained on clicks of users who are in this log.
    """
    pair_components = check_scalar(pair_components, "pair_components", ge=0, integer=True)
    refuse_seen(log, transformer)
    if not (log.roles.text or log.roles.history):
        raise RepresentationError(
            "the log declares no text, so there is nothing to embed; name its column in read_log(text=...), "
            "or go on without embed if no words were involved."
        )
    columns = {name: log.texts(name) for name in log.roles.text}
    histories, history_codes = log.histories() if log.roles.history else ([], np.empty(0, dtype=np.int64))
    words = sorted({t for texts, _ in columns.values() for t in texts}.union(*histories))
    vectors, made_by = _encode(TextEmbedder() if transformer is None else transformer, words)
    row = {text: i for i, text in enumerate(words)}
    blocks = [
        _text_block(name, texts, vectors[[row[t] for t in texts]], codes, made_by)
        for name, (texts, codes) in columns.items()
    ]
    if log.roles.history:
        values = history_vectors([[row[t] for t in texts] for texts in histories], vectors)
        name = log.roles.history[0]
        keys = text_keys(["\x1f".join(texts) for texts in histories])
        history = Block(f"history:{name}", "history", values, history_codes, (name,), made_by, keys)
        blocks += [history, *_match_blocks(history, blocks, vectors, pair_components)]
    beside = [*(lexical_blocks(log) if lexical else []), *(ngram_blocks(log) if ngrams else [])]
    return log.with_blocks([*blocks, *beside])


def refuse_seen(log: ImpressionLog, transformer: Any) -> None:
    """Raise ``HonestyError`` where an encoder has learnt from clicks of this log's users."""
    seen = getattr(transformer, "seen_units", None)
    if seen is None:
        return
    shared = int(np.isin(log.unit_hashes, seen).sum())
    if shared:
        what = f"{shared:,} of the {log.n_units:,} users" if log.roles.unit else f"{shared:,} of the {len(log):,} rows"
        raise HonestyError(
            f"this encoder was trained on clicks of {what} of this log: an effect that adjusts for its vectors would be judged by those who made them. "
            "Embed the log of other users, or take an encoder that has seen texts only: TextEmbedder()."
        )


def _text_block(name: str, texts: Sequence[str], values: Floats, codes: Ints, made_by: str) -> Block:
    """The block of one text column, with its texts."""
    return Block(
        f"text:{name}", "text", values, codes, (name,), made_by, text_keys(list(texts)), texts=tuple(texts)
    )


def _match_blocks(history: Block, texts: Sequence[Block], vectors: Floats, components: int) -> list[Block]:
    """One block of pair features a text column, on axes found in all distinct texts' `vectors` (u, d)."""
    directions = unit_rows(vectors)
    components = min(components, *directions.shape)

    def reduced(values: Floats) -> Floats:
        return (
            reduce(values, directions, components)
            if components
            else np.empty((len(values), 0), dtype=np.float32)
        )

    history_reduced = reduced(history.values)
    blocks = []
    for text in texts:
        values = unit_rows(text.values)
        first, second, codes = distinct_pairs(history.codes, text.codes)
        features = match_features(history.values, values, history_reduced, reduced(values), (first, second))
        name = f"match:{history.columns[0]}~{text.columns[0]}"
        made_by = f"{text.made_by}; cosine and {components} products"
        columns = history.columns + text.columns
        blocks.append(
            Block(name, "match", features, codes, columns, made_by, _pair_keys(history, text, first, second))
        )
    return blocks


def _pair_keys(history: Block, text: Block, first: Any, second: Any) -> npt.NDArray[np.uint64] | None:
    """Hash of each (history, text) pair, (u,)."""
    if history.keys is None or text.keys is None:
        return None
    return history.keys[first] * np.uint64(1_000_003) + text.keys[second]


def _encode(transformer: Any, texts: list[str]) -> tuple[Floats, str]:
    """Vectors (u, d) of distinct texts, and a short name of what made them."""
    if isinstance(transformer, TextEmbedder):
        return transformer.transform(texts), transformer.fingerprint
    name = textwrap.shorten(repr(transformer), 160, placeholder=" …")
    if isinstance(transformer, type) or not all(
        hasattr(transformer, m) for m in ("fit_transform", "get_params")
    ):
        raise ArgumentError(
            f"transformer is {name}, must be a TextEmbedder or a scikit-learn transformer (an instance), "
            "for instance make_pipeline(TfidfVectorizer(), TruncatedSVD(64))."
        )
    try:
        if get_tags(transformer).target_tags.required:
            raise RepresentationError(_supervised(name))
        output = clone(transformer).fit_transform(texts)
    except CausalRecError:
        raise
    except Exception as error:  # a transformer is the user's own code
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if "'y'" in why or "requires y" in why:
            raise RepresentationError(f"{_supervised(name)} ({why})") from error
        raise RepresentationError(
            f"transformer {name} failed on the {len(texts):,} distinct texts ({why})."
        ) from error
    return _as_vectors(output, len(texts), name), name


def _supervised(name: str) -> str:
    return (
        f"transformer {name} asks for an outcome y; embed passes texts only: a representation that has seen "
        "clicks must be fitted inside the folds. Take an unsupervised one."
    )


def _as_vectors(output: Any, n_texts: int, name: str) -> Floats:
    """The transformer's output as a dense, finite (n_texts, d) float32 matrix."""
    if issparse(output):
        if output.shape[1] > MOST_COLUMNS:
            raise RepresentationError(
                f"transformer {name} has {output.shape[1]:,} sparse columns, must be <= {MOST_COLUMNS:,}: "
                "put TruncatedSVD(64) behind it, or give the vectorizer max_features=."
            )
        output = output.toarray()
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused below
            vectors = np.ascontiguousarray(output, dtype=np.float32)
    except (TypeError, ValueError) as error:
        kind = type(output).__name__
        raise RepresentationError(
            f"transformer {name} returns a {kind} that is not numeric ({error})."
        ) from None
    if vectors.ndim != 2 or vectors.shape[0] != n_texts or vectors.shape[1] == 0:
        shape = f"({n_texts}, d) with d >= 1: one row a text"
        raise RepresentationError(f"transformer {name} returns shape {vectors.shape}, must be {shape}.")
    bad = int((~np.isfinite(vectors)).any(axis=1).sum())
    if bad:
        raise RepresentationError(
            f"transformer {name} returns NaN or infinity for {bad:,} of {n_texts:,} texts; must be finite."
        )
    return vectors
