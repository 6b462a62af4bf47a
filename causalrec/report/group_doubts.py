"""How strong hidden causes would have to be, group by group."""

from __future__ import annotations

from typing import Any

from causalrec.check.group_bounds import MOST_GAMMA, GroupBounds
from causalrec.report import parts, uplift_plots, words
from causalrec.report.parts import Part
from causalrec.report.results import Results, records
from causalrec.report.targeting import short
from causalrec.report.words import Question


def group_sensitivity(r: Results) -> list[Part]:
    """Breakdown Γ of each group, and the bounds at each Γ."""
    s, q = r.sensitivity, r.question
    assert s is not None
    out = [
        parts.text(
            "Γ is the factor by which hidden causes change the odds of being recommended; 1 is none. The breakdown Γ "
            "is the least at which the bounds, with their 95 % interval, include 0: the larger, the safer."
        )
    ]
    if any(g.breakdown is not None for g in s.groups):
        drawn = parts.figure(
            uplift_plots.plot_breakdown(s),
            "breakdown",
            title="What it takes to explain each group’s effect away",
            description=f"Diamonds: breakdown Γ (up to {MOST_GAMMA:g}). Circles: what leaving out the strongest measured cause amounts to.",
            data=parts.table(
                "Bounds at each Γ", _bounds(s.groups, q), name="group-bounds", raw=records(s.bounds())
            ),
        )
        out.append(drawn)
    rows = [_group(g, q) for g in s.groups]
    out.append(parts.table("By group", rows, name="group-sensitivity", raw=s._rows()))
    return [*out, parts.bullets([s.groups[0].sentence(), *s.remarks])]


def _group(g: GroupBounds, q: Question) -> dict[str, Any]:
    what, factor = max(g.benchmarks, key=lambda b: b[1], default=("–", None))
    return {
        "group": g.name,
        "n": g.n,
        f"effect, {q.label}": short(q, g.effect, g.ci_lower, g.ci_upper),
        "robustness value": words.percent(g.robustness_value_ci, 1),
        "breakdown Γ": gamma(g.breakdown),
        "strongest measured cause": what if factor is None else f"{what}: {factor:.2f}",
    }


def gamma(value: float | None) -> str:
    """A breakdown Γ as a person reads it."""
    if value is None:
        return "–"
    return f"beyond {MOST_GAMMA:g}" if value > MOST_GAMMA else words.number(value, 2)


def _bounds(groups: tuple[GroupBounds, ...], q: Question) -> list[dict[str, Any]]:
    return [
        {
            "group": g.name,
            "Γ": f"{at:g}",
            f"bounds, {q.label}": words.interval(q, low, high),
            "with 95 % intervals": words.interval(q, low_ci, high_ci),
        }
        for g in groups
        for at, low, high, low_ci, high_ci in zip(
            g.gamma, g.lower, g.upper, g.lower_ci, g.upper_ci, strict=True
        )
    ]
