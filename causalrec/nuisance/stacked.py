"""Nuisances that are mixed from several models: the mix, what it predicts, and how each member did alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from causalrec.errors import EstimationError
from causalrec.nuisance.batch import TARGETS, Target
from causalrec.nuisance.columns import DesignRecipe
from causalrec.nuisance.design import Design
from causalrec.nuisance.members import MemberFit, Outer, predict_regression
from causalrec.nuisance.nuisances import Nuisances, Problem, auc
from causalrec.nuisance.options import NuisanceRecipe

F64 = npt.NDArray[np.float64]
PRIOR_SUM = 4.0
"""Weight, in nats per squared unit, of the prior that the weights sum to 1."""


@dataclass(frozen=True, eq=False)
class Stack:
    """How the members were mixed for one nuisance outside one outer fold: logit = intercept + Σ weight · logit_m."""

    intercept: float
    weights: F64

    def apply(self, logits: F64) -> F64:
        """Chances (n,) from the members' logits (n, M)."""
        return np.asarray(expit(self.intercept + logits @ self.weights), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class StackedNuisances(Nuisances):
    """Nuisances that are mixed from several members.

    Attributes
    ----------
    stacks : per target, a Stack for each outer fold
    member_predictions : per target, (n, M) out-of-fold chances of each member
    fits : for each outer fold, the fit of each member
    readers : members that read texts, which a design does not hold
    names : members in order
    member_gains : for each nuisance in turn, how each member did alone, with its mean weight
    """

    stacks: dict[Target, tuple[Stack, ...]] = field(default_factory=dict, repr=False)
    member_predictions: dict[Target, F64] = field(default_factory=dict, repr=False)
    fits: tuple[tuple[MemberFit, ...], ...] = field(default=(), repr=False)
    names: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()
    member_gains: tuple[dict[str, Any], ...] = field(default=(), repr=False)

    def predict(self, propensity_design: Design, outcome_design: Design) -> tuple[F64, F64, F64]:
        """(e, m0, m1), each (n',), for rows that no fold has seen: the mean over the K outer folds' mixes.

        Raises
        ------
        EstimationError
            A member reads texts, which a design does not hold.
        """
        if self.readers:
            raise EstimationError(
                f"the members {list(self.readers)} read texts, and cannot predict new rows from their design; fit with "
                "SuperLearner(members=('ridge',)), or estimate on a log that holds the new rows."
            )
        out = {t: np.full(outcome_design.n, np.nan) for t in TARGETS}
        for target, stacks in self.stacks.items():
            chances = []
            for stack, fits in zip(stacks, self.fits, strict=True):
                z = [_new_logits(f.nuisances, propensity_design, outcome_design, target) for f in fits]
                chances.append(stack.apply(np.column_stack(z)))
            out[target] = np.mean(chances, axis=0)
        return out["propensity"], out["outcome_0"], out["outcome_1"]

    def _rows(self) -> list[dict[str, Any]]:
        """The mix of each nuisance, and below it each member alone with its mean weight."""
        m = len(self.names)
        rows: list[dict[str, Any]] = []
        for i, gain in enumerate(self.gains):
            rows.append({k: v for k, v in gain.items() if k != "mixed_from"} | {"weight": None})
            rows += self.member_gains[i * m : (i + 1) * m]
        return rows


def _new_logits(fitted: Nuisances, propensity: Design, outcome: Design, target: Target) -> F64:
    """A member's logits of new rows, from the nodes that it was fitted on."""
    problem = fitted.problem
    designs = (
        propensity.keep(problem.propensity_design.owners),
        outcome.keep(problem.outcome_design.owners),
    )
    return predict_regression(fitted, *designs, (target,))[target]


def stack_weights(z: F64, y: F64, w: F64) -> Stack:
    """Intercept and non-negative weights (M,) of members' held-out logits z (m, M) with the least log-loss."""
    centre = (w @ z) / w.sum()
    x, m = z - centre, z.shape[1]

    def loss(theta: F64) -> tuple[float, F64]:
        eta = theta[0] + x @ theta[1:]
        residual = w * (expit(eta) - y)
        excess = theta[1:].sum() - 1
        value = (w * (np.logaddexp(0, eta) - y * eta)).sum() + 0.5 * PRIOR_SUM * excess**2
        return float(value), np.concatenate([[residual.sum()], residual @ x + PRIOR_SUM * excess])

    start = np.concatenate([[float((w @ z.mean(axis=1)) / w.sum())], np.full(m, 1 / m)])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(None, None), *[(0, None)] * m])
    weights = np.asarray(found.x[1:], dtype=np.float64)
    return Stack(float(found.x[0] - centre @ weights), weights)


def target_rows(problem: Problem, target: Target) -> tuple[F64, F64]:
    """(y, w) of one nuisance's regression; rows of the other arm weigh 0."""
    if target == "propensity":
        return problem.t, problem.w
    return problem.y, problem.w * (problem.t if target == "outcome_1" else 1 - problem.t)


def _gain(problem: Problem, target: Target, model: str, predicted: F64) -> dict[str, Any]:
    """Out-of-fold log-loss of chances (n,) against the mean of the same rows."""
    y, w = target_rows(problem, target)
    mean, p = float((w * y).sum() / w.sum()), np.clip(predicted, 1e-9, 1 - 1e-9)
    loss = float(-(w * (y * np.log(p) + (1 - y) * np.log(1 - p))).sum() / w.sum())
    constant = -(mean * np.log(mean) + (1 - mean) * np.log(1 - mean))
    return {
        "model": model,
        "held_out_loss": loss,
        "loss_of_a_constant": constant,
        "share_explained": 1 - loss / constant,
        "held_out_auc": auc(predicted[w > 0], y[w > 0]),
    }


def gains_of(
    problem: Problem, target: Target, names: Sequence[str], mixed: F64, alone: F64, stacks: Sequence[Stack]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """How the mix did, and how each member did alone, with its weight averaged over the outer folds."""
    weights = np.mean([s.weights for s in stacks], axis=0)
    said = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(names, weights, strict=True))
    alone_rows = [
        _gain(problem, target, f"{target}: {name}", alone[:, m]) | {"weight": float(weights[m])}
        for m, name in enumerate(names)
    ]
    return _gain(problem, target, target, mixed) | {"mixed_from": said}, alone_rows


def mix(
    problem: Problem,
    recipe: NuisanceRecipe,
    members: tuple[tuple[str, ...], tuple[str, ...]],
    design_recipe: DesignRecipe | None,
    outers: Sequence[Outer],
    fits: Sequence[tuple[MemberFit, ...]],
) -> StackedNuisances:
    """Weigh the members outside each outer fold, and predict the fold; `members` are all names, and those that read texts."""
    names, readers = members
    stacks: dict[Target, tuple[Stack, ...]] = {}
    mixed: dict[Target, F64] = {} if problem.logged is None else {"propensity": problem.logged}
    alone: dict[Target, F64] = {}
    gains: list[dict[str, Any]] = []
    member_gains: list[dict[str, Any]] = []
    for target in outers[0].targets:
        stacks[target] = tuple(_stack(o, f, target) for o, f in zip(outers, fits, strict=True))
        mixed[target], alone[target] = (
            np.empty(len(problem.t)),
            np.empty((len(problem.t), len(names))),
        )
        for outer, fit, stack in zip(outers, fits, stacks[target], strict=True):
            z = np.column_stack([m.outer[target] for m in fit])
            mixed[target][outer.scored], alone[target][outer.scored] = stack.apply(z), expit(z)
        gain, by_member = gains_of(problem, target, names, mixed[target], alone[target], stacks[target])
        gains.append(gain)
        member_gains += by_member
    return StackedNuisances(
        propensity=mixed["propensity"],
        outcome_0=mixed["outcome_0"],
        outcome_1=mixed["outcome_1"],
        fold=problem.fold,
        recipe=recipe,
        logged=problem.logged is not None,
        gains=tuple(gains),
        problem=problem,
        ridge=None,
        other_models={},
        design_recipe=design_recipe,
        stacks=stacks,
        member_predictions=alone,
        fits=tuple(fits),
        names=names,
        readers=readers,
        member_gains=tuple(member_gains),
    )


def _stack(outer: Outer, fits: Sequence[MemberFit], target: Target) -> Stack:
    y, w = target_rows(outer.problem, target)
    z = np.column_stack([f.inner[target] for f in fits])
    rows = np.isfinite(z).all(axis=1) & (w > 0)
    return stack_weights(z[rows], y[rows], w[rows])
