"""From the rows of a log to what objectives learn of them: outcomes over P(examined), and nuisances fitted without the row's user."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from causalrec.errors import CausalRecWarning, EstimationError, OverlapError
from causalrec.estimate.fit import covariates
from causalrec.finetune.guard_rails import LEAST_ROWS
from causalrec.finetune.labels import Labels
from causalrec.finetune.looked_at import Curve, curve_error_of, theta_of
from causalrec.identify import Plan, identify
from causalrec.log import ImpressionLog
from causalrec.nuisance import (
    Clip,
    Folds,
    NuisanceRecipe,
    Nuisances,
    Problem,
    RidgeLogistic,
    fit_nuisances,
    learn_design,
)

F64 = npt.NDArray[np.float64]
CANDIDATES = RidgeLogistic(variances=(3.0, 0.3, 0.03, 0.003))
"""Fewer penalties than an effect's nuisances choose among: a label needs less than a score whose bias is in question."""
CERTAIN, FEW_CERTAIN = 1e-6, 0.05
"""Distance from 0 and 1 within which a propensity is certain; share of such rows that is warned of."""


def labels_of(
    train: ImpressionLog,
    valid: ImpressionLog,
    *,
    plan: Plan | None,
    recipe: NuisanceRecipe | None,
    examination: Curve | None,
    clip: Clip | None,
    policy_aware: bool,
    rng: np.random.Generator,
) -> tuple[Labels, Labels]:
    """Labels of the training rows, nuisances out of fold; and of the held-out users' rows, nuisances of the training users.

    Raises
    ------
    OverlapError
        What was shown was certain: there is nothing to reweight.
    EstimationError
        Too few rows were shown or not shown, or all outcomes are the same.
    """
    seen = examination is None and unseen_control(train, valid) is None  # relevance of rows shown and clicks on others are not compared
    thetas = [theta_of(log, examination) for log in (train, valid)]
    outcomes = [_outcome(log, theta, seen) for log, theta in zip((train, valid), thetas, strict=True)]
    _check(train, outcomes[0])
    plan = identify(train) if plan is None else plan
    recipe = recipe or NuisanceRecipe(CANDIDATES, CANDIDATES)
    problem, nuisances = _fit(train, outcomes[0], plan, recipe, rng, seen)
    t = train.treatment
    clip = clip or Clip(min(Clip().bound, min(t.mean(), 1 - t.mean()) / 10))
    first = Labels(
        t, outcomes[0], nuisances.propensity, nuisances.outcome_0, _held(nuisances.outcome_1, problem.binary), train.units,
        train.items, clip, nuisances.logged, None if thetas[0] is None or not policy_aware else _examined(thetas[0], problem, nuisances),
        if_examined=examination is not None, users=train.user_hash,
    )  # fmt: skip
    design = nuisances.design_recipe
    if design is None:
        raise EstimationError("these nuisances cannot be applied to other rows; take a NuisanceRecipe.")
    new = design.apply(covariates(valid, design.names), len(valid))
    e, m0, m1 = nuisances.predict(new.keep(plan.propensity_nodes), new.keep(plan.outcome_nodes))
    logged = valid.logged_propensity
    second = Labels(
        valid.treatment, outcomes[1], e if logged is None else logged, m0, _held(m1, problem.binary), valid.units, valid.items,
        clip, nuisances.logged, curve_error=curve_error_of(valid, examination),
        if_examined=examination is not None, users=valid.user_hash,
    )  # fmt: skip
    return first, second


def _held(m: F64, binary: bool) -> F64:
    """Models of a probability within [0, 1], which least squares on clicks over P(examined) may leave."""
    return m if binary else np.clip(m, 0.0, 1.0)


def unseen_control(train: ImpressionLog, valid: ImpressionLog) -> str | None:
    """Why the outcome of rows that were not shown is not known, in words; None where it is."""
    first, second = (log.outcome[log.treatment == 0] for log in (train, valid))
    odd = [v for y in (first, second) for v in y[~np.isin(y, (0.0, 1.0))][:1]]
    if odd:
        return f"their outcome {train.roles.outcome[0]!r} holds {odd[0]:g}, must be 0 or 1"
    return "all of them have one outcome: nobody saw what happened there" if len(first) == 0 or np.ptp(first) == 0 else None


def _outcome(log: ImpressionLog, theta: F64 | None, control_seen: bool) -> F64:
    """The outcome, (n,), 0 in rows not shown unless it was seen there; a click over P(examined) where a curve was given: its mean is that of relevance."""
    shown = log.treatment == 1
    y = log.outcome if control_seen else np.where(shown, log.outcome, 0.0)
    if theta is not None:
        return np.asarray(y / theta)
    odd = y[~np.isin(y, (0.0, 1.0))]
    if len(odd):
        raise EstimationError(
            f"the outcome {log.roles.outcome[0]!r} holds {odd[0]:g}; a ranker learns clicks, 0 or 1: make it so (rating > 3, say) before reading the log."
        )
    return y


def _examined(theta: F64, problem: Problem, nuisances: Nuisances) -> F64:
    """(n,) θ / E[θ | shown, X], the mean cross-fitted.

    A click over θ has variance r/θ − r²: weighing by θ takes off what positions that are seldom looked at add, and dividing by its mean leaves
    the population as it was, if position and relevance have no cause in common beyond X (after the policy-aware estimator of Oosterhuis &
    de Rijke 2020, who take the mean over a logging policy that is known).
    """
    shown = problem.t == 1
    if np.ptp(theta[shown]) < 1e-9:
        return np.ones(len(theta))
    of_theta = replace(problem, y=theta, binary=False, logged=nuisances.propensity)
    mean = fit_nuisances(of_theta, nuisances.recipe, None, ("outcome_0",)).outcome_1
    return np.asarray(np.where(shown, theta / np.clip(mean, theta[shown].min(), theta[shown].max()), 1.0))


def _check(log: ImpressionLog, y: F64) -> None:
    log.require_kind("binary", "finetune")
    t = log.treatment
    for arm, word in ((1, "shown"), (0, "not shown")):
        if int((t == arm).sum()) < LEAST_ROWS:
            raise EstimationError(
                f"{int((t == arm).sum())} training rows were {word} ({log.roles.treatment[0]!r}), must be >= {LEAST_ROWS}: a debiased loss needs both, "
                "the candidates that were not shown included."
            )
    seen = y[t == 1]
    if np.ptp(seen) == 0:
        raise EstimationError(
            f"all {len(seen):,} rows that were shown have outcome {seen[0]:g}: there is one class only, and nothing to rank by."
        )
    e = log.logged_propensity
    if e is not None:
        _check_certain(t, e)


def _check_certain(t: F64, e: F64) -> None:
    """Refuse logged propensities that are 0 or 1 for over half of the rows, or of the rows shown; warn where a twentieth are."""
    sure = (e >= 1 - CERTAIN) | (e <= CERTAIN)
    for rows, which in ((t == 1, "rows shown"), (np.ones(len(t), dtype=bool), "rows")):
        if sure[rows].mean() > 0.5:
            raise OverlapError(
                f"{100 * sure[rows].mean():.0f} % of the {which} have a logged propensity of 0 or 1: what was shown was certain, and no weight can stand in for "
                "what was not. Log a policy with some randomness, or leave propensity= out and let it be estimated."
            )
    if sure.mean() > FEW_CERTAIN:
        never = float((e <= CERTAIN).mean())
        warnings.warn(
            f"{100 * sure.mean():.0f} % of the rows have a logged propensity of 0 or 1 ({100 * never:.0f} % could never be shown): nothing in the log says what showing them brings, "
            "and risks and values are of the other rows' likeness. Leave them out of the candidates, or log a policy with some randomness.",
            CausalRecWarning, stacklevel=2,
        )  # fmt: skip


def _fit(
    log: ImpressionLog, y: F64, plan: Plan, recipe: NuisanceRecipe, rng: np.random.Generator, control_seen: bool
) -> tuple[Problem, Nuisances]:
    """Cross-fit by user P(shown) and the outcome in either arm, or in rows shown alone."""
    t, nodes = log.treatment, tuple(dict.fromkeys((*plan.propensity_nodes, *plan.outcome_nodes)))
    given = covariates(log, nodes)
    design_recipe, design = learn_design(given, len(log))
    strata = 2 * t + (y > y.mean())
    fold = Folds().assign(log.units, design.row_hash * np.uint64(7) + strata.astype(np.uint64), strata, rng)
    weights = np.ones(len(log)) if log.weights is None else log.weights / log.weights.mean()
    binary = bool(np.isin(y, (0.0, 1.0)).all())
    problem = Problem(
        t, y, weights, design.keep(plan.propensity_nodes), design.keep(plan.outcome_nodes), fold, binary, log.logged_propensity,
    )  # fmt: skip
    return problem, fit_nuisances(problem, recipe, design_recipe, () if control_seen else ("outcome_0",))
