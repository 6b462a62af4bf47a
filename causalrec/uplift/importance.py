"""Which modifiers carry the differences between effects: SHAP values, and the loss when one is shuffled."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec import scores
from causalrec.estimate import Fit
from causalrec.joint import holm
from causalrec.log import ImpressionLog
from causalrec.uplift.bench import Bench

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
PERMUTATIONS = 5
EXPLAINED = 500
"""Held-out rows whose effects SHAP takes apart."""


def modifiers_that_count(
    fit: Fit, test: ImpressionLog, judged: Bench, rng: np.random.Generator, skipped: list[str]
) -> pd.DataFrame:
    """One row a modifier, the one that matters most first: how far it moves the model's effects, and whether that helps.

    Columns: modifier; shap with interval, mean absolute SHAP value over held-out rows; loss with interval, rise of the doubly
    robust loss when the modifier is shuffled (clicks² per impression); p_value of no rise, adjusted by Holm. What cannot be
    said is added to `skipped`.
    """
    x = fit.modifiers.matrix(test)
    columns = ["modifier", "shap", "shap_lower", "shap_upper", "loss", "loss_lower", "loss_upper", "p_value"]
    if x is None:
        skipped.append("Modifiers: the log declares none that varies; declare modifiers= in read_log.")
        return pd.DataFrame(columns=columns)
    places: dict[str, list[int]] = {}
    owner = [
        name
        for name, levels in fit.modifiers.columns
        for _ in range(1 if levels is None else len(levels) - 1)
    ]
    if fit.modifiers.words is not None:
        owner += [f"words of {fit.modifiers.words.column}"] * sum(fit.modifiers.words.widths)
    for j, name in enumerate(owner):
        places.setdefault(name, []).append(j)
    shap = _shap(fit, x, test.units, places, rng)
    if shap is None:
        skipped.append(
            f"SHAP: {type(fit.model).__name__} has no SHAP values; the loss if shuffled stands alone."
        )
    losses = {name: _shuffled(fit, x, cols, judged, rng) for name, cols in places.items()}
    adjusted = holm(np.array([e.p_value for e in losses.values()]))
    rows = []
    for (name, e), p in zip(losses.items(), adjusted, strict=True):
        s = None if shap is None else shap[name]
        ends = (None, None, None) if s is None else (s.value, max(s.ci_lower, 0.0), s.ci_upper)
        rows.append((name, *ends, e.value, e.ci_lower, e.ci_upper, float(p)))
    return pd.DataFrame(rows, columns=columns).sort_values("loss", ascending=False, ignore_index=True)


def _shuffled(fit: Fit, x: F64, cols: list[int], judged: Bench, rng: np.random.Generator) -> scores.Estimate:
    """Rise of E[(ψ − τ̂(x))²] when one modifier's values are shuffled over the rows, averaged over a few shuffles."""
    own = np.ravel(fit.model.effect(x))
    rise = np.zeros(len(x))
    for _ in range(PERMUTATIONS):
        other = x.copy()
        other[:, cols] = x[rng.permutation(len(x))][:, cols]
        moved = np.ravel(fit.model.effect(other))
        rise += (moved - own) * (moved + own - 2 * judged.psi) / PERMUTATIONS
    return judged.mean(rise)


def _shap(
    fit: Fit, x: F64, units: Ints, places: dict[str, list[int]], rng: np.random.Generator
) -> dict[str, scores.Estimate] | None:
    """Mean absolute SHAP value of each modifier (the sum over its columns), clustered by unit; None if the model has none."""
    if not hasattr(fit.model, "shap_values"):
        return None
    rows = rng.permutation(len(x))[:EXPLAINED]
    found = fit.model.shap_values(x[rows], background_samples=100)
    values = next(iter(next(iter(found.values())).values())).values
    values = np.reshape(values, (len(rows), -1))
    codes = np.unique(units[rows], return_inverse=True)[1]
    one = np.ones(len(rows))
    return {
        name: scores.clustered_ratio((np.abs(values[:, cols].sum(axis=1)), one), codes)
        for name, cols in places.items()
    }
