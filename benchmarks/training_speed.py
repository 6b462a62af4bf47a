"""Rows per second of the debiased loop against a plain ``transformers.Trainer`` on the same network and batches.

    python benchmarks/training_speed.py [--rows 2000] [--pairs 5] [--objectives SNIPS DR ...]

Both sides encode each distinct text of a batch once and take the same batches of whole users; the plain side has the naive log loss,
without checkpoints or held-out users on either. Ratios are of neighbouring runs; medians. Writes
benchmarks/results/training_speed.json.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainingArguments

import causalrec as cr
from causalrec.finetune import towers
from causalrec.finetune.batches import Loader, RowNumbers, Shares, WholeUsers
from causalrec.finetune.fitting import steps_of, tokenize
from causalrec.finetune.labels import Labels
from causalrec.finetune.objectives import Objective
from causalrec.finetune.preparation import Job
from causalrec.finetune.trainer import DebiasedTrainer

OUT = Path(__file__).parent / "results" / "training_speed.json"


class Plain(Trainer):
    """The naive log loss, in the batches of whole users that the debiased side takes."""

    units: Any = None

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        rows = inputs.pop("rows")
        f, _ = model(**inputs)
        return torch.nn.functional.binary_cross_entropy_with_logits(f.float(), rows["y"])

    def get_train_dataloader(self) -> Any:
        shares = Shares(WholeUsers(self.units, self.args.seed), self.args.per_device_train_batch_size)
        return Loader(self.train_dataset, batch_sampler=shares, collate_fn=self.data_collator)


def prepared(rows: int) -> Any:
    log = cr.embed(cr.simulate(rows, n_users=rows // 20, n_items=rows // 8, random_state=990_001).log())
    one = cr.RidgeLogistic(variances=(0.1,))
    how = cr.Weighing(nuisances=cr.NuisanceRecipe(one, one))
    training = cr.Training(progress=False, batch_size=128, max_length=24)
    return Job(log, cr.SNIPS(), cr.LoRA(), cr.Head(), 1, training, how, cr.RandomData(), cr.TextEmbedder(), 0).prepared()


def seconds(p: Any, objective: Objective | None) -> float:
    """One epoch, the network made beforehand."""
    training, labels = p.job.training, p.labels
    imputes = objective is not None and objective.imputes
    steps = steps_of(len(labels), training, 1)
    network, tokenizer = towers.build(
        p.job.encoder._files(), p.job.adapter, p.job.head, 0, p.train_feed.history is not None, imputes, steps, 0
    )
    tokens = tokenize(tokenizer, p.train_feed.texts, training.max_length)
    columns: dict[str, Any] = labels.columns(None) | {"unit": labels.units, "half": labels.half}
    collator = towers.Collator(p.train_feed, columns, tokens, tokenizer.pad_token_id or 0)
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=training.batch_size, num_train_epochs=1, save_strategy="no",
            logging_strategy="no", report_to="none", remove_unused_columns=False, disable_tqdm=True, use_cpu=True, label_names=[],
            dataloader_pin_memory=False, learning_rate=1e-3,
        )  # fmt: skip
        if objective is None:
            trainer: Trainer = Plain(model=network, args=args, data_collator=collator, train_dataset=RowNumbers(len(labels)))
            trainer.units = labels.units  # type: ignore[attr-defined]
        else:
            trainer = debiased(p, labels, network, args, collator, objective)
        start = time.perf_counter()
        trainer.train()
        return time.perf_counter() - start


def debiased(p: Any, labels: Labels, network: Any, args: Any, collator: Any, objective: Objective) -> DebiasedTrainer:
    totals = float(labels.t.mean()), float((labels.t * labels.w1).mean()), len(labels)
    quiet = cr.Training(progress=False)
    trainer = DebiasedTrainer(
        network, args, collator, objective, labels.units, totals, "pointwise", 1.0, 1.0, lambda: ({}, np.zeros(1), np.zeros(1, dtype=int)),
        {"texts": 1e-3, "head": 2e-3}, quiet,
    )  # fmt: skip
    trainer.callback_handler.callbacks = [c for c in trainer.callback_handler.callbacks if "EarlyStopping" not in type(c).__name__]
    return trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--pairs", type=int, default=5)
    names = {o.name: o for o in (cr.SNIPS(), cr.IPS(), cr.DR(), cr.DRJL(), cr.MRDR())}
    parser.add_argument("--objectives", nargs="*", default=list(names), choices=list(names))
    asked = parser.parse_args()
    p = prepared(asked.rows)
    out: dict[str, Any] = (json.loads(OUT.read_text()) if OUT.exists() else {}) | {"rows": len(p.labels), "load": os.getloadavg()[0], "threads": torch.get_num_threads()}
    for objective in (names[name] for name in asked.objectives):
        ratios = []
        for k in range(asked.pairs):
            both = (None, objective) if k % 2 else (objective, None)
            took = {one is None: seconds(p, one) for one in both}
            ratios.append(took[True] / took[False])
        out[objective.name] = {"ratio": median(ratios), "low": min(ratios), "high": max(ratios), "pairs": asked.pairs}
        print(objective.name, {k: round(v, 3) for k, v in out[objective.name].items()}, flush=True)
        OUT.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
