"""Group effects on the page: one table of all segments, corrected for their number, and a figure a modifier."""

from __future__ import annotations

from typing import Any

from causalrec.estimate import GroupEffects
from causalrec.report import forest, parts, words
from causalrec.report.look import MOST_ROWS
from causalrec.report.parts import Part
from causalrec.report.results import MOST_MODIFIERS, Results
from causalrec.report.words import Question


def groups(r: Results) -> list[Part]:
    """Group effects of the declared modifiers; those that were passed stand in the place of the default ones."""
    modifiers = r.plan.modifiers
    if not modifiers:
        return [parts.missing("No group effects: no modifier is declared.", "cr.read_log(…, modifiers=[…])")]
    passed = {g.by: g for g in r.groups}
    drawn = [passed.get(g.by, g) for g in r.segments.groups]
    out = [parts.heading("Group effects"), parts.text(_introduction(r)), _table(r)]
    out += [_figure(r, effects, i) for i, effects in enumerate(drawn)]
    if len(modifiers) > MOST_MODIFIERS:
        left_out = f"{len(modifiers) - MOST_MODIFIERS} more modifiers are left out:"
        out.append(parts.missing(left_out, "fit.by(modifier)"))
    return out


def _introduction(r: Results) -> str:
    known = r.segments.known
    apart = [f"{g['modifier']}: {g['group']}" for g in known if g["joint_lower"] > 0 or g["joint_upper"] < 0]
    found = words.listed(apart, 6) if apart else "none"
    return (
        f"By each declared modifier ({words.listed(r.plan.modifiers)}). Of many groups some stand out by chance: the joint "
        f"intervals and the p-values hold for all {len(known)} groups at once. Segments whose joint interval excludes 0: {found}."
    )


def _table(r: Results) -> Part:
    q = r.question
    rows = [_row(g, q) for g in r.segments.records]
    caption = f"Segments, effects in {q.label}; joint: 95 % for all at once (max-t); p-values by Holm"
    return parts.table(caption, rows, name="segments", raw=r.segments.records)


def _row(g: dict[str, Any], q: Question) -> dict[str, Any]:
    row = {"segment": f"{g['modifier']}: {g['group']}", "n": g["n"], "users": g["n_units"]}
    if g["effect"] is None:
        return row | {"effect": "too few rows", "95 % interval": "–", "joint": "–", "p_holm": None}
    d = q.decimals(g["ci_lower"], g["ci_upper"])
    ends = {k: q.number(g[k], d) for k in ("ci_lower", "ci_upper", "joint_lower", "joint_upper")}
    return row | {
        "effect": q.number(g["effect"], d),
        "95 % interval": f"{ends['ci_lower']} to {ends['ci_upper']}",
        "joint": f"{ends['joint_lower']} to {ends['joint_upper']}",
        "p_holm": g["p_holm"],
    }


def _figure(r: Results, effects: GroupEffects, place: int) -> Part:
    q = r.question
    left_out = len(effects.records) - MOST_ROWS
    more = f" The {MOST_ROWS} largest of {len(effects.records):,} groups are drawn." if left_out > 0 else ""
    described = f"{effects.estimand} in each group, in {q.label}, with 95 % intervals, each on its own; dotted: all impressions.{more}"
    return parts.figure(
        forest.plot_groups(effects, question=q, overall=r.fit.effect),
        f"groups-{place}",
        title=f"Effect by {words.shown(effects.by)}",
        description=described,
        data=parts.table("In outcome per impression", list(effects.records), name=f"groups-{place}"),
    )
