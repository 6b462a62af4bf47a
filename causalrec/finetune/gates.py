"""What a smaller or faster encoder has to keep: its vectors, and the effect that is estimated with them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from causalrec.errors import ArgumentError, RepresentationError
from causalrec.estimate import estimate
from causalrec.finetune.fast import FastEncoder
from causalrec.identify import Plan
from causalrec.log import ImpressionLog
from causalrec.represent.embed import embed, refuse_seen
from causalrec.represent.text import TextEmbedder

Floats = npt.NDArray[np.float32]
LEAST_TEXTS = 64


@dataclass(frozen=True)
class Gate:
    """A number that had to keep a bound."""

    name: str
    value: float
    sign: str
    bound: float

    @property
    def passed(self) -> bool:
        """Whether it did."""
        return self.value >= self.bound if self.sign == "≥" else self.value < self.bound

    def enforce(self, next_step: str) -> None:
        """Raise ``RepresentationError`` unless the bound is kept."""
        if not self.passed:
            raise RepresentationError(f"{self.name} is {self.value:.4f}, must be {self.sign} {self.bound:g}; nothing was written. {next_step}")


@dataclass(frozen=True)
class EffectShift:
    """An effect estimated with two sets of vectors, with the same folds and seeds."""

    effect: float
    effect_fast: float
    std_error: float

    @property
    def shift(self) -> float:
        """By how many standard errors the effect moved."""
        return abs(self.effect_fast - self.effect) / self.std_error


def shift_of(effect: float | None, other: float | None, std_error: float | None) -> float | None:
    """By how many standard errors an effect moved; None where there was no log to estimate it on."""
    return None if effect is None or other is None or std_error is None else EffectShift(effect, other, std_error).shift


def check_encoder(encoder: object) -> None:
    """Raise ``ArgumentError`` unless `encoder` is a TextEmbedder with weights of its own."""
    if isinstance(encoder, FastEncoder):
        raise ArgumentError(f"encoder is a FastEncoder ({encoder.model!r}), which holds no weights to go on from; give the TextEmbedder that it was made of.")
    if not isinstance(encoder, TextEmbedder):
        raise ArgumentError(f"encoder is a {type(encoder).__name__}, must be a TextEmbedder: the frozen one, ranker.encoder, or a distilled one.")


def check_pair(log: ImpressionLog | None, plan: Plan | None, encoder: TextEmbedder) -> None:
    """Raise unless log and plan come together, and the encoder may be judged by that log."""
    if (log is None) != (plan is None):
        there, lacks = ("log", "plan") if plan is None else ("plan", "log")
        raise ArgumentError(f"{there} is given without {lacks}; the gate on the effect needs both: plan=identify(log), of the embedded log.")
    if log is not None:
        if not isinstance(log, ImpressionLog):
            raise ArgumentError(f"log is a {type(log).__name__}, must be an ImpressionLog from read_log.")
        refuse_seen(log, encoder)


def distinct_texts(texts: Iterable[str | None]) -> list[str]:
    """Distinct texts that are not empty, in sorted order; ``RepresentationError`` if they are fewer than 64."""
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
        raise ArgumentError(f"texts is a {type(texts).__name__}, must be a list or column of texts.")
    found = sorted({t for t in texts if isinstance(t, str) and t.strip()})
    if len(found) < LEAST_TEXTS:
        raise RepresentationError(f"texts has {len(found):,} distinct texts, must be >= {LEAST_TEXTS}: some are learnt from, and others are held back to judge by. Give more of them.")
    return found


def cosines(first: Floats, second: Floats) -> npt.NDArray[np.float64]:
    """(n,) cosine of the rows of two (n, d) matrices."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    return np.asarray((a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1)))


def gated_shift(
    log: ImpressionLog | None, plan: Plan | None, encoders: tuple[TextEmbedder, TextEmbedder], max_shift: float, seed: int
) -> EffectShift | None:
    """The effect with either encoder's vectors; ``RepresentationError`` where it moves too far, None without a log."""
    if log is None or plan is None:
        return None
    has_blocks, match = bool(log.blocks), next((b for n, b in log.blocks.items() if n.startswith("match:")), None)
    beside = {kind: any(n.startswith(f"{kind}:") for n in log.blocks) for kind in ("lexical", "ngrams")}
    fits = [
        estimate(
            embed(
                log, encoder, pair_components=16 if match is None else match.values.shape[1] - 1,
                lexical=beside["lexical"] or not has_blocks, ngrams=beside["ngrams"],
            ),
            plan, random_state=seed,
        )
        for encoder in encoders
    ]  # fmt: skip
    found = EffectShift(fits[0].effect, fits[1].effect, fits[0].std_error)
    Gate("the shift of the effect, in standard errors,", found.shift, "<", max_shift).enforce(
        f"The effect is {found.effect:.4g} with the encoder and {found.effect_fast:.4g} with the new one (standard error {found.std_error:.3g}). "
        "Keep the encoder for estimates, or give more texts."
    )
    return found
