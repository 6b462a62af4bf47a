"""Intervention harvesting: what the same item got at several positions tells how often they are looked at. Arrays only.

Position-based model: E[y_i] = r_s θ_k for a row of item s at position k, θ of the first position 1, λ = log θ. The position
must not go with relevance *within* an item, given what the row weights take account of.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import logsumexp

from causalrec.errors import EstimationError
from causalrec.joint import wald

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
MAX_LOG = 10.0
"""|log θ| beyond which a position counts as not identified."""
HEAVIEST = 10.0
"""Position weights are held at this."""
SMOOTH = 2.0


@dataclass(frozen=True, eq=False)
class Curve:
    """log θ of K groups of positions, the first 0.

    Attributes
    ----------
    log_theta : (K,) NaN where no item links a group with the first
    influence : (m, K) of each row on log θ; the sum over rows is the error to first order
    information : share of the information on θ that is left when items are compared with themselves only, in [0, 1]
    n_strata : items that were seen at several positions and clicked
    """

    log_theta: F64
    influence: F64
    information: float
    n_strata: int


def harvest(strata: Ints, group: Ints, y: F64, w: F64, n_groups: int, x: F64 | None = None) -> Curve:
    """θ from all pairs of positions within items: the conditional (fixed-effects) Poisson quasi-likelihood.

    With t_i = w_i θ_k exp(β'x_i) and q_i = t_i / Σ_(l in s) t_l, (λ, β) maximise Σ_i w_i y_i log q_i − ½ |β|². The score
    Σ_i w_i y_i (z_i − z̄_s), z = (position, x) and z̄_s its mean under q, has mean zero whatever the relevance r_s and the law of y: all
    pairs of positions of Agarwal et al. (2019, eq. 7) with the items' relevance conditioned out, so that an item seen
    twice adds as little as it should. Hausman, Hall & Griliches (1984); Wooldridge (1999). Where the weights make x alike at
    all positions of an item, a wrong β does no harm; where exp(β'x) is how relevance goes with x, wrong weights do none.
    The influence of a row is H⁻¹ w (y − r̂_s θ_k e^(β'x)) (z − z̄_s) / √(1 − h), h its share of Σ t (HC2).

    Parameters
    ----------
    strata, group : (m,) codes of items and of groups of positions, 0 … n_groups − 1, the first the reference
    y, w : (m,) outcomes >= 0 and weights
    x : (m, p), optional; standardised features of the row

    Raises
    ------
    EstimationError
        No item was shown at two positions and clicked.
    """
    n_s = int(strata.max()) + 1
    cell = strata * n_groups + group
    shown = np.bincount(cell, w, n_s * n_groups).reshape(n_s, n_groups).astype(np.float64)
    clicks = np.bincount(cell, w * y, n_s * n_groups).reshape(n_s, n_groups).astype(np.float64)
    known = np.ones(n_groups, dtype=bool)
    while True:
        counted, used = _usable(shown, clicks, known)
        if not used.any():
            raise EstimationError(_nothing_to_compare(shown))
        rows = np.flatnonzero(used[strata] & counted[group])
        data = _Within(strata[rows], group[rows], y[rows], w[rows], x[rows] if x is not None else np.zeros((len(rows), 0)), counted)
        lam = data.solve()
        far = counted & (np.abs(lam) > MAX_LOG)
        if not far.any():
            break
        known = counted & ~far
    influence = np.zeros((len(y), n_groups))
    influence[rows] = data.influence
    influence[:, ~counted] = np.nan
    return Curve(np.where(counted, lam, np.nan), influence, data.information, int(used.sum()))


def _usable(shown: F64, clicks: F64, known: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Groups (K,) that items which were clicked link with the first, and the items (S,) that link them."""
    while True:
        used = (((shown > 0) & known).sum(axis=1) > 1) & ((clicks * known).sum(axis=1) > 0)
        seen = (shown[used] > 0) & known
        reached = np.zeros(len(known), dtype=bool)
        reached[0] = True
        for _ in known:
            reached = reached | seen[seen[:, reached].any(axis=1)].any(axis=0)
        counted = known & reached & ((clicks[used].sum(axis=0) > 0) | (np.arange(len(known)) == 0))
        if (counted == known).all():
            return counted, used
        known = counted


class _Within:
    """Rows of items that were seen at several positions and clicked, and the regression within them."""

    def __init__(self, strata: Ints, group: Ints, y: F64, w: F64, x: F64, counted: npt.NDArray[np.bool_]) -> None:
        s = np.unique(strata, return_inverse=True)[1]
        self.y, self.w, self.counted = y, w, counted
        self.s = s
        self.free = np.flatnonzero(counted)[1:]
        self.z = np.hstack([(group[:, None] == self.free).astype(np.float64), x])
        self.member = sparse.csr_matrix((np.ones(len(s)), (s, np.arange(len(s)))))
        self.total = self.member @ (w * y)
        self.ridge = np.r_[np.zeros(len(self.free)), np.ones(x.shape[1])]
        self.beta = np.zeros(self.z.shape[1])

    def _at(self) -> tuple[F64, F64, F64, F64]:
        """exp(z'β), the relevance of each row's item, columns about their mean under q, and the curvature H."""
        rate = np.exp(np.minimum(self.z @ self.beta, 50.0))
        whole = self.member @ (self.w * rate)
        mean = (self.member @ (self.z * (self.w * rate)[:, None])) / whole[:, None]
        centred = self.z - mean[self.s]
        relevance = (self.total / whole)[self.s]
        curve = (centred * (self.w * rate * relevance)[:, None]).T @ centred + np.diag(self.ridge)
        return rate, relevance, centred, curve

    def solve(self) -> F64:
        """(K,) log θ by Newton's method, 0 where a group is not counted."""
        for _ in range(100):
            _, _, centred, curve = self._at()
            gradient = centred.T @ (self.w * self.y) - self.ridge * self.beta
            step = np.linalg.pinv(curve, hermitian=True) @ gradient
            self.beta = self.beta + step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
            if np.abs(step).max() < 1e-9 or np.abs(self.beta).max() > MAX_LOG + 1:
                break
        lam = np.zeros(len(self.counted))
        lam[self.free] = self.beta[: len(self.free)]
        return lam

    @property
    def influence(self) -> F64:
        """(rows, K) of each row on log θ."""
        rate, relevance, centred, curve = self._at()
        leverage = self.w * rate / (self.member @ (self.w * rate))[self.s]
        residual = self.w * (self.y - relevance * rate) / np.sqrt(1 - np.minimum(leverage, 0.99))
        out = np.zeros((len(self.y), len(self.counted)))
        out[:, self.free] = (residual[:, None] * centred) @ np.linalg.pinv(curve, hermitian=True)[:, : len(self.free)]
        return out

    @property
    def information(self) -> float:
        """Spread of the positions that clicks could have been at, within items, as a share of that without regard to the item."""
        rate, relevance, centred, _ = self._at()
        share = self.w * rate * relevance
        share = share / share.sum()
        z, k = self.z[:, : len(self.free)], len(self.free)
        z = np.hstack([1 - z.sum(axis=1, keepdims=True), z])
        own = np.hstack([-centred[:, :k].sum(axis=1, keepdims=True), centred[:, :k]])
        inside = float(share @ (own**2).sum(axis=1))
        outside = 1 - float(((share @ z) ** 2).sum())
        return inside / max(outside, 1e-300)


def _nothing_to_compare(shown: F64) -> str:
    several = (shown > 0).sum(axis=1) > 1
    return (
        f"of {int((shown.sum(axis=1) > 0).sum()):,} items {int(several.sum()):,} were shown at several positions, {int((several & (shown[:, 0] > 0)).sum()):,} of these at the "
        "first as well, and none of them was clicked where that would tell: position and item cannot be told apart. Randomise or swap some slots for a while "
        "(the first with another is enough), or give a known curve: Examination.of({1: 1.0, 2: 0.7})."
    )


def context_test(strata: Ints, group: Ints, y: F64, w: F64, n_groups: int, units: Ints, x: F64 | None = None) -> float:
    """p-value of θ being the same among items that mostly stand high as among those that mostly stand low.

    Items are parted by their mean position, which has seen no click. A Wald test clustered by user; NaN where the halves share
    no position. Fang, Agarwal & Joachims (2019) for why θ may depend on the context.
    """
    rows = np.bincount(strata, w)
    mean = np.bincount(strata, w * group) / np.maximum(rows, 1e-300)
    order = np.argsort(mean, kind="stable")
    high = np.empty(len(mean), dtype=bool)
    high[order] = np.cumsum(rows[order]) > rows.sum() / 2
    halves = []
    for half in (high[strata], ~high[strata]):
        try:
            halves.append((half, harvest(strata[half], group[half], y[half], w[half], n_groups, None if x is None else x[half])))
        except (EstimationError, ValueError):
            return float("nan")
    both = np.isfinite(halves[0][1].log_theta) & np.isfinite(halves[1][1].log_theta)
    both &= np.min([np.bincount(group[h], w[h] * y[h], n_groups) for h, _ in halves], axis=0) >= 5
    both[0] = False
    if not both.any():
        return float("nan")
    gap = np.zeros((len(y), int(both.sum())))
    for sign, (half, curve) in zip((1.0, -1.0), halves, strict=True):
        gap[half] = sign * curve.influence[:, both]
    covariance, clusters = summed_covariance(gap, units)
    return wald(halves[0][1].log_theta[both] - halves[1][1].log_theta[both], covariance, clusters)[2]


def summed_covariance(influence: F64, units: Ints) -> tuple[F64, int]:
    """G/(G − 1) Σ_g s_g s_g', s_g the sum of influences of user g, and G, the users with any."""
    sums = np.column_stack([np.bincount(units, column) for column in influence.T])
    g = int((np.abs(sums).sum(axis=1) > 0).sum())
    return np.asarray(sums.T @ sums * (g / max(g - 1, 1))), g


def estimated_weights(strata: Ints, group: Ints, x: F64, n_groups: int) -> F64:
    """(m,) P(k | s) / P(k | s, x) of each row at the position it got, so that an item's rows are alike in x at all positions.

    P(k | s, x) ∝ o_sk^c exp(b_k + γ_k'(x − x̄_s) + δ_k'x̄_s), o the item's other rows' shares of the positions, shrunk towards those of
    all items, and a unit prior on b, γ and δ. Within an item this is
    the tilt of a normal x whose mean moves with k.
    """
    n, k = len(group), n_groups
    share = np.bincount(group, minlength=k) / n
    counts = np.bincount(strata * k + group, minlength=(int(strata.max()) + 1) * k).reshape(-1, k).astype(np.float64)
    rows = counts.sum(axis=1)
    others = counts[strata]
    others[np.arange(n), group] -= 1
    offset = np.log((others + SMOOTH * k * share) / (others.sum(axis=1, keepdims=True) + SMOOTH * k))
    mean = np.column_stack([np.bincount(strata, c) / np.maximum(rows, 1) for c in x.T])[strata]
    z = np.hstack([np.ones((n, 1)), x - mean, mean])
    got = np.arange(n), group

    def loss(flat: F64) -> tuple[float, F64]:
        b = flat[1:].reshape(-1, k)
        eta = flat[0] * offset + z @ b
        norm = logsumexp(eta, axis=1)
        p = np.exp(eta - norm[:, None])
        value = norm.sum() - eta[got].sum() + 0.5 * (b**2).sum()
        p[got] -= 1
        return float(value), np.r_[(p * offset).sum(), (z.T @ p + b).ravel()]

    found = minimize(loss, np.r_[1.0, np.zeros(z.shape[1] * k)], jac=True, method="L-BFGS-B", options={"maxiter": 100, "ftol": 1e-8}).x
    eta = found[0] * offset + z @ found[1:].reshape(-1, k)
    return np.asarray(np.exp(offset[got] - eta[got] + logsumexp(eta, axis=1)))


def item_r2(strata: Ints, position: F64) -> float:
    """Share of the variance of position that the item explains beyond chance: 1 − MS within / MS total; NaN without repeats."""
    rows = np.bincount(strata)
    mean = np.bincount(strata, position) / np.maximum(rows, 1)
    spare, n = len(position) - int((rows > 0).sum()), len(position)
    total = float(((position - position.mean()) ** 2).sum()) / max(n - 1, 1)
    if spare < 10 or total == 0:
        return float("nan")
    return float(1 - ((position - mean[strata]) ** 2).sum() / spare / total)
