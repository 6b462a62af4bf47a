"""Effects that vary with the words: a regression of doubly robust scores that finds by itself which words matter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from causalrec.errors import ArgumentError
from causalrec.estimate.metalearners import OnNuisances, OutOfFold, log_odds, scores_of

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
PRODUCTS_OF = 10
"""Leading axes of the embedding whose squares and products count, as in the nuisances."""
SHARE = 1 / 200
"""First guess of how much of the scores' variance is the effect's; the rest is noise of single clicks."""
SPREAD = 1.0
"""Prior standard deviation of the logarithm of a feature's importance, around what the nuisances make of it."""
FLOOR = 0.001
"""Square of the coefficient, in log odds a standard deviation, of a feature that neither exposure nor outcome depends on."""
STEPS = 40
CHUNK = 8_192


class WordEffects(OnNuisances):
    """The effect by words and modifiers: linear, with squares and products of what texts mostly differ in.

    With a the leading axes of the text's embedding (and its lexical features), and x the modifiers,

        τ = μ + x'α + a'β + Σ_{i ≤ j} a_i a_j γ_ij,   β_i ~ N(0, A u_i),   γ_ij ~ N(0, B u_i u_j):

    every feature has one importance u_i, which its own coefficient and its products share, so that words that do not matter
    drop out of both. The importances are those of the greatest marginal likelihood of the scores (automatic relevance
    determination), and are expected to be large where words matter for exposure or for the outcome: their prior is centred on
    what the nuisances make of each feature. A score counts by the inverse of its noise, σ₁²/e + σ₀²/(1 − e).

    It predicts; for single texts it has no interval, as what its features cannot say is not in one (its posterior's held .86 of
    true effects at 95 %). Rankings, groups and policies by it have theirs from held-out users.

    ``estimate(log, plan, model=WordEffects())`` and ``choose_model(fit)`` give it the features of the log's first text block.

    References
    ----------
    MacKay (1994), *Bayesian nonlinear modelling for the prediction competition*; Neal (1996), §1.2.3.
    """

    takes_words = True

    def __init__(self, widths: tuple[int, int] | None = None) -> None:
        self.widths = widths

    def _fit(
        self, y: F64, t: F64, x: F64, nuisances: OutOfFold, e: F64, w: F64 | None, scores: F64 | None
    ) -> None:
        if self.widths is None:
            raise ArgumentError(
                "WordEffects is fitted by estimate(log, plan, model=WordEffects()) or choose_model(fit), which read the words off an embedded log."
            )
        psi = scores_of(y, t, nuisances, e, scores)
        weights = _precision(y, t, nuisances, e, psi, np.ones_like(psi) if w is None else w / w.mean())
        self.features_ = _Features.of(x, self.widths)
        moments = _Moments.of(self.features_, x, psi, weights)
        outcome = 2 * nuisances.outcome_0 / max(float(np.std(y)), 1e-12)  # about log odds, of a click
        expected = _expected_importance(x[:, self.features_.q :], (log_odds(e), outcome))
        self.beta_ = _most_likely(moments, self.features_, SHARE * float(np.var(psi)), expected)
        self.level_, self.centre_ = moments.level, moments.centre

    def _effect(self, x: F64) -> F64:
        parts = [self.level_ + f @ self.beta_ for f in self._rows(x)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _rows(self, x: F64) -> Iterator[F64]:
        for first in range(0, len(x), CHUNK):
            yield self.features_.matrix(x[first : first + CHUNK]) - self.centre_


def _precision(y: F64, t: F64, nuisances: OutOfFold, e: F64, psi: F64, w: F64) -> F64:
    """(n,) w / (σ₁²/e + σ₀²/(1 − e)), the arms' mean squared residuals; scaled so that their scores vary as they say: Σ p (ψ − ψ̄)² = n."""
    one = np.mean((y - nuisances.outcome_1)[t > 0.5] ** 2)
    zero = np.mean((y - nuisances.outcome_0)[t <= 0.5] ** 2)
    p = w / np.maximum(one / e + zero / (1 - e), 1e-12)
    return np.asarray(p / np.mean(p * (psi - np.average(psi, weights=p)) ** 2))


@dataclass(frozen=True, eq=False)
class _Features:
    """Columns of x to features: modifiers standardised, words as they are, products of those that lead."""

    q: int
    axes: int
    lexical: int
    mean: F64
    scale: F64

    @classmethod
    def of(cls, x: F64, widths: tuple[int, int]) -> _Features:
        q = x.shape[1] - sum(widths)
        own = x[:, :q]
        scale = own.std(axis=0)
        return cls(q, *widths, own.mean(axis=0), np.where(scale > 0, scale, 1.0))

    @property
    def leading(self) -> npt.NDArray[np.intp]:
        """Places among the word columns of those that are multiplied."""
        return np.r_[np.arange(min(PRODUCTS_OF, self.axes)), self.axes + np.arange(self.lexical)].astype(
            np.intp
        )

    def modifiers(self, x: F64) -> F64:
        """(n, q)."""
        return (x[:, : self.q] - self.mean) / self.scale

    def words(self, x: F64) -> F64:
        """(n, axes + lexical + products)."""
        a = x[:, self.q :]
        lead = a[:, self.leading]
        i, j = np.triu_indices(lead.shape[1])
        return np.hstack([a, lead[:, i] * lead[:, j]])

    def matrix(self, x: F64) -> F64:
        """(n, D) all features."""
        return np.hstack([self.modifiers(x), self.words(x)])

    def structure(self) -> F64:
        """(D, p) log prior variances as sums of parameters: one a kind (modifiers, words, products), one a word column."""
        a, lead = self.axes + self.lexical, self.leading
        i, j = np.triu_indices(len(lead))
        out = np.zeros((self.q + a + len(i), 3 + a))
        out[: self.q, 0] = 1
        out[self.q : self.q + a, 1] = 1
        out[self.q + np.arange(a), 3 + np.arange(a)] = 1
        rows = self.q + a + np.arange(len(i))
        out[rows, 2] = 1
        np.add.at(out, (rows, 3 + lead[i]), 1)
        np.add.at(out, (rows, 3 + lead[j]), 1)
        return out

    def kinds(self) -> list[int]:
        """Features of each kind."""
        r = len(self.leading)
        return [self.q, self.axes + self.lexical, r * (r + 1) // 2]


@dataclass(frozen=True, eq=False)
class _Moments:
    """F'PF and F'Pψ of centred features, from sums by text: what repeats is multiplied once."""

    gram: F64
    cross: F64
    centre: F64
    level: float

    @classmethod
    def of(cls, features: _Features, x: F64, psi: F64, p: F64) -> _Moments:
        first, text = _distinct(x[:, features.q :])
        own, words = features.modifiers(x), features.words(x[first])
        u, total = len(first), float(p.sum())
        mass, value = np.bincount(text, p, u), np.bincount(text, p * psi, u)
        by_text = np.zeros((u, features.q))
        for j in range(features.q):
            by_text[:, j] = np.bincount(text, p * own[:, j], u)
        level = float(value.sum() / total)
        centre = np.concatenate([by_text.sum(axis=0), mass @ words]) / total
        corner = by_text.T @ words
        gram = np.block([[(own * p[:, None]).T @ own, corner], [corner.T, (words * mass[:, None]).T @ words]])
        gram -= total * np.outer(centre, centre)
        cross = np.concatenate([own.T @ (p * psi), words.T @ value]) - total * level * centre
        return cls(gram, cross, centre, level)


def _distinct(words: F64) -> tuple[npt.NDArray[np.intp], Ints]:
    """A row of each text, and the text of each row, told apart by a random projection."""
    key = words @ np.random.default_rng(0).standard_normal(words.shape[1])
    _, first, code = np.unique(np.round(key, 9), return_index=True, return_inverse=True)
    return first, code.astype(np.int64)


def _expected_importance(words: F64, targets: tuple[F64, ...]) -> F64:
    """(a,) log importances of the word columns: squared coefficients of the nuisances on them, no less than a hair, of mean 1."""
    centred = words - words.mean(axis=0)
    gram = centred.T @ centred / len(words) + 1e-3 * np.eye(words.shape[1])
    found = np.full(words.shape[1], FLOOR)
    for target in targets:
        found += np.linalg.solve(gram, centred.T @ (target - target.mean()) / len(words)) ** 2
    return np.asarray(np.log(found / found.mean()))


def _most_likely(moments: _Moments, features: _Features, spread: float, expected: F64) -> F64:
    """Posterior mean of the coefficients, (D,), at the prior variances of the greatest marginal likelihood.

    ½ log|C| − ½ Σ log v_j + ½ b'Cb with C = (F'PF + diag 1/v)⁻¹ and b = F'Pψ; its gradient in log v_j is ½ ((m_j² + C_jj)/v_j − 1).
    Log importances have the prior N(expected, SPREAD²).
    """
    from scipy.optimize import minimize

    structure = features.structure()
    base = np.concatenate(
        [np.full(n, np.log(max(spread, 1e-300) / (3 * max(n, 1)))) for n in features.kinds()]
    )
    centre = np.r_[np.zeros(3), expected]
    prior = np.r_[np.full(3, 3.0), np.full(len(expected), SPREAD)]

    def posterior(theta: F64) -> tuple[F64, F64, F64, float]:
        v = np.exp(base + np.clip(structure @ theta, -25, 12))
        c, determinant = _inverse(moments.gram, v)
        return v, c, c @ moments.cross, determinant

    def loss(theta: F64) -> tuple[float, F64]:
        v, c, m, determinant = posterior(theta)
        likelihood = -0.5 * determinant + 0.5 * float(moments.cross @ m)
        off = (theta - centre) / prior
        slope = 0.5 * ((m**2 + np.diag(c)) / v - 1) @ structure - off / prior
        return -likelihood + 0.5 * float(off @ off), -slope

    found = minimize(loss, centre, jac=True, method="L-BFGS-B", options={"maxiter": STEPS})
    return posterior(found.x)[2]


def _inverse(gram: F64, v: F64) -> tuple[F64, float]:
    """(gram + diag(1/v))⁻¹ = √v K⁻¹ √v with K = √v gram √v + I, which no small v upsets; and log|K|."""
    from scipy.linalg import cho_factor, cho_solve

    root = np.sqrt(v)
    inner = gram * np.outer(root, root)
    inner[np.diag_indices_from(inner)] += 1
    factor = cho_factor(inner, lower=True, check_finite=False)
    solved = cho_solve(factor, np.eye(len(v)), check_finite=False)
    return np.asarray(solved * np.outer(root, root)), float(2 * np.log(np.diag(factor[0])).sum())
