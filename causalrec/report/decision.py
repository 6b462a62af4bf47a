"""The decision that a page opens with: whom to target and what it is worth, which arm, which dose."""

from __future__ import annotations

from typing import Any

from causalrec.estimate import ArmsFit, DoseResponse, InstrumentFit
from causalrec.report import findings, words
from causalrec.report.results import Results, records
from causalrec.report.words import Question
from causalrec.uplift import Targeting
from causalrec.uplift.policy_value import RULES

MONEY = Question("", "", 1000.0, "per 1,000 impressions")
SIMPLE = {"all": "everyone", "random": "as many at random", "today": "those whom today’s policy reaches"}


def answer(r: Results) -> dict[str, Any]:
    """Level, headline, sentences, what was tested, and caveats of the page."""
    if not r.has_fit:
        return _other(r)
    found = findings.answer(r)
    if r.targeting is None:
        return found
    caution = words.caution_sentence(r.failed, sum(c.passed is not None for c in r.checks or ()))
    said = decision_sentence(r.targeting)
    return found | {
        "level": found["level"] if r.failed else "clear" if decided(r.targeting) else "unclear",
        "headline": f"{caution} {said}" if caution else said,
        "sentences": [
            *worth_sentences(r.targeting, r.question),
            findings.effect_headline(r),
            *found["sentences"],
        ],
    }


def decided(t: Targeting) -> bool:
    """Whether the data choose: a rule won, or serving everyone is shown to gain or to lose."""
    if t.recommended is not None:
        return True
    lower, upper = gain(t, everyone_of(t), "net" if "net" in t.table else "clicks")[1:]
    return not lower <= 0 <= upper


def everyone_of(t: Targeting) -> str:
    """The simple policy that serves as many as allowed."""
    return "all" if t.budget is None else "random"


def decision_sentence(t: Targeting) -> str:
    """Whom to target, or that nobody should be singled out."""
    if t.recommended is None:
        return f"No group is shown to be worth singling out. {t.sentence}"
    return t.sentence


def worth_sentences(t: Targeting, q: Question) -> list[str]:
    """What the policy that is recommended, or the best simple one, brings: per recommendation and in money, with intervals.

    Gains per recommendation are those per impression over the share served; dividing the interval's ends by that share
    too makes it no narrower than that of the ratio where rows are independent.
    """
    policy = t.recommended or everyone_of(t)
    share = share_served(t, policy)
    priced = "net" in t.table
    unit = "net value (after costs)" if priced else q.outcome
    joint = (
        "Intervals are of 95 %, and hold for all rules that were compared at once."
        if t.recommended
        else "Intervals are of 95 %."
    )
    sentences = [f"Gains are in {unit}. {joint}"]
    if share <= 0:
        return sentences
    by = f"by {RULES.get(policy, policy)}" if t.recommended else f"to {SIMPLE[policy]}"
    per = words.per_recommendation(q)
    clicks = tuple(v / share for v in gain(t, policy, "clicks"))
    brings = (
        f"Recommending {by} brings {said(per, clicks)}; it serves {words.percent(share)} of the impressions."
    )
    sentences.append(brings)
    if priced:
        net = gain(t, policy, "net")
        prices = f"At {t.prices.value:g} a unit of {q.outcome} and {t.prices.cost:g} a recommendation"
        each = words.per_recommendation(MONEY)
        sentences.append(
            f"{prices} that is worth {said(each, tuple(v / share for v in net))} after costs, or {said(MONEY, net)}."
        )
    today = gain(t, "today", "net" if priced else "clicks")
    shown = MONEY if priced else q
    if t.rule is not None and t.recommended not in (None, "tree") and "tree" in t.policies:
        tree = gain(t, "tree", "net" if priced else "clicks")
        sentences.append(f"What can be said in words, the tree, gains {said(shown, tree)}: {t.rule}")
    sentences.append(
        f"Today’s policy, which serves {words.percent(share_served(t, 'today'))}, gains {said(shown, today)}{' after costs' if priced else ''}."
    )
    return sentences


def said(q: Question, found: tuple[float, ...]) -> str:
    """``73.8 clicks per 1,000 recommendations (95 % interval 60.1 to 87.5)``."""
    value, lower, upper = found
    return f"{q.number(value, q.decimals(lower, upper))} {q.label.strip()} (95 % interval {words.interval(q, lower, upper)})"


def share_served(t: Targeting, policy: str) -> float:
    """Share of the held-out impressions that a policy serves."""
    return float(_of(t, policy)["share_served"])


def gain(t: Targeting, policy: str, key: str) -> tuple[float, float, float]:
    """(value, lower, upper) of a policy's ``"clicks"`` or ``"net"`` over recommending to no one, per impression."""
    row = _of(t, policy)
    return float(row[key]), float(row[f"{key}_lower"]), float(row[f"{key}_upper"])


def _of(t: Targeting, policy: str) -> dict[str, Any]:
    return next(row for row in records(t.table) if row["policy"] == policy)


def _other(r: Results) -> dict[str, Any]:
    """The answer of a page without a Fit."""
    level, headline = _headline(r)
    return {
        "level": level,
        "headline": headline,
        "sentences": [],
        "tested": "Refuters need the effect of one treatment against none (cr.estimate), so none were run here.",
        "caveats": [],
    }


def _headline(r: Results) -> tuple[str, str]:
    q, main = r.question, r.main
    if isinstance(main, ArmsFit):
        return _best_arm(main, q)
    if isinstance(main, DoseResponse):
        return _slope(main, q)
    assert isinstance(main, InstrumentFit)
    clear = not main.ci_lower <= 0 <= main.ci_upper
    found = said(q, (main.effect, main.ci_lower, main.ci_upper))
    return (
        "clear" if clear else "unclear",
        f"In those whom {words.quoted(main.instrument)} moves, the treatment changed the outcome by {found}.",
    )


def _best_arm(fit: ArmsFit, q: Question) -> tuple[str, str]:
    best = fit.best_arm
    if best is None:
        return (
            "unclear",
            f"No arm of {q.doing} is separated from all others: the data do not choose between them.",
        )
    if any(p.corrected for p in fit.by_pairs) and best != fit.control:  # the means are of first order
        e, over = fit.contrasts[fit.arms.index(best) - 1].estimate, f"more than {words.quoted(fit.control)}"
    else:
        e, over = fit.means[fit.arms.index(best)], "on average"
    found = said(q, (e.value, e.ci_lower, e.ci_upper))
    return (
        "clear",
        f"{words.quoted(best)} is the best arm of {q.doing}: {found} {over}, above every other arm (joint 95 %).",
    )


def _slope(curve: DoseResponse, q: Question) -> tuple[str, str]:
    clear = curve.p_constant < 0.05
    verdict = "depends on" if clear else "cannot be shown to depend on"
    headline = f"{q.outcome[:1].upper()}{q.outcome[1:]} {verdict} {q.doing}"
    if curve.slope is None:
        return "clear" if clear else "unclear", f"{headline}."
    s = curve.slope
    found = said(q, (s.value, s.ci_lower, s.ci_upper))
    return "clear" if clear else "unclear", f"{headline}: one more unit changes it by {found} on average."
