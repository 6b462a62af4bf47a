"""Figures of a trained ranker: each takes a result and returns the Axes that it drew on.

Without `ax` a figure of its own is made, outside pyplot; ``ax.figure.savefig("risks.png")`` writes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from causalrec.errors import ArgumentError
from causalrec.finetune.choice import ObjectiveChoice
from causalrec.finetune.evaluation import Evaluation
from causalrec.finetune.examination import Examination
from causalrec.finetune.ranker import Ranker
from causalrec.finetune.risk import judges_clicks
from causalrec.report import words
from causalrec.report.forest import Interval, forest
from causalrec.report.look import TEXT, finish, legend, new_axes, note
from causalrec.report.palette import BLUE, GREEN, INK, LINE, MUTED, PAPER, VERMILLION
from causalrec.report.words import Question

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = Question("Showing", "clicks", 1000.0, "per 1,000 impressions shown")
S_BOUNDS = (0.9, 1.1)
"""Between which BanditNet's S is taken for 1."""


def of_risk(risk_of: str, thousand: bool = True) -> Question:
    """How a held-out risk of this kind is written, each or by the thousand: nats per impression or pair; of a policy, clicks."""
    each = "pair" if risk_of == "pairs" else "impression"
    return Question("", "clicks" if risk_of == "policy" else "nats", 1000.0 if thousand else 1.0, f"per 1,000 {each}s" if thousand else f"per {each}")


class Line(NamedTuple):
    """One line of the figure of epochs: a key of the history, what it is, and how it looks."""

    key: str
    words: str
    colour: str
    style: str
    marker: str


OF_CLICKS = (
    Line("risk_dr", "held out, doubly robust", BLUE, "-", "D"),
    Line("risk_snips", "held out, SNIPS", GREEN, "-.", "s"),
    Line("risk_ips", "held out, IPS", MUTED, "-.", "^"),
    Line("risk_naive", "held out, naive", VERMILLION, "--", "o"),
)
TRAINING = Line("loss", "training loss", INK, ":", "x")


def question_of_ranker(ranker: Ranker) -> Question:
    """What a ranker's choices are counted in; a ranker that was loaded no longer knows its columns and counts clicks."""
    outcome = SHOWN.outcome if ranker.train is None else words.question("recommended", ranker.train.roles.outcome[0]).outcome
    return Question(SHOWN.doing, outcome, SHOWN.factor, SHOWN.per + (" and looked at" if ranker.evaluation.if_examined else ""))


def plot_ranker_value(result: Evaluation, ax: Axes | None = None, *, question: Question = SHOWN) -> Axes:
    """What today's choice and the ranker's bring per impression shown, and their difference, with 95 % intervals."""
    drawn = (
        ("value_today", "today’s choice", VERMILLION, "o", False),
        ("value", "the ranker’s choice", BLUE, "o", False),
        ("gain", "difference", BLUE, "D", True),
        ("caused", "caused by the ranker’s choice", GREEN, "s", False),
    )
    rows = [
        Interval(name, e.value, e.ci_lower, e.ci_upper, colour, marker, filled=filled)
        for key, name, colour, marker, filled in drawn
        if (e := result.values.get(key)) is not None
    ]
    return forest(ax, rows, question)


def plot_risks(result: Evaluation, ax: Axes | None = None) -> Axes:
    """Held-out risk of the ranker (filled) and of a constant that knows the mean (hollow), by four estimators, with 95 % intervals."""
    ax = new_axes(ax, 0.95 + 0.5 * len(result.risks))
    places = range(len(result.risks))[::-1]
    decimals = max(words.decimals(e.ci_lower, e.ci_upper) for e in result.risks.values())
    for found, label, up, colour, marker, filled in (
        (result.risks_before, "a constant", 0.13, MUTED, "o", False),
        (result.risks, "the ranker", -0.13, BLUE, "D", True),
    ):
        for y, e in zip(places, found.values(), strict=True):
            ax.plot([e.ci_lower, e.ci_upper], [y + up, y + up], color=colour, lw=2.4, solid_capstyle="butt", zorder=2)
        fill = colour if filled else PAPER
        ax.plot(
            [e.value for e in found.values()], [y + up for y in places], marker, ls="none", ms=8, mew=1.8, mec=colour, mfc=fill,
            label=label, zorder=3,
        )  # fmt: skip
    for y, e in zip(places, result.risks.values(), strict=True):
        number, low, high = (words.number(v, decimals) for v in (e.value, e.ci_lower, e.ci_upper))
        ax.text(1.02, y, f"{number} ({low} to {high})", transform=ax.get_yaxis_transform(), va="center", color=INK, fontsize=TEXT)
    ax.set_ylim(-0.6, len(result.risks) - 0.4)
    ax.set_yticks(list(places), list(result.risks))
    ax.tick_params(axis="y", length=0)
    ax.margins(x=0.08)
    legend(ax)
    what = "risk, nats per impression" if result.risk_of == "clicks" else result.risk_name("DR")
    return finish(ax, f"held-out {what} (less is better)", "")


def plot_objectives(result: ObjectiveChoice, ax: Axes | None = None) -> Axes:
    """Held-out risk of each objective less that of the naive one, with 95 % intervals; filled: the one that was kept."""
    rows = [
        Interval(name, e.value, e.ci_lower, e.ci_upper, BLUE, "D", filled=name == result.chosen)
        for name, e in result.differences.items()
    ]
    q = of_risk(result.risk_of)
    ax = forest(ax, rows, q, f"held-out risk less that of the naive loss, {q.label} (less is better)")
    note(ax, "naive, kept" if result.chosen == "naive" else "naive", (0, len(rows) - 0.3), (0, 7), INK, "center")
    return ax


def lines_of(ranker: Ranker) -> list[Line]:
    """What of a ranker's history can stand on one axis, nats per impression."""
    if not judges_clicks(ranker.objective.aims_at, ranker.training.loss == "pairwise"):
        return [Line("risk", "held out, doubly robust, of what the score is for", BLUE, "-", "D")]
    lines = list(OF_CLICKS)
    if any(r["risk"] != r["risk_dr"] for r in ranker.history):
        lines.insert(0, Line("risk", "randomly drawn impressions", INK, "-", "o"))
    alike = not ranker.objective.imputes and ranker.objective.name != "POEM"
    return [*lines, TRAINING] if alike else lines


def plot_epochs(ranker: Ranker, ax: Axes | None = None) -> Axes:
    """Held-out risks and, where it is in their unit, the training loss, by epoch; a ring marks the epoch that was kept."""
    _need_history(ranker)
    ax, lines = new_axes(ax, 3.6), lines_of(ranker)
    for key, label, colour, style, marker in lines:
        there = [(r["epoch"], r[key]) for r in ranker.history if key in r]
        if there:
            ax.plot(*zip(*there, strict=True), ls=style, marker=marker, ms=5.5, color=colour, lw=2, label=label, zorder=2)
    kept = kept_epoch(ranker)
    at = kept["risk_dr"] if any(line.key == "risk_dr" for line in lines) else kept["risk"]
    ax.plot([kept["epoch"]], [at], "o", ms=15, mfc="none", mec=INK, mew=1.4, ls="none", label="kept", zorder=3)
    ax.margins(x=0.06, y=0.12)
    legend(ax)
    _whole_epochs(ax, ranker)
    return finish(ax, "epoch", of_risk(ranker.evaluation.risk_of, thousand=False).label, grid="y")


def plot_examination(curve: Examination, ax: Axes | None = None) -> Axes:
    """P(examined | position) relative to the first position, with 95 % intervals where it was estimated, and the click rate, which the old order is part of."""
    ax = new_axes(ax, 3.2)
    if np.isfinite(curve.naive).any():
        ax.plot(curve.positions, curve.naive, "--o", ms=5, color=VERMILLION, mfc=PAPER, lw=1.6, label="click rate, relative to the first position", zorder=2)
    if curve.method != "given":
        ax.vlines(curve.positions, curve.ci_lower, curve.ci_upper, color=BLUE, lw=2.4, zorder=2)
    ax.plot(curve.positions, curve.theta, "-D", ms=5.5, color=BLUE, lw=2, label="P(examined), relative to the first position", zorder=3)
    ax.set_ylim(0, None)
    ax.margins(x=0.04)
    legend(ax)
    _whole(ax)
    return finish(ax, "position", "", grid="y")


def plot_policy_share(ranker: Ranker, ax: Axes | None = None) -> Axes:
    """BanditNet's S on held-out users by epoch: 1 in expectation at true propensities, whatever the scores."""
    _need_history(ranker)
    ax = new_axes(ax, 2.6)
    ax.axhspan(*S_BOUNDS, color=LINE, alpha=0.5, lw=0, zorder=0)
    ax.axhline(1, color=INK, lw=0.8, zorder=1)
    ax.plot([r["epoch"] for r in ranker.history], [r["policy_share"] for r in ranker.history], color=BLUE, marker="D", ms=6, lw=2)
    ax.margins(x=0.06, y=0.2)
    _whole_epochs(ax, ranker)
    return finish(ax, f"epoch (shaded: {S_BOUNDS[0]} to {S_BOUNDS[1]})", "S", grid="y")


def kept_epoch(ranker: Ranker) -> dict[str, float]:
    """The record of the epoch whose weights were kept."""
    return ranker.history[ranker.trained.kept]


def _need_history(ranker: Ranker) -> None:
    if not ranker.history:
        raise ArgumentError("the ranker has no history, so that there is nothing to plot: it was never evaluated while it trained.")


def _whole_epochs(ax: Axes, ranker: Ranker) -> None:
    if all(float(r["epoch"]).is_integer() for r in ranker.history):
        _whole(ax)


def _whole(ax: Axes) -> None:
    """Ticks of the x axis at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
