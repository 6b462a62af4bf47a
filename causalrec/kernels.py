"""Which rows are partners, and sums over them: rows of one item or user, or, by weight, rows whose words are alike.

Partners never share a user (for pairs of one user: an item). A *cluster* kernel counts the rows of the same cluster
alike, k(i, j) = 1{same cluster}. A *basis* kernel weighs all other users' rows by k(i, j) = z_i'z_j with z a whitened basis
(Σ w z z' / Σ w = I, its first column 1), so that the mean over partners, Σ_j w_j k(i, j) x_j / Σ_j w_j, is the projection of
x on the basis, at i, from other rows than i's (the kernel of Robins, Li, Tchetgen & van der Vaart 2008, eq. 3.3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Index = npt.NDArray[np.intp]
TINY = 1e-300
LEAST_AXIS = 1e-6
"""Share of the largest variance below which an axis of a basis is dropped: it is rounding."""


@dataclass(frozen=True, eq=False)
class Values:
    """Some rows under nuisances that none of their users, nor their partners' users, trained.

    Attributes
    ----------
    rows : (m,) row numbers
    e, m0, m1 : (m,) nuisances, e clipped
    e_words, m0_words, m1_words : (m,) the same without item effects
    """

    rows: Index
    e: Floats
    m0: Floats
    m1: Floats
    e_words: Floats
    m0_words: Floats
    m1_words: Floats


@dataclass(frozen=True, eq=False)
class BlockOfPairs:
    """Pairs between two sets of rows; ``second`` is None where the pairs are those within ``first``."""

    first: Values
    second: Values | None


Blocks = Callable[[], Iterable[BlockOfPairs]]


@dataclass(frozen=True, eq=False)
class Rows:
    """What is known of the rows.

    Attributes
    ----------
    t, y, w : (n,)
    units : (n,) codes
    items : (n,) codes, −1 where the item was shown once; or None
    """

    t: Floats
    y: Floats
    w: Floats
    units: Ints
    items: Ints | None


class Partners(Protocol):
    """Two sets of rows that meet: sums over the partners of the first's rows ``i`` among the second's rows ``j``."""

    i: Index
    j: Index

    def met(self) -> Floats:
        """(len(i),) summed weight of the partners that each row i meets here."""

    def of_rows(self, x: Floats) -> Floats:
        """(len(i),) Σ_j w_j k(i, j) x_j; x is (m_j,), of all rows of the second set."""

    def back(self, x: Floats) -> Floats:
        """(len(j),) w_j Σ_i k(i, j) x_i; x is (len(i),)."""

    def alike(self, x: Floats, other: Floats) -> Floats:
        """Σ_i x_i Σ_j w_j k(i, j) other_j, divided by cluster, or by axis; x is (len(i),), other (m_j,)."""


@dataclass(frozen=True, eq=False)
class Kernel:
    """Which rows are partners.

    Attributes
    ----------
    name : "same_item", "same_user" or "basis"
    partners : (n,) summed weight of each row's partners
    within : bool
        All partners stand in the row's own set of rows.
    """

    name: str
    partners: Floats
    within: bool

    @property
    def served(self) -> npt.NDArray[np.bool_]:
        """(n,) rows that have a partner."""
        return self.partners > 0

    def only(self, rows: npt.NDArray[np.bool_]) -> Kernel:
        """The kernel for some rows; the others are partners only."""
        return replace(self, partners=np.where(rows, self.partners, 0.0))

    def meet(self, rows: Rows, mine: Index, theirs: Index, same: bool) -> Partners:
        """The pairs between two sets of rows, or within one."""
        raise NotImplementedError

    def spread(self, x: Floats, w: Floats) -> Floats:
        """(n,) what is taken off each row's influence so that each pair counts once in the variance."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class ClusterKernel(Kernel):
    """Partners have the same `cluster` and another `other`.

    Attributes
    ----------
    cluster : (n,) codes, −1 for rows that have no cluster
    other : (n,) codes of what must differ (the user, or the item)
    """

    cluster: Ints
    other: Ints

    def meet(self, rows: Rows, mine: Index, theirs: Index, same: bool) -> Partners:  # noqa: D102
        return _InCluster(rows, self, mine, theirs, same)

    def among(self, members: npt.NDArray[np.bool_], w: Floats) -> ClusterKernel:
        """The kernel among some rows; the others are nobody's partners."""
        cluster = np.where(members, self.cluster, -1)
        return replace(self, cluster=cluster, partners=_partner_weight(cluster, self.other, w))

    def spread(self, x: Floats, w: Floats) -> Floats:
        """Each cluster's total of x, shared out over its rows by weight."""
        out = np.zeros_like(x)
        here = self.cluster >= 0
        c = self.cluster[here]
        if here.any():
            out[here] = w[here] * (np.bincount(c, x[here]) / np.maximum(np.bincount(c, w[here]), TINY))[c]
        return out


class _InCluster:
    def __init__(self, rows: Rows, kernel: ClusterKernel, mine: Index, theirs: Index, same: bool) -> None:
        self.i = np.flatnonzero(kernel.cluster[mine] >= 0)
        self.j = np.flatnonzero(kernel.cluster[theirs] >= 0)
        self.ci, self.cj = kernel.cluster[mine[self.i]], kernel.cluster[theirs[self.j]]
        self.size = int(max(self.ci.max(initial=-1), self.cj.max(initial=-1))) + 1
        self.parts = int(kernel.cluster.max(initial=-1)) + 1
        self.wj = rows.w[theirs[self.j]]
        self.cells = pair_codes(self.ci, kernel.other[mine[self.i]]) if same else None
        self.m = len(theirs)

    def met(self) -> Floats:
        return self.of_rows(np.ones(self.m))

    def of_rows(self, x: Floats) -> Floats:
        if not len(self.i):
            return np.empty(0)
        v = self.wj * x[self.j]
        out = np.bincount(self.cj, v, self.size)[self.ci].astype(np.float64)
        if self.cells is not None:
            out = out - np.bincount(self.cells, v)[self.cells]
        return out

    def back(self, x: Floats) -> Floats:
        if not len(self.j):
            return np.empty(0)
        out = np.bincount(self.ci, x, self.size)[self.cj]
        if self.cells is not None:
            out = out - np.bincount(self.cells, x)[self.cells]
        return self.wj * out

    def alike(self, x: Floats, other: Floats) -> Floats:
        return np.bincount(self.ci, x * self.of_rows(other), self.parts).astype(np.float64)


@dataclass(frozen=True, eq=False)
class BasisKernel(Kernel):
    """All rows of other users are partners, weighed by z_i'z_j.

    The pairs of a basis have no clusters over which a pair could count once: each counts with both of its rows, and the
    variance of the pairs themselves enters twice.

    Attributes
    ----------
    z : (n, q) float32
    """

    z: F32

    def meet(self, rows: Rows, mine: Index, theirs: Index, same: bool) -> Partners:  # noqa: D102
        return _OnBasis(rows, self, mine, theirs, same)

    def spread(self, x: Floats, w: Floats) -> Floats:
        """The total over all rows: there are no clusters whose rows could stand for a pair."""
        return np.asarray(w * (x.sum() / w.sum()), dtype=np.float64)


class _OnBasis:
    def __init__(self, rows: Rows, kernel: BasisKernel, mine: Index, theirs: Index, same: bool) -> None:
        self.i, self.j = np.arange(len(mine)), np.arange(len(theirs))
        self.zi, self.zj = kernel.z[mine], kernel.z[theirs]
        self.wj = rows.w[theirs]
        self.own = _OwnUser(rows.units[mine], self.zi) if same else None

    def met(self) -> Floats:
        total = np.full(len(self.i), self.wj.sum())
        return total if self.own is None else total - self.own.total(self.wj)

    def of_rows(self, x: Floats) -> Floats:
        v = self.wj * x
        out = _times(self.zi, _sums(self.zj, v))
        return out if self.own is None else out - self.own.weighed(v)

    def back(self, x: Floats) -> Floats:
        out = _times(self.zj, _sums(self.zi, x))
        return self.wj * (out if self.own is None else out - self.own.weighed(x))

    def alike(self, x: Floats, other: Floats) -> Floats:
        v = self.wj * other
        out = _sums(self.zi, x) * _sums(self.zj, v)
        return out if self.own is None else out - self.own.by_axis(x, v)


class _OwnUser:
    """Sums over the rows of the same user, the row itself among them."""

    def __init__(self, units: Ints, z: F32) -> None:
        self.code = np.unique(units, return_inverse=True)[1].astype(np.int64)
        self.size = int(self.code.max(initial=-1)) + 1
        self.order = np.argsort(self.code, kind="stable")
        self.starts = np.searchsorted(self.code[self.order], np.arange(self.size))
        self.z = z
        self.squared = np.einsum("ij,ij->i", z, z, dtype=np.float64) if self.size == len(units) else None

    def total(self, v: Floats) -> Floats:
        return np.bincount(self.code, v, self.size)[self.code].astype(np.float64)

    def _by_user(self, v: Floats) -> Floats:
        """(users, q) Σ v z."""
        weighed = (self.z * v[:, None])[self.order]
        return np.asarray(np.add.reduceat(weighed, self.starts, axis=0), dtype=np.float64)

    def weighed(self, v: Floats) -> Floats:
        if self.squared is not None:
            return self.squared * v
        return np.einsum("ij,ij->i", self.z, self._by_user(v)[self.code])

    def by_axis(self, x: Floats, v: Floats) -> Floats:
        if self.squared is not None:
            return np.asarray((x * v) @ np.square(self.z, dtype=np.float64), dtype=np.float64)
        return np.einsum("ij,ij->j", self._by_user(x), self._by_user(v))


def _times(z: F32, beta: Floats) -> Floats:
    return (z @ beta.astype(np.float32)).astype(np.float64)


def _sums(z: F32, v: Floats) -> Floats:
    return (v.astype(np.float32) @ z).astype(np.float64)


def cluster_kernel(name: str, rows: Rows, sets: Ints, across: bool) -> ClusterKernel:
    """The partners of each row by item or by user.

    Parameters
    ----------
    name : "same_item" or "same_user"
    rows : Rows
    sets : (n,)
        Set of rows (sub-fold) of each row; without `across`, only rows of one set are partners.
    """
    if name == "same_user":
        cluster, other = rows.units, _own_codes(rows.items, len(rows.t))
    else:
        assert rows.items is not None
        cluster, other = rows.items, rows.units
    if not across:
        cluster = np.where(cluster < 0, -1, cluster * (int(sets.max()) + 1) + sets)
        used = cluster >= 0
        cluster[used] = np.unique(cluster[used], return_inverse=True)[1]
    partners = _partner_weight(cluster, other, rows.w)
    return ClusterKernel(name, partners, name == "same_user" or not across, cluster, other)


def _partner_weight(cluster: Ints, other: Ints, w: Floats) -> Floats:
    """(n,) summed weight of the rows of the same cluster and another `other`."""
    here = np.flatnonzero(cluster >= 0)
    partners = np.zeros(len(w))
    if len(here):
        c = cluster[here]
        same = pair_codes(c, other[here])
        partners[here] = np.bincount(c, w[here])[c] - np.bincount(same, w[here])[same]
        partners[partners < 1e-9 * w.max()] = 0.0
    return partners


def basis_kernel(columns: F32, rows: Rows, sets: Ints, across: bool, most: int) -> BasisKernel:
    """Partners by a basis, whitened under the rows' weights.

    Parameters
    ----------
    columns : (n, d)
        The basis before it is centred and whitened; it has seen neither treatment nor outcome.
    most : int
        At most so many columns: the leading principal axes.
    """
    share = (rows.w / rows.w.sum()).astype(np.float32)
    x = columns - share @ columns
    variance, axes = np.linalg.eigh((x.T @ (x * share[:, None])).astype(np.float64))
    kept = np.flatnonzero(variance > LEAST_AXIS * max(float(variance[-1]), LEAST_AXIS))[::-1][: max(most, 1)]
    turned = x @ (axes[:, kept] / np.sqrt(variance[kept])).astype(np.float32)
    z = np.column_stack([np.ones(len(x), dtype=np.float32), turned])
    whole = np.zeros(len(x), dtype=np.int64) if across else sets
    partners = (np.bincount(whole, rows.w)[whole] - np.bincount(rows.units, rows.w)[rows.units]).astype(
        np.float64
    )
    partners = np.where((rows.w > 0) & (partners > 1e-9 * rows.w.max()), partners, 0.0)
    return BasisKernel("basis", partners, not across, np.ascontiguousarray(z))


def serve_both(first: Kernel, by_user: ClusterKernel, rows: Rows) -> list[Kernel]:
    """The two kernels for rows that have partners of both kinds; partners by user have partners of the first kind themselves."""
    inside = by_user.among(first.served, rows.w)
    both = first.served & inside.served
    return [first.only(both), inside.only(both)]


def _own_codes(items: Ints | None, n: int) -> Ints:
    """Item codes in which every row without an item, or with one shown once, has a code of its own."""
    if items is None:
        return np.arange(n, dtype=np.int64)
    return np.where(items < 0, np.arange(n) + int(items.max(initial=0)) + 1, items).astype(np.int64)


def pair_codes(a: Ints, b: Ints) -> Ints:
    """Codes of (a, b) pairs, (m,)."""
    return np.unique(a * (int(b.max(initial=0)) + 1) + b, return_inverse=True)[1].astype(np.int64)
