"""What the first-order score leaves of the confounding, and the rule that decides whether to take it out by pairs of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from causalrec import second_order as so
from causalrec._checks import check_choice, check_scalar
from causalrec.blocks import Block
from causalrec.errors import ArgumentError, EstimationError
from causalrec.nuisance import Nuisances
from causalrec.nuisance.paired import PairNuisances
from causalrec.scores import Estimate, estimate_of

if TYPE_CHECKING:
    from causalrec.estimate.analysis import Inputs

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
KERNELS = ("same_item", "same_user", "cells")
WORTH = 0.5
"""A kernel is used if it may take out this many times the standard deviation that it adds."""
MIN_ALIKE = 1.0
"""Standard errors by which what rows of a cluster share in exposure must exceed zero."""
MIN_TEXTS = 30
"""Distinct texts from which on a text counts as an item where none is declared."""
MOST_CELLS = 2_000
MIN_SERVED = 0.2
MIN_VARIATION = 0.05
ROWS_A_CELL = 20


@dataclass(frozen=True)
class Correction:
    """Which order the scores have, and which rows are partners.

    Parameters
    ----------
    order : 1, 2 or None
        1: one row at a time (AIPW). 2: corrected by pairs. None: by a rule that looks at how much rows of one item
        (or user) share in exposure and in outcome beyond the words, each on its own, and never at the effect.
    kernels : tuple of str or None
        ``"same_item"``: pairs of rows of one item by different users. ``"same_user"``: of one user on different
        items; assumes that what a user does on one item changes nothing on another (no carry-over). ``"cells"``:
        pairs of rows in one cell of a partition of the text embedding, for texts that are shown once; removes what
        differs between cells only. None: items and users by the rule.
    rows_a_cell : int
        Rows in a cell, on average.
    """

    order: Literal[1, 2] | None = None
    kernels: tuple[str, ...] | None = None
    rows_a_cell: int = ROWS_A_CELL

    def __post_init__(self) -> None:
        if self.order not in (None, 1, 2):
            raise ArgumentError(f"order is {self.order!r}; must be 1, 2 or None (chosen by the rule).")
        check_scalar(self.rows_a_cell, "rows_a_cell", ge=2, integer=True)
        if self.kernels is not None:
            if isinstance(self.kernels, str) or not self.kernels:
                raise ArgumentError(f'kernels is {self.kernels!r}; must be a tuple such as ("same_item",).')
            for kernel in self.kernels:
                check_choice(kernel, "kernels", KERNELS)
            if {"cells", "same_item"} <= set(self.kernels):
                raise ArgumentError(
                    "kernels has both 'cells' and 'same_item'; a row has partners of one of these kinds."
                )


@dataclass(frozen=True, eq=False)
class PairCorrection:
    """What pairs of rows said.

    Attributes
    ----------
    order : 1 or 2
        2 if the effect is the corrected one.
    kernels : tuple of str
        Whose pairs were used.
    reason : str
        Why, in words.
    first_order : Estimate
        The AIPW estimate on the same nuisances, with the same clusters.
    left : Estimate or None
        What the words and covariates left of the confounding, first order less second order, with its interval.
    bounds : dict of str to float
        By kernel, √(Σvδ² · Σvβ²): an estimate of the most confounding that what its rows share in exposure (δ) and
        outcome (β) can make; not an upper confidence bound.
    share_served : float
        Share of rows that have partners.
    estimate : PairEstimate or None
        The second-order estimate with the influence of each row.
    items : (n,) or None
        What counts as an item: its code, −1 where it was shown once.
    pairs : PairNuisances or None
        The nuisances of pairs of rows.
    """

    order: int
    kernels: tuple[str, ...]
    reason: str
    first_order: Estimate
    left: Estimate | None
    bounds: dict[str, float]
    share_served: float
    estimate: so.PairEstimate | None
    items: Ints | None
    pairs: PairNuisances | None = None

    def sentence(self) -> str:
        """The verdict in plain words."""
        if self.left is None:
            return f"First order: {self.reason}"
        how = " and ".join(
            {"same_item": "item", "same_user": "user", "cells": "cell of the embedding"}[k]
            for k in self.kernels
        )
        left = self.left
        return (
            f"The words and covariates left {left.value:+.4f} [{left.ci_lower:+.4f}, {left.ci_upper:+.4f}] of bias, taken out with pairs of rows "
            f"of the same {how} ({100 * self.share_served:.0f} % of the rows have one{self._narrow()})."
        )

    def _narrow(self) -> str:
        within = self.pairs is not None and not self.pairs.across and "same_user" not in self.kernels
        return (
            "; pairs within folds only, without item effects: the nuisances were not fitted for pairs of folds"
            if within
            else ""
        )


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


def wants_pairs(correction: Correction, inputs: Inputs, items: Ints | None) -> bool:
    """Whether nuisances have to leave out pairs of folds."""
    if correction.order == 1 or items is None or inputs.logged is not None:
        return False
    if correction.kernels is not None and "same_item" not in correction.kernels:
        return False
    return float((items >= 0).mean()) >= MIN_SERVED


def correct(
    inputs: Inputs,
    fitted: Nuisances,
    sub: Ints | None,
    correction: Correction,
    estimand: str,
    clip: float,
    first: tuple[float, F64],
    at_most: int,
) -> PairCorrection:
    """Decide, and estimate.

    Parameters
    ----------
    sub : (n,) or None
        Sub-folds; None takes the folds (pairs within them).
    first : (θ, (n,) influence) of the first-order estimate
    at_most : int
        Bound on the number of clusters, for the degrees of freedom.

    Raises
    ------
    EstimationError
        Pairs were asked for by name, and there are none.
    """
    by_cells = _by_cells(correction) and inputs.logged is None
    items = _cells_of(inputs, correction) if by_cells else repeated_items(inputs)
    se_items = _cluster_items(inputs, items)
    plain = estimate_of(*first, inputs.units, se_items, at_most=at_most)

    def stay(reason: str, bounds: dict[str, float] | None = None, served: float = 0.0) -> PairCorrection:
        return PairCorrection(1, (), reason, plain, None, bounds or {}, served, None, items)

    if correction.order == 1:
        return stay("as asked for.")
    asked = correction.order == 2 or correction.kernels is not None
    if inputs.logged is not None:
        if asked:
            raise EstimationError(
                "the propensity is logged, so that no confounding is left for pairs of rows to find; leave correction out."
            )
        return stay("the propensity is logged, so that no confounding is left.")
    rows = so.Rows(inputs.t, inputs.y, fitted.problem.w, inputs.units, items)
    # pairs over folds need predictors for pairs of folds
    paired = bool(fitted.ridge is not None and fitted.ridge.eta) and sub is not None
    pairs = PairNuisances(fitted, rows, sub if paired and sub is not None else fitted.fold, clip)
    candidates = _candidates(correction, rows, pairs)
    if not candidates:
        if asked:
            raise EstimationError(
                "no pairs of rows of the kinds asked for: every item is shown once (or to one user) and no user has rows on two items; "
                'use Correction(kernels=("cells",)) or Correction(order=1).'
            )
        return stay(
            "no item is shown to several users often enough, and no user sees several items, so that there are no pairs to look at."
        )
    centre = _centre(inputs, pairs)
    found = {k.name: so.totals(rows, k, pairs.blocks, estimand, centre) for k in candidates}
    names = {
        k.name: ("cells" if _by_cells(correction) and k.name == "same_item" else k.name) for k in candidates
    }
    bounds = {names[k.name]: _bound(found[k.name], rows, k, estimand) for k in candidates}
    usable = [k for k in candidates if _varies([found[k.name]])]
    served = max(float(k.served.mean()) for k in candidates)
    if not usable:
        said = (
            "the exposure hardly varies between rows of one item (or user), so that pairs of rows say nothing"
        )
        if asked:
            raise EstimationError(f"{said}; leave correction out, or use Correction(order=1).")
        return stay(f"{said}.", bounds, served)
    single = {
        k.name: so.pair_estimate(rows, [k], pairs.blocks, estimand, centre, [found[k.name]]) for k in usable
    }
    chosen = usable
    if not asked:
        added = {k.name: _added(single[k.name], plain, inputs, se_items) for k in usable}
        chosen = [
            k for k in usable if _alike(found[k.name]) and bounds[names[k.name]] >= WORTH * added[k.name]
        ]
        if not chosen:
            worst = max(usable, key=lambda k: bounds[names[k.name]])
            return stay(
                f"what rows of one {'item' if worst.name == 'same_item' else 'user'} share beyond the words may bias the effect by an estimated {bounds[names[worst.name]]:.4f}, "
                "too little, or too uncertain, for what taking it out adds to the error; Correction(order=2) takes it out regardless.",
                bounds,
                served,
            )
    if len(chosen) == 2:
        chosen = _together(chosen, bounds)
    best = single[chosen[0].name]
    if len(chosen) == 2:
        both = [so.totals(rows, k, pairs.blocks, estimand, centre) for k in chosen]
        best = so.pair_estimate(rows, chosen, pairs.blocks, estimand, centre, both)
    left = estimate_of(
        first[0] - best.value, first[1] - best.influence, inputs.units, se_items, at_most=at_most
    )
    why = (
        "asked for."
        if asked
        else "what rows share beyond the words may bias the effect by more than it costs to take out."
    )
    return PairCorrection(
        2,
        tuple(names[k.name] for k in chosen),
        why,
        plain,
        left,
        bounds,
        float(chosen[0].served.mean()),
        best,
        items,
        pairs,
    )


def _together(kernels: list[so.Kernel], bounds: dict[str, float]) -> list[so.Kernel]:
    """Both kernels where enough rows have partners of both kinds, else the one that may take out more."""
    both = so.serve_both(*kernels)
    if float(both[0].served.mean()) >= MIN_SERVED:
        return both
    return [max(kernels, key=lambda k: bounds.get(k.name, bounds.get("cells", 0.0)))]


def corrected_group(
    inputs: Inputs, found: PairCorrection, here: npt.NDArray[np.bool_], estimand: str
) -> Estimate:
    """The second-order effect in a group, from the pairs of rows inside it.

    Raises
    ------
    EstimationError
        Hardly a row of the group has a partner in the group.
    """
    assert found.pairs is not None
    pairs = replace(found.pairs, keep=here)
    rows = replace(pairs.rows, w=np.where(here, pairs.rows.w, 0.0))
    best = _second_order(inputs, found, pairs, rows, estimand)
    few = min(len(np.unique(inputs.units[here & (inputs.t == arm)])) for arm in (0, 1))
    return estimate_of(
        best.value, best.influence, inputs.units, _cluster_items(inputs, found.items), at_most=few
    )


def second_order_again(inputs: Inputs, found: PairCorrection, estimand: str) -> so.PairEstimate | None:
    """Another estimand from the same pairs; None where the fit is of first order."""
    if found.order == 1 or found.pairs is None:
        return None
    return _second_order(inputs, found, found.pairs, found.pairs.rows, estimand)


def _second_order(
    inputs: Inputs, found: PairCorrection, pairs: PairNuisances, rows: so.Rows, estimand: str
) -> so.PairEstimate:
    names = ["same_item" if k == "cells" else k for k in found.kernels]
    kernels = [so.make_kernel(k, rows, pairs.sub, pairs.across) for k in names]
    used = rows.w > 0
    kernels = [replace(k, partners=np.where(used, k.partners, 0.0)) for k in kernels]
    if len(kernels) == 2:
        kernels = so.serve_both(*kernels)
    served = float(kernels[0].served[used].mean())
    if served < MIN_SERVED:
        raise EstimationError(
            f"{100 * served:.0f} % of the group's rows have a partner in the group, fewer than {100 * MIN_SERVED:.0f} %."
        )
    centre = _centre(inputs, pairs)
    totals = [so.totals(rows, k, pairs.blocks, estimand, centre) for k in kernels]
    if not _varies(totals):
        raise EstimationError("within the items of the group the exposure hardly varies.")
    return so.pair_estimate(rows, kernels, pairs.blocks, estimand, centre, totals)


def _varies(found: list[so.Totals]) -> bool:
    """Enough of the exposure's variation is left between partners."""
    whole = float(found[0].d[0, 0])
    return whole - sum(float(f.pairs_d[0, 0]) for f in found) > MIN_VARIATION * abs(whole)


def _centre(inputs: Inputs, pairs: PairNuisances) -> so.Centre:
    fitted = pairs.fitted
    return float(fitted.propensity.mean()), float(fitted.outcome_0.mean()), float(np.std(inputs.y))


def clusters(inputs: Inputs, found: PairCorrection) -> Ints | None:
    """Item codes (n,) for two-way errors, None where nothing repeats."""
    return _cluster_items(inputs, found.items)


def _cluster_items(inputs: Inputs, items: Ints | None) -> Ints | None:
    """Item codes for two-way errors: items shown once are clusters of their own; None where nothing repeats."""
    if inputs.items is not None:
        return inputs.items
    if items is None:
        return None
    return np.where(items < 0, np.arange(len(items)) + int(items.max()) + 1, items).astype(np.int64)


def _by_cells(correction: Correction) -> bool:
    return correction.kernels is not None and "cells" in correction.kernels


def _candidates(correction: Correction, rows: so.Rows, pairs: PairNuisances) -> list[so.Kernel]:
    wanted = correction.kernels or ("same_item", "same_user")
    names = ["same_item" if k == "cells" else k for k in KERNELS if k in wanted]
    found = []
    for name in names:
        if name == "same_item" and rows.items is None:
            continue
        kernel = so.make_kernel(name, rows, pairs.sub, pairs.across)
        least = 1e-9 if correction.kernels is not None else MIN_SERVED if name == "same_item" else 0.5
        if float(kernel.served.mean()) >= least:
            found.append(kernel)
    return found


def _bound(found: so.Totals, rows: so.Rows, kernel: so.Kernel, estimand: str) -> float:
    weight = {"ate": rows.w, "att": rows.w * rows.t, "ato": rows.w}[estimand][kernel.served].sum()
    per = abs(float(found.d[0, 0])) if estimand == "ato" else float(weight)
    return float(np.sqrt(max(found.left_t[0], 0.0) * max(found.left_r[0], 0.0)) / max(per, so.TINY))


def _alike(found: so.Totals) -> bool:
    """Rows of a cluster are visibly alike in exposure, and not visibly unlike in outcome."""
    return found.left_t[0] > MIN_ALIKE * found.left_t[1] and found.left_r[0] > 0


def _added(found: so.PairEstimate, plain: Estimate, inputs: Inputs, items: Ints | None) -> float:
    """Standard deviation that the pairs add, at least a twentieth of the standard error."""
    more = estimate_of(found.value, found.influence, inputs.units, items).std_error ** 2 - plain.std_error**2
    return float(np.sqrt(max(more, (0.05 * plain.std_error) ** 2)))


def _cells_of(inputs: Inputs, correction: Correction) -> Ints:
    """(n,) cell of each row: k-means of the text embedding, which has seen neither exposure nor outcome."""
    from sklearn.cluster import MiniBatchKMeans

    text = [c for c in inputs.covariates if isinstance(c, Block) and c.kind == "text"]
    if not text:
        raise EstimationError("kernels has 'cells', which needs a text block; embed the log's texts first.")
    block = text[0]
    counts = np.bincount(block.codes, minlength=len(block.values))
    seen = np.flatnonzero(counts)
    k = max(2, min(len(inputs.t) // correction.rows_a_cell, len(seen), MOST_CELLS))
    labels = np.zeros(len(block.values), dtype=np.int64)
    means = MiniBatchKMeans(k, random_state=0, n_init=1, batch_size=4096).fit(
        block.values[seen], sample_weight=counts[seen]
    )
    labels[seen] = means.labels_
    return labels[block.codes]
