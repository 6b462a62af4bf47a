"""Trees as sentences: from a fitted tree to conditions on the caller's own columns, and their words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec.estimate.modifiers import ModifierRecipe

F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
MOVED = 0.002
"""Share of rows that may change sides when a threshold is rounded to fewer digits."""
NAMED = 3
"""Levels of a label that are named one by one."""


@dataclass(frozen=True)
class Column:
    """A modifier as a tree sees it. ``levels`` is None for a number; ``whole`` for counts; ``flag`` for 0/1."""

    name: str
    levels: tuple[str, ...] | None
    whole: bool = False
    flag: bool = False

    @property
    def width(self) -> int:
        """Columns of the matrix."""
        return 1 if self.levels is None else len(self.levels)


@dataclass(frozen=True)
class Features:
    """Modifiers as the matrix of a tree: numbers as they are, one column for *every* level of a label."""

    columns: tuple[Column, ...]

    @classmethod
    def learn(cls, frame: pd.DataFrame, names: tuple[str, ...]) -> Features:
        """Learn levels and kinds from this frame."""
        return cls(tuple(_column(frame[name]) for name in names))

    def matrix(self, frame: pd.DataFrame) -> F64:
        """(n, q) float64; q may be 0."""
        parts = [np.zeros((len(frame), 0))]
        for c in self.columns:
            if c.levels is None:
                parts.append(_numbers(frame[c.name])[:, None])
            else:
                labels = _labels(frame[c.name])
                parts.append(np.column_stack([labels == v for v in c.levels]).astype(np.float64))
        return np.hstack(parts)

    @property
    def places(self) -> list[tuple[Column, int]]:
        """(column, index of its level) of each column of the matrix."""
        return [(c, j) for c in self.columns for j in range(c.width)]


def _labels(values: pd.Series) -> npt.NDArray[np.str_]:
    return values.astype(str).to_numpy(dtype=str)


def _numbers(values: pd.Series) -> F64:
    matrix = ModifierRecipe(((str(values.name), None),)).apply(values.to_frame())
    return np.zeros(len(values)) if matrix is None else matrix[:, 0]


def _column(values: pd.Series) -> Column:
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return Column(str(values.name), tuple(sorted(np.unique(_labels(values)).tolist())))
    numbers = _numbers(values)
    whole = bool((numbers == np.rint(numbers)).all())
    return Column(str(values.name), None, whole, whole and set(np.unique(numbers)) <= {0.0, 1.0})


@dataclass(frozen=True)
class Condition:
    """lower < x ≤ upper of a number, or x one of the ``allowed`` levels of a label."""

    column: Column
    lower: float = -np.inf
    upper: float = np.inf
    allowed: tuple[str, ...] = ()

    def holds(self, frame: pd.DataFrame) -> Bools:
        """(n,) whether each row meets it."""
        values = frame[self.column.name]
        if self.column.levels is not None:
            return np.isin(_labels(values), self.allowed)
        numbers = _numbers(values)
        return (numbers > self.lower) & (numbers <= self.upper)

    def words(self) -> str:
        """As a person says it, for instance "tenure > 3.5" or "device is phone or web"."""
        name, levels = self.column.name, self.column.levels
        if levels is not None:
            left_out = [v for v in levels if v not in self.allowed]
            if len(left_out) < len(self.allowed) and len(self.allowed) > NAMED:
                return f"{name} is not {' or '.join(left_out)}"
            return f"{name} is {' or '.join(self.allowed)}"
        if self.column.flag:
            return f"{name} is {0 if self.upper < 1 else 1}"
        low, high = np.isfinite(self.lower), np.isfinite(self.upper)
        if self.column.whole:
            first, last = self.lower + 1, self.upper
            if low and high:
                return (
                    f"{name} is {first:g}"
                    if first == last
                    else f"{name} is {_number(first)} to {_number(last)}"
                )
            return f"{name} ≥ {_number(first)}" if low else f"{name} ≤ {_number(last)}"
        if low and high:
            return f"{_number(self.lower)} < {name} ≤ {_number(self.upper)}"
        return f"{name} > {_number(self.lower)}" if low else f"{name} ≤ {_number(self.upper)}"


def _number(x: float) -> str:
    return f"{x:,.0f}" if x == int(x) and abs(x) >= 10_000 else f"{x:.10g}"


Box = tuple[Condition, ...]
"""Conditions that hold together, one a column."""


def holds(box: Box, frame: pd.DataFrame) -> Bools:
    """(n,) whether each row meets every condition."""
    out = np.ones(len(frame), dtype=bool)
    for condition in box:
        out &= condition.holds(frame)
    return out


def words(box: Box) -> str:
    """Such as "tenure > 3.5 and device is phone"; "everyone" where there is no condition."""
    return " and ".join(c.words() for c in box) if box else "everyone"


@dataclass(frozen=True)
class Node:
    """A part of a tree: its box, and two smaller parts or none."""

    box: Box
    children: tuple[Node, ...] = ()

    def leaves(self) -> Iterator[Box]:
        """The boxes at the ends."""
        if not self.children:
            yield self.box
        for child in self.children:
            yield from child.leaves()

    def union(self, chosen: Callable[[Box], bool]) -> list[Box]:
        """The fewest boxes of the tree that hold the chosen leaves and no other."""
        if all(chosen(leaf) for leaf in self.leaves()):
            return [self.box]
        return [box for child in self.children for box in child.union(chosen)]


def read_tree(tree: Any, features: Features, frame: pd.DataFrame) -> Node:
    """The conditions of a fitted tree (``tree_`` of scikit-learn or EconML) on the columns of `frame`.

    Thresholds of numbers are rounded to as few digits as move hardly a row, so that the rule that is said is the
    rule that is applied. A part that no row of `frame` reaches is dropped.
    """
    places = features.places
    everywhere = np.ones(len(frame), dtype=bool)

    def part(node: int, box: Box, here: Bools) -> Node:
        if tree.children_left[node] < 0:
            return Node(box)
        column, level = places[tree.feature[node]]
        halves = _halves(box, column, level, float(tree.threshold[node]), frame, here)
        reached = [(b, here & holds(b, frame)) for b in halves]
        ends = (int(tree.children_left[node]), int(tree.children_right[node]))
        kept = [(end, b, rows) for end, (b, rows) in zip(ends, reached, strict=True) if rows.any()]
        if len(kept) < 2:
            return part(kept[0][0], box, here)
        return Node(box, tuple(part(end, b, rows) for end, b, rows in kept))

    return part(0, (), everywhere)


def _halves(
    box: Box, column: Column, level: int, at: float, frame: pd.DataFrame, here: Bools
) -> tuple[Box, Box]:
    """The box below and the box above a split."""
    old = next((c for c in box if c.column == column), Condition(column, allowed=column.levels or ()))
    rest = tuple(c for c in box if c.column != column)
    if column.levels is not None:
        one = column.levels[level]
        without = tuple(v for v in old.allowed if v != one)
        below, above = (
            replace(old, allowed=without),
            replace(old, allowed=(one,) if one in old.allowed else ()),
        )
    else:
        at = np.floor(at) if column.whole else _rounded(at, _numbers(frame[column.name])[here])
        below, above = replace(old, upper=min(at, old.upper)), replace(old, lower=max(at, old.lower))
    return (*rest, below), (*rest, above)


def _rounded(at: float, values: F64) -> float:
    """The threshold with the fewest digits (two or more) that moves at most ``MOVED`` of the rows."""
    for digits in range(2, 10):
        short = float(f"{at:.{digits}g}")
        if np.mean((values > at) != (values > short)) <= MOVED:
            return short
    return at
