"""One training run: a network, an objective, rows; with checkpoints, so that a run that was cut off goes on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from causalrec.errors import ArgumentError, MissingExtraError
from causalrec.finetune import run_folder
from causalrec.finetune.adapters import Adapter
from causalrec.finetune.feed import Feed
from causalrec.finetune.labels import Labels
from causalrec.finetune.objectives import Objective, Rows, dispersion
from causalrec.finetune.options import Head, Training
from causalrec.finetune.stopping import Latest
from causalrec.represent.text import TextEmbedder

if TYPE_CHECKING:
    from causalrec.finetune.trainer import DebiasedTrainer

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Judged = tuple[dict[str, float], F64, npt.NDArray[np.int64]]
"""Metrics of the held-out users; the losses (m,) and user codes (m,) that stop the training."""
LOGGER_PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX")}
"""What a logger needs, one of them, where its package has not its name."""
WARM_UP = 0.06
LARGEST_GRADIENT = 1_000.0
"""Norm at which a gradient is cut: against explosions only. The customary 1 cuts the batches with large weights, which normalises by batch."""
KEPT = 2
LEAST_TOKENS = 3
COUNTS_FROM_PAD = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Encoders whose first position is that after the padding token's number."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained network and how it got there.

    Attributes
    ----------
    network, tokenizer : torch module and its tokenizer
    history : tuple of dict
        One record an epoch: training loss, held-out risks, guard rails of the weights.
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
    kept: int

    @property
    def memory(self) -> int:
        """Bytes of the weights in float32, of the gradients of those that learn and of AdamW's two moments; activations come on top."""
        return 4 * (self.n_weights + 3 * self.n_trained)


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

    import torch

    from causalrec.finetune import processes, towers
    from causalrec.finetune.trainer import DealRanks, DebiasedTrainer, mean_pair_mass, rank_allocator, restore
    from causalrec.represent.encoder import _device

    arguments = _arguments(output, training, epochs, seed, len(task.train), _device(training.device), adapter)
    with processes.first_goes_first():
        resume = run_folder.claim(output, identity)
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
        columns = task.labels.columns(getattr(objective, "clip", None)) | {"unit": task.labels.units, "half": task.labels.half}
        collator = towers.Collator(task.train, columns, tokens, tokenizer.pad_token_id or 0)

        def score(feed: Feed) -> F64:
            return towers.score_feed(network, feed, read(feed))

        def judge() -> Judged:
            return task.judge(score(task.valid), score)

        w = task.labels.t * columns["w1"]
        totals = float(task.labels.t.mean()), float(w.mean()), len(task.train)
        rows = Rows.of({n: torch.from_numpy(v) for n, v in columns.items() if n not in ("unit", "half")}, totals)
        mass = mean_pair_mass(*_weight_and_label(objective, rows), task.labels.units) if training.loss == "pairwise" else 1.0
        trainer = DebiasedTrainer(
            network, arguments, collator, objective, task.labels.units,
            totals, training.loss, mass, dispersion(objective, rows), judge,
            {"texts": training.learning_rate or adapter.rate, "head": training.head_rate}, training,
        )  # fmt: skip
        if rank_allocator(network) is not None:
            trainer.add_callback(DealRanks(network))
        over = run_folder.finished(output, resume, training.patience)
        if over is None:
            over = _trained(trainer, resume, len(task.train))
            if processes.is_first():
                over.write(output)
            processes.wait()
        else:
            restore(network, output / over.best)
    network.eval()
    learning = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return Trained(
        network, tokenizer, over.history, score(task.valid), over.seconds, learning, sum(p.numel() for p in network.parameters()),
        over.rows_per_second, over.kept,
    )  # fmt: skip


def _trained(trainer: DebiasedTrainer, resume: Path | None, n: int) -> run_folder.Finished:
    """Train to the end; the weights are then those of the best checkpoint."""
    began = 0.0 if resume is None else float(run_folder.state_of(resume)["epoch"])
    metrics = trainer.train(resume_from_checkpoint=None if resume is None else str(resume)).metrics
    seconds, epochs = float(metrics["train_runtime"]), float(trainer.state.epoch or 0) - began
    best = Path(str(trainer.state.best_model_checkpoint)).name
    return run_folder.Finished(best, run_folder.by_evaluation(trainer.state.log_history), seconds, n * epochs / max(seconds, 1e-9))


def steps_of(n: int, training: Training, epochs: int) -> int:
    """Steps of the optimiser in a whole run."""
    from causalrec.finetune import processes

    batches = processes.batches_of(n, training.batch_size, processes.count())
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


def need_device(name: str | None) -> None:
    """Raise ``ArgumentError`` unless torch finds this device here."""
    from causalrec.represent.encoder import _device

    need_trainer()
    _device(name)


def need_loggers(names: Sequence[str]) -> None:
    """Raise ``MissingExtraError`` unless the packages of these loggers are installed."""
    from importlib.util import find_spec

    for name in names:
        packages = LOGGER_PACKAGES.get(name, (name,))
        if not any(find_spec(p) for p in packages):
            raise MissingExtraError(f"report_to has {name!r}, which needs {packages[0]}, which is not installed: pip install {packages[0]}. Or leave it out of report_to.")


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
    room = most_tokens(network, adapter, training.max_length)
    kept: dict[int, list[tuple[int, ...]]] = {}

    def encode(feed: Feed) -> F32:
        if id(feed) not in kept:
            kept[id(feed)] = tokenize(tokenizer, feed.texts, room)
        return towers.encode_all(network, kept[id(feed)], tokenizer.pad_token_id or 0)

    return tokenize(tokenizer, task.train.texts, room), encode


def unit_vectors(trained: Trained, texts: Sequence[str], encoder: TextEmbedder, adapter: Adapter, max_length: int) -> F32:
    """(u, d) of texts by a trained network, or by the encoder that it left as it was."""
    from causalrec.finetune import towers

    if not adapter.tunes:
        return encoder.transform(texts)
    tokens = tokenize(trained.tokenizer, texts, most_tokens(trained.network, adapter, max_length))
    return towers.encode_all(trained.network, tokens, trained.tokenizer.pad_token_id or 0)


def most_tokens(network: Any, adapter: Adapter, max_length: int) -> int:
    """Tokens of a text that are read: at most the encoder's positions, less those of a prompt or a prefix."""
    config = network.texts.encoder.config
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return max_length
    taken = getattr(adapter, "tokens", 0) + (config.pad_token_id + 1 if config.model_type in COUNTS_FROM_PAD else 0)
    if positions - taken < LEAST_TOKENS:
        raise ArgumentError(f"the adapter takes {taken} of the encoder's {positions} positions, which leaves a text fewer than {LEAST_TOKENS}: take fewer tokens.")
    return min(max_length, positions - taken)


def tokenize(tokenizer: Any, texts: Any, max_length: int) -> list[tuple[int, ...]]:
    """Token ids of each text, cut at `max_length`."""
    clean = [t.encode("utf-8", "replace").decode() for t in texts]
    return [tuple(ids) for ids in tokenizer(clean, truncation=True, max_length=max_length)["input_ids"]] if clean else []


def _weight_and_label(objective: Objective, r: Rows) -> tuple[F64, F64]:
    """(n,) each; at the imputed label ½ where there is an imputation head."""
    import torch

    weight, label = objective.target(r, torch.zeros_like(r.y) if objective.imputes else None)
    return weight.double().numpy(), label.double().numpy()


def _arguments(output: Path, training: Training, epochs: int, seed: int, n: int, device: Any, adapter: Adapter) -> Any:
    """What ``transformers.Trainer`` is told; several processes meet here."""
    from transformers import TrainingArguments

    when = "epoch" if training.save_steps is None else "steps"
    often = training.save_steps or 500
    arguments = TrainingArguments(
        output_dir=str(output), per_device_train_batch_size=training.batch_size, gradient_accumulation_steps=training.accumulate,
        num_train_epochs=epochs, weight_decay=training.weight_decay, lr_scheduler_type="linear",
        warmup_steps=max(1, round(WARM_UP * steps_of(n, training, epochs))), max_grad_norm=LARGEST_GRADIENT, logging_strategy=when, logging_steps=often,
        eval_strategy=when, eval_steps=often, save_strategy=when, save_steps=often, save_total_limit=KEPT,
        load_best_model_at_end=True, metric_for_best_model=Latest.METRIC, greater_is_better=False,
        report_to=list(training.report_to) or "none", remove_unused_columns=False, disable_tqdm=True,
        use_cpu=device.type == "cpu", bf16=_half(training, device, adapter), dataloader_pin_memory=False, seed=seed, data_seed=seed,
        label_names=[], logging_nan_inf_filter=False, restore_callback_states_from_checkpoint=True, ddp_broadcast_buffers=False,
    )  # fmt: skip
    arguments._n_gpu = min(arguments.n_gpu, 1)  # one process uses one GPU: torch's DataParallel would cut histories in two
    return arguments


def _half(training: Training, device: Any, adapter: Adapter) -> bool:
    """Whether matrix products run in bfloat16."""
    from contextlib import nullcontext

    from causalrec.represent.trainable import half_precision

    if training.precision != "auto":
        return training.precision == "bf16"
    return adapter.tunes and not isinstance(half_precision(device), nullcontext)
