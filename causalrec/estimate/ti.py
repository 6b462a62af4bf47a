"""Words that give the treatment away: what is left of overlap once words that do not act on clicks are set aside."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from causalrec import scores
from causalrec._checks import check_choice, check_scalar
from causalrec._display import Displayable
from causalrec.blocks import Block
from causalrec.errors import EstimationError
from causalrec.estimate.analysis import Analysis
from causalrec.estimate.caveats import units_in_smaller_arm
from causalrec.nuisance import Nuisances, auc, refit_nuisances
from causalrec.nuisance.batch import TARGETS
from causalrec.nuisance.design import Design, Part

F64 = npt.NDArray[np.float64]
KNOTS = 4
PENALTY = 1.0
"""Of a standardised column of the projected propensity: a unit prior, as for plain covariates."""


@dataclass(frozen=True, eq=False)
class Projection(Displayable):
    """AIPW with a propensity that knows the text only through what it says about the outcome.

    Attributes
    ----------
    propensity : (n,)
        Out-of-fold P(T=1 | h, plain covariates), h = (m̂0(X), m̂1(X)), not clipped.
    outcome_0, outcome_1 : (n,)
        The outcome models that were given.
    estimand : "ate" or "att"
    effect : Estimate
        Of `estimand`, clustered by unit.
    auc, auc_before : float
        Of the treatment by this propensity, and by that of the analysis.
    first_order : Estimate
        The same estimand by the first-order score at the nuisances of the analysis.
    """

    estimand: str
    propensity: F64 = field(repr=False)
    outcome_0: F64 = field(repr=False)
    outcome_1: F64 = field(repr=False)
    effect: scores.Estimate
    auc: float
    auc_before: float
    first_order: scores.Estimate

    def _title(self) -> str:
        return f"{self.estimand.upper()} with the text projected on what it says about the outcome"

    def _rows(self) -> list[dict[str, Any]]:
        return [
            _row("propensity given the text", self.first_order, self.auc_before),
            _row("propensity given the projection", self.effect, self.auc),
        ]

    def _notes(self) -> list[str]:
        return [
            "The projection trusts the outcome models: it no longer corrects what they miss of the words, and its interval "
            "takes them to converge faster than n^(-1/4)."
        ]


def _row(name: str, e: scores.Estimate, treatment_auc: float) -> dict[str, Any]:
    return {
        "with": name,
        "effect": e.value,
        "std_error": e.std_error,
        "ci_lower": e.ci_lower,
        "ci_upper": e.ci_upper,
        "auc": treatment_auc,
    }


def project_propensity(analysis: Analysis, estimand: Literal["ate", "att"] | None = None) -> Projection:
    """Estimate the propensity anew, on the outcome predictions and the plain covariates alone.

    ê_h = P(T=1 | m̂0(X), m̂1(X), covariates that are no text), a logistic regression with hinges at the quintiles of
    the predictions; for the rows of a fold it is fitted on the other folds, whose own predictions are out-of-fold.
    Gui & Veitch (2023), *Causal estimation for text data with (apparent) overlap violations*, ICLR.

    Where a text all but says whether it was treated, P(T=1 | text) is near 0 or 1 though the words that say so do
    not act on the outcome; given h there is overlap. The price is an assumption more: confounding by the text
    must pass through m̂0 and m̂1. *Double robustness is lost*: a wrong outcome model is not made good by the
    propensity, and (m̂0, m̂1) must converge fast enough to be taken for known.

    Parameters
    ----------
    analysis : Analysis
        Of any estimand (where the ATE is refused, that of the ATO). Its propensity must be estimated, not logged.
    estimand : "ate", "att" or None
        None is that of the analysis, and the ATE where it is the ATO: overlap weights at another propensity are those of another population.
    """
    nu = analysis.nuisances
    if estimand is None:
        estimand = "att" if analysis.settings.estimand == "att" else "ate"
    check_choice(estimand, "estimand", ("ate", "att"))
    analysis = replace(analysis, settings=replace(analysis.settings, estimand=estimand))
    if nu.logged:
        raise EstimationError(
            "the propensity was logged, so that there is none to project; use the effect as it is."
        )
    e = _projected(nu, _plain(analysis))
    effect = _effect(analysis, e, nu.outcome_0, nu.outcome_1)
    used = nu.problem.w > 0
    return Projection(
        estimand,
        e,
        nu.outcome_0,
        nu.outcome_1,
        effect,
        auc(e[used], analysis.inputs.t[used]),
        auc(nu.propensity[used], analysis.inputs.t[used]),
        _effect(analysis, nu.propensity, nu.outcome_0, nu.outcome_1),
    )


def _plain(analysis: Analysis) -> F64:
    """(n, q) design columns of the covariates that are no representation of a text."""
    names = [str(c.name) for c in analysis.inputs.covariates if not isinstance(c, Block)]
    return analysis.nuisances.problem.propensity_design.keep(names).dense().astype(np.float64)


def _projected(nu: Nuisances, plain: F64) -> F64:
    """(n,) out-of-fold propensity given the outcome predictions and the plain columns."""
    from sklearn.linear_model import LogisticRegression

    t, w = nu.problem.t, nu.problem.w
    at = np.linspace(0, 1, KNOTS + 2)[1:-1]
    columns = [plain]
    for m in (nu.outcome_0, nu.outcome_1):
        z = (m - m.mean()) / max(float(m.std()), 1e-12)
        columns += [z[:, None], *(np.maximum(z - k, 0)[:, None] for k in np.unique(np.quantile(z, at)))]
    x = np.hstack(columns)
    out = np.empty(len(t))
    for k in range(int(nu.fold.max()) + 1):
        train = (nu.fold != k) & (w > 0)
        model = LogisticRegression(C=1 / PENALTY, max_iter=1000).fit(x[train], t[train], w[train])
        out[nu.fold == k] = model.predict_proba(x[nu.fold == k])[:, 1]
    return out


def _effect(a: Analysis, e: F64, m0: F64, m1: F64) -> scores.Estimate:
    pair = a.settings.score(a.inputs.t, a.inputs.y, (e, m0, m1))
    few = units_in_smaller_arm(a.inputs)
    return scores.clustered_ratio(pair, a.inputs.units, None, a.inputs.weights, at_most=few)


@dataclass(frozen=True, eq=False)
class InstrumentLike(Displayable):
    """Directions of the text that predict the treatment and do nothing for the outcome models.

    Attributes
    ----------
    records : tuple of dict
        For each representation, without its direction: ``auc_lost`` of the treatment, ``loss_added`` to the squared
        error of the outcome with its ``z``, whether it is ``instrument_like``, the effect and its interval.
    first_order : Estimate
        The first-order effect with everything.
    """

    records: tuple[dict[str, Any], ...] = field(repr=False)
    first_order: scores.Estimate

    def _title(self) -> str:
        found = sum(bool(r["instrument_like"]) for r in self.records)
        return f"{found} of {len(self.records)} representations have a direction that moves exposure and not the outcome"

    def _rows(self) -> list[dict[str, Any]]:
        return list(self.records)

    def _notes(self) -> list[str]:
        e = self.first_order
        return [
            f"With everything: {e.value:+.4f} [{e.ci_lower:+.4f}, {e.ci_upper:+.4f}].",
            "Adjusting for such a direction costs precision and blows up hidden confounding; leaving it out is wrong where "
            "it acts on the outcome more weakly than these rows can show.",
        ]


def instrument_like(analysis: Analysis, min_auc: float = 0.02) -> InstrumentLike:
    """For each wide representation, its direction of exposure that is uncorrelated with its directions of the outcome.

    In fold k, with coefficients β_e, β_0, β_1 fitted on the other folds and Σ the covariance of the block:
    γ = β_e − B (B'ΣB)⁻¹ B'Σ β_e, B = (β_0, β_1). Everything is fitted again (penalties kept) on the block residualised
    on the variable Zγ, and judged on the held-out rows.

    Parameters
    ----------
    analysis : Analysis
        With ridge-logistic nuisances.
    min_auc : float
        AUC of the treatment that a direction has to be worth.
    """
    check_scalar(min_auc, "min_auc", ge=0, lt=0.5)
    nu = analysis.nuisances
    if nu.ridge is None or any(target not in nu.ridge.betas for target in TARGETS):
        raise EstimationError(
            "a direction is read off ridge-logistic models of exposure and both outcomes; fit these nuisances by RidgeLogistic()."
        )
    both = set(nu.problem.propensity_design.owners) & set(nu.problem.outcome_design.owners)
    names = [c.name for c in analysis.inputs.covariates if isinstance(c, Block) and c.name in both]
    if not names:
        raise EstimationError("the analysis adjusts for no representation of a text; embed the log.")
    first = _effect(analysis, nu.propensity, nu.outcome_0, nu.outcome_1)
    return InstrumentLike(tuple(_judged(analysis, name, min_auc) for name in names), first)


def _judged(a: Analysis, name: str, min_auc: float) -> dict[str, Any]:
    t, y, nu, w = a.inputs.t, a.inputs.y, a.nuisances, a.nuisances.problem.w
    e, m0, m1 = _without_direction(nu, name)
    lost = auc(nu.propensity[w > 0], t[w > 0]) - auc(e[w > 0], t[w > 0])
    long, short = (np.where(t == 1, b, c) for b, c in ((nu.outcome_1, nu.outcome_0), (m1, m0)))
    added, phi = scores.ratio_influence((y - short) ** 2 - (y - long) ** 2, np.ones_like(y), w)
    se = float(np.sqrt(scores.cluster_variance(phi, a.inputs.units)[0]))
    z = added / se if se > 0 else 0.0
    effect = _effect(a, e, m0, m1)
    return {
        "without_a_direction_of": name,
        "auc_lost": lost,
        "loss_added": added,
        "z": z,
        "instrument_like": bool(lost > min_auc and z < 1.645),
        "effect": effect.value,
        "std_error": effect.std_error,
        "ci_lower": effect.ci_lower,
        "ci_upper": effect.ci_upper,
    }


def _without_direction(nu: Nuisances, name: str) -> tuple[F64, F64, F64]:
    """(e, m0, m1) out of fold, the block residualised on the direction that the other folds found."""
    p = nu.problem
    out = np.empty((3, len(nu.fold)))
    t, y, w = p.t[:, None], p.y[:, None], p.w[:, None]
    for k in range(int(nu.fold.max()) + 1):
        gamma = _direction(nu, name, k)
        of_outcome = _residualised(p.outcome_design, name, gamma, p.w)
        same = p.propensity_design is p.outcome_design
        of_propensity = of_outcome if same else _residualised(p.propensity_design, name, gamma, p.w)
        problem = replace(p, propensity_design=of_propensity, outcome_design=of_outcome)
        found = refit_nuisances(replace(nu, problem=problem), t, y, w, TARGETS)
        here = nu.fold == k
        for row, values in zip(out, (found.propensity, found.outcome_0, found.outcome_1), strict=True):
            row[here] = values[here, 0]
    return out[0], out[1], out[2]


def _direction(nu: Nuisances, name: str, k: int) -> F64:
    """(d,) γ of one block in the models that left out fold k."""
    part = _find(nu.problem.outcome_design, name)[0]
    assert nu.ridge is not None
    betas, column = nu.ridge.betas, nu.ridge.without(k)
    of = {target: betas[target][_find(nu.problem.designs[target], name)[1], column] for target in TARGETS}
    beta, b = of["propensity"], np.column_stack([of["outcome_0"], of["outcome_1"]])
    z = part.values.astype(np.float64)
    weights = nu.problem.w * (nu.fold != k)
    counts = weights if part.codes is None else np.bincount(part.codes, weights, len(z))
    z = z - counts @ z / counts.sum()
    mixed = z @ np.column_stack([b, beta])
    cov = mixed.T @ (counts[:, None] * mixed) / counts.sum()
    return np.asarray(beta - b @ (np.linalg.pinv(cov[:2, :2]) @ cov[:2, 2]))


def _find(design: Design, name: str) -> tuple[Part, slice]:
    return next((p, s) for p, s in zip(design.parts, design.slices, strict=True) if name in p.owners)


def _residualised(design: Design, name: str, gamma: F64, w: F64) -> Design:
    """The design with each column of one block replaced by its residual on the variable Zγ."""
    part = _find(design, name)[0]
    z = part.values.astype(np.float64)
    counts = w if part.codes is None else np.bincount(part.codes, w, len(z))
    u = z @ gamma
    u = u - counts @ u / counts.sum()
    size = float(counts @ u**2)
    slope = (counts * u) @ z / size if size > 0 else np.zeros(z.shape[1])
    new = replace(part, values=(z - np.outer(u, slope)).astype(np.float32))
    return replace(design, parts=tuple(new if p is part else p for p in design.parts))
