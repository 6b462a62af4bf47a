"""Who gets recommended, who clicks anyway? Cross-fitted propensity and outcome models, computed once.

What is left out together is an *outer* set of folds: one fold, or, for scores of pairs of rows, each pair of folds.
For its rows everything (scale, penalty, coefficients, calibration) comes from the other folds. The penalty is
chosen, and the propensity calibrated, with one further fold left out: a regression outside folds j, k and l is
scored on l to choose for (j, k), on k to choose for (j, l), and on j to choose for (k, l).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from causalrec.nuisance.batch import TARGETS, Batch, Data, Target, Task

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
MANY_ROWS = 50_000
"""From here on two held-out folds choose a penalty; below, all of them do."""
SLACK: dict[Target, float] = {"propensity": 0.0, "outcome_0": 0.01, "outcome_1": 0.01}
"""Outcome models shrink less than the held-out loss asks for, by as much as costs 1 % of it: the bias of the score is a
product of two errors, and the part of the outcome's that shrinking makes goes with the propensity's (undersmoothing;
Newey & Robins 2018). In the score's variance 1 % of the loss is about as much."""
PRIOR_SLOPE = 4.0
"""Weight, in nats per squared unit, of the prior that a propensity needs no calibration (slope 1)."""


Variances = tuple[float, ...]
Outer = tuple[int, ...]


@dataclass(frozen=True)
class Choice:
    """The candidate that was chosen for each outer set, and the held-out loss that chose it.

    Attributes
    ----------
    variances : tuple of tuple of float, (M,)
        Prior variance of each block, by outer set.
    by_fold : tuple of tuple of float, (K,)
        The same for each fold alone: the best over the outer sets that hold it.
    loss, loss_constant : float
        Mean held-out loss per row at the choice, and of a constant.
    """

    variances: tuple[Variances, ...]
    by_fold: tuple[Variances, ...]
    loss: float
    loss_constant: float


def outer_sets(n_folds: int, in_pairs: bool) -> tuple[Outer, ...]:
    """Each fold, or each pair of folds."""
    return tuple(combinations(range(n_folds), 2 if in_pairs else 1))


def search_sets(n_folds: int, n: int, size: int) -> list[Outer]:
    """Sets of `size` folds on whose complements candidates are compared: all of them, or a cover where rows are many.

    A cover holds every fold (size 2), or every pair of folds (size 3), in at least one of its sets.
    """
    everything = list(combinations(range(n_folds), size))
    if n < MANY_ROWS:
        return everything
    if size == 2:
        return sorted({(min(k, (k + 1) % n_folds), max(k, (k + 1) % n_folds)) for k in range(n_folds)})
    missing, cover = set(combinations(range(n_folds), size - 1)), []
    while missing:
        best = max(everything, key=lambda s: len(missing & set(combinations(s, size - 1))))
        missing -= set(combinations(best, size - 1))
        cover.append(best)
    return sorted(cover)


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
    """What the search left behind.

    Attributes
    ----------
    outers : tuple of tuple of int, (M,)
    choices : per target
    eta : per target, (n, M) held-out predictor for each outer set at its choice, for rows outside it; NaN where
        there is none
    starts : per target, (p, M) coefficients to start the final fits from
    """

    outers: tuple[Outer, ...]
    choices: dict[Target, Choice]
    eta: dict[Target, F32]
    starts: dict[Target, F64]


def choose(batch: Batch, data: Data, targets: tuple[Target, ...] = TARGETS, in_pairs: bool = False) -> Inner:
    """Choose each target's penalties for each outer set on held-out folds of its training rows.

    First one variance for all blocks, then, where there are several blocks, the neighbours of that choice. An
    outer set takes only candidates that its own held-out losses led to. With `in_pairs` every row outside an outer
    set gets a held-out predictor.
    """
    outers = outer_sets(batch.n_folds, in_pairs)
    sets = search_sets(batch.n_folds, len(batch.fold), len(outers[0]) + 1)
    search = _Search(batch, data)
    common = {t: [(v,) * batch.n_blocks(t) for v in batch.learners[t].variances] for t in targets}
    search.fit({t: list(dict.fromkeys(c)) for t, c in common.items()}, sets)
    allowed = {(t, o): common[t] for t in targets for o in outers}
    second: dict[Target, list[Variances]] = {}
    for t in targets:
        if batch.n_blocks(t) > 1:
            for o in outers:
                best = search.best(t, o, common[t])[0]
                allowed[t, o] = common[t] + neighbours(batch.learners[t].variances, batch.n_blocks(t), best)
            second[t] = list(dict.fromkeys(c for o in outers for c in allowed[t, o] if c not in common[t]))
    if second:
        search.fit(second, sets)
    chosen = {t: tuple(search.best(t, o, allowed[t, o]) for o in outers) for t in targets}
    if in_pairs:
        search.complete(outers, chosen)
    choices = {t: search.choice(t, outers, chosen[t], allowed) for t in targets}
    return Inner(
        outers,
        choices,
        {t: search.held_out(t, outers, chosen[t]) for t in targets},
        {t: search.starts(t, outers, chosen[t]) for t in targets},
    )


def _undersmoothed(
    allowed: list[Variances], least: Variances, loss: Callable[[Variances], float], slack: float
) -> Variances:
    """Of the candidates whose loss exceeds the least by at most a share `slack` of it, the one that shrinks least."""
    near = [c for c in allowed if loss(c) <= loss(least) * (1 + slack)]
    return max(near, key=lambda c: float(np.log(c).sum())) if slack > 0 and all(least) else least


class _Search:
    """Fits of candidates outside sets of folds, and how well each does on the folds it left out."""

    def __init__(self, batch: Batch, data: Data) -> None:
        self.batch, self.data = batch, data
        self.where: dict[Outer, npt.NDArray[np.intp]] = {}
        self.betas: dict[tuple[Target, Variances, Outer], F64] = {}
        self.eta: dict[tuple[Target, Variances, Outer], F32] = {}
        self.loss: dict[tuple[Target, Variances, Outer], float] = {}
        self.weight: dict[tuple[Target, Outer], float] = {}
        self.constant: dict[tuple[Target, Outer], float] = {}
        self.counted: set[tuple[Target, int, Outer]] = set()

    def fit(self, candidates: dict[Target, list[Variances]], sets: list[Outer]) -> None:
        self._fit([Task(t, s, c) for s in sets for t, some in candidates.items() for c in some], scored=True)

    def complete(self, outers: tuple[Outer, ...], chosen: dict[Target, tuple[Variances, ...]]) -> None:
        """Fit each outer set's choice outside every set that adds one fold to it, for its held-out predictor."""
        wanted = [
            Task(t, tuple(sorted((*o, m))), c)
            for t, some in chosen.items()
            for o, c in zip(outers, some, strict=True)
            for m in range(self.batch.n_folds)
            if m not in o
        ]
        new = [k for k in dict.fromkeys(wanted) if (k.target, k.variances, k.out) not in self.eta]
        if new:
            self._fit(sorted(new, key=lambda k: k.out), scored=False)

    def _fit(self, tasks: list[Task], scored: bool) -> None:
        found = dict(zip(tasks, self.batch.fit(tasks, self.data), strict=True))
        groups: dict[tuple[Outer, Target], list[Task]] = {}
        for task in tasks:
            groups.setdefault((task.out, task.target), []).append(task)
        for (out, target), here in groups.items():
            if out not in self.where:
                self.where[out] = np.flatnonzero(np.isin(self.batch.fold, out))
            betas = tuple(found[task] for task in here)
            eta = self.batch.predict(here, betas, self.data)
            for j, task in enumerate(here):
                self.betas[target, task.variances, out] = betas[j]
                self.eta[target, task.variances, out] = eta[self.where[out], j].astype(np.float32)
            if scored:
                for fold in out:
                    self._score(here, eta, fold)

    def _score(self, here: list[Task], eta: F64, scored: int) -> None:
        target, out = here[0].target, here[0].out
        outer = tuple(f for f in out if f != scored)
        loss, constant, weight = _held_out_loss(self.batch, self.data, target, eta, scored, out)
        for task, value in zip(here, loss, strict=True):
            key = (target, task.variances, outer)
            self.loss[key] = self.loss.get(key, 0.0) + float(value)
        if (target, scored, outer) not in self.counted:
            self.counted.add((target, scored, outer))
            self.weight[target, outer] = self.weight.get((target, outer), 0.0) + weight
            self.constant[target, outer] = self.constant.get((target, outer), 0.0) + constant

    def best(self, target: Target, outer: Outer, allowed: list[Variances]) -> Variances:
        least = min(allowed, key=lambda c: self.loss[target, c, outer])
        return _undersmoothed(allowed, least, lambda c: self.loss[target, c, outer], SLACK[target])

    def _best_over(self, target: Target, outers: list[Outer], allowed: list[Variances]) -> Variances:
        def loss(c: Variances) -> float:
            return sum(self.loss[target, c, o] for o in outers)

        return _undersmoothed(allowed, min(allowed, key=loss), loss, SLACK[target])

    def choice(
        self,
        target: Target,
        outers: tuple[Outer, ...],
        chosen: tuple[Variances, ...],
        allowed: dict[tuple[Target, Outer], list[Variances]],
    ) -> Choice:
        total = sum(self.weight[target, o] for o in outers)
        loss = sum(self.loss[target, c, o] for o, c in zip(outers, chosen, strict=True))
        by_fold = []
        for k in range(self.batch.n_folds):
            mine = [o for o in outers if k in o]
            shared = [c for c in allowed[target, mine[0]] if all(c in allowed[target, o] for o in mine)]
            by_fold.append(self._best_over(target, mine, shared))
        return Choice(
            chosen, tuple(by_fold), loss / total, sum(self.constant[target, o] for o in outers) / total
        )

    def held_out(self, target: Target, outers: tuple[Outer, ...], chosen: tuple[Variances, ...]) -> F32:
        out = np.full((len(self.batch.fold), len(outers)), np.nan, dtype=np.float32)
        for column, (outer, c) in enumerate(zip(outers, chosen, strict=True)):
            for further in range(self.batch.n_folds):
                key = (target, c, tuple(sorted((*outer, further))))
                if further not in outer and key in self.eta:
                    rows = self.where[key[2]]
                    here = self.batch.fold[rows] == further
                    out[rows[here], column] = self.eta[key][here]
        return out

    def starts(self, target: Target, outers: tuple[Outer, ...], chosen: tuple[Variances, ...]) -> F64:
        found = []
        for outer, c in zip(outers, chosen, strict=True):
            inner = next(k[2] for k in self.betas if k[:2] == (target, c) and set(outer) < set(k[2]))
            found.append(self.betas[target, c, inner])
        return np.column_stack(found)


def _held_out_loss(
    batch: Batch, data: Data, target: Target, eta: F64, scored: int, out: Outer
) -> tuple[F64, float, float]:
    """Summed loss of each candidate on the rows of fold `scored`, that of a constant, and the weight of the rows."""
    y, w = _target(data, target, 0)
    rows = batch.fold == scored
    trained = batch.outside(out) * w
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
    """The M fitted models of each target, one an outer set, enough to predict rows that were in no fold.

    Attributes
    ----------
    betas : per target, (p, M)
    platt : per target, (2, M) intercept and slope of the calibration; (0, 1) where there is none
    inner : Inner
        The penalties that were chosen, and how.
    eta : per target, (n, M) float32
        Calibrated predictor of every row for each outer set, from a model that saw neither the outer set nor the
        row's own fold; only where outer sets are pairs.
    """

    betas: dict[Target, F64]
    platt: dict[Target, F64]
    inner: Inner
    eta: dict[Target, F32]

    def fold_starts(self, target: Target, n_folds: int) -> F64:
        """(p, K) coefficients near those of each fold's own model."""
        return self.betas[target][:, [self.without(k) for k in range(n_folds)]]

    def without(self, k: int) -> int:
        """Which column of ``betas`` is of models that left out fold k (and, where outer sets are pairs, another)."""
        return next(i for i, o in enumerate(self.inner.outers) if k in o)


def finals(
    batch: Batch, data: Data, inner: Inner, targets: tuple[Target, ...], calibrate: bool
) -> tuple[dict[Target, F64], FoldModels]:
    """Out-of-fold predictions of each target, (n,), and the models that made them.

    Where outer sets are pairs, a row's prediction is the mean (on the predictor's scale) over those that hold its fold.
    """
    out: dict[Target, F64] = {}
    betas: dict[Target, F64] = {}
    platt: dict[Target, F64] = {}
    whole: dict[Target, F32] = {}
    holds = np.array([[k in o for o in inner.outers] for k in range(batch.n_folds)])
    for target in targets:
        tasks = [
            Task(target, o, c) for o, c in zip(inner.outers, inner.choices[target].variances, strict=True)
        ]
        found = batch.fit(tasks, data, inner.starts[target])
        betas[target] = np.column_stack(found)
        platt[target] = np.tile([[0.0], [1.0]], (1, len(tasks)))
        if calibrate and target == "propensity":
            platt[target] = _calibrations(data, inner, target)
        eta = platt[target][0] + platt[target][1] * batch.predict(tasks, found, data)
        mine = holds[batch.fold]
        mean = np.where(mine, eta, 0).sum(axis=1) / mine.sum(axis=1)
        out[target] = expit(mean) if batch.logistic[target] else mean
        if len(inner.outers[0]) > 1:
            outside = platt[target][0] + platt[target][1] * inner.eta[target]
            whole[target] = np.where(mine, eta, outside).astype(np.float32)
    return out, FoldModels(betas, platt, inner, whole)


def _calibrations(data: Data, inner: Inner, target: Target) -> F64:
    """(2, M) Platt scaling of each outer set on the held-out predictors of the rows outside it."""
    y, w = _target(data, target, 0)
    found = []
    for column in range(len(inner.outers)):
        rows = np.isfinite(inner.eta[target][:, column]) & (w > 0)
        held = inner.eta[target][rows, column, None].astype(np.float64)
        found.append(platt_scale(held, y[rows, None], w[rows, None])[:, 0])
    return np.column_stack(found)


def refit(batch: Batch, data: Data, models: FoldModels, target: Target, calibrate: bool) -> F64:
    """Out-of-fold predictions of R repetitions, (n, R): every regression and calibration is fitted anew.

    The penalties stay those that were chosen on the log itself; they belong to the estimator. Calibration
    takes one held-out fold for each outer fold.
    """
    k, reps = batch.n_folds, data.t.shape[1]
    variances = models.inner.choices[target].by_fold
    tasks = [Task(target, (f,), variances[f], r) for r in range(reps) for f in range(k)]
    start = np.tile(models.fold_starts(target, k), (1, reps))
    if data.z is not None:
        start = np.vstack([start, np.zeros((1, start.shape[1]))])
    found = batch.fit(tasks, data, batch.without(start, tasks, data), alike=data.left_out is None)
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
