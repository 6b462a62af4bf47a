"""Modifier columns as the numeric X of an EconML estimator, and again for another log."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ModifierRecipe:
    """Numbers as they are; labels as one column a level but the first.

    Attributes
    ----------
    columns : tuple of (name, levels)
        ``levels`` is None for a number.
    """

    columns: tuple[tuple[str, tuple[str, ...] | None], ...]

    @classmethod
    def learn(cls, frame: pd.DataFrame, names: tuple[str, ...]) -> ModifierRecipe:
        """Learn the levels of the modifiers of this frame."""
        out = []
        for name in names:
            column = frame[name]
            number = pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)
            out.append((name, None if number else tuple(sorted(column.astype(str).unique()))))
        return cls(tuple(out))

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
                parts.append(column.to_numpy(dtype=np.float64)[:, None])
            else:
                labels = column.astype(str).to_numpy()
                parts.append(
                    np.column_stack([labels == v for v in levels[1:]]).astype(np.float64)
                    if len(levels) > 1
                    else np.zeros((len(frame), 0))
                )
        matrix = np.hstack(parts) if parts else np.zeros((len(frame), 0))
        return matrix if matrix.shape[1] else None
