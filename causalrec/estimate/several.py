"""One design, one dealing of folds and one set of clusters for several cross-fits on the same log."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from causalrec.blocks import Block
from causalrec.errors import ArgumentError, EstimationError, IdentificationError
from causalrec.estimate.analysis import Inputs
from causalrec.estimate.fit import covariates
from causalrec.estimate.partners import repeated_items
from causalrec.identify import Plan
from causalrec.log import ImpressionLog
from causalrec.nuisance import Clip, Folds, NuisanceRecipe, Nuisances, Problem, fit_nuisances, learn_design
from causalrec.nuisance.columns import Covariate, DesignRecipe
from causalrec.nuisance.design import Design
from causalrec.nuisance.super_learner import SuperLearner, fit_super_learner

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Adjusted:
    """What is adjusted for, and how rows are dealt, as arrays.

    Attributes
    ----------
    covariates : tuple of Block or named Series
    propensity_design, outcome_design : Design
        What the model of the exposure and that of the outcome take.
    fold : (n,)
    units : (n,) codes
    items : (n,) codes or None
        For errors clustered both ways; None where no item repeats.
    weights : (n,)
        Of mean one.
    """

    covariates: tuple[Covariate, ...]
    propensity_design: Design
    outcome_design: Design
    design_recipe: DesignRecipe = field(repr=False)
    fold: Ints
    units: Ints
    items: Ints | None
    weights: F64

    @property
    def n_folds(self) -> int:
        """Folds, K."""
        return int(self.fold.max()) + 1

    def cross_fit(
        self,
        t: F64,
        y: F64,
        recipe: NuisanceRecipe | None,
        logged: F64 | None = None,
        binary: bool | None = None,
    ) -> Nuisances:
        """Nuisances of a 0/1 exposure `t` and an outcome `y` on these folds.

        Parameters
        ----------
        logged : (n,) or None
            A known P(t = 1), which is not estimated then.
        binary : bool, optional
            Model the outcome as a probability; by default if it is 0/1.
        """
        is_binary = bool(np.isin(y, (0.0, 1.0)).all()) if binary is None else binary
        problem = Problem(
            t, y, self.weights, self.propensity_design, self.outcome_design, self.fold, is_binary, logged
        )
        if isinstance(recipe, SuperLearner):
            blocks = [c for c in self.covariates if isinstance(c, Block)]
            return fit_super_learner(problem, recipe, blocks, self.design_recipe, self.units)
        return fit_nuisances(problem, recipe or NuisanceRecipe(), self.design_recipe)

    def units_with(self, rows: npt.NDArray[np.bool_]) -> int:
        """Units that have at least one of these rows (of positive weight)."""
        return len(np.unique(self.units[rows & (self.weights > 0)]))


def check_call(verb: str, log: object, plan: object) -> tuple[ImpressionLog, Plan]:
    """Return (log, plan) if they are an ``ImpressionLog`` and its ``Plan``.

    Raises
    ------
    ArgumentError
    """
    if not isinstance(log, ImpressionLog) or not isinstance(plan, Plan):
        raise ArgumentError(
            f"{verb} takes (log, plan), an ImpressionLog and a Plan; got ({type(log).__name__}, {type(plan).__name__})."
        )
    if plan.treatment != log.roles.treatment[0] or plan.outcome != log.roles.outcome[0]:
        raise ArgumentError(
            f"the plan is for the effect of {plan.treatment!r} on {plan.outcome!r}, the log has {log.roles.treatment[0]!r} "
            f"and {log.roles.outcome[0]!r}; call identify(log) on this log."
        )
    return log, plan


def check_options(folds: Folds | None, clip: Clip | None, nuisances: NuisanceRecipe | None) -> Folds:
    """The folds, default filled in, if the options are of the right types.

    Raises
    ------
    ArgumentError
    """
    for value, kind, name in ((folds, Folds, "folds"), (clip, Clip, "clip")):
        if value is not None and not isinstance(value, kind):
            raise ArgumentError(f"{name} is {value!r}; must be {kind.__name__}(...) or None.")
    if nuisances is not None and not isinstance(nuisances, NuisanceRecipe):
        raise ArgumentError(f"nuisances is {nuisances!r}; must be a NuisanceRecipe(...) or None.")
    return folds or Folds()


def back_door_nodes(plan: Plan) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(propensity nodes, outcome nodes) of a plan that adjusts.

    Raises
    ------
    IdentificationError
        Adjustment does not identify the effect.
    """
    if plan.obstacle is not None:
        raise IdentificationError(f"{plan.obstacle} See estimate_instrument(log, plan) for an instrument.")
    return plan.propensity_nodes, plan.outcome_nodes


def adjust(
    log: ImpressionLog,
    nodes: tuple[tuple[str, ...], tuple[str, ...]],
    strata: F64,
    folds: Folds,
    rng: np.random.Generator,
) -> Adjusted:
    """Learn the design of the covariates and deal the units to folds along `strata`.

    Parameters
    ----------
    nodes : (of the propensity, of the outcome)
        Blocks and columns that each model takes.

    Raises
    ------
    EstimationError
        Fewer units than folds, or an item column of one value.
    """
    of_propensity, of_outcome = nodes
    adjusted = tuple(dict.fromkeys((*of_propensity, *of_outcome)))
    columns = covariates(log, tuple(sorted(adjusted, key=lambda node: node in log.blocks)))
    recipe, design = learn_design(columns, len(log))
    fold = folds.assign(
        log.units, design.row_hash * np.uint64(7) + _content(strata, log.outcome), strata, rng
    )
    outcome_design = design.keep(of_outcome)
    same = set(of_propensity) == set(of_outcome)
    weights = np.ones(len(log)) if log.weights is None else log.weights / log.weights.mean()
    return Adjusted(
        tuple(columns),
        outcome_design if same else design.keep(of_propensity),
        outcome_design,
        recipe,
        fold,
        log.units,
        _clusters_of_items(log, columns),
        weights,
    )


def _content(strata: F64, y: F64) -> npt.NDArray[np.uint64]:
    bits = np.ascontiguousarray(y, dtype=np.float64).view(np.uint64) >> np.uint64(20)
    return strata.astype(np.uint64) + bits


def _clusters_of_items(log: ImpressionLog, columns: list[Covariate]) -> Ints | None:
    """Item codes where items (or, with no item declared, texts) repeat; an item shown once is a cluster of its own."""
    if log.items is not None and int(log.items.max()) == 0:
        raise EstimationError(
            "the item column has one value; leave the item out, or it makes every row one cluster."
        )
    known = repeated_items(Inputs(log.treatment, log.outcome, columns, log.units, log.items))
    if known is None:
        return None
    if log.items is not None:
        return log.items
    return np.where(known < 0, np.arange(len(known)) + int(known.max()) + 1, known).astype(np.int64)
