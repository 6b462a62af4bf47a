"""Which weights of the encoder learn: none, a few (LoRA, IA3, prefix and prompt tuning; ``peft``), or all."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar

from causalrec._checks import check_scalar
from causalrec.errors import ArgumentError, MissingExtraError


@dataclass(frozen=True)
class Adapter:
    """What adapters share."""

    name: ClassVar[str] = ""
    rate: ClassVar[float] = 1e-3
    """Peak step of AdamW for the encoder's weights that learn."""
    mergeable: ClassVar[bool] = True
    """Whether what was learnt can be folded into the encoder's own weights."""
    tunes: ClassVar[bool] = True

    def apply(self, encoder: Any, steps: int) -> Any:
        """The encoder with the weights that learn; `steps` is how many there will be."""
        raise NotImplementedError


def _peft() -> Any:
    if find_spec("peft") is None:
        raise MissingExtraError(
            'this adapter needs peft, which is not installed: pip install "causalrec[finetune]". Or adapter=Frozen(), which trains the head alone.'
        )
    import peft

    return peft


def _wrapped(peft: Any, encoder: Any, config: Any) -> Any:
    """The encoder behind what `config` describes, without what the two libraries have to say to each other's authors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return peft.get_peft_model(encoder, config)


@dataclass(frozen=True)
class Frozen(Adapter):
    """The encoder stays as it is and the head learns: every text is encoded once, and an epoch takes seconds."""

    name: ClassVar[str] = "frozen"
    tunes: ClassVar[bool] = False

    def apply(self, encoder: Any, steps: int) -> Any:
        """The encoder, frozen."""
        return encoder.requires_grad_(False)


@dataclass(frozen=True)
class FullTuning(Adapter):
    """All weights of the encoder learn."""

    name: ClassVar[str] = "full"
    rate: ClassVar[float] = 5e-5

    def apply(self, encoder: Any, steps: int) -> Any:
        """The encoder, all of it trainable."""
        return encoder.requires_grad_(True)


@dataclass(frozen=True)
class LoRA(Adapter):
    """Low-rank updates of every linear layer (Hu et al. 2022): W + (scale / rank) B A.

    Parameters
    ----------
    rank : int
    scale : float or None
        α; None is 2 × rank.
    dropout : float
    """

    rank: int = 8
    scale: float | None = None
    dropout: float = 0.0
    name: ClassVar[str] = "LoRA"

    def __post_init__(self) -> None:
        check_scalar(self.rank, "rank", ge=1, le=1024, integer=True)
        if self.scale is not None:
            check_scalar(self.scale, "scale", gt=0)
        check_scalar(self.dropout, "dropout", ge=0, lt=1)

    def apply(self, encoder: Any, steps: int) -> Any:
        """The encoder behind LoRA layers."""
        peft = _peft()
        options = {
            "r": self.rank, "lora_alpha": self.scale or 2 * self.rank, "lora_dropout": self.dropout, "target_modules": linear_names(encoder),
        }  # fmt: skip
        return _wrapped(peft, encoder, peft.LoraConfig(**options))


@dataclass(frozen=True)
class AdaLoRA(Adapter):
    """LoRA whose ranks are dealt to the layers while it trains (Zhang et al. 2023), from `start` to `rank` on average."""

    rank: int = 4
    start: int = 8
    name: ClassVar[str] = "AdaLoRA"

    def __post_init__(self) -> None:
        check_scalar(self.rank, "rank", ge=1, le=1024, integer=True)
        if check_scalar(self.start, "start", ge=1, le=1024, integer=True) < self.rank:
            raise ArgumentError(f"start is {self.start}, must be >= rank, {self.rank}.")

    def apply(self, encoder: Any, steps: int) -> Any:
        """The encoder behind AdaLoRA layers, with a budget for this many steps."""
        peft = _peft()
        warm, last = max(1, steps // 10), max(1, steps // 3)
        if warm + last >= steps:
            raise ArgumentError(f"AdaLoRA has {steps} steps to deal its ranks in, must have >= 8: train longer, or take LoRA().")
        options = {
            "target_r": self.rank, "init_r": self.start, "tinit": warm, "tfinal": last, "total_step": steps,
            "target_modules": linear_names(encoder),
        }  # fmt: skip
        return _wrapped(peft, encoder, peft.AdaLoraConfig(**options))


@dataclass(frozen=True)
class IA3(Adapter):
    """A factor for each unit of keys, values and feed-forward layers (Liu et al. 2022): the fewest weights of all."""

    name: ClassVar[str] = "IA3"
    rate: ClassVar[float] = 5e-3

    def apply(self, encoder: Any, steps: int) -> Any:
        """The encoder with its factors."""
        peft = _peft()
        config = peft.IA3Config(
            target_modules=["key", "value", "output.dense"], feedforward_modules=["output.dense"]
        )
        try:
            return _wrapped(peft, encoder, config)
        except ValueError as error:
            raise ArgumentError(
                f"IA3 does not know the layers of this encoder ({' '.join(str(error).split())[:120]}); take LoRA()."
            ) from error


@dataclass(frozen=True)
class PrefixTuning(Adapter):
    """Trained keys and values in front of every layer's own (Li & Liang 2021)."""

    tokens: int = 8
    name: ClassVar[str] = "prefix"
    rate: ClassVar[float] = 5e-3
    mergeable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_scalar(self.tokens, "tokens", ge=1, le=256, integer=True)

    def apply(self, encoder: Any, steps: int) -> Any:
        """The encoder behind a prefix."""
        peft = _peft()
        config = peft.PrefixTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=self.tokens)
        return _wrapped(peft, encoder, config)


@dataclass(frozen=True)
class PromptTuning(Adapter):
    """Trained token vectors in front of every text (Lester, Al-Rfou & Constant 2021)."""

    tokens: int = 8
    name: ClassVar[str] = "prompt"
    rate: ClassVar[float] = 1e-2
    mergeable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_scalar(self.tokens, "tokens", ge=1, le=256, integer=True)

    def apply(self, encoder: Any, steps: int) -> Any:
        """The encoder behind a prompt."""
        peft = _peft()
        config = peft.PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=self.tokens)
        return _wrapped(peft, encoder, config)


def linear_names(encoder: Any) -> list[str]:
    """Names of the encoder's linear layers; a pooler's, through which no vector goes, is left out."""
    import torch

    return [name for name, m in encoder.named_modules() if isinstance(m, torch.nn.Linear) and "pooler" not in name]
