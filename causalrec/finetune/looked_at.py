"""P(examined) at the position of each row of a log, and how unsure it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from causalrec.errors import ArgumentError, EstimationError
from causalrec.finetune.shown import whole_positions
from causalrec.log import ImpressionLog

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
RARE_EXAMINATION = 0.01
OFTEN = 50
"""Impressions of a position from which on its clicks are looked at."""
BEYOND_DOUBT = 1.25
"""Times P(examined) by which clicks must exceed it before the curve is refused: an estimated curve has errors of its own."""


class Curve(Protocol):
    """P(examined | position), as ``position_curve`` estimates it.

    Where it has `positions` and the `covariance` of log θ, these errors enter those of values and risks.
    """

    def theta_at(self, positions: npt.NDArray[Any]) -> F64:
        """(n,) > 0, relative to the first position."""


@dataclass(frozen=True, eq=False)
class CurveError:
    """How unsure the curve is that clicks were divided by.

    Attributes
    ----------
    at : (n,) place on the curve, −1 for rows without a position
    covariance : (K, K) of log θ
    """

    at: Ints
    covariance: F64

    def variance(self, slope: F64) -> float:
        """Variance g'Σg of a number whose derivative by log θ at the place of row i is slope_i; g sums them by place."""
        shown = self.at >= 0
        g = np.bincount(self.at[shown], slope[shown], len(self.covariance))
        reached = g != 0
        return float(g[reached] @ self.covariance[np.ix_(reached, reached)] @ g[reached])

    def take(self, rows: Ints) -> CurveError:
        """Some rows."""
        return CurveError(self.at[rows], self.covariance)


def theta_of(log: ImpressionLog, examination: Curve | None) -> F64 | None:
    """(n,) P(examined) of rows shown, 1 of others; None without a curve."""
    if examination is None:
        return None
    if not log.roles.position:
        raise ArgumentError("examination was given, but the log declares no position; name it in read_log(position=...).")
    theta = np.ones(len(log))
    shown = log.treatment == 1
    position = log.frame[log.roles.position[0]].to_numpy()[shown]
    theta[shown] = np.maximum(examination.theta_at(position), RARE_EXAMINATION)
    _check_curve(position, theta[shown], log.outcome[shown])
    return theta


def curve_error_of(log: ImpressionLog, examination: Curve | None) -> CurveError | None:
    """How unsure the curve is at each row shown; None without a curve, or for one that was given."""
    covariance, positions = getattr(examination, "covariance", None), getattr(examination, "positions", None)
    if covariance is None or positions is None or not np.any(covariance):
        return None
    at, shown = np.full(len(log), -1), log.treatment == 1
    at[shown] = np.searchsorted(positions, whole_positions(log.frame[log.roles.position[0]].to_numpy()[shown], "position"))
    return CurveError(at, covariance)


def _check_curve(position: npt.NDArray[Any], theta: F64, clicks: F64) -> None:
    """Refuse a curve by which a position was looked at less often than it was clicked; of positions shown often enough to tell."""
    if not np.isin(clicks, (0.0, 1.0)).all():
        return
    positions, code = np.unique(position, return_inverse=True)
    n, rate = np.bincount(code), np.bincount(code, clicks) / np.bincount(code)
    told = np.bincount(code, theta) / n
    sure = rate - 4 * np.sqrt(rate * (1 - np.minimum(rate, 1)) / n)
    odd = np.flatnonzero((n >= OFTEN) & (sure > BEYOND_DOUBT * told))
    if len(odd):
        worst = odd[np.argmax(sure[odd] / told[odd])]
        raise EstimationError(
            f"P(examined) is {told[worst]:.3g} at position {positions[worst]:g}, but {100 * rate[worst]:.1f} % of its {n[worst]:,} impressions were clicked: at least so many were "
            f"looked at. The curve is not of this log ({len(odd)} of {len(n)} positions); estimate one with position_curve(log)."
        )
