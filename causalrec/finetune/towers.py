"""The network: texts → vectors → scores. Imported only where torch is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from causalrec.finetune.adapters import Adapter
from causalrec.finetune.feed import Batch, Feed
from causalrec.finetune.objectives import Memory
from causalrec.finetune.options import Head
from causalrec.represent.trainable import pooled
from causalrec.represent.weights import ModelFiles

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
READ_ROWS = 4_096
"""Rows scored at once."""
READ_TEXTS = 256


class FrozenTexts(nn.Module):
    """Vectors that are known beforehand, (u, d), of length √d."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.table = torch.empty(0, width)

    def load(self, vectors: F32) -> None:
        """Take these unit vectors (u, d) as those of the feed's texts."""
        self.table = torch.from_numpy(vectors * np.float32(np.sqrt(self.width)))

    def forward(self, where: torch.Tensor, tokens: dict[str, torch.Tensor] | None) -> torch.Tensor:
        """(v, d) of the texts at these places."""
        return self.table[where.cpu()].to(where.device)


class TunedTexts(nn.Module):
    """A transformer that learns: token states pooled as its files say, of length √d."""

    def __init__(self, encoder: nn.Module, pooling: str, width: int) -> None:
        super().__init__()
        self.encoder, self.pooling, self.width = encoder, pooling, width

    def forward(self, where: torch.Tensor, tokens: dict[str, torch.Tensor] | None) -> torch.Tensor:
        """(v, d) of tokenised texts."""
        if tokens is None:
            raise ValueError("a network that learns from words takes tokens")
        mask = tokens["attention_mask"]
        states = self.encoder(input_ids=tokens["input_ids"], attention_mask=mask).last_hidden_state
        states = states[:, -mask.shape[1] :].float()  # without the tokens of a prompt
        return nn.functional.normalize(pooled(states, mask, self.pooling), dim=1) * self.width**0.5


class Scorer(nn.Module):
    """c + a·x + b·h + s ⟨h, x⟩ / √d + ⟨A h, B x⟩ / √d + MLP(x) + item effect: log odds of a click, x of an item and h of a history.

    ``penalty`` is minus the log density of normal priors that give each part of the log odds `prior_variance`.
    """

    def __init__(self, width: int, head: Head, n_effects: int, has_history: bool) -> None:
        super().__init__()
        self.variance, self.dimension = head.prior_variance, width
        self.constant = nn.Parameter(torch.zeros(()))
        self.of_item = _zero_linear(width)
        self.drop = nn.Dropout(head.dropout)
        self.effects = nn.Embedding(n_effects, 1) if n_effects else None
        if self.effects is not None:
            nn.init.zeros_(self.effects.weight)
        self.hidden = nn.Sequential(nn.Linear(width, head.hidden), nn.Tanh(), _zero_linear(head.hidden)) if head.hidden else None
        self.has_history = has_history
        if has_history:
            self.of_history, self.cosine = _zero_linear(width), nn.Parameter(torch.zeros(()))
            self.left = nn.Parameter(torch.zeros(head.width, width))
            self.right = nn.Parameter(torch.randn(head.width, width) / width**0.5)

    def forward(self, x: torch.Tensor, h: torch.Tensor | None, effect: torch.Tensor) -> torch.Tensor:
        """(b,) scores of items x (b, d) and histories h (b, d), of length √d."""
        x = self.drop(x)
        f = self.constant + self.of_item(x).squeeze(1)
        if self.hidden is not None:
            f = f + self.hidden(x).squeeze(1)
        if self.effects is not None:
            f = f + self.effects(effect.clamp_min(0)).squeeze(1) * (effect >= 0)
        if h is not None and self.has_history:
            f = f + self.cosine * (h * x).sum(dim=1) / self.dimension**0.5
            h = self.drop(h)
            f = f + self.of_history(h).squeeze(1)
            f = f + ((h @ self.left.T) * (x @ self.right.T)).sum(dim=1) / self.dimension**0.5
        return f

    def penalty(self) -> torch.Tensor:
        """½ Σ β² / variance of β, nats: a linear part of d weights gives the log odds the prior variance at d times that of a weight."""
        each = self.variance / self.dimension
        total = (self.of_item.weight**2).sum() / each
        if self.hidden is not None:
            total = total + sum((p**2).sum() / (self.variance / len(p)) for p in self.hidden.parameters() if p.ndim > 1)
        if self.effects is not None:
            total = total + (self.effects.weight**2).sum() / self.variance
        if self.has_history:
            total = total + (self.of_history.weight**2).sum() / each
            total = total + ((self.left @ self.left.T) * (self.right @ self.right.T)).sum() / each  # |AᵀB|²: of the product, whatever its factors
        return total / 2


def _zero_linear(width: int) -> nn.Linear:
    """A linear part that begins at nought."""
    layer = nn.Linear(width, 1, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


class Network(nn.Module):
    """Texts, a score head, and for joint learning two imputation heads, each for the users that the other learns from."""

    def __init__(self, texts: nn.Module, head: Head, n_effects: int, has_history: bool, imputes: bool) -> None:
        super().__init__()
        width = int(texts.width)  # type: ignore[arg-type]
        self.texts = texts
        self.score = Scorer(width, head, n_effects, has_history)
        self.impute = nn.ModuleList(
            [Scorer(width, head, n_effects, has_history) for _ in range(2 if imputes else 0)]
        )
        self.register_buffer("moments", torch.zeros(3))

    @property
    def memory(self) -> Memory:
        """The running moments of the objective."""
        return Memory(self.get_buffer("moments"))

    def vectors(self, b: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Item and history vectors (b, d) of a batch as tensors."""
        return at_rows(self.texts(b["texts"], b.get("tokens")), b)

    def forward(self, **b: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Scores (b,), and the imputation heads' (b, 2) or None; the encoder does not learn from the latter."""
        x, h = self.vectors(b)
        f = self.score(x, h, b["item_effect"])
        if not len(self.impute):
            return f, None
        x, h = x.detach(), None if h is None else h.detach()
        return f, torch.stack([head(x, h, b["item_effect"]) for head in self.impute], dim=1)

    def begin_at(self, mean: float) -> None:
        """Let every score start at the log odds of a mean outcome in (0, 1)."""
        with torch.no_grad():
            for one in (self.score, *self.impute):
                one.constant.fill_(float(np.log(mean / (1 - mean))))  # type: ignore[operator, union-attr]

    def penalty(self) -> torch.Tensor:
        """Of the heads' priors, nats."""
        return sum((one.penalty() for one in (self.score, *self.impute)), torch.zeros((), device=self.score.constant.device))

    def learned(self) -> dict[str, torch.Tensor]:
        """All that training changes, by name: trainable weights and buffers."""
        wanted = {n for n, p in self.named_parameters() if p.requires_grad} | {n for n, _ in self.named_buffers() if "moments" in n}
        return {n: v for n, v in self.state_dict().items() if n in wanted}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Take back what ``learned`` gave; ``ValueError`` names what does not match."""
        mine = self.learned()
        if set(mine) != set(state) or any(mine[n].shape != state[n].shape for n in mine):
            odd = sorted(set(mine) ^ set(state)) or [n for n in mine if mine[n].shape != state[n].shape]
            raise ValueError(", ".join(odd[:3]))
        self.load_state_dict(state, strict=False)


def at_rows(v: torch.Tensor, b: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Vectors (b, d) of each row's item, and of its history: the mean of its texts', of length √d, zero where it is empty."""
    if b.get("members") is None:
        return v[b["item"]], None
    total = torch.zeros(b["n_histories"], v.shape[1], dtype=v.dtype, device=v.device)
    total = total.index_add(0, b["segment"], v[b["members"]])
    return v[b["item"]], (nn.functional.normalize(total, dim=1) * v.shape[1] ** 0.5)[b["history"]]


@dataclass(eq=False)
class Collator:
    """Row numbers → tensors for ``Network``; each distinct text of a batch is encoded once.

    Attributes
    ----------
    feed : Feed
    columns : mapping of str to (n,)
        What the loss needs of each row.
    tokens : (u,) token sequences, or None where vectors are known
    pad : int
    """

    feed: Feed
    columns: dict[str, npt.NDArray[Any]]
    tokens: list[tuple[int, ...]] | None = None
    pad: int = 0

    def __call__(self, rows: Sequence[int]) -> dict[str, Any]:
        """A batch of these rows."""
        where = np.asarray(rows, dtype=np.int64)
        out = tensors(self.feed.take(where), self.tokens, self.pad)
        out["rows"] = {name: torch.from_numpy(np.ascontiguousarray(v[where])) for name, v in self.columns.items()}
        return out


def tensors(batch: Batch, tokens: list[tuple[int, ...]] | None, pad: int) -> dict[str, Any]:
    """A batch as tensors on the CPU."""
    out: dict[str, Any] = {
        "texts": torch.from_numpy(batch.texts), "item": torch.from_numpy(batch.item),
        "item_effect": torch.from_numpy(batch.item_effect),
    }  # fmt: skip
    if batch.members is not None and batch.segment is not None and batch.history is not None:
        out |= {
            "members": torch.from_numpy(batch.members), "segment": torch.from_numpy(batch.segment),
            "history": torch.from_numpy(batch.history), "n_histories": int(batch.history.max()) + 1,
        }  # fmt: skip
    if tokens is not None:
        out["tokens"] = padded([tokens[i] for i in batch.texts], pad)
    return out


def padded(tokens: Sequence[tuple[int, ...]], pad: int) -> dict[str, torch.Tensor]:
    """Token ids and attention mask, (v, longest) each."""
    longest = max(map(len, tokens))
    ids = torch.full((len(tokens), longest), pad, dtype=torch.int64)
    mask = torch.zeros((len(tokens), longest), dtype=torch.int64)
    for i, t in enumerate(tokens):
        ids[i, : len(t)] = torch.tensor(t)
        mask[i, : len(t)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def to_device(value: Any, device: torch.device) -> Any:
    """Tensors in nested dictionaries, on a device."""
    if isinstance(value, dict):
        return {k: to_device(v, device) for k, v in value.items()}
    return value.to(device) if isinstance(value, torch.Tensor) else value


def build(
    files: ModelFiles, adapter: Adapter, head: Head, n_effects: int, has_history: bool, imputes: bool, steps: int, seed: int
) -> tuple[Network, Any]:
    """A network and the tokenizer that goes with it; what is drawn at random follows from `seed`."""
    from causalrec.represent.encoder import _load

    config, tokenizer, encoder = _load(files.folder)
    width = int(config.hidden_size)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        texts: nn.Module = (
            TunedTexts(adapter.apply(encoder, steps), files.pooling, width) if adapter.tunes else FrozenTexts(width)
        )
        return Network(texts, head, n_effects, has_history, imputes), tokenizer


def encode_all(network: Network, tokens: list[tuple[int, ...]], pad: int) -> F32:
    """Unit vectors (u, d) of tokenised texts by a network that learns from words."""
    device = next(network.parameters()).device
    out = np.empty((len(tokens), int(network.texts.width)), dtype=np.float32)  # type: ignore[arg-type]
    order = np.argsort([len(t) for t in tokens], kind="stable")
    was = network.training
    network.eval()
    with torch.inference_mode():
        for start in range(0, len(order), READ_TEXTS):
            some = order[start : start + READ_TEXTS]
            batch = to_device(padded([tokens[i] for i in some], pad), device)
            v = network.texts(torch.empty(0, dtype=torch.int64), batch)
            out[some] = nn.functional.normalize(v, dim=1).float().cpu().numpy()
    network.train(was)
    return out


def score_feed(network: Network, feed: Feed, vectors: F32) -> F64:
    """(n,) scores of a feed's rows at the unit vectors (u, d) of its texts."""
    device = network.score.constant.device
    table = torch.from_numpy(vectors) * vectors.shape[1] ** 0.5
    out = np.empty(len(feed))
    was = network.training
    network.eval()
    with torch.inference_mode():
        for start in range(0, len(feed), READ_ROWS):
            rows = np.arange(start, min(start + READ_ROWS, len(feed)))
            b = to_device(tensors(feed.take(rows), None, 0), device)
            x, h = at_rows(table[b["texts"].cpu()].to(device), b)
            out[rows] = network.score(x, h, b["item_effect"]).double().cpu().numpy()
    network.train(was)
    return out
