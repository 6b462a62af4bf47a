"""A folder that appears when it is complete, or not at all."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from causalrec.errors import OutputError


@contextmanager
def written(folder: Path, what: str) -> Iterator[Path]:
    """A place beside `folder` to write to; it takes the folder's place at the end, and is gone where something fails.

    Raises
    ------
    OutputError
        The disk is full, or the place cannot be written to; what stood there before still stands.
    """
    from safetensors import SafetensorError

    place = folder.absolute()
    mark = secrets.token_hex(4)
    half, old = place.parent / f".{place.name}.{mark}", place.parent / f".{place.name}.{mark}.old"
    try:
        half.mkdir(parents=True)
        yield half
        if place.exists():
            place.rename(old)
        half.rename(place)
    except (OSError, RuntimeError, SafetensorError) as error:  # each library has its own word for a full disk
        if isinstance(error, RuntimeError) and "write" not in str(error).lower() and "file" not in str(error).lower():
            raise
        if old.exists() and not place.exists():
            old.rename(place)
        raise OutputError(f"{what} cannot be written to {folder}: {error}. What stood there before still stands.") from error
    finally:
        shutil.rmtree(half, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
