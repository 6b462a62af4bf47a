"""What a reader of the effect has to know, found in what was computed on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from causalrec.blocks import Block
from causalrec.estimate.partners import MOSTLY_ONCE, NOTICEABLE, share_shown_once
from causalrec.nuisance.columns import robust_scale

if TYPE_CHECKING:
    from causalrec.estimate.analysis import Inputs
    from causalrec.estimate.correction import PairCorrection
    from causalrec.nuisance import Nuisances

ABSURD = 50.0
"""Quartile ranges from the median beyond which a number looks like a sentinel or an error."""
TOO_GOOD = 0.97
FEW_UNITS = 30
MAX_CLIPPED = 0.1
MAX_ALPHA = 0.25
"""v δ² above which the remainder of the correction was about half a standard error in simulations (``docs/second-order.md``)."""


def caveats(
    inputs: Inputs, fitted: Nuisances, found: PairCorrection, share_clipped: float
) -> tuple[str, ...]:
    """Sentences; none where nothing is odd."""
    return (
        *_nothing_declared(inputs),
        *_absurd_numbers(inputs),
        *_odd_models(fitted),
        *_few_units(inputs),
        *_rows_without_partners(found),
        *_items_of_several_texts(found),
        *_texts_shown_once(inputs, found),
        *_exposure_of_items(found),
        *_clipped(found, share_clipped),
    )


ALONE = {
    "same_item": "items shown once, or to one user",
    "same_user": "users who saw one item",
    "cells": "alone in their cell of the embedding",
    "basis": "no row of another user is like them",
}
"""Why a row has no partner, by kernel."""


def _rows_without_partners(found: PairCorrection) -> list[str]:
    alone = 1 - found.share_served
    if found.order == 1 or alone < NOTICEABLE or found.kernels in (("basis",), ("similar",)):
        return []
    other = " The effect on items shown more than once leaves them out." if "same_item" in found.kernels else ""
    return [
        f"{100 * alone:.0f} % of the rows have no partner ({ALONE[found.kernels[0]]}): for them the effect model's error, not the confounding, is taken to be that of the others.{other}"
    ]


def _items_of_several_texts(found: PairCorrection) -> list[str]:
    """Pairs of one item know what the item confounds, and not what one of its texts does."""
    if found.shared is None or found.shared.what != "item" or found.shared.varied < NOTICEABLE or "same_item" not in found.kernels:
        return []
    return [
        f"{100 * found.shared.varied:.0f} % of the rows are of items that were shown with several texts, few of which repeat: pairs of rows of one item take out what the item "
        "confounds, not what one of its texts does. If the texts decide, read the log without item=."
    ]


def _texts_shown_once(inputs: Inputs, found: PairCorrection) -> list[str]:
    """Nothing but repetition shows what a representation misses of a text."""
    alone = share_shown_once(inputs)
    if inputs.logged is not None or alone is None or alone < MOSTLY_ONCE:
        return []
    hard = f"{100 * alone:.0f} % of the rows show a text that no other row shows, which is the hard case"
    if found.kernels == ("similar",):
        return [
            f"{hard}: what moves exposure and clicks of like texts alike was taken out and half of it allowed for; what a text shares with no other, neither words nor "
            "meaning, cannot be seen in this log and is in no interval. Showing each text to several users would tell."
        ]
    allowed = "holds no more of it than what rows of one item (or user) share" if found.may_remain > 0 else "does not hold it"
    return [
        f"{hard}: what the columns miss of the words cannot be seen in this log, and on natural text "
        f"that has been half of the confounding. The interval {allowed}; fit.bias_aware() allows for it, under an assumption that it states."
    ]


def _clipped(found: PairCorrection, share: float) -> list[str]:
    """Pairs of rows go on where propensities are clipped: they take out far more than they leave."""
    if found.pairs is None or share <= MAX_CLIPPED:
        return []
    return [
        f"{100 * share:.0f} % of the propensities are clipped: for these rows pairs take out what confounds less exactly, by as much as the clip moves e(1 − e). "
        "estimand='ato' needs no clip."
    ]


def _exposure_of_items(found: PairCorrection) -> list[str]:
    """Where e(1 − e) is far off, what the effect model misses is averaged with other weights than the estimand's."""
    if found.alpha <= MAX_ALPHA:
        return []
    return [
        f"Items are exposed far more unlike than the propensities know ({100 * found.alpha:.0f} % of the variation of the exposure): pairs of rows take out what confounds, but the effect "
        "leans towards items whose exposure varies. estimand='ato' is that effect, exactly."
    ]


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
