"""What did recommending cause? The verb ``estimate`` and its result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec._checks import as_generator, check_scalar
from causalrec._display import Displayable
from causalrec.blocks import Block
from causalrec.errors import ArgumentError, EstimationError, IdentificationError
from causalrec.estimate.analysis import Analysis, Inputs, Settings, analyse, rescore
from causalrec.estimate.bias_aware import Assumption, BiasAware, bias_aware
from causalrec.estimate.bridge import default_model, fit_econml
from causalrec.estimate.cate import cate_interval
from causalrec.estimate.correction import Correction, PairCorrection
from causalrec.estimate.groups import GroupEffects, group_effects
from causalrec.estimate.modifiers import ModifierRecipe
from causalrec.estimate.overlap import Overlap
from causalrec.estimate.paths import learnt, other_path
from causalrec.estimate.similar import Texts
from causalrec.identify import Plan
from causalrec.log import ImpressionLog
from causalrec.nuisance import Clip, Folds, NuisanceRecipe, Nuisances
from causalrec.scores import Estimate

F64 = npt.NDArray[np.float64]
POPULATIONS = {
    "ate": "all impressions of the log",
    "att": "the impressions that were treated",
    "ato": "impressions weighted by e(1 − e): those where either arm could have happened",
}


@dataclass(frozen=True, eq=False)
class Fit(Displayable):
    """An effect with its interval, and everything needed to doubt it.

    Attributes
    ----------
    log, plan : what was analysed, and what was adjusted for
    analysis : Analysis
        Nuisances, scores and intervals as arrays.
    model : fitted EconML estimator
    modifiers : ModifierRecipe
    seed : int
        From which everything that refits draws.
    """

    log: ImpressionLog = field(repr=False)
    plan: Plan = field(repr=False)
    analysis: Analysis = field(repr=False)
    model: Any = field(repr=False)
    modifiers: ModifierRecipe = field(repr=False)
    seed: int = 0

    @property
    def estimand(self) -> str:
        """``"ATE"``, ``"ATT"`` or ``"ATO"``."""
        return self.analysis.settings.estimand.upper()

    @property
    def effect(self) -> float:
        """The mean of the estimand's scores, of second order where ``correction.order`` is 2; clicks per impression."""
        return self.analysis.effect.value

    @property
    def std_error(self) -> float:
        """Standard error of ``effect``, clustered by unit, and by item where items repeat."""
        return self.analysis.effect.std_error

    @property
    def ci_lower(self) -> float:
        """Lower end of the 95 % interval."""
        return self.analysis.effect.ci_lower

    @property
    def ci_upper(self) -> float:
        """Upper end of the 95 % interval."""
        return self.analysis.effect.ci_upper

    @property
    def p_value(self) -> float:
        """Two-sided p-value of no effect."""
        return self.analysis.effect.p_value

    @property
    def n(self) -> int:
        """Impressions."""
        return len(self.log)

    @property
    def n_units(self) -> int:
        """Units (users), G."""
        return self.log.n_units

    @property
    def ess(self) -> float:
        """Kish's effective sample size of the inverse-propensity weights, both arms, rows."""
        return self.analysis.overlap.ess

    @property
    def share_clipped(self) -> float:
        """Share of propensities beyond the clip."""
        return self.analysis.overlap.share_clipped

    @property
    def overlap(self) -> Overlap:
        """Quantiles of the propensity, AUC, ESS of each arm."""
        return self.analysis.overlap

    @property
    def naive(self) -> Estimate:
        """The naive comparison of means, clustered by unit."""
        return self.analysis.naive

    @property
    def naive_effect(self) -> float:
        """Mean outcome of the treated rows minus that of the others; not an effect."""
        return self.analysis.naive.value

    @property
    def share_anyway(self) -> tuple[float, float, float] | None:
        """(share, lower, upper) of the treated rows' clicks that would have happened untreated; None if undefined."""
        a = self.analysis.anyway
        return None if a is None else (a.value, a.ci_lower, a.ci_upper)

    @property
    def by_item(self) -> Estimate | None:
        """The effect with errors clustered by unit *and* item, None where no item repeats."""
        return self.analysis.by_item

    @property
    def by_unit(self) -> Estimate:
        """The effect with errors clustered by unit alone."""
        return self.analysis.by_unit

    @property
    def correction(self) -> PairCorrection:
        """What pairs of rows said of the confounding that the words and covariates left."""
        return self.analysis.correction

    @property
    def first_order(self) -> Estimate:
        """The first-order (AIPW) effect."""
        return self.analysis.correction.first_order

    @property
    def scores(self) -> F64:
        """(n,) scores whose (weighted) mean is ``effect``."""
        return self.analysis.scores

    @property
    def nuisances(self) -> Nuisances:
        """Out-of-fold propensity and outcome models, frozen."""
        return self.analysis.nuisances

    @property
    def model_average(self) -> float:
        """The EconML model's own average effect; overlap-weighted where the model is of the DML family."""
        return float(np.average(self.cate(self.log), weights=self.analysis.inputs.weights))

    def cate(self, log: ImpressionLog) -> F64:
        """(n,) conditional effect given the modifiers (and words, of a ``WordEffects`` model)."""
        x = self._x(log)
        return (
            np.full(len(log), float(np.ravel(self.model.effect(None))[0]))
            if x is None
            else np.ravel(self.model.effect(x))
        )

    def cate_interval(self, log: ImpressionLog, alpha: float = 0.05) -> tuple[F64, F64]:
        """(lower, upper), (n,) each, pointwise.

        Clustered by unit for ``LinearDRLearner`` (a sandwich over the same linear projection); other models give
        EconML's own interval, which takes rows for independent, and a warning says so.
        """
        check_scalar(alpha, "alpha", gt=0, lt=1)
        return cate_interval(self.model, self.analysis, self._x(self.log), self._x(log), len(log), alpha)

    def by(self, modifier: str, bins: int = 4) -> GroupEffects:
        """Group average effects (GATE) by one declared modifier, numbers in quantile bins."""
        return group_effects(
            self.log, self.analysis, modifier, check_scalar(bins, "bins", ge=2, le=50, integer=True)
        )

    def under(self, estimand: str) -> Fit:
        """The same fit, same nuisances, under another estimand; the rule decides anew whether pairs of rows correct it."""
        return Fit(
            self.log, self.plan, rescore(self.analysis, estimand), self.model, self.modifiers, self.seed
        )

    def with_model(self, model: Any) -> Fit:
        """The same effect and nuisances with another model of how the effect varies; only its final stage is fitted.

        Parameters
        ----------
        model : unfitted EconML estimator of the DR or DML family, or ``SLearner``, ``TLearner``, ``XLearner``, ``WordEffects``
        """
        inputs = self.analysis.inputs
        recipe, told = self.modifiers.fitting(model, self.log)
        fitted = fit_econml(
            told, inputs.y, inputs.t, recipe.matrix(self.log), self.nuisances, self.analysis.settings.clip,
            inputs.weights, self.seed, self.analysis.ate_scores,
        )  # fmt: skip
        return replace(self, model=fitted, modifiers=recipe)

    def _x(self, log: ImpressionLog) -> F64 | None:
        missing = [n for n, _ in self.modifiers.columns if n not in log.frame.columns]
        if missing:
            raise EstimationError(
                f"the log lacks the modifiers {missing}, by which this fit's effect varies."
            )
        return self.modifiers.matrix(log)

    def bias_aware(self, assumption: Assumption | None = None) -> BiasAware:
        """An interval that allows for what the nuisances have not learnt of texts that are shown once.

        Parameters
        ----------
        assumption : SimilarTexts, LearningCurve or OmittedVariable
            What is assumed; it is part of the result. Default ``SimilarTexts()``.
        """
        return bias_aware(self.analysis, assumption, self.analysis.inputs.texts, np.random.default_rng(self.seed))

    def _title(self) -> str:
        what = f"{self.log.roles.treatment[0]} → {self.log.roles.outcome[0]}"
        return f"{self.estimand} of {what}: {self.effect:+.4f} [{self.ci_lower:+.4f}, {self.ci_upper:+.4f}], 95 %, clustered by {self._cluster()}"

    def _cluster(self) -> str:
        """What the headline's errors are clustered by."""
        return self._unit() if self.by_item is None else f"{self._unit()} and {self._item()}"

    def _unit(self) -> str:
        return self.log.roles.unit[0] if self.log.roles.unit else "row (no unit declared)"

    def _item(self) -> str:
        items = self.log.items
        declared = self.log.roles.item if items is not None and int(items.max()) + 1 < len(items) else ()
        return (declared or self.log.roles.text or self.log.roles.item or ("item",))[0]

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {
                "quantity": name,
                "estimate": e.value,
                "std_error": e.std_error,
                "ci_lower": e.ci_lower,
                "ci_upper": e.ci_upper,
                "p_value": e.p_value,
            }
            for name, e in self._estimates()
        ]

    def _estimates(self) -> Iterator[tuple[str, Estimate]]:
        yield "naive difference (not an effect)", self.naive
        yield f"effect, {self.estimand}", self.analysis.effect
        if self.correction.order == 2:
            yield f"effect, {self.estimand}, first order (AIPW)", self.first_order
        if self.analysis.of_repeated is not None:
            yield f"effect, {self.estimand}, on items shown more than once", self.analysis.of_repeated
        if self.correction.left is not None:
            yield "bias that the words and covariates left", self.correction.left
        if self.by_item is not None:
            yield f"effect, {self.estimand}, errors by {self._unit()} alone", self.by_unit
        if self.analysis.anyway is not None:
            yield "share of treated clicks that would have happened anyway", self.analysis.anyway

    def _notes(self) -> list[str]:
        o = self.overlap
        who = (
            f"{self.n_units:,} {self._unit()}s"
            if self.log.roles.unit
            else "every row its own unit (no unit declared)"
        )
        notes = [
            f"Population: {POPULATIONS[self.analysis.settings.estimand]}; {self.n:,} impressions, {who}.",
            f"Effective sample size {o.ess_treated:,.0f} of {o.n_treated:,} treated, {o.ess_control:,.0f} of {o.n_control:,} control; "
            f"{100 * o.share_clipped:.1f} % clipped at {self.analysis.settings.clip.bound:g}; held-out AUC of the treatment {o.auc:.3f}.",
        ]
        if self.by_item is not None:
            notes.append(
                f"{self._item()!r} repeats, so that items count as a sample: errors are clustered by {self._cluster()}."
            )
        notes.append(self.correction.sentence())
        blocks = [c for c in self.analysis.inputs.covariates if isinstance(c, Block)]
        notes += [s for s in (learnt(self.nuisances), other_path(self.nuisances, blocks)) if s]
        if type(self.model).__name__.endswith("DML"):
            notes.append(
                f"{type(self.model).__name__}'s own average is {self.model_average:+.4f} (overlap-weighted, another estimand, and of first order)."
            )
        return notes + list(self.analysis.caveats) + [f"Untested: {a}" for a in self.plan.assumptions]


def estimate(
    log: ImpressionLog,
    plan: Plan,
    *,
    model: Any = None,
    estimand: str = "ate",
    nuisances: NuisanceRecipe | Nuisances | None = None,
    folds: Folds | None = None,
    correction: Correction | None = None,
    clip: Clip | None = None,
    random_state: int | np.random.Generator | None = None,
) -> Fit:
    """Estimate the effect of the treatment on the outcome, adjusted as planned.

    Folds are drawn by unit; penalties, scales and calibration are fitted inside each fold's training rows;
    the effect is the mean of the named estimand's doubly robust scores, with a standard error clustered by unit.

    Parameters
    ----------
    log : ImpressionLog
        With the representation blocks that the plan names.
    plan : Plan
        From ``identify``.
    model : unfitted EconML estimator of the DR or DML family
        Models how the effect varies with the modifiers, on the same nuisances; default ``LinearDRLearner()``.
    estimand : "ate", "att" or "ato"
        Average over all rows, over the treated rows, or weighted by overlap.
    nuisances : NuisanceRecipe or fitted Nuisances
    folds : Folds
    correction : Correction
        Order and kernels of the scores; by default a rule decides that never looks at the effect.
    clip : Clip
    random_state : int, Generator or None

    Returns
    -------
    Fit

    Raises
    ------
    OverlapError
        The arms do not overlap enough for the estimand.
    EstimationError, IdentificationError, ArgumentError
    """
    inputs = _inputs(log, plan)
    settings = Settings.of(estimand, clip, folds, inputs.t, correction)
    rng = as_generator(random_state)
    seed = int(rng.integers(2**31))
    analysis = analyse(inputs, settings, nuisances, np.random.default_rng(seed))
    recipe, told = ModifierRecipe.learn(log.frame, plan.modifiers).fitting(
        default_model() if model is None else model, log
    )
    final = fit_econml(
        told,
        inputs.y,
        inputs.t,
        recipe.matrix(log),
        analysis.nuisances,
        settings.clip,
        inputs.weights,
        seed,
        analysis.ate_scores,
    )
    return Fit(log, plan, analysis, final, recipe, seed)


def _inputs(log: ImpressionLog, plan: Plan) -> Inputs:
    if not isinstance(log, ImpressionLog) or not isinstance(plan, Plan):
        raise ArgumentError(
            f"estimate takes (log, plan), an ImpressionLog and a Plan; got ({type(log).__name__}, {type(plan).__name__})."
        )
    log.require_kind("binary", "estimate")
    control = log.outcome[log.treatment == 0]
    if not control.any():
        raise EstimationError(
            f"the control arm ({len(control):,} rows) has no positive {log.roles.outcome[0]!r}; its rate cannot be modelled, and there is no effect to "
            "estimate. Use a longer period; if clicks are seen only where something was shown, finetune can learn from this log."
        )
    if plan.obstacle is not None:
        raise IdentificationError(
            f"{plan.obstacle} estimate adjusts for back doors only; see plan.summary(). Where an instrument is declared, estimate_instrument(log, plan) takes it."
        )
    return inputs_of(log, plan, log.treatment, log.weights, log.logged_propensity)


def inputs_of(
    log: ImpressionLog, plan: Plan, t: F64, weights: F64 | None, logged: F64 | None
) -> Inputs:
    """The arrays of a log with exposure t (n,), and what the plan adjusts for: modifiers first, blocks last."""
    adjusted = tuple(dict.fromkeys((*plan.propensity_nodes, *plan.outcome_nodes)))
    nodes = tuple(sorted(adjusted, key=lambda node: (node in log.blocks, node not in plan.modifiers)))
    return Inputs(
        t, log.outcome, covariates(log, nodes), log.units, log.items, weights, logged, plan.propensity_nodes,
        plan.outcome_nodes, words_of(log, nodes),
    )  # fmt: skip


def words_of(log: ImpressionLog, nodes: tuple[str, ...]) -> list[Texts]:
    """(name, distinct texts, codes) of the text columns that are adjusted for."""
    return [(name, *log.texts(name)) for name in log.roles.text if f"text:{name}" in nodes]


def covariates(log: ImpressionLog, nodes: tuple[str, ...]) -> list[Block | pd.Series]:
    """The blocks and columns that these nodes of a plan stand for."""
    out: list[Block | pd.Series] = []
    for node in nodes:
        if node in log.blocks:
            out.append(log.blocks[node])
        elif node in log.frame.columns:
            out.append(log.frame[node])
        else:
            raise EstimationError(
                f"the plan adjusts for {node!r}, which the log does not have; it has the blocks {list(log.blocks)}. Was this log embedded?"
            )
    return out
