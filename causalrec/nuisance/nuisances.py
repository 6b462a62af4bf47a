"""The fitted nuisances of a log: out-of-fold, frozen, and shared by everything above."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from scipy.stats import rankdata

from causalrec._display import Displayable
from causalrec.errors import EstimationError, HonestyError
from causalrec.nuisance import crossfit, learners
from causalrec.nuisance.batch import TARGETS, Batch, Data, Target
from causalrec.nuisance.columns import DesignRecipe
from causalrec.nuisance.design import Design
from causalrec.nuisance.options import NuisanceRecipe, RidgeLogistic
from causalrec.nuisance.parallel import one_blas_thread

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Problem:
    """All that nuisances are fitted to, as arrays.

    Attributes
    ----------
    t, y, w : (n,) treatment 0/1, outcome, weights of mean 1
    propensity_design, outcome_design : Design
        One object if both adjust for the same.
    fold : (n,)
    binary : bool
        The outcome is 0/1.
    logged : (n,) or None
        Known P(treated).
    in_pairs : bool
        Leave out pairs of folds, for scores of pairs of rows (ridge learners only).
    sub : (n,) or None
        Sub-fold of each row, whose remainder by the number of folds is its fold.
    """

    t: F64
    y: F64
    w: F64
    propensity_design: Design
    outcome_design: Design
    fold: Ints
    binary: bool
    logged: F64 | None = None
    in_pairs: bool = False
    sub: Ints | None = None

    @property
    def designs(self) -> dict[Target, Design]:
        """The design of each target."""
        return {
            "propensity": self.propensity_design,
            "outcome_0": self.outcome_design,
            "outcome_1": self.outcome_design,
        }


@dataclass(frozen=True, eq=False)
class Nuisances(Displayable):
    """Cross-fitted P(T=1|X) and E[Y|T=t,X] of a log.

    Attributes
    ----------
    propensity : (n,)
        Out-of-fold (or logged), calibrated, not clipped.
    outcome_0, outcome_1 : (n,)
        Out-of-fold E[Y | T=t, X], clicks per impression.
    fold : (n,)
    recipe : NuisanceRecipe
    logged : bool
        The propensity was logged, not estimated.
    gains : tuple of dict
        Held-out loss of each model against a constant.
    """

    propensity: F64
    outcome_0: F64
    outcome_1: F64
    fold: Ints
    recipe: NuisanceRecipe
    logged: bool
    gains: tuple[dict[str, Any], ...]
    problem: Problem = field(repr=False)
    ridge: crossfit.FoldModels | None = field(repr=False)
    other_models: dict[Target, list[Any]] = field(repr=False)
    design_recipe: DesignRecipe | None = field(default=None, repr=False)

    @staticmethod
    def thorough(**changed: Any) -> NuisanceRecipe:
        """The recipe of a super learner over the whole menu: ridge, n-grams, bottleneck, tuned encoder; minutes.

        Pass it as ``estimate(..., nuisances=Nuisances.thorough())``; `changed` as in ``SuperLearner``.
        """
        from causalrec.nuisance.super_learner import SuperLearner

        return SuperLearner.thorough(**changed)

    @property
    def sub(self) -> Ints | None:
        """(n,) sub-folds, where nuisances were fitted for pairs of folds."""
        return self.problem.sub

    @cached_property
    def batch(self) -> Batch:
        """The regressions as one batch, with the factors that repetitions share."""
        return _batch(self.problem, self.recipe)

    def predict(self, propensity_design: Design, outcome_design: Design) -> tuple[F64, F64, F64]:
        """(e, m0, m1), each (n',), for rows that no fold has seen: the mean over the K fold models.

        Raises
        ------
        EstimationError
            The propensity was logged, so there is no model of it; e is NaN then and m0, m1 are given.
        """
        designs = {"propensity": propensity_design, "outcome_0": outcome_design, "outcome_1": outcome_design}
        out = []
        for target in TARGETS:
            known = self.ridge is not None and target in self.ridge.betas
            if (target == "propensity" and self.logged) or not (known or target in self.other_models):
                out.append(np.full(propensity_design.n, np.nan))
            elif target in self.other_models:
                dense = designs[target].dense()
                out.append(np.mean([learners.predict(m, dense) for m in self.other_models[target]], axis=0))
            else:
                out.append(self._ridge_predict(target, designs[target]))
        return out[0], out[1], out[2]

    def _ridge_predict(self, target: Target, design: Design) -> F64:
        models = self.ridge
        if models is None:
            raise EstimationError(f"these nuisances hold no model of {target}.")
        eta = design.matmul(models.betas[target].astype(np.float32)).astype(np.float64)
        eta = models.platt[target][0] + models.platt[target][1] * eta
        logistic = target == "propensity" or self.problem.binary
        return (expit(eta) if logistic else eta).mean(axis=1)

    def check_matches(self, t: F64, y: F64) -> None:
        """Raise ``HonestyError`` unless these nuisances belong to the log with this treatment and outcome."""
        n = len(self.fold)
        if len(t) != n:
            raise HonestyError(
                f"these nuisances were fitted on {n:,} rows, the log has {len(t):,}; fit them on this log."
            )
        other = int(((self.problem.t != t) | (self.problem.y != y)).sum())
        if other:
            raise HonestyError(
                f"these nuisances were fitted on another log: {other:,} of {n:,} rows have another treatment or outcome there; fit them on this log."
            )

    def _title(self) -> str:
        how = "logged propensity" if self.logged else "propensity estimated"
        return f"Nuisances: {len(self.fold):,} rows, {int(self.fold.max()) + 1} folds, {how}"

    def _rows(self) -> list[dict[str, Any]]:
        return list(self.gains)


def fit_nuisances(
    problem: Problem,
    recipe: NuisanceRecipe,
    design_recipe: DesignRecipe | None = None,
    without: tuple[Target, ...] = (),
) -> Nuisances:
    """Cross-fit all nuisances of a problem but those in `without`, which are NaN: the outcome of an arm that no one saw.

    Raises
    ------
    EstimationError
        A fold's training rows have no treated or no control rows, or no click in an arm.
    """
    _check_folds(problem, without)
    fitted_here = TARGETS if problem.logged is None else TARGETS[1:]
    targets: tuple[Target, ...] = tuple(t for t in fitted_here if t not in without)
    chosen = {t: recipe.propensity if t == "propensity" else recipe.outcome for t in targets}
    ridge = tuple(t for t in targets if isinstance(chosen[t], RidgeLogistic))
    other = tuple(t for t in targets if t not in ridge)
    out: dict[Target, F64] = {t: np.full(len(problem.t), np.nan) for t in without}
    models = None
    if ridge:
        batch, data = _batch(problem, recipe), _data(problem)
        with one_blas_thread():
            inner = crossfit.choose(batch, data, ridge, problem.in_pairs)
            predicted, models = crossfit.finals(batch, data, inner, ridge, recipe.calibrate)
        out |= predicted
    fitted: dict[Target, list[Any]] = {}
    for target in other:
        out[target], fitted[target] = learners.cross_fit(
            chosen[target], problem.designs[target], *_learner_rows(problem, target), problem.fold
        )
    if problem.logged is not None:
        out["propensity"] = problem.logged
    gains = tuple(_gain(problem, target, out[target], models) for target in targets)
    return Nuisances(
        out["propensity"], out["outcome_0"], out["outcome_1"], problem.fold, recipe, problem.logged is not None, gains,
        problem, models, fitted, design_recipe,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Perturbed:
    """Nuisances of R perturbed logs, (n, R) each."""

    propensity: F64
    outcome_0: F64
    outcome_1: F64


def refit_nuisances(
    fitted: Nuisances,
    t: F64,
    y: F64,
    w: F64,
    touched: tuple[Target, ...],
    z: F64 | None = None,
    left_out: tuple[tuple[str, ...], ...] | None = None,
) -> Perturbed:
    """Fit the touched nuisances again on R perturbed logs; the others are reused.

    Parameters
    ----------
    fitted : Nuisances
    t, y, w : (n, R)
        Perturbed treatment, outcome and weights.
    touched : tuple of targets
        Those whose data the perturbation changes. A logged propensity is never refitted.
    z : (n, R) or None
        A further covariate of each repetition.
    left_out : tuple of tuple of str, (R,), or None
        The nodes that each repetition does without.
    """
    recipe, reps = fitted.recipe, t.shape[1]
    if fitted.ridge is None and isinstance(recipe.outcome, RidgeLogistic):
        raise EstimationError(
            "a super learner is not refitted a hundred times; check a fit with the default nuisances on the same log instead."
        )
    data = Data(
        t.astype(np.float32),
        y.astype(np.float32),
        w.astype(np.float32),
        None if z is None else z.astype(np.float32),
        left_out,
    )
    out: dict[Target, F64] = {}
    for target in TARGETS:
        if target not in touched or (target == "propensity" and fitted.logged):
            out[target] = np.repeat(getattr(fitted, target)[:, None], reps, axis=1)
        elif fitted.ridge is not None and target in fitted.ridge.betas:
            with one_blas_thread():
                out[target] = crossfit.refit(fitted.batch, data, fitted.ridge, target, recipe.calibrate)
        else:
            learner = recipe.propensity if target == "propensity" else recipe.outcome
            columns = [
                _refit_other(fitted.problem, learner, target, t, y, w, z, left_out, r) for r in range(reps)
            ]
            out[target] = np.column_stack(columns)
    return Perturbed(out["propensity"], out["outcome_0"], out["outcome_1"])


def _refit_other(
    problem: Problem,
    learner: Any,
    target: Target,
    t: F64,
    y: F64,
    w: F64,
    z: F64 | None,
    left_out: tuple[tuple[str, ...], ...] | None,
    r: int,
) -> F64:
    one = replace(problem, t=t[:, r], y=y[:, r], w=w[:, r])
    extra = None if z is None else z[:, r]
    design = problem.designs[target]
    if left_out is not None:
        design = design.keep([owner for owner in design.owners if owner not in left_out[r]])
    return learners.cross_fit(learner, design, *_learner_rows(one, target), problem.fold, extra)[0]


def _learner_rows(problem: Problem, target: Target) -> tuple[F64, F64, bool]:
    """(target values, weights, is it a probability) of one nuisance."""
    if target == "propensity":
        return problem.t, problem.w, True
    return problem.y, problem.w * (problem.t if target == "outcome_1" else 1 - problem.t), problem.binary


def _batch(problem: Problem, recipe: NuisanceRecipe) -> Batch:
    ridge = {
        t: r
        if isinstance(r := (recipe.propensity if t == "propensity" else recipe.outcome), RidgeLogistic)
        else RidgeLogistic()
        for t in TARGETS
    }
    return Batch(
        problem.designs,
        problem.fold,
        ridge,
        {"propensity": True, "outcome_0": problem.binary, "outcome_1": problem.binary},
    )


def _data(problem: Problem) -> Data:
    t, y, w = (v.astype(np.float32)[:, None] for v in (problem.t, problem.y, problem.w))
    return Data(t, y, w)


def _check_folds(problem: Problem, without: tuple[Target, ...] = ()) -> None:
    arms = ((1.0, "treated", "outcome_1"), (0.0, "control", "outcome_0"))
    for f in range(int(problem.fold.max()) + 1):
        rest = (problem.fold != f) & (problem.w > 0)
        for arm, word in ((a, w) for a, w, target in arms if target not in without):
            y = problem.y[rest & (problem.t == arm)]
            if len(y) == 0:
                raise EstimationError(
                    f"without fold {f} there is no {word} row: treatment goes with few users. Use fewer folds or more users."
                )
            if problem.binary and np.ptp(y) == 0:
                raise EstimationError(
                    f"without fold {f} all {len(y):,} {word} rows have outcome {y[0]:g}: too few clicks to model. Use fewer folds or a longer log."
                )


def _gain(
    problem: Problem, target: Target, predicted: F64, models: crossfit.FoldModels | None
) -> dict[str, Any]:
    """Out-of-fold loss of one nuisance against the mean of its own rows."""
    y, w, binary = _learner_rows(problem, target)
    mean = float((w * y).sum() / w.sum())
    if binary:
        p = np.clip(predicted, 1e-9, 1 - 1e-9)
        loss = float(-(w * (y * np.log(p) + (1 - y) * np.log(1 - p))).sum() / w.sum())
        constant = -(mean * np.log(mean) + (1 - mean) * np.log(1 - mean))
    else:
        loss = float((w * (y - predicted) ** 2).sum() / w.sum())
        constant = float((w * (y - mean) ** 2).sum() / w.sum())
    chosen = "–"
    if models is not None and target in models.inner.choices:
        folds = models.inner.choices[target].by_fold
        chosen = "; ".join(" + ".join(f"{v:g}" for v in one) for one in dict.fromkeys(folds)) or "–"
    return {
        "model": target,
        "held_out_loss": loss,
        "loss_of_a_constant": float(constant),
        "share_explained": 1 - loss / constant if constant > 0 else 0.0,
        "held_out_auc": auc(predicted[w > 0], y[w > 0]) if binary else float("nan"),
        "prior_variance_chosen": chosen,
    }


def auc(score: F64, label: F64) -> float:
    """Area under the ROC curve, P(score of a 1 > score of a 0) with ties counted half."""
    ones = label > 0.5
    n1, n0 = int(ones.sum()), int((~ones).sum())
    if n1 == 0 or n0 == 0:
        return float("nan")
    return float((rankdata(score)[ones].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))
