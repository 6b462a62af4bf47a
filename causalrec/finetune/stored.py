"""A ranker in a folder, and back: JSON, arrays and safetensors; nothing that could run code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any

import numpy as np

from causalrec.errors import OutputError, SavedError
from causalrec.finetune import adapters, objectives
from causalrec.finetune.choice import ObjectiveChoice
from causalrec.finetune.evaluation import Evaluation
from causalrec.finetune.feed import Feed, effects_of
from causalrec.finetune.fitting import Trained
from causalrec.finetune.folder import (
    MANIFEST,
    check_replaced,
    digest,
    holds_something,
    passing_folder,
    written,
)
from causalrec.finetune.guard_rails import GuardRails
from causalrec.finetune.labels import Labels
from causalrec.finetune.options import Head, Training
from causalrec.finetune.ranking import Ranking
from causalrec.finetune.rounds import Round
from causalrec.finetune.run_folder import WEIGHTS
from causalrec.finetune.weighing import Weighing
from causalrec.nuisance import Clip
from causalrec.represent.text import TextEmbedder
from causalrec.scores import Estimate

if TYPE_CHECKING:
    from causalrec.finetune.ranker import Ranker

Kinds = dict[str, type | UnionType]
FORMAT = 4
ARRAYS, WORDS = "arrays.npz", "words.json"
KNOWN: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        *(getattr(objectives, n) for n in ("Naive", "IPS", "SNIPS", "DR", "DRJL", "MRDR", "POEM", "BanditNet", "UpliftWeighted")),
        *(getattr(adapters, n) for n in ("Frozen", "LoRA", "IA3", "PrefixTuning", "PromptTuning", "FullTuning", "AdaLoRA")),
        Clip, Head, Training, GuardRails, Evaluation, Ranking, ObjectiveChoice, Round, Estimate,
    )
}  # fmt: skip
"""What a manifest may name; anything else in it is refused."""
OF_RANKER: Kinds = {
    "objective": objectives.Objective, "adapter": adapters.Adapter, "head": Head, "training": Training, "evaluation": Evaluation, "guard_rails": GuardRails,
    "choice": ObjectiveChoice | None, "epochs": int, "seed": int, "rounds": tuple, "notes": tuple, "roles": tuple,
}  # fmt: skip
OF_TRAINED: Kinds = {"history": tuple, "seconds": float | int, "n_trained": int, "n_weights": int, "rows_per_second": float | int, "kept": int}
OF_BASE: Kinds = {"model": str, "revision": str | None, "max_length": int, "fingerprint": str}
OF_ALL_LABELS: Kinds = {"clip": Clip, "logged": bool, "if_examined": bool}
OF_ALL: Kinds = {"has_history": bool, "weighed_by_default": bool}
OF_FEED = ("item", "starts", "members", "history", "item_effect")
OF_LABELS = ("t", "y", "e", "m0", "m1", "units", "items", "examined", "users")


def to_plain(value: Any) -> Any:
    """Dataclasses that are known, tuples, mappings and numbers as JSON; influence functions are left out."""
    if is_dataclass(value) and not isinstance(value, type):
        kept = {f.name: to_plain(getattr(value, f.name)) for f in fields(value) if f.name != "influence"}
        return {"is": type(value).__name__, **kept}
    if isinstance(value, dict):
        return {"is": "dict", "items": {str(k): to_plain(v) for k, v in value.items()}}
    if isinstance(value, (tuple, list)):
        return {"is": "tuple", "items": [to_plain(v) for v in value]}
    return value.item() if isinstance(value, np.generic) else value


def from_plain(value: Any) -> Any:
    """What ``to_plain`` was given; ``SavedError`` for a name that is not known."""
    if not isinstance(value, dict):
        return value
    name = value["is"]
    if name == "dict":
        return {k: from_plain(v) for k, v in value["items"].items()}
    if name == "tuple":
        return tuple(from_plain(v) for v in value["items"])
    if name not in KNOWN:
        raise SavedError(f"the manifest names {name!r}, which no ranker of this version has.")
    given = {k: from_plain(v) for k, v in value.items() if k != "is"}
    return KNOWN[name](**given, **({"influence": np.empty(0)} if name == "Estimate" else {}))


def save_ranker(ranker: Ranker, folder: Path, overwrite: bool) -> Path:
    """Write a ranker.

    Raises
    ------
    OutputError
        The folder holds something, or cannot be written.
    """
    from safetensors.torch import save_file

    from causalrec import __version__

    if not overwrite and holds_something(folder):
        raise OutputError(f"{folder} exists and is not empty; name another folder, or pass overwrite=True to replace a saved ranker.")
    check_replaced(folder, MANIFEST, "no ranker was saved there")
    with written(folder, "the ranker") as half:
        state = {n: v.detach().cpu().contiguous() for n, v in ranker.trained.network.learned().items()}
        save_file(state, str(half / WEIGHTS))
        np.savez(half / ARRAYS, **_arrays(ranker))
        words = {
            "known_items": ranker.known_items, "histories": ranker.histories,
            "replay": None if ranker.replay is None else ranker.replay.feed.texts,
        }  # fmt: skip
        (half / WORDS).write_text(json.dumps(words, ensure_ascii=False), encoding="utf-8")
        base = ranker.base
        manifest = {
            "weighed_by_default": ranker.weighing == Weighing(),
            "format": FORMAT, "causalrec": __version__, "summary": ranker.summary().splitlines(),
            "base": {"model": base.model, "revision": base.revision, "max_length": base.max_length, "fingerprint": base.fingerprint},
            "has_history": ranker.has_history, "ranker": {n: to_plain(getattr(ranker, n)) for n in OF_RANKER},
            "trained": {n: to_plain(getattr(ranker.trained, n)) for n in OF_TRAINED},
            "labels": None if ranker.replay is None else {n: to_plain(getattr(ranker.replay.labels, n)) for n in OF_ALL_LABELS},
            "files": {f.name: digest(f) for f in sorted(half.iterdir())},
        }  # fmt: skip
        (half / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")
    return folder


def load_ranker(folder: Path, device: str | None) -> Ranker:
    """Read a ranker.

    Raises
    ------
    SavedError
        Nothing was saved there, it is damaged or of another version, or the encoder's weights are others now.
    """
    from causalrec.finetune.ranker import Ranker, Replay
    from causalrec.represent.encoder import _device

    manifest = _manifest(folder)
    _check_files(folder, manifest.get("files"))
    with _described(folder):
        given, kept, held = (_part(manifest[n], kinds) for n, kinds in (("ranker", OF_RANKER), ("trained", OF_TRAINED), ("base", OF_BASE)))
        of_labels = None if manifest["labels"] is None else _part(manifest["labels"], OF_ALL_LABELS)
        of_all = _part(manifest, OF_ALL)
    given["training"] = replace(given["training"], device=device)
    base = TextEmbedder(held["model"], revision=held["revision"], max_length=held["max_length"], device=device)
    if base.fingerprint != held["fingerprint"]:
        raise SavedError(
            f"the ranker stands on the encoder {held['fingerprint']}, but {held['model']!r} is {base.fingerprint} here: another vocabulary or other weights. "
            "Take the encoder that it was trained on."
        )
    words = json.loads((folder / WORDS).read_text(encoding="utf-8"))
    with np.load(folder / ARRAYS, allow_pickle=False) as found:
        arrays = {n: found[n] for n in found.files}
    replay = None if words["replay"] is None or of_labels is None else Replay(*_rows(arrays, tuple(words["replay"]), of_labels))
    network, tokenizer = _network(folder, given, of_all["has_history"], effects_of(words["known_items"]), base)
    trained = Trained(network.eval().to(_device(device)), tokenizer, valid_scores=arrays["valid_scores"], **kept)
    histories = {user: tuple(h) for user, h in words["histories"].items()}
    return Ranker(
        **given, folder=passing_folder(), base=base, known_items=words["known_items"], histories=histories, has_history=of_all["has_history"],
        seen_units=arrays["seen_units"], held_units=arrays["held_units"], trained=trained, replay=replay,
        weighing=Weighing() if of_all["weighed_by_default"] else None,
    )  # fmt: skip


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SavedError(f"{folder} holds no saved ranker ({type(error).__name__}: {error}); Ranker.save writes one.") from error
    if not isinstance(found, dict):
        raise SavedError(f"{folder / MANIFEST} is damaged: it describes no ranker. Save the ranker again.")
    if found.get("format") != FORMAT:
        raise SavedError(f"{folder} has format {found.get('format')!r}, this version reads {FORMAT}; load it with causalrec {found.get('causalrec')}.")
    return found


def _check_files(folder: Path, files: Any) -> None:
    if not isinstance(files, dict) or set(files) != {WEIGHTS, ARRAYS, WORDS}:
        raise SavedError(f"{folder} is no whole ranker: the files that its {MANIFEST} names are {files!r}. Save the ranker again.")
    for name, known in files.items():
        if not (folder / name).is_file() or digest(folder / name) != known:
            raise SavedError(f"{folder / name} is missing or damaged; save the ranker again.")


@contextmanager
def _described(folder: Path) -> Iterator[None]:
    """Raise ``SavedError`` where the manifest lacks something, or has what cannot be."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise SavedError(f"{folder / MANIFEST} is damaged ({type(error).__name__}: {error}); save the ranker again.") from error


def _part(found: Any, kinds: Kinds) -> dict[str, Any]:
    """What the manifest says under these names; ``KeyError`` or ``TypeError`` where a value is missing or of another kind."""
    out = {name: from_plain(found[name]) for name in kinds}
    for name, value in out.items():
        if not isinstance(value, kinds[name]):
            raise TypeError(f"{name} is {value!r}")
    return out


def _arrays(ranker: Ranker) -> dict[str, Any]:
    out: dict[str, Any] = {"seen_units": ranker.seen_units, "held_units": ranker.held_units, "valid_scores": ranker.trained.valid_scores}
    if ranker.replay is not None:
        feed, labels = ranker.replay.feed, ranker.replay.labels
        out |= {f"feed_{n}": getattr(feed, n) for n in OF_FEED if getattr(feed, n) is not None}
        out |= {f"labels_{n}": getattr(labels, n) for n in OF_LABELS if getattr(labels, n) is not None}
    return out


def _rows(arrays: dict[str, Any], texts: tuple[str, ...], of_all: dict[str, Any]) -> tuple[Feed, Labels]:
    of_feed: dict[str, Any] = {n: arrays.get(f"feed_{n}") for n in OF_FEED}
    of_labels: dict[str, Any] = {n: arrays.get(f"labels_{n}") for n in OF_LABELS}
    return Feed(texts, **of_feed), Labels(**of_labels, **of_all)


def _network(folder: Path, given: dict[str, Any], has_history: bool, n_effects: int, base: TextEmbedder) -> tuple[Any, Any]:
    """The network with the weights that were saved, and its tokenizer."""
    from safetensors.torch import load_file

    from causalrec.finetune import towers

    reads_history = has_history and given["head"].kind == "two-tower"
    network, tokenizer = towers.build(base._files(), given["adapter"], given["head"], n_effects, reads_history, given["objective"].imputes, 1_000, 0)
    try:
        network.restore(load_file(str(folder / WEIGHTS)))
    except ValueError as error:
        raise SavedError(f"{folder / WEIGHTS} does not fit what its {MANIFEST} describes ({error}).") from error
    return network, tokenizer
