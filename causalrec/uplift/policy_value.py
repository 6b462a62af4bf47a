"""What policies are worth on held-out rows: values, paired differences, and which rule has earned to be recommended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec.joint import DRAWS, covariance_of, holm, largest
from causalrec.scores import Estimate
from causalrec.uplift.bench import Bench
from causalrec.uplift.policy import Prices

F64 = npt.NDArray[np.float64]
Pair = tuple[float, float]
ALPHA = 0.05
SIMPLE = {
    "none": "recommending to no one",
    "all": "recommending to everyone",
    "random": "recommending at random to as many as the budget allows",
    "today": "today's policy",
}


RULES = {"tree": "the tree", "forest": "the forest of trees", "cate": "predicted effect, best first"}
"""The learnt rules as a sentence names them."""


@dataclass(frozen=True, eq=False)
class Contest:
    """Rules against simple policies, on one bench.

    Attributes
    ----------
    bench : Bench
    prices : Prices
    served : dict of str to (n,)
        Probability with which each rule serves each held-out row.
    budget : float or None
    """

    bench: Bench
    prices: Prices
    served: dict[str, F64]
    budget: float | None

    @property
    def rivals(self) -> tuple[str, str]:
        """The simple policies that a rule has to beat; everyone cannot be served on a budget."""
        return ("none", "all") if self.budget is None else ("none", "random")

    @property
    def simple(self) -> tuple[str, ...]:
        """Simple policies, in the order of the table."""
        return ("none", "all", "today") if self.budget is None else ("none", "random", "all", "today")

    def probability(self, policy: str) -> F64:
        """(n,) probability of being served; for today's policy, whether it was."""
        if policy in self.served:
            return self.served[policy]
        n = len(self.bench.psi)
        constant = {"none": 0.0, "all": 1.0, "random": self.budget or 0.0}
        return self.bench.held.t if policy == "today" else np.full(n, constant[policy])

    def clicks(self, policy: str) -> F64:
        """(n,) scores of the clicks gained over recommending to no one."""
        return self.bench.today if policy == "today" else self.probability(policy) * self.bench.psi

    def net(self, policy: str) -> F64:
        """(n,) scores of the net value gained over recommending to no one."""
        return self.prices.value * self.clicks(policy) - self.prices.cost * self.probability(policy)

    def difference(self, policy: str, rival: str, alpha: float = ALPHA) -> Estimate:
        """Net value of one policy less that of another, paired by row.

        Against random serving, a rule that serves less than the budget is held against all that the budget allows:
        E[π − budget] times net ψ. A rule that overspends on these rows is held against random serving of its own share π̄, so
        that it gains nothing by it: E[(π − π̄) value · ψ], with the scores (π − π̄) value · (ψ − mean ψ) as π̄ is estimated.
        """
        if rival != "random":
            return self.bench.mean(self.net(policy) - self.net(rival), alpha=alpha)
        served, psi = self.probability(policy), self.bench.psi
        share, effect = (np.average(v, weights=self.bench.held.weights) for v in (served, psi))
        if self.budget is not None and share < self.budget:
            return self.bench.mean(self.net(policy) - self.net(rival), alpha=alpha)
        return self.bench.mean((served - share) * self.prices.value * (psi - effect), alpha=alpha)

    def table(self) -> pd.DataFrame:
        """One row a policy: share served, clicks and, where prices are given, net value.

        The rules' intervals hold for all rules at once (max-t), since one of them is chosen on these rows; those of the simple
        policies are their own.
        """
        priced = self.prices != Prices(1.0, 0.0)
        clicks, net = self._gains(self.clicks), self._gains(self.net) if priced else {}
        rows = []
        for policy in (*self.served, *self.simple):
            share = self.bench.mean(self.probability(policy)).value
            row = {"policy": policy, "share_served": share} | _ends("clicks", *clicks[policy])
            rows.append(row | _ends("net", *net[policy]) if priced else row)
        return pd.DataFrame(rows)

    def _gains(self, scores_of: Callable[[str], F64]) -> dict[str, Pair]:
        """(gain over recommending to no one, half-width) of every policy."""
        found = self._jointly({policy: self.bench.mean(scores_of(policy)) for policy in self.served})
        for policy in self.simple:
            e = self.bench.mean(scores_of(policy))
            found[policy] = (e.value, (e.ci_upper - e.ci_lower) / 2)
        return found

    def differences(self) -> pd.DataFrame:
        """Every rule against every simple policy; p-values adjusted by Holm over the table."""
        pairs = [(policy, rival) for policy in self.served for rival in self.simple]
        found = [self.difference(*pair) for pair in pairs]
        adjusted = holm(np.array([e.p_value for e in found]))
        return pd.DataFrame(
            {
                "policy": policy, "against": rival, "difference": e.value,
                "ci_lower": e.ci_lower, "ci_upper": e.ci_upper, "p_value": p,
            }
            for (policy, rival), e, p in zip(pairs, found, adjusted, strict=True)
        )  # fmt: skip

    def price(self, unbound: dict[str, F64]) -> pd.DataFrame:
        """What constraints cost: net value of the unconstrained rule less that of the rule, paired."""
        rows = []
        for policy, free in unbound.items():
            e = self.bench.mean((free - self.served[policy]) * self.prices.net(self.bench.psi))
            rows.append({"policy": policy, "price": e.value, "ci_lower": e.ci_lower, "ci_upper": e.ci_upper})
        return pd.DataFrame(rows)

    def against(self, rival: str) -> dict[str, Pair]:
        """(difference, half-width) of each rule against one rival, holding for all rules at once at 95 % (max-t).

        Rules that serve the same impressions count as one.
        """
        return self._jointly({policy: self.difference(policy, rival) for policy in self.served})

    def _jointly(self, found: dict[str, Estimate]) -> dict[str, Pair]:
        """(value, half-width) of estimates whose intervals hold together at 95 % (max-t)."""
        influences = np.column_stack([e.influence for e in found.values()])
        held = self.bench.held
        joint, g = covariance_of(influences, held.units, held.items)
        few = [
            g,
            *(e.n_clusters for e in found.values() if e.std_error > 0),
        ]  # a difference of nothing rests on no clusters
        df = max(min(few) - 1, 1)
        c = largest(joint, df, 1 - ALPHA, DRAWS, np.random.default_rng(0))
        return {policy: (e.value, c * e.std_error) for policy, e in found.items()}

    def winner(self) -> str | None:
        """The rule to recommend: it beats both rivals, jointly over the rules.

        The rules stand in order of readability; a later one is taken only if it also beats the one before it.
        """
        bounds = [self.against(rival) for rival in self.rivals]
        best = None
        for policy in self.served:
            if min(value - half for value, half in (b[policy] for b in bounds)) <= 0:
                continue
            if best is None or self.difference(policy, best).ci_lower > 0:
                best = policy
        return best

    def decision(self, winner: str | None, rule: str | None) -> str:
        """The decision in words."""
        if winner is not None:
            rival = max(self.rivals, key=lambda r: float(self.bench.mean(self.net(r)).value))
            value, half = self.against(rival)[winner]
            what = rule if winner == "tree" and rule is not None else f"Recommend by {RULES[winner]}."
            gain = _per_thousand(value, value - half, value + half)
            return (
                f"{what} On held-out users this gains {gain} per 1,000 impressions more than {SIMPLE[rival]}."
            )
        everyone = self.rivals[1]
        e = self.bench.mean(self.net(everyone))
        if e.ci_lower > 0:
            then = (
                f"{SIMPLE[everyone].capitalize()} gains {_interval(e)} per 1,000 impressions: keep it simple."
            )
        elif e.ci_upper < 0:
            then = f"{SIMPLE[everyone].capitalize()} loses ({_interval(e)} per 1,000 impressions): recommend to no one."
        else:
            then = f"Nor can {SIMPLE[everyone]} be told from recommending to no one ({_interval(e)} per 1,000 impressions)."
        return f"No rule is recommended: none is shown to beat both {SIMPLE['none']} and {SIMPLE[everyone]} on held-out users. {then}"


def _ends(name: str, value: float, half: float) -> dict[str, float]:
    return {name: value, f"{name}_lower": value - half, f"{name}_upper": value + half}


def _interval(e: Estimate) -> str:
    return _per_thousand(e.value, e.ci_lower, e.ci_upper)


def _per_thousand(value: float, lower: float, upper: float) -> str:
    said, low, high = (_signed(1000 * v) for v in (value, lower, upper))
    return f"{said} [{low}, {high}]"


def _signed(value: float) -> str:
    """Three significant digits, whole numbers from 1,000 on: ``+21.3``, ``+1,075``."""
    return f"{value:+,.0f}" if abs(value) >= 999.5 else f"{value:+.3g}"
