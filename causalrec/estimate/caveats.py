"""What a reader of the effect has to know, found in what was computed on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from causalrec.blocks import Block
from causalrec.nuisance.columns import robust_scale
from causalrec.scores import Estimate

if TYPE_CHECKING:
    from causalrec.estimate.analysis import Inputs
    from causalrec.nuisance import Nuisances

ABSURD = 50.0
"""Quartile ranges from the median beyond which a number looks like a sentinel or an error."""
TOO_GOOD = 0.97
FEW_UNITS = 30


def caveats(inputs: Inputs, fitted: Nuisances, effect: Estimate, by_item: Estimate | None) -> tuple[str, ...]:
    """Sentences; none where nothing is odd."""
    found = [*_nothing_declared(inputs), *_absurd_numbers(inputs), *_odd_models(fitted), *_few_units(inputs)]
    if by_item is not None and by_item.std_error > 1.3 * effect.std_error:
        found.append(
            f"Rows of one item are alike beyond their user: with errors by user and item the interval is [{by_item.ci_lower:+.4f}, {by_item.ci_upper:+.4f}]; "
            "go by that one."
        )
    return tuple(found)


def units_in_smaller_arm(inputs: Inputs) -> int:
    """Units with rows (of positive weight) in the arm that has fewer."""
    used = np.ones(len(inputs.t), dtype=bool) if inputs.weights is None else inputs.weights > 0
    return min(len(np.unique(inputs.units[used & (inputs.t == arm)])) for arm in (0, 1))


def _nothing_declared(inputs: Inputs) -> list[str]:
    if inputs.covariates or inputs.logged is not None:
        return []
    return [
        "Nothing is adjusted for: this is the naive comparison, and an effect only if the treatment was randomised."
    ]


def _absurd_numbers(inputs: Inputs) -> list[str]:
    out = []
    for covariate in inputs.covariates:
        if isinstance(covariate, Block) or not pd.api.types.is_numeric_dtype(covariate):
            continue
        x = covariate.to_numpy(dtype=np.float64)
        middle, spread = robust_scale(x)
        far = int((np.abs(x - middle) > ABSURD * spread).sum())
        if far and far < 0.2 * len(x):
            out.append(
                f"{covariate.name!r} has {far:,} values far from all others (typical {middle:.4g} ± {spread:.2g}, most extreme {x[np.argmax(np.abs(x - middle))]:.4g}); "
                "they were held at 10 quartile ranges. If they stand for missing values, impute them and add an indicator column."
            )
    return out


def _odd_models(fitted: Nuisances) -> list[str]:
    out = []
    for gain in fitted.gains:
        name = str(gain["model"])
        known = gain["held_out_auc"] if fitted.problem.binary else gain["share_explained"]
        if name != "propensity" and known > TOO_GOOD:
            out.append(
                f"What is adjusted for all but determines the outcome (held-out {'AUC' if fitted.problem.binary else 'R²'} {known:.3f}, {name}): "
                "is a column or a history written after the exposure, or made from the outcome? Then this is no effect."
            )
        if gain["share_explained"] < -0.05:
            out.append(
                f"The model of {name} does worse than a constant on held-out users (by {-100 * gain['share_explained']:.0f} % of its loss): "
                "fewer or coarser columns would serve better."
            )
    return list(dict.fromkeys(out))


def _few_units(inputs: Inputs) -> list[str]:
    few = units_in_smaller_arm(inputs)
    if few >= FEW_UNITS:
        return []
    return [
        f"Only {few} units are in the smaller arm: an interval from so few is a rough one, and tends to be too narrow."
    ]
