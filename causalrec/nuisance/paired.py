"""Nuisances for pairs of rows: what stands at two rows was trained by neither row's user.

Folds are divided into sub-folds of users. For the rows of sub-folds j and l the words' part comes from models that left
out both folds, and *item effects* from the other rows of the same item, outside j and l. Exposure effects are shrunk
by empirical Bayes; outcome effects, common to both arms, hardly at all (a prior worth few impressions): where the
outcome model has no error that goes with the item, an error of the propensity biases nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from causalrec.kernels import BlockOfPairs, Rows, Values
from causalrec.nuisance.batch import Target
from causalrec.nuisance.nuisances import Nuisances

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
PRIOR_ROWS = 16.0
"""The prior of an item's outcome effect is worth at most this over the rows of an average item: one impression where items
have sixteen, eight where they have two, of which an unshrunk effect would be mostly noise."""
BORROW_PRIOR = 4.0
KEPT_ROWS = 200_000
"""Up to so many rows the nuisances of all pairs of sub-folds are kept between passes (about 700 bytes a row)."""
MOST_EFFECT = 4.0
"""Bound on an item effect, in log-odds."""


@dataclass(frozen=True, eq=False)
class PairNuisances:
    """Nuisances at pairs of rows.

    Attributes
    ----------
    fitted : Nuisances
        With predictors for pairs of folds, or of single folds only; then pairs within a fold are all there are,
        and there are no item effects.
    rows : Rows
    sub : (n,)
        Sub-fold of each row; its fold is ``sub % K``.
    clip : float
        Propensities are kept within [clip, 1 − clip].
    keep : (n,) or None
        The rows to look at; item effects are learnt from all.
    """

    fitted: Nuisances
    rows: Rows
    sub: Ints
    clip: float
    keep: npt.NDArray[np.bool_] | None = None
    _members: list[npt.NDArray[np.intp]] = field(init=False, repr=False)
    _kept_blocks: list[BlockOfPairs] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        kept = np.ones(len(self.sub), dtype=bool) if self.keep is None else self.keep
        members = [np.flatnonzero((self.sub == j) & kept) for j in range(int(self.sub.max()) + 1)]
        object.__setattr__(self, "_members", members)
        object.__setattr__(self, "_kept_blocks", [])

    @property
    def across(self) -> bool:
        """Pairs reach over folds."""
        return self.fitted.ridge is not None and bool(self.fitted.ridge.eta)

    def blocks(self) -> Iterable[BlockOfPairs]:
        """Every pair of sub-folds once, and each sub-fold with itself; kept where rows are few."""
        if len(self.sub) > KEPT_ROWS:
            return self._blocks()
        if not self._kept_blocks:
            self._kept_blocks.extend(self._blocks())
        return self._kept_blocks

    def _blocks(self) -> Iterator[BlockOfPairs]:
        if not self.across:
            for rows in self._members:
                if len(rows):
                    yield BlockOfPairs(self._as_fitted(rows), None)
            return
        assert self.fitted.ridge is not None
        n_folds, n_sub = int(self.fitted.fold.max()) + 1, len(self._members)
        for column, outer in enumerate(self.fitted.ridge.inner.outers):
            table = _Effects(self, column)
            for j in range(n_sub):
                for k in range(j, n_sub):
                    partner = (j + 1) % n_sub if k == j else k
                    folds = tuple(sorted({j % n_folds, partner % n_folds}))
                    if len(folds) == 1:
                        folds = tuple(sorted((folds[0], (folds[0] + 1) % n_folds)))
                    if folds == outer:
                        u_e, u_y = table.without(j, partner)
                        first = table.values(self._members[j], u_e, u_y)
                        yield BlockOfPairs(
                            first, None if k == j else table.values(self._members[k], u_e, u_y)
                        )

    def _as_fitted(self, rows: npt.NDArray[np.intp]) -> Values:
        e = np.clip(self.fitted.propensity[rows], self.clip, 1 - self.clip)
        m0, m1 = self.fitted.outcome_0[rows], self.fitted.outcome_1[rows]
        return Values(rows, e, m0, m1, e, m0, m1)


class _Effects:
    """Item effects of one outer set of folds: sums by sub-fold and item of what happened and what the words predicted."""

    def __init__(self, pairs: PairNuisances, column: int) -> None:
        ridge, problem, rows = pairs.fitted.ridge, pairs.fitted.problem, pairs.rows
        assert ridge is not None
        self.pairs, self.binary = pairs, problem.binary
        outer = ridge.inner.outers[column]
        outside = ~np.isin(pairs.fitted.fold, outer)

        def eta(target: Target) -> F64:
            return ridge.eta[target][:, column].astype(np.float64)

        self.eta_e = logit(problem.logged) if problem.logged is not None else eta("propensity")
        e0, e1 = eta("outcome_0"), eta("outcome_1")
        t, y, w = rows.t, rows.y, rows.w
        self.eta_0 = _borrow(e0, e1, y, w * (1 - t) * outside, self.binary)
        self.eta_1 = _borrow(e1, e0, y, w * t * outside, self.binary)
        self.logged = problem.logged is not None
        self.items = rows.items
        if rows.items is not None and int(rows.items.max(initial=-1)) >= 0:
            self._tabulate(rows, rows.items)
        else:
            self.items = None

    def _tabulate(self, rows: Rows, items: Ints) -> None:
        self.n_items = int(items.max()) + 1
        here = items >= 0
        n_sub = len(self.pairs._members)
        code = (self.pairs.sub * self.n_items + items)[here]
        eta_y = np.where(rows.t > 0.5, self.eta_1, self.eta_0)
        mean = expit(eta_y) if self.binary else eta_y

        def table(x: F64) -> F64:
            sums: F64 = np.bincount(code, x[here], n_sub * self.n_items).astype(np.float64)
            return sums.reshape(n_sub, self.n_items)

        self.shown = table(rows.w)
        self.treated, self.expected = table(rows.w * rows.t), table(rows.w * expit(self.eta_e))
        self.clicked, self.predicted = table(rows.w * rows.y), table(rows.w * mean)

    def without(self, j: int, k: int) -> tuple[F64, F64]:
        """(u_e, u_y), (G,) each: item effects from rows outside sub-folds j and k."""
        if self.items is None:
            return np.zeros(1), np.zeros(1)

        def rest(table: F64) -> F64:
            return table.sum(axis=0) - table[j] - table[k]

        n = rest(self.shown)
        u_e = (
            np.zeros_like(n) if self.logged else _log_odds_effect(rest(self.treated), rest(self.expected), n)
        )
        most = PRIOR_ROWS / max(float(n[n > 0].mean()) if (n > 0).any() else 1.0, 1.0)
        if self.binary:
            return u_e, _log_odds_effect(rest(self.clicked), rest(self.predicted), n, most)
        return u_e, (rest(self.clicked) - rest(self.predicted)) / (n + most)

    def values(self, rows: npt.NDArray[np.intp], u_e: F64, u_y: F64) -> Values:
        """The nuisances of some rows, with the item effects and without."""
        clip = self.pairs.clip
        effect_e = effect_y = np.zeros(len(rows))
        if self.items is not None:
            item = self.items[rows]
            effect_e, effect_y = np.where(item >= 0, u_e[item], 0.0), np.where(item >= 0, u_y[item], 0.0)
        eta_e, eta_0, eta_1 = self.eta_e[rows], self.eta_0[rows], self.eta_1[rows]
        link = expit if self.binary else np.asarray
        e, e_words = expit(eta_e + effect_e), expit(eta_e)
        return Values(
            rows, np.clip(e, clip, 1 - clip), link(eta_0 + effect_y), link(eta_1 + effect_y),
            np.clip(e_words, clip, 1 - clip), link(eta_0), link(eta_1),
        )  # fmt: skip


def _log_odds_effect(happened: F64, expected: F64, n: F64, most: float | None = None) -> F64:
    """U = logit((S + κ p)/(n + κ)) − logit(p), p = expected / n, and 0 where n = 0; (G,).

    κ by moments: Σ((S − n p)² − n p(1 − p)) / Σ n(n − 1) p(1 − p) estimates 1/(κ + 1) (beta-binomial; Kleinman 1973);
    at most `most`, if given.
    """
    seen = n > 0
    p = np.clip(np.divide(expected, n, out=np.full_like(n, 0.5), where=seen), 1e-6, 1 - 1e-6)
    v = p * (1 - p)
    several = n > 1
    spare = float((n * (n - 1) * v)[several].sum())
    excess = float(((happened - n * p) ** 2 - n * v)[several].sum())
    rho = min(max(excess / spare if spare > 0 else 0.0, 1e-4), 0.9)
    kappa = 1 / rho - 1 if most is None else min(1 / rho - 1, most)
    u = logit(np.clip((happened + kappa * p) / (n + kappa), 1e-6, 1 - 1e-6)) - logit(p)
    return np.where(seen, np.clip(u, -MOST_EFFECT, MOST_EFFECT), 0.0)


def _borrow(own: F64, other: F64, y: F64, w: F64, binary: bool, steps: int = 12) -> F64:
    """An arm's predictor recalibrated with the other arm's: η = a + b·own + c·other, prior (b, c) = (1, 0); (n,).

    Fitted on held-out predictors of the training rows, weight `w` (0 elsewhere), log-loss or half squared error.
    """
    used = w > 0
    x = np.column_stack([np.ones(int(used.sum())), own[used], other[used]])
    start = np.array([0.0, 1.0, 0.0])
    prior = np.diag([1e-9, BORROW_PRIOR, BORROW_PRIOR])
    beta = start.copy()
    for _ in range(steps):
        eta = x @ beta
        mu = expit(eta) if binary else eta
        v = w[used] * (mu * (1 - mu) if binary else 1.0)
        gradient = x.T @ (w[used] * (y[used] - mu)) - prior @ (beta - start)
        step = np.linalg.solve((x * v[:, None]).T @ x + prior, gradient)
        beta = beta + step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-300))
        if np.abs(step).max() < 1e-8:
            break
    return beta[0] + beta[1] * own + beta[2] * other
