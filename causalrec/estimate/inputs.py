"""Plain arrays as the analysis takes them: checked against the rows of Y, named, and coded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec.blocks import Block
from causalrec.errors import EstimationError
from causalrec.estimate.analysis import Inputs
from causalrec.nuisance.columns import Covariate

F64 = npt.NDArray[np.float64]
Covariates = npt.ArrayLike | pd.DataFrame | Block | Sequence[Any] | None


def as_inputs(
    y: Any, t: Any, x: Any, w: Any, groups: Any, items: Any, propensity: Any, sample_weight: Any
) -> tuple[Inputs, F64 | None]:
    """Arrays as the analysis takes them, and the numeric X, each checked against the rows of Y."""
    outcome, treatment = _vector(y, "Y"), _vector(t, "T")
    n = len(outcome)
    if not np.isin(treatment, (0.0, 1.0)).all() or np.ptp(treatment) == 0:
        raise EstimationError(f"T has the values {np.unique(treatment)[:5]}; must be 0/1 with both present.")
    modifiers = None if x is None else as_matrix(x, "X")
    covariates = [*_named(x, "X"), *(c for j, part in enumerate(_list(w)) for c in _named(part, f"W{j}"))]
    for name, length in [
        ("T", len(treatment)),
        *((str(c.name), c.n_rows if isinstance(c, Block) else len(c)) for c in covariates),
    ]:
        if length != n:
            raise EstimationError(f"{name} has {length:,} rows, Y has {n:,}.")
    _check_covariates(covariates)
    units = _codes(groups, "groups", n)
    logged = _optional(propensity, "propensity", n)
    if logged is not None and ((logged <= 0) | (logged >= 1)).any():
        raise EstimationError(
            f"propensity is outside (0, 1) in {int(((logged <= 0) | (logged >= 1)).sum()):,} rows."
        )
    weights = _optional(sample_weight, "sample_weight", n)
    if weights is not None and ((weights < 0).any() or weights.sum() == 0):
        raise EstimationError(
            f"sample_weight is negative in {int((weights < 0).sum()):,} of {n:,} rows and sums to {weights.sum():g}; must be >= 0 and not all 0."
        )
    inputs = Inputs(
        treatment,
        outcome,
        covariates,
        np.arange(n) if units is None else units,
        _codes(items, "items", n),
        weights,
        logged,
    )
    return inputs, modifiers


def _list(w: Covariates) -> list[Any]:
    if w is None:
        return []
    return (
        list(w)
        if isinstance(w, (list, tuple))
        and any(isinstance(p, (Block, pd.DataFrame, pd.Series, np.ndarray)) for p in w)
        else [w]
    )


def _named(part: Any, prefix: str) -> list[Covariate]:
    if part is None:
        return []
    if isinstance(part, Block):
        return [part]
    if isinstance(part, pd.Series):
        return [part.reset_index(drop=True)]
    if isinstance(part, pd.DataFrame):
        return [part.iloc[:, j].reset_index(drop=True) for j in range(part.shape[1])]
    matrix = as_matrix(part, prefix)
    return [pd.Series(matrix[:, j], name=f"{prefix}_{j}") for j in range(matrix.shape[1])]


def as_matrix(value: Any, name: str) -> F64:
    """A (n, q) float64 matrix of finite numbers, or ``EstimationError``."""
    try:
        matrix = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise EstimationError(
            f"{name} holds values that are no numbers; encode labels first, or use read_log and estimate."
        ) from None
    matrix = matrix[:, None] if matrix.ndim == 1 else matrix
    if matrix.ndim != 2:
        raise EstimationError(f"{name} has shape {matrix.shape}; must be (n, p).")
    _check_finite(matrix, name)
    return matrix


def _vector(value: Any, name: str) -> F64:
    try:
        vector = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise EstimationError(f"{name} holds values that are no numbers; must be (n,) numbers.") from None
    vector = vector[:, 0] if vector.ndim == 2 and vector.shape[1] == 1 else vector
    if vector.ndim != 1 or len(vector) == 0:
        raise EstimationError(f"{name} has shape {vector.shape}; must be (n,) with n >= 1.")
    _check_finite(vector, name)
    return vector


def _check_covariates(covariates: list[Covariate]) -> None:
    """Each covariate has a name of its own and no missing or infinite value."""
    names = [str(c.name) for c in covariates]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise EstimationError(
            f"the covariate {twice!r} is given twice; rename it, or leave it out of X or W."
        )
    for c in covariates:
        if isinstance(c, Block):
            continue
        if pd.api.types.is_numeric_dtype(c):
            _check_finite(c.to_numpy(dtype=np.float64, na_value=np.nan), str(c.name))
        elif c.isna().any():
            raise EstimationError(
                f"{c.name} is missing in {int(c.isna().sum()):,} of {len(c):,} rows; name or drop them."
            )


def _check_finite(values: F64, name: str) -> None:
    bad = ~np.isfinite(values)
    if bad.any():
        raise EstimationError(
            f"{name} has NaN or infinity in {int(bad.reshape(len(values), -1).any(axis=1).sum()):,} of {len(values):,} rows; impute or drop them."
        )


def _optional(value: Any, name: str, n: int) -> F64 | None:
    return None if value is None else _of_length(_vector(value, name), name, n)


def _codes(value: Any, name: str, n: int) -> npt.NDArray[np.int64] | None:
    if value is None:
        return None
    codes = _of_length(pd.factorize(np.asarray(value))[0].astype(np.int64), name, n)
    missing = int((codes < 0).sum())
    if missing:
        raise EstimationError(f"{name} is missing in {missing:,} of {n:,} rows; drop them or name them.")
    return codes


def _of_length(values: npt.NDArray[Any], name: str, n: int) -> npt.NDArray[Any]:
    if len(values) != n:
        raise EstimationError(f"{name} has {len(values):,} rows, Y has {n:,}.")
    return values
