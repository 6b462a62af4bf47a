"""A fit as DoWhy sees one: identified estimand, estimate and data, for DoWhy's own refuters.

A representation block travels as one integer column, the row's index into the block's distinct vectors, so that
DoWhy moves n integers where it would move n × 384 floats; the estimator puts the vectors back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from causalrec._display import Displayable
from causalrec.blocks import Block
from causalrec.estimate import Fit
from causalrec.estimate.analysis import Inputs, analyse

if TYPE_CHECKING:
    from causalrec.estimate.analysis import Settings
    from causalrec.nuisance import NuisanceRecipe

UNIT, WEIGHT, LOGGED = "unit_code", "row_weight", "logged_p"


@dataclass(frozen=True, eq=False)
class DowhyView(Displayable):
    """What DoWhy's functional refuters take: ``refute_…(view.data, view.estimand, view.estimate, …)``.

    Attributes
    ----------
    data : DataFrame
    estimand : dowhy IdentifiedEstimand
    estimate : dowhy CausalEstimate, around causalrec's estimator
    """

    data: pd.DataFrame
    estimand: Any
    estimate: Any

    def _rows(self) -> list[dict[str, Any]]:
        return [{"column": c, "dtype": str(self.data[c].dtype)} for c in self.data.columns]


def to_dowhy(fit: Fit) -> DowhyView:
    """The fit as a DoWhy estimate whose estimator refits everything, nuisances and penalties, on any perturbed data."""
    from dowhy.causal_estimator import CausalEstimate
    from dowhy.causal_identifier import BackdoorAdjustment, EstimandType, identify_effect_auto

    log, inputs = fit.log, fit.analysis.inputs
    treatment, outcome = log.roles.treatment[0], log.roles.outcome[0]
    names = {str(c.name): f"x{j}_{_plain(str(c.name))}" for j, c in enumerate(inputs.covariates)}
    data = pd.DataFrame({treatment: inputs.t.astype(int), outcome: inputs.y, UNIT: inputs.units})
    if inputs.weights is not None:
        data[WEIGHT] = inputs.weights
    if inputs.logged is not None:
        data[LOGGED] = inputs.logged
    blocks: dict[str, Block] = {}
    for covariate in inputs.covariates:
        name = names[str(covariate.name)]
        data[name] = covariate.codes if isinstance(covariate, Block) else covariate.to_numpy()
        if isinstance(covariate, Block):
            blocks[name] = covariate
    graph = _graph(treatment, outcome, list(names.values()))
    estimand = identify_effect_auto(
        graph,
        [treatment],
        [outcome],
        list(names.values()),
        EstimandType.NONPARAMETRIC_ATE,
        backdoor_adjustment=BackdoorAdjustment.BACKDOOR_MAX,
    )
    estimand.set_identifier_method("backdoor")
    in_propensity = inputs.propensity_names
    kept_out = frozenset(
        new for old, new in names.items() if in_propensity is not None and old not in in_propensity
    )
    estimator = _estimator(
        estimand, blocks, kept_out, fit.analysis.settings, fit.nuisances.recipe, fit.seed, treatment, outcome
    )
    estimator._set_effect_modifiers(data, [])
    estimate = CausalEstimate(
        data, [treatment], [outcome], fit.effect, estimand, None, control_value=0, treatment_value=1
    )
    estimate.add_estimator(estimator)
    return DowhyView(data, estimand, estimate)


def _graph(treatment: str, outcome: str, names: list[str]) -> Any:
    import networkx as nx

    graph = nx.DiGraph([(treatment, outcome)])
    graph.add_edges_from((name, child) for name in names for child in (treatment, outcome))
    return graph


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name).replace("propensity", "prop")


def _estimator(
    estimand: Any,
    blocks: dict[str, Block],
    kept_out: frozenset[str],
    settings: Settings,
    recipe: NuisanceRecipe,
    seed: int,
    treatment: str,
    outcome: str,
) -> Any:
    from dowhy.causal_estimator import CausalEstimate, CausalEstimator

    class CausalRecEstimator(CausalEstimator):
        """causalrec's estimator behind DoWhy's interface."""

        _target_units = "ate"
        _effect_modifier_names: tuple[str, ...] = ()

        def __deepcopy__(self, memo: dict[int, Any]) -> Any:
            twin = CausalRecEstimator(self._target_estimand)
            twin.__dict__.update(self.__dict__)
            return twin

        def fit(self, data: pd.DataFrame, effect_modifier_names: list[str] | None = None) -> Any:
            self._set_effect_modifiers(data, [])
            self._treatment = self._target_estimand.treatment_variable
            self._value = _effect(data, self._target_estimand, blocks, kept_out, settings, recipe, seed)
            return self

        def estimate_effect(
            self,
            data: pd.DataFrame,
            treatment_value: Any = 1,
            control_value: Any = 0,
            target_units: str = "ate",
        ) -> Any:
            made = CausalEstimate(
                data,
                [treatment],
                [outcome],
                self._value,
                self._target_estimand,
                None,
                control_value=control_value,
                treatment_value=treatment_value,
            )
            made.add_estimator(self)
            return made

    return CausalRecEstimator(estimand)


def _effect(
    data: pd.DataFrame,
    estimand: Any,
    blocks: dict[str, Block],
    kept_out: frozenset[str],
    settings: Settings,
    recipe: NuisanceRecipe,
    seed: int,
) -> float:
    """Causalrec's effect on DoWhy's perturbed table; `kept_out` are columns that the propensity does without."""
    covariates: list[Block | pd.Series] = []
    texts = []
    adjusted = set(estimand.get_adjustment_set())  # in the order of the columns, along which folds are drawn
    for name in (str(c) for c in data.columns if c in adjusted):
        column = data[name].reset_index(drop=True)
        if name in blocks:
            block = replace(blocks[name], name=name, codes=column.to_numpy(dtype=np.int64))
            covariates.append(block)
            if block.texts is not None:
                texts.append((block.columns[0], list(block.texts), block.codes))
        else:
            covariates.append(column)
    names = tuple(str(c.name) for c in covariates)
    inputs = Inputs(
        data[estimand.treatment_variable[0]].to_numpy(dtype=np.float64),
        np.ravel(data[estimand.outcome_variable[0]].to_numpy(dtype=np.float64)),
        covariates,
        pd.factorize(data[UNIT])[0].astype(np.int64),
        weights=data[WEIGHT].to_numpy(dtype=np.float64) if WEIGHT in data else None,
        logged=data[LOGGED].to_numpy(dtype=np.float64) if LOGGED in data else None,
        propensity_names=tuple(name for name in names if name not in kept_out),
        outcome_names=names,
        texts=texts,
    )
    return analyse(inputs, settings, recipe, np.random.default_rng(seed)).effect.value
