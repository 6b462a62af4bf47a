"""A text column as a few columns by which effects may vary: leading axes of its embedding, and its lexical features."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from causalrec.blocks import Block
from causalrec.errors import EstimationError
from causalrec.log import ImpressionLog

F64 = npt.NDArray[np.float64]
AXES = 40
FAR = 3.0
"""Standard deviations at which a lexical feature is held, so that one odd text does not steer products."""
FLAT = 1e-6
"""Axes and features that vary by less than this share of the widest are left out."""


@dataclass(frozen=True, eq=False)
class WordFeatures:
    """How a text block becomes numbers, read off the training log's texts without a look at exposure or clicks.

    Attributes
    ----------
    block, lexical : str, str or None
        Names of the embedding and of its lexical block, where there is one.
    mean : (d,), turn : (d, k)
        Principal axes of the distinct texts, of unit variance, the widest first.
    lexical_mean, lexical_scale : (l,)
        Of the lexical columns ``lexical_kept``.
    """

    block: str
    lexical: str | None
    mean: F64 = field(repr=False)
    turn: F64 = field(repr=False)
    lexical_kept: npt.NDArray[np.intp] = field(repr=False)
    lexical_mean: F64 = field(repr=False)
    lexical_scale: F64 = field(repr=False)

    @property
    def column(self) -> str:
        """The text column that the block was read from."""
        return self.block.removeprefix("text:")

    @property
    def widths(self) -> tuple[int, int]:
        """Columns of the embedding and of the lexical block."""
        return self.turn.shape[1], len(self.lexical_kept)

    @classmethod
    def learn(cls, log: ImpressionLog) -> WordFeatures | None:
        """From the first text block of a log and its lexical block; None where there is no text, or one text only."""
        block = next((b for b in log.blocks.values() if b.kind == "text"), None)
        if block is None:
            return None
        shown = block.values[np.unique(block.codes)].astype(np.float64)
        mean = shown.mean(axis=0)
        if len(shown) < 2 or not np.ptp(shown, axis=0).any():
            return None
        size, axes = np.linalg.svd(shown - mean, full_matrices=False)[1:]
        k = min(AXES, int((size > FLAT * size[0]).sum()))
        turn = axes[:k].T * (np.sqrt(len(shown)) / size[:k])
        style = _lexical_of(log, block)
        if style is None:
            nothing = np.zeros(0)
            return cls(block.name, None, mean, turn, nothing.astype(np.intp), nothing, nothing)
        rows = style.values[np.unique(style.codes)].astype(np.float64)
        spread = rows.std(axis=0)
        kept = np.flatnonzero(spread > FLAT * max(float(spread.max()), 1e-300))
        return cls(block.name, style.name, mean, turn, kept, rows.mean(axis=0)[kept], spread[kept])

    def apply(self, log: ImpressionLog) -> F64:
        """(n, k + l) columns of another log that was embedded alike.

        Raises
        ------
        EstimationError
            The log lacks the block, or has it in another width.
        """
        axes, style = self._block(log, self.block, len(self.mean)), None
        found = ((axes.values.astype(np.float64) - self.mean) @ self.turn)[axes.codes]
        if self.lexical is None:
            return found
        style = self._block(log, self.lexical, None)
        scaled = (style.values[:, self.lexical_kept] - self.lexical_mean) / self.lexical_scale
        return np.hstack([found, np.clip(scaled, -FAR, FAR)[style.codes]])

    def _block(self, log: ImpressionLog, name: str, width: int | None) -> Block:
        block = log.blocks.get(name)
        if block is None or (width is not None and block.width != width):
            has = (
                f"it has the blocks {list(log.blocks)}"
                if block is None
                else f"its block has {block.width} columns, the fit's {width}"
            )
            raise EstimationError(
                f"this fit's effect varies with the words of {name!r}, and {has}; embed both logs with one transformer."
            )
        return block


def _lexical_of(log: ImpressionLog, block: Block) -> Block | None:
    return next((b for b in log.blocks.values() if b.kind == "lexical" and b.columns == block.columns), None)
