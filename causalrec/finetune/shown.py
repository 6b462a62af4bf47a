"""Which rows of a log were shown at a position, positions that are rare put together, and what describes a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec.errors import ArgumentError, EstimationError, LogError
from causalrec.log import ImpressionLog

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Which = Literal["treated", "all"]
AXES = 30
"""Principal axes of a block that describe a row."""


@dataclass(frozen=True, eq=False)
class Shown:
    """The rows that were shown at a position, m of them.

    Attributes
    ----------
    rows : (m,) places in the log
    position : (m,) whole numbers >= 1
    y, w : (m,) outcome and row weight
    units : (m,) user codes
    strata : (m,) codes of what is the same wherever it stands (item, and text); None where the log declares neither
    left_out : rows that have a position and are not among them
    """

    rows: Ints
    position: Ints
    y: F64
    w: F64
    units: Ints
    strata: Ints | None
    left_out: int


def whole_positions(values: npt.NDArray[Any] | pd.Series, name: str) -> Ints:
    """Positions as whole numbers, or ``LogError`` naming the first that is missing, broken or below 1."""
    numbers = pd.to_numeric(pd.Series(np.asarray(values)), errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    missing = int((~np.isfinite(numbers)).sum())
    if missing:
        raise LogError(
            f"{name} is missing or no number in {missing:,} of {len(numbers):,} rows shown: a row that was shown has a position; "
            "fill it in, or leave these rows out of the log."
        )
    wrong = (numbers != np.round(numbers)) | (numbers < 1)
    if wrong.any():
        low = " Positions count from 1: add 1 if yours count from 0." if numbers.min() == 0 else ""
        raise LogError(
            f"{name} is {numbers[wrong][0]:g} in {int(wrong.sum()):,} of {len(numbers):,} rows, must be a whole number >= 1.{low}"
        )
    return numbers.astype(np.int64)


def shown_rows(log: ImpressionLog, which: Which) -> Shown:
    """The rows of a log that were shown at a position, checked.

    Raises
    ------
    LogError
        No position is declared, or it is missing, no whole number or below 1 in a row that was shown.
    EstimationError
        One position only, no clicks, negative outcomes, or one user.
    """
    if not log.roles.position:
        raise LogError(
            "the log declares no position; name the column of the slot in read_log(position=...), or give a known curve: Examination.of({1: 1.0, 2: 0.7})."
        )
    column = log.frame[log.roles.position[0]]
    name = f"column {log.roles.position[0]!r} (position)"
    placed = column.notna().to_numpy()
    keep = placed if which == "all" else log.treatment > 0
    if log.weights is not None:
        keep = keep & (log.weights > 0)
    rows = np.flatnonzero(keep).astype(np.int64)
    if not len(rows):
        raise LogError(f"{name} is missing in all {len(log):,} rows; there is no position to learn from.")
    position = whole_positions(column.to_numpy()[rows], name)
    y = log.outcome[rows]
    _check_outcome(log, y, position, log.units[rows])
    w = np.ones(len(rows)) if log.weights is None else log.weights[rows]
    labels = [log.frame[c].iloc[rows] for c in (*log.roles.item, *log.roles.text)]
    strata = None
    if labels:
        strata = pd.MultiIndex.from_arrays([pd.factorize(c)[0] for c in labels]).factorize()[0].astype(np.int64)
    return Shown(rows, position, y, w, log.units[rows], strata, int((placed & ~keep).sum()))


def _check_outcome(log: ImpressionLog, y: F64, position: Ints, units: Ints) -> None:
    name = log.roles.outcome[0]
    if len(np.unique(position)) < 2:
        raise EstimationError(
            f"all {len(position):,} rows shown stand at position {position[0]}: one position has nothing to be compared with. "
            "Read a log with several slots, or leave examination= out."
        )
    if (y < 0).any():
        raise EstimationError(
            f"the outcome {name!r} is {y.min():g} in a row shown, must be >= 0: theta multiplies clicks, and a product has no sign. Declare clicks as the outcome."
        )
    if y.sum() == 0:
        raise EstimationError(f"the outcome {name!r} is 0 in all {len(y):,} rows shown: without a click there is no curve. Use a longer period.")
    if log.roles.unit and len(np.unique(units)) < 2:
        raise EstimationError("the rows shown belong to one user; an interval needs at least two, and to be of use thirty.")


def position_groups(position: Ints, y: F64, w: F64, min_clicks: float) -> tuple[Ints, Ints]:
    """Distinct positions (P,) and the group (P,) of each: neighbours are put together until a group expects `min_clicks`.

    Expected clicks are rows times the overall click rate, so that a position's own clicks have no say. What is left over
    at the end joins the last group, unless that is the first.
    """
    distinct, where = np.unique(position, return_inverse=True)
    expected = np.bincount(where, w) * (w @ y) / w.sum()
    group = np.zeros(len(distinct), dtype=np.int64)
    current, total = 0, 0.0
    for k, size in enumerate(expected):
        group[k] = current
        total += size
        if total >= min_clicks:
            current, total = current + 1, 0.0
    if 0 < total < min_clicks and current > 1:
        group[group == current] = current - 1
    return distinct, group


def describe(log: ImpressionLog, rows: Ints, kinds: tuple[str, ...]) -> F64:
    """(m, q) standardised numbers of these rows: score, modifiers, confounders, and the leading axes of blocks of these kinds."""
    from causalrec.nuisance.columns import learn_design

    names = dict.fromkeys((*log.roles.score, *log.roles.modifiers, *log.roles.confounders))
    columns = [log.frame[c].iloc[rows] for c in names]
    parts = [learn_design(columns, len(rows))[1].dense().astype(np.float64)] if columns else []
    parts += [leading_axes(b.values, b.codes[rows])[b.codes[rows]] for b in log.blocks.values() if b.kind in kinds]
    x = np.hstack(parts) if parts else np.zeros((len(rows), 0))
    scale = x.std(axis=0)
    return np.asarray(((x - x.mean(axis=0)) / np.where(scale > 0, scale, 1.0))[:, scale > 0])


def leading_axes(values: npt.NDArray[np.float32], codes: Ints) -> F64:
    """(u, ≤ 30) distinct vectors of a block on the principal axes of the rows that have them; a narrow block as it is."""
    share = np.bincount(codes, minlength=len(values)) / len(codes)
    centred = values.astype(np.float64) - share @ values
    if centred.shape[1] <= AXES:
        return centred
    axes = np.linalg.eigh(centred.T @ (centred * share[:, None]))[1][:, ::-1][:, :AXES]
    return np.asarray(centred @ axes)


def check_chances(chances: Any, n: int, rows: Ints) -> F64:
    """The logged P(position | item, user) of the rows shown, (m,), or ``ArgumentError``."""
    values = np.asarray(chances, dtype=np.float64)
    if values.shape != (n,):
        raise ArgumentError(f"propensities has shape {values.shape}, must be ({n:,},): P(the position that the row got), one a row of the log.")
    values = values[rows]
    bad = ~((values > 0) & (values <= 1))
    if bad.any():
        raise ArgumentError(
            f"propensities is {values[bad][0]:g} in {int(bad.sum()):,} of {len(rows):,} rows shown, must be in (0, 1]; leave propensities= out to have them estimated."
        )
    return values
