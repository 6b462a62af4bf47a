"""The pairs of rows that corrected an effect, asked about other rows and other estimands."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from causalrec import second_order as so
from causalrec.errors import EstimationError
from causalrec.estimate.correction import PairCorrection
from causalrec.estimate.partners import MIN_SERVED, NOTICEABLE, cluster_items, make_kernel, repeated_items
from causalrec.estimate.rule import centre_of, varies
from causalrec.kernels import ClusterKernel, Rows, serve_both
from causalrec.nuisance.paired import PairNuisances
from causalrec.scores import Estimate, estimate_of

if TYPE_CHECKING:
    from causalrec.estimate.analysis import Inputs

Ints = npt.NDArray[np.int64]


def corrected_group(
    inputs: Inputs, found: PairCorrection, here: npt.NDArray[np.bool_], estimand: str
) -> Estimate:
    """The second-order effect in a group, from the pairs of rows inside it.

    Raises
    ------
    EstimationError
        Hardly a row of the group has a partner in the group.
    """
    if found.observed is not None:
        among, _ = found.observed.among(here).estimate(estimand)
        few = min(len(np.unique(inputs.units[here & (inputs.t == arm)])) for arm in (0, 1))
        return estimate_of(
            among.value, among.influence, inputs.units, clusters(inputs, found), at_most=few, bias=among.may_remain,
        )  # fmt: skip
    assert found.pairs is not None
    pairs = replace(found.pairs, keep=here)
    rows = replace(pairs.rows, w=np.where(here, pairs.rows.w, 0.0))
    best = _second_order(inputs, found, pairs, rows, estimand)
    used = here & (pairs.rows.w > 0)
    few = min(len(np.unique(inputs.units[used & (inputs.t == arm)])) for arm in (0, 1))
    return estimate_of(
        best.value, best.influence, inputs.units, clusters(inputs, found), at_most=few
    )


def of_repeated_items(inputs: Inputs, found: PairCorrection, estimand: str) -> Estimate | None:
    """The effect on rows whose item was shown more than once; None where that is nearly all of them, or pairs of one item are not used.

    The headline lends the other rows the repeated items' error of the effect model. This one leaves them out: another population.
    """
    if "same_item" not in found.kernels or found.items is None:
        return None
    here = found.items >= 0
    if here.mean() > 1 - NOTICEABLE:
        return None
    try:
        return corrected_group(inputs, found, here, estimand)
    except EstimationError:
        return None


def second_order_again(inputs: Inputs, found: PairCorrection, estimand: str) -> so.PairEstimate | None:
    """Another estimand from the same pairs; None where the fit is of first order."""
    if found.observed is not None:
        return found.observed.estimate(estimand)[0]
    if found.order == 1 or found.pairs is None:
        return None
    return _second_order(inputs, found, found.pairs, found.pairs.rows, estimand)


def _second_order(
    inputs: Inputs, found: PairCorrection, pairs: PairNuisances, rows: Rows, estimand: str
) -> so.PairEstimate:
    used = rows.w > 0
    made = [make_kernel(k, rows, pairs) for k in found.kernels]
    kernels = [k.only(used) for k in made if k is not None]
    if len(kernels) == 2 and isinstance(kernels[1], ClusterKernel):
        kernels = serve_both(kernels[0], kernels[1], rows)
    served = float(kernels[0].served[used].mean()) if used.any() else 0.0
    if served < MIN_SERVED:
        raise EstimationError(
            f"{100 * served:.0f} % of the group's rows have a partner in the group, fewer than {100 * MIN_SERVED:.0f} %."
        )
    centre = centre_of(inputs, pairs)
    totals = so.all_totals(rows, kernels, pairs.blocks, estimand, centre)
    if not varies(totals):
        raise EstimationError("within the items of the group the exposure hardly varies.")
    return so.pair_estimate(rows, kernels, pairs.blocks, estimand, centre, totals)


def clusters(inputs: Inputs, found: PairCorrection) -> Ints | None:
    """Item codes (n,) for two-way errors, None where nothing repeats."""
    return cluster_items(inputs, repeated_items(inputs) if "cells" in found.kernels else found.items)
