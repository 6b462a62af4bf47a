"""Who gets recommended, who clicks anyway? Cross-fitted propensity and outcome models, computed once.

For the rows of fold k everything (scale, penalty, coefficients, calibration) comes from the other folds. The
penalty is chosen, and the propensity calibrated, on pairs of folds: a regression that left out folds k and j
is scored on j to choose for k, and on k to choose for j.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from causalrec.nuisance.batch import TARGETS, Batch, Data, Target, Task

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
MANY_ROWS = 50_000
"""From here on two held-out folds choose a penalty; below, all of them do."""
PRIOR_SLOPE = 4.0
"""Weight, in nats per squared unit, of the prior that a propensity needs no calibration (slope 1)."""


@dataclass(frozen=True)
class Choice:
    """The candidate that was chosen for each outer fold, and the held-out loss that chose it.

    Attributes
    ----------
    index : tuple of int, (K,)
    loss, loss_constant : float
        Mean held-out loss per row at the choice, and of a constant.
    """

    index: tuple[int, ...]
    loss: float
    loss_constant: float


def fold_pairs(n_folds: int, n: int) -> list[tuple[int, int]]:
    """Pairs of folds that are left out together: all of them, or each fold and the next where rows are many."""
    if n < MANY_ROWS:
        return [(j, k) for k in range(n_folds) for j in range(k)]
    return sorted({(min(k, (k + 1) % n_folds), max(k, (k + 1) % n_folds)) for k in range(n_folds)})


@dataclass(frozen=True, eq=False)
class Inner:
    """What the pair fits left behind.

    Attributes
    ----------
    choices : per target
    eta : (n, K) held-out propensity predictor for outer fold k, NaN where there is none
    starts : per (target, fold) coefficients to start the final fit from
    """

    choices: dict[Target, Choice]
    eta: F64
    starts: dict[tuple[Target, int], F64]


def choose(batch: Batch, data: Data, targets: tuple[Target, ...] = TARGETS) -> Inner:
    """Choose each target's penalty for each outer fold on held-out folds of its training rows."""
    n, k = len(batch.fold), batch.n_folds
    pairs = fold_pairs(k, n)
    losses = {t: np.zeros((k, len(batch.learners[t].variances))) for t in targets}
    counts = {t: np.zeros(k) for t in targets}
    constants = {t: np.zeros(k) for t in targets}
    betas: dict[tuple[Target, tuple[int, int]], tuple[F64, ...]] = {}
    etas: dict[tuple[int, int], F32] = {}
    for pair in pairs:
        tasks = [Task(t, pair, c) for t in targets for c in range(len(batch.learners[t].variances))]
        found = batch.fit(tasks, data)
        for t in targets:
            here = [i for i, task in enumerate(tasks) if task.target == t]
            betas[t, pair] = tuple(found[i] for i in here)
            eta = batch.predict([tasks[i] for i in here], betas[t, pair], data)
            if t == "propensity":
                etas[pair] = eta[np.isin(batch.fold, pair)].astype(np.float32)
            for scored, outer in (pair, pair[::-1]):
                loss, constant, count = _held_out_loss(batch, data, t, eta, scored, pair)
                losses[t][outer] += loss
                constants[t][outer] += constant
                counts[t][outer] += count
    choices = {t: _pick(losses[t], constants[t], counts[t]) for t in targets}
    eta_out = np.full((n, k), np.nan)
    for pair, eta32 in etas.items():
        where = np.flatnonzero(np.isin(batch.fold, pair))
        for scored, outer in (pair, pair[::-1]):
            rows = batch.fold[where] == scored
            eta_out[where[rows], outer] = eta32[rows, choices["propensity"].index[outer]]
    starts = {
        (t, outer): betas[t, pair][choices[t].index[outer]]
        for t in targets
        for pair in pairs
        for outer in pair
    }
    return Inner(choices, eta_out, starts)


def _held_out_loss(
    batch: Batch, data: Data, target: Target, eta: F64, scored: int, pair: tuple[int, int]
) -> tuple[F64, float, float]:
    """Summed loss of each candidate on the rows of fold `scored`, that of a constant, and the weight of the rows."""
    y, w = _target(data, target, 0)
    rows = batch.fold == scored
    trained = batch.outside(pair) * w
    base = float((trained * y).sum() / trained.sum())
    y, w, eta = y[rows, None], w[rows, None], eta[rows]
    if batch.logistic[target]:
        base = min(max(base, 1e-6), 1 - 1e-6)
        loss = (w * (np.logaddexp(0, eta) - y * eta)).sum(axis=0)
        constant = -(w * (y * np.log(base) + (1 - y) * np.log(1 - base))).sum()
    else:
        loss = (w * 0.5 * (y - eta) ** 2).sum(axis=0)
        constant = (w * 0.5 * (y - base) ** 2).sum()
    return loss, float(constant), float(w.sum())


def _target(data: Data, target: Target, rep: int) -> tuple[F64, F64]:
    t, w = data.t[:, rep].astype(np.float64), data.w[:, rep].astype(np.float64)
    if target == "propensity":
        return t, w
    return data.y[:, rep].astype(np.float64), w * (t if target == "outcome_1" else 1 - t)


def _pick(losses: F64, constants: F64, counts: F64) -> Choice:
    best = losses.argmin(axis=1)
    total = counts.sum()
    return Choice(
        tuple(int(b) for b in best), float(losses.min(axis=1).sum() / total), float(constants.sum() / total)
    )


@dataclass(frozen=True, eq=False)
class FoldModels:
    """The K fitted models of each target, enough to predict rows that were in no fold.

    Attributes
    ----------
    betas : per target, (p, K)
    platt : (2, K) intercept and slope of the propensity's calibration; (0, 1) where there is none
    inner : Inner
        The penalties that were chosen, and how.
    """

    betas: dict[Target, F64]
    platt: F64
    inner: Inner


def finals(
    batch: Batch, data: Data, inner: Inner, targets: tuple[Target, ...], calibrate: bool
) -> tuple[dict[Target, F64], FoldModels]:
    """Out-of-fold predictions of each target, (n,), and the models that made them."""
    k = batch.n_folds
    out: dict[Target, F64] = {}
    betas: dict[Target, F64] = {}
    for target in targets:
        tasks = [Task(target, (f,), inner.choices[target].index[f]) for f in range(k)]
        start = np.column_stack([inner.starts[target, f] for f in range(k)])
        found = batch.fit(tasks, data, start)
        betas[target] = np.column_stack(found)
        out[target] = batch.predict(tasks, found, data)[np.arange(len(batch.fold)), batch.fold]
    platt = np.tile([[0.0], [1.0]], (1, k))
    if "propensity" in targets:
        if calibrate:
            for f in range(k):
                rows = np.isfinite(inner.eta[:, f])
                t, w = _target(data, "propensity", 0)
                platt[:, f] = platt_scale(inner.eta[rows, f, None], t[rows, None], w[rows, None])[:, 0]
        out["propensity"] = platt[0, batch.fold] + platt[1, batch.fold] * out["propensity"]
    for target in targets:
        if batch.logistic[target]:
            out[target] = expit(out[target])
    return out, FoldModels(betas, platt, inner)


def refit(batch: Batch, data: Data, models: FoldModels, target: Target, calibrate: bool) -> F64:
    """Out-of-fold predictions of R repetitions, (n, R): every regression and calibration is fitted anew.

    The penalties stay those that were chosen on the log itself; they belong to the estimator. Calibration
    takes one held-out fold for each outer fold.
    """
    k, reps = batch.n_folds, data.t.shape[1]
    choice = models.inner.choices[target].index
    tasks = [Task(target, (f,), choice[f], r) for r in range(reps) for f in range(k)]
    start = np.tile(models.betas[target], (1, reps))
    if data.z is not None:
        start = np.vstack([start, np.zeros((1, start.shape[1]))])
    found = batch.fit(tasks, data, start)
    eta = batch.predict(tasks, found, data).reshape(-1, reps, k)
    eta = np.take_along_axis(eta, batch.fold[:, None, None], axis=2)[:, :, 0]
    if target == "propensity" and calibrate:
        pairs = [(f, (f + 1) % k) for f in range(k)]
        held = [Task(target, (min(p), max(p)), choice[p[0]], r) for r in range(reps) for p in pairs]
        eta_held = batch.predict(held, batch.fit(held, data, np.column_stack(found)), data).reshape(
            -1, reps, k
        )
        for f, scored in pairs:
            rows = batch.fold == scored
            ab = platt_scale(
                eta_held[rows, :, f], data.t[rows].astype(np.float64), data.w[rows].astype(np.float64)
            )
            mine = batch.fold == f
            eta[mine] = ab[0] + ab[1] * eta[mine]
    return expit(eta) if batch.logistic[target] else eta


def platt_scale(eta: F64, t: F64, w: F64, steps: int = 25) -> F64:
    """Intercept and slope (2, R) that minimise the log-loss of expit(a + b·eta), with a prior of b around 1.

    Platt (1999); the prior keeps a predictor without signal from being blown up. eta, t, w are (m, R).
    """
    centre = (w * eta).sum(axis=0) / w.sum(axis=0)
    x = eta - centre
    a, b = centre.copy(), np.ones(eta.shape[1])
    for _ in range(steps):
        mu = expit(a + b * x)
        v = w * mu * (1 - mu)
        ga, gb = (w * (mu - t)).sum(axis=0), (w * (mu - t) * x).sum(axis=0) + PRIOR_SLOPE * (b - 1)
        haa, hab, hbb = v.sum(axis=0) + 1e-9, (v * x).sum(axis=0), (v * x**2).sum(axis=0) + PRIOR_SLOPE
        det = haa * hbb - hab**2
        da, db = (hbb * ga - hab * gb) / det, (haa * gb - hab * ga) / det
        shrink = np.minimum(1.0, 2.0 / np.maximum(np.maximum(np.abs(da), np.abs(db)), 1e-300))
        a, b = a - shrink * da, b - shrink * db
        if max(np.abs(da).max(), np.abs(db).max()) < 1e-9:
            break
    return np.vstack([a - b * centre, b])
