"""Which of several arms is better, and by how much? The verb ``estimate_arms`` and its result."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec._checks import as_generator
from causalrec._display import Displayable
from causalrec.errors import ArgumentError, EstimationError
from causalrec.estimate.arm_overlap import ArmOverlap, fit_arm, measure_arm, refuse_without_overlap
from causalrec.estimate.arm_pairs import ArmPairs, arm_pairs, effects
from causalrec.estimate.bridge import default_model, fit_econml
from causalrec.estimate.contrasts import Contrast, compare, means_of
from causalrec.estimate.correction import Correction
from causalrec.estimate.modifiers import ModifierRecipe
from causalrec.estimate.several import Adjusted, adjust, back_door_nodes, check_call, check_options
from causalrec.identify import Plan
from causalrec.log import ImpressionLog
from causalrec.nuisance import Clip, Folds, NuisanceRecipe, Nuisances
from causalrec.scores import Estimate

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ArmsFit(Displayable):
    """The mean outcome under each arm, and every contrast, with pointwise and joint intervals.

    Attributes
    ----------
    log, plan : what was analysed, and what was adjusted for
    arms : tuple
        Labels, the control first.
    propensities : (n, K)
        Out-of-fold (or logged) P(arm | x), rows summing to one, not clipped.
    outcomes : (n, K)
        Out-of-fold E[Y | arm, x].
    scores : (n, K)
        Doubly robust scores, whose (weighted) column means are ``means``.
    means : tuple of Estimate, (K,)
    contrasts : tuple of Contrast, (K − 1,)
        Each arm against the control.
    pairs : tuple of Contrast, (K (K − 1) / 2,)
        Each arm against each other one.
    overlap : tuple of ArmOverlap, (K,)
    nuisances : tuple of Nuisances, (K,)
        One per arm, of that arm against the rest, on the same folds.
    by_pairs : tuple of ArmPairs, (K − 1,) or empty
        What pairs of rows said of each arm against the control. Where they correct a contrast, ``contrasts``, ``pairs`` and ``cate`` are of
        second order; ``means`` and ``scores`` stay of first order.
    """

    log: ImpressionLog = field(repr=False)
    plan: Plan = field(repr=False)
    arms: tuple[Any, ...]
    propensities: F64 = field(repr=False)
    outcomes: F64 = field(repr=False)
    scores: F64 = field(repr=False)
    means: tuple[Estimate, ...] = field(repr=False)
    contrasts: tuple[Contrast, ...] = field(repr=False)
    pairs: tuple[Contrast, ...] = field(repr=False)
    overlap: tuple[ArmOverlap, ...] = field(repr=False)
    nuisances: tuple[Nuisances, ...] = field(repr=False)
    clip: Clip = field(repr=False)
    model: Any = field(repr=False)
    adjusted: Adjusted = field(repr=False)
    seed: int = 0
    by_pairs: tuple[ArmPairs, ...] = field(default=(), repr=False)

    @property
    def control(self) -> Any:
        """The arm that the others are compared with."""
        return self.arms[0]

    @property
    def best_arm(self) -> Any:
        """The arm with the highest effect if it is above every other one by the joint intervals; None otherwise.

        None as well where some contrasts were corrected by pairs of rows and others could not be: these are not alike.
        """
        if self._corrected and any(p.analysis is None for p in self.by_pairs):
            return None
        top = int(np.argmax([0.0, *(c.effect for c in self.contrasts)]))
        for pair in self.pairs:
            if pair.arm == self.arms[top] and pair.joint_lower <= 0:
                return None
            if pair.against == self.arms[top] and pair.joint_upper >= 0:
                return None
        return self.arms[top]

    @cached_property
    def models(self) -> tuple[Any, ...]:
        """(K − 1,) fitted EconML estimators, one per arm against the control, on the shared scores."""
        x = self.modifiers.apply(self.log.frame)
        model = default_model() if self.model is None else self.model
        if not (hasattr(model, "model_regression") and hasattr(model, "model_propensity")):
            raise EstimationError(
                f"model is a {type(model).__name__}; with several arms it must be an EconML estimator of the DR family (LinearDRLearner, ForestDRLearner, …)."
            )
        return tuple(self._model_of(k, model, x) for k in range(1, len(self.arms)))

    def _model_of(self, k: int, model: Any, x: F64 | None) -> Any:
        """Arm k against the control: on all rows, or on the rows of either where pairs of rows correct it."""
        y, t, clip = self.log.outcome, (self.log.treatment == k).astype(np.float64), self.clip
        pairs = self.by_pairs[k - 1] if self.by_pairs else None
        if pairs is not None and pairs.analysis is not None and pairs.corrected:
            rows, a = pairs.rows, pairs.analysis
            here = None if x is None else x[rows]
            return fit_econml(
                model, y[rows], t[rows], here, a.nuisances, clip, a.inputs.weights, self.seed, a.ate_scores
            )
        weights = None if self.log.weights is None else self.adjusted.weights
        scores = self.scores[:, k] - self.scores[:, 0]
        return fit_econml(model, y, t, x, self.nuisances[k], clip, weights, self.seed, scores)

    @cached_property
    def modifiers(self) -> ModifierRecipe:
        """Modifier columns as the numeric X of an EconML estimator."""
        return ModifierRecipe.learn(self.log.frame, self.plan.modifiers)

    def cate(self, log: ImpressionLog) -> F64:
        """(n, K − 1) effect of each arm against the control given the modifiers, from the EconML models."""
        missing = [name for name, _ in self.modifiers.columns if name not in log.frame.columns]
        if missing:
            raise EstimationError(f"the log lacks the modifiers {missing}, by which these effects vary.")
        x = self.modifiers.apply(log.frame)
        columns = [np.ravel(m.effect(x)) for m in self.models]
        return np.column_stack([c if len(c) == len(log) else np.full(len(log), c[0]) for c in columns])

    def _title(self) -> str:
        name, outcome = self.log.roles.treatment[0], self.log.roles.outcome[0]
        return f"{len(self.arms)} arms of {name} → {outcome}, against {self.control!r}, 95 %, clustered by {self._cluster()}"

    def _cluster(self) -> str:
        unit = self.log.roles.unit[0] if self.log.roles.unit else "row (no unit declared)"
        item = (self.log.roles.item or self.log.roles.text or ("item",))[0]
        return unit if self.adjusted.items is None else f"{unit} and {item}"

    def _rows(self) -> list[dict[str, Any]]:
        blank = dict.fromkeys(("joint_lower", "joint_upper", "p_holm"))
        order = " (first order)" if self._corrected else ""
        rows: list[dict[str, Any]] = [
            {
                "quantity": f"mean under {arm}{order}",
                "estimate": m.value,
                "std_error": m.std_error,
                "ci_lower": m.ci_lower,
                "ci_upper": m.ci_upper,
                "p_value": None,
                **blank,
            }
            for arm, m in zip(self.arms, self.means, strict=True)
        ]
        others = [p for p in self.pairs if p.against != self.control]
        return rows + [c.record() for c in (*self.contrasts, *others)]

    @property
    def _corrected(self) -> bool:
        return any(p.corrected for p in self.by_pairs)

    def _notes(self) -> list[str]:
        best = self.best_arm
        notes = [
            f"Population: all impressions of the log; {len(self.log):,} impressions, {self.log.n_units:,} units. Means are E[Y(arm)].",
            "joint_*: for all contrasts against the control at once; rows of two other arms, for all pairs at once.",
            "No arm is separated from all others."
            if best is None
            else f"{best!r} is above every other arm (joint 95 % intervals of all pairs).",
        ]
        for o in self.overlap:
            notes.append(
                f"{o.arm!r}: {o.n:,} rows, effective {o.ess:,.0f}; {100 * o.share_clipped:.1f} % of all rows clipped at {self.clip.bound:.3g}; held-out AUC {o.auc:.3f}."
            )
        notes += [p.sentence() for p in self.by_pairs]
        notes += [caveat for p in self.by_pairs for caveat in p.caveats]
        if self._corrected:
            notes.append(
                "Means are of first order and keep what pairs of rows took out of the contrasts: go by the contrasts."
            )
        return notes + [f"Untested: {a}" for a in self.plan.assumptions]

    def overlap_frame(self) -> pd.DataFrame:
        """``overlap`` as a table, one arm a row."""
        return pd.DataFrame([vars(o) for o in self.overlap])


def estimate_arms(
    log: ImpressionLog,
    plan: Plan,
    *,
    model: Any = None,
    folds: Folds | None = None,
    nuisances: NuisanceRecipe | None = None,
    correction: Correction | None = None,
    clip: Clip | None = None,
    random_state: int | np.random.Generator | None = None,
) -> ArmsFit:
    r"""Estimate the mean outcome under each of several arms, and their contrasts.

    For each arm k, with the same folds by unit, e_k(x) = P(A = k | x) and m_k(x) = E[Y | A = k, x] are cross-fitted
    (the e_k are scaled to sum to one), and

    .. math:: \psi_k = m_k + \frac{1\{A = k\} (Y - m_k)}{e_k}, \qquad E[\psi_k] = E[Y(k)]

    A contrast is the mean of ψ_j − ψ_k. Errors are clustered by unit, and by item where items repeat; joint intervals
    are max-t. Robins, Rotnitzky & Zhao (1994); Cattaneo (2010), "Efficient semiparametric estimation of
    multi-valued treatment effects". Where items repeat or a block is wide, pairs of rows look at each arm against the control, among the rows
    of either (see ``arm_pairs``), and correct the contrast by the rule of ``estimate``.

    Parameters
    ----------
    log : ImpressionLog
        Read with ``treatment_kind="arms"``.
    plan : Plan
    model : unfitted EconML estimator of the DR family
        Of the effects given the modifiers, fitted when ``cate`` is first called; default ``LinearDRLearner()``.
    folds : Folds
    nuisances : NuisanceRecipe
    correction : Correction
        Order and kernels of the contrasts; by default a rule decides that never looks at the effect.
    clip : Clip
        Default .01, or a tenth of the rarest arm's share where that is less.
    random_state : int, Generator or None

    Returns
    -------
    ArmsFit

    Raises
    ------
    OverlapError
        An arm is hardly ever possible for a part of the rows; the message names it.
    LogError, EstimationError, IdentificationError, ArgumentError
    """
    log, plan = check_call("estimate_arms", log, plan)
    log.require_kind("arms", "estimate_arms")
    folds = check_options(folds, clip, nuisances)
    if correction is not None and not isinstance(correction, Correction):
        raise ArgumentError(f"correction is {correction!r}; must be Correction(...) or None.")
    rng = as_generator(random_state)
    seed = int(rng.integers(2**31))
    rng = np.random.default_rng(seed)
    adjusted = adjust(log, back_door_nodes(plan), log.strata, folds, rng)
    arm, n_arms = log.treatment, len(log.arms)
    share = np.bincount(arm.astype(np.int64), adjusted.weights, n_arms) / len(arm)
    clip = clip or Clip(min(Clip().bound, float(share.min()) / 10))
    given = arm[:, None] == np.arange(n_arms)
    known = log.arm_propensities
    fitted = tuple(
        fit_arm(
            log.arms[k], given[:, k], log.outcome, adjusted, nuisances, None if known is None else known[:, k]
        )
        for k in range(n_arms)
    )
    raw = np.column_stack([f.propensity for f in fitted])
    e = raw / raw.sum(axis=1, keepdims=True)
    outcomes = np.column_stack([f.outcome_1 for f in fitted])
    overlap = tuple(measure_arm(log.arms[k], given[:, k], e[:, k], adjusted, clip) for k in range(n_arms))
    refuse_without_overlap(overlap, clip, known is not None)
    psi = outcomes + given * (log.outcome[:, None] - outcomes) / np.maximum(e, clip.bound)
    means = means_of(adjusted, psi, overlap)
    by_pairs = arm_pairs(log, plan, adjusted, e, correction or Correction(), folds, clip, nuisances, seed)
    of_arms = list(effects(psi, adjusted.weights, by_pairs))
    contrasts, pairs = compare(log.arms, adjusted, of_arms, overlap, rng)
    return ArmsFit(
        log, plan, log.arms, e, outcomes, psi, means, contrasts, pairs, overlap, fitted, clip, model, adjusted, seed, by_pairs
    )  # fmt: skip
