"""The bench on which policies, topics and leaves are judged: scores of held-out rows, and who belongs together."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from causalrec import scores
from causalrec.errors import ArgumentError
from causalrec.estimate import Fit
from causalrec.joint import DRAWS, covariance_of, largest, wald
from causalrec.log import ImpressionLog
from causalrec.uplift.held_out import HeldOut, held_out

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class GroupMeans:
    """Means of K groups with their joint errors.

    Attributes
    ----------
    values : (K,)
    covariance : (K, K), clustered as the scores are
    n_clusters : int
    estimates : tuple of Estimate, K
        Each group on its own, with its own degrees of freedom.
    """

    values: F64
    covariance: F64
    n_clusters: int
    estimates: tuple[scores.Estimate, ...]

    def test_equal(self) -> tuple[float, float]:
        """(F, p) of the hypothesis that all K means are the same; NaN for K < 2."""
        if len(self.values) < 2:
            return float("nan"), float("nan")
        contrast = np.eye(len(self.values))[1:] - np.eye(len(self.values))[:1]
        statistic, _, p = wald(
            contrast @ self.values, contrast @ self.covariance @ contrast.T, self.n_clusters
        )
        return statistic, p

    def joint(self, alpha: float = 0.05) -> tuple[F64, F64]:
        """(lower, upper), (K,) each: intervals that cover all K means at once with probability 1 − α (max-t)."""
        df = max(self.n_clusters - 1, 1)
        c = largest(self.covariance, df, 1 - alpha, DRAWS, np.random.default_rng(0))
        half = c * np.sqrt(np.diag(self.covariance))
        return self.values - half, self.values + half


@dataclass(frozen=True, eq=False)
class Bench:
    """Held-out rows, and means of whatever is scored on them.

    Attributes
    ----------
    held : HeldOut
    """

    held: HeldOut

    @property
    def psi(self) -> F64:
        """(n,) doubly robust scores of the effect, clicks per impression."""
        return self.held.psi

    @property
    def today(self) -> F64:
        """(n,) scores of what the logged exposure gained over recommending to no one; mean E[T (Y(1) − Y(0))].

        (T − (1 − T) e / (1 − e)) (Y − m₀), the numerator of the ATT's score; always of first order.
        """
        h = self.held
        return scores.aipw_att(h.t, h.y, h.e, h.m0, h.m1)[0]

    def mean(self, a: F64, b: F64 | None = None, alpha: float = 0.05) -> scores.Estimate:
        """Σ w a / Σ w b (b = 1 if not given), clustered, with a 1 − α interval on G − 1 degrees of freedom."""
        h = self.held
        below = np.ones_like(a) if b is None else b
        used = below * h.weights != 0
        few = min(len(np.unique(h.units[used & (h.t == arm)])) for arm in (0.0, 1.0))
        return scores.clustered_ratio((a, below), h.units, h.items, h.weights, alpha, max(few, 2))

    def ratios(self, a: F64, b: F64, labels: Ints, k: int) -> GroupMeans:
        """Σ w a / Σ w b in each group 0 … k − 1; rows with other labels count for none."""
        return self._joined([self.mean(a * (labels == j), b * (labels == j)) for j in range(k)])

    def effects(self, labels: Ints, k: int) -> GroupMeans:
        """Effects of groups of rows, by pairs inside each group where the scores are of second order."""
        return self.served_effects(np.ones(len(labels)), labels, k)

    def served_effects(self, served: F64, labels: Ints, k: int) -> GroupMeans:
        """Effects among those served in each of the groups 0 … k − 1."""
        return self._joined([self.served_effect(served * (labels == j)) for j in range(k)])

    def served_effect(self, served: F64) -> scores.Estimate:
        """Effect among those served, with influence (n,): pairs among them where serving is certain, else Σ π ψ / Σ π."""
        here = served > 0
        if not np.isin(served, (0.0, 1.0)).all():
            return self.mean(served * self.psi, served)
        e = self.held.effect(here)
        if len(e.influence) == len(served):
            return e
        influence = np.zeros(len(served))
        influence[here] = e.influence * (len(served) / here.sum())
        return replace(e, influence=influence)

    def _joined(self, found: list[scores.Estimate]) -> GroupMeans:
        h = self.held
        if not found:
            return GroupMeans(np.zeros(0), np.zeros((0, 0)), 0, ())
        influences = np.column_stack([e.influence for e in found])
        joint, g = covariance_of(influences, h.units, h.items)
        return GroupMeans(np.array([e.value for e in found]), joint, min(g, h.n_clusters), tuple(found))


def bench(fit: Fit, test: ImpressionLog, verb: str) -> Bench:
    """The held-out rows of `test` under the nuisances of `fit`.

    Raises
    ------
    HonestyError
        Users of `test` were in the fit.
    EstimationError
        An arm has too few held-out rows.
    """
    if not isinstance(fit, Fit) or not isinstance(test, ImpressionLog):
        raise ArgumentError(
            f"{verb} takes (fit, test), a Fit and an ImpressionLog; got ({type(fit).__name__}, {type(test).__name__})."
        )
    return Bench(held_out(fit, test))


def training_scores(fit: Fit) -> F64:
    """(n,) doubly robust scores of the ATE of the training rows, of the fit's order."""
    psi = fit.analysis.ate_scores
    if psi is not None:
        return psi
    inputs, nuisances = fit.analysis.inputs, fit.nuisances
    e = fit.analysis.settings.clip.apply(nuisances.propensity)
    return scores.aipw_ate(inputs.t, inputs.y, e, nuisances.outcome_0, nuisances.outcome_1)[0]
