"""How products of residuals go with the likeness of two texts: what the bias is at likeness 1.

Pairs of rows of different units whose texts are alike share what acts on both; a regression on likeness says how much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from causalrec import scores
from causalrec.blocks import Block
from causalrec.errors import ArgumentError, EstimationError
from causalrec.estimate.first_order import first_order
from causalrec.nuisance import Clip
from causalrec.nuisance.columns import Covariate
from causalrec.second_order import PairEstimate

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Texts = tuple[str, Sequence[str], Ints]
"""Name of a text column, its (u,) distinct texts, and (n,) which of them each row has."""
NARROW = 30
"""A representation of no more columns than this is learnt nearly in full: its similarity is not asked for."""
MAX_WORDS = 5_000
CHUNK = 20_000
"""Rows that are held in double precision at a time."""
MORE_OR_LESS = 0.5
"""Share of what like texts show of the bias by which intervals allow it to be more or less."""
MOST_OWN_PAIRS = 1_000_000
"""Pairs of rows of one unit up to which the same goes: they are taken off one by one, about six seconds a million."""
MOST_ROWS = 200_000
"""Rows up to which texts are compared without being asked to."""
MAX_PAIRS = 20_000_000


@dataclass(frozen=True, eq=False)
class Similarity:
    """K(i, j) = (z_i − μ)'(z_j − μ) with z = scale · values[codes], of mean 1 at i = j.

    Dense values stay in the precision that they have, and are taken to double some thousand rows at a time.
    """

    name: str
    values: Any
    codes: Ints
    mean: F64
    scale: float

    @classmethod
    def of(cls, name: str, values: Any, codes: Ints, w: F64) -> Similarity | None:
        """From (u, p) features, dense or sparse; None if they are the same in all rows."""
        counts = np.asarray(np.bincount(codes, w, values.shape[0]) / w.sum(), dtype=np.float64)
        plain = cls(name, values, codes, np.zeros(values.shape[1]), 1.0)
        mean = plain._back(counts)
        squares = np.concatenate([_squares(plain._some(rows)) for rows in plain._slices()])
        spread = float(counts @ squares - mean @ mean)
        if spread <= 1e-9:
            return None
        scale = 1 / np.sqrt(spread)
        return cls(name, values, codes, mean * scale, float(scale))

    def _slices(self) -> list[slice]:
        return [slice(k, k + CHUNK) for k in range(0, self.values.shape[0], CHUNK)]

    def _some(self, rows: Any) -> Any:
        """Some distinct z, (m, p), in double precision."""
        found = self.values[rows]
        return (found if sparse.issparse(found) else found.astype(np.float64)) * self.scale

    def _back(self, v: npt.NDArray[Any]) -> F64:
        """Σ_u v_u z_u, (p,)."""
        return np.asarray(
            np.sum([np.asarray(self._some(rows).T @ v[rows]).ravel() for rows in self._slices()], axis=0)
        )

    def _onto(self, b: F64) -> F64:
        """z_u'b, (u,)."""
        return np.concatenate([np.asarray(self._some(rows) @ b).ravel() for rows in self._slices()])

    def times(self, v: F64) -> F64:
        """K v, (n,)."""
        b = self._back(np.bincount(self.codes, v, self.values.shape[0])) - self.mean * v.sum()
        return np.asarray((self._onto(b) - self.mean @ b)[self.codes])

    def at(self, i: Ints, j: Ints) -> F64:
        """K of these pairs of rows."""
        shift, out = self._onto(self.mean), np.empty(len(i))
        for start in range(0, len(i), CHUNK):
            here = slice(start, start + CHUNK)
            x, y = self._some(self.codes[i[here]]), self._some(self.codes[j[here]])
            product = x.multiply(y) if sparse.issparse(x) else x * y
            out[here] = np.asarray(product.sum(axis=1)).ravel()
        return np.asarray(out - shift[self.codes[i]] - shift[self.codes[j]] + self.mean @ self.mean)

    def overlap(self, other: Similarity, w: F64) -> float:
        """Σ_ij w_i w_j K(i, j) K'(i, j), over all pairs of rows: the squared norm of Σ_i w_i z_i z'_i."""
        shape = (self.values.shape[0], other.values.shape[0])
        meet = sparse.csr_matrix((w, (self.codes, other.codes)), shape=shape)
        product: Any = 0.0
        for rows in self._slices():
            part = meet[rows]
            met = np.unique(part.indices)
            product = product + self._some(rows).T @ (part[:, met] @ other._some(met))
        product = product.toarray() if sparse.issparse(product) else np.asarray(product)
        return float(((product - w.sum() * np.outer(self.mean, other.mean)) ** 2).sum())


def _squares(z: Any) -> F64:
    """(m,) squared lengths of rows."""
    return np.asarray((z.multiply(z) if sparse.issparse(z) else z**2).sum(axis=1), dtype=np.float64).ravel()


@dataclass(frozen=True, eq=False)
class Observed:
    """Rows, their nuisances, and what their texts say.

    Attributes
    ----------
    t, y, e, m0, m1, w : (n,) exposure, outcome, nuisances that the row's unit has not trained (e not clipped), weights
    units : (n,) codes
    clip : Clip
    covariates : sequence of Block or named Series
        Blocks of more than 30 columns are compared.
    texts : sequence of (name, distinct texts, codes)
        Whose words are compared as well.
    min_texts : int
        Words in fewer distinct texts than this are left out.
    """

    t: F64
    y: F64
    e: F64
    m0: F64
    m1: F64
    w: F64
    units: Ints
    clip: Clip
    covariates: Sequence[Covariate] = field(repr=False)
    texts: Sequence[Texts] = field(default=(), repr=False)
    min_texts: int = 5

    def among(self, here: npt.NDArray[np.bool_]) -> Observed:
        """These rows only; the others keep their place and lose their weight."""
        return replace(self, w=np.where(here, self.w, 0.0))

    def take(self, rows: Ints) -> Observed:
        """Some rows, numbered anew."""
        t, y, e, m0, m1, w = (v[rows] for v in (self.t, self.y, self.e, self.m0, self.m1, self.w))
        units = np.unique(self.units[rows], return_inverse=True)[1]
        texts = [(name, words, codes[rows]) for name, words, codes in self.texts]
        blocks = [c.take(rows) for c in self.covariates if isinstance(c, Block)]
        return Observed(t, y, e, m0, m1, w, units, self.clip, blocks, texts, self.min_texts)

    def estimate(self, estimand: str) -> tuple[PairEstimate, PairBias]:
        """The first-order effect less what pairs of rows with like texts show of its bias; and that bias."""
        a, b = first_order(estimand, self.clip, self.t, self.y, self.e, self.m0, self.m1)
        value, influence = scores.ratio_influence(a, b, self.w)
        found = pair_bias(self, estimand, value)
        used, n = self.w > 0, len(self.w)
        spread = np.where(used, n * found.rows / np.where(used, self.w, 1.0), 0.0) * float(self.w.mean())
        own = a / (float(np.average(b, weights=self.w)) or 1.0) - spread
        remains = MORE_OR_LESS * abs(found.bias)
        return PairEstimate(value - found.bias, influence - found.influence, own, np.empty(0), remains), found


def similarities(seen: Observed) -> list[Similarity]:
    """Embeddings that are adjusted for, and the TF-IDF of the words of each text column."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    w, min_texts = seen.w, seen.min_texts
    found = [
        Similarity.of(c.name, c.values, c.codes, w)
        for c in seen.covariates
        if isinstance(c, Block) and c.width > NARROW
    ]
    for name, words, codes in seen.texts:
        if len(codes) != len(w):
            raise ArgumentError(f"texts {name!r} has {len(codes):,} rows, the analysis {len(w):,}.")
        tfidf = TfidfVectorizer(
            token_pattern=r"(?u)\b\w+\b",
            min_df=min(min_texts, len(words)),
            max_features=MAX_WORDS,
            sublinear_tf=True,
        )
        try:
            found.append(Similarity.of(f"words:{name}", tfidf.fit_transform(words), codes, w))
        except ValueError:  # no word is in so many texts: nothing is shared
            continue
    some = [k for k in found if k is not None]
    if not some:
        raise EstimationError(
            f"no two texts can be compared: there is no embedding of more than {NARROW} columns and no word in {min_texts} texts. Embed the log's texts, or use another "
            "assumption: fit.bias_aware(OmittedVariable())."
        )
    return some


@dataclass(frozen=True, eq=False)
class PairBias:
    """Σ_k c_k; its influence function (n,), of mean zero; and what each row adds, (n,), which sums to it."""

    names: tuple[str, ...]
    bias: float
    influence: F64
    rows: F64


def pair_bias(seen: Observed, estimand: str, theta: float) -> PairBias:
    """The bias that pairs of rows of different units show: c = G⁻¹ h, summed.

    h_k = Σ_{i≠j} K_k(i, j) U_i V_j and G_kl = Σ_{i≠j} K_k K_l: least squares of U_i V_j on the similarities
    (Haseman & Elston, 1972), at a similarity of 1. U and V are the residuals whose conditional means are α and β.
    The influence function is twice the projection of h, conservative where the statistic is degenerate.
    """
    units, w, alike = seen.units, seen.w, similarities(seen)
    i, j = same_unit(units)
    within = [k.at(i, j) for k in alike]
    ww = w[i] * w[j]
    gram = np.array(
        [
            [k.overlap(m, w) - float((ww * within[r] * within[s]).sum()) for s, m in enumerate(alike)]
            for r, k in enumerate(alike)
        ]
    )
    weight = np.linalg.pinv(gram, hermitian=True).sum(axis=0)
    n = len(w)
    rows = np.zeros(n)
    for sign, u, v in residuals(seen, estimand, theta):
        u, v = w * u, w * v
        for c, k, own in zip(weight, alike, within, strict=True):
            ku, kv = (k.times(x) - np.bincount(i, own * x[j], n) for x in (u, v))
            rows += sign * c * (u * kv + v * ku) / 2
    bias = float(rows.sum())
    used = w > 0
    influence = np.where(used, 2 * n * (rows - bias / used.sum()), 0.0)
    return PairBias(tuple(k.name for k in alike), bias, influence, rows)


def same_unit(units: Ints) -> tuple[Ints, Ints]:
    """(P,), (P,) the ordered pairs of rows of one unit, each row with itself included."""
    counts = np.bincount(units)
    total = int((counts**2).sum())
    if total > MAX_PAIRS:
        raise EstimationError(
            f"units have {total:,} pairs of rows of their own, above {MAX_PAIRS:,}: few units have most rows. Leave 'similar' out, or use another assumption: fit.bias_aware(LearningCurve())."
        )
    order = np.argsort(units, kind="stable")
    size, start = counts[units[order]], (np.cumsum(counts) - counts)[units[order]]
    first = np.repeat(order, size)
    offset = np.arange(total) - np.repeat(np.cumsum(size) - size, size)
    return first, order[np.repeat(start, size) + offset]


def residuals(seen: Observed, estimand: str, theta: float) -> list[tuple[float, F64, F64]]:
    """(sign, U, V) with bias = Σ sign E[E(U | X) E(V | X)], to first order in V, at the propensities of the score.

    ATE: (1, T/e − 1, T (Y − m1)/e) and (−1, (1−T)/(1−e) − 1, (1−T)(Y − m0)/(1−e)).
    ATT: (1, (T − (1−T) e/(1−e)) / P(T=1), (1−T)(Y − m0)/(1−e)).
    ATO: (1, T − e, Y − e m1 − (1−e) m0 − θ (T − e)), over E[(T − e)²].
    """
    t, y, w, m0, m1 = seen.t, seen.y, seen.w, seen.m0, seen.m1
    if estimand == "ato":
        r = t - seen.e
        v = y - seen.e * m1 - (1 - seen.e) * m0 - theta * r
        return [(1.0, r / float(np.average(r**2, weights=w)), v)]
    att = estimand == "att"
    e = seen.clip.apply_above(seen.e) if att else seen.clip.apply(seen.e)
    v0 = (1 - t) * (y - m0) / (1 - e)
    if att:
        return [(1.0, (t - (1 - t) * e / (1 - e)) / float(np.average(t, weights=w)), v0)]
    return [(1.0, t / e - 1, t * (y - m1) / e), (-1.0, (1 - t) / (1 - e) - 1, v0)]
