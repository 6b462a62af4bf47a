"""From a log's blocks and columns to the parts of a design, and again for another log.

What is learnt here (centre, knots, levels) is learnt from the covariates of all rows and has seen neither
treatment nor outcome. The scale on which a penalty acts is learnt in the fold, by ``ridge``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec.blocks import Block
from causalrec.errors import EstimationError
from causalrec.nuisance.design import Design, Part, Shrinkage

WIDE = 30
"""A block, or the plain numbers together, of more columns than this is shrunk by a chosen penalty, and numbers enter
linearly; of fewer, lightly."""
LEADING = 30
STRETCH = 3.0
"""How much, and how many, principal axes of a wide block are stretched."""
CURVED = 10
CURVED_SPREAD = 0.5
"""Of how many leading axes squares and products enter, and their standard deviation in those of an average column."""
KNOTS = (0.2, 0.4, 0.6, 0.8)
Covariate = Block | pd.Series


@dataclass(frozen=True, eq=False)
class _BlockRecipe:
    """A block, centred; a wide one is turned to its principal axes, the leading ones stretched, and curved.

    A stretched axis is shrunk less by the same penalty: what texts mostly differ in is learnt from fewer rows than the rest.
    Squares and products of the first axes follow: a confounder need not be linear in an embedding.
    """

    name: str
    mean: npt.NDArray[np.float32]
    axes: npt.NDArray[np.float32] | None
    products: _Products | None

    def parts(self, block: Block) -> list[Part]:
        if block.width != len(self.mean):
            raise EstimationError(
                f"block {self.name!r} has {block.width} columns, {len(self.mean)} when the nuisances were fitted; embed both logs alike."
            )
        values = block.values - self.mean
        if self.axes is None:
            shrinkage: Shrinkage = "light" if block.width <= WIDE else "chosen"
            return [Part((self.name,) * block.width, np.ascontiguousarray(values), block.codes, shrinkage)]
        turned = (values @ self.axes).astype(np.float32)
        if self.products is not None:
            turned = np.hstack([turned, self.products.of(turned)])
        return [Part((self.name,) * turned.shape[1], turned, block.codes, "chosen")]


@dataclass(frozen=True, eq=False)
class _Products:
    """Squares and products of the first CURVED axes, centred and scaled, (u, CURVED (CURVED + 1) / 2)."""

    centre: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]

    def of(self, turned: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return (_products(turned) - self.centre) * self.scale


def _products(turned: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    i, j = np.triu_indices(CURVED)
    return turned[:, i] * turned[:, j]


@dataclass(frozen=True, eq=False)
class _LevelsRecipe:
    name: str
    levels: tuple[str, ...]

    def parts(self, column: pd.Series) -> list[Part]:
        """One column a level; a level that was not seen is a row of zeros."""
        codes = pd.Categorical(column.astype(str), categories=list(self.levels)).codes.astype(np.int64)
        eye = np.vstack([np.eye(len(self.levels)), np.zeros((1, len(self.levels)))]).astype(np.float32)
        shrinkage: Shrinkage = "light" if len(self.levels) <= WIDE else "chosen"
        where = np.where(codes < 0, len(self.levels), codes)
        return [Part((self.name,) * len(self.levels), eye, where, shrinkage)]


@dataclass(frozen=True, eq=False)
class _NumberRecipe:
    """x, and (x − k)₊ at the quintiles k: piecewise linear, standardised.

    x is first measured in quartile ranges from its median and held within ±10 of them, so that a sentinel such as
    −999 or one absurd cell cannot decide the scale of the column and so switch its adjustment off.
    """

    name: str
    middle: float
    spread: float
    knots: npt.NDArray[np.float64]
    centre: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    wide: bool

    def parts(self, column: pd.Series) -> list[Part]:
        values = (
            _hinges(_held(_numbers(column), self.middle, self.spread), self.knots) - self.centre
        ) / self.scale
        how: Shrinkage = "chosen" if self.wide else "light"
        return [Part((self.name,) * values.shape[1], values.astype(np.float32), None, how)]


@dataclass(frozen=True, eq=False)
class DesignRecipe:
    """How each node became columns, so that another log becomes the same columns.

    Attributes
    ----------
    recipes : tuple
        One a node, in the order of the design.
    """

    recipes: tuple[_BlockRecipe | _LevelsRecipe | _NumberRecipe, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Nodes in order."""
        return tuple(r.name for r in self.recipes)

    def apply(self, covariates: Sequence[Covariate], n: int) -> Design:
        """The design of these covariates, (n,) each, which come in the order of ``names``."""
        parts = [p for r, c in zip(self.recipes, covariates, strict=True) for p in r.parts(c)]  # type: ignore[arg-type]
        return Design(_numbers_together(parts), n, row_hash(covariates, n))


def learn_design(covariates: Sequence[Covariate], n: int) -> tuple[DesignRecipe, Design]:
    """Learn centre, knots and levels from these covariates, and make their design.

    Parameters
    ----------
    covariates : sequence of Block or named Series
    n : int
        Rows; needed when there is no covariate at all.
    """
    wide = sum(isinstance(c, pd.Series) and _is_number(c) for c in covariates) > WIDE
    recipe = DesignRecipe(tuple(_learn(c, wide) for c in covariates))
    return recipe, recipe.apply(covariates, n)


def _learn(covariate: Covariate, wide: bool) -> _BlockRecipe | _LevelsRecipe | _NumberRecipe:
    if isinstance(covariate, Block):
        counts = np.bincount(covariate.codes, minlength=len(covariate.values)).astype(np.float64)
        mean = (counts @ covariate.values / counts.sum()).astype(np.float32)
        if covariate.width <= 2 * LEADING:
            return _BlockRecipe(covariate.name, mean, None, None)
        centred = covariate.values - mean
        axes = _principal_axes(centred, counts)
        return _BlockRecipe(covariate.name, mean, axes, _learn_products(centred, axes, counts))
    name = str(covariate.name)
    if not _is_number(covariate):
        return _LevelsRecipe(name, tuple(sorted(covariate.astype(str).unique())))
    middle, spread = robust_scale(_numbers(covariate))
    x = _held(_numbers(covariate), middle, spread)
    inner = np.empty(0)
    if not wide and len(np.unique(x)) > 2 * len(KNOTS):
        inner = np.unique(np.quantile(x, KNOTS))
        inner = inner[(inner > x.min()) & (inner < x.max())]
    basis = _hinges(x, inner)
    scale = basis.std(axis=0)
    return _NumberRecipe(
        name, middle, spread, inner, basis.mean(axis=0), np.where(scale > 0, scale, 1.0), wide
    )


def _principal_axes(
    centred: npt.NDArray[np.float32], counts: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """(d, d) eigenvectors of the rows' covariance, the largest first, those stretched; nothing of a text is lost."""
    covariance = centred.T @ (centred * (counts / counts.sum()).astype(np.float32)[:, None])
    _, vectors = np.linalg.eigh(covariance.astype(np.float64))
    vectors = vectors[:, ::-1].copy()
    vectors[:, :LEADING] *= STRETCH
    return np.ascontiguousarray(vectors.astype(np.float32))


def _learn_products(
    centred: npt.NDArray[np.float32], axes: npt.NDArray[np.float32], counts: npt.NDArray[np.float64]
) -> _Products:
    """Centre and scale of the products, under the rows' distribution of texts."""
    raw = _products(centred @ axes[:, :CURVED]).astype(np.float64)
    share = counts / counts.sum()
    centre = share @ raw
    spread = np.sqrt(share @ (raw - centre) ** 2)
    average = np.sqrt(float((share @ centred.astype(np.float64) ** 2).mean()))
    scale = np.where(spread > 0, CURVED_SPREAD * average / np.where(spread > 0, spread, 1.0), 0.0)
    return _Products(centre.astype(np.float32), scale.astype(np.float32))


def _numbers_together(parts: list[Part]) -> tuple[Part, ...]:
    """Plain numbers side by side in one part (they are all "light", or all "chosen"), behind the others."""
    plain = [p for p in parts if p.codes is None]
    rest = [p for p in parts if p.codes is not None]
    if plain:
        owners = tuple(o for p in plain for o in p.owners)
        rest.append(Part(owners, np.hstack([p.values for p in plain]), None, plain[0].shrinkage))
    return tuple(rest)


FAR = 10.0
"""Normal-consistent quartile ranges from the median at which a number is held."""


def robust_scale(x: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Median, and quartile range / 1.349 (mean absolute deviation where half of the values are one; 1 for a constant)."""
    low, middle, high = np.quantile(x, (0.25, 0.5, 0.75))
    spread = float((high - low) / 1.349)
    if not spread > 0:
        spread = float(np.abs(np.clip(x, *np.quantile(x, (0.001, 0.999))) - middle).mean() * 1.2533)
    return float(middle), spread if 0 < spread < np.inf else 1.0


def _held(x: npt.NDArray[np.float64], middle: float, spread: float) -> npt.NDArray[np.float64]:
    return np.clip((x - middle) / spread, -FAR, FAR)


def _hinges(x: npt.NDArray[np.float64], knots: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.column_stack([x, *(np.maximum(x - k, 0) for k in knots)])


def _numbers(column: pd.Series) -> npt.NDArray[np.float64]:
    return column.to_numpy(dtype=np.float64)


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)


def row_hash(covariates: Sequence[Covariate], n: int) -> npt.NDArray[np.uint64]:
    """(n,) hash of what each row says in its covariates, whatever its place."""
    total = np.zeros(n, dtype=np.uint64)
    for c in covariates:
        if isinstance(c, Block):
            rows = _block_keys(c)[c.codes]
        else:
            raw = c.to_numpy(dtype=np.float64) if _is_number(c) else c.astype(str).to_numpy(dtype=object)
            rows = pd.util.hash_array(raw)
        total = total * np.uint64(1_000_003) + rows
    return total


def _block_keys(block: Block) -> npt.NDArray[np.uint64]:
    if block.keys is not None:
        return block.keys
    rows = np.zeros(len(block.values), dtype=np.uint64)
    for j in range(block.width):
        rows = rows * np.uint64(1_000_003) + pd.util.hash_array(block.values[:, j].astype(np.float64))
    return rows
