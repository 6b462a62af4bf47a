"""Whom should we recommend to? The verb ``target`` and its result: rules learnt on training users, judged on others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec._checks import as_generator, check_choice, check_scalar
from causalrec._display import Displayable
from causalrec.errors import ArgumentError
from causalrec.estimate import Fit
from causalrec.log import MIN_ARM, ImpressionLog
from causalrec.uplift.bench import bench, training_scores
from causalrec.uplift.fairness import Fairness, fairness_of
from causalrec.uplift.policy import (
    CutOffs,
    Predictor,
    Prices,
    TreePolicy,
    learn_policies,
    rule_in_words,
)
from causalrec.uplift.policy_tree import holds, words
from causalrec.uplift.policy_value import Contest
from causalrec.uplift.protected import MIN_USERS, Groups
from causalrec.uplift.thresholds import check_limits, check_prices, fair_cut, free_cut, served_by

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Targeting(Displayable):
    """Rules for whom to recommend to, and what each is worth on users that it has not seen.

    Attributes
    ----------
    recommended : str or None
        ``"tree"``, ``"forest"`` or ``"cate"``: a rule that beats both simple policies on held-out users; None if none does.
    sentence : str
        The decision in words.
    rule : str or None
        The tree in words; None where no modifier varies.
    table : DataFrame
        policy, share_served, clicks and net value gained per impression over recommending nothing; intervals of the learnt
        rules hold for all of them at once, as one is chosen on these users.
    differences : DataFrame
        policy, against, difference in net value (paired, per impression), interval, Holm-adjusted p-value.
    leaves : DataFrame
        The tree's leaves: who, n, effect on held-out users with its interval, share served.
    fairness : Fairness or None
        By protected group, under the rule that is recommended (else the first rule).
    price : DataFrame or None
        Net value per impression that the fairness constraints cost each rule, with intervals.
    prices : Prices
    budget : float or None
        Largest share of the impressions that may be served.
    n, n_units : int
        Held-out impressions and units.
    """

    recommended: str | None
    sentence: str
    rule: str | None
    table: pd.DataFrame = field(repr=False)
    differences: pd.DataFrame = field(repr=False)
    leaves: pd.DataFrame = field(repr=False)
    fairness: Fairness | None
    price: pd.DataFrame | None = field(repr=False)
    prices: Prices
    budget: float | None
    n: int
    n_units: int
    fit: Fit = field(repr=False)
    policies: Mapping[str, tuple[Predictor, CutOffs]] = field(repr=False)
    groups: Groups | None = field(repr=False)

    def assign(self, log: ImpressionLog, policy: str | None = None) -> F64:
        """(n,) probability with which each impression is to be recommended.

        Parameters
        ----------
        log : ImpressionLog
        policy : str or None
            ``"tree"``, ``"forest"`` or ``"cate"``; None is the recommended one.

        Raises
        ------
        ArgumentError
            None is recommended, so that one has to be named; or the name is unknown.
        """
        name = self.recommended if policy is None else policy
        if name is None:
            raise ArgumentError(
                f"policy is None and no rule is recommended; name one of {list(self.policies)}."
            )
        predictor, cut = self.policies[check_choice(name, "policy", list(self.policies))]
        codes = _codes(self.groups if len(cut.above) > 1 else None, log, "new", least=0)
        return cut.served(self.prices.net(predictor.effect(self.fit, log)), codes)

    def _title(self) -> str:
        limit = "" if self.budget is None else f", at most {100 * self.budget:g} % of the impressions"
        return f"Targeting, judged on {self.n:,} held-out impressions of {self.n_units:,} units{limit}; gains over recommending nothing"

    def _rows(self) -> list[dict[str, Any]]:
        return [{str(k): v for k, v in row.items()} for row in self.table.to_dict("records")]

    def _notes(self) -> list[str]:
        notes = [self.sentence]
        if self.rule is not None and self.recommended != "tree":
            notes.append(f"The tree, for comparison: {self.rule}")
        if self.rule is None:
            notes.append(
                "No declared modifier varies, so that no rule can tell impressions apart: declare modifiers= in read_log."
            )
        unit = (
            "in clicks per impression"
            if not _priced(self.prices)
            else f"net: {self.prices.value:g} a click, less {self.prices.cost:g} a recommendation"
        )
        notes.append(
            f"All gains are per impression of the held-out log, {unit}; 95 % intervals, clustered as the effect is, those of the learnt rules for all of them at once."
        )
        if self.price is not None:
            worst = self.price.loc[
                self.price["policy"] == (self.recommended or self.price["policy"].iloc[0])
            ].iloc[0]
            notes.append(
                f"Price of the constraints ({worst['policy']}): {worst['price']:.4g} [{worst['ci_lower']:.4g}, {worst['ci_upper']:.4g}] per impression. "
                "They were imposed on the training users; held-out shares and gaps are those below."
            )
        return notes if self.fairness is None else [*notes, *self.fairness._notes()]


def _priced(prices: Prices) -> bool:
    return prices != Prices(1.0, 0.0)


def target(
    fit: Fit,
    test: ImpressionLog,
    *,
    cost: float = 0.0,
    value: float = 1.0,
    budget: float | None = None,
    depth: int = 2,
    protected: str | Iterable[str] | None = None,
    min_share: float | None = None,
    max_gap: float | None = None,
    model: Any = None,
    random_state: int | np.random.Generator | None = None,
) -> Targeting:
    """Learn whom to recommend to on the training users' doubly robust scores, and judge it on users unseen.

    Three rules are learnt: a policy tree, which can be said in words; a policy forest; and the ranking by the fit's
    conditional effect. Each serves impressions whose predicted value · effect − cost is positive, best first within the
    budget. A rule's gain is E[π (value · ψ − cost)], π its probability of serving and ψ the held-out score (Athey & Wager
    2021, *Policy learning with observational data*, eq. 2.4). A rule is recommended only if it beats recommending to no one
    *and* to everyone (with a budget: to a random share of that size), each with the lower end of its paired interval,
    which holds for all rules at once, above 0.

    Parameters
    ----------
    fit : Fit
        On the training users.
    test : ImpressionLog
        Other users, embedded alike.
    cost, value : float
        What a recommendation costs (≥ 0) and what a click (a unit of outcome) is worth (> 0), in one currency.
    budget : float or None
        Share of the impressions that may be served, in (0, 1].
    depth : int
        Of the tree, 1 to 4.
    protected : str or list of str
        Declared modifiers or confounders whose groups (combinations of levels; numbers in quartiles) are compared.
    min_share : float or None
        No protected group is served below this share.
    max_gap : float or None
        Largest gap between the groups' predicted effects among those served, in clicks per impression.
    model : unfitted econml.policy.PolicyTree or PolicyForest, optional
        In the tree's place.
    random_state : int, Generator or None

    Raises
    ------
    ArgumentError
        A negative cost, a budget of 0, a constraint without `protected`, or more to serve than the budget allows.
    HonestyError
        Users of `test` were in the fit.
    EstimationError
        An arm has too few held-out rows, a protected group fewer than 30 users, or no thresholds meet the constraints.
    """
    judged = bench(fit, test, "target")
    prices = check_prices(value, cost)
    limits = check_limits(budget, protected, min_share, max_gap)
    depth = check_scalar(depth, "depth", ge=1, le=4, integer=True)
    groups = None if protected is None else Groups.learn(fit.log, protected)
    codes = None if groups is None else groups.codes(test, "test")
    w = np.ones(len(fit.log)) if fit.log.weights is None else fit.log.weights
    seed = int(as_generator(random_state).integers(2**31))
    predictors = learn_policies(fit, training_scores(fit), w, prices, depth, model, seed)
    free = {name: (p, free_cut(p, fit, w, prices, limits.budget)) for name, p in predictors.items()}
    final = free
    if groups is not None and limits.by_group:
        final = {name: (p, fair_cut(p, fit, w, prices, limits, groups)) for name, p in predictors.items()}
    contest = Contest(judged, prices, served_by(final, fit, test, prices, codes), limits.budget)
    winner = contest.winner()
    rule, leaves = _tree_in_words(contest, free, test)
    shown = winner or next(iter(final))
    return Targeting(
        winner,
        contest.decision(winner, rule if final is free else None),
        rule,
        contest.table(),
        contest.differences(),
        leaves,
        None
        if groups is None or codes is None
        else fairness_of(shown, judged, contest.served[shown], codes, groups.names),
        None if final is free else contest.price(served_by(free, fit, test, prices, None)),
        prices,
        limits.budget,
        len(test),
        test.n_units,
        fit,
        final,
        groups,
    )


def _codes(groups: Groups | None, log: ImpressionLog, which: str, least: int = MIN_USERS) -> Ints:
    return np.zeros(len(log), dtype=np.int64) if groups is None else groups.codes(log, which, least)


def _tree_in_words(
    contest: Contest, free: Mapping[str, tuple[Predictor, CutOffs]], test: ImpressionLog
) -> tuple[str | None, pd.DataFrame]:
    """The tree's rule without fairness constraints, and its leaves on held-out rows."""
    policy, cut = free.get("tree", (None, None))
    if not isinstance(policy, TreePolicy) or cut is None:
        return None, pd.DataFrame(
            columns=["who", "n", "n_units", "effect", "ci_lower", "ci_upper", "share_served"]
        )
    judged, rows = contest.bench, []
    for box in policy.root.leaves():
        here = holds(box, test.frame).astype(np.float64)
        row: dict[str, Any] = {
            "who": words(box),
            "n": int(here.sum()),
            "n_units": len(np.unique(test.units[here > 0])),
        }
        share = judged.mean(contest.served["tree"] * here, here).value if row["n"] else 0.0
        arms = [int((test.treatment[here > 0] == arm).sum()) for arm in (0, 1)]
        effect: dict[str, float | None] = dict.fromkeys(("effect", "ci_lower", "ci_upper"))
        if row["n_units"] >= 2 and min(arms) >= MIN_ARM:
            e = judged.mean(here * judged.psi, here)
            effect = {"effect": e.value, "ci_lower": e.ci_lower, "ci_upper": e.ci_upper}
        rows.append(row | effect | {"share_served": share})
    return rule_in_words(policy, contest.prices, cut), pd.DataFrame(rows)
