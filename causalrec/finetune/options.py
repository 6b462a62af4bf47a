"""How a ranker is built and trained: options that travel together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from causalrec._checks import check_choice, check_flag, check_scalar
from causalrec.errors import ArgumentError

Kind = Literal["two-tower", "cross"]
Loss = Literal["pointwise", "pairwise"]
KINDS: tuple[Kind, ...] = ("two-tower", "cross")
LOGGERS = ("tensorboard", "mlflow", "wandb")
LOSSES: tuple[Loss, ...] = ("pointwise", "pairwise")


@dataclass(frozen=True)
class Head:
    """What stands on the encoder.

    Parameters
    ----------
    kind : "two-tower" or "cross"
        Two towers encode history and item apart, so that a million items are ranked by one product. A cross-encoder reads both
        together; its time grows with pairs.
    width : int
        Dimensions in which history and item meet: ⟨A h, B x⟩ / √d, d that of the encoder. Two towers only.
    hidden : int
        Units of a hidden layer on the item's vector; 0 is none.
    item_effects : bool
        An intercept of each item, learnt from other users' rows of it; an item not seen before has none.
    prior_variance : float
        Of each part of the log odds (item, history, match, item effects) before anything is learnt: less shrinks more. It counts
        the more the noisier the objective's weights and labels are (``objectives.dispersion``).
    dropout : float
        On the vectors, in [0, 1). On five logs of 100,000 rows .1 changed NDCG@10 by -.0006 ± .002 and .3 by -.005 (``benchmarks/debiased_finetuning.py --part
        dropout``); on Coat's 7,000 ratings the searches chose .4 over .1.
    """

    kind: Kind = "two-tower"
    width: int = 64
    hidden: int = 0
    item_effects: bool = False
    prior_variance: float = 0.1
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_scalar(self.prior_variance, "prior_variance", gt=0)
        check_choice(self.kind, "kind", KINDS)
        check_scalar(self.width, "width", ge=1, le=4096, integer=True)
        check_flag(self.item_effects, "item_effects")
        check_scalar(self.hidden, "hidden", ge=0, le=4096, integer=True)
        check_scalar(self.dropout, "dropout", ge=0, lt=1)


@dataclass(frozen=True)
class Training:
    """How long, how fast, on what, and what is kept on the way.

    Parameters
    ----------
    loss : "pointwise" or "pairwise"
        Pairwise compares rows of one user in one batch; training is then stopped, and objectives chosen, by pairs of held-out users' rows.
    batch_size : int
        Rows in one step of one process (under ``torchrun`` a step takes as many from each); rows of one user stay together.
    accumulate : int
        Batches whose gradients are added up before a step.
    learning_rate, head_rate : float or None
        Peak steps of AdamW, for the encoder (None: what suits the adapter) and for the head.
    weight_decay : float
    validation : float
        Share of the users that are held out: they stop the training, choose, and are what the evaluation is about. At least ten of them must have a row shown.
    patience : int
        Evaluations in a row after which training stops, if the held-out doubly robust loss is above the lowest by more than two standard
        errors of the paired difference in each. The latest state for which it is not is kept.
    save_steps : int or None
        Steps between two checkpoints; None is one an epoch.
    precision : "auto", "fp32" or "bf16"
    device : str or None
        ``"cpu"``, ``"cuda"``; None takes the fastest there is.
    max_length : int
        Tokens of a text that are read.
    report_to : tuple of str
        ``"tensorboard"``, ``"mlflow"``, ``"wandb"``: loggers of transformers, each with its own package. They have the held-out risks and the guard rails of each epoch.
    progress : bool
    """

    loss: Loss = "pointwise"
    batch_size: int = 256
    accumulate: int = 1
    learning_rate: float | None = None
    head_rate: float = 2e-3
    weight_decay: float = 0.01
    validation: float = 0.2
    patience: int = 2
    save_steps: int | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: str | None = None
    max_length: int = 64
    report_to: tuple[str, ...] = ()
    progress: bool = True

    def __post_init__(self) -> None:
        check_choice(self.loss, "loss", LOSSES)
        check_choice(self.precision, "precision", ("auto", "fp32", "bf16"))
        check_scalar(self.batch_size, "batch_size", ge=2, integer=True)
        check_scalar(self.accumulate, "accumulate", ge=1, integer=True)
        if self.learning_rate is not None:
            check_scalar(self.learning_rate, "learning_rate", gt=0, lt=1)
        check_scalar(self.head_rate, "head_rate", gt=0, lt=1)
        check_scalar(self.weight_decay, "weight_decay", ge=0)
        check_scalar(self.validation, "validation", gt=0, lt=0.9)
        check_scalar(self.patience, "patience", ge=1, integer=True)
        if self.save_steps is not None:
            check_scalar(self.save_steps, "save_steps", ge=1, integer=True)
        check_scalar(self.max_length, "max_length", ge=3, integer=True)
        if not isinstance(self.report_to, (tuple, list)) or not all(isinstance(r, str) for r in self.report_to):
            raise ArgumentError(f"report_to is {self.report_to!r}; must be a tuple of names, such as ('tensorboard',); () for none.")
        for one in self.report_to:
            check_choice(one, "report_to", LOGGERS)
        if self.device is not None and not isinstance(self.device, str):
            raise ArgumentError(f"device is {self.device!r}; must be a name such as 'cpu' or 'cuda', or None.")
        check_flag(self.progress, "progress")
