"""From a fit to the rows that are partners: what counts as an item, cells, the basis of the words, candidate kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from causalrec.blocks import Block
from causalrec.errors import EstimationError
from causalrec.kernels import Kernel, Rows, basis_kernel, cluster_kernel
from causalrec.nuisance.design import Design, Part
from causalrec.nuisance.paired import PairNuisances

if TYPE_CHECKING:
    from causalrec.estimate.analysis import Inputs

F32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Index = npt.NDArray[np.intp]
MIN_TEXTS = 30
"""Distinct texts from which on a text counts as an item where none is declared."""
MOST_CELLS = 2_000
MOST_BASIS_ROWS = 25_000
"""What shrinking leaves falls faster than the standard error: from here on it is too little for nuisances of pairs of folds, which
cost two to three times those of single folds, and for a basis that is kept as one column an axis and row."""
NOTICEABLE = 0.02
"""Share of rows without a partner that is worth a word."""
MOSTLY_ONCE = 0.5
MIN_SERVED = 0.2
"""Share of rows that must have a partner before a kernel is looked at."""
ROWS_AN_AXIS = 10
"""A basis has at most one axis for so many rows."""


@dataclass(frozen=True, eq=False)
class Shared:
    """What rows have in common that makes them partners.

    Attributes
    ----------
    what : "item", "text" or "item and text"
    codes : (n,) its code, −1 for rows that have none
    varied : float
        Share of the rows whose item was shown with several texts.
    """

    what: str
    codes: Ints
    varied: float = 0.0


def shared_by_rows(inputs: Inputs) -> Shared | None:
    """What makes rows partners: the declared item; the text where no item is declared, or items never repeat and texts do.

    Where items come with several texts, both: what one text of an item confounds, rows of its other texts do not know. Where most rows
    would then be alone, the item still. A text without a word is nobody's partner.
    """
    texts = _texts(inputs.covariates)
    if inputs.items is None:
        return None if texts is None else Shared("text", np.where(_blank(inputs), -1, texts))
    if texts is None:
        return Shared("item", inputs.items)
    both = _joint(inputs.items, texts)
    item_of = np.zeros(int(both.max()) + 1, dtype=np.int64)
    item_of[both] = inputs.items
    varied = float((np.bincount(item_of)[inputs.items] > 1).mean())
    spoken = np.where(_blank(inputs), -1, texts)
    if _share_repeated(inputs.items) < MIN_SERVED <= _share_repeated(spoken):
        return Shared("text", spoken)
    if varied >= NOTICEABLE and _share_repeated(both) >= MOSTLY_ONCE:
        return Shared("item and text", both, varied)
    return Shared("item", inputs.items, varied)


def repeated_items(inputs: Inputs) -> Ints | None:
    """(n,) code of what makes rows partners (``shared_by_rows``), −1 for rows without a partner; None where nothing repeats."""
    found = shared_by_rows(inputs)
    if found is None or not (found.codes >= 0).any():
        return None
    counts = np.bincount(found.codes[found.codes >= 0])
    if counts.max() < 2 or (found.what == "text" and int((counts > 0).sum()) < MIN_TEXTS):
        return None
    kept = np.cumsum(counts > 1) - 1
    again = (found.codes >= 0) & (counts[found.codes] > 1)
    return np.where(again, kept[found.codes], -1).astype(np.int64)


def share_shown_once(inputs: Inputs) -> float | None:
    """Share of the rows with words whose text no other row has; None without a text block, or a word."""
    codes = _texts(inputs.covariates)
    if codes is None:
        return None
    spoken = codes[~_blank(inputs)]
    return float((np.bincount(spoken)[spoken] == 1).mean()) if len(spoken) else None


def mostly_once(inputs: Inputs, items: Ints | None) -> bool:
    """Whether most rows show a text that no other row shows, and fewer than half have a partner.

    A correction that few rows make is lent to all others, and its interval does not hold that.
    """
    alone = share_shown_once(inputs)
    repeat = 0.0 if items is None else float((items >= 0).mean())
    return alone is not None and alone >= MOSTLY_ONCE and repeat < MOSTLY_ONCE


def _share_repeated(codes: Ints) -> float:
    """Share of the rows whose code another row has; −1 is nobody's."""
    known = codes[codes >= 0]
    return float((np.bincount(known)[known] > 1).sum() / len(codes)) if len(known) else 0.0


def _blank(inputs: Inputs) -> npt.NDArray[np.bool_]:
    """(n,) rows none of whose texts has a word."""
    blank = np.full(len(inputs.t), bool(inputs.texts))
    for _, words, codes in inputs.texts:
        without = np.array([not any(c.isalnum() for c in text) for text in words])
        blank &= without[codes]
    return blank


def _joint(a: Ints, b: Ints) -> Ints:
    """(n,) code of each pair of codes."""
    return np.unique(a * (int(b.max()) + 1) + b, return_inverse=True)[1].astype(np.int64)


def _texts(covariates: Sequence[object]) -> Ints | None:
    codes = [c.codes for c in covariates if isinstance(c, Block) and c.kind == "text"]
    if not codes:
        return None
    joint = np.zeros(len(codes[0]), dtype=np.int64)
    for one in codes:
        joint = _joint(joint, one)
    return joint


def cells_of(inputs: Inputs, rows_a_cell: int) -> Ints:
    """(n,) cell of each row: k-means of the text embedding, which has seen neither exposure nor outcome.

    Raises
    ------
    EstimationError
        There is no text block.
    """
    from sklearn.cluster import MiniBatchKMeans

    text = [c for c in inputs.covariates if isinstance(c, Block) and c.kind == "text"]
    if not text:
        raise EstimationError("kernels has 'cells', which needs a text block; embed the log's texts first.")
    block = text[0]
    counts = np.bincount(block.codes, minlength=len(block.values))
    seen = np.flatnonzero(counts)
    k = max(2, min(len(inputs.t) // rows_a_cell, len(seen), MOST_CELLS))
    labels = np.zeros(len(block.values), dtype=np.int64)
    means = MiniBatchKMeans(k, random_state=0, n_init=1, batch_size=4096).fit(
        block.values[seen], sample_weight=counts[seen]
    )
    labels[seen] = means.labels_
    return labels[block.codes]


def cluster_items(inputs: Inputs, items: Ints | None) -> Ints | None:
    """Item codes for two-way errors: items shown once are clusters of their own; None where nothing repeats."""
    if inputs.items is not None and int(inputs.items.max()) + 1 < len(inputs.items):
        return inputs.items
    if items is None:
        return None
    return np.where(items < 0, np.arange(len(items)) + int(items.max()) + 1, items).astype(np.int64)


def wide_parts(*designs: Design) -> tuple[Part, ...]:
    """The parts whose penalty was chosen, for which shrinking leaves bias; none where rows are too many for a basis of them."""
    parts = {p.owners: p for design in designs for p in design.parts if p.shrinkage == "chosen"}
    return tuple(parts.values()) if designs[0].n <= MOST_BASIS_ROWS else ()


def basis_columns(parts: Sequence[Part], rows: Index | None = None) -> F32:
    """(n, d) the columns of some parts for some rows, each part brought to a mean variance of 1, so that units do not matter."""
    out = []
    for part in parts:
        at = part.codes if rows is None or part.codes is None else part.codes[rows]
        values = part.values[rows] if part.codes is None and rows is not None else part.values
        x = values if at is None else values[at]
        spread = float(np.sqrt(x.var(axis=0, dtype=np.float64).mean()))
        out.append(x / np.float32(spread if spread > 0 else 1.0))
    return np.hstack(out)


def most_axes(rows: Rows, sets: Ints, across: bool) -> int:
    """Axes that a basis may have: one for ten of the rows among which a row finds its partners."""
    used = rows.w > 0
    if not used.any():
        return 0
    counts = np.bincount(np.zeros_like(sets[used]) if across else sets[used])
    return int(counts[counts > 0].min()) // ROWS_AN_AXIS


def make_kernel(name: str, rows: Rows, pairs: PairNuisances) -> Kernel | None:
    """The kernel of one name ("cells" are items here); None where the log has nothing to make it of."""
    if name == "basis":
        problem = pairs.fitted.problem
        parts = wide_parts(problem.outcome_design, problem.propensity_design)
        if not parts:
            return None
        most = most_axes(rows, pairs.sub, pairs.across)
        return basis_kernel(basis_columns(parts), rows, pairs.sub, pairs.across, most)
    if name != "same_user" and rows.items is None:
        return None
    return cluster_kernel("same_item" if name == "cells" else name, rows, pairs.sub, pairs.across)
