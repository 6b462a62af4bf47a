"""Find a file of a data set: the folder that the user names, then the cache, then its public source."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import urllib.error
import urllib.request
import warnings
import zipfile
from pathlib import Path

from causalrec.datasets.sources import Source, SourceFile
from causalrec.errors import CausalRecWarning, DataUnavailableError

_TIMEOUT_S = 60


def cache_folder() -> Path:
    """``CAUSALREC_CACHE`` if it is set, else ``~/.cache/causalrec``."""
    named = os.environ.get("CAUSALREC_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "causalrec"


def locate(source: Source, path: str) -> Path:
    """The file at `path` of `source`, on this machine; downloaded once where it is not.

    Looked for in the folder named by ``CAUSALREC_DATA``, in ``cache_folder()/data``, then at its URL. A
    download is kept only if its sha256 is as listed; a file in the user's own folder that differs is used,
    with a warning.

    Raises
    ------
    DataUnavailableError
        It is in none of the three places; the message says what to fetch from where and where to put it.
    """
    file = source.file(path)
    own = os.environ.get("CAUSALREC_DATA")
    if own and (found := Path(own).expanduser() / path).is_file():
        if _sha256(found.read_bytes()) != file.sha256:
            warnings.warn(
                f"{str(found)!r} is not the file that this loader was tested with "
                f"(its sha256 is not {file.sha256[:12]}…); check what is read from it.",
                CausalRecWarning,
                stacklevel=3,
            )
        return found
    kept = cache_folder() / "data" / path
    if not (kept.is_file() and _sha256(kept.read_bytes()) == file.sha256):
        _keep(_download(source, file), kept)
    return kept


def _download(source: Source, file: SourceFile) -> bytes:
    if file.url is None:
        raise DataUnavailableError(
            f"{file.path} has no address that it can be fetched from as it is. {_by_hand(source, file)}"
        )
    try:
        with urllib.request.urlopen(file.url, timeout=_TIMEOUT_S) as answer:
            content: bytes = answer.read()
        if file.member is not None:
            content = zipfile.ZipFile(io.BytesIO(content)).read(file.member)
    except (urllib.error.URLError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise DataUnavailableError(
            f"{file.url} cannot be fetched ({error}). {_by_hand(source, file)}"
        ) from error
    if (digest := _sha256(content)) != file.sha256:
        raise DataUnavailableError(
            f"{file.url} has sha256 {digest}, must be {file.sha256}: "
            f"it is not the listed file, and was not kept. {_by_hand(source, file)}"
        )
    return content


def _by_hand(source: Source, file: SourceFile) -> str:
    return (
        f"Get it from {source.page} (terms: {source.terms}), save it as {file.path} in a folder of your own, "
        "and set CAUSALREC_DATA to that folder."
    )


def _keep(content: bytes, path: Path) -> None:
    """Write beside the place, then move into it: a file in the cache is whole or not there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as part:
            part.write(content)
        os.replace(part.name, path)
    except OSError as error:
        raise DataUnavailableError(
            f"{str(path)!r} cannot be written ({error}); set CAUSALREC_CACHE to a folder that can be."
        ) from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
