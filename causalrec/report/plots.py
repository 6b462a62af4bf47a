"""Figures of results: each function takes a result and returns the Axes that it drew on.

Without `ax` a figure of its own is made, outside pyplot; ``ax.figure.savefig("effect.png")`` writes it.
Effects are shown in the unit of `question` (by default in outcome per impression).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from causalrec.check import Checks
from causalrec.errors import ArgumentError
from causalrec.estimate import Fit
from causalrec.report.look import MOST_ROWS, TEXT, finish, legend, new_axes, note, plain
from causalrec.report.palette import BLUE, INK, LINE, MUTED, PAPER, VERMILLION
from causalrec.report.results import question_of
from causalrec.report.words import PER_IMPRESSION, Question
from causalrec.uplift import UpliftCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_overlap(checks: Checks, ax: Axes | None = None) -> Axes:
    """Propensities of the treated (above) and of the control impressions (below), as shares of each arm."""
    from matplotlib.ticker import FuncFormatter

    histogram = checks.propensity_histogram
    edges, ax = histogram["edges"], new_axes(ax, 3.0)
    for arm, sign, colour, style in (("treated", 1, VERMILLION, "-"), ("control", -1, BLUE, "--")):
        heights = [sign * 100 * share for share in histogram[arm]]
        ax.stairs(heights, edges, fill=True, color=colour, alpha=0.22)
        ax.stairs(heights, edges, color=colour, lw=1.8, ls=style)
        ax.text(
            0.985,
            0.5 + sign * 0.42,
            arm,
            transform=ax.transAxes,
            ha="right",
            va="center",
            color=colour,
            fontsize=TEXT + 1,
            weight="bold",
        )
    ax.axhline(0, color=INK, lw=0.8)
    top = 112 * max(max(histogram["treated"]), max(histogram["control"]))
    ax.set(xlim=(edges[0], edges[-1]), ylim=(-top, top))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{abs(v):.0f} %"))
    return finish(ax, "probability of exposure (propensity)", "share of the arm", grid="y")


def plot_balance(checks: Checks, ax: Axes | None = None) -> Axes:
    """Love plot: standardised mean differences before and after weighting, of columns not used in the fit.

    Raises
    ------
    ArgumentError
        There is no such column.
    """
    worst = sorted(checks.balance, key=lambda r: -max(abs(r["before"]), abs(r["after"])))[:MOST_ROWS]
    if not worst:
        raise ArgumentError(
            "checks.balance is empty, so there is nothing to plot: "
            "the fit uses every column it could be judged on."
        )
    ax = new_axes(ax, 1.35 + 0.3 * len(worst))
    places = range(len(worst))[::-1]
    for y, row in zip(places, worst, strict=True):
        ax.plot([row["before"], row["after"]], [y, y], color=LINE, lw=2, zorder=1)
    style: dict[str, Any] = {"ls": "none", "mew": 1.8, "zorder": 3}
    ax.plot(
        [r["before"] for r in worst],
        places,
        marker="o",
        ms=11,
        mec=VERMILLION,
        mfc="none",
        label="before weighting",
        **style,
    )
    ax.plot(
        [r["after"] for r in worst],
        places,
        marker="D",
        ms=6,
        mec=BLUE,
        mfc=BLUE,
        label="after weighting",
        **style,
    )
    ax.axvline(0, color=INK, lw=0.8, zorder=0)
    for edge in (-0.1, 0.1):
        ax.axvline(edge, color=MUTED, lw=0.9, ls=(0, (4, 3)), zorder=0)
    reach = 1.12 * max(0.15, *(abs(v) for r in worst for v in (r["before"], r["after"])))
    ax.set(xlim=(-reach, reach), ylim=(-0.7, len(worst) - 0.3))
    ax.set_yticks(list(places), [plain(r["column"], 28) for r in worst])
    legend(ax)
    return finish(ax, "standardised mean difference (dashed: ±0.1)", "")


def plot_uplift(curve: UpliftCurve, ax: Axes | None = None, *, question: Question = PER_IMPRESSION) -> Axes:
    """Qini curve: what treating the best-ranked share brings, with a 95 % band, against random targeting."""
    ax = new_axes(ax, 3.5)
    share = [0.0, *(100 * float(s) for s in curve.grid)]
    gain, lower, upper = (
        [0.0, *(question.factor * float(v) for v in values)]
        for values in (curve.gain, curve.gain_lower, curve.gain_upper)
    )
    ax.fill_between(share, lower, upper, color=BLUE, alpha=0.16, lw=0)
    ax.plot(share, gain, color=BLUE, lw=2.2)
    ax.plot([0, share[-1]], [0, gain[-1]], color=VERMILLION, lw=1.8, ls=(0, (5, 3)))
    ax.axhline(0, color=INK, lw=0.8, zorder=0)
    best = max(range(len(gain)), key=lambda i: gain[i] - gain[-1] * share[i] / share[-1])
    middle = len(share) // 2
    note(ax, "best-ranked first", (share[best], gain[best]), (-10, 16), BLUE, "right")
    note(ax, "random", (share[middle], gain[-1] * share[middle] / share[-1]), (14, -20), VERMILLION, "left")
    ax.set_xlim(0, 100)
    ax.margins(y=0.12)
    return finish(
        ax, "impressions targeted, % (ranked on held-out users)", f"extra {question.label}", grid="y"
    )


def plot_deciles(curve: UpliftCurve, ax: Axes | None = None, *, question: Question = PER_IMPRESSION) -> Axes:
    """Effect in each tenth of the ranking, measured on held-out users, beside the predicted one."""
    ax, table, k = new_axes(ax, 3.3), curve.table, question.factor
    places = [float(d) for d in table["decile"]]
    measured = k * table["effect"]
    errors = [k * (table["effect"] - table["ci_lower"]), k * (table["ci_upper"] - table["effect"])]
    left, right = [p - 0.1 for p in places], [p + 0.1 for p in places]
    ax.axhline(0, color=INK, lw=0.8, zorder=0)
    ax.errorbar(left, measured, errors, fmt="D", ms=6.5, color=BLUE, lw=2, label="measured, 95 % interval")
    ax.plot(right, k * table["mean_cate"], "o", ms=7, mec=VERMILLION, mfc=PAPER, mew=1.8, label="predicted")
    ax.set_xticks(places, [f"{p:.0f}" for p in places])
    legend(ax)
    descending = table["mean_cate"].iloc[0] >= table["mean_cate"].iloc[-1]
    order = "1 = ranked highest" if descending else f"{places[-1]:.0f} = ranked highest"
    return finish(ax, f"tenth of the ranking ({order})", f"extra {question.label}", grid="y")


def plot_placebo(checks: Checks, fit: Fit, ax: Axes | None = None) -> Axes:
    """Effects of shuffled treatments, which can have none, beside the estimate.

    Raises
    ------
    ArgumentError
        The checks hold no placebo effects.
    """
    from matplotlib.ticker import MaxNLocator

    q = question_of(fit)
    if not checks.placebo_effects:
        raise ArgumentError(
            "checks.placebo_effects is empty, so there is nothing to plot: the placebo refuter was not run."
        )
    ax, value = new_axes(ax, 2.7), fit.effect * q.factor
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.hist(
        [q.factor * e for e in checks.placebo_effects],
        bins=20,
        color=MUTED,
        alpha=0.45,
        edgecolor=PAPER,
        lw=0.6,
    )
    ax.axvline(0, color=INK, lw=0.8)
    ax.axvline(value, color=BLUE, lw=2.4)
    ax.margins(x=0.12, y=0.25)
    note(
        ax,
        "the estimate",
        (value, ax.get_ylim()[1]),
        (-7 if value > 0 else 7, -4),
        BLUE,
        "right" if value > 0 else "left",
        va="top",
    )
    note(
        ax,
        "placebos",
        (0, ax.get_ylim()[1]),
        (-7 if value < 0 else 7, -4),
        MUTED,
        "right" if value < 0 else "left",
        va="top",
    )
    return finish(ax, q.label, "repetitions", grid="y")
