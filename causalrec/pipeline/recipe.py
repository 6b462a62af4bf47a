"""What a fine-tuning run is made of, from the words of a command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from causalrec._checks import check_choice, check_scalar
from causalrec.errors import ArgumentError
from causalrec.finetune import adapters, objectives
from causalrec.finetune.choice import Auto
from causalrec.finetune.examination import Method
from causalrec.finetune.options import Head, Training
from causalrec.finetune.weighing import Weighing
from causalrec.nuisance import Clip
from causalrec.represent.text import TextEmbedder

OBJECTIVES: dict[str, type[Any]] = {
    "auto": Auto, "naive": objectives.Naive, "ips": objectives.IPS, "snips": objectives.SNIPS, "dr": objectives.DR, "dr-jl": objectives.DRJL,
    "mrdr": objectives.MRDR, "poem": objectives.POEM, "banditnet": objectives.BanditNet, "uplift": objectives.UpliftWeighted,
}  # fmt: skip
ADAPTERS: dict[str, type[adapters.Adapter]] = {
    "frozen": adapters.Frozen, "lora": adapters.LoRA, "ia3": adapters.IA3, "prefix": adapters.PrefixTuning, "prompt": adapters.PromptTuning,
    "full": adapters.FullTuning, "adalora": adapters.AdaLoRA,
}  # fmt: skip
RANKED = ("lora", "adalora")
METHODS: tuple[Method, ...] = ("harvest", "em")


@dataclass(frozen=True)
class Recipe:
    """What ``cr.finetune`` takes beside a log, a folder and a seed."""

    objective: objectives.Objective | Auto
    adapter: adapters.Adapter
    head: Head
    training: Training
    weighing: Weighing
    encoder: TextEmbedder
    epochs: int
    examination: Method | None = None
    """How P(examined | position) is estimated from the log; None leaves clicks as they are."""


def recipe_of(
    *, objective: str, adapter: str, head: Any, loss: Any, rank: int | None, clip: float | None, epochs: int, batch_size: int | None,
    learning_rate: float | None, head_rate: float | None, max_length: int | None, validation: float | None, device: str | None,
    encoder: str | None, examination: Method | None = None, save_steps: int | None = None, report_to: tuple[str, ...] = (),
) -> Recipe:  # fmt: skip
    """The objects that an option's words name; None is their default.

    Raises
    ------
    ArgumentError
        A value is out of its bounds, or an option belongs to another choice.
    """
    check_scalar(epochs, "epochs", ge=1, le=1000, integer=True)
    rate, head_rate = _rates(adapter, learning_rate, head_rate)
    given = {
        "batch_size": batch_size, "learning_rate": rate, "head_rate": head_rate, "max_length": max_length, "validation": validation, "device": device,
        "save_steps": save_steps, "report_to": report_to,
    }  # fmt: skip
    training = Training(loss=loss, **{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]
    return Recipe(
        OBJECTIVES[check_choice(objective, "objective", list(OBJECTIVES))](), _adapter(adapter, rank), Head(kind=head), training,
        Weighing(clip=None if clip is None else Clip(clip)),
        TextEmbedder(device=device) if encoder is None else TextEmbedder(encoder, device=device), epochs,
        None if examination is None else check_choice(examination, "examination", METHODS),
    )  # fmt: skip


def _adapter(name: str, rank: int | None) -> adapters.Adapter:
    kind = ADAPTERS[check_choice(name, "adapter", list(ADAPTERS))]
    if rank is None:
        return kind()
    if name not in RANKED:
        raise ArgumentError(f"rank is {rank}, but the adapter is {name!r}; it belongs to {' and '.join(RANKED)}: leave it out, or say --adapter lora.")
    return adapters.LoRA(rank) if kind is adapters.LoRA else adapters.AdaLoRA(rank, 2 * rank)


def _rates(adapter: str, learning_rate: float | None, head_rate: float | None) -> tuple[float | None, float | None]:
    """Steps of the encoder's weights and of the head's; where the encoder is frozen the one rate is the head's."""
    if adapter != "frozen" or learning_rate is None:
        return learning_rate, head_rate
    if head_rate is not None:
        raise ArgumentError(
            f"learning_rate is {learning_rate:g} and head_rate {head_rate:g}, but the encoder is frozen and the head alone learns; give one of them."
        )
    return None, learning_rate
