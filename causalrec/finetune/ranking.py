"""AUC and NDCG on impressions that were drawn at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from causalrec._display import Displayable
from causalrec.errors import EstimationError
from causalrec.finetune.risk import log_loss
from causalrec.nuisance import nuisances
from causalrec.scores import Estimate

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Ranking(Displayable):
    """Quality on data whose impressions were drawn at random (MAR).

    Attributes
    ----------
    n, n_users : rows, and users
    auc, ndcg : Estimate
        AUC over all rows, and mean NDCG@k over users with at least one positive; 95 % intervals from a bootstrap of users.
    k : int
    log_loss : Estimate
    """

    n: int
    n_users: int
    auc: Estimate
    ndcg: Estimate
    log_loss: Estimate
    k: int

    def _title(self) -> str:
        return f"On {self.n:,} randomly drawn impressions of {self.n_users:,} users"

    def _rows(self) -> list[dict[str, Any]]:
        return [
            quantity(name, e) for name, e in (("AUC", self.auc), (f"NDCG@{self.k}", self.ndcg), ("log loss, nats", self.log_loss))
        ]  # fmt: skip


def quantity(name: str, e: Estimate) -> dict[str, Any]:
    """One record of a result's table."""
    return {"quantity": name, "estimate": e.value, "std_error": e.std_error, "ci_lower": e.ci_lower, "ci_upper": e.ci_upper}


def ndcg_by_user(f: F64, gain: F64, units: Ints, k: int) -> F64:
    """(G,) NDCG@k of each user, Σ_{ranks ≤ k} gain / log₂(rank + 1) over its best; NaN where no gain is positive.

    Ties in f are broken by a fixed shuffle of the rows.
    """
    shuffle = np.random.default_rng(0).permutation(len(f))
    users = int(units.max()) + 1

    def dcg(score: F64) -> F64:
        order = np.lexsort((shuffle, -score, units))
        starts = np.flatnonzero(np.r_[True, np.diff(units[order]) > 0])
        place = np.arange(len(f)) - np.repeat(starts, np.diff(np.r_[starts, len(f)]))
        discounted = np.where(place < k, gain[order] / np.log2(place + 2), 0.0)
        return np.asarray(np.bincount(units[order], discounted, minlength=users), dtype=np.float64)

    best = dcg(gain)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(best > 0, dcg(f) / best, np.nan)


def auc(f: F64, y: F64, weight: F64 | None = None) -> float:
    """P(score of a positive > score of a negative), ties half; `weight` counts a row so often."""
    if weight is None:
        return nuisances.auc(f, y)
    order = np.argsort(f, kind="stable")
    _, tie = np.unique(f[order], return_inverse=True)
    neg, pos = weight[order] * (1 - y[order]), weight[order] * y[order]
    below = np.bincount(tie, neg)
    before = np.concatenate([[0.0], np.cumsum(below)[:-1]])
    return float((pos * (before + below / 2)[tie]).sum() / (pos.sum() * neg.sum()))


def ranking_of(f: F64, y: F64, units: Ints, k: int = 5, draws: int = 500, seed: int = 0) -> Ranking:
    """AUC, NDCG@k and log loss of randomly drawn impressions.

    Raises
    ------
    EstimationError
        All outcomes are the same.
    """
    if np.ptp(y) == 0:
        raise EstimationError(f"all {len(y):,} outcomes of the random data are {y[0]:g}: nothing can be ranked well or badly.")
    rng, users = np.random.default_rng(seed), int(units.max()) + 1
    each, loss = ndcg_by_user(f, y, units, k), log_loss(f, y)
    of_user, size = np.bincount(units, loss, users), np.bincount(units, minlength=users)
    found = []
    for _ in range(draws):
        times = np.bincount(rng.integers(0, users, users), minlength=users).astype(float)
        rows = times[units]
        if (rows * y).sum() > 0 and (rows * (1 - y)).sum() > 0:
            with np.errstate(invalid="ignore"):
                ndcg = np.nansum(times * each) / (times * np.isfinite(each)).sum()
            found.append((auc(f, y, rows), ndcg, (times * of_user).sum() / (times * size).sum()))
    spread = np.array(found)
    points = (auc(f, y), float(np.nanmean(each)), float(loss.mean()))
    made = [_bootstrapped(p, s) for p, s in zip(points, spread.T, strict=True)]
    return Ranking(len(y), users, made[0], made[1], made[2], k)


def _bootstrapped(value: float, draws: F64) -> Estimate:
    low, high = np.quantile(draws, (0.025, 0.975))
    return Estimate(float(value), float(draws.std(ddof=1)), float(low), float(high), float("nan"), len(draws), np.empty(0))
