"""The manifest of a saved result: what wrote it, with which versions, and what its files must be."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from causalrec import __version__
from causalrec.errors import SavedError

FORMAT = 1
MANIFEST = "manifest.json"
PACKAGES = ("causalrec", "python", "numpy", "pandas", "scikit-learn", "econml")


def versions() -> dict[str, str]:
    """Versions of what a pickle depends on."""
    own = {"causalrec": __version__, "python": platform.python_version()}
    return own | {name: version(name) for name in PACKAGES if name not in own}


def sha256(path: Path) -> str:
    """Hash of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(home: Path) -> dict[str, Any]:
    """The manifest of a folder.

    Raises
    ------
    SavedError
        There is none, it is damaged, or of a format to come.
    """
    if not home.is_dir():
        what = "is a file" if home.exists() else "does not exist"
        raise SavedError(f"{home} {what}; name the folder that save wrote.")
    path = home / MANIFEST
    if not path.is_file():
        raise SavedError(f"{home} has no {MANIFEST}, so save did not write it, or not to the end.")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found = manifest["format"]
        if isinstance(found, int) and found > FORMAT:
            raise SavedError(
                f"{home} has format {found}, this causalrec {__version__} reads up to {FORMAT}; upgrade causalrec."
            )
        named = {key: dict(manifest[key]) for key in ("versions", "files")}
        return {**manifest, **named, "what": str(manifest["what"])}
    except (ValueError, KeyError, TypeError) as error:
        raise SavedError(f"{path} is damaged ({type(error).__name__}: {error}); save it again.") from error


def check_versions(home: Path, written: dict[str, str]) -> None:
    """Raise ``SavedError`` unless causalrec is the same, and of everything else the first two numbers."""
    here = versions()
    other = [
        f"{name} {written.get(name, '?')} (here {here[name]})"
        for name in PACKAGES
        if _matters(name, written.get(name, "?")) != _matters(name, here[name])
    ]
    if other:
        raise SavedError(
            f"{home} was saved with {', '.join(other)}. Pickles of other versions may fail or give other numbers: use those "
            "versions, fit again, or pass trust_versions=True and compare the summary with that in the manifest."
        )


def _matters(name: str, number: str) -> list[str]:
    return [number] if name == "causalrec" else number.split(".")[:2]


def check_files(home: Path, files: dict[str, Any]) -> None:
    """Raise ``SavedError`` unless every file is there and as it was written."""
    for name, said in files.items():
        path = home / name
        if path.name != name or not path.is_file():
            raise SavedError(
                f"{home} lacks {name!r}, which its {MANIFEST} lists; copy the folder again, whole."
            )
        if sha256(path) != said["sha256"]:
            raise SavedError(
                f"{path} is not as it was written ({path.stat().st_size:,} bytes, {said['bytes']:,} then; its sha256 differs); copy the folder again."
            )
