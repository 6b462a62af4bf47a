"""Folders that appear when they are complete, or not at all; and what is copied and checked in them."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from os import PathLike
from pathlib import Path

from causalrec.errors import ArgumentError, OutputError

MANIFEST = "ranker.json"
"""Describes a saved ranker."""
COPIED = ("config.json", "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "*.model", "modules.json", "causalrec_*.json", "causalrec_*.npy")  # fmt: skip


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


def digest(path: Path) -> str:
    """Sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="causalrec-")


def passing_folder() -> Path:
    """A new folder that is gone when Python ends."""
    return Path(tempfile.mkdtemp(dir=_scratch().name))


def as_folder(folder: str | PathLike[str], kind: str = "a") -> Path:
    """The folder as a path, or ``ArgumentError``."""
    if not isinstance(folder, (str, PathLike)) or not str(folder):
        raise ArgumentError(f"folder is {folder!r}, must be the path of {kind} folder.")
    return Path(folder)


def new_folder(folder: str | PathLike[str], verb: str) -> Path:
    """The folder as a path; ``OutputError`` if something stands there."""
    path = as_folder(folder, "a new")
    if holds_something(path):
        raise OutputError(f"{path} exists and is not empty, must be a new or an empty folder; {verb} overwrites nothing. Name another one.")
    return path


def holds_something(path: Path) -> bool:
    """Whether it is a file, or a folder that is not empty."""
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def check_replaced(folder: Path, mark: str, why: str) -> None:
    """Raise ``OutputError`` where a folder that is about to be replaced holds something without a file of this name."""
    if holds_something(folder) and not (folder / mark).is_file():
        raise OutputError(f"{folder} holds no {mark}, so that {why}; it is not replaced. Name another folder, or move what is there.")


def copy_beside(source: Path, target: Path) -> None:
    """Configuration, tokenizer, pooling, and whatever causalrec has noted beside an encoder."""
    for path in sorted({p for pattern in COPIED for p in source.glob(pattern) if p.is_file()}):
        shutil.copy(path, target / path.name)
    if (source / "1_Pooling").is_dir():
        shutil.copytree(source / "1_Pooling", target / "1_Pooling", dirs_exist_ok=True)
