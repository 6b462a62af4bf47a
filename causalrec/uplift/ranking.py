"""Targeting curves from doubly robust scores: arrays in, arrays out.

Rows are ranked by a score that has not seen them; ψ_i is the doubly robust score of row i. Treating the
best-ranked share q gains G(q) = E[ψ 1{rank ≤ q}] per impression; rows with equal ranks are in random order, so
that G is linear between the ends of ties. Random targeting gains q·ATE.

    Qini   = ∫₀¹ (G(q) − q·ATE) dq          clicks per impression
    TOC(q) = G(q)/q − ATE,   AUTOC = ∫₀¹ TOC(q) dq

Yadlowsky, Fleming, Shah, Brunskill & Wager (2024), *Evaluating treatment prioritization rules via rank-weighted
average treatment effects*, eqs. 2.2–2.5 (Qini there with weight q, which is the same area).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Gains:
    """The gain curve at the ends of ties: q and G(q), both with 0 in front."""

    q: F64
    gain: F64

    @property
    def ate(self) -> float:
        """G(1)."""
        return float(self.gain[-1])

    def at(self, grid: F64) -> F64:
        """G on a grid of shares."""
        return np.interp(grid, self.q, self.gain)

    def qini(self) -> float:
        """Area between the curve and random targeting."""
        return float(np.sum(0.5 * (self.gain[1:] + self.gain[:-1]) * np.diff(self.q)) - 0.5 * self.ate)

    def autoc(self) -> float:
        """∫ G(q)/q dq − ATE, exact for a piecewise linear G: on a piece G = a + b q it is a·log(q₂/q₁) + b (q₂ − q₁)."""
        dq = np.diff(self.q)
        slope = np.diff(self.gain) / dq
        level = self.gain[1:] - slope * self.q[1:]
        ratio = np.log(self.q[2:] / self.q[1:-1])
        return float((slope * dq).sum() + (level[1:] * ratio).sum() - self.ate)


def ties(score: F64) -> Ints:
    """(n,) rank of each row's tie, 0 = highest score."""
    return (np.unique(-score, return_inverse=True)[1]).astype(np.int64)


def gains(tie: Ints, psi: F64, w: F64) -> Gains:
    """The gain curve under row weights w, (n,)."""
    mass, value = np.bincount(tie, w), np.bincount(tie, w * psi)
    kept = mass > 0
    mass, value = mass[kept], value[kept]
    total = mass.sum()
    q = np.concatenate([[0.0], np.cumsum(mass) / total])
    q[-1] = 1.0
    return Gains(q, np.concatenate([[0.0], np.cumsum(value) / total]))


@dataclass(frozen=True, eq=False)
class Resampled:
    """B bootstrap draws of everything that is reported: (B,) and (B, grid)."""

    qini: F64
    autoc: F64
    gain: F64
    toc: F64


def resample(
    tie: Ints, psi: F64, w: F64, units: Ints, grid: F64, draws: int, rng: np.random.Generator
) -> Resampled:
    """Bayesian bootstrap by unit: every user's rows are weighted by one Exp(1) draw. Rubin (1981).

    The ranks are those of the weighted sample, as the quantiles of the score are estimated too.
    """
    n_units = int(units.max()) + 1
    out = Resampled(
        np.empty(draws), np.empty(draws), np.empty((draws, len(grid))), np.empty((draws, len(grid)))
    )
    for b in range(draws):
        drawn = gains(tie, psi, w * rng.standard_exponential(n_units)[units])
        out.qini[b], out.autoc[b] = drawn.qini(), drawn.autoc()
        out.gain[b] = drawn.at(grid)
        out.toc[b] = out.gain[b] / grid - drawn.ate
    return out


def joint_band(estimate: F64, draws: F64, alpha: float = 0.05) -> tuple[F64, F64]:
    """A band that covers the whole curve with probability 1 − α: estimate ± c·sd, c the quantile of max |draw − mean|/sd."""
    sd = draws.std(axis=0, ddof=1)
    safe = np.where(sd > 1e-12, sd, np.inf)
    c = float(np.quantile(np.max(np.abs(draws - draws.mean(axis=0)) / safe, axis=1), 1 - alpha))
    return estimate - c * sd, estimate + c * sd
