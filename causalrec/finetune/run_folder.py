"""The folder of a training run: whose it is, which checkpoints are whole, and what a run that is over left in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from causalrec.errors import OutputError, TrainingError
from causalrec.finetune.folder import MANIFEST, digest
from causalrec.finetune.stopping import Latest

RUN, RUNS = "run", "runs"
"""In the folder that ``finetune`` was given: the run of one objective; those of several, each in a folder of its name."""
IDENTITY, FINISHED = "run.json", "finished.json"
PREFIX, MARK = "checkpoint-", "complete.json"
"""A checkpoint's folder begins with the one; it is whole where it holds the other."""
WEIGHTS = "learned.safetensors"


@dataclass(frozen=True)
class Finished:
    """A run that is over.

    Attributes
    ----------
    best : str
        Name of the checkpoint that was kept.
    history : tuple of dict
        One record an evaluation.
    seconds, rows_per_second : float
        Of the last call that trained.
    """

    best: str
    history: tuple[dict[str, float], ...]
    seconds: float
    rows_per_second: float

    @property
    def kept(self) -> int:
        """Which record of `history` is that of the checkpoint that was kept."""
        step = float(self.best.removeprefix(PREFIX))
        return next(i for i, r in enumerate(self.history) if r["step"] == step)

    def write(self, output: Path) -> None:
        """Put it into the run's folder."""
        with room_for(output, "that the run is over"):
            _put(output / FINISHED, asdict(self))

    @classmethod
    def read(cls, file: Path) -> Finished | None:
        """What ``write`` wrote; None where there is nothing, or nothing whole."""
        try:
            said = json.loads(file.read_text())
            return cls(str(said["best"]), tuple(dict(r) for r in said["history"]), float(said["seconds"]), float(said["rows_per_second"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None


def claim(output: Path, identity: dict[str, Any]) -> Path | None:
    """Make the folder this run's; the checkpoint to go on from, None where it begins.

    Raises
    ------
    TrainingError
        It holds a run of something else.
    OutputError
        It holds other things, or cannot be written to.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        if (output / IDENTITY).exists():
            _check_identity(output, identity)
            return last_checkpoint(output)
        if any(output.iterdir()):
            raise OutputError(f"{output} is not empty and holds no run of finetune; name a new folder.")
        _put(output / IDENTITY, identity)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{output} cannot be used: {error}. Name another output folder.") from error
    return None


def check_runs(folder: Path, identities: Mapping[str, dict[str, Any]]) -> None:
    """Refuse a folder with runs other than these, by objective, before any of them begins; nothing is written.

    Raises
    ------
    TrainingError
        It holds a run of another objective, or of something else.
    OutputError
        It holds a saved ranker, or what a run is cannot be read.
    """
    if (folder / MANIFEST).is_file():
        raise OutputError(f"{folder} holds a saved ranker, and saving over it would take the checkpoints away; name another output folder.")
    mine = {folder / RUNS / name.lower() if len(identities) > 1 else folder / RUN: identity for name, identity in identities.items()}
    for run in runs_in(folder):
        if run not in mine:
            raise TrainingError(f"{folder} holds a run with another objective ({run.relative_to(folder)}). Name another output folder, or remove this one.")
        _check_identity(run, mine[run])


def runs_in(folder: Path) -> list[Path]:
    """The runs of ``finetune`` with this output folder."""
    return [run for run in (folder / RUN, *sorted(folder.glob(f"{RUNS}/*"))) if (run / IDENTITY).is_file()]


def _check_identity(output: Path, identity: dict[str, Any]) -> None:
    file = output / IDENTITY
    try:
        held = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise OutputError(f"{output} cannot be used: {error}. Name another output folder.") from error
    if not isinstance(held, dict):
        raise OutputError(f"{file} is damaged: it holds no description of a run. Name another output folder, or remove {output}.")
    other = [k for k in identity if held.get(k) != identity[k]]
    if other:
        raise TrainingError(
            f"{output} holds a run with another {', '.join(other)}: there it is {held.get(other[0])!r}, here {identity[other[0]]!r}. Name another "
            "output folder, or remove this one."
        )


def mark_complete(folder: Path, step: int) -> None:
    """Say that all of a checkpoint is written."""
    with room_for(folder, "that the checkpoint is whole"):
        _put(folder / MARK, {"step": step, "sha256": {f.name: digest(f) for f in sorted(folder.iterdir()) if f.name != MARK}})


@contextmanager
def room_for(folder: Path, what: str) -> Iterator[None]:
    """Raise ``OutputError`` with advice where the disk refuses."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{what} cannot be written to {folder}: {error}. Make room there and call again with the same output: it goes on from the last whole checkpoint."
        ) from error


def last_checkpoint(output: Path) -> Path | None:
    """The newest checkpoint that is whole; halves of newer ones are removed."""
    newest = newest_whole(output)
    for newer in takewhile(lambda one: one != newest, _checkpoints(output)):
        shutil.rmtree(newer, ignore_errors=True)
    return newest


def newest_whole(output: Path) -> Path | None:
    """The newest checkpoint of a run that is whole."""
    return next((one for one in _checkpoints(output) if is_whole(one)), None)


def _checkpoints(output: Path) -> list[Path]:
    """Whole or not, the newest first."""
    found = [one for one in output.glob(PREFIX + "*") if one.name.removeprefix(PREFIX).isdigit()]
    return sorted(found, key=lambda one: int(one.name.removeprefix(PREFIX)), reverse=True)


def finished(output: Path, resume: Path | None, patience: int) -> Finished | None:
    """What a run that is over left behind: one that came to its end, or one that stopped early and was killed before it said so."""
    over = Finished.read(output / FINISHED)
    if over is None and resume is not None:  # transformers would train on
        state = state_of(resume)
        counted = state["stateful_callbacks"].get("EarlyStoppingCallback", {}).get("attributes", {})
        if counted.get("early_stopping_patience_counter", 0) >= patience:
            over = Finished(Path(state["best_model_checkpoint"]).name, by_evaluation(state["log_history"]), 0.0, 0.0)
    return over if over is not None and (output / over.best).is_dir() else None


def state_of(checkpoint: Path) -> dict[str, Any]:
    """What transformers keeps of a run in a checkpoint."""
    found: dict[str, Any] = json.loads((checkpoint / "trainer_state.json").read_text())
    return found


def by_evaluation(log: Iterable[dict[str, Any]]) -> tuple[dict[str, float], ...]:
    """The trainer's log, one record an evaluation."""
    out: dict[int, dict[str, float]] = {}
    for entry in log:
        kept = {k.removeprefix("eval_"): float(v) for k, v in entry.items() if isinstance(v, (int, float)) and k != Latest.METRIC}
        if "loss" in kept or "risk" in kept:
            out.setdefault(int(entry.get("step", 0)), {}).update(kept)
    return tuple(r for _, r in sorted(out.items()) if "risk" in r)


def is_whole(checkpoint: Path) -> bool:
    """Whether all of a checkpoint was written, and is as it was."""
    try:
        files = dict(json.loads((checkpoint / MARK).read_text())["sha256"])
        return WEIGHTS in files and all(digest(checkpoint / name) == known for name, known in files.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _put(file: Path, held: dict[str, Any]) -> None:
    """Write a file that appears when it is complete."""
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(held, indent=1))
    part.replace(file)
