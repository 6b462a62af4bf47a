"""Forest plots: effects with their intervals, one a line."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, NamedTuple

from causalrec.estimate import Fit, GroupEffects
from causalrec.report.look import MOST_ROWS, TEXT, finish, new_axes, note, plain
from causalrec.report.palette import BLUE, INK, PAPER, VERMILLION
from causalrec.report.results import question_of
from causalrec.report.words import PER_IMPRESSION, Question, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LONGEST = 64  # of a label, on two lines


class Interval(NamedTuple):
    """One line of a forest plot, in outcome per impression; without a number the line says so.

    ``joint``, a wider interval that holds for several lines at once, is drawn thin.
    """

    label: str
    value: float | None
    lower: float | None
    upper: float | None
    colour: str = BLUE
    marker: str = "D"
    filled: bool = True
    joint: tuple[float, float] | None = None


def plot_effect(fit: Fit, ax: Axes | None = None) -> Axes:
    """The naive comparison and the effect, each with its 95 % interval, against zero."""
    effect, naive = fit.analysis.effect, fit.naive
    first = fit.first_order if fit.correction.order == 2 else None
    rows = [
        Interval(
            "naive comparison", naive.value, naive.ci_lower, naive.ci_upper, VERMILLION, "o", filled=False
        ),
        Interval(f"effect ({fit.estimand})", effect.value, effect.ci_lower, effect.ci_upper),
    ]
    if first is not None:
        rows.append(
            Interval(
                "first order, before pairs",
                first.value,
                first.ci_lower,
                first.ci_upper,
                BLUE,
                "s",
                filled=False,
            )
        )
    return forest(ax, rows, question_of(fit))


def plot_groups(
    effects: GroupEffects,
    ax: Axes | None = None,
    *,
    question: Question = PER_IMPRESSION,
    overall: float | None = None,
) -> Axes:
    """Group effects with pointwise 95 % intervals; `overall`, an effect per impression, is drawn as a line.

    Beyond 30 groups the largest are shown.
    """
    biggest = sorted(effects.records, key=lambda r: -r["n"])[:MOST_ROWS]
    kept = [r for r in effects.records if r in biggest]
    rows = [Interval(shown(r["group"], 28), r["effect"], r["ci_lower"], r["ci_upper"]) for r in kept]
    ax = forest(ax, rows, question)
    if overall is not None:
        ax.axvline(overall * question.factor, color=BLUE, lw=1, ls=(0, (2, 2)), zorder=0)
        place = (overall * question.factor, len(rows) - 0.3)
        note(ax, "all", place, (0, 7), BLUE, "center")
    return ax


def forest(ax: Axes | None, rows: Sequence[Interval], q: Question, xlabel: str | None = None) -> Axes:
    """Points with intervals, one a line from top to bottom, their numbers at the right, in the unit of the question."""
    ax = new_axes(ax, 0.95 + 0.42 * len(rows))
    known = [r for r in rows if r.value is not None]
    decimals = max((q.decimals(r.lower or 0.0, r.upper or 0.0) for r in known), default=1)
    ax.axvline(0, color=INK, lw=0.8, zorder=0)
    for y, row in zip(range(len(rows))[::-1], rows, strict=True):
        text = "too few rows"
        if row.value is not None and row.lower is not None and row.upper is not None:
            value, low, high = (q.factor * v for v in (row.value, row.lower, row.upper))
            if row.joint is not None:
                ax.plot([q.factor * v for v in row.joint], [y, y], color=row.colour, lw=1, zorder=1)
            ax.plot([low, high], [y, y], color=row.colour, lw=2.4, solid_capstyle="butt", zorder=2)
            ax.plot(
                [value],
                [y],
                row.marker,
                ms=8,
                mew=1.8,
                mec=row.colour,
                mfc=row.colour if row.filled else PAPER,
                zorder=3,
            )
            number, *ends = (q.number(v, decimals) for v in (row.value, row.lower, row.upper))
            text = f"{number} ({ends[0]} to {ends[1]})"
        ax.text(1.02, y, text, transform=ax.get_yaxis_transform(), va="center", color=INK, fontsize=TEXT)
    ax.set_ylim(-0.7, len(rows) - 0.3)
    ax.set_yticks(list(range(len(rows))[::-1]), [fill(plain(r.label, LONGEST), LONGEST // 2) for r in rows])
    ax.tick_params(axis="y", length=0)
    ax.margins(x=0.08)
    return finish(ax, q.label if xlabel is None else xlabel, "")
