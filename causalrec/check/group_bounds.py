"""The result of ``group_sensitivity``: how far hidden causes of a given strength could move an effect, by group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from causalrec._display import Displayable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_GAMMA = 20.0
"""Γ up to which a breakdown is looked for."""


@dataclass(frozen=True)
class GroupBounds:
    """One group (or everyone): the effect, and how far hidden causes could move it.

    Attributes
    ----------
    by, group : str
        The modifier and its value; ``"everyone"`` in both for the whole log.
    n, n_units : int
    effect, ci_lower, ci_upper : float or None
        As in the fit (or ``fit.by``); None, as everything below, where the group is too small for an effect.
    robustness_value, robustness_value_ci : float or None
        As in ``Sensitivity``, with residuals and weights of the group: share of the residual variance of outcome and of
        treatment that a hidden cause must explain to bring the effect (the nearer end of its interval) to 0.
    gamma : tuple of float
    lower, upper : tuple of float
        Ends of the identified set at each Γ, clicks per impression.
    lower_ci, upper_ci : tuple of float
        Lower end of the 95 % interval of ``lower``, upper end of that of ``upper``: nominally 97.5 % for each end of the set.
        Where hidden causes did their worst (Γ = 1.5, 4,000 rows, 271 logs) they held 97 % for everyone, 95–97 % in a half.
    breakdown, breakdown_point : float or None
        Least Γ at which [``lower_ci``, ``upper_ci``], or [``lower``, ``upper``], includes 0; 1 where it does without any
        hidden cause, ``inf`` where it does not up to Γ = 20.
    benchmarks : tuple of (str, float)
        For each thing that was adjusted for: the factor by which leaving it out of the propensity changes the odds of exposure,
        exceeded in one row of ten of the group.
    """

    by: str
    group: str
    n: int
    n_units: int
    effect: float | None = None
    ci_lower: float | None = None
    ci_upper: float | None = None
    robustness_value: float | None = None
    robustness_value_ci: float | None = None
    gamma: tuple[float, ...] = ()
    lower: tuple[float, ...] = ()
    upper: tuple[float, ...] = ()
    lower_ci: tuple[float, ...] = ()
    upper_ci: tuple[float, ...] = ()
    breakdown: float | None = None
    breakdown_point: float | None = None
    benchmarks: tuple[tuple[str, float], ...] = ()

    @property
    def name(self) -> str:
        """``"everyone"``, or the modifier and its value."""
        return self.group if self.by == self.group else f"{self.by} = {self.group}"

    def sentence(self) -> str:
        """The verdict in plain words."""
        if self.breakdown is None:
            return f"{self.name}: too few rows for an effect."
        if self.breakdown == 1:
            return f"{self.name}: the interval includes 0 without any hidden cause."
        if np.isinf(self.breakdown):
            said = f"{self.name}: hidden causes that change the odds of being recommended by a factor of {MOST_GAMMA:g} would still leave an effect"
        else:
            said = f"{self.name}: hidden causes would have to change the odds of being recommended by a factor of {self.breakdown:.2f} for the interval to include 0"
        if not self.benchmarks:
            return f"{said}."
        what, factor = max(self.benchmarks, key=lambda b: b[1])
        return f"{said}; leaving out {what}, the strongest of what was adjusted for, changes them by {factor:.2f} or more in one row of ten."


@dataclass(frozen=True)
class GroupSensitivity(Displayable):
    """Sensitivity of an effect and of group effects to causes that were not measured.

    Attributes
    ----------
    estimand : str
    groups : tuple of GroupBounds
        Everyone first, then the groups of each modifier.
    remarks : tuple of str
        What limits the bounds of this fit.
    """

    estimand: str
    groups: tuple[GroupBounds, ...] = field(repr=False)
    remarks: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> GroupBounds:
        for one in self.groups:
            if name in (one.name, one.group):
                return one
        raise KeyError(f"{name!r}; the groups are {[g.name for g in self.groups]}")

    def bounds(self) -> pd.DataFrame:
        """One row a group and Γ: by, group, gamma, lower, upper, lower_ci, upper_ci."""
        return pd.DataFrame(
            [
                {"by": g.by, "group": g.group, "gamma": v[0], "lower": v[1], "upper": v[2], "lower_ci": v[3], "upper_ci": v[4]}
                for g in self.groups
                for v in zip(g.gamma, g.lower, g.upper, g.lower_ci, g.upper_ci, strict=True)
            ]
        )  # fmt: skip

    def plot(self, ax: Axes | None = None) -> Axes:
        """Bounds (thick) and their intervals (thin) at each Γ, groups side by side; the Axes that was drawn on."""
        from matplotlib.figure import Figure

        if ax is None:
            ax = Figure(figsize=(7.0, 3.6), layout="constrained").subplots()
        shown = [g for g in self.groups if g.gamma]
        for k, g in enumerate(shown):
            place = np.arange(len(g.gamma)) + 0.7 * ((k + 0.5) / len(shown) - 0.5)
            line = ax.vlines(place, g.lower, g.upper, lw=5, color=f"C{k % 10}", label=g.name)
            ax.vlines(place, g.lower_ci, g.upper_ci, lw=1.2, color=line.get_color())
            ax.plot(place, g.lower, "_", place, g.upper, "_", color=f"C{k % 10}", ms=6)
        ax.axhline(0, color="black", lw=0.8)
        ax.set_xticks(range(len(shown[0].gamma)), [f"{v:g}" for v in shown[0].gamma])
        ax.set(xlabel="Γ: factor by which hidden causes change the odds of exposure", ylabel=self.estimand)
        ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return ax

    def _title(self) -> str:
        return f"Sensitivity of the {self.estimand} to hidden causes, marginal sensitivity model, 95 % intervals clustered as the effect is"

    def _rows(self) -> list[dict[str, Any]]:
        keys = ("by", "group", "n", "n_units", "effect", "ci_lower", "ci_upper", "robustness_value", "robustness_value_ci", "breakdown", "breakdown_point")  # fmt: skip
        rows = []
        for g in self.groups:
            what, factor = max(g.benchmarks, key=lambda b: b[1], default=(None, None))
            rows.append(
                {k: getattr(g, k) for k in keys} | {"strongest_cause": what, "its_odds_factor": factor}
            )
        return rows

    def _notes(self) -> list[str]:
        return [*(g.sentence() for g in self.groups), *self.remarks]
