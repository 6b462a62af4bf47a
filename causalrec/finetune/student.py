"""The student of a distillation: layers of its teacher, and the training that brings its vectors to the teacher's. Needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainingArguments

from causalrec.errors import ArgumentError, RepresentationError
from causalrec.finetune.batches import RowNumbers
from causalrec.finetune.folder import copy_beside
from causalrec.finetune.towers import padded
from causalrec.represent.encoder import _load, _quiet_loading
from causalrec.represent.trainable import half_precision, pooled
from causalrec.represent.weights import ModelFiles

Floats = npt.NDArray[np.float32]
BATCH_TEXTS = 32
WARM_UP = 0.1


@dataclass(frozen=True, eq=False)
class Student:
    """A transformer of some of its teacher's layers, its tokenizer, and how it pools."""

    model: Any
    tokenizer: Any
    pooling: str
    teacher_layers: int
    n_teacher_weights: int

    @property
    def n_weights(self) -> int:
        """Weights that it has."""
        return sum(p.numel() for p in self.model.parameters())

    def write(self, source: Path, folder: Path) -> None:
        """Weights, configuration and tokenizer, and what stands beside the teacher's."""
        copy_beside(source, folder)
        with _quiet_loading():
            self.model.cpu().save_pretrained(folder)


def make_student(files: ModelFiles, layers: int) -> Student:
    """A copy of the encoder with `layers` of its layers, evenly spaced from the first to the last.

    Raises
    ------
    ArgumentError
        It has no more than that.
    RepresentationError
        The model is not one stack of layers.
    """
    config, tokenizer, model = _load(files.folder)
    n = int(getattr(config, "num_hidden_layers", 0))
    stacks = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.ModuleList) and n and len(m) == n]
    if len(stacks) != 1:
        raise RepresentationError(f"encoder {files.identity} ({config.model_type}) is not one stack of {n} layers; distil needs a BERT-like encoder.")
    if layers >= n:
        raise ArgumentError(f"layers is {layers}, must be < {n}, as many as the teacher has; a student of {max(1, n // 2)} is about half as dear.")
    size = sum(p.numel() for p in model.parameters())
    (name, stack), kept = stacks[0], np.linspace(0, n - 1, layers).round().astype(int) if layers > 1 else [n - 1]
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, nn.ModuleList(stack[int(i)] for i in kept))
    model.config.num_hidden_layers = layers
    return Student(model, tokenizer, files.pooling, n, size)


class _Pupil(nn.Module):
    """The student with its loss, as Trainer wants it."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.encoder, self.pooling = student.model, student.pooling

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, vectors: torch.Tensor) -> dict[str, torch.Tensor]:
        """``1 − cos`` to the teacher's unit vectors (b, d), averaged over the batch."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
        own = nn.functional.normalize(pooled(states, attention_mask, self.pooling), dim=1)
        cosine = (own * vectors).sum(dim=1)
        return {"loss": 1 - cosine.mean(), "cosine": cosine}


class _Trainer(Trainer):
    """Trainer with a loader of its own: theirs asks for a package by the name of a folder that many projects have."""

    train_dataset: RowNumbers

    def get_train_dataloader(self) -> DataLoader[int]:
        """Texts in an order that depends on the seed only."""
        order = torch.Generator().manual_seed(self.args.seed)
        loader: DataLoader[int] = DataLoader(
            self.train_dataset, batch_size=self.args.per_device_train_batch_size, shuffle=True, generator=order, collate_fn=self.data_collator
        )
        return self.accelerator.prepare(loader)  # type: ignore[no-any-return]


class _HeldOut(TrainerCallback):
    """Mean cosine on the texts held out, before training and after each epoch; and the progress bar."""

    def __init__(self, pupil: _Pupil, batches: list[dict[str, torch.Tensor]], progress: bool) -> None:
        self.pupil, self.batches, self.progress = pupil, batches, progress
        self.history: list[float] = []
        self.bar: Any = None

    def judge(self) -> None:
        """Note the mean cosine now."""
        self.pupil.eval()
        device = next(self.pupil.parameters()).device
        with torch.inference_mode(), half_precision(device):
            found = torch.cat([self.pupil(**{k: v.to(device) for k, v in b.items()})["cosine"] for b in self.batches])
        self.history.append(float(found.float().mean()))
        self.pupil.train()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before the first step."""
        self.judge()
        self.bar = tqdm(total=state.max_steps, desc="distilling", unit="step", delay=2, disable=not self.progress)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One step further."""
        self.bar.update()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After each epoch."""
        self.judge()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        self.bar.close()


def teach(
    student: Student, tokens: list[tuple[int, ...]], vectors: Floats, n_held: int, epochs: int, lr: float, seed: int, scratch: Path, progress: bool
) -> tuple[float, ...]:
    """Train the student on all texts but the first `n_held`; mean cosine on these, before and after each epoch.

    Parameters
    ----------
    tokens : sequence of n token sequences, in random order
    vectors : (n, d) of the teacher, of length 1
    """
    pad, targets = student.tokenizer.pad_token_id or 0, torch.from_numpy(np.ascontiguousarray(vectors))

    def collate(rows: list[int]) -> dict[str, torch.Tensor]:
        return padded([tokens[i] for i in rows], pad) | {"vectors": targets[rows]}

    pupil = _Pupil(student)
    held = [collate(list(range(i, min(i + BATCH_TEXTS, n_held)))) for i in range(0, n_held, BATCH_TEXTS)]
    steps = epochs * -(-(len(tokens) - n_held) // BATCH_TEXTS)
    trainer = _Trainer(
        model=pupil, args=_arguments(scratch, epochs, steps, lr, seed), data_collator=lambda rows: collate([n_held + i for i in rows]),
        train_dataset=RowNumbers(len(tokens) - n_held),
    )  # fmt: skip
    for theirs in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(theirs)
    judge = _HeldOut(pupil, held, progress)
    trainer.add_callback(judge)
    trainer.train()
    pupil.eval()
    return tuple(judge.history)


def _arguments(scratch: Path, epochs: int, steps: int, lr: float, seed: int) -> TrainingArguments:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with half_precision(device):
        fast = torch.is_autocast_enabled(device.type)
    return TrainingArguments(
        output_dir=str(scratch), num_train_epochs=epochs, per_device_train_batch_size=BATCH_TEXTS, learning_rate=lr, weight_decay=0.01,
        warmup_steps=round(WARM_UP * steps), lr_scheduler_type="linear", save_strategy="no", eval_strategy="no", logging_strategy="no", report_to="none",
        remove_unused_columns=False, use_cpu=device.type == "cpu", bf16=fast, seed=seed, data_seed=seed, disable_tqdm=True,
        dataloader_pin_memory=False,
    )  # fmt: skip
