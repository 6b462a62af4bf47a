"""Figures of targeting, explanation and cold start: each function takes a result and returns the Axes that it drew on.

Without `ax` a figure of its own is made, outside pyplot; ``ax.figure.savefig("targeting.png")`` writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from causalrec._checks import check_choice
from causalrec.errors import ArgumentError
from causalrec.uplift.cold_start import ColdStart
from causalrec.uplift.explain import Explanation
from causalrec.uplift.targeting import Targeting

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, INK, MUTED, LINE = "#0072b2", "#1f2328", "#59636e", "#d1d9e0"
TABLES = {"modifiers": "loss", "tree": "effect", "topics": "effect"}
MOST_ROWS = 30
LONGEST = 48


def plot_targeting(result: Targeting, ax: Axes | None = None) -> Axes:
    """What each policy gains over recommending to no one, with its interval; net value where prices were given."""
    what = "net" if "net" in result.table else "clicks"
    shown = result.table.loc[result.table["policy"] != "none"]
    labels = [
        f"{p} ({100 * s:.0f} % served)" for p, s in zip(shown["policy"], shown["share_served"], strict=True)
    ]
    unit = "net value" if what == "net" else "clicks"
    return _forest(
        labels, shown, (what, f"{what}_lower", f"{what}_upper"), f"{unit} gained per impression", ax
    )


def plot_explanation(result: Explanation, table: str = "topics", ax: Axes | None = None) -> Axes:
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
    ends = (name, "loss_lower", "loss_upper") if name == "loss" else (name, "ci_lower", "ci_upper")
    said = "rise of the doubly robust loss if shuffled" if name == "loss" else "effect, clicks per impression"
    return _forest([str(v) for v in frame.iloc[:, 0]], frame, ends, said, ax)


def plot_cold_start(result: ColdStart, ax: Axes | None = None) -> Axes:
    """Predicted effects of the test log's items with their intervals, against the distance to the nearest text seen."""
    items = result.items
    ax = _axes(ax, 3.2)
    half = items["effect"] - items["ci_lower"]
    ax.errorbar(items["distance"], items["effect"], yerr=half, fmt="none", ecolor=LINE, lw=1, zorder=1)
    for seen, colour, label in ((True, BLUE, "shown in training"), (False, INK, "new")):
        here = items["seen_in_training"] == seen
        if here.any():
            ax.plot(items["distance"][here], items["effect"][here], "o", ms=4, color=colour, label=label)
    ax.axhline(result.process.mean, color=MUTED, lw=1, ls="--")
    ax.legend(frameon=False)
    return _finish(ax, "distance to the nearest text seen", "effect, clicks per impression")


def _forest(
    labels: Sequence[str], frame: pd.DataFrame, columns: tuple[str, str, str], xlabel: str, ax: Axes | None
) -> Axes:
    """Points with intervals, one a row, first on top."""
    value, lower, upper = (frame[c].astype(float).to_numpy()[:MOST_ROWS] for c in columns)
    ax = _axes(ax, 1.0 + 0.34 * len(value))
    places = list(range(len(value)))[::-1]
    ax.hlines(places, lower, upper, color=BLUE, lw=2)
    ax.plot(value, places, "o", color=BLUE, ms=7)
    ax.axvline(0, color=MUTED, lw=1, ls="--")
    short = [t if len(t) <= LONGEST else t[: LONGEST - 1] + "…" for t in labels[:MOST_ROWS]]
    ax.set_yticks(places, [t.replace("$", r"\$") for t in short])
    ax.set_ylim(-0.6, len(value) - 0.4)
    return _finish(ax, xlabel, "")


def _axes(ax: Axes | None, height: float) -> Axes:
    from matplotlib.figure import Figure

    return Figure(figsize=(7.2, height), layout="constrained").subplots() if ax is None else ax


def _finish(ax: Axes, xlabel: str, ylabel: str) -> Axes:
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.set_xlabel(xlabel, color=MUTED)
    ax.set_ylabel(ylabel, color=MUTED)
    ax.tick_params(labelcolor=INK, color=LINE)
    return ax
