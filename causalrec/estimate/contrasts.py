"""Means under several arms and their contrasts, with pointwise and joint intervals."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from causalrec import scores
from causalrec.errors import LogError
from causalrec.estimate.arm_overlap import ArmOverlap
from causalrec.estimate.several import Adjusted
from causalrec.joint import DRAWS, covariance_of, holm, largest

F64 = npt.NDArray[np.float64]
LEVEL = 0.95


@dataclass(frozen=True)
class Contrast:
    """The mean outcome under `arm` minus that under `against`, clicks per impression.

    ``ci_*`` hold for this contrast alone; ``joint_*`` for all contrasts of its family at once (max-t), and
    ``p_holm`` is corrected for their number.
    """

    arm: Any
    against: Any
    estimate: scores.Estimate = field(repr=False)
    joint_lower: float
    joint_upper: float
    p_holm: float

    @property
    def effect(self) -> float:
        """E[Y(arm)] − E[Y(against)]."""
        return self.estimate.value

    def record(self) -> dict[str, Any]:
        """The contrast as one row of a table."""
        e = self.estimate
        return {
            "quantity": f"{self.arm} − {self.against}",
            "estimate": e.value,
            "std_error": e.std_error,
            "ci_lower": e.ci_lower,
            "ci_upper": e.ci_upper,
            "p_value": e.p_value,
            "joint_lower": self.joint_lower,
            "joint_upper": self.joint_upper,
            "p_holm": self.p_holm,
        }


@dataclass(frozen=True, eq=False)
class Effect:
    """Of an arm against the control: value, influence (n,), and a bias that the interval allows for."""

    value: float
    influence: F64
    bias: float = 0.0

    def less(self, other: Effect) -> Effect:
        """The contrast of two arms."""
        return Effect(self.value - other.value, self.influence - other.influence, self.bias + other.bias)


def means_of(adjusted: Adjusted, psi: F64, overlap: tuple[ArmOverlap, ...]) -> tuple[scores.Estimate, ...]:
    """E[Y(arm)] from the scores psi (n, K).

    Raises
    ------
    LogError
        An arm has one unit only.
    """
    if min(o.n_units for o in overlap) < 2:
        raise LogError("an arm has one unit only; at least two in each arm are needed for an interval.")
    w, units, items = adjusted.weights, adjusted.units, adjusted.items
    pairs = [(psi[:, k], np.ones(len(psi))) for k in range(len(overlap))]
    return tuple(
        scores.clustered_ratio(pair, units, items, w, at_most=o.n_units)
        for pair, o in zip(pairs, overlap, strict=True)
    )


def compare(
    arms: tuple[Any, ...],
    adjusted: Adjusted,
    effects: list[Effect],
    overlap: tuple[ArmOverlap, ...],
    rng: np.random.Generator,
) -> tuple[tuple[Contrast, ...], tuple[Contrast, ...]]:
    """Contrasts against the first arm, and all pairs, from the effects of the other arms against it, (K − 1,)."""
    every = [Effect(0.0, np.zeros(len(adjusted.weights))), *effects]
    against_control = [(k, 0) for k in range(1, len(overlap))]
    pairs = [(b, a) for a, b in combinations(range(len(overlap)), 2)]
    return (
        _family(arms, adjusted, every, overlap, against_control, rng),
        _family(arms, adjusted, every, overlap, pairs, rng),
    )


def _family(
    arms: tuple[Any, ...],
    adjusted: Adjusted,
    every: list[Effect],
    overlap: tuple[ArmOverlap, ...],
    pairs: list[tuple[int, int]],
    rng: np.random.Generator,
) -> tuple[Contrast, ...]:
    """Contrasts that are to hold at once; where a bias may remain, its allowance comes on top of the joint interval."""
    units, items, found = adjusted.units, adjusted.items, []
    for j, k in pairs:
        e = every[j].less(every[k])
        few = min(overlap[j].n_units, overlap[k].n_units)
        found.append(scores.estimate_of(e.value, e.influence, units, items, at_most=few, bias=e.bias))
    covariance, _ = covariance_of(np.column_stack([f.influence for f in found]), units, items)
    df = max(min(*(f.n_clusters for f in found), *(o.n_units for o in overlap)) - 1, 1)
    half = largest(covariance, df, LEVEL, DRAWS, rng)
    corrected = holm(np.array([f.p_value for f in found]))
    return tuple(
        Contrast(
            arms[j],
            arms[k],
            f,
            f.value - half * f.std_error - f.bias_bound,
            f.value + half * f.std_error + f.bias_bound,
            float(p),
        )
        for (j, k), f, p in zip(pairs, found, corrected, strict=True)
    )
