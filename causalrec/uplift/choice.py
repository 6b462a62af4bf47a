"""Which model of the effect? Compared on users that it has not seen; one effect for everyone wins unless it is beaten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from causalrec import scores
from causalrec._checks import as_generator, check_scalar
from causalrec._display import Displayable
from causalrec.errors import ArgumentError
from causalrec.estimate import Fit
from causalrec.estimate.bridge import Predictions, fit_econml, without_fold
from causalrec.estimate.caveats import units_in_smaller_arm
from causalrec.estimate.correction import clusters
from causalrec.estimate.metalearners import ConstantEffect, Stack, TLearner, XLearner
from causalrec.joint import DRAWS, Index, largest, two_way

F64 = npt.NDArray[np.float64]
CONSTANT, STACK = "constant", "stack"


@dataclass(frozen=True, eq=False)
class ModelChoice(Displayable):
    """Models of the effect, judged on users that they have not seen.

    Attributes
    ----------
    records : tuple of dict
        One a model, the constant first: model, dr_loss, gain (the constant's loss less the model's, positive = better),
        ci_lower, ci_upper (95 %, clustered), joint_lower (one-sided 95 %, over all models at once), r_score,
        r_lower, r_upper, share_in_stack.
    best : str
        The model with the least loss of those whose `joint_lower` is above 0; "constant" if there is none.
    best_fit : Fit
        The fit with that model, fitted to all its users: ``cr.uplift(choice.best_fit, test)``.
    lowest : str
        The model with the least loss, whether or not that may be chance.
    lowest_fit : Fit
        The fit with that model.
    cate : dict of str to (n,)
        Effects predicted for users that the model has not seen.
    apart : bool
        The nuisances on which a model was trained had not seen these users either.
    """

    records: tuple[dict[str, Any], ...] = field(repr=False)
    best: str
    best_fit: Fit = field(repr=False)
    lowest: str
    lowest_fit: Fit = field(repr=False)
    cate: dict[str, F64] = field(repr=False)
    apart: bool = True

    def _title(self) -> str:
        return f"Models of the effect on held-out users: {self.best} is chosen"

    def _rows(self) -> list[dict[str, Any]]:
        return list(self.records)

    def _notes(self) -> list[str]:
        found = {r["model"]: r for r in self.records}
        if self.best == CONSTANT:
            said = "No model is shown to beat one effect for everyone on held-out users."
        else:
            said = f"{self.best} beats one effect for everyone: its loss is lower by at least {found[self.best]['joint_lower']:.3g} (one-sided 95 %)."
        notes = [
            said,
            "dr_loss is the mean of (ψ − τ̂)², most of it noise of the scores that no model can explain; compare gains.",
        ]
        if not self.apart:
            notes.append(
                "What a model was trained on has met held-out users too: scores corrected by pairs of rows hold partners from every fold, and nuisances other than ridge "
                "may have been trained by them, which flatters S-, T- and X-learners. A ranking is judged apart by uplift(fit, test)."
            )
        return notes


@dataclass(frozen=True, eq=False)
class _Data:
    """What models are fitted to and judged by, (n,) each."""

    fit: Fit
    x: F64 | None
    psi: F64
    e: F64
    w: F64
    own_scores: F64 | None
    seed: int

    def without(self, model: Any, k: int, nuisances: Predictions) -> F64:
        """Effects in fold k by the model fitted to the other folds, (rows of fold k,)."""
        inputs, out = self.fit.analysis.inputs, self.fit.nuisances.fold != k
        fitted = fit_econml(
            model, inputs.y[out], inputs.t[out], None if self.x is None else self.x[out], nuisances,
            self.fit.analysis.settings.clip, None if inputs.weights is None else inputs.weights[out], self.seed,
            None if self.own_scores is None else self.own_scores[out],
        )  # fmt: skip
        return np.ravel(fitted.effect(None if self.x is None else self.x[~out]))


def choose_model(
    fit: Fit,
    models: Mapping[str, Any] | None = None,
    *,
    stack: bool = True,
    alpha: float = 0.05,
    random_state: int | np.random.Generator | None = 0,
) -> ModelChoice:
    """Choose a model of the effect by its doubly robust loss on held-out users.

    The folds of the fit's nuisances serve again: a model is fitted to the users of all folds but one and predicts for
    that one, both on nuisances that have not seen it (ridge learners). Its loss is E[(ψ − τ̂)²] with ψ the doubly robust score, and its gain the constant's loss less its own,
    with an interval clustered by user (and item). The R-score compares E[(Y − l − τ̂ (T − e))²] alike. The stack is the
    convex combination with the least loss; its shares for a fold come from the other folds. Nuisances are not fitted again.

    Parameters
    ----------
    fit : Fit
    models : mapping of name to unfitted model
        As for ``estimate``; default ``default_models()``. The constant always competes.
    stack : bool
        Let a combination of the models compete as well.
    alpha : float
        Level at which the constant must be beaten, one-sided, over all models at once.
    random_state : int, Generator or None

    Raises
    ------
    ArgumentError
        A model cannot take fitted nuisances, needs modifiers that the log lacks, or has a reserved name.

    References
    ----------
    Nie & Wager (2021), eq. 4 (R-loss); Chernozhukov et al. (2024), *Applied causal inference powered by ML and AI*, ch. 15.
    """
    if not isinstance(fit, Fit):
        raise ArgumentError(
            f"choose_model takes a Fit; got {type(fit).__name__}. Make one with estimate(log, plan)."
        )
    check_scalar(alpha, "alpha", gt=0, lt=0.5)
    rng = as_generator(random_state)
    data = _data(fit, int(rng.integers(2**31)))
    named = _named(default_models() if models is None else models)
    cate, apart = _out_of_fold(data, named)
    shares = np.eye(len(named))[0]
    if stack and len(named) > 1:
        cate[STACK], shares = _stacked(data, np.column_stack(list(cate.values())))
    apart = apart and data.own_scores is None  # pair-corrected scores have met the rows of every fold
    records = _compare(data, cate, alpha, rng)
    for k, record in enumerate(records):
        record["share_in_stack"] = float(shares[k]) if stack and k < len(shares) else float("nan")
    beaten = [r for r in records[1:] if r["joint_lower"] > 0]
    best = str(min(beaten, key=lambda r: r["dr_loss"])["model"]) if beaten else CONSTANT
    lowest = str(min(records, key=lambda r: r["dr_loss"])["model"])
    fits = {name: _fit_with(fit, named, name, shares) for name in {best, lowest}}
    return ModelChoice(tuple(records), best, fits[best], lowest, fits[lowest], cate, apart)


def default_models() -> dict[str, Any]:
    """Six final stages: linear and forest, of the doubly robust and of the residual kind, and two metalearners."""
    from econml.dml import CausalForestDML, LinearDML
    from econml.dr import ForestDRLearner, LinearDRLearner

    return {
        "linear DR": LinearDRLearner(),
        "forest DR": ForestDRLearner(n_estimators=100, min_samples_leaf=50, max_samples=0.3, n_jobs=1),
        "linear DML": LinearDML(discrete_treatment=True),
        "causal forest": CausalForestDML(
            n_estimators=100, min_samples_leaf=50, max_samples=0.3, discrete_treatment=True, n_jobs=1
        ),
        "T-learner": TLearner(),
        "X-learner": XLearner(),
    }


def _data(fit: Fit, seed: int) -> _Data:
    inputs, nuisances = fit.analysis.inputs, fit.nuisances
    e = fit.analysis.settings.clip.apply(nuisances.propensity)
    own = fit.analysis.ate_scores
    psi = (
        scores.aipw_ate(inputs.t, inputs.y, e, nuisances.outcome_0, nuisances.outcome_1)[0]
        if own is None
        else own
    )
    w = np.ones_like(psi) if inputs.weights is None else inputs.weights / inputs.weights.mean()
    return _Data(fit, fit.modifiers.apply(fit.log.frame), psi, e, w, own, seed)


def _named(models: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(models, Mapping) or not models:
        raise ArgumentError(
            f"models is {models!r}, must be a mapping of names to unfitted models, for instance {{'linear': LinearDRLearner()}}."
        )
    taken = {CONSTANT, STACK} & set(models)
    if taken:
        raise ArgumentError(f"models has the name {sorted(taken)[0]!r}, which is reserved; give it another.")
    return {CONSTANT: ConstantEffect(), **models}


def _out_of_fold(data: _Data, named: dict[str, Any]) -> tuple[dict[str, F64], bool]:
    """Per model (n,) effects for users that it has not seen; and whether its nuisances had not seen them either."""
    nuisances = data.fit.nuisances
    out = {name: np.empty(len(nuisances.fold)) for name in named}
    apart = True
    for k in range(int(nuisances.fold.max()) + 1):
        unseen = without_fold(nuisances, k)
        apart = apart and unseen is not None
        here = nuisances.fold == k
        for name, model in named.items():
            out[name][here] = data.without(model, k, unseen or Predictions.outside(nuisances, k))
    return out, apart


def _stacked(data: _Data, predicted: F64) -> tuple[F64, F64]:
    """((n,) effects of the stack, with each fold's shares from the other folds; (M,) shares from all folds)."""
    fold = data.fit.nuisances.fold
    out = np.empty(len(fold))
    for f in range(int(fold.max()) + 1):
        here = fold == f
        out[here] = predicted[here] @ convex_shares(predicted[~here], data.psi[~here], data.w[~here])
    return out, convex_shares(predicted, data.psi, data.w)


def convex_shares(predicted: F64, psi: F64, w: F64) -> F64:
    """(M,) α ≥ 0 with Σ α = 1 that minimise Σ w (ψ − Σ α τ̂)²; `predicted` is (n, M).

    With d = τ̂ − τ̂_first the loss is a quadratic in M numbers, found by non-negative least squares with a heavy row for the sum.
    """
    from scipy.optimize import nnls

    root_w = np.sqrt(w / w.sum())
    base = predicted - predicted.mean()
    gram = (base * root_w[:, None]).T @ (base * root_w[:, None])
    cross = (base * root_w[:, None]).T @ ((psi - predicted.mean()) * root_w)
    scale = float(np.trace(gram)) or 1.0
    values, axes = np.linalg.eigh(gram / scale + 1e-12 * np.eye(len(gram)))
    half = np.sqrt(np.maximum(values, 1e-15))
    heavy = 1e3 * np.ones((1, len(gram)))
    a = np.vstack([(axes * half).T, heavy])
    b = np.r_[(axes / half).T @ (cross / scale), 1e3]
    alpha, _ = nnls(a, b)
    return np.asarray(alpha / alpha.sum(), dtype=np.float64)


def _compare(
    data: _Data, cate: dict[str, F64], alpha: float, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Losses and gains of every model, with intervals; the constant first."""
    inputs, nuisances = data.fit.analysis.inputs, data.fit.nuisances
    mean = data.e * nuisances.outcome_1 + (1 - data.e) * nuisances.outcome_0
    r, s = inputs.y - mean, inputs.t - data.e
    loss = {name: (data.psi - tau) ** 2 for name, tau in cate.items()}
    r_loss = {name: (r - s * tau) ** 2 for name, tau in cate.items()}
    items = clusters(inputs, data.fit.correction)
    few = units_in_smaller_arm(inputs)
    names = [n for n in cate if n != CONSTANT]
    width = _joint_width(data, [loss[CONSTANT] - loss[n] for n in names], items, few, alpha, rng)
    total_r = float(np.average(r_loss[CONSTANT], weights=data.w))
    records = []
    for name in cate:
        gain = _mean(data, loss[CONSTANT] - loss[name], items, few)
        r_gain = _mean(data, (r_loss[CONSTANT] - r_loss[name]) / total_r, items, few)
        records.append(
            {
                "model": name,
                "dr_loss": float(np.average(loss[name], weights=data.w)),
                "gain": gain.value,
                "ci_lower": gain.ci_lower,
                "ci_upper": gain.ci_upper,
                "joint_lower": gain.value - width * gain.std_error,
                "r_score": r_gain.value,
                "r_lower": r_gain.ci_lower,
                "r_upper": r_gain.ci_upper,
            }
        )
    return records


def _mean(data: _Data, values: F64, items: Any, few: int) -> scores.Estimate:
    pair = (values, np.ones_like(values))
    return scores.clustered_ratio(pair, data.fit.analysis.inputs.units, items, data.w, at_most=few)


def _joint_width(
    data: _Data, gains: list[F64], items: Any, few: int, alpha: float, rng: np.random.Generator
) -> float:
    """Quantile of the largest t statistic over the models: with how many standard errors the constant has to be beaten."""
    table = np.column_stack([data.w * (g - np.average(g, weights=data.w)) for g in gains])

    def influence(rows: Index) -> F64:
        return table[rows]

    covariance, g = two_way(influence, data.fit.analysis.inputs.units, items)
    return largest(covariance, max(min(g, few) - 1, 1), 1 - alpha, DRAWS, rng, two_sided=False)


def _fit_with(fit: Fit, named: dict[str, Any], name: str, shares: F64) -> Fit:
    """The fit with one of the models on all its users; of a stack only the members that have a share are fitted."""
    if name != STACK:
        return fit.with_model(named[name])
    used = [(member, float(s)) for member, s in zip(named, shares, strict=True) if s > 0]
    models = tuple(fit.with_model(named[member]).model for member, _ in used)
    return replace(fit, model=Stack(models, tuple(s for _, s in used)))
