"""Modifier columns as the numeric X of an EconML estimator, and again for another log."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec.errors import EstimationError
from causalrec.estimate.word_features import WordFeatures
from causalrec.log import ImpressionLog

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ModifierRecipe:
    """Numbers as they are; labels as one column a level but the first.

    Attributes
    ----------
    columns : tuple of (name, levels)
        ``levels`` is None for a number.
    words : WordFeatures or None
        Columns for the words, of a model of the effect that takes them.
    """

    columns: tuple[tuple[str, tuple[str, ...] | None], ...]
    words: WordFeatures | None = None

    @classmethod
    def learn(cls, frame: pd.DataFrame, names: tuple[str, ...]) -> ModifierRecipe:
        """Learn the levels of the modifiers of this frame."""
        out = []
        for name in names:
            column = frame[name]
            number = pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)
            out.append((name, None if number else tuple(sorted(column.astype(str).unique()))))
        return cls(tuple(out))

    def fitting(self, model: Any, log: ImpressionLog) -> tuple[ModifierRecipe, Any]:
        """The recipe with the words of `log` if the model takes words, else without; and the model told of its columns.

        Raises
        ------
        EstimationError
            The model takes words and the log has no text block.
        """
        if isinstance(model, type) or not getattr(model, "takes_words", False):
            return replace(self, words=None), model
        words = self.words or WordFeatures.learn(log)
        if words is None:
            raise EstimationError(
                f"{type(model).__name__} lets the effect vary with the words, and the log has no text block of different texts: declare text= in read_log and embed the log."
            )
        return replace(self, words=words), type(model)(words.widths)

    def matrix(self, log: ImpressionLog) -> F64 | None:
        """(n, q + words) of a log: modifiers, then the columns of its words; None without any."""
        own = self.apply(log.frame)
        if self.words is None:
            return own
        words = self.words.apply(log)
        return words if own is None else np.hstack([own, words])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns of X."""
        return tuple(
            n
            for name, levels in self.columns
            for n in ([name] if levels is None else [f"{name}={v}" for v in levels[1:]])
        )

    def apply(self, frame: pd.DataFrame) -> F64 | None:
        """(n, q) float64, or None without modifiers."""
        parts = []
        for name, levels in self.columns:
            column = frame[name]
            if levels is None:
                parts.append(_numbers(column)[:, None])
            else:
                labels = _known_labels(column, levels)
                parts.append(
                    np.column_stack([labels == v for v in levels[1:]]).astype(np.float64)
                    if len(levels) > 1
                    else np.zeros((len(frame), 0))
                )
        matrix = np.hstack(parts) if parts else np.zeros((len(frame), 0))
        return matrix if matrix.shape[1] else None


def _numbers(column: pd.Series) -> F64:
    try:
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise EstimationError(
            f"modifier {column.name!r} holds labels such as {column.iloc[0]!r} here, and numbers where the fit was made; read both logs alike."
        ) from None
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise EstimationError(
            f"modifier {column.name!r} is NaN or infinite in {bad:,} of {len(values):,} rows; impute it or drop these rows."
        )
    return values


def _known_labels(column: pd.Series, levels: tuple[str, ...]) -> npt.NDArray[np.object_]:
    labels = column.astype(str).to_numpy(dtype=object)
    new = sorted(set(labels) - set(levels))
    if new:
        raise EstimationError(
            f"modifier {column.name!r} has the levels {new[:5]}, which the fit has not seen; it knows {list(levels)[:20]}. Leave these rows out, or fit on a log that has them."
        )
    return labels
