"""Figures of targeting and of what goes with an effect: each takes a result and returns the Axes that it drew on.

Without `ax` a figure of its own is made, outside pyplot; ``ax.figure.savefig("targeting.png")`` writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from causalrec._checks import check_choice
from causalrec.errors import ArgumentError
from causalrec.report.forest import Interval, forest
from causalrec.report.look import MOST_ROWS, finish, legend, new_axes, note
from causalrec.report.palette import BLUE, GREEN, INK, LINE, MUTED, VERMILLION
from causalrec.report.results import question_of
from causalrec.report.words import PER_IMPRESSION, Question, net_value, percent, shown
from causalrec.uplift import Calibration, ColdStart, Explanation, Fairness, ModelChoice, Targeting

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TABLES = {"modifiers": "loss", "tree": "effect", "topics": "effect"}
FAIRNESS = {"share": "share_served", "effect": "effect", "benefit": "benefit"}
MILLIONTHS = Question(factor=1e6)
"""In which differences of losses, squares of clicks, are shown."""
AS_PERCENT = Question(factor=100.0)


NAMES = {"cate": "predicted effect", "all": "everyone", "random": "at random", "today": "today’s policy"}
"""Policies on an axis."""


def plot_targeting(result: Targeting, ax: Axes | None = None, *, question: Question | None = None) -> Axes:
    """What each policy gains over recommending to no one, with its interval; net value where prices were given.

    Filled: the rule that is recommended. Diamonds: learnt rules. Circles: simple policies.
    """
    asked = question_of(result.fit) if question is None else question
    priced = "net" in result.table
    key, unit = ("net", net_value(asked)) if priced else ("clicks", asked)
    rows = []
    for r in result.table.to_dict("records"):
        if r["policy"] == "none":
            continue
        learnt = r["policy"] in result.policies
        rows.append(
            Interval(
                f"{NAMES.get(r['policy'], r['policy'])} ({percent(r['share_served'])} served)",
                r[key],
                r[f"{key}_lower"],
                r[f"{key}_upper"],
                BLUE if learnt else MUTED,
                "D" if learnt else "o",
                filled=r["policy"] == result.recommended,
            )
        )
    return forest(ax, rows, unit, f"{unit.outcome} gained {unit.per}, over recommending to no one")


def plot_explanation(
    result: Explanation,
    table: str = "topics",
    ax: Axes | None = None,
    *,
    question: Question = PER_IMPRESSION,
) -> Axes:
    """Effects of topics or of the tree's leaves, or what shuffling each modifier costs, with their intervals.

    Raises
    ------
    ArgumentError
        The table is unknown, or empty (the result's ``skipped`` says why).
    """
    name = TABLES[check_choice(table, "table", list(TABLES))]
    frame: pd.DataFrame = getattr(result, table)
    if frame.empty:
        raise ArgumentError(
            f"the table {table!r} is empty, so that there is nothing to plot: {' '.join(result.skipped)}"
        )
    if name == "loss":
        said = "rise of the held-out loss if its values are shuffled, millionths"
        return _intervals(ax, frame, (name, "loss_lower", "loss_upper"), MILLIONTHS, said)
    return _intervals(ax, frame, (name, "ci_lower", "ci_upper"), question, f"effect: {question.label}")


def _intervals(
    ax: Axes | None, frame: pd.DataFrame, columns: Sequence[str], q: Question, xlabel: str
) -> Axes:
    """A forest plot of a table whose first column is the label."""
    rows = [
        Interval(str(label), float(value), float(lower), float(upper))
        for label, value, lower, upper in frame[[frame.columns[0], *columns]].head(MOST_ROWS).to_numpy()
    ]
    return forest(ax, rows, q, xlabel)


def plot_cold_start(
    result: ColdStart, ax: Axes | None = None, *, question: Question = PER_IMPRESSION
) -> Axes:
    """Predicted effects of the test log's items with their intervals, against the distance to the nearest text seen."""
    items, k = result.items.assign(distance=result.items["distance"].round(4)), question.factor
    ax = new_axes(ax, 3.4)
    effect = k * items["effect"]
    ax.vlines(items["distance"], k * items["ci_lower"], k * items["ci_upper"], color=LINE, lw=1, zorder=1)
    for seen, colour, marker, label in (
        (True, BLUE, "o", "shown in training"),
        (False, VERMILLION, "D", "new"),
    ):
        here = items["seen_in_training"] == seen
        if here.any():
            ax.plot(items["distance"][here], effect[here], marker, ms=4.5, color=colour, label=label)
    ax.axhline(0, color=INK, lw=0.8, zorder=0)
    ax.axhline(k * result.process.mean, color=MUTED, lw=1.2, ls=(0, (4, 3)), label="average over items")
    legend(ax, 3)
    return finish(
        ax, "distance to the nearest text seen (0: the same text)", f"extra {question.label}", grid="y"
    )


def plot_calibration(
    result: Calibration, ax: Axes | None = None, *, question: Question = PER_IMPRESSION
) -> Axes:
    """Measured against predicted effect in equal parts of the ranking; on the dashed line they agree."""
    table, k = result.table, question.factor
    ax = new_axes(ax, 3.4)
    x, y = k * table["predicted"], k * table["effect"]
    errors = [y - k * table["ci_lower"], k * table["ci_upper"] - y]
    ends = [min(x.min(), 0.0), max(x.max(), 0.0)]
    ax.plot(ends, ends, color=MUTED, lw=1.2, ls=(0, (4, 3)), label="as predicted")
    ax.errorbar(x, y, errors, fmt="D", ms=6.5, color=BLUE, lw=2, label="measured, 95 % interval")
    ax.axhline(0, color=INK, lw=0.8, zorder=0)
    ax.margins(x=0.08)
    legend(ax)
    return finish(ax, f"predicted: {question.label}", f"measured: {question.label}", grid="y")


def plot_fairness(
    result: Fairness, what: str = "benefit", ax: Axes | None = None, *, question: Question = PER_IMPRESSION
) -> Axes:
    """By protected group: the ``"share"`` that is served, the ``"effect"``, or the ``"benefit"`` among those served.

    Raises
    ------
    ArgumentError
        `what` is unknown.
    """
    key = FAIRNESS[check_choice(what, "what", list(FAIRNESS))]
    ends = ("share_lower", "share_upper") if what == "share" else (f"{key}_lower", f"{key}_upper")
    rows = [Interval(shown(r["group"], 28), r[key], *(r[e] for e in ends)) for r in result.records]
    if what == "share":
        return forest(ax, rows, AS_PERCENT, "share of the group that is served, %")
    whom = "among those served" if what == "benefit" else "in the whole group"
    return forest(ax, rows, question, f"effect {whom}: {question.label}")


def plot_models(result: ModelChoice, ax: Axes | None = None) -> Axes:
    """By how much each model's held-out loss is below that of one effect for everyone; filled: the chosen one."""
    rows = [
        Interval(r["model"], r["gain"], r["ci_lower"], r["ci_upper"], filled=r["model"] == result.best)
        for r in result.records
        if r["model"] != "constant"
    ]
    return forest(
        ax,
        rows,
        MILLIONTHS,
        "held-out loss below the constant’s, millionths (right: better)",
    )


def plot_breakdown(result: Any, ax: Axes | None = None) -> Axes:
    """How strong hidden causes have to be before each group's interval includes 0, beside the strongest measured one.

    Parameters
    ----------
    result : GroupSensitivity
    ax : Axes, optional

    Raises
    ------
    ArgumentError
        No group has an effect.
    """
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    from causalrec.check.group_bounds import MOST_GAMMA

    groups = [g for g in result.groups if g.breakdown is not None]
    if not groups:
        raise ArgumentError(
            "no group of the GroupSensitivity has an effect, so that there is nothing to plot."
        )
    ax = new_axes(ax, 1.25 + 0.36 * len(groups))
    places = list(range(len(groups)))[::-1]
    ends = [min(g.breakdown, MOST_GAMMA) for g in groups]
    ax.hlines(places, 1, ends, color=LINE, lw=3, zorder=1)
    ax.plot(ends, places, "D", ms=7, color=BLUE, label="the interval includes 0 from here", zorder=3)
    known = [
        (max(f for _, f in g.benchmarks), y) for g, y in zip(groups, places, strict=True) if g.benchmarks
    ]
    if known:
        ax.plot(
            *zip(*known, strict=True), "o", ms=9, mec=VERMILLION, mfc="none", mew=1.8, zorder=4,
            label="strongest measured cause",
        )  # fmt: skip
    for g, end, y in zip(groups, ends, places, strict=True):
        if g.breakdown > MOST_GAMMA:
            note(ax, f"beyond {MOST_GAMMA:g}", (end, y), (-8, 9), GREEN, "right")
    ax.set_xscale("log")
    top = max(1.6, 1.25 * max(*ends, *(x for x, _ in known), 1.0))
    ticks = [
        t for t in (1, 1.1, 1.25, 1.5, 2, 3, 5, 10, 20) if t <= top and (top < 4 or t not in (1.1, 1.25))
    ]
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_major_formatter(FixedFormatter([f"{t:g}" for t in ticks]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set(xlim=(0.97, top), ylim=(-0.7, len(groups) - 0.3))
    ax.set_yticks(places, [shown(g.name, 28).replace("$", r"\$") for g in groups])
    ax.axvline(1, color=INK, lw=0.8, zorder=0)
    legend(ax)
    return finish(ax, "Γ: factor by which hidden causes change the odds of exposure", "")
