"""From a fit to the rows that are partners: what counts as an item, cells, the basis of the words, candidate kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from causalrec.blocks import Block
from causalrec.errors import EstimationError
from causalrec.kernels import Kernel, Rows, basis_kernel, cluster_kernel
from causalrec.nuisance import Nuisances
from causalrec.nuisance.columns import WIDE
from causalrec.nuisance.paired import KEPT_ROWS, PairNuisances

if TYPE_CHECKING:
    from causalrec.estimate.analysis import Inputs

F32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
MIN_TEXTS = 30
"""Distinct texts from which on a text counts as an item where none is declared."""
MOST_CELLS = 2_000
ROWS_AN_AXIS = 10
"""A basis has at most one axis for so many rows."""


def repeated_items(inputs: Inputs) -> Ints | None:
    """(n,) item codes, −1 for items shown once; the texts where no item is declared; None where nothing repeats."""
    codes = inputs.items if inputs.items is not None else _texts(inputs.covariates)
    if codes is None:
        return None
    counts = np.bincount(codes)
    if counts.max() < 2 or (inputs.items is None and len(counts) < MIN_TEXTS):
        return None
    kept = np.cumsum(counts > 1) - 1
    return np.where(counts[codes] > 1, kept[codes], -1).astype(np.int64)


def _texts(covariates: Sequence[object]) -> Ints | None:
    codes = [c.codes for c in covariates if isinstance(c, Block) and c.kind == "text"]
    if not codes:
        return None
    joint = np.zeros(len(codes[0]), dtype=np.int64)
    for one in codes:
        joint = np.unique(joint * (int(one.max()) + 1) + one, return_inverse=True)[1].astype(np.int64)
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


def has_wide_blocks(inputs: Inputs) -> bool:
    """Whether a block is wide enough that its penalty is chosen, and rows few enough for its basis."""
    wide = any(isinstance(c, Block) and c.width > WIDE for c in inputs.covariates)
    return wide and len(inputs.t) <= KEPT_ROWS


def basis_columns(fitted: Nuisances) -> F32 | None:
    """(n, d) the columns whose penalty was chosen, for which shrinking leaves bias; None where there are none, or too many rows."""
    problem = fitted.problem
    parts = {id(p.values): p for p in (*problem.outcome_design.parts, *problem.propensity_design.parts)}
    wide = [p for p in parts.values() if p.shrinkage == "chosen"]
    if not wide or len(problem.t) > KEPT_ROWS:
        return None
    return np.hstack([p.values if p.codes is None else p.values[p.codes] for p in wide])


def make_kernel(name: str, rows: Rows, pairs: PairNuisances) -> Kernel | None:
    """The kernel of one name ("cells" are items here); None where the log has nothing to make it of."""
    if name == "basis":
        columns = basis_columns(pairs.fitted)
        if columns is None:
            return None
        most = int((rows.w > 0).sum()) // ROWS_AN_AXIS
        return basis_kernel(columns, rows, pairs.sub, pairs.across, most)
    if name != "same_user" and rows.items is None:
        return None
    return cluster_kernel("same_item" if name == "cells" else name, rows, pairs.sub, pairs.across)
