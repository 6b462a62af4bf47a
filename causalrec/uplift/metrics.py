"""Uplift metrics of an experiment as plain functions, in the argument order ``(y_true, uplift, treatment)``.

The rows come from an experiment whose P(treated) is one number (by default the share of treated rows) or known for each row.
A row's score is ψ = μ₁ − μ₀ + T (Y − μ₁)/p − (1 − T)(Y − μ₀)/(1 − p), μ_t the mean outcome of arm t, so that the mean of ψ is the
difference of the arms' means. Areas are those of ``ranking``, in outcomes per row: they are neither divided by the area of a
perfect ranking nor multiplied by the number of rows, and rows with equal `uplift` are taken in random order.
For a log that is no experiment, and for intervals, use ``cr.uplift(fit, test)``.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from causalrec import scores
from causalrec._checks import check_choice, check_scalar
from causalrec.errors import ArgumentError
from causalrec.uplift import ranking

F64 = npt.NDArray[np.float64]
Array = npt.ArrayLike


def uplift_curve(
    y_true: Array,
    uplift: Array,
    treatment: Array,
    *,
    propensity: Array | float | None = None,
    sample_weight: Array | None = None,
) -> tuple[F64, F64]:
    """(q, G(q)): the share of rows treated, best first, and what it gains per row; at the end of every tie, from (0, 0).

    Parameters
    ----------
    y_true : (n,) outcome
    uplift : (n,) predicted effect; higher is treated first
    treatment : (n,) 0/1
    propensity : float or (n,)
        P(treated) by design, in (0, 1); default the share of treated rows.
    sample_weight : (n,)

    Raises
    ------
    ArgumentError
        Arrays of other lengths, a treatment that is not 0/1 with both present, or a propensity outside (0, 1).
    """
    curve = _gains(y_true, uplift, treatment, propensity, sample_weight)
    return curve.q, curve.gain


def qini_curve(
    y_true: Array,
    uplift: Array,
    treatment: Array,
    *,
    propensity: Array | float | None = None,
    sample_weight: Array | None = None,
) -> tuple[F64, F64]:
    """(q, G(q) − q·ATE): the uplift curve less that of a random ranking; arguments as in ``uplift_curve``."""
    curve = _gains(y_true, uplift, treatment, propensity, sample_weight)
    return curve.q, curve.gain - curve.q * curve.ate


def uplift_auc_score(
    y_true: Array,
    uplift: Array,
    treatment: Array,
    *,
    propensity: Array | float | None = None,
    sample_weight: Array | None = None,
) -> float:
    """AUUC, ∫G(q) dq; ATE/2 for a random ranking. Arguments as in ``uplift_curve``."""
    return _gains(y_true, uplift, treatment, propensity, sample_weight).auuc()


def qini_auc_score(
    y_true: Array,
    uplift: Array,
    treatment: Array,
    *,
    propensity: Array | float | None = None,
    sample_weight: Array | None = None,
) -> float:
    """Qini, ∫(G(q) − q·ATE) dq; 0 for a random ranking. Arguments as in ``uplift_curve``."""
    return _gains(y_true, uplift, treatment, propensity, sample_weight).qini()


def autoc_score(
    y_true: Array,
    uplift: Array,
    treatment: Array,
    *,
    propensity: Array | float | None = None,
    sample_weight: Array | None = None,
) -> float:
    """AUTOC, ∫(G(q)/q − ATE) dq; 0 for a random ranking. Arguments as in ``uplift_curve``."""
    return _gains(y_true, uplift, treatment, propensity, sample_weight).autoc()


def uplift_at_k(
    y_true: Array,
    uplift: Array,
    treatment: Array,
    *,
    k: float = 0.3,
    propensity: Array | float | None = None,
    sample_weight: Array | None = None,
) -> float:
    """Effect among the best-ranked share k: mean outcome of its treated rows less that of the others, both weighted by 1/P(own arm).

    A tie that k divides counts with the share that is within. Arguments as in ``uplift_curve``.

    Raises
    ------
    ArgumentError
        k is outside (0, 1], or an arm has no row among the best-ranked.
    """
    share = check_scalar(k, "k", gt=0, le=1)
    y, t, score, e, w = _arrays(y_true, uplift, treatment, propensity, sample_weight)
    tie = ranking.ties(score)
    mass = np.bincount(tie, w) / w.sum()
    inside = np.clip((share - (np.cumsum(mass) - mass)) / np.maximum(mass, 1e-300), 0, 1)[tie] * w
    means = []
    for arm, weight in (("treated", inside * t / e), ("control", inside * (1 - t) / (1 - e))):
        if weight.sum() <= 0:
            raise ArgumentError(
                f"k is {k!r}: no {arm} row is among the best-ranked {100 * share:g} %; take a larger k."
            )
        means.append(float(np.average(y, weights=weight)))
    return means[0] - means[1]


def rate_on_percentiles(
    psi: Array,
    uplift: Array,
    *,
    metric: Literal["toc", "qini"] = "toc",
    percentiles: Array | None = None,
    reference: Array | None = None,
) -> float:
    """AUTOC or Qini as ``econml.validate.DRTester`` defines them: a sum over a grid of thresholds, of given doubly robust scores.

    With thresholds c_j at percentiles P_j of the reference predictions and S_j the rows with τ̂ ≥ c_j,

        Σ_j (mean of ψ in S_j − mean of ψ) (P_{j+1} − P_j)/100,   for "qini" each term times |S_j|/n.

    ``autoc_score`` integrates over the whole of (0, 1), exactly; this one leaves out the tails of the grid.

    Parameters
    ----------
    psi : (n,) doubly robust scores
    uplift : (n,) predicted effects of the same rows
    percentiles : increasing, in [0, 100]; default ``np.linspace(5, 95, 50)``
    reference : predictions whose percentiles are the thresholds, there those of the training rows; default `uplift`

    Raises
    ------
    ArgumentError
        No row reaches a threshold.
    """
    check_choice(metric, "metric", ("toc", "qini"))
    score, value = _vector(uplift, "uplift"), _vector(psi, "psi")
    if len(score) != len(value):
        raise ArgumentError(f"uplift has {len(score):,} rows, psi {len(value):,}; must be of one length.")
    grid = np.linspace(5, 95, 50) if percentiles is None else _vector(percentiles, "percentiles")
    thresholds = np.percentile(score if reference is None else _vector(reference, "reference"), grid)
    order = np.argsort(-score, kind="stable")
    count = np.searchsorted(-score[order], -thresholds, side="right")
    if (count == 0).any():
        raise ArgumentError(
            f"uplift is below {thresholds[count == 0][0]:g}, a percentile of the reference, in every row; leave out the last percentiles."
        )
    excess = np.cumsum(value[order])[count - 1] / count - value.mean()
    if metric == "qini":
        excess = excess * count / len(score)
    return float((excess[:-1] * np.diff(grid)).sum() / 100)


def _gains(y: Array, uplift: Array, treatment: Array, propensity: Any, sample_weight: Any) -> ranking.Gains:
    outcome, t, score, e, w = _arrays(y, uplift, treatment, propensity, sample_weight)
    means = [np.average(outcome, weights=w * arm) for arm in ((1 - t) / (1 - e), t / e)]
    m0, m1 = (np.full_like(outcome, m) for m in means)
    return ranking.gains(ranking.ties(score), scores.aipw_ate(t, outcome, e, m0, m1)[0], w)


def _arrays(
    y: Array, uplift: Array, treatment: Array, propensity: Any, sample_weight: Any
) -> tuple[F64, ...]:
    """(y, t, score, e, w), (n,) each, checked."""
    outcome = _vector(y, "y_true")
    n = len(outcome)
    w = np.ones(n) if sample_weight is None else _vector(sample_weight, "sample_weight")
    score, t = _vector(uplift, "uplift"), _vector(treatment, "treatment")
    for name, value in (("uplift", score), ("treatment", t), ("sample_weight", w)):
        if len(value) != n:
            raise ArgumentError(f"{name} has {len(value):,} rows, y_true {n:,}; must be of one length.")
    if not np.isin(t, (0.0, 1.0)).all() or np.ptp(t) == 0:
        raise ArgumentError(f"treatment has the values {np.unique(t)[:5]}, must be 0/1 with both present.")
    if (w < 0).any() or min(w[t == 1].sum(), w[t == 0].sum()) <= 0:
        raise ArgumentError(
            "sample_weight is negative, or 0 in all rows of an arm; must be >= 0 with weight in both arms."
        )
    e = np.average(t, weights=w) if propensity is None else propensity
    known = np.full(n, float(e)) if np.ndim(e) == 0 else _vector(e, "propensity")
    if len(known) != n or (known <= 0).any() or (known >= 1).any():
        raise ArgumentError(
            f"propensity must be one number or {n:,} numbers in (0, 1); got {len(known):,} from {known.min():g} to {known.max():g}."
        )
    return outcome, t, score, known, w


def _vector(value: Any, name: str) -> F64:
    """(n,) finite numbers."""
    vector = np.asarray(value, dtype=np.float64)
    if vector.ndim != 1 or len(vector) == 0 or not np.isfinite(vector).all():
        raise ArgumentError(f"{name} has shape {vector.shape}, must be (n,) finite numbers with n >= 1.")
    return vector
