"""A transformer tuned on what happened to each text in the training rows: exposure, and clicks in either arm.

The frozen encoder says what a text is about; which words made people show it or click it may be a small part of
that. Here the encoder is trained further, by the binomial log-loss of three logits per distinct text. It has seen
outcomes, so it may only be given the counts of rows outside the fold that it will be scored on.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from causalrec._checks import check_choice, check_scalar
from causalrec.errors import ArgumentError, RepresentationError
from causalrec.represent.counts import TextCounts, nuisance_loss, training_split
from causalrec.represent.trainable import Method, Network, batches_of, half_precision, load_network
from causalrec.represent.weights import DEFAULT_MODEL

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
METHODS: tuple[Method, ...] = ("full", "lora")
RATES: dict[Method, float] = {"full": 1e-4, "lora": 1e-3}
"""AdamW's peak step for the encoder, by method."""
HEAD_RATE = 1e-3
BATCH_TEXTS = 32
BATCH_TOKENS = 2_048
WARM_UP = 0.06
"""Share of the steps in which the learning rate rises; it then falls to zero linearly."""
WEIGHT_DECAY = 0.01
LARGEST_GRADIENT = 1.0


@dataclass(frozen=True, eq=False)
class Tuned:
    """An encoder with three heads, tuned on the counts of some rows.

    Attributes
    ----------
    encoder : str
        Name and fingerprint of the weights it started from.
    method : "full" or "lora"
    history : tuple of float
        Held-out nuisance loss, nats per row shown: of the constants first, then after each epoch.
    epochs : int
        Epochs that were kept, those with the least held-out loss; 0 if no epoch did better than the constants.
    saw : str
        16 hex digits of the sha256 of the texts and counts that it was fitted, or its epochs chosen, on.
    """

    encoder: str
    method: Method
    history: tuple[float, ...]
    epochs: int
    saw: str
    network: Network = field(repr=False)

    def predict(self, texts: Sequence[str]) -> F64:
        """Logits (u, 3) of P(T=1), P(Y=1 | T=0) and P(Y=1 | T=1) of each text, seen before or not."""
        return self.network.logits(self.embed(texts))

    def embed(self, texts: Sequence[str]) -> F32:
        """Mean-pooled states (u, d) on which the heads stand, each of length √d."""
        return self.network.states(self.network.tokenize(texts))


def tune_encoder(
    texts: Sequence[str],
    counts: TextCounts,
    *,
    encoder: str = DEFAULT_MODEL,
    method: Method = "full",
    epochs: int = 2,
    lr: float | None = None,
    holdout: float | TextCounts = 0.2,
    random_state: int = 0,
    progress: bool | str = True,
) -> Tuned:
    """Tune an encoder to predict exposure and clicks from words.

    Minimises, over the encoder and three linear heads on the mean x_i of its last token states, the binomial
    log-loss summed over distinct texts i,

        Σ_i n_i ℓ(a_i / n_i, f(x_i)) + n_0i ℓ(c_0i / n_0i, g(x_i)) + n_1i ℓ(c_1i / n_1i, h(x_i)),
        ℓ(p, z) = log(1 + exp z) − p z,

    with n rows shown, a of them treated, n_t in arm t and c_t clicks there. AdamW (Loshchilov & Hutter 2019) with a
    linear warm-up and decay, without dropout. A text without training rows does not train, and is predicted all the
    same.

    Parameters
    ----------
    texts : (u,) distinct texts
    counts : TextCounts, (u,) each
        Of *training rows only*: rows that the result is scored on must not be counted.
    encoder : str
        A model name or a local folder, found as ``TextEmbedder`` finds it.
    method : "full" or "lora"
        All weights, or low-rank updates of the linear layers (Hu et al. 2022), which needs ``peft``.
    epochs : int
        At most; those with the least held-out loss are kept.
    lr : float or None
        Peak learning rate of the encoder; None is 1e-4 for ``"full"`` and 1e-3 for ``"lora"``.
    holdout : float or TextCounts
        Share of the texts that are held out to choose the epochs; or the counts of held-out rows, (u,) each, which
        are then not part of `counts`.
    random_state : int
    progress : bool or str
        Show a bar with the remaining time; a string is its label.

    Raises
    ------
    MissingExtraError
        torch, transformers or (for ``"lora"``) peft is not installed.
    RepresentationError
        Fewer than two texts have rows, or the counts are of another number of texts.
    ModelNotFoundError
        The encoder is nowhere to be found; the message lists the places.
    """
    check_choice(method, "method", METHODS)
    epochs = check_scalar(epochs, "epochs", ge=1, le=50, integer=True)
    rate = RATES[method] if lr is None else check_scalar(lr, "lr", gt=0, le=1)
    seed = check_scalar(random_state, "random_state", ge=0, integer=True)
    if not isinstance(encoder, str) or not encoder:
        raise ArgumentError(f"encoder is {encoder!r}, must be a model's name or a folder, as a string.")
    texts = list(texts)
    train, held = training_split(counts, holdout, len(texts), texts, seed)
    if int((train.shown > 0).sum()) < 1:
        raise RepresentationError(
            f"none of the {len(texts):,} texts has training rows, must be >= 1 to tune an encoder; take a frozen one."
        )
    network = load_network(encoder, method, train.constants, seed)
    label = progress if isinstance(progress, str) else "tuning the encoder"
    steps = _Steps(network, texts, train, epochs, rate, seed)
    history, best = _train(network, steps, (texts, held), label if progress else None)
    saw = train.digest(texts) + held.digest(texts)
    return Tuned(network.identity, method, tuple(history), best, saw, network)


class _Steps:
    """The batches of all epochs, the optimiser, and its schedule."""

    def __init__(
        self, network: Network, texts: list[str], counts: TextCounts, epochs: int, rate: float, seed: int
    ) -> None:
        import torch

        here = np.flatnonzero(counts.shown > 0)
        here = here[np.argsort([texts[i] for i in here], kind="stable")]  # the caller's order has no say
        self.network, self.epochs = network, epochs
        self.tokens = network.tokenize([texts[i] for i in here])
        here_counts, typical = counts.at(here), counts.shown[here].mean()
        self.totals = torch.tensor(here_counts.totals / typical).float().to(network.device)
        self.successes = torch.tensor(here_counts.successes / typical).float().to(network.device)
        self.rng = np.random.default_rng([seed, 1])
        self.plan = [list(self._shuffled()) for _ in range(epochs)]
        self.count = sum(len(batches) for batches in self.plan)
        self.weights = [p for p in network.encoder.parameters() if p.requires_grad]
        groups = [
            {"params": self.weights, "lr": rate},
            {"params": list(network.head.parameters()), "lr": max(rate, HEAD_RATE), "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY, fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._pace)

    def _shuffled(self) -> Iterator[Ints]:
        """Batches of about equal lengths, in random order."""
        lengths = [len(t) for t in self.tokens]
        order = np.argsort(np.array(lengths) + self.rng.uniform(0, 2, len(lengths)))[::-1]
        batches = list(batches_of(order, lengths, BATCH_TEXTS, BATCH_TOKENS))
        for i in self.rng.permutation(len(batches)):
            yield batches[i]

    def _pace(self, step: int) -> float:
        """Share of the peak learning rate at a step."""
        warm = max(1, round(WARM_UP * self.count))
        return min((step + 1) / warm, max(0.0, (self.count - step) / max(1, self.count - warm)))

    def take(self, batch: Ints) -> None:
        """One step on some texts: their summed loss over three heads, per text of a batch."""
        import torch

        with half_precision(self.network.device):
            states = self.network.forward([self.tokens[i] for i in batch])
        z = self.network.head(states.float())
        rows = torch.tensor(batch.tolist(), device=z.device)
        n, s = self.totals[rows], self.successes[rows]
        loss = (n * torch.nn.functional.softplus(z) - s * z).sum() / len(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, LARGEST_GRADIENT)
        self.optimizer.step()
        self.schedule.step()


def _train(
    network: Network, steps: _Steps, held: tuple[list[str], TextCounts], label: str | None
) -> tuple[list[float], int]:
    """Held-out loss of the constants and after each epoch, and the best epoch, whose weights the network then has."""
    from tqdm import tqdm

    rows = np.flatnonzero(held[1].shown > 0)
    tokens, counts = network.tokenize([held[0][i] for i in rows]), held[1].at(rows)
    modules = (network.encoder, network.head)

    def held_out() -> float:
        return nuisance_loss(network.logits(network.states(tokens)), counts)

    history = [nuisance_loss(np.tile(network.head.bias.detach().cpu().numpy(), (len(rows), 1)), counts)]
    kept, best = [copy.deepcopy(m.state_dict()) for m in modules], 0
    with tqdm(total=steps.count, desc=label, unit="step", delay=2, disable=label is None) as bar:
        for epoch, batches in enumerate(steps.plan, start=1):
            for batch in batches:
                steps.take(batch)
                bar.update()
            history.append(held_out())
            if history[-1] < history[best]:
                kept, best = [copy.deepcopy(m.state_dict()) for m in modules], epoch
    for module, state in zip(modules, kept, strict=True):
        module.load_state_dict(state)
    return history, best
