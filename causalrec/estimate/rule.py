"""The rule that decides which rows are worth pairing. It looks at exposure and at outcome, each on its own, and never at the effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from causalrec import second_order as so
from causalrec.estimate.partners import MIN_SERVED, make_kernel
from causalrec.kernels import TINY, ClusterKernel, Kernel, Rows, serve_both
from causalrec.nuisance.paired import PairNuisances
from causalrec.scores import Estimate, estimate_of, folded_quantile

if TYPE_CHECKING:
    from causalrec.estimate.analysis import Inputs

Ints = npt.NDArray[np.int64]
WORTH = 0.5
"""A kernel is used if it may take out this many times the standard deviation that it adds."""
MIN_ALIKE = 1.0
"""Standard errors by which what rows of a cluster share in exposure must exceed zero."""
ALIKE_BEYOND = 1.0
"""The same for what rows of an item share beyond the basis, which is a difference of two such sums."""
DEAR = 0.1
"""Share by which pairs of one item may add to the standard error before pairs by the words alone are looked at as well."""
MIN_VARIATION = 0.05


def chosen_by_rule(seen: Seen) -> list[str]:
    """The rule: kernels whose partners are visibly alike, and that may take out more than half of the deviation that they add.

    Pairs of one item take out all that an item has, pairs by the basis what the blocks' columns say of it, for less. Where
    pairs of one item are dear, or not called for, the basis is looked at too, and pairs of one item are
    taken only for what their rows share beyond it. Last, pairs of one item that are visibly alike are taken after all where
    their interval is shorter than one that allows for what they would have taken out.
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
    left_out = "same_item" not in worth and "same_item" in seen.usable()
    if left_out and seen.alike("same_item") and seen.shorter_by_item(worth):
        worth = ["same_item", *(k for k in worth if k == "same_user")]
    return worth


class Seen:
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
        self.plain, self.se_items, self.centre = plain, se_items, centre_of(inputs, pairs)
        self.kernels: dict[str, Kernel] = {}
        self.totals: dict[str, so.Totals] = {}
        self.estimates: dict[str, so.PairEstimate] = {}

    def look(self, names: tuple[str, ...], least: float) -> None:
        """Add kernels that serve at least this share of the rows (users: half of them)."""
        for name in names:
            key = "same_item" if name == "cells" else name
            kernel = None if key in self.kernels else make_kernel(name, self.rows, self.pairs)
            at_least = max(least, 0.5) if name == "same_user" and least >= MIN_SERVED else least
            if kernel is not None and self._share(kernel) >= at_least:
                self.kernels[key] = kernel
                self.totals[key] = so.totals(self.rows, kernel, self.pairs.blocks, self.estimand, self.centre)

    def usable(self) -> list[str]:
        """Kernels between whose partners the exposure varies."""
        return [k for k in self.kernels if varies([self.totals[k]])]

    def served_by(self, name: str) -> float:
        """Share of the rows that have a partner by one kernel."""
        return self._share(self.kernels[name])

    def _share(self, kernel: Kernel) -> float:
        used = self.rows.w > 0
        return float(kernel.served[used].mean())

    @property
    def served(self) -> float:
        """The largest share of rows with a partner, 0 without kernels."""
        return max((self.served_by(k) for k in self.kernels), default=0.0)

    @property
    def bounds(self) -> dict[str, float]:
        """``bound`` by kernel."""
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
        """√(v δ² · v β²), the most bias that this likeness can make, as estimated."""
        of_t, of_r = self.likeness(name, beyond)
        return float(np.sqrt(max(of_t, 0.0) * max(of_r, 0.0)))

    def _weight(self, name: str) -> float:
        if self.estimand == "ato":
            return max(abs(float(self.totals[name].d[0, 0])), TINY)
        w = self.rows.w * self.rows.t if self.estimand == "att" else self.rows.w
        return max(float(w[self.kernels[name].served].sum()), TINY)

    def estimate(self, name: str) -> so.PairEstimate:
        """The second-order estimate by one kernel; the rule looks at its variance only."""
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
        """Partners are visibly alike, and the bias may exceed its price."""
        return self.alike(name, beyond) and self.bound(name, beyond) >= WORTH * self.added(name)

    def alike(self, name: str, beyond: str | None = None) -> bool:
        """Partners are visibly alike in exposure, and not visibly unlike in outcome."""
        of_t, of_r = self.likeness(name, beyond)
        least = (MIN_ALIKE if beyond is None else ALIKE_BEYOND) * self.totals[name].left_t[1]
        return of_t * self._weight(name) > least and of_r > 0

    def shorter_by_item(self, taken: list[str]) -> bool:
        """Whether pairs of one item give a shorter interval than these kernels with an allowance for what may remain."""
        se = self.plain.std_error
        now = max((self.added(k) for k in taken), default=0.0)
        now, by_item = float(np.hypot(se, now)), float(np.hypot(se, self.added("same_item")))
        allowed = folded_quantile(self.may_remain(taken) / now, 0.95) * now
        return folded_quantile(0.0, 0.95) * by_item < allowed

    def may_remain(self, taken: list[str]) -> float:
        """A bias that cannot be ruled out after these kernels: what rows of one item (or user) are estimated to share beyond them.

        Zero once pairs of one item are taken, and where there are no kernels to tell.
        """
        found = [0.0]
        beyond = "basis" if "basis" in taken else None
        for name in self.usable():
            shared = name == "same_item" or (name == "same_user" and "same_item" not in taken)
            if name not in taken and "same_item" not in taken and shared:
                found.append(self.bound(name, beyond))
        return max(found)

    def alpha(self, name: str) -> float:
        """Mean v δ² a row, δ what the exposure models with item effects miss: the share by which the true e(1 − e) is less than they say."""
        return float(self.totals[name].pairs_d[0, 0]) / self._weight(name)

    def too_little(self) -> str:
        """Why the estimate stays of first order though there are pairs."""
        worst = max(self.usable(), key=self.bound)
        who = {"same_item": "one item share beyond the words", "same_user": "one user share beyond the words"}
        return (
            f"what rows of {who.get(worst, 'like words share beyond the regressions')} may bias the effect by an estimated "
            f"{self.bound(worst):.4f}, too little, or too uncertain, for what taking it out adds to the error; "
            f"Correction(kernels=({worst!r},)) takes it out regardless."
        )

    def together(self, chosen: list[str]) -> tuple[list[str], so.PairEstimate]:
        """One kernel's estimate, or both kernels' where enough rows have partners of both kinds."""
        if len(chosen) == 1:
            return chosen, self.estimate(chosen[0])
        chosen = sorted(chosen, key=lambda k: k == "same_user")
        first, by_user = (self.kernels[k] for k in chosen)
        assert isinstance(by_user, ClusterKernel)
        both = serve_both(first, by_user, self.rows)
        if self._share(both[0]) < MIN_SERVED:
            best = max(chosen, key=self.bound)
            return [best], self.estimate(best)
        self.kernels |= dict(zip(chosen, both, strict=True))
        found = so.all_totals(self.rows, both, self.pairs.blocks, self.estimand, self.centre)
        return chosen, so.pair_estimate(self.rows, both, self.pairs.blocks, self.estimand, self.centre, found)


def varies(found: list[so.Totals]) -> bool:
    """Enough of the exposure's variation is left between partners."""
    whole = float(found[0].d[0, 0])
    return whole - sum(float(f.pairs_d[0, 0]) for f in found) > MIN_VARIATION * abs(whole)


def centre_of(inputs: Inputs, pairs: PairNuisances) -> so.Centre:
    """Units of the basis of the effect model's error: means of e and m0, standard deviation of the outcome."""
    fitted = pairs.fitted
    return float(fitted.propensity.mean()), float(fitted.outcome_0.mean()), float(np.std(inputs.y))
