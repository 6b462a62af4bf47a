"""Who is served, and who gains: shares by protected group, the gaps between them, and thresholds that bound them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from causalrec._display import Displayable
from causalrec.errors import EstimationError
from causalrec.joint import holm
from causalrec.scores import Estimate
from causalrec.uplift.bench import Bench

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
STEPS = 101
"""Shares that are tried in each group, evenly from 0 to 1."""
LEAST_SERVED = 0.01
"""Share of a group that a bound on the gap of benefits serves at least: who is not served has no benefit to compare."""


@dataclass(frozen=True, eq=False)
class GroupCurve:
    """What serving the best-ranked share q of one group brings, by prediction on the training users.

    Attributes
    ----------
    mass : float
        Share of the impressions that are of this group.
    shares : (STEPS,) 0 … 1
    net : (STEPS,)
        Predicted net value per impression *of the group*; concave in the share.
    benefit : (STEPS,)
        Predicted effect among those served, clicks per impression; NaN at share 0.
    """

    mass: float
    shares: F64
    net: F64
    benefit: F64

    @classmethod
    def of(cls, priority: F64, effect: F64, w: F64, total: float) -> GroupCurve:
        """From the predicted net values and effects of the group's rows, weighted."""
        order = np.argsort(-priority, kind="stable")
        mass = np.concatenate([[0.0], np.cumsum(w[order])]) / w.sum()
        shares = np.linspace(0, 1, STEPS)
        net = np.interp(shares, mass, np.concatenate([[0.0], np.cumsum((w * priority)[order])]) / w.sum())
        gained = np.interp(shares, mass, np.concatenate([[0.0], np.cumsum((w * effect)[order])]) / w.sum())
        with np.errstate(invalid="ignore"):
            benefit = gained / shares
        return cls(float(w.sum() / total), shares, net, benefit)


def choose_shares(curves: list[GroupCurve], budget: float, min_share: float, max_gap: float | None) -> F64:
    """The share of each group to serve, (G,), of the greatest predicted net value under the constraints.

    Maximises Σ_g m_g net_g(q_g) subject to q_g ≥ min_share, Σ_g m_g q_g ≤ budget, and max_g B_g(q_g) − min_g B_g(q_g) ≤ max_gap.
    The budget enters as a price per impression that is found by bisection. With `max_gap`, every band of benefits
    [L, L + max_gap] is tried, and each group picks its best share inside the band.

    Raises
    ------
    EstimationError
        No shares on the grid meet the constraints together.
    """
    if max_gap is None:
        return _within_budget(curves, [c.shares >= min_share - 1e-12 for c in curves], budget)
    least = max(min_share, LEAST_SERVED) - 1e-12
    lows = np.unique(np.round(np.concatenate([c.benefit[c.shares >= least] for c in curves]), 9))
    best, best_net, smallest = None, -np.inf, np.inf
    for low in lows[:: max(1, len(lows) // 300)]:
        allowed = [
            (c.shares >= least) & (c.benefit >= low - 1e-9) & (c.benefit <= low + max_gap + 1e-9)
            for c in curves
        ]
        nearest = [c.benefit[(c.shares >= least) & (c.benefit >= low - 1e-9)] for c in curves]
        if all(len(b) for b in nearest):
            smallest = min(smallest, max(float(b.min()) for b in nearest) - float(low))
        if not all(a.any() for a in allowed) or _cheapest(curves, allowed) > budget + 1e-9:
            continue
        shares = _within_budget(curves, allowed, budget)
        net = sum(c.mass * float(np.interp(q, c.shares, c.net)) for c, q in zip(curves, shares, strict=True))
        if net > best_net:
            best, best_net = shares, net
    if best is None:
        raise EstimationError(
            f"max_gap is {max_gap:g}: on the training users no thresholds bring the groups' benefits that near within the budget; "
            f"the smallest gap that they reach is {smallest:.4g} (without a budget). Allow a wider gap, or a larger budget."
        )
    return best


def _cheapest(curves: list[GroupCurve], allowed: list[npt.NDArray[np.bool_]]) -> float:
    return sum(c.mass * float(c.shares[a].min()) for c, a in zip(curves, allowed, strict=True))


def _within_budget(curves: list[GroupCurve], allowed: list[npt.NDArray[np.bool_]], budget: float) -> F64:
    """Best share of each group among those allowed; if they cost more than the budget, at the lowest price that they do not."""

    def at(price: float) -> F64:
        return np.array(
            [
                c.shares[a][np.argmax((c.net - price * c.shares)[a])]
                for c, a in zip(curves, allowed, strict=True)
            ]
        )

    mass = np.array([c.mass for c in curves])
    free = at(0.0)
    if mass @ free <= budget + 1e-9:
        return free
    low, high = 0.0, 2 * STEPS * max(float(np.abs(c.net).max()) for c in curves) + 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mass @ at(middle) > budget + 1e-9 else (low, middle)
    return at(high)


@dataclass(frozen=True, eq=False)
class Fairness(Displayable):
    """Whom a policy serves and what they gain, by protected group, on held-out users.

    Attributes
    ----------
    policy : str
    records : tuple of dict
        group, n, n_units, share_served with its interval, effect (in the whole group) with its interval, benefit
        (effect among those served) with its interval, gap (benefit less that of the other groups) and its
        Holm-adjusted p-value; None where the group is not served, or is not in both arms.
    tests : tuple of dict
        Wald tests that shares, effects and benefits are the same in all groups: statistic, p_value, Holm-adjusted.
    """

    policy: str
    records: tuple[dict[str, Any], ...] = field(repr=False)
    tests: tuple[dict[str, Any], ...] = field(repr=False)

    def _title(self) -> str:
        return f"Protected groups under the policy {self.policy!r}, held-out users, 95 % intervals clustered as the effect is"

    def _rows(self) -> list[dict[str, Any]]:
        return list(self.records)

    def _notes(self) -> list[str]:
        notes = []
        for test in self.tests:
            p = test["p_adjusted"]
            if not np.isfinite(p):
                notes.append(
                    f"{test['what']}: nothing varies between the groups, or fewer than two are served."
                )
                continue
            verdict = "differ between the groups" if p < 0.05 else "cannot be told apart between the groups"
            notes.append(
                f"{test['what']} {verdict} (Wald test, p {'< .001' if p < 0.001 else f'= {p:.3f}'} after Holm over {len(self.tests)} tests)."
            )
        return [
            *notes,
            "No difference found is not the same as no difference: the intervals say how large a gap could be.",
        ]


def fairness_of(policy: str, bench: Bench, served: F64, codes: Ints, names: tuple[str, ...]) -> Fairness:
    """Judge the probabilities of being served, (n,), by group."""
    held = bench.held
    both = [k for k in range(len(names)) if held.has_both_arms(codes == k)]
    reached = [k for k in both if held.has_both_arms((codes == k) & (served > 0))]
    records = [_record(bench, served, codes == k, name) for k, name in enumerate(names)]
    compared = reached if len(reached) > 1 else []
    among = np.isin(codes, compared)
    gaps = [_gap(bench, served, codes == k, among) for k in compared]
    adjusted = holm(np.array([p for _, p in gaps]))
    for k, (gap, _), p in zip(compared, gaps, adjusted, strict=True):
        records[k] |= {"gap": gap, "p_value": float(p)}
    return Fairness(policy, tuple(records), _tests(bench, served, codes, len(names), both, reached))


def _record(bench: Bench, served: F64, here: Mask, name: str) -> dict[str, Any]:
    one = here.astype(np.float64)
    held = bench.held
    share, effect = bench.mean(one * served, one), held.effect(here) if held.has_both_arms(here) else None
    out: dict[str, Any] = {
        "group": name, "n": int(here.sum()), "n_units": len(np.unique(bench.held.units[here])),
        "share_served": share.value, "share_lower": max(share.ci_lower, 0.0), "share_upper": min(share.ci_upper, 1.0),
        **_three("effect", effect),
    }  # fmt: skip
    keys = ("benefit", "benefit_lower", "benefit_upper")
    if effect is None or not held.has_both_arms(here & (served > 0)):
        return out | dict.fromkeys((*keys, "gap", "p_value"))
    return out | _three("benefit", bench.served_effect(served * one)) | {"gap": None, "p_value": None}


def _three(name: str, e: Estimate | None) -> dict[str, float | None]:
    """Value and interval under their names; None for all where there is no estimate."""
    values = (None, None, None) if e is None else (e.value, e.ci_lower, e.ci_upper)
    return dict(zip((name, f"{name}_lower", f"{name}_upper"), values, strict=True))


def _gap(bench: Bench, served: F64, here: Mask, among: Mask) -> tuple[float, float]:
    """Benefit of one group less that of all others that are compared together, and its p-value."""
    both = bench.served_effects(served, np.where(among, (~here).astype(np.int64), -1), 2)
    return float(both.values[0] - both.values[1]), both.test_equal()[1]


def _tests(
    bench: Bench, served: F64, codes: Ints, k: int, both: list[int], reached: list[int]
) -> tuple[dict[str, Any], ...]:
    def numbered(groups: list[int]) -> Ints:
        place = np.full(k, -1, dtype=np.int64)
        place[groups] = np.arange(len(groups))
        return place[codes]

    tests = (
        ("Shares served", bench.ratios(served, np.ones(len(served)), codes, k)),
        ("Effects in the whole groups", bench.effects(numbered(both), len(both))),
        ("Benefits among those served", bench.served_effects(served, numbered(reached), len(reached))),
    )
    found = [(what, *means.test_equal()) for what, means in tests]
    adjusted = holm(np.array([p for _, _, p in found]))
    return tuple(
        {"what": what, "statistic": statistic, "p_value": p, "p_adjusted": float(q)}
        for (what, statistic, p), q in zip(found, adjusted, strict=True)
    )
