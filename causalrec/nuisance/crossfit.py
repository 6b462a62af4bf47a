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


Variances = tuple[float, ...]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Choice:
    """The candidate that was chosen for each outer fold, and the held-out loss that chose it.

    Attributes
    ----------
    variances : tuple of tuple of float, (K,)
        Prior variance of each block, by outer fold.
    loss, loss_constant : float
        Mean held-out loss per row at the choice, and of a constant.
    """

    variances: tuple[Variances, ...]
    loss: float
    loss_constant: float


def fold_pairs(n_folds: int, n: int) -> list[Pair]:
    """Pairs of folds that are left out together: all of them, or each fold and the next where rows are many."""
    if n < MANY_ROWS:
        return [(j, k) for k in range(n_folds) for j in range(k)]
    return sorted({(min(k, (k + 1) % n_folds), max(k, (k + 1) % n_folds)) for k in range(n_folds)})


def neighbours(grid: Variances, blocks: int, best: float) -> list[Variances]:
    """Candidates in which one of several blocks may carry more than the others.

    From the common variance `best`: each block in turn one step up, the others down to the smallest, or both.
    """
    ladder = sorted(grid)
    up = ladder[min(ladder.index(best) + 1, len(ladder) - 1)]
    out = []
    for b in range(blocks):
        for own, others in ((up, best), (best, ladder[0]), (up, ladder[0])):
            out.append(tuple(own if j == b else others for j in range(blocks)))
    return list(dict.fromkeys(out))


@dataclass(frozen=True, eq=False)
class Inner:
    """What the pair fits left behind.

    Attributes
    ----------
    choices : per target
    eta : per target, (n, K) held-out predictor for outer fold k at its choice, NaN where there is none
    starts : per (target, fold) coefficients to start the final fit from
    """

    choices: dict[Target, Choice]
    eta: dict[Target, F32]
    starts: dict[tuple[Target, int], F64]


def choose(batch: Batch, data: Data, targets: tuple[Target, ...] = TARGETS) -> Inner:
    """Choose each target's penalties for each outer fold on held-out folds of its training rows.

    First one variance for all blocks, then, where there are several blocks, the neighbours of that choice. An
    outer fold takes only candidates that its own held-out losses led to.
    """
    search = _Search(batch, data, fold_pairs(batch.n_folds, len(batch.fold)))
    common = {t: [(v,) * batch.n_blocks(t) for v in batch.learners[t].variances] for t in targets}
    search.fit({t: list(dict.fromkeys(c)) for t, c in common.items()})
    allowed = {(t, k): common[t] for t in targets for k in range(batch.n_folds)}
    second: dict[Target, list[Variances]] = {}
    for t in targets:
        if batch.n_blocks(t) > 1:
            for k in range(batch.n_folds):
                best = search.best(t, k, common[t])[0]
                allowed[t, k] = common[t] + neighbours(batch.learners[t].variances, batch.n_blocks(t), best)
            second[t] = list(
                dict.fromkeys(c for k in range(batch.n_folds) for c in allowed[t, k] if c not in common[t])
            )
    if second:
        search.fit(second)
    chosen = {(t, k): search.best(t, k, allowed[t, k]) for t in targets for k in range(batch.n_folds)}
    return Inner(
        {t: search.choice(t, tuple(chosen[t, k] for k in range(batch.n_folds))) for t in targets},
        {t: search.held_out(t, tuple(chosen[t, k] for k in range(batch.n_folds))) for t in targets},
        {(t, k): search.start(t, k, chosen[t, k]) for t in targets for k in range(batch.n_folds)},
    )


class _Search:
    """Fits of candidates outside pairs of folds, and how well each does on the folds it left out."""

    def __init__(self, batch: Batch, data: Data, pairs: list[Pair]) -> None:
        self.batch, self.data, self.pairs = batch, data, pairs
        self.where = {pair: np.flatnonzero(np.isin(batch.fold, pair)) for pair in pairs}
        self.betas: dict[tuple[Target, Variances, Pair], F64] = {}
        self.eta: dict[tuple[Target, Variances, Pair], F32] = {}
        self.loss: dict[tuple[Target, Variances, int], float] = {}
        self.weight: dict[tuple[Target, int], float] = {}
        self.constant: dict[tuple[Target, int], float] = {}
        self.counted: set[tuple[Target, int, int]] = set()

    def fit(self, candidates: dict[Target, list[Variances]]) -> None:
        tasks = [Task(t, pair, c) for pair in self.pairs for t, some in candidates.items() for c in some]
        found = dict(zip(tasks, self.batch.fit(tasks, self.data), strict=True))
        for pair in self.pairs:
            for target, some in candidates.items():
                here = [Task(target, pair, c) for c in some]
                betas = tuple(found[task] for task in here)
                eta = self.batch.predict(here, betas, self.data)
                for j, c in enumerate(some):
                    self.betas[target, c, pair] = betas[j]
                    self.eta[target, c, pair] = eta[self.where[pair], j].astype(np.float32)
                for scored, outer in (pair, pair[::-1]):
                    self._score(target, some, eta, scored, outer, pair)

    def _score(
        self, target: Target, some: list[Variances], eta: F64, scored: int, outer: int, pair: Pair
    ) -> None:
        loss, constant, weight = _held_out_loss(self.batch, self.data, target, eta, scored, pair)
        for c, value in zip(some, loss, strict=True):
            self.loss[target, c, outer] = self.loss.get((target, c, outer), 0.0) + float(value)
        if (target, scored, outer) not in self.counted:
            self.counted.add((target, scored, outer))
            self.weight[target, outer] = self.weight.get((target, outer), 0.0) + weight
            self.constant[target, outer] = self.constant.get((target, outer), 0.0) + constant

    def best(self, target: Target, outer: int, allowed: list[Variances]) -> Variances:
        return min(allowed, key=lambda c: self.loss[target, c, outer])

    def choice(self, target: Target, chosen: tuple[Variances, ...]) -> Choice:
        total = sum(self.weight[target, k] for k in range(len(chosen)))
        loss = sum(self.loss[target, c, k] for k, c in enumerate(chosen))
        return Choice(chosen, loss / total, sum(self.constant[target, k] for k in range(len(chosen))) / total)

    def held_out(self, target: Target, chosen: tuple[Variances, ...]) -> F32:
        out = np.full((len(self.batch.fold), len(chosen)), np.nan, dtype=np.float32)
        for pair in self.pairs:
            rows = self.where[pair]
            for scored, outer in (pair, pair[::-1]):
                here = self.batch.fold[rows] == scored
                out[rows[here], outer] = self.eta[target, chosen[outer], pair][here]
        return out

    def start(self, target: Target, outer: int, chosen: Variances) -> F64:
        pair = next(p for p in self.pairs if outer in p)
        return self.betas[target, chosen, pair]


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


@dataclass(frozen=True, eq=False)
class FoldModels:
    """The K fitted models of each target, enough to predict rows that were in no fold.

    Attributes
    ----------
    betas : per target, (p, K)
    platt : per target, (2, K) intercept and slope of the calibration; (0, 1) where there is none
    inner : Inner
        The penalties that were chosen, and how.
    """

    betas: dict[Target, F64]
    platt: dict[Target, F64]
    inner: Inner


def finals(
    batch: Batch, data: Data, inner: Inner, targets: tuple[Target, ...], calibrate: bool
) -> tuple[dict[Target, F64], FoldModels]:
    """Out-of-fold predictions of each target, (n,), and the models that made them."""
    k = batch.n_folds
    out: dict[Target, F64] = {}
    betas: dict[Target, F64] = {}
    platt: dict[Target, F64] = {}
    for target in targets:
        tasks = [Task(target, (f,), inner.choices[target].variances[f]) for f in range(k)]
        found = batch.fit(tasks, data, np.column_stack([inner.starts[target, f] for f in range(k)]))
        betas[target] = np.column_stack(found)
        platt[target] = np.tile([[0.0], [1.0]], (1, k))
        if calibrate and target == "propensity":
            y, w = _target(data, target, 0)
            for f in range(k):
                rows = np.isfinite(inner.eta[target][:, f]) & (w > 0)
                held = inner.eta[target][rows, f, None].astype(np.float64)
                platt[target][:, f] = platt_scale(held, y[rows, None], w[rows, None])[:, 0]
        eta = batch.predict(tasks, found, data)[np.arange(len(batch.fold)), batch.fold]
        eta = platt[target][0, batch.fold] + platt[target][1, batch.fold] * eta
        out[target] = expit(eta) if batch.logistic[target] else eta
    return out, FoldModels(betas, platt, inner)


def refit(batch: Batch, data: Data, models: FoldModels, target: Target, calibrate: bool) -> F64:
    """Out-of-fold predictions of R repetitions, (n, R): every regression and calibration is fitted anew.

    The penalties stay those that were chosen on the log itself; they belong to the estimator. Calibration
    takes one held-out fold for each outer fold.
    """
    k, reps = batch.n_folds, data.t.shape[1]
    variances = models.inner.choices[target].variances
    tasks = [Task(target, (f,), variances[f], r) for r in range(reps) for f in range(k)]
    start = np.tile(models.betas[target], (1, reps))
    if data.z is not None:
        start = np.vstack([start, np.zeros((1, start.shape[1]))])
    found = batch.fit(tasks, data, start, alike=data.left_out is None)
    eta = batch.predict(tasks, found, data).reshape(-1, reps, k)
    eta = np.take_along_axis(eta, batch.fold[:, None, None], axis=2)[:, :, 0]
    if calibrate and target == "propensity":
        _recalibrate(batch, data, target, variances, eta, np.column_stack(found))
    return expit(eta) if batch.logistic[target] else eta


def _recalibrate(
    batch: Batch, data: Data, target: Target, variances: tuple[Variances, ...], eta: F64, start: F64
) -> None:
    """Platt-scale eta (n, R) in place: outer fold f by a fit that left out f and the next fold, held against the latter."""
    k, reps = batch.n_folds, eta.shape[1]
    pairs = [(f, (f + 1) % k) for f in range(k)]
    tasks = [Task(target, (min(p), max(p)), variances[p[0]], r) for r in range(reps) for p in pairs]
    held = batch.predict(tasks, batch.fit(tasks, data, start, alike=data.left_out is None), data).reshape(
        -1, reps, k
    )
    y, w = (np.column_stack(v) for v in zip(*(_target(data, target, r) for r in range(reps)), strict=True))
    for f, scored in pairs:
        rows, mine = batch.fold == scored, batch.fold == f
        a, b = platt_scale(held[rows, :, f], y[rows], w[rows])
        eta[mine] = a + b * eta[mine]


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
