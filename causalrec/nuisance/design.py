"""The design matrix, kept in the parts it is made of.

A click log repeats few texts in many rows. A block of u distinct d-vectors is multiplied as (u, d) and then
gathered, so that the cost of a pass grows with the distinct texts, not with the impressions. No row is ever
copied for a fold: folds and arms are zero weights.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
CHUNK = 65_536
"""Rows that are weighted at once, so that no copy of the whole design is made."""
Shrinkage = Literal["chosen", "light"]
"""``chosen``: penalty picked by held-out loss (representations, wide groups); ``light``: a unit prior (few columns)."""


@dataclass(frozen=True, eq=False)
class Part:
    """Some columns of the design: ``values[codes]``, or ``values`` itself where codes is None.

    Attributes
    ----------
    owners : tuple of str, (d,)
        The node of the plan (a block or a column of the log) that each column came from.
    values : (u, d) float32, centred
    codes : (n,) or None
    shrinkage : "chosen" or "light"
    """

    owners: tuple[str, ...]
    values: F32
    codes: Ints | None
    shrinkage: Shrinkage

    @property
    def width(self) -> int:
        """Columns, d."""
        return int(self.values.shape[1])

    def keep(self, names: Collection[str]) -> Part | None:
        """The columns of some nodes, or None if there are none."""
        here = np.array([owner in names for owner in self.owners])
        if here.all():
            return self
        if not here.any():
            return None
        owners = tuple(o for o, kept in zip(self.owners, here, strict=True) if kept)
        return replace(self, owners=owners, values=np.ascontiguousarray(self.values[:, here]))

    @cached_property
    def _members(self) -> sparse.csr_matrix:
        """(u, n) indicator: which rows have each distinct value."""
        n = len(self.codes)  # type: ignore[arg-type]
        ones = np.ones(n, dtype=np.float32)
        return sparse.csr_matrix((ones, (self.codes, np.arange(n))), shape=(len(self.values), n))

    def matmul(self, b: F32) -> F32:
        """Part @ b, (n, k)."""
        product = self.values @ b
        return product if self.codes is None else product[self.codes]

    def gather(self, r: F32) -> F32:
        """Sums of r over the rows of each distinct value, (u, k)."""
        return r if self.codes is None else self._members @ r

    def cross(self, other: Part, v: F32) -> F32:
        """Part.T @ diag(v) @ other, (d, d')."""
        if self.codes is None and other.codes is None:
            out = np.zeros((self.width, other.width), dtype=np.float32)
            for a in range(0, len(v), CHUNK):
                here = slice(a, a + CHUNK)
                out += (self.values[here] * v[here, None]).T @ other.values[here]
            return out
        if self.codes is None:
            return other.cross(self, v).T
        if other is self:
            return self.values.T @ (self.gather(v[:, None]) * self.values)
        weighted = self._members.copy()
        weighted.data = v[weighted.indices]
        if other.codes is None:
            return self.values.T @ (weighted @ other.values)
        return self.values.T @ ((weighted @ other._members.T) @ other.values)


@dataclass(frozen=True, eq=False)
class Design:
    """Parts side by side, with a column of ones in front. Shape (n, p), p = 1 + Σ d.

    Attributes
    ----------
    parts : tuple of Part
    n : int
        Rows.
    row_hash : (n,) uint64
        Hash of what each row says, whatever its place; folds are drawn along it.
    """

    parts: tuple[Part, ...]
    n: int
    row_hash: npt.NDArray[np.uint64]

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Where each part's coefficients stand; 0 is the intercept."""
        edges = np.cumsum([1] + [p.width for p in self.parts])
        return tuple(slice(int(a), int(b)) for a, b in pairwise(edges))

    @property
    def p(self) -> int:
        """Columns with the intercept."""
        return 1 + sum(part.width for part in self.parts)

    def matmul(self, b: F32) -> F32:
        """X @ b, (n, k)."""
        out = np.repeat(b[:1], self.n, axis=0)
        for part, where in zip(self.parts, self.slices, strict=True):
            out += part.matmul(b[where])
        return out

    def rmatmul(self, r: F32) -> F64:
        """X.T @ r, (p, k)."""
        out = np.empty((self.p, r.shape[1]))
        out[0] = r.sum(axis=0, dtype=np.float64)
        for part, where in zip(self.parts, self.slices, strict=True):
            out[where] = part.values.T @ part.gather(r)
        return out

    def columns_at(self, active: npt.NDArray[np.intp]) -> Design:
        """The operator for some columns of b only; a shared design is the same for all."""
        return self

    def variances(self, w: F32) -> F64:
        """Weighted variance of each column under each weighting, (p, k); the intercept's is 0."""
        out = np.zeros((self.p, w.shape[1]))
        total = w.sum(axis=0, dtype=np.float64)
        for part, where in zip(self.parts, self.slices, strict=True):
            sums = part.gather(w)
            mean = (part.values.T @ sums) / total
            out[where] = np.maximum((part.values**2).T @ sums / total - mean.astype(np.float64) ** 2, 0)
        return out

    @cached_property
    def gram(self) -> F64:
        """X.T @ X / n in all rows, (p, p). Only a preconditioner: it steers the path of a solve, not its end."""
        return self.weighted_gram(np.ones(self.n, dtype=np.float32)) / self.n

    def weighted_gram(self, v: F32) -> F64:
        """X.T @ diag(v) @ X, (p, p)."""
        out = np.empty((self.p, self.p))
        out[0, 0] = v.sum(dtype=np.float64)
        for i, (part, where) in enumerate(zip(self.parts, self.slices, strict=True)):
            out[where, 0] = out[0, where] = (part.values.T @ part.gather(v[:, None]))[:, 0]
            for other, there in zip(self.parts[i:], self.slices[i:], strict=True):
                out[where, there] = part.cross(other, v)
                out[there, where] = out[where, there].T
        return out

    def keep(self, names: Collection[str]) -> Design:
        """The design of some nodes only."""
        return replace(self, parts=tuple(kept for p in self.parts if (kept := p.keep(names)) is not None))

    @property
    def owners(self) -> tuple[str, ...]:
        """The nodes that have a column here, in order."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.owners))

    def dense(self) -> F32:
        """The (n, p − 1) matrix without the intercept, for learners that need one."""
        if not self.parts:
            return np.zeros((self.n, 0), dtype=np.float32)
        return np.hstack([p.values if p.codes is None else p.values[p.codes] for p in self.parts])


@dataclass(frozen=True, eq=False)
class PrivateColumn:
    """A design plus one further column that is another one in each of k problems: X_c = [X, z_c].

    Attributes
    ----------
    design : Design
    z : (n, k) float32
        The private columns, of mean 0 and variance 1.
    """

    design: Design
    z: F32

    @property
    def n(self) -> int:
        """Rows."""
        return self.design.n

    @property
    def p(self) -> int:
        """Columns with the intercept and the private one, which stands last."""
        return self.design.p + 1

    def matmul(self, b: F32) -> F32:
        """X_c @ b_c for each c, (n, k)."""
        return self.design.matmul(b[:-1]) + self.z * b[-1]

    def rmatmul(self, r: F32) -> F64:
        """X_c.T @ r_c for each c, (p, k)."""
        return np.vstack([self.design.rmatmul(r), np.einsum("nk,nk->k", self.z, r, dtype=np.float64)[None]])

    def columns_at(self, active: npt.NDArray[np.intp]) -> PrivateColumn:
        """The operator for some of the problems."""
        return PrivateColumn(self.design, self.z[:, active])

    @property
    def gram(self) -> F64:
        """That of the design, with a unit variance for the private column."""
        return self._bordered(self.design.gram, 1.0)

    def weighted_gram(self, v: F32) -> F64:
        """That of the design, with a unit variance for the private column."""
        return self._bordered(self.design.weighted_gram(v), float(v.sum(dtype=np.float64)))

    def _bordered(self, gram: F64, corner: float) -> F64:
        out = np.zeros((self.p, self.p))
        out[:-1, :-1] = gram
        out[-1, -1] = corner
        return out
