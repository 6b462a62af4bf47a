"""What the first-order score leaves of the confounding, and the rule that decides whether to take it out by pairs of rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from causalrec import second_order as so
from causalrec._checks import check_choice, check_scalar
from causalrec.errors import ArgumentError, EstimationError
from causalrec.estimate.partners import cells_of, has_wide_blocks, make_kernel, repeated_items
from causalrec.kernels import TINY, Kernel, Rows, serve_both
from causalrec.nuisance import Nuisances
from causalrec.nuisance.paired import PairNuisances
from causalrec.scores import Estimate, estimate_of

if TYPE_CHECKING:
    from causalrec.estimate.analysis import Inputs

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
KERNELS = ("same_item", "same_user", "cells", "basis")
WORTH = 0.5
"""A kernel is used if it may take out this many times the standard deviation that it adds."""
MIN_ALIKE = 1.0
"""Standard errors by which what rows of a cluster share in exposure must exceed zero."""
DEAR = 0.1
"""Share by which pairs of one item may add to the standard error before pairs by the words alone are looked at as well."""
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
        items; assumes that what a user does on one item changes nothing on another (no carry-over). ``"basis"``:
        all pairs of rows of different users, weighed by how alike their blocks are; removes what shrinking
        the regressions on the blocks left, and needs no repetition. ``"cells"``: pairs of rows in one cell of a
        partition of the text embedding; removes what differs between cells only. None: items, users and the basis by the rule.
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
            by_words = sorted({"cells", "same_item", "basis"} & set(self.kernels))
            if len(by_words) > 1:
                raise ArgumentError(
                    f"kernels has {' and '.join(map(repr, by_words))}; a row has partners of one of these kinds."
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
        words = {
            "same_item": "of the same item",
            "same_user": "of the same user",
            "cells": "of the same cell of the embedding",
            "basis": "whose words are alike",
        }
        how = " and ".join(words[k] for k in self.kernels)
        left = self.left
        what = (
            "Shrinking the regressions on the words"
            if self.kernels == ("basis",)
            else "The words and covariates"
        )
        return (
            f"{what} left {left.value:+.4f} [{left.ci_lower:+.4f}, {left.ci_upper:+.4f}] of bias, taken out with pairs of rows "
            f"{how} ({100 * self.share_served:.0f} % of the rows have one{self._narrow()})."
        )

    def _narrow(self) -> str:
        within = self.pairs is not None and not self.pairs.across and "same_user" not in self.kernels
        return (
            "; pairs within folds only, without item effects: the nuisances were not fitted for pairs of folds"
            if within
            else ""
        )


def wants_pairs(correction: Correction, inputs: Inputs, items: Ints | None) -> bool:
    """Whether nuisances have to leave out pairs of folds."""
    if correction.order == 1 or inputs.logged is not None:
        return False
    if has_wide_blocks(inputs) and (correction.kernels is None or "basis" in correction.kernels):
        return True
    if items is None or (correction.kernels is not None and "same_item" not in correction.kernels):
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
    by_cells = correction.kernels is not None and "cells" in correction.kernels
    items = (
        cells_of(inputs, correction.rows_a_cell)
        if by_cells and inputs.logged is None
        else repeated_items(inputs)
    )
    se_items = _cluster_items(inputs, items)
    plain = estimate_of(*first, inputs.units, se_items, at_most=at_most)
    asked = correction.order == 2 or correction.kernels is not None

    def stay(reason: str, seen: _Seen | None = None) -> PairCorrection:
        if asked and correction.order != 1:
            raise EstimationError(f"{reason[:-1]}; leave correction out, or use Correction(order=1).")
        bounds = {} if seen is None else seen.bounds
        served = 0.0 if seen is None else seen.served
        return PairCorrection(1, (), reason, plain, None, bounds, served, None, items)

    if correction.order == 1:
        return stay("as asked for.")
    if inputs.logged is not None:
        return stay("the propensity is logged, so that no confounding is left for pairs of rows to find.")
    rows = Rows(inputs.t, inputs.y, fitted.problem.w, inputs.units, items)
    # pairs over folds need predictors for pairs of folds
    paired = bool(fitted.ridge is not None and fitted.ridge.eta) and sub is not None
    pairs = PairNuisances(fitted, rows, sub if paired and sub is not None else fitted.fold, clip)
    seen = _Seen(inputs, pairs, rows, estimand, plain, se_items)
    names = correction.kernels or ("same_item", "same_user")
    seen.look(names, MIN_SERVED if correction.kernels is None else 1e-9)
    if asked:
        if correction.kernels is None and not seen.kernels:
            seen.look(("basis",), MIN_SERVED)
        if not seen.kernels:
            return stay(
                "no pairs of rows of the kinds asked for: every item is shown once (or to one user), no user has rows on two items, "
                "and no block is wide."
            )
        chosen = seen.usable()
    else:
        chosen = _chosen(seen)
    if not seen.kernels:
        return stay(
            "no item is shown to several users often enough, no user sees several items and no block is wide, so that there are no pairs to look at."
        )
    if not seen.usable():
        return stay(
            "the exposure hardly varies between rows of one item (or user), so that pairs of rows say nothing.",
            seen,
        )
    if not chosen:
        return stay(seen.too_little(), seen)
    chosen, best = seen.together(chosen)
    left = estimate_of(
        first[0] - best.value, first[1] - best.influence, inputs.units, se_items, at_most=at_most
    )
    return PairCorrection(
        2,
        tuple("cells" if by_cells and k == "same_item" else k for k in chosen),
        "asked for."
        if asked
        else "what rows share beyond the words may bias the effect by more than it costs to take out.",
        plain,
        left,
        seen.bounds,
        seen.served_by(chosen[0]),
        best,
        items,
        pairs,
    )


def _chosen(seen: _Seen) -> list[str]:
    """The rule: kernels whose partners are visibly alike, and that may take out more than half of the deviation that they add.

    Pairs of one item take out all that an item has, pairs by the basis what the blocks' columns say of it, for less. Where
    pairs of one item are dear, or not called for, the basis is looked at too, and pairs of one item are
    taken only for what their rows share beyond it.
    """
    worth = [k for k in seen.usable() if seen.worth(k)]
    dear = "same_item" in worth and seen.added("same_item") > DEAR * seen.plain.std_error
    if "same_item" not in worth or dear:
        seen.look(("basis",), MIN_SERVED)
        if "basis" in seen.usable():
            if dear and not seen.worth("same_item", beyond="basis"):
                worth.remove("same_item")
            if "same_item" not in worth and seen.worth("basis"):
                worth.insert(0, "basis")
    return worth


class _Seen:
    """What the pairs of each kernel say of exposure and outcome, each on its own; estimates only of kernels that are asked about."""

    def __init__(
        self,
        inputs: Inputs,
        pairs: PairNuisances,
        rows: Rows,
        estimand: str,
        plain: Estimate,
        se_items: Ints | None,
    ) -> None:
        self.inputs, self.pairs, self.rows, self.estimand = inputs, pairs, rows, estimand
        self.plain, self.se_items, self.centre = plain, se_items, _centre(inputs, pairs)
        self.kernels: dict[str, Kernel] = {}
        self.totals: dict[str, so.Totals] = {}
        self.estimates: dict[str, so.PairEstimate] = {}

    def look(self, names: tuple[str, ...], least: float) -> None:
        """Add kernels that serve at least this share of the rows (users: half of them)."""
        for name in names:
            key = "same_item" if name == "cells" else name
            kernel = None if key in self.kernels else make_kernel(name, self.rows, self.pairs)
            at_least = max(least, 0.5) if name == "same_user" and least >= MIN_SERVED else least
            if kernel is not None and float(kernel.served.mean()) >= at_least:
                self.kernels[key] = kernel
                self.totals[key] = so.totals(self.rows, kernel, self.pairs.blocks, self.estimand, self.centre)

    def usable(self) -> list[str]:
        """Kernels between whose partners the exposure varies."""
        return [k for k in self.kernels if _varies([self.totals[k]])]

    def served_by(self, name: str) -> float:
        return float(self.kernels[name].served.mean())

    @property
    def served(self) -> float:
        return max((self.served_by(k) for k in self.kernels), default=0.0)

    @property
    def bounds(self) -> dict[str, float]:
        return {k: self.bound(k) for k in self.kernels}

    def likeness(self, name: str, beyond: str | None = None) -> tuple[float, float]:
        """(exposure, outcome): v δ² and v β² a served row, less what another kernel sees of them."""
        found, weight = self.totals[name], self._weight(name)
        alike = found.left_t[0] / weight, found.left_r[0] / weight
        if beyond is None:
            return alike
        other = self.likeness(beyond)
        return alike[0] - max(other[0], 0.0), alike[1] - max(other[1], 0.0)

    def bound(self, name: str, beyond: str | None = None) -> float:
        of_t, of_r = self.likeness(name, beyond)
        return float(np.sqrt(max(of_t, 0.0) * max(of_r, 0.0)))

    def _weight(self, name: str) -> float:
        if self.estimand == "ato":
            return max(abs(float(self.totals[name].d[0, 0])), TINY)
        w = self.rows.w * self.rows.t if self.estimand == "att" else self.rows.w
        return max(float(w[self.kernels[name].served].sum()), TINY)

    def estimate(self, name: str) -> so.PairEstimate:
        if name not in self.estimates:
            self.estimates[name] = so.pair_estimate(
                self.rows,
                [self.kernels[name]],
                self.pairs.blocks,
                self.estimand,
                self.centre,
                [self.totals[name]],
            )
        return self.estimates[name]

    def added(self, name: str) -> float:
        """Standard deviation that the pairs add, at least a twentieth of the standard error."""
        found, se = self.estimate(name), self.plain.std_error
        more = (
            estimate_of(found.value, found.influence, self.inputs.units, self.se_items).std_error ** 2 - se**2
        )
        return float(np.sqrt(max(more, (0.05 * se) ** 2)))

    def worth(self, name: str, beyond: str | None = None) -> bool:
        """Partners are visibly alike in exposure, not visibly unlike in outcome, and the bias may exceed its price."""
        of_t, of_r = self.likeness(name, beyond)
        visible = of_t * self._weight(name) > MIN_ALIKE * self.totals[name].left_t[1] and of_r > 0
        return visible and self.bound(name, beyond) >= WORTH * self.added(name)

    def too_little(self) -> str:
        worst = max(self.usable(), key=self.bound)
        who = {"same_item": "one item share beyond the words", "same_user": "one user share beyond the words"}
        return (
            f"what rows of {who.get(worst, 'like words share beyond the regressions')} may bias the effect by an estimated "
            f"{self.bound(worst):.4f}, too little, or too uncertain, for what taking it out adds to the error; "
            "Correction(order=2) takes it out regardless."
        )

    def together(self, chosen: list[str]) -> tuple[list[str], so.PairEstimate]:
        """One kernel's estimate, or both kernels' where enough rows have partners of both kinds."""
        if len(chosen) == 1:
            return chosen, self.estimate(chosen[0])
        both = serve_both(*(self.kernels[k] for k in chosen))
        if float(both[0].served.mean()) < MIN_SERVED:
            best = max(chosen, key=self.bound)
            return [best], self.estimate(best)
        self.kernels |= dict(zip(chosen, both, strict=True))
        found = [so.totals(self.rows, k, self.pairs.blocks, self.estimand, self.centre) for k in both]
        return chosen, so.pair_estimate(self.rows, both, self.pairs.blocks, self.estimand, self.centre, found)


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
    inputs: Inputs, found: PairCorrection, pairs: PairNuisances, rows: Rows, estimand: str
) -> so.PairEstimate:
    used = rows.w > 0
    made = [make_kernel(k, rows, pairs) for k in found.kernels]
    kernels = [k.only(used) for k in made if k is not None]
    if len(kernels) == 2:
        kernels = serve_both(*kernels)
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
