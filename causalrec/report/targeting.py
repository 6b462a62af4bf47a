"""Whom to target, and who is served: the sections of policies and of fairness."""

from __future__ import annotations

from typing import Any

from causalrec.report import decision, parts, uplift_plots, words
from causalrec.report.parts import Part
from causalrec.report.results import Results, records
from causalrec.report.words import Question
from causalrec.uplift import Targeting

POLICIES = {
    "tree": "tree: the rule in words",
    "forest": "forest of trees",
    "cate": "best predicted effect first",
    "none": "recommend to no one",
    "all": "recommend to everyone",
    "random": "as many as the budget allows, at random",
    "today": "today’s policy",
}


def policies(r: Results) -> list[Part]:
    """What each policy is worth on held-out users, and the rule in words."""
    t, q = r.targeting, r.question
    assert t is not None
    out = [
        parts.text(
            f"Judged on {t.n:,} impressions of {t.n_units:,} users that no rule has seen. {_limits(t, q)}"
        ),
        _values(t, q),
        _differences(t, q),
    ]
    if t.rule is None:
        return [*out, parts.text("There is no rule in words: no declared modifier varies.")]
    return [*out, parts.heading("The rule in words"), parts.text(t.rule), _leaves(t, q)]


def _limits(t: Targeting, q: Question) -> str:
    prices = f"A unit of {q.outcome} is worth {t.prices.value:g}, a recommendation costs {t.prices.cost:g}."
    limit = (
        "" if t.budget is None else f" At most {words.percent(t.budget, 1)} of the impressions may be served."
    )
    return f"{prices if 'net' in t.table else 'No prices were given.'}{limit}"


def _values(t: Targeting, q: Question) -> Part:
    rows = [_value(t, q, policy) for policy in t.table["policy"]]
    return parts.figure(
        uplift_plots.plot_targeting(t, question=q),
        "policies",
        title="What each policy is worth",
        description=f"Lines are 95 % intervals; filled: the rule that is recommended. {decision.decision_sentence(t)}",
        data=parts.table(
            "Gains over recommending to no one; per recommendation the share served is taken as it is",
            rows, name="policies", raw=records(t.table),
        ),
    )  # fmt: skip


def _value(t: Targeting, q: Question, policy: str) -> dict[str, Any]:
    """One policy's row: gain per impression and per recommendation, each with its interval."""
    share = decision.share_served(t, policy)
    found = {"policy": POLICIES.get(policy, policy), "served": words.percent(share)}
    for key, unit in (("clicks", q), ("net", words.net_value(q))):
        if key not in t.table:
            continue
        ends = decision.gain(t, policy, key)
        found[unit.label] = short(unit, *ends) if share > 0 else "0"
        if key == "clicks":
            each = words.per_recommendation(unit)
            found[each.label] = short(each, *(v / share for v in ends)) if share > 0 else "–"
    return found


def short(q: Question, value: float | None, lower: float | None, upper: float | None) -> str:
    """``7.4 (6.5 to 8.3)``, ``7.4`` where there is no interval, a dash where there is no number."""
    value, lower, upper = _number(value), _number(lower), _number(upper)
    if value is None:
        return "–"
    if lower is None or upper is None:
        return q.number(value, q.decimals(0.9 * value, 1.1 * value))
    if value == lower == upper == 0:
        return "0"
    return f"{q.number(value, q.decimals(lower, upper))} ({words.interval(q, lower, upper)})"


def _differences(t: Targeting, q: Question) -> Part:
    unit = words.net_value(q) if "net" in t.table else q
    rows = [
        {
            "rule": uplift_plots.NAMES.get(d["policy"], d["policy"]),
            "against": POLICIES[d["against"]],
            f"difference, {unit.label}": short(unit, d["difference"], d["ci_lower"], d["ci_upper"]),
            "p_holm": d["p_value"],
        }
        for d in records(t.differences)
    ]
    caption = (
        "Each rule against each simple policy, paired, 95 %; p-values corrected for the number of rows (Holm)"
    )
    return parts.table(caption, rows, name="policy-differences", raw=records(t.differences))


def _leaves(t: Targeting, q: Question) -> Part:
    rows = [
        {
            "users whose": leaf["who"],
            "n": leaf["n"],
            f"effect, {q.label}": short(q, *(_number(leaf[k]) for k in ("effect", "ci_lower", "ci_upper"))),
            "served": words.percent(_number(leaf["share_served"])),
        }
        for leaf in records(t.leaves)
    ]
    caption = "The leaves of the policy tree on held-out users, before any fairness constraint; 95 % each"
    return parts.table(caption, rows, name="policy-leaves", raw=records(t.leaves))


def _number(value: Any) -> float | None:
    """A number; None for None and NaN."""
    return None if value is None or value != value else float(value)


def fairness(r: Results) -> list[Part]:
    """Who is served and who gains, by protected group, and what a constraint costs."""
    assert r.targeting is not None
    assert r.targeting.fairness is not None
    t, f, q = r.targeting, r.targeting.fairness, r.question
    rows = [
        {
            "group": g["group"],
            "n": g["n"],
            "users": g["n_units"],
            "served, %": short(
                uplift_plots.AS_PERCENT, g["share_served"], g["share_lower"], g["share_upper"]
            ),
            f"effect in the group, {q.label}": short(q, g["effect"], g["effect_lower"], g["effect_upper"]),
            "effect among those served": short(q, g["benefit"], g["benefit_lower"], g["benefit_upper"]),
            "p_holm": g["p_value"],
        }
        for g in f.records
    ]
    out = [
        parts.text(f"Under the {f.policy} rule, on held-out users."),
        parts.bullets(f._notes()),
        parts.figure(
            uplift_plots.plot_fairness(f, "share", question=q),
            "fairness-served",
            title="Who is served",
            description="Share of each protected group that the rule serves, with 95 % intervals.",
            data=parts.table(
                "By protected group; p of the effect among those served being that of the other groups (Holm)",
                rows, name="fairness", raw=f.records,
            ),
        ),
        parts.figure(
            uplift_plots.plot_fairness(f, "benefit", question=q),
            "fairness-benefit",
            title="Who gains",
            description="Effect among those served in each protected group, with 95 % intervals.",
            data=parts.table("Tests of no difference between the groups", f.tests, name="fairness-tests"),
        ),
    ]  # fmt: skip
    return out if t.price is None else [*out, _price(t, q)]


def _price(t: Targeting, q: Question) -> Part:
    assert t.price is not None
    unit = words.net_value(q) if "net" in t.table else q
    rows = [
        {
            "rule": uplift_plots.NAMES.get(p["policy"], p["policy"]),
            f"cost, {unit.label}": short(unit, p["price"], p["ci_lower"], p["ci_upper"]),
        }
        for p in records(t.price)
    ]
    return parts.table(
        "What the fairness constraints cost each rule, 95 %",
        rows,
        name="fairness-price",
        raw=records(t.price),
    )
