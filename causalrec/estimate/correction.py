"""What the first-order score leaves of the confounding, taken out by pairs of rows; the rule for it is in ``rule``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from causalrec import second_order as so
from causalrec._checks import check_choice, check_scalar
from causalrec.blocks import Block
from causalrec.errors import ArgumentError, EstimationError
from causalrec.estimate.partners import (
    MIN_SERVED,
    Shared,
    cells_of,
    cluster_items,
    mostly_once,
    repeated_items,
    shared_by_rows,
    wide_parts,
)
from causalrec.estimate.rule import Seen, chosen_by_rule
from causalrec.estimate.similar import MOST_OWN_PAIRS, MOST_ROWS, NARROW, Observed
from causalrec.kernels import Rows
from causalrec.nuisance import Clip, Nuisances
from causalrec.nuisance.design import Design
from causalrec.nuisance.paired import PairNuisances
from causalrec.scores import Estimate, estimate_of

if TYPE_CHECKING:
    from causalrec.estimate.analysis import Inputs

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
KERNELS = ("same_item", "same_user", "cells", "basis", "similar")
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
        items; assumes that what a user does on one item changes nothing on another (no carry-over). ``"basis"``:
        all pairs of rows of different users, weighed by how alike their blocks are; removes what shrinking
        the regressions on the blocks left, and needs no repetition. ``"cells"``: pairs of rows in one cell of a
        partition of the text embedding; removes what differs between cells only. ``"similar"``: all pairs of rows of different
        users, by a regression of what they leave on how alike their texts are (embedding and words), read at likeness 1;
        rests on the assumption of ``SimilarTexts``. None: items, users and the basis by the rule; ``"similar"`` where most texts are shown once.
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
            by_words = sorted({"cells", "same_item", "basis", "similar"} & set(self.kernels))
            if "similar" in self.kernels and len(self.kernels) > 1:
                raise ArgumentError(
                    f"kernels is {self.kernels!r}; 'similar' takes all pairs of rows and stands alone."
                )
            if len(by_words) > 1:
                raise ArgumentError(
                    f"kernels has {' and '.join(map(repr, by_words))}; a row has partners of one of these kinds."
                )
            if self.order == 1:
                raise ArgumentError(f"order is 1 and kernels {self.kernels!r}; a first-order effect uses no pairs: leave one of them out.")


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
    may_remain : float
        A bias for which the interval allows: what rows of one item (or user) are estimated to share beyond what was taken
        out, where the rule found that too little or too uncertain to take out as well. Of ``"similar"``: half of what was taken out.
    alpha : float
        Where items repeat, v δ² a row: how far the exposure models, item effects included, are from what rows of one item say; 0 if not known.
    observed : Observed or None
        The rows and texts that ``"similar"`` compares.
    shared : Shared or None
        What makes rows partners of ``"same_item"``.
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
    may_remain: float = 0.0
    observed: Observed | None = None
    alpha: float = 0.0
    shared: Shared | None = None

    def sentence(self) -> str:
        """The verdict in plain words."""
        if self.kernels == ("similar",) and self.left is not None:
            left = self.left
            return (
                f"Pairs of rows whose texts are alike show that the words and covariates left {left.value:+.4f} [{left.ci_lower:+.4f}, {left.ci_upper:+.4f}] of bias, which "
                f"is taken out; the interval allows for half of it, {self.may_remain:.4f}, more or less. Assumed, not tested: what the models miss is shared by texts in "
                "proportion to how alike they are."
            )
        allowed = (
            f" The interval allows for a bias of up to {self.may_remain:.4f} from what rows of one item (or user) share beyond that."
            if self.may_remain > 0
            else ""
        )
        if self.left is None:
            return f"First order: {self.reason}{allowed}"
        words = {
            "same_item": f"of the same {'item' if self.shared is None or self.shared.what == 'text' else self.shared.what}",
            "same_user": "of the same user",
            "cells": "of the same cell of the embedding",
            "basis": f"that are alike in {self._columns()}",
        }
        how = " and ".join(words[k] for k in self.kernels)
        left = self.left
        what = "The words and covariates"
        if self.kernels == ("basis",):
            what = f"Shrinking the regressions on {self._columns()}"
        return (
            f"{what} left {left.value:+.4f} [{left.ci_lower:+.4f}, {left.ci_upper:+.4f}] of bias, taken out with pairs of rows "
            f"{how} ({100 * self.share_served:.0f} % of the rows have one{self._narrow()}).{allowed}"
        )

    def _columns(self) -> str:
        """The nodes whose columns make the basis."""
        if self.pairs is None:
            return "the words"
        problem = self.pairs.fitted.problem
        parts = wide_parts(problem.outcome_design, problem.propensity_design)
        return ", ".join(dict.fromkeys(o for p in parts for o in p.owners))

    def _narrow(self) -> str:
        within = self.pairs is not None and not self.pairs.across and "same_user" not in self.kernels
        return (
            "; pairs within folds only, without item effects: the nuisances were not fitted for pairs of folds"
            if within
            else ""
        )


def wants_pairs(correction: Correction, inputs: Inputs, items: Ints | None, design: Design) -> bool:
    """Whether nuisances have to leave out pairs of folds."""
    if correction.order == 1 or inputs.logged is not None or by_likeness(correction, inputs, items):
        return False
    if wide_parts(design) and (correction.kernels is None or "basis" in correction.kernels):
        return True
    if items is None or (correction.kernels is not None and "same_item" not in correction.kernels):
        return False
    return float((items >= 0).mean()) >= MIN_SERVED


def by_likeness(correction: Correction, inputs: Inputs, items: Ints | None) -> bool:
    """Whether what the models miss is read off texts that are alike: asked for, or most texts are shown once and nothing else was asked for."""
    if correction.order == 1 or inputs.logged is not None:
        return False
    if correction.kernels is not None:
        return correction.kernels == ("similar",)
    comparable = any(
        isinstance(c, Block) and c.kind == "text" and c.width > NARROW for c in inputs.covariates
    )
    if not comparable or len(inputs.t) > MOST_ROWS or not mostly_once(inputs, items):
        return False
    return int((np.bincount(inputs.units) ** 2).sum()) <= MOST_OWN_PAIRS


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
    by_cells = "cells" in (correction.kernels or ()) and inputs.logged is None
    items = cells_of(inputs, correction.rows_a_cell) if by_cells else repeated_items(inputs)
    se_items = cluster_items(inputs, repeated_items(inputs) if by_cells else items)
    plain = estimate_of(*first, inputs.units, se_items, at_most=at_most)
    if by_likeness(correction, inputs, items):
        try:
            return _by_likeness(inputs, fitted, items, estimand, Clip(clip), plain, at_most)
        except EstimationError:  # nothing to compare, or too many rows of one user
            if correction.kernels is not None:
                raise
    rows = Rows(inputs.t, inputs.y, fitted.problem.w, inputs.units, items)
    # pairs over folds need predictors for pairs of folds
    paired = bool(fitted.ridge is not None and fitted.ridge.eta) and sub is not None
    pairs = PairNuisances(fitted, rows, sub if paired and sub is not None else fitted.fold, clip)
    seen = Seen(inputs, pairs, rows, estimand, plain, se_items)
    chosen, reason = _decide(correction, inputs, seen)
    overruled = correction.order == 1 or correction.kernels is not None
    if not chosen and seen.kernels and sub is None and not paired and wants_pairs(correction, inputs, items, fitted.problem.outcome_design):
        reason += " Only pairs within folds were looked at: these nuisances were not fitted for pairs of folds."
    if not chosen:
        remains = 0.0 if overruled or not seen.kernels else seen.may_remain([])
        return PairCorrection(
            1, (), reason, plain, None, seen.bounds, seen.served, None, items, may_remain=remains,
            shared=shared_by_rows(inputs),
        )  # fmt: skip
    bounds, alpha = (
        seen.bounds,
        0.0 if estimand == "ato" or by_cells or "same_item" not in chosen else seen.alpha("same_item"),
    )
    chosen, best = seen.together(chosen)
    remains = 0.0 if overruled else seen.may_remain(chosen)
    left = estimate_of(
        first[0] - best.value, first[1] - best.influence, inputs.units, se_items, at_most=at_most
    )
    names = tuple("cells" if by_cells and k == "same_item" else k for k in chosen)
    served = seen.served_by(chosen[0])
    return PairCorrection(
        2, names, reason, plain, left, bounds, served, best, items, pairs, remains, alpha=alpha, shared=shared_by_rows(inputs),
    )  # fmt: skip


def _by_likeness(
    inputs: Inputs,
    fitted: Nuisances,
    items: Ints | None,
    estimand: str,
    clip: Clip,
    plain: Estimate,
    at_most: int,
) -> PairCorrection:
    """The second-order estimate by how alike texts are, and half of what it took out as a bias that may remain."""
    nuisances = fitted.propensity, fitted.outcome_0, fitted.outcome_1, fitted.problem.w
    observed = Observed(inputs.t, inputs.y, *nuisances, inputs.units, clip, inputs.covariates, inputs.texts)
    best, bias = observed.estimate(estimand)
    left = estimate_of(
        bias.bias, bias.influence, inputs.units, cluster_items(inputs, items), at_most=at_most
    )
    return PairCorrection(
        2, ("similar",), "most texts are shown once.", plain, left, {}, 1.0, best, items,
        may_remain=best.may_remain, observed=observed,
    )  # fmt: skip


def _decide(correction: Correction, inputs: Inputs, seen: Seen) -> tuple[list[str], str]:
    """Kernels to use, none for a first-order estimate, and why.

    Raises
    ------
    EstimationError
        Pairs were asked for by name, and there are none that say anything.
    """
    if correction.order == 1:
        return [], "as asked for."
    asked = correction.order == 2 or correction.kernels is not None
    found: list[str] = []
    if inputs.logged is not None:
        reason = "the propensity is logged, so that no confounding is left for pairs of rows to find."
    else:
        seen.look(
            correction.kernels or ("same_item", "same_user"), 1e-9 if correction.kernels else MIN_SERVED
        )
        if asked and correction.kernels is None and "same_item" not in seen.usable():
            seen.look(("basis",), MIN_SERVED)
        found = seen.usable() if asked else chosen_by_rule(seen)
        unusable = [k for k in correction.kernels or () if k not in found and not (k == "cells" and "same_item" in found)]
        if found and unusable:
            raise EstimationError(
                f"kernels names {unusable[0]!r}, but no rows are such partners of each other, or their exposure hardly varies; leave it out of Correction(kernels=...)."
            )
        reason = _why(seen, bool(found), asked)
    if asked and not found:
        raise EstimationError(f"{reason[:-1]}; leave correction out, or use Correction(order=1).")
    return found, reason


def _why(seen: Seen, found: bool, asked: bool) -> str:
    if found and asked:
        return "asked for."
    if found:
        return "what rows share beyond the words may bias the effect by more than it costs to take out."
    if not seen.kernels:
        return (
            "no pairs of rows to look at: every item is shown once (or to one user, or not often enough), "
            "no user sees several items, and no block is wide (or the rows are too many for its basis)."
        )
    if not seen.usable():
        return "the exposure hardly varies between partners (rows of one item or user, or of like words), so that pairs of rows say nothing."
    return seen.too_little()
