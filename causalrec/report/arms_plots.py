"""Figures of several arms, of doses and of instruments: each takes a result and returns the Axes that it drew on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causalrec.estimate import ArmsFit, DoseResponse, InstrumentFit
from causalrec.report.forest import Interval, forest
from causalrec.report.look import finish, new_axes
from causalrec.report.palette import BLUE, VERMILLION
from causalrec.report.words import PER_IMPRESSION, Question, quoted, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_arms(fit: ArmsFit, ax: Axes | None = None, *, question: Question = PER_IMPRESSION) -> Axes:
    """Each arm against the control: the estimate, its own 95 % interval (thick) and the joint one (thin)."""
    rows = [
        Interval(
            shown(c.arm, 28),
            c.estimate.value,
            c.estimate.ci_lower,
            c.estimate.ci_upper,
            joint=(c.joint_lower, c.joint_upper),
        )
        for c in fit.contrasts
    ]
    return forest(ax, rows, question, f"{question.label}, against {quoted(fit.control)} (thin: joint 95 %)")


def plot_dose_response(
    curve: DoseResponse, ax: Axes | None = None, *, question: Question = PER_IMPRESSION
) -> Axes:
    """The curve with its pointwise intervals (dark; bars for a dose of few values) and its joint band (light)."""
    ax, k = new_axes(ax, 3.4), question.factor
    effect, low, high = k * curve.effect, k * curve.ci_lower, k * curve.ci_upper
    if curve.bandwidth is None:
        ax.vlines(curve.grid, k * curve.band_lower, k * curve.band_upper, color=BLUE, lw=1)
        ax.vlines(curve.grid, low, high, color=BLUE, lw=3.5)
        ax.set_xticks(curve.grid, [f"{d:g}" for d in curve.grid])
    else:
        ax.fill_between(curve.grid, k * curve.band_lower, k * curve.band_upper, color=BLUE, alpha=0.12, lw=0)
        ax.fill_between(curve.grid, low, high, color=BLUE, alpha=0.22, lw=0)
    ax.plot(curve.grid, effect, color=BLUE, lw=2, marker="D" if curve.bandwidth is None else None, ms=7)
    return finish(ax, shown(curve.log.roles.treatment[0]), question.label, grid="y")


def plot_instrument(
    fit: InstrumentFit, ax: Axes | None = None, *, question: Question = PER_IMPRESSION
) -> Axes:
    """The effect in compliers with the interval that holds however weak the instrument is, and the naive comparison."""
    late, naive = fit.late, fit.naive
    rows = [
        Interval(
            "naive comparison", naive.value, naive.ci_lower, naive.ci_upper, VERMILLION, "o", filled=False
        ),
        Interval("effect in compliers", late.value, late.ci_lower, late.ci_upper, joint=fit.anderson_rubin),
    ]
    return forest(ax, rows, question, f"{question.label} (thin: Anderson–Rubin interval)")
