"""Pairs of rows of different users: score statistics and products of residuals in a further representation.

With residuals r, h and vectors z of the rows, and K_ij = z_i·z_j (or 1 if i and j are of one group, else 0),

    Q(r, h) = Σ_{i≠j, other user, same fold} K_ij r_i h_j = Σ_folds (Σ_u a_u)·(Σ_u b_u) − Σ_u a_u·b_u,

a_u and b_u being the sums of r z and h z over the rows of user u. It costs no more than these sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Sums = Any
"""(users, q), dense or sparse."""
DRAWS = 399
AT_ONCE = 50


@dataclass(frozen=True, eq=False)
class Kernel:
    """A further representation: row i has the vector ``values[codes[i]]``, or is a member of the group ``codes[i]``.

    Attributes
    ----------
    name : str
    codes : (n,)
    values : (u, q) of mean 0 and covariance I over the rows; None for groups, K_ij = 1{codes_i = codes_j}
    """

    name: str
    codes: Ints
    values: F64 | None = None

    def by_user(self, r: F64, rows: Ints, users: Ints, scale: F64 | None = None) -> Sums:
        """Σ of r_i z_i over the given rows of each user, (users, q); `r` is (n,), `users` codes those rows.

        `scale`, (u,), multiplies the members of each group.
        """
        value = r[rows] if scale is None else r[rows] * scale[self.codes[rows]]
        width = int(self.codes.max()) + 1 if self.values is None else len(self.values)
        shape = (int(users.max()) + 1, width)
        sums = sparse.csr_matrix((value, (users, self.codes[rows])), shape=shape)
        return sums if self.values is None else np.asarray(sums @ self.values)


@dataclass(frozen=True, eq=False)
class Residuals:
    """Out-of-fold residuals, (n,) each, and who shares what.

    Attributes
    ----------
    exposure, outcome : T − e and Y − m_T, times the row weights
    influence : what Y − m_T of a row does to the effect where e is off by one, times the row weights
    weights : (n,)
    fold, units : (n,) codes
    """

    exposure: F64
    outcome: F64
    influence: F64
    weights: F64
    fold: Ints
    units: Ints

    def folds(self) -> Iterator[tuple[Ints, Ints]]:
        """(rows, their users as codes 0, 1, …) of each fold."""
        for k in range(int(self.fold.max()) + 1):
            rows = np.flatnonzero(self.fold == k)
            yield rows, np.unique(self.units[rows], return_inverse=True)[1]


def score_test(
    residual: F64, kernels: tuple[Kernel, ...], r: Residuals, rng: np.random.Generator, draws: int = DRAWS
) -> tuple[F64, float]:
    """Standardised Q of each kernel, and the p-value of the largest of them among draws of signs by user."""
    q, drawn = np.zeros(len(kernels)), np.zeros((len(kernels), draws))
    for rows, users in r.folds():
        sums = [kernel.by_user(residual, rows, users) for kernel in kernels]
        own = np.array([_squares(one) for one in sums])
        q += [float((_total(one) ** 2).sum()) for one in sums] - own
        for start in range(0, draws, AT_ONCE):
            here = slice(start, min(start + AT_ONCE, draws))
            signs = _signs(sums[0].shape[0], here.stop - start, rng)
            drawn[:, here] += [
                ((one.T @ signs) ** 2).sum(axis=0) - o for one, o in zip(sums, own, strict=True)
            ]
    sd = drawn.std(axis=1)
    z, z_drawn = q / np.maximum(sd, 1e-300), drawn / np.maximum(sd, 1e-300)[:, None]
    above = int((z_drawn.max(axis=0) >= z.max()).sum())
    return z, (1 + above) / (1 + draws)


def product(kernel: Kernel, r: Residuals, rng: np.random.Generator) -> tuple[float, float]:
    """Bias of the effect by what this representation sees left in both, and its standard error by user.

    Words: the mean of K_ij r_i h_j over pairs, h the influence; the part of the bias that is linear in z. Items: the mean
    over impressions of r_i h_j over the partners j of the same item. The variance is Σ_u p_u² − V₀, p_u being the
    change of the sum without user u and V₀ its variance without anything left, which the former counts twice.
    """
    total, weight, linear, noise = 0.0, 0.0, 0.0, 0.0
    for rows, users in r.folds():
        scale = _partners(kernel, rows)
        a, h = (kernel.by_user(v, rows, users, scale) for v in (r.exposure, r.influence))
        change = _times(a, _total(h)) + _times(h, _total(a)) - 2 * _inner(a, h)
        total += change.sum() / 2
        linear += float(((change - change.mean()) ** 2).sum())
        noise += _noise(a, h, rng)
        weight += _pair_weight(kernel, r, rows, users, scale)
    if weight <= 0:
        return 0.0, float("inf")
    return total / weight, float(np.sqrt(max(linear - noise, noise)) / weight)


def _partners(kernel: Kernel, rows: Ints) -> F64 | None:
    """(u,) √(1/(m − 1)) of groups of m rows in this fold, so that K_ij averages over partners; None for vectors."""
    if kernel.values is not None:
        return None
    m = np.bincount(kernel.codes[rows], minlength=int(kernel.codes.max()) + 1)
    return np.where(m > 1, 1 / np.sqrt(np.maximum(m - 1, 1)), 0.0)


def _pair_weight(kernel: Kernel, r: Residuals, rows: Ints, users: Ints, scale: F64 | None) -> float:
    """Σ_{i≠j, other user} w_i w_j, over all pairs of the fold or those within a group."""
    if kernel.values is not None:
        w = np.bincount(users, r.weights[rows])
        return float(w.sum() ** 2 - (w**2).sum())
    sums = kernel.by_user(r.weights, rows, users, scale)
    return float((_total(sums) ** 2).sum()) - _squares(sums)


def count_pairs(kernel: Kernel, r: Residuals) -> float:
    """Pairs of rows of one group, by different users of one fold."""
    ones = np.ones_like(r.weights)
    even = replace(r, weights=ones)
    return sum(_pair_weight(kernel, even, rows, users, None) for rows, users in r.folds()) / 2


def _noise(a: Sums, h: Sums, rng: np.random.Generator) -> float:
    """Variance over signs by user of Σ_{u≠v} a_u·h_v."""
    own, drawn = float(_inner(a, h).sum()), []
    for _ in range(-(-DRAWS // AT_ONCE)):
        signs = _signs(a.shape[0], AT_ONCE, rng)
        drawn.append(((a.T @ signs) * (h.T @ signs)).sum(axis=0) - own)
    return float(np.concatenate(drawn).var())


def _signs(users: int, draws: int, rng: np.random.Generator) -> F64:
    return rng.choice(np.array([-1.0, 1.0]), size=(users, draws))


def _total(sums: Sums) -> F64:
    return np.asarray(sums.sum(axis=0), dtype=np.float64).ravel()


def _inner(a: Sums, b: Sums) -> F64:
    """Σ_q a_uq b_uq, (users,)."""
    products = a.multiply(b) if sparse.issparse(a) else a * b
    return np.asarray(products.sum(axis=1), dtype=np.float64).ravel()


def _squares(sums: Sums) -> float:
    return float(_inner(sums, sums).sum())


def _times(sums: Sums, vector: F64) -> F64:
    return np.asarray(sums @ vector, dtype=np.float64).ravel()
