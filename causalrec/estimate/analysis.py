"""The one procedure behind ``estimate`` and ``DoublyRobust``: covariates → folds → nuisances → scores → interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from causalrec import scores
from causalrec._checks import check_choice
from causalrec.blocks import Block
from causalrec.errors import ArgumentError, EstimationError, HonestyError, OverlapError
from causalrec.estimate.caveats import caveats, units_in_smaller_arm
from causalrec.estimate.correction import (
    Correction,
    PairCorrection,
    correct,
    wants_pairs,
)
from causalrec.estimate.first_order import first_order
from causalrec.estimate.overlap import Overlap, measure_overlap, refuse_if_hopeless
from causalrec.estimate.partners import repeated_items
from causalrec.estimate.same_pairs import clusters, of_repeated_items, second_order_again
from causalrec.estimate.similar import Texts
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
from causalrec.nuisance.columns import Covariate, row_hash
from causalrec.nuisance.design import Design
from causalrec.nuisance.super_learner import SuperLearner, fit_super_learner

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
ESTIMANDS = tuple(scores.SCORES)
MIN_FOLDS = 4
"""Folds, of which three are left out at once where pairs of folds are."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """What is analysed, as arrays.

    Attributes
    ----------
    t, y : (n,)
    covariates : list of Block or named Series
        All that is adjusted for, each with its own name.
    units : (n,) codes
    items : (n,) codes or None
    weights : (n,) or None
    logged : (n,) or None
        Known P(treated).
    propensity_names, outcome_names : tuple of str or None
        Names of the covariates that each model takes; None = all.
    texts : sequence of (name, distinct texts, codes)
        Whose words are compared where texts are shown once.
    """

    t: F64
    y: F64
    covariates: Sequence[Covariate]
    units: Ints
    items: Ints | None = None
    weights: F64 | None = None
    logged: F64 | None = None
    propensity_names: tuple[str, ...] | None = None
    outcome_names: tuple[str, ...] | None = None
    texts: Sequence[Texts] = ()


@dataclass(frozen=True, eq=False)
class Settings:
    """What was asked for, defaults filled in."""

    estimand: str = "ate"
    clip: Clip = field(default_factory=Clip)
    folds: Folds = field(default_factory=Folds)
    correction: Correction = field(default_factory=Correction)

    @classmethod
    def of(
        cls,
        estimand: str,
        clip: Clip | None,
        folds: Folds | None,
        t: F64,
        correction: Correction | None = None,
    ) -> Settings:
        """Check and fill in; the default clip is .01, or a tenth of the rarer arm's share where that is less."""
        check_choice(estimand, "estimand", ESTIMANDS)
        for value, kind, name in (
            (clip, Clip, "clip"),
            (folds, Folds, "folds"),
            (correction, Correction, "correction"),
        ):
            if value is not None and not isinstance(value, kind):
                raise ArgumentError(f"{name} is {value!r}; must be {kind.__name__}(...) or None.")
        rarer = min(float(t.mean()), 1 - float(t.mean()))
        clip = clip or Clip(min(Clip().bound, rarer / 10))
        return cls(estimand, clip, folds or Folds(), correction or Correction())

    def score(self, t: F64, y: F64, nuisances: tuple[F64, F64, F64]) -> scores.Pair:
        """The (a, b) pair of the estimand at clipped propensities; the ATO needs no clipping."""
        return first_order(self.estimand, self.clip, t, y, *nuisances)


@dataclass(frozen=True, eq=False)
class Analysis:
    """Everything that was computed on the way to one effect.

    ``effect`` is of second order where ``correction.order`` is 2; ``pair`` is the first-order score. ``by_unit`` is
    the effect with errors by unit alone, ``by_item`` that with errors by unit and item, None where no item repeats.
    ``of_repeated`` is the effect on rows whose item was shown more than once, where pairs of one item correct the effect and other
    rows have none.
    """

    inputs: Inputs
    settings: Settings
    nuisances: Nuisances
    pair: scores.Pair
    effect: scores.Estimate
    by_unit: scores.Estimate
    by_item: scores.Estimate | None
    correction: PairCorrection
    naive: scores.Estimate
    anyway: scores.Estimate | None
    overlap: Overlap
    caveats: tuple[str, ...]
    of_repeated: scores.Estimate | None = None

    @property
    def scores(self) -> F64:
        """(n,) scores whose (weighted) mean is the effect."""
        if self.correction.estimate is not None:
            return self.correction.estimate.scores
        a, b = self.pair
        w = np.ones_like(a) if self.inputs.weights is None else self.inputs.weights
        return a / ((w * b).sum() / w.sum())

    @property
    def ate_scores(self) -> F64 | None:
        """(n,) second-order scores of the ATE for models of the conditional effect; None where first-order ones do."""
        if self.correction.order == 1:
            return None
        if self.settings.estimand == "ate":
            return self.scores
        again = second_order_again(self.inputs, self.correction, "ate")
        return None if again is None else again.scores


def analyse(
    inputs: Inputs, settings: Settings, nuisances: NuisanceRecipe | Nuisances | None, rng: np.random.Generator
) -> Analysis:
    """Fit what has to be fitted, and score it.

    Raises
    ------
    OverlapError
        The arms do not overlap enough for the estimand.
    """
    _check_items(inputs)
    fitted, sub = (
        (nuisances, None) if isinstance(nuisances, Nuisances) else fit_on(inputs, settings, nuisances, rng)
    )
    fitted.check_matches(inputs.t, inputs.y)
    if isinstance(nuisances, Nuisances):
        _check_same_problem(inputs, fitted)
        sub = fitted.sub
    e, weights = fitted.propensity, inputs.weights
    overlap = measure_overlap(inputs.t, e, settings.clip, weights, settings.estimand)
    thin = refuse_if_hopeless(overlap, inputs, settings.estimand, fitted.logged)
    at = (e, fitted.outcome_0, fitted.outcome_1)
    pair = settings.score(inputs.t, inputs.y, at)
    naive = scores.difference_in_means(inputs.t, inputs.y, weights)
    few = units_in_smaller_arm(inputs)
    first = scores.ratio_influence(*pair, weights)
    found = correct(
        inputs, fitted, sub, settings.correction, settings.estimand, settings.clip.bound, first, few
    )
    value, influence = first if found.estimate is None else (found.estimate.value, found.estimate.influence)
    by_unit = scores.estimate_of(value, influence, inputs.units, at_most=few, bias=found.may_remain)
    items = clusters(inputs, found)
    by_item = (
        None
        if items is None
        else scores.estimate_of(value, influence, inputs.units, items, at_most=few, bias=found.may_remain)
    )
    effect = by_unit if by_item is None else by_item
    return Analysis(
        inputs,
        settings,
        fitted,
        pair,
        effect,
        by_unit,
        by_item,
        found,
        scores.clustered_ratio(naive, inputs.units, items, weights, at_most=few),
        _share_anyway(inputs, settings, found, at, fitted.logged),
        overlap,
        (*thin, *caveats(inputs, fitted, found, overlap.share_clipped)),
        of_repeated_items(inputs, found, settings.estimand),
    )


def _check_same_problem(inputs: Inputs, fitted: Nuisances) -> None:
    """Raise ``HonestyError`` where fitted nuisances are those of another adjustment, unit or weighting."""
    problem = fitted.problem
    names = [str(c.name) for c in inputs.covariates]
    wanted = {"propensity": inputs.propensity_names, "outcome": inputs.outcome_names}
    held = {"propensity": problem.propensity_design, "outcome": problem.outcome_design}
    for model, design in held.items():
        asked = names if wanted[model] is None else wanted[model]
        if set(asked or ()) != set(design.owners) and not (model == "propensity" and fitted.logged):
            raise HonestyError(
                f"these nuisances adjust for {sorted(design.owners)} in the {model} model, the plan for {sorted(asked or ())}; fit them for this plan."
            )
    if not np.array_equal(problem.outcome_design.row_hash, row_hash(inputs.covariates, len(inputs.t))):
        raise HonestyError(
            "these nuisances were fitted on other covariates (same columns, other values); fit them on this log."
        )
    first = np.full(int(inputs.units.max()) + 1, -1)
    first[inputs.units] = fitted.fold
    if (first[inputs.units] != fitted.fold).any():
        raise HonestyError(
            "these nuisances have rows of one unit in several folds, so that a unit's rows trained its own scores; fit them on this log."
        )
    weights = np.ones_like(inputs.t) if inputs.weights is None else inputs.weights / inputs.weights.mean()
    if not np.allclose(weights, problem.w):
        raise HonestyError("these nuisances were fitted with other row weights; fit them on this log.")
    if (inputs.logged is None) != (problem.logged is None):
        raise HonestyError(
            "these nuisances and the log differ in whether the propensity was logged; fit them on this log."
        )


def fit_on(
    inputs: Inputs, settings: Settings, recipe: NuisanceRecipe | None, rng: np.random.Generator
) -> tuple[Nuisances, Ints | None]:
    """Draw folds by unit and cross-fit the nuisances; where items repeat, for pairs of folds, with sub-folds."""
    if recipe is not None and not isinstance(recipe, NuisanceRecipe):
        raise ArgumentError(
            f"nuisances is {recipe!r}; must be a NuisanceRecipe(...), fitted Nuisances or None."
        )
    t, y = inputs.t, inputs.y
    design_recipe, design = learn_design(inputs.covariates, len(t))
    of_outcome = design if inputs.outcome_names is None else design.keep(inputs.outcome_names)
    same = inputs.propensity_names is None or inputs.propensity_names == inputs.outcome_names
    of_propensity = of_outcome if same else design.keep(inputs.propensity_names or ())
    strata = 2 * t + (y > y.mean())
    content = design.row_hash * np.uint64(7) + strata.astype(np.uint64) + _bits(y)
    folds = _folds(settings, recipe)
    in_pairs = _can_pair(inputs, settings, recipe, design)
    sub = folds.assign(inputs.units, content, strata, rng, divisions=2 if in_pairs else 1)
    fold = sub % folds.n_splits
    weights = np.ones_like(t) if inputs.weights is None else inputs.weights / inputs.weights.mean()
    problem = Problem(
        t,
        y,
        weights,
        of_propensity,
        of_outcome,
        fold,
        bool(np.isin(y, (0.0, 1.0)).all()),
        inputs.logged,
        in_pairs,
        sub,
    )
    if isinstance(recipe, SuperLearner):
        blocks = [c for c in inputs.covariates if isinstance(c, Block)]
        return fit_super_learner(problem, recipe, blocks, design_recipe, inputs.units), None
    return fit_nuisances(problem, recipe or NuisanceRecipe(), design_recipe), sub


def _folds(settings: Settings, recipe: NuisanceRecipe | None) -> Folds:
    """The folds asked for; a super learner has its own default, since its members cost more."""
    return recipe.folds if isinstance(recipe, SuperLearner) and settings.folds == Folds() else settings.folds


def _can_pair(inputs: Inputs, settings: Settings, recipe: NuisanceRecipe | None, design: Design) -> bool:
    """Whether pairs of folds are left out: pairs of rows are wanted, the learners are ridge, and folds and users are enough."""
    recipe = recipe or NuisanceRecipe()
    if isinstance(recipe, SuperLearner):
        return False
    ridge = isinstance(recipe.propensity, RidgeLogistic) and isinstance(recipe.outcome, RidgeLogistic)
    enough = (
        settings.folds.n_splits >= MIN_FOLDS and int(inputs.units.max()) + 1 >= 10 * settings.folds.n_splits
    )
    return ridge and enough and wants_pairs(settings.correction, inputs, repeated_items(inputs), design)


def rescore(analysis: Analysis, estimand: str) -> Analysis:
    """The same nuisances under another estimand, or raise ``OverlapError``."""
    settings = replace(analysis.settings, estimand=check_choice(estimand, "estimand", ESTIMANDS))
    return analyse(analysis.inputs, settings, analysis.nuisances, np.random.default_rng(0))


def _bits(y: F64) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(y, dtype=np.float64).view(np.uint64) >> np.uint64(20)


def _share_anyway(
    inputs: Inputs, settings: Settings, found: PairCorrection, at: tuple[F64, F64, F64], logged: bool
) -> scores.Estimate | None:
    """None where the ATT has no support, or the outcome is not a count of something that can happen anyway."""
    if (inputs.y < 0).any() or (inputs.y * inputs.t).sum() == 0:
        return None
    e, m0, m1 = at
    try:
        refuse_if_hopeless(
            measure_overlap(inputs.t, e, settings.clip, inputs.weights, "att"), inputs, "att", logged
        )
    except OverlapError:
        return None
    few = units_in_smaller_arm(inputs)
    items = clusters(inputs, found)
    try:
        corrected = second_order_again(inputs, found, "att")
    except EstimationError:
        return None
    if corrected is None:
        pair = scores.share_anyway(inputs.t, inputs.y, settings.clip.apply_above(e), m0, m1)
        treated = float(
            np.average(inputs.t * inputs.y, weights=inputs.weights)
            / np.average(inputs.t, weights=inputs.weights)
        )
        found_ratio = scores.ratio_influence(*pair, inputs.weights)
        return scores.estimate_of(
            *found_ratio, inputs.units, items, at_most=few, bias=found.may_remain / treated
        )
    mean, of_mean = scores.ratio_influence(inputs.t * inputs.y, inputs.t, inputs.weights)
    influence = corrected.value / mean**2 * of_mean - corrected.influence / mean
    bias = max(corrected.may_remain, found.may_remain) / mean
    return scores.estimate_of(
        1 - corrected.value / mean, influence, inputs.units, items, at_most=few, bias=bias
    )


def _check_items(inputs: Inputs) -> None:
    if inputs.items is not None and int(inputs.items.max()) == 0:
        raise EstimationError("items has one value; leave the item out, or it makes every row one cluster.")
