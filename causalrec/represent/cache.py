"""Vectors that were computed once, on disk: append-only shards that survive interruption and corruption.

A shard is one file, written under a temporary name and then renamed, so that it is there whole or not at all:
the keys ``(n, 16) uint8``, the vectors ``(n, d) float32`` (both as ``.npy``) and a checksum of the two.
Each writer makes files of its own, hence any number of processes may share a folder without locks.
Texts themselves are never written, only hashes of them.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from causalrec.errors import CausalRecWarning

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
KEY_BYTES = 16
SUFFIX = ".shard"


def default_folder() -> Path:
    """``$CAUSALREC_CACHE/embeddings`` if that variable is set, else ``~/.cache/causalrec/embeddings``."""
    root = os.environ.get("CAUSALREC_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "causalrec") / "embeddings"


def text_key(text: str) -> bytes:
    """The key of a text: a 128-bit hash of its UTF-8 bytes (lone surrogates allowed)."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


class VectorCache:
    """Vectors by key, for one fingerprint of what made them.

    Parameters
    ----------
    folder : Path
        Root folder; made when the first shard is written.
    fingerprint : str
        Whatever changes the vectors belongs into it. Each fingerprint has a sub-folder of its own.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder / hashlib.blake2b(fingerprint.encode(), digest_size=12).hexdigest()

    def lookup(self, keys: Sequence[bytes]) -> tuple[Ints, Floats]:
        """Find what is already there.

        Parameters
        ----------
        keys : sequence of n distinct keys

        Returns
        -------
        rows : (m,) positions in `keys` that were found, ascending
        vectors : (m, d) float32 of these; ``(0, 0)`` when nothing was found

        Warns
        -----
        CausalRecWarning
            A shard is truncated or corrupt. It is removed, and its texts count as not found.
        """
        wanted = {key: row for row, key in enumerate(keys)}
        rows: list[int] = []
        parts: list[Floats] = []
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            if not wanted:
                break
            hits = _matches(path, wanted)
            if not hits:
                continue
            vectors = _read_vectors(path)
            if vectors is None:
                _discard(path)
                continue
            parts.append(vectors[[row for row, _ in hits]])
            rows += [wanted.pop(key) for _, key in hits]
        if not rows:
            return np.empty(0, dtype=np.int64), np.empty((0, 0), dtype=np.float32)
        order = np.argsort(rows)
        return np.asarray(rows, dtype=np.int64)[order], np.concatenate(parts)[order]

    def append(self, keys: Sequence[bytes], vectors: Floats) -> bool:
        """Write one shard of `vectors` (n, d) under `keys`; False, with a warning, if the disk refuses."""
        body = io.BytesIO()
        np.save(body, np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), KEY_BYTES))
        np.save(body, np.ascontiguousarray(vectors, dtype=np.float32))
        content = body.getvalue()
        name = uuid4().hex
        temporary = self.folder / f"{name}.tmp"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content + _checksum(content))
            temporary.replace(self.folder / f"{name}{SUFFIX}")
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            warnings.warn(
                f"embeddings cannot be cached in {str(self.folder)!r} ({error.strerror or error}); "
                "the run goes on without. Pass cache_dir= a folder that can be written, or cache_dir=False.",
                CausalRecWarning,
                stacklevel=2,
            )
            return False
        return True


def _checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=KEY_BYTES).digest()


def _matches(path: Path, wanted: dict[bytes, int]) -> list[tuple[int, bytes]]:
    """(row in the shard, key) of each wanted key that the shard says it holds; reads the keys only."""
    try:
        with path.open("rb") as file:
            keys = np.load(file, allow_pickle=False)
        listed = keys.view(f"V{KEY_BYTES}").ravel().tolist()
    except FileNotFoundError:  # another process found it corrupt and removed it
        return []
    except (ValueError, OSError, EOFError):
        _discard(path)
        return []
    found = {key: row for row, key in enumerate(listed) if key in wanted}
    return [(row, key) for key, row in found.items()]


def _read_vectors(path: Path) -> Floats | None:
    """The shard's vectors, or None if what was read is not what was written."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    body, checksum = content[:-KEY_BYTES], content[-KEY_BYTES:]
    if _checksum(body) != checksum:
        return None
    stream = io.BytesIO(body)
    np.load(stream, allow_pickle=False)
    return np.load(stream, allow_pickle=False)


def _discard(path: Path) -> None:
    """Remove a bad shard, so that it is recomputed and the warning comes once."""
    try:
        path.unlink(missing_ok=True)
        done = "it was removed, and its texts are encoded again"
    except OSError as error:
        done = f"its texts are encoded again; it cannot be removed ({error.strerror})"
    warnings.warn(
        f"cached embeddings {str(path)!r} are truncated or corrupt; {done}.", CausalRecWarning, stacklevel=3
    )
