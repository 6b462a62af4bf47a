"""One training run: a network, an objective, rows; with checkpoints, so that a run that was cut off goes on."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from causalrec.errors import MissingExtraError, OutputError, TrainingError
from causalrec.finetune.adapters import Adapter
from causalrec.finetune.feed import Feed
from causalrec.finetune.labels import Labels
from causalrec.finetune.objectives import Objective, Rows, dispersion
from causalrec.finetune.options import Head, Training
from causalrec.finetune.stopping import Latest
from causalrec.represent.text import TextEmbedder

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Judged = tuple[dict[str, float], F64, npt.NDArray[np.int64]]
WARM_UP = 0.06
LARGEST_GRADIENT = 1_000.0
"""Norm at which a gradient is cut: against explosions only. The customary 1 cuts the batches with large weights, which normalises by batch."""
KEPT = 2
IDENTITY, FINISHED = "run.json", "finished.json"
PREFIX, MARK = "checkpoint-", "complete.json"
"""A checkpoint's folder begins with the one; it is whole where it holds the other."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network and how it got there.

    Attributes
    ----------
    network, tokenizer : torch module and its tokenizer
    history : tuple of dict
        One record an epoch: training loss, held-out risks.
    valid_scores : (n,) of the held-out rows
    seconds : float
    n_trained, n_weights : weights that learn, and all
    rows_per_second : float
    kept : int
        Which record of `history` is that of the weights that were kept.
    """

    network: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    history: tuple[dict[str, float], ...]
    valid_scores: F64 = field(repr=False)
    seconds: float
    n_trained: int
    n_weights: int
    rows_per_second: float
    kept: int = -1


@dataclass(frozen=True, eq=False)
class Task:
    """What is trained on what.

    Attributes
    ----------
    train, valid : Feed
    labels : Labels
        Of the training rows.
    encoder : TextEmbedder
        The pretrained encoder.
    n_effects : int
    judge : callable
        Scores of the held-out rows (n,), and a function that scores any feed → metrics, ``eval_risk`` among them; and the losses (m,) and
        user codes (m,) that stop the training.
    start : mapping of name to tensor, or None
        Weights to begin with.
    """

    train: Feed
    valid: Feed
    labels: Labels
    encoder: TextEmbedder
    n_effects: int
    judge: Callable[[F64, Callable[[Feed], F64]], Judged]
    start: dict[str, Any] | None = None


def run(
    task: Task, objective: Objective, adapter: Adapter, head: Head, training: Training, epochs: int, output: Path, seed: int,
    identity: dict[str, Any],
) -> Trained:  # fmt: skip
    """Train, or go on with training, in the folder `output`.

    Raises
    ------
    TrainingError
        The loss is not finite, or the folder holds a run of something else.
    OutputError
        A checkpoint cannot be written; those before it are kept.
    MissingExtraError
        accelerate is not installed.
    """
    need_trainer()

    from causalrec.finetune import towers
    from causalrec.finetune.trainer import (
        DealRanks,
        DebiasedTrainer,
        last_checkpoint,
        mean_pair_mass,
        rank_allocator,
        restore,
    )
    from causalrec.represent.encoder import _device

    device = _device(training.device)
    resume = _claim(output, identity, last_checkpoint)
    steps = steps_of(len(task.train), training, epochs)
    with own_randomness(seed):
        network, tokenizer = towers.build(
            task.encoder._files(), adapter, head, task.n_effects, task.train.history is not None, objective.imputes, steps, seed
        )
        if task.start is not None:
            network.restore(task.start)
        elif objective.aims_at == "clicks":
            network.begin_at(float(np.clip((task.labels.t * task.labels.y).sum() / task.labels.t.sum(), 0.001, 0.999)))
        tokens, read = _reader(network, tokenizer, task, adapter, training)
        columns = task.labels.columns(getattr(objective, "clip", None)) | {"unit": task.labels.units}
        collator = towers.Collator(task.train, columns, tokens, tokenizer.pad_token_id or 0)

        def score(feed: Feed) -> F64:
            return towers.score_feed(network, feed, read(feed))

        def judge() -> Judged:
            return task.judge(score(task.valid), score)

        w = task.labels.t * columns["w1"]
        totals = float(task.labels.t.mean()), float(w.mean()), len(task.train)
        rows = _rows(columns, totals)
        mass = mean_pair_mass(*_weight_and_label(objective, rows), task.labels.units) if training.loss == "pairwise" else 1.0
        trainer = DebiasedTrainer(
            network, _arguments(output, training, epochs, seed, steps, device, adapter), collator, objective, task.labels.units,
            totals, training.loss, mass, dispersion(objective, rows), judge,
            {"texts": training.learning_rate or adapter.rate, "head": training.head_rate}, training,
        )  # fmt: skip
        if rank_allocator(network) is not None:
            trainer.add_callback(DealRanks(network))
        done = _finished(output) or _stopped(resume, training.patience)
        if done is not None:  # nothing is left to do: a run that stopped early must not go on because it is called again
            restore(network, output / str(done["best"]))
            learning = sum(p.numel() for p in network.parameters() if p.requires_grad)
            network.eval()
            return Trained(
                network, tokenizer, tuple(done["history"]), score(task.valid), done["seconds"], learning,
                sum(p.numel() for p in network.parameters()), done["rows_per_second"], _kept(done["history"], done["best"]),
            )  # fmt: skip
        began = len(task.train) * (0 if resume is None else json.loads((resume / "trainer_state.json").read_text())["epoch"])
        metrics = trainer.train(resume_from_checkpoint=None if resume is None else str(resume)).metrics
        seconds = float(metrics["train_runtime"])
        seen = len(task.train) * float(trainer.state.epoch or 0) - began
    network.eval()
    history, speed = _by_epoch(trainer.state.log_history), seen / max(seconds, 1e-9)
    best = Path(trainer.state.best_model_checkpoint or "").name
    if trainer.is_world_process_zero() and best:
        kept = {"best": best, "history": history, "seconds": seconds, "rows_per_second": speed}
        part = output / (FINISHED + ".part")
        part.write_text(json.dumps(kept))
        part.replace(output / FINISHED)
    learning = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return Trained(
        network, tokenizer, history, score(task.valid), seconds, learning, sum(p.numel() for p in network.parameters()), speed,
        _kept(history, best),
    )  # fmt: skip


def _finished(output: Path) -> dict[str, Any] | None:
    """What a run that came to its end left behind, or None."""
    file = output / FINISHED
    if not file.is_file():
        return None
    found: dict[str, Any] = json.loads(file.read_text())
    return found if (output / str(found["best"])).is_dir() else None


def _stopped(resume: Path | None, patience: int) -> dict[str, Any] | None:
    """The same of a run that was killed after it had stopped early and before it said so: transformers would train on."""
    if resume is None:
        return None
    state = json.loads((resume / "trainer_state.json").read_text())
    stopping = state["stateful_callbacks"].get("EarlyStoppingCallback", {}).get("attributes", {})
    best = Path(state["best_model_checkpoint"] or "").name
    if stopping.get("early_stopping_patience_counter", 0) < patience or not best or not (resume.parent / best).is_dir():
        return None
    return {"best": best, "history": _by_epoch(state["log_history"]), "seconds": 0.0, "rows_per_second": 0.0}


def _kept(history: Sequence[dict[str, float]], best: str) -> int:
    """Which record is that of a checkpoint, the last if none is."""
    step = int(best.removeprefix(PREFIX)) if best else -1
    return next((i for i, r in enumerate(history) if int(r.get("step", -2)) == step), len(history) - 1)


def steps_of(n: int, training: Training, epochs: int) -> int:
    """Steps of the optimiser in a whole run of one process."""
    batches = -(-n // training.batch_size)
    return epochs * -(-batches // training.accumulate)


def need_trainer() -> None:
    """Raise ``MissingExtraError`` unless what ``transformers.Trainer`` needs is installed."""
    from importlib.util import find_spec

    from causalrec.represent.weights import missing_extra

    for package in ("torch", "transformers"):
        if find_spec(package) is None:
            raise missing_extra(package)
    if find_spec("accelerate") is None:
        raise MissingExtraError('finetune needs accelerate, which is not installed: pip install "causalrec[finetune]".')


def _claim(output: Path, identity: dict[str, Any], last: Callable[[Path], Path | None]) -> Path | None:
    """Make the folder this run's; the checkpoint to go on from, None where it begins."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        file = output / IDENTITY
        if file.exists():
            held = json.loads(file.read_text())
            other = [k for k in identity if held.get(k) != identity[k]]
            if other:
                raise TrainingError(
                    f"{output} holds a run with another {', '.join(other)}: there it is {held.get(other[0])!r}, here {identity[other[0]]!r}. Name another "
                    "output folder, or remove this one."
                )
            return last(output)
        if any(output.iterdir()):
            raise OutputError(f"{output} is not empty and holds no run of finetune; name a new folder.")
        part = file.with_suffix(".part")
        part.write_text(json.dumps(identity, indent=1))
        part.replace(file)
    except (OSError, ValueError) as error:
        if isinstance(error, (TrainingError, OutputError)):
            raise
        raise OutputError(f"{output} cannot be used: {error}. Name another output folder.") from error
    return None


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """The global generators that transformers seeds, seeded here and put back afterwards."""
    import torch
    from transformers.utils import logging

    kept, of_numpy, of_python, level = torch.get_rng_state(), np.random.get_state(), random.getstate(), logging.get_verbosity()  # noqa: NPY002
    torch.manual_seed(seed)
    logging.set_verbosity_error()
    try:
        yield
    finally:
        torch.set_rng_state(kept)
        np.random.set_state(of_numpy)  # noqa: NPY002
        random.setstate(of_python)
        logging.set_verbosity(level)


def _reader(
    network: Any, tokenizer: Any, task: Task, adapter: Adapter, training: Training
) -> tuple[list[tuple[int, ...]] | None, Callable[[Feed], F32]]:
    """Tokens of the training texts, None where their vectors are known; and unit vectors (u, d) of any feed's texts."""
    from causalrec.finetune import towers

    if not adapter.tunes:
        known: dict[int, F32] = {}

        def look_up(feed: Feed) -> F32:
            if id(feed) not in known:
                known[id(feed)] = task.encoder.transform(feed.texts)
            return known[id(feed)]

        network.texts.load(look_up(task.train))
        return None, look_up
    kept: dict[int, list[tuple[int, ...]]] = {}

    def encode(feed: Feed) -> F32:
        if id(feed) not in kept:
            kept[id(feed)] = tokenize(tokenizer, feed.texts, training.max_length)
        return towers.encode_all(network, kept[id(feed)], tokenizer.pad_token_id or 0)

    return tokenize(tokenizer, task.train.texts, training.max_length), encode


def unit_vectors(trained: Trained, texts: Sequence[str], encoder: TextEmbedder, adapter: Adapter, max_length: int) -> F32:
    """(u, d) of texts by a trained network, or by the encoder that it left as it was."""
    from causalrec.finetune import towers

    if not adapter.tunes:
        return encoder.transform(texts)
    tokens = tokenize(trained.tokenizer, texts, max_length)
    return towers.encode_all(trained.network, tokens, trained.tokenizer.pad_token_id or 0)


def tokenize(tokenizer: Any, texts: Any, max_length: int) -> list[tuple[int, ...]]:
    """Token ids of each text, cut at `max_length`."""
    clean = [t.encode("utf-8", "replace").decode() for t in texts]
    return [tuple(ids) for ids in tokenizer(clean, truncation=True, max_length=max_length)["input_ids"]] if clean else []


def _rows(columns: dict[str, npt.NDArray[Any]], totals: tuple[float, float, int]) -> Rows:
    """All rows of the training log as an objective reads them."""
    import torch

    return Rows(
        **{k: torch.from_numpy(v) for k, v in columns.items() if k != "unit"}, share=totals[0], mean_w=totals[1], n=totals[2]
    )


def _weight_and_label(objective: Objective, r: Rows) -> tuple[F64, F64]:
    """(n,) each; at the imputed label ½ where there is an imputation head."""
    import torch

    weight, label = objective.target(r, torch.zeros_like(r.y) if objective.imputes else None)
    return weight.double().numpy(), label.double().numpy()


def _arguments(output: Path, training: Training, epochs: int, seed: int, steps: int, device: Any, adapter: Adapter) -> Any:
    """What ``transformers.Trainer`` is told."""
    from transformers import TrainingArguments

    when = "epoch" if training.save_steps is None else "steps"
    often = training.save_steps or 500
    return TrainingArguments(
        output_dir=str(output), per_device_train_batch_size=training.batch_size, gradient_accumulation_steps=training.accumulate,
        num_train_epochs=epochs, weight_decay=training.weight_decay, lr_scheduler_type="linear",
        warmup_steps=max(1, round(WARM_UP * steps)), max_grad_norm=LARGEST_GRADIENT, logging_strategy=when, logging_steps=often,
        eval_strategy=when, eval_steps=often, save_strategy=when, save_steps=often, save_total_limit=KEPT,
        load_best_model_at_end=True, metric_for_best_model=Latest.METRIC, greater_is_better=False,
        report_to=list(training.report_to) or "none", remove_unused_columns=False, disable_tqdm=True,
        use_cpu=device.type == "cpu", bf16=_half(training, device, adapter), dataloader_pin_memory=False, seed=seed, data_seed=seed,
        label_names=[], logging_nan_inf_filter=False, restore_callback_states_from_checkpoint=True,
    )  # fmt: skip


def _half(training: Training, device: Any, adapter: Adapter) -> bool:
    """Whether matrix products run in bfloat16."""
    from contextlib import nullcontext

    from causalrec.represent.trainable import half_precision

    if training.precision != "auto":
        return training.precision == "bf16"
    return adapter.tunes and not isinstance(half_precision(device), nullcontext)


def _by_epoch(log: list[dict[str, Any]]) -> tuple[dict[str, float], ...]:
    """The trainer's log, one record an evaluation."""
    out: dict[int, dict[str, float]] = {}
    for entry in log:
        kept = {k.removeprefix("eval_"): float(v) for k, v in entry.items() if isinstance(v, (int, float)) and k != Latest.METRIC}
        if "loss" in kept or "risk" in kept:
            out.setdefault(int(entry.get("step", 0)), {}).update(kept)
    return tuple(r for _, r in sorted(out.items()) if "risk" in r)
