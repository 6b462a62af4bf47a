"""Do propensities mean what they say? Expected calibration error, a reliability table, and Platt scaling by users left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from causalrec._checks import as_generator, check_scalar
from causalrec._display import Displayable
from causalrec.errors import ArgumentError, EstimationError
from causalrec.nuisance.crossfit import platt_scale

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
EDGE = 1e-6
"""Propensities are held this far from 0 and 1 before their log-odds are taken."""
BOOTSTRAP = 200


def equal_mass_bins(p: F64, bins: int) -> Ints:
    """(n,) bin 0 … bins − 1 of each row by the rank of p; ties share a bin, so that fewer may be filled."""
    ranks = np.searchsorted(np.sort(p), p, side="left")
    return np.minimum(ranks * bins // len(p), bins - 1).astype(np.int64)


def expected_calibration_error(p: F64, t: F64, bins: int = 10, weights: F64 | None = None) -> float:
    """ECE = Σ_b n_b/n · |mean_b(t) − mean_b(p)| over bins of equal mass, in probability. Naeini, Cooper & Hauskrecht (2015).

    Never below 0, and so above it by chance for calibrated propensities; see ``debiased_calibration_error``.
    """
    w = np.ones(len(p)) if weights is None else weights
    gap = np.bincount(equal_mass_bins(p, bins), w * (t - p), bins)
    return float(np.abs(gap).sum() / w.sum())


def debiased_calibration_error(p: F64, t: F64, bins: int = 10) -> float:
    """Root mean squared calibration error with the binomial noise of the bins taken out, floored at 0, in probability.

    √max(Σ_b n_b/n · [(t̄_b − p̄_b)² − t̄_b (1 − t̄_b)/(n_b − 1)], 0).  Kumar, Liang & Ma (2019), definition 5.2.
    """
    code = equal_mass_bins(p, bins)
    n = np.bincount(code, minlength=bins).astype(np.float64)
    used = n > 1
    rate, said = (np.bincount(code, v, bins)[used] / n[used] for v in (t, p))
    squares = (rate - said) ** 2 - rate * (1 - rate) / (n[used] - 1)
    return float(np.sqrt(max(float(n[used] @ squares) / n.sum(), 0.0)))


@dataclass(frozen=True, eq=False)
class CalibrationOfPropensity(Displayable):
    """Propensities before and after Platt scaling.

    Attributes
    ----------
    before, after : (n,) the propensities handed in, and those scaled by a curve fitted on other users
    ece_before, ece_after : expected calibration error, bins of equal mass
    ece_before_ci, ece_after_ci : bootstrap by user; a basic interval, which reflects the bias that ECE has by chance
    rms_before, rms_after : debiased root mean squared calibration error
    log_loss_before, log_loss_after : in nats a row
    intercept, slope : of each fold's curve expit(intercept + slope · logit p), (K,)
    table : per bin and stage: mean propensity, share treated, its standard error clustered by user, rows
    n, n_units : rows and users
    """

    before: F64 = field(repr=False)
    after: F64 = field(repr=False)
    ece_before: float
    ece_after: float
    ece_before_ci: tuple[float, float]
    ece_after_ci: tuple[float, float]
    rms_before: float
    rms_after: float
    log_loss_before: float
    log_loss_after: float
    intercept: F64
    slope: F64
    table: tuple[dict[str, Any], ...] = field(repr=False)
    n: int
    n_units: int

    def _title(self) -> str:
        return f"Calibration of propensities: {self.n:,} rows, {self.n_units:,} users, Platt scaling on users left out"

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {
                "propensity": name, "ece": ece, "ci_lower": ci[0], "ci_upper": ci[1], "rms_debiased": rms, "log_loss": loss,
                "smallest": float(p.min()), "largest": float(p.max()),
            }
            for name, p, ece, ci, rms, loss in (
                ("as handed in", self.before, self.ece_before, self.ece_before_ci, self.rms_before, self.log_loss_before),
                ("Platt-scaled", self.after, self.ece_after, self.ece_after_ci, self.rms_after, self.log_loss_after),
            )
        ]  # fmt: skip

    def _notes(self) -> list[str]:
        notes = [f"slope of the log-odds {self.slope.mean():.2f} (1 is calibrated; below, the propensities are too extreme), intercept {self.intercept.mean():.2f}"]
        if self.log_loss_after > self.log_loss_before:
            notes.append("scaling raised the log-loss of users left out: keep the propensities as they are")
        return notes


def platt_cross_fitted(
    p: npt.ArrayLike,
    t: npt.ArrayLike,
    units: npt.ArrayLike,
    *,
    folds: int = 5,
    bins: int = 10,
    weights: npt.ArrayLike | None = None,
    alpha: float = 0.05,
    random_state: int | np.random.Generator | None = None,
) -> CalibrationOfPropensity:
    """Platt-scale propensities that come from elsewhere, each user by a curve that has not seen him.

    after_i = expit(a_f + b_f logit p_i), (a_f, b_f) fitted on the users outside fold f. Platt (1999).

    Parameters
    ----------
    p : (n,) in [0, 1]
        P(treated), made without these rows' treatments; what was fitted on them looks calibrated here whether it is or not.
    t : (n,) 0/1
    units : (n,)
        Labels of the users.
    folds, bins : int
    weights : (n,), optional
    alpha : float
    random_state : int, Generator or None
        Deals users to folds and draws the bootstrap.

    Raises
    ------
    ArgumentError
        Shapes differ, a propensity is missing or outside [0, 1], or t is not 0/1.
    EstimationError
        Fewer users than folds, or one arm only.
    """
    folds = check_scalar(folds, "folds", ge=2, integer=True)
    bins = check_scalar(bins, "bins", ge=2, integer=True)
    alpha = check_scalar(alpha, "alpha", gt=0, lt=1)
    rng = as_generator(random_state)
    before, arm, w = _checked(p, t, weights)
    labels = np.asarray(units)
    if labels.shape != before.shape:
        raise ArgumentError(f"units has shape {labels.shape}, must be {before.shape} as p.")
    codes = np.unique(labels, return_inverse=True)[1]
    n_units = int(codes.max()) + 1
    if n_units < folds:
        raise EstimationError(f"there are {n_units} users, must be >= {folds} for {folds} folds; pass folds={max(n_units, 2)} or more users.")
    fold = (rng.permutation(n_units) % folds)[codes]
    after, intercept, slope = _scaled(before, arm, w, fold, folds)
    ci = [_basic_interval(v, arm, w, codes, bins, alpha, rng) for v in (before, after)]
    ece = [expected_calibration_error(v, arm, bins, w) for v in (before, after)]
    rms = [debiased_calibration_error(v, arm, bins) for v in (before, after)]
    loss = [_log_loss(v, arm, w) for v in (before, after)]
    stages = (("as handed in", before), ("Platt-scaled", after))
    table = tuple(row for name, v in stages for row in _reliability(name, v, arm, codes, bins))
    return CalibrationOfPropensity(
        before, after, ece[0], ece[1], ci[0], ci[1], rms[0], rms[1], loss[0], loss[1], intercept, slope, table, len(before), n_units,
    )  # fmt: skip


def _checked(p: npt.ArrayLike, t: npt.ArrayLike, weights: npt.ArrayLike | None) -> tuple[F64, F64, F64]:
    before, arm = np.asarray(p, dtype=np.float64), np.asarray(t, dtype=np.float64)
    w = np.ones(before.shape) if weights is None else np.asarray(weights, dtype=np.float64)
    if before.ndim != 1 or not len(before) or arm.shape != before.shape or w.shape != before.shape:
        raise ArgumentError(f"p has shape {before.shape}, t {arm.shape}, weights {w.shape}; must be (n,) each, n >= 1.")
    bad = ~((before >= 0) & (before <= 1))
    if bad.any():
        raise ArgumentError(f"p is {before[bad][0]:g} in {int(bad.sum()):,} of {len(before):,} rows, must be in [0, 1]; drop these rows or mend their propensities.")
    if not np.isin(arm, (0.0, 1.0)).all():
        raise ArgumentError(f"t holds {arm[~np.isin(arm, (0.0, 1.0))][0]:g}, must be 0 or 1.")
    if not (np.isfinite(w).all() and (w >= 0).all() and w.sum() > 0):
        raise ArgumentError("weights must be finite, >= 0 and not all 0.")
    if np.ptp(arm) == 0:
        raise EstimationError(f"t is {arm[0]:g} in all {len(arm):,} rows: with one arm there is nothing to calibrate against.")
    return before, arm, w


def _scaled(p: F64, t: F64, w: F64, fold: Ints, folds: int) -> tuple[F64, F64, F64]:
    """Scaled propensities (n,), intercepts (K,) and slopes (K,)."""
    eta = logit(np.clip(p, EDGE, 1 - EDGE))
    after, curves = np.empty_like(p), np.empty((folds, 2))
    for f in range(folds):
        others = fold != f
        if w[others].sum() == 0 or np.ptp(t[others & (w > 0)]) == 0:
            raise EstimationError(f"the users outside fold {f} have one arm only; use fewer folds or more users.")
        curves[f] = platt_scale(eta[others, None], t[others, None], w[others, None])[:, 0]
        after[~others] = expit(curves[f, 0] + curves[f, 1] * eta[~others])
    return after, curves[:, 0], curves[:, 1]


def _log_loss(p: F64, t: F64, w: F64) -> float:
    held = np.clip(p, EDGE, 1 - EDGE)
    return float(-np.average(t * np.log(held) + (1 - t) * np.log1p(-held), weights=w))


def _basic_interval(p: F64, t: F64, w: F64, codes: Ints, bins: int, alpha: float, rng: np.random.Generator) -> tuple[float, float]:
    """Basic bootstrap interval of the ECE, users drawn anew, bins held: 2·ECE − quantiles, within [0, 1]."""
    code, n_units = equal_mass_bins(p, bins), int(codes.max()) + 1
    cell = codes * bins + code
    gap = np.bincount(cell, w * (t - p), n_units * bins).reshape(n_units, bins)
    mass = np.bincount(codes, w, n_units)
    draws = rng.multinomial(n_units, np.full(n_units, 1 / n_units), size=BOOTSTRAP).astype(np.float64)
    ece = np.abs(draws @ gap).sum(axis=1) / np.maximum(draws @ mass, 1e-300)
    own = float(np.abs(gap.sum(axis=0)).sum() / mass.sum())
    low, high = np.quantile(ece, (alpha / 2, 1 - alpha / 2))
    return float(np.clip(2 * own - high, 0, 1)), float(np.clip(2 * own - low, 0, 1))


def _reliability(name: str, p: F64, t: F64, codes: Ints, bins: int) -> list[dict[str, Any]]:
    """Rows of the reliability table, one a filled bin."""
    code, out = equal_mass_bins(p, bins), []
    for b in np.unique(code):
        here = code == b
        rate = float(t[here].mean())
        sums = np.bincount(codes[here], t[here] - rate)
        g = len(np.unique(codes[here]))
        error = float(np.sqrt((sums**2).sum() * g / max(g - 1, 1)) / here.sum())
        out.append({"propensity": name, "bin": int(b), "mean_propensity": float(p[here].mean()), "share_treated": rate, "std_error": error, "rows": int(here.sum())})
    return out
