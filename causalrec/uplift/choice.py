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
from causalrec.estimate.metalearners import ConstantEffect, Stack, TLearner, XLearner
from causalrec.estimate.same_pairs import clusters
from causalrec.estimate.word_effects import WordEffects
from causalrec.estimate.word_features import WordFeatures
from causalrec.joint import DRAWS, Index, largest, two_way

F64 = npt.NDArray[np.float64]
CONSTANT, STACK, WORDS = "constant", "stack", "words"


@dataclass(frozen=True, eq=False)
class ModelChoice(Displayable):
    """Models of the effect, judged on users that they have not seen.

    Attributes
    ----------
    records : tuple of dict
        One a model, the constant first: model, dr_loss, gain (the constant's loss less the model's, positive = better),
        ci_lower, ci_upper (95 %, clustered), slope (of held-out scores on predictions, 1 = calibrated; NaN where all are
        predicted alike), slope_t (slope / (√2 std_error)), joint_lower (of the slope, one-sided 95 %, over all models at once), r_score, r_lower, r_upper,
        share_in_stack.
    best : str
        The model with the least loss, if that is below the constant's and some model's `joint_lower` is above 0: such a model,
        shrunk enough, has a lower loss than the constant. Else "constant".
    best_fit : Fit
        The fit with that model, fitted to all its users: ``cr.uplift(choice.best_fit, test)``.
    ranking : str
        The model by which to rank if a ranking is needed, whether or not effects are shown to differ. Ranks do not feel the scale, so that
        models compare by t of their `slope`: the first of those within one of the largest, the simplest if models are given in that order. The
        constant only if no model tells rows apart in the right direction.
    ranking_fit : Fit
        The fit with that model.
    cate : dict of str to (n,)
        Effects predicted for users that the model has not seen.
    apart : bool
        The scores and nuisances on which a model was trained had not seen these users either (ridge nuisances).
    order : 1 or 2
        Of the scores to which ``best_fit`` is fitted; models are always compared on scores of first order.
    """

    records: tuple[dict[str, Any], ...] = field(repr=False)
    best: str
    best_fit: Fit = field(repr=False)
    ranking: str
    ranking_fit: Fit = field(repr=False)
    cate: dict[str, F64] = field(repr=False)
    apart: bool = True
    order: int = 1

    def _title(self) -> str:
        return f"Models of the effect on held-out users: {self.best} is chosen"

    def _rows(self) -> list[dict[str, Any]]:
        return list(self.records)

    def _notes(self) -> list[str]:
        found = {r["model"]: r for r in self.records}
        if len(found) == 1:
            said = "There is nothing by which effects could be told apart: declare modifiers= in read_log, or embed the log's text."
        elif not any(r["joint_lower"] > 0 for r in self.records):
            said = "No model's predictions are shown to go with the effects of held-out users; one effect for everyone stands."
            if self.ranking != CONSTANT:
                said += f" If a ranking is needed all the same, ranking_fit ranks by {self.ranking}, which may be chance."
        elif self.best == CONSTANT:
            said = f"Effects differ, but every model exaggerates so much that one effect for everyone has the least loss; ranking_fit ranks by {self.ranking}."
        else:
            surest = max((r for r in self.records if r["joint_lower"] > 0), key=lambda r: r["joint_lower"])
            said = (
                f"Effects differ: held-out scores rise with what {surest['model']} predicts, by {surest['slope']:.2g} per unit (at least {surest['joint_lower']:.2g}, "
                f"one-sided 95 % over all models). {self.best} has the least loss."
            )
        notes = [
            said,
            "dr_loss is the mean of (ψ − τ̂)², most of it noise of the scores that no model can explain; compare gains.",
        ]
        if self.order == 2:
            notes.append(
                "Models were compared on first-order scores, whose folds are apart (a score corrected by pairs has met rows of every fold); "
                "the one that is chosen is then fitted to the corrected scores."
            )
        if not self.apart:
            notes.append(
                "These nuisances may have been trained by held-out users too, which flatters S-, T- and X-learners. A ranking is judged apart by uplift(fit, test)."
            )
        return notes


@dataclass(frozen=True, eq=False)
class _Data:
    """What models are fitted to and judged by, (n,) each."""

    fit: Fit
    columns: dict[int, F64 | None]
    psi: F64
    e: F64
    w: F64
    seed: int

    def without(self, model: Any, k: int, nuisances: Predictions) -> F64:
        """Effects in fold k by the model fitted to the other folds, (rows of fold k,)."""
        inputs, out = self.fit.analysis.inputs, self.fit.nuisances.fold != k
        told, x = self.told(model)
        fitted = fit_econml(
            told, inputs.y[out], inputs.t[out], None if x is None else x[out], nuisances,
            self.fit.analysis.settings.clip, None if inputs.weights is None else inputs.weights[out], self.seed,
        )  # fmt: skip
        found = np.ravel(fitted.effect(None if x is None else x[~out]))
        return np.broadcast_to(found, (int((~out).sum()),))

    def told(self, model: Any) -> tuple[Any, F64 | None]:
        """The model, told of its columns, and these columns; the same array for all models of a kind."""
        recipe, told = self.fit.modifiers.fitting(model, self.fit.log)
        kind = int(recipe.words is not None)
        if kind not in self.columns:
            self.columns[kind] = recipe.matrix(self.fit.log)
        return told, self.columns[kind]


def choose_model(
    fit: Fit,
    models: Mapping[str, Any] | None = None,
    *,
    stack: bool = True,
    alpha: float = 0.05,
    random_state: int | np.random.Generator | None = 0,
) -> ModelChoice:
    """Choose a model of the effect by its doubly robust loss on held-out users, where effects are shown to differ.

    The folds of the fit's nuisances serve again: a model is fitted to the users of all folds but one and predicts for
    that one, both on nuisances that have not seen it (ridge learners). Its loss is E[(ψ − τ̂)²] with ψ the doubly robust score, and its gain the constant's loss less its own,
    with an interval clustered by user (and item). Noise of the scores hides most gains, so that whether effects differ at all is asked of
    the slope of ψ on τ̂ within folds: positive, some shrunken τ̂ beats the constant; its bound is taken over all models at once. The R-score compares E[(Y − l − τ̂ (T − e))²] alike. The stack is the
    convex combination with the least loss; its shares for a fold come from the other folds. Nuisances are not fitted again.
    Scores are of first order here, also where the fit's are corrected by pairs of rows, which have met the rows of every fold.

    Parameters
    ----------
    fit : Fit
    models : mapping of name to unfitted model
        As for ``estimate``; default ``default_models()`` where modifiers are declared, and ``WordEffects()`` where the log's words
        are embedded. The constant always competes.
    stack : bool
        Let a combination of the models compete as well.
    alpha : float
        Level of the test that no model's predictions go with effects, one-sided, over all models at once.
    random_state : int, Generator or None

    Raises
    ------
    ArgumentError
        A model cannot take fitted nuisances, needs modifiers that the log lacks, or has a reserved name.

    References
    ----------
    Nie & Wager (2021), eq. 4 (R-loss); Chernozhukov et al. (2024), *Applied causal inference powered by ML and AI*, ch. 15;
    Chernozhukov, Demirer, Duflo & Fernández-Val (2018), eq. 3.2 (the slope: best linear predictor of effects).
    """
    if not isinstance(fit, Fit):
        raise ArgumentError(
            f"choose_model takes a Fit; got {type(fit).__name__}. Make one with estimate(log, plan)."
        )
    check_scalar(alpha, "alpha", gt=0, lt=0.5)
    rng = as_generator(random_state)
    data = _data(fit, int(rng.integers(2**31)))
    named = {CONSTANT: ConstantEffect(), **(_competitors(fit) if models is None else _checked(models))}
    cate, apart = _out_of_fold(data, named)
    shares = np.eye(len(named))[0]
    if stack and len(named) > 1:
        cate[STACK], shares = _stacked(data, np.column_stack(list(cate.values())))
    records = _compare(data, cate, alpha, rng)
    for k, record in enumerate(records):
        record["share_in_stack"] = float(shares[k]) if stack and k < len(shares) else float("nan")
    differ = any(r["joint_lower"] > 0 for r in records)
    told = [r for r in records if r["model"] != STACK or shares[0] < 1]  # a stack may be all constant
    best = str(min(told, key=lambda r: r["dr_loss"])["model"]) if differ else CONSTANT
    ranking = _by_which_to_rank(told)
    fits = {name: _fit_with(fit, named, name, shares) for name in {best, ranking}}
    return ModelChoice(
        tuple(records), best, fits[best], ranking, fits[ranking], cate, apart, fit.correction.order
    )


def default_models() -> dict[str, Any]:
    """Six final stages, the simplest first: linear ones of the doubly robust and of the residual kind, two metalearners, two forests."""
    from econml.dml import CausalForestDML, LinearDML
    from econml.dr import ForestDRLearner, LinearDRLearner

    return {
        "linear DR": LinearDRLearner(),
        "linear DML": LinearDML(discrete_treatment=True),
        "T-learner": TLearner(),
        "X-learner": XLearner(),
        "forest DR": ForestDRLearner(n_estimators=100, min_samples_leaf=50, max_samples=0.3, n_jobs=1),
        "causal forest": CausalForestDML(
            n_estimators=100, min_samples_leaf=50, max_samples=0.3, discrete_treatment=True, n_jobs=1
        ),
    }


def _competitors(fit: Fit) -> dict[str, Any]:
    """The default models that this log allows."""
    words = {WORDS: WordEffects()} if WordFeatures.learn(fit.log) is not None else {}
    return {**(default_models() if fit.modifiers.names else {}), **words}


def _data(fit: Fit, seed: int) -> _Data:
    inputs, nuisances = fit.analysis.inputs, fit.nuisances
    e = fit.analysis.settings.clip.apply(nuisances.propensity)
    psi = scores.aipw_ate(inputs.t, inputs.y, e, nuisances.outcome_0, nuisances.outcome_1)[0]
    w = np.ones_like(psi) if inputs.weights is None else inputs.weights / inputs.weights.mean()
    return _Data(fit, {}, psi, e, w, seed)


def _checked(models: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(models, Mapping) or not models:
        raise ArgumentError(
            f"models is {models!r}, must be a mapping of names to unfitted models, for instance {{'linear': LinearDRLearner()}}."
        )
    taken = {CONSTANT, STACK} & set(models)
    if taken:
        raise ArgumentError(f"models has the name {sorted(taken)[0]!r}, which is reserved; give it another.")
    return dict(models)


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
    slopes = _slopes(data, cate, items, few, alpha, rng)
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
                **dict(zip(("slope", "slope_t", "joint_lower"), slopes[name], strict=True)),
                "r_score": r_gain.value,
                "r_lower": r_gain.ci_lower,
                "r_upper": r_gain.ci_upper,
            }
        )
    return records


def _mean(data: _Data, values: F64, items: Any, few: int) -> scores.Estimate:
    pair = (values, np.ones_like(values))
    return scores.clustered_ratio(pair, data.fit.analysis.inputs.units, items, data.w, at_most=few)


def _slopes(
    data: _Data, cate: dict[str, F64], items: Any, few: int, alpha: float, rng: np.random.Generator
) -> dict[str, tuple[float, float, float]]:
    """Slope of ψ on τ̂ within folds, its t, and its lower end over all models; NaN where all are predicted alike.

    A pair of rows in two folds serves twice, once with either as the held-out one: where effects do not differ, the variance of a model
    with p columns is twice that of independent rows. With S of p standard normals t is then about (|S|² − p)/|S|, whose 95 % point
    grows from 1.5 (p = 1) to √2 · 1.645: the bound is √2 times as wide as that of independent rows.
    """
    psi, out, told = _within(data, data.psi), dict.fromkeys(cate, (np.nan, np.nan, np.nan)), {}
    for name, tau in cate.items():
        t = _within(data, tau)
        if (t**2).mean() > 1e-12 * (psi**2).mean():
            told[name] = (t * psi, t**2)
    if not told:
        return out
    found = {n: scores.clustered_ratio(pair, data.fit.analysis.inputs.units, items, data.w, at_most=few) for n, pair in told.items()}
    table = np.column_stack([e.influence for e in found.values()])

    def influence(rows: Index) -> F64:
        return table[rows]

    covariance, g = two_way(influence, data.fit.analysis.inputs.units, items)
    width = np.sqrt(2) * largest(covariance, max(min(g, few) - 1, 1), 1 - alpha, DRAWS, rng, two_sided=False)
    return out | {n: (e.value, e.value / e.std_error / np.sqrt(2), e.value - width * e.std_error) for n, e in found.items()}


def _by_which_to_rank(records: list[dict[str, Any]]) -> str:
    """The first model whose slope has a t within one of the largest, if that is positive."""
    largest_t = max((r["slope_t"] for r in records if not np.isnan(r["slope_t"])), default=0.0)
    return next((str(r["model"]) for r in records if r["slope_t"] >= largest_t - 1 and r["slope_t"] > 0), CONSTANT)


def _within(data: _Data, values: F64) -> F64:
    """(n,) less the mean of the row's fold."""
    fold = data.fit.nuisances.fold
    return np.asarray(values - (np.bincount(fold, data.w * values) / np.bincount(fold, data.w))[fold])


def _fit_with(fit: Fit, named: dict[str, Any], name: str, shares: F64) -> Fit:
    """The fit with one of the models on all its users; of a stack only the members that have a share are fitted."""
    if name != STACK:
        return fit.with_model(named[name])
    used = [(fit.with_model(named[m]), float(s)) for m, s in zip(named, shares, strict=True) if s > 0]
    widths = tuple(_width(member) for member, _ in used)
    widest = used[int(np.argmax(widths))][0]
    stack = Stack(tuple(member.model for member, _ in used), tuple(s for _, s in used), widths)
    return replace(widest, model=stack)


def _width(fit: Fit) -> int:
    """Columns that the fit's model takes."""
    words = fit.modifiers.words
    return len(fit.modifiers.names) + (0 if words is None else sum(words.widths))
