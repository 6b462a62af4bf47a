"""``transformers.Trainer`` with a debiased loss, batches of whole users, and checkpoints that hold what was learnt. Needs torch."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tqdm import tqdm
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from causalrec.errors import OutputError, TrainingError
from causalrec.finetune.batches import Loader, RowNumbers, Shares, WholeUsers
from causalrec.finetune.fitting import Judged
from causalrec.finetune.objectives import Objective, Rows, pairwise_loss
from causalrec.finetune.options import Loss, Training
from causalrec.finetune.processes import wait
from causalrec.finetune.risk import LEAST_MASS
from causalrec.finetune.run_folder import PREFIX, WEIGHTS, last_checkpoint, mark_complete
from causalrec.finetune.stopping import Latest
from causalrec.finetune.towers import Collator, Network

Ints = npt.NDArray[np.int64]
ALLOCATOR = "allocator.pt"


class DebiasedTrainer(Trainer):
    """A trainer whose loss is an objective's, summed over a batch and divided by the batch size that was asked for.

    Parameters
    ----------
    network : Network
    args : TrainingArguments
    collator : Collator
    objective : Objective
    units : (n,) codes
    totals : (share shown, mean(T w), n) of the training log
    loss : "pointwise" or "pairwise"
    pair_mass : float
        Mean mass of pairs a row, by which a pairwise loss is divided: of the whole log, never of a batch.
    dispersion : float
        How many times the prior of the heads counts; see ``objectives.dispersion``.
    judge : callable
        () → metrics of the held-out users, ``eval_risk`` among them; and the losses (m,) and user codes (m,) that stop the training.
    rates : {"texts": float, "head": float}
        Peak learning rates of the encoder and of what stands on it.
    training : Training
    """

    def __init__(
        self, network: Network, args: TrainingArguments, collator: Collator, objective: Objective, units: Ints,
        totals: tuple[float, float, int], loss: Loss, pair_mass: float, dispersion: float, judge: Callable[[], Judged],
        rates: dict[str, float], training: Training,
    ) -> None:  # fmt: skip
        self.objective: Objective = objective
        self.units, self.totals, self.judge, self.rates = units, totals, judge, rates
        self.latest = Latest()
        self.pairwise, self.pair_mass, self.dispersion = loss == "pairwise", pair_mass, dispersion
        super().__init__(
            model=network, args=args, data_collator=collator, train_dataset=RowNumbers(len(units)),
            eval_dataset=RowNumbers(1),
        )  # fmt: skip
        self.model_accepts_loss_kwargs = False
        for theirs in (PrinterCallback, ProgressCallback):
            self.remove_callback(theirs)
        self.add_callback(_Complete())
        self.add_callback(EarlyStoppingCallback(training.patience))
        if training.progress:
            self.add_callback(_Progress(objective.name))

    def create_optimizer(self, model: Any = None) -> Any:
        """AdamW, one step size for the encoder and one for the head, which is not decayed where it is one number.

        A pairwise loss has no gradient in the constant but what rounding leaves, of which AdamW would make whole steps: it stays where it began.
        """
        if self.optimizer is None:
            groups: dict[tuple[str, bool], list[Any]] = {}
            for name, p in self.accelerator.unwrap_model(self.model).named_parameters():
                if p.requires_grad and not (self.pairwise and name == "score.constant"):
                    groups.setdefault(("texts" if name.startswith("texts.") else "head", p.ndim > 1), []).append(p)
            self.optimizer = torch.optim.AdamW(
                [
                    {"params": some, "lr": self.rates[part], "weight_decay": self.args.weight_decay * wide}
                    for (part, wide), some in groups.items()
                ]
            )
        return self.optimizer

    def get_train_dataloader(self) -> Loader:
        """Batches of rows, this process's share of them (accelerate's own shares repeat rows at an epoch's end)."""
        order = WholeUsers(self.units, self.args.seed)
        shares = Shares(order, self.args.per_device_train_batch_size, self.args.process_index, self.args.world_size)
        return Loader(RowNumbers(len(self.units)), batch_sampler=shares, collate_fn=self.data_collator)

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """Σ of the rows' losses / batch size; with an imputation head, its loss is added, and touches no other weight."""
        rows = inputs.pop("rows")
        unit, half = rows.pop("unit"), rows.pop("half")
        r = Rows.of(rows, self.totals)
        f, g = model(**inputs)
        f = f.float()
        imputed, extra = None, torch.zeros((), device=f.device)
        if g is not None:
            imputed = g.float().gather(1, half[:, None]).squeeze(1).detach()
            other = g.float().gather(1, 1 - half[:, None]).squeeze(1)  # the head that learns from this user
            extra = self.objective.imputation_loss(f.detach(), other, r).sum()
        network = self.accelerator.unwrap_model(model)
        if self.pairwise:
            weight, label = self.objective.target(r, imputed)
            total = pairwise_loss(f, weight, label, unit).sum() / self.pair_mass
        else:
            total = self.objective.loss(f, r, imputed, network.memory).sum()
        loss = (total + extra) / self.args.per_device_train_batch_size + self.dispersion * network.penalty() / r.n
        return (loss, {"scores": f}) if return_outputs else loss

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """One batch; a loss or gradient that is not finite stops the training before it reaches the weights."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        fine = torch.isfinite(loss) and all(bool(torch.isfinite(g).all()) for g in gradients)
        if not fine:
            kept = last_checkpoint(Path(str(self.args.output_dir)))
            raise TrainingError(
                f"the loss is {float(loss):g} at step {self.state.global_step + 1}, epoch {self.state.epoch or 0:.2f}: it, or its gradient, is not finite. "
                f"{_told(inputs['rows'])} Take a smaller head_rate (learning_rate, for an encoder that learns) or more clipping. Kept: {'the weights before training' if kept is None else kept.name}."
            )
        return loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Metrics of the held-out users."""
        metrics, loss, units = self.judge()
        metrics[Latest.METRIC] = self.latest.order(loss, units)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(str(output_dir or self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        network = self.accelerator.unwrap_model(self.model)
        save_file({n: v.detach().cpu().contiguous() for n, v in network.learned().items()}, str(folder / WEIGHTS))
        allocator = rank_allocator(network)
        if allocator is not None:
            torch.save({k: getattr(allocator, k) for k in ("ipt", "exp_avg_ipt", "exp_avg_unc")}, folder / ALLOCATOR)
        self.latest.save(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        network = self.accelerator.unwrap_model(model or self.model)
        restore(network, Path(resume_from_checkpoint))
        self.latest.load(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        best = self.state.best_model_checkpoint
        if best is not None:
            restore(self.accelerator.unwrap_model(self.model), Path(best))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save; where that fails what was written of it goes, and the checkpoints before it stay."""
        folder = Path(str(self.args.output_dir)) / f"{PREFIX}{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:  # each library has its own word for a full disk
            shutil.rmtree(folder, ignore_errors=True)
            kept = last_checkpoint(Path(str(self.args.output_dir)))
            raise OutputError(
                f"checkpoint at step {self.state.global_step} cannot be written to {self.args.output_dir}: {error}. Make room there and call again with the "
                f"same output: {'nothing was saved before' if kept is None else f'it goes on from {kept.name}'}."
            ) from error


def _told(rows: dict[str, torch.Tensor]) -> str:
    """What stands out of a batch's rows, as columns by name."""
    odd = [name for name, v in rows.items() if v.is_floating_point() and name != "m0" and not bool(torch.isfinite(v).all())]
    largest = int((rows["t"] * rows["w1"]).argmax())
    return (
        f"Its batch has {len(rows['t'])} rows of {len(rows['unit'].unique())} users, the largest weight {float(rows['w1'][largest]):g}, the largest outcome "
        f"{float(rows['y'].abs().max()):g}{', and is not finite itself in ' + ', '.join(odd) if odd else ''}."
    )


class _Complete(TrainerCallback):
    """Marks a checkpoint as whole when all of it is written: a killed run leaves none that looks whole and is not."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        wait()
        folder = Path(args.output_dir) / f"{PREFIX}{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            mark_complete(folder, state.global_step)


class _Progress(TrainerCallback):
    """A bar for work of more than two seconds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=f"training, {self.name}", unit="step", delay=2)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.bar is not None:
            self.bar.update(1)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        if self.bar is not None and metrics:
            self.bar.set_postfix_str(f"held-out risk {metrics['eval_risk']:.4f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.bar is not None:
            self.bar.close()


class DealRanks(TrainerCallback):
    """AdaLoRA: deal the ranks after each step."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After the weights moved, while their gradients are there."""
        encoder: Any = self.network.texts.encoder
        encoder.base_model.update_and_allocate(state.global_step)


def rank_allocator(network: Network) -> Any:
    """AdaLoRA's, or None."""
    encoder = getattr(network.texts, "encoder", None)
    return getattr(getattr(encoder, "base_model", None), "rankallocator", None)


def restore(network: Network, folder: Path) -> None:
    """Give a network what a checkpoint holds."""
    try:
        network.restore(load_file(str(folder / WEIGHTS)))
    except (OSError, ValueError, SafetensorError) as error:
        raise TrainingError(
            f"{folder} does not fit this network ({error}): it was trained with another encoder, adapter or head. Name another output folder, or take the "
            "options that it was trained with."
        ) from error
    allocator = rank_allocator(network)
    if allocator is not None and (folder / ALLOCATOR).is_file():
        for name, value in torch.load(folder / ALLOCATOR, weights_only=True).items():
            setattr(allocator, name, value)


def mean_pair_mass(weight: npt.NDArray[Any], label: npt.NDArray[Any], units: Ints) -> float:
    """Σ over users of Σ_{i ≠ j} w_i y_i w_j (1 − y_j), a row: what a pairwise loss is divided by."""
    good, bad = weight * label, weight * (1 - label)
    pairs = np.bincount(units, good) * np.bincount(units, bad) - np.bincount(units, good * bad)
    if pairs.sum() < LEAST_MASS * len(units):
        raise TrainingError(
            f"pairs of a clicked and another row of one user have a mass of {pairs.sum() / len(units):.2g} a row, must be >= {LEAST_MASS:g}: users have one row "
            "each, or hardly a click. Declare unit=, or take Training(loss='pointwise')."
        )
    return float(pairs.sum() / len(units))
