"""Verdicts: from repetitions to passed or not, and a sentence that says why."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

NEGLIGIBLE = 0.25
"""A shift below this share of the standard error costs less than 1 point of coverage (Φ(1.96−.25)−Φ(−1.96−.25) = .943)."""
DONE = {
    "placebo_treatment": "With the treatment shuffled, so that it does nothing,",
    "dummy_outcome": "With exposure and clicks drawn from the words and covariates, so that the treatment does nothing,",
    "planted_effect": "With an effect of {truth:+.4f} planted,",
}


def verdict_known(name: str, runs: Any, se: float) -> tuple[bool, float, float, str]:
    """Verdict where the right effect is known: unbiased, and its 95 % interval misses as rarely as it says.

    Returns (passed, mean error in standard errors, p-value of no bias, message).
    """
    error = runs.effect - runs.truth
    shift = float(error.mean() / se)
    mc = float(error.std(ddof=1) / np.sqrt(runs.reps)) if runs.reps > 1 else np.inf
    p = float(2 * stats.norm.sf(abs(error.mean()) / mc)) if mc > 0 else float("nan")
    missed = int((np.abs(error) > 1.96 * runs.std_error).sum())
    too_often = missed > stats.binom.ppf(0.999, runs.reps, 0.05)
    biased = abs(shift) > NEGLIGIBLE and p < 0.01
    start = DONE[name].format(truth=float(runs.truth.mean()))
    found = f"{start} the first-order estimator finds {runs.effect.mean():+.4f} on average over {runs.reps} runs"
    intervals = f"its 95 % interval misses the right answer in {100 * missed / runs.reps:.0f} % of them"
    if biased:
        return (
            False,
            shift,
            p,
            f"{found}, {abs(shift):.1f} standard errors off: it is biased on this log; {intervals}.",
        )
    if too_often:
        return (
            False,
            shift,
            p,
            f"{found}, as it should, but {intervals} (5 % expected): the interval is too narrow.",
        )
    return True, shift, p, f"{found}, as it should; {intervals} (5 % expected)."


def verdict_stable(name: str, runs: Any, base: float, se: float) -> tuple[bool, float, float, str]:
    """Verdict where the effect should stay: it moves by less than a quarter of its standard error on average."""
    moves = (runs.effect - base) / se
    shift, spread = float(moves.mean()), float(moves.std(ddof=1)) if runs.reps > 1 else float("nan")
    below = float((runs.effect <= base).mean())
    p = min(1.0, 2 * min(below, 1 - below) + 1 / runs.reps)
    if name == "random_common_cause":
        ok = abs(shift) <= NEGLIGIBLE and spread <= NEGLIGIBLE
        what = "Adjusting for a column of pure noise as well"
        bad = "the estimator reacts to noise: it is overfitted or on the edge of separation."
    else:
        ok = abs(shift) <= NEGLIGIBLE and spread <= 0.8
        what = "Leaving a random fifth of the users out"
        bad = (
            "a few users carry the effect, or its standard error is too small (0.5 standard errors expected)."
        )
    said = f"{what} moves the effect by {shift:+.2f} standard errors on average (typically ±{spread:.2f})"
    return ok, shift, p, f"{said}, as it should." if ok else f"{said}: {bad}"
