"""The verb ``finetune``: a log in, a ranker out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from causalrec._checks import as_generator, check_path, check_scalar
from causalrec.errors import ArgumentError, LogError
from causalrec.finetune.adapters import Adapter, Frozen
from causalrec.finetune.choice import Auto
from causalrec.finetune.fitting import need_device
from causalrec.finetune.gates import check_encoder
from causalrec.finetune.objectives import Objective
from causalrec.finetune.options import Head, Training
from causalrec.finetune.preparation import Job
from causalrec.finetune.processes import check_shared
from causalrec.finetune.ranker import Ranker
from causalrec.finetune.weighing import RandomData, Weighing
from causalrec.log import ImpressionLog
from causalrec.represent.text import TextEmbedder


def finetune(
    log: ImpressionLog,
    *,
    objective: Objective | Auto | None = None,
    adapter: Adapter | None = None,
    head: Head | None = None,
    epochs: int = 3,
    training: Training | None = None,
    weighing: Weighing | None = None,
    random_data: RandomData | None = None,
    encoder: TextEmbedder | None = None,
    output: str | Path | None = None,
    random_state: int | np.random.Generator | None = None,
) -> Ranker:
    """Train a ranker on what was shown as if all impressions of the log had been.

    A part of the users is held out: they stop the training and are what the evaluation is about. P(shown) is the logged
    propensity, or is estimated like the outcome by cross-fitting over the training users.

    Parameters
    ----------
    log : ImpressionLog
        Treatment: shown or not, candidates that were not shown included. Outcome: clicked, 0 or 1; what it is in rows that
        were not shown matters to ``UpliftWeighted`` and ``BanditNet`` only, and to the value in caused clicks. With text, and perhaps history, unit and item.
    objective : Objective or Auto
        Default ``Auto()``: naive, SNIPS, DR, DR-JL and MRDR compete on held-out users.
    adapter : Adapter
        Which weights of the encoder learn; default ``Frozen()``, the head alone.
    head : Head
    epochs : int
        At most; training stops earlier where the held-out risk rises beyond doubt (``Training.patience``).
    training : Training
    weighing : Weighing
    random_data : RandomData
    encoder : TextEmbedder
        To start from.
    output : path or None
        A folder for checkpoints and the tuned encoder. A run that was cut off goes on there when it is called again with the
        same arguments. Processes that train together (``torchrun``) need one that all of them see. None is a temporary folder, which is gone when Python ends; ``Ranker.save`` keeps the ranker.
    random_state : int, Generator or None

    Returns
    -------
    Ranker

    Raises
    ------
    OverlapError
        The propensities support nothing: what was shown was certain, or all weight lies on a few rows.
    TrainingError
        The loss is not finite, or the folder holds another run.
    EstimationError
        Too few rows were shown or not, too few held-out users were shown anything, or all outcomes are the same.
    LogError, ArgumentError, MissingExtraError, OutputError
    """
    _check(log, objective, adapter, head, training, weighing, random_data, encoder)
    epochs = check_scalar(epochs, "epochs", ge=1, le=1000, integer=True)
    check_path(output, "output")
    check_shared(output)
    if training is not None:
        need_device(training.device)
    seed = int(as_generator(random_state).integers(2**31))
    job = Job(
        log, objective or Auto(), adapter or Frozen(), head or Head(), epochs, training or Training(), weighing or Weighing(),
        random_data or RandomData(), encoder or TextEmbedder(), seed,
    )  # fmt: skip
    return job.prepared().ranker(output)


def _check(log: Any, *given: Any) -> None:
    if not isinstance(log, ImpressionLog):
        raise ArgumentError(f"finetune takes an ImpressionLog, got a {type(log).__name__}; read_log makes one of a table.")
    kinds: tuple[tuple[str, Any], ...] = (
        ("objective", (Objective, Auto)), ("adapter", Adapter), ("head", Head), ("training", Training), ("weighing", Weighing),
        ("random_data", RandomData), ("encoder", TextEmbedder),
    )  # fmt: skip
    for value, (name, kind) in zip(given, kinds, strict=True):
        if value is not None and not isinstance(value, kind):
            hint = f" Did you mean {value.__name__}()?" if isinstance(value, type) else ""
            raise ArgumentError(f"{name} is {value!r}; must be one of causalrec's objects for it, or None.{hint}")
    if given[-1] is not None:
        check_encoder(given[-1])
    log.require_kind("binary", "finetune")
    if not log.roles.text:
        raise LogError("the log declares no text, so there is nothing to train an encoder on; name it in read_log(text=...).")
    if log.roles.weight:
        raise LogError(
            f"the log declares row weights ({log.roles.weight[0]!r}), which finetune would leave out of its losses and of its evaluation: draw rows by their "
            "weight, or read the log without weight=."
        )
    if log.roles.unit and log.n_units < 20:
        raise LogError(f"the log has {log.n_units} users, must have >= 20: some are held out, and the rest is dealt to folds.")
