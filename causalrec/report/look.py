"""The look that all figures share: quiet axes, readable labels, notes beside the lines that they name."""

from __future__ import annotations

from functools import cache
from io import BytesIO
from textwrap import fill
from typing import TYPE_CHECKING

from causalrec.report.palette import INK, LINE, MUTED
from causalrec.report.words import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEXT = 10.5
WIDTH = 7.2
MOST_ROWS = 30


def new_axes(ax: Axes | None, height: float) -> Axes:
    """The axes that were given, or those of a figure of its own, `height` inches high."""
    return picture()(figsize=(WIDTH, height), layout="constrained").subplots() if ax is None else ax


@cache
def picture() -> type[Figure]:
    """A figure class that notebooks show without pyplot: ``plot_effect(fit).figure`` at the end of a cell."""
    from matplotlib.figure import Figure

    class Picture(Figure):
        """A figure that shows itself as PNG."""

        def _repr_png_(self) -> bytes:
            stream = BytesIO()
            self.savefig(stream, format="png", dpi=110, facecolor="white", bbox_inches="tight")
            return stream.getvalue()

    return Picture


def plain(text: str, longest: int = 60) -> str:
    """A label in which a dollar sign is a dollar sign, not the start of a formula."""
    return shown(text, longest).replace("$", r"\$")


def note(
    ax: Axes,
    text: str,
    at: tuple[float, float],
    by: tuple[float, float],
    colour: str,
    ha: str,
    va: str = "center",
) -> None:
    """Words beside a point, `by` points away from it."""
    ax.annotate(
        text, at, by, textcoords="offset points", ha=ha, va=va, color=colour, fontsize=TEXT, weight="bold"
    )


def legend(ax: Axes, columns: int = 2) -> None:
    """The labels of what is drawn, above the axes."""
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=columns,
        frameon=False,
        fontsize=TEXT,
        borderaxespad=0,
        handletextpad=0.3,
        labelcolor=INK,
    )


def finish(ax: Axes, xlabel: str, ylabel: str, grid: str = "") -> Axes:
    """Two quiet spines, faint grid, readable labels."""
    for side in ("top", "right", *(() if ylabel else ("left",))):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(LINE)
    ax.tick_params(labelsize=TEXT, labelcolor=INK, color=LINE)
    ax.set_xlabel(fill(plain(xlabel, 120), 72), fontsize=TEXT, color=MUTED)
    ax.set_ylabel(fill(plain(ylabel, 120), 30), fontsize=TEXT, color=MUTED)
    if grid:
        ax.grid(axis="y", color=LINE, lw=0.7)
        ax.set_axisbelow(True)
    ax.set_facecolor("none")
    return ax
