"""An encoder in ONNX, in int8 if wanted, that stands in for ``TextEmbedder`` wherever one is taken."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from causalrec._checks import check_scalar
from causalrec.errors import ArgumentError, MissingExtraError, ModelNotFoundError, SavedError
from causalrec.finetune.folder import digest, new_folder, written
from causalrec.represent.encoder import CPU_TOKENS, Encoder, _batches
from causalrec.represent.text import TextEmbedder
from causalrec.represent.weights import ModelFiles, missing_extra

if TYPE_CHECKING:
    from causalrec.finetune.export import ExportReport

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
FORMAT = 1
MANIFEST, NETWORK = "fast_encoder.json", "model.onnx"
INPUT, OUTPUT = "input_ids", "vectors"
SLOW_FUSION = "SkipLayerNormFusion"
"""Of onnxruntime: the sum and the norm as one step take four times as long on a CPU as one after the other."""


class FastEncoder(TextEmbedder):
    """Turn texts into unit vectors with an exported encoder, on onnxruntime; ``export_onnx`` makes its folder.

    It takes the place of a ``TextEmbedder`` everywhere: ``embed(log, fast)``, its cache, its fingerprint, and the memory
    of whose clicks it has seen. torch is not needed.

    Parameters
    ----------
    model : str
        The folder that ``export_onnx`` or ``save`` wrote. Every file in it is checked against its sha256.
    threads : int or None
        Batches that run at once, each on one thread. None is ``$OMP_NUM_THREADS``, or as many as there are cores.
    batch_size, max_length, cache_dir, progress
        As in ``TextEmbedder``; ``max_length`` is at most that of the model.

    Notes
    -----
    The int8 scales of the activations are constants, found when the encoder was exported, so that the vector of a text
    does not depend on its neighbours in a batch beyond the last bits of float32 sums (where such a bit decides how an
    activation is rounded, a coordinate moves by up to about 1e-3).

    Raises
    ------
    MissingExtraError
        onnxruntime or transformers (for the tokenizer) is not installed.
    ModelNotFoundError
        The folder is not there, or holds no exported encoder.
    SavedError
        A file of it is missing or damaged, or of a later format.
    """

    device = "cpu"
    revision = None

    def __init__(
        self,
        model: str,
        *,
        threads: int | None = None,
        batch_size: int | None = None,
        max_length: int = 256,
        cache_dir: str | PathLike[str] | Literal[False] | None = None,
        progress: bool = True,
    ) -> None:
        self.model = model
        self.threads = threads
        self.batch_size = batch_size
        self.max_length = max_length
        self.cache_dir = cache_dir
        self.progress = progress

    @property
    def report(self) -> ExportReport:
        """What was measured when the encoder was exported, and which gates it passed."""
        from causalrec.finetune.export import ExportReport

        found = read_manifest(Path(self.model)).get("report")
        if found is None:
            raise SavedError(f"{self.model} holds no report; export the encoder again.")
        return ExportReport(**found)

    def save(self, folder: str | PathLike[str]) -> Path:
        """Copy the encoder to a new folder, whole or not at all; ``FastEncoder(folder)`` reads it.

        Raises
        ------
        OutputError
            The folder holds something, or cannot be written.
        """
        source, target = self._files().folder, new_folder(folder, "save")
        with written(target, "the encoder") as half:
            shutil.copytree(source, half, dirs_exist_ok=True)
        return target

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.threads is not None:
            check_scalar(self.threads, "threads", ge=1, integer=True)

    def _files(self) -> ModelFiles:
        """The files, checked once."""
        if not isinstance(self.model, str) or not self.model:
            raise ArgumentError(f"model is {self.model!r}, must be the folder of an exported encoder, as a string.")
        known = self.__dict__.get("_located")
        if known is None or known[0] != (self.model, None):
            folder = Path(self.model)
            manifest = read_manifest(folder)
            check_files(folder, manifest["files"])
            others = "".join(v["sha256"] for k, v in sorted(manifest["files"].items()) if k != NETWORK and not k.startswith("causalrec_"))
            network, rest = manifest["files"][NETWORK]["sha256"], hashlib.sha256(others.encode()).hexdigest()
            identity = f"{folder.resolve().name}@{network[:12]}+{rest[:8]} onnx"
            known = self._located = ((self.model, None), ModelFiles(folder, identity, manifest["pooling"]))
        return known[1]

    def _encoder(self) -> Encoder:
        """The session, opened once per setting."""
        files = self._files()
        wanted = (files, self.threads, self.max_length, self.batch_size)
        known = self.__dict__.get("_loaded")
        if known is None or known[0] != wanted:
            session = Session(files, self.threads or default_threads(), self.max_length, self.batch_size)
            known = self.__dict__["_loaded"] = (wanted, session)
        return known[1]


class Session(Encoder):
    """An ONNX encoder that is open: batches of one length each, several at once, one thread each."""

    def __init__(self, files: ModelFiles, threads: int, max_length: int, batch_size: int | None) -> None:
        manifest = read_manifest(files.folder)
        self.files, self.batch_size, self.threads = files, batch_size, threads
        self._tokenizer = _tokenizer(files.folder)
        self._session = _open(files.folder / NETWORK)
        self.max_length = int(min(max_length, self._tokenizer.model_max_length, manifest["max_length"]))
        self.width = int(manifest["width"])

    def encode(self, tokens: Sequence[tuple[int, ...]]) -> Iterator[tuple[Ints, Floats]]:
        """As ``Encoder.encode``: (positions in `tokens`, their unit vectors (b, d)), longest first."""
        lengths = np.array([len(ids) for ids in tokens])
        batches = list(_batches(lengths, CPU_TOKENS, self.batch_size))
        pool = ThreadPoolExecutor(self.threads)
        try:
            yield from zip(batches, pool.map(lambda b: self.run([tokens[i] for i in b]), batches), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)

    def run(self, tokens: list[tuple[int, ...]]) -> Floats:
        """Unit vectors (b, d) of b token sequences of one length."""
        vectors: Floats = self._session.run([OUTPUT], {INPUT: np.array(tokens, dtype=np.int64)})[0]
        return vectors


def default_threads() -> int:
    """``$OMP_NUM_THREADS`` where that is a number, else the cores that this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked):
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def need(*packages: str) -> None:
    """Raise ``MissingExtraError`` for the first of these packages that is not installed."""
    for package in packages:
        if find_spec(package) is None:
            raise MissingExtraError(
                f'ONNX encoders need {package}, which is not installed: pip install "causalrec[onnx]". Or go on with TextEmbedder, which needs none.'
            )


def _open(path: Path) -> Any:
    """An inference session on the CPU, whose products run on one thread."""
    need("onnxruntime")
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("optimization.enable_gelu_approximation", "1")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=[SLOW_FUSION])
    except Exception as error:  # onnxruntime has some ten types of its own
        why = " ".join(str(error).split())[:200]
        raise SavedError(f"{path} cannot be opened by onnxruntime {ort.__version__} ({why}); export the encoder again, or upgrade onnxruntime.") from error


def _tokenizer(folder: Path) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise missing_extra("transformers") from error
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # transformers raises some ten types here
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise ModelNotFoundError(f"the tokenizer in {str(folder)!r} cannot be loaded ({why}); export the encoder again.") from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """What an exported encoder's folder says of itself."""
    path = folder / MANIFEST
    if not path.is_file():
        what = f"has no {MANIFEST}" if folder.is_dir() else "is no folder"
        raise ModelNotFoundError(f"{str(folder)!r} {what}, so it holds no exported encoder; make one with export_onnx(encoder, folder, texts=...).")
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        known = found["format"] == FORMAT and NETWORK in found["files"] and {"pooling", "width", "max_length"} <= found.keys()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SavedError(f"{path} is damaged ({type(error).__name__}: {error}); export the encoder again.") from error
    if not known:
        raise SavedError(f"{path} has format {found['format']!r} or lacks an entry; this version reads format {FORMAT}. Export the encoder again.")
    return found


def check_files(folder: Path, files: dict[str, dict[str, Any]]) -> None:
    """Raise ``SavedError`` unless every file is there and as it was written."""
    for name, said in files.items():
        path = folder / name
        found = digest(path) if path.is_file() else "no such file"
        if found != said["sha256"]:
            raise SavedError(f"{path} is missing or damaged (sha256 {found[:12]}, must be {said['sha256'][:12]}); copy the folder again, or export the encoder again.")
