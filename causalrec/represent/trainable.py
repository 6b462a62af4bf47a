"""A pretrained transformer that can be trained further: its tokens, its pooled states, and three heads on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from causalrec.errors import MissingExtraError
from causalrec.represent.weights import locate, missing_extra

if TYPE_CHECKING:
    import torch

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Method = Literal["full", "lora"]
READ_TOKENS = 8_192
"""In a batch without gradients."""
MAX_TOKENS = 128
LORA: dict[str, Any] = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}


@dataclass(frozen=True, eq=False)
class Network:
    """A transformer, its tokenizer and three heads."""

    identity: str
    encoder: Any
    head: Any
    tokenizer: Any
    max_length: int

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.encoder.parameters()).device
        return device

    def tokenize(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Token ids of each text, cut at ``max_length``."""
        clean = [text.encode("utf-8", "replace").decode() for text in texts]
        found = self.tokenizer(clean, truncation=True, max_length=self.max_length) if clean else {}
        return [tuple(ids) for ids in found.get("input_ids", [])]

    def forward(self, tokens: list[tuple[int, ...]]) -> torch.Tensor:
        """Mean of the last states over the tokens of each text, of length √d, (b, d)."""
        import torch

        longest = max(map(len, tokens))
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.tensor([[*t, *[pad] * (longest - len(t))] for t in tokens], device=self.device)
        mask = torch.tensor([[1] * len(t) + [0] * (longest - len(t)) for t in tokens], device=self.device)
        states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        mean = pooled(states, mask, "mean")
        unit: torch.Tensor = torch.nn.functional.normalize(mean, dim=1)
        return unit * mean.shape[1] ** 0.5

    def states(self, tokens: list[tuple[int, ...]]) -> F32:
        """As ``forward``, without gradients, in the order of the texts, (u, d)."""
        import torch

        out = np.empty((len(tokens), self.head.in_features), dtype=np.float32)
        order = np.argsort([len(t) for t in tokens], kind="stable")[::-1]
        with torch.inference_mode(), half_precision(self.device):
            for batch in batches_of(order, [len(t) for t in tokens], len(tokens), READ_TOKENS):
                out[batch] = self.forward([tokens[i] for i in batch]).float().cpu().numpy()
        return out

    def logits(self, states: F32) -> F64:
        """The three heads at these states, (u, 3)."""
        weight, bias = (p.detach().cpu().numpy() for p in (self.head.weight, self.head.bias))
        return np.asarray(states @ weight.T + bias, dtype=np.float64)


def pooled(states: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """One vector a text (b, d) from padded states (b, length, d)."""
    if pooling == "cls":
        return states[:, 0]
    there = mask[:, :, None].to(states.dtype)
    if pooling == "max":
        return states.masked_fill(there == 0, float("-inf")).amax(dim=1)
    return (states * there).sum(dim=1) / there.sum(dim=1)


def half_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Matrix products in bfloat16 where the processor has them (weights and sums stay float32), which halves the time."""
    import torch

    if device.type == "cpu":
        there = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
        fast = torch.backends.mkldnn.is_available() and there is not None and bool(there())
    else:
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16) if fast else nullcontext()


def load_network(encoder: str, method: Method, constants: F64, seed: int) -> Network:
    """A pretrained encoder, ready to be trained, with heads that start at the `constants` (3,)."""
    if method == "lora" and find_spec("peft") is None:
        raise MissingExtraError(
            "method='lora' needs peft, which is not installed: pip install peft. Or tune all weights: method='full'."
        )
    try:
        import torch

        from causalrec.represent.encoder import _device, _load
    except ImportError as error:
        raise missing_extra("torch and transformers") from error
    files = locate(encoder)
    config, tokenizer, model = _load(files.folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if method == "lora":
            from peft import LoraConfig, get_peft_model

            model = get_peft_model(model, LoraConfig(**LORA))
        head = torch.nn.Linear(int(config.hidden_size), 3)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.tensor(constants, dtype=torch.float32))
    positions = getattr(config, "max_position_embeddings", None) or MAX_TOKENS
    device = _device(None)
    longest = int(min(MAX_TOKENS, tokenizer.model_max_length, positions))
    return Network(files.identity, model.eval().to(device), head.to(device), tokenizer, longest)


def batches_of(order: Ints, lengths: Sequence[int], texts: int, tokens: int) -> Iterator[Ints]:
    """Runs of `order`, of at most so many texts, and tokens with the padding."""
    start, longest = 0, 0
    for stop, i in enumerate(order):
        longest = max(longest, lengths[i])
        if stop > start and (stop - start >= texts or (stop - start + 1) * longest > tokens):
            yield order[start:stop]
            start, longest = stop, lengths[i]
    if start < len(order):
        yield order[start:]
