"""Small figures of arms and doses: each function takes a result and returns the Axes that it drew on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from causalrec.estimate.arms import ArmsFit
from causalrec.estimate.dose import DoseResponse

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, MUTED, SIZE = "#0072b2", "#59636e", (6.4, 3.4)


def plot_arms(fit: ArmsFit, ax: Axes | None = None) -> Axes:
    """Each arm against the control: the estimate, its own 95 % interval (thick) and the joint one (thin)."""
    ax = _axes(ax)
    for place, contrast in enumerate(reversed(fit.contrasts)):
        e = contrast.estimate
        ax.plot([contrast.joint_lower, contrast.joint_upper], [place, place], color=BLUE, lw=1.2)
        ax.plot([e.ci_lower, e.ci_upper], [place, place], color=BLUE, lw=4, alpha=0.5, solid_capstyle="butt")
        ax.plot(e.value, place, "o", color=BLUE, ms=7)
    labels = [str(contrast.arm) for contrast in reversed(fit.contrasts)]
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(-0.6, len(labels) - 0.4)
    ax.axvline(0, color=MUTED, lw=0.9, ls=(0, (4, 3)))
    ax.set_xlabel(f"difference in {fit.log.roles.outcome[0]} against {fit.control} (95 %; thin: joint)")
    return ax


def plot_dose_response(curve: DoseResponse, ax: Axes | None = None) -> Axes:
    """The curve with its pointwise intervals (dark; bars for a dose of few values) and its joint band (light)."""
    ax = _axes(ax)
    if curve.bandwidth is None:
        ax.vlines(curve.grid, curve.band_lower, curve.band_upper, color=BLUE, lw=1.2)
        ax.vlines(curve.grid, curve.ci_lower, curve.ci_upper, color=BLUE, lw=4, alpha=0.5)
    else:
        ax.fill_between(curve.grid, curve.band_lower, curve.band_upper, color=BLUE, alpha=0.12, lw=0)
        ax.fill_between(curve.grid, curve.ci_lower, curve.ci_upper, color=BLUE, alpha=0.22, lw=0)
    ax.plot(curve.grid, curve.effect, color=BLUE, lw=2, marker="o" if curve.bandwidth is None else None)
    ax.set_xlabel(curve.log.roles.treatment[0])
    ax.set_ylabel(f"mean {curve.log.roles.outcome[0]} at this dose")
    return ax


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=SIZE, layout="constrained").subplots()
