"""What is known of each row beside its words: was it shown, what happened, how likely either was; and is it enough."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from causalrec._display import Displayable
from causalrec.errors import ArgumentError, CausalRecWarning, EstimationError, OverlapError
from causalrec.estimate.fit import covariates
from causalrec.finetune.calibration import expected_calibration_error
from causalrec.finetune.shown import whole_positions
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
Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
LEAST_SHARE = 0.01
"""Effective sample size of the weights, as a share of the rows shown, below which they say nothing."""
LEAST_ROWS = 50
CANDIDATES = RidgeLogistic(variances=(3.0, 0.3, 0.03, 0.003))
"""Fewer penalties than an effect's nuisances choose among: a label needs less than a score whose bias is in question."""
LEAST_HELD_OUT = 10
"""Held-out users with a row shown, below whom risks and values have no standard error worth the name."""
CERTAIN, FEW_CERTAIN = 1e-6, 0.05
"""Distance from 0 and 1 within which a propensity is certain; share of such rows that is warned of."""
RARE_EXAMINATION = 0.01
BEYOND_DOUBT = 1.25
"""Times P(examined) by which clicks must exceed it before the curve is refused: an estimated curve has errors of its own."""


class Curve(Protocol):
    """P(examined | position), as ``position_curve`` estimates it.

    Where it has `positions` and the `covariance` of log θ, these errors enter those of values and risks.
    """

    def theta_at(self, positions: npt.NDArray[Any]) -> F64:
        """(n,) > 0, relative to the first position."""


@dataclass(frozen=True, eq=False)
class CurveError:
    """How unsure the curve is that clicks were divided by.

    Attributes
    ----------
    at : (n,) place on the curve, −1 for rows without a position
    covariance : (K, K) of log θ
    """

    at: Ints
    covariance: F64

    def variance(self, slope: F64) -> float:
        """Variance g'Σg of a number whose derivative by log θ at the place of row i is slope_i; g sums them by place."""
        shown = self.at >= 0
        g = np.bincount(self.at[shown], slope[shown], len(self.covariance))
        reached = g != 0
        return float(g[reached] @ self.covariance[np.ix_(reached, reached)] @ g[reached])

    def take(self, rows: Ints) -> CurveError:
        """Some rows."""
        return CurveError(self.at[rows], self.covariance)


@dataclass(frozen=True, eq=False)
class Labels:
    """Arrays of n rows, (n,) each.

    Attributes
    ----------
    t, y : shown 0/1; the outcome, divided by P(examined) where a curve was given; 0 in rows not shown unless it was seen there
    e : P(shown), not clipped
    m0, m1 : models of the outcome, fitted without the row's user; m0 NaN where no outcome of rows not shown was seen
    units : codes
    items : codes or None, for errors clustered both ways
    clip : Clip
    logged : bool
    examined : P(examined at the row's position) over its mean given what is known of the row, 1 where no curve was given: among rows
        alike, those that were likely to be looked at say more, and are learnt from in proportion
    curve_error : CurveError or None
        Of rows that rankers are judged on, where the curve was estimated.
    if_examined : bool
        Whether outcomes were divided by P(examined).
    users : uint64 hashes of the rows' users, which stay the same from log to log as codes do not; None where they are not known
    """

    t: F64
    y: F64
    e: F64
    m0: F64
    m1: F64
    units: Ints
    items: Ints | None
    clip: Clip
    logged: bool
    examined: F64 | None = None
    curve_error: CurveError | None = None
    if_examined: bool = False
    users: Hashes | None = None

    def __len__(self) -> int:
        return len(self.t)

    @property
    def w1(self) -> F64:
        """1 / e, clipped."""
        return np.asarray(1 / self.clip.apply(self.e))

    @property
    def w0(self) -> F64:
        """1 / (1 − e), clipped."""
        return np.asarray(1 / (1 - self.clip.apply(self.e)))

    @property
    def control_seen(self) -> bool:
        """Whether outcomes of rows that were not shown are known."""
        return bool(np.isfinite(self.m0).all())

    @property
    def psi1(self) -> F64:
        """(n,) doubly robust scores of E[Y(1)]."""
        return np.asarray(self.m1 + self.t * self.w1 * (self.y - self.m1))

    @property
    def psi0(self) -> F64:
        """(n,) doubly robust scores of E[Y(0)]."""
        return np.asarray(self.m0 + (1 - self.t) * self.w0 * (self.y - self.m0))

    def take(self, rows: Ints) -> Labels:
        """Some rows; users and items are numbered anew."""
        units = np.unique(self.units[rows], return_inverse=True)[1]
        items = None if self.items is None else np.unique(self.items[rows], return_inverse=True)[1]
        return Labels(
            self.t[rows], self.y[rows], self.e[rows], self.m0[rows], self.m1[rows], units, items, self.clip, self.logged,
            None if self.examined is None else self.examined[rows], None if self.curve_error is None else self.curve_error.take(rows),
            self.if_examined, None if self.users is None else self.users[rows],
        )  # fmt: skip

    def joined(self, other: Labels) -> Labels:
        """These rows and another log's; its users and items count as others."""
        pairs = ((self.t, other.t), (self.y, other.y), (self.e, other.e), (self.m0, other.m0), (self.m1, other.m1))
        t, y, e, m0, m1 = (np.concatenate(p) for p in pairs)
        units = np.concatenate([self.units, other.units + int(self.units.max()) + 1])
        items = None
        if self.items is not None and other.items is not None:
            items = np.concatenate([self.items, other.items + int(self.items.max()) + 1])
        examined = None
        if self.examined is not None or other.examined is not None:
            examined = np.concatenate([np.ones(len(one)) if one.examined is None else one.examined for one in (self, other)])
        users = None if self.users is None or other.users is None else np.concatenate([self.users, other.users])
        return Labels(t, y, e, m0, m1, units, items, self.clip, self.logged, examined, if_examined=self.if_examined, users=users)

    @property
    def half(self) -> Ints:
        """(n,) 0 or 1, the same for all rows of a user and in every log: which imputation head serves him; the other learns from him."""
        return np.asarray((self.units if self.users is None else self.users) % 2, dtype=np.int64)

    @property
    def learnt(self) -> F64:
        """w1 × `examined`: the weight of a shown row where something is learnt from it; its values are taken with w1."""
        return self.w1 if self.examined is None else self.w1 * self.examined

    def under(self, clip: Clip | None) -> Labels:
        """The same rows under an objective's own clip; as they are where it has none."""
        return self if clip is None else replace(self, clip=clip)

    def columns(self, clip: Clip | None) -> dict[str, npt.NDArray[np.float32]]:
        """What an objective reads of each row, under its own clip if it has one."""
        mine = self.under(clip)
        found = {
            "t": self.t, "y": self.y, "w1": mine.learnt, "w0": mine.w0, "m0": self.m0, "m1": self.m1,
            "e": mine.clip.apply(self.e),
        }  # fmt: skip
        return {name: v.astype(np.float32) for name, v in found.items()}


@dataclass(frozen=True)
class GuardRails(Displayable):
    """Whether the weights are fit to be trained with.

    Attributes
    ----------
    n, n_shown : rows, and those that were shown
    ess : Kish's effective sample size of the weights, examination included, of the rows shown, (Σ w)² / Σ w²
    largest_weight : share of Σ w that the largest has
    mean_weight : mean(T w); 1 in expectation at true propensities without clipping
    share_clipped : of the rows shown, those whose propensity is below the clip
    ece : expected calibration error of the propensity, 10 bins of equal mass.
    """

    n: int
    n_shown: int
    ess: float
    largest_weight: float
    mean_weight: float
    share_clipped: float
    ece: float

    def _title(self) -> str:
        return f"Guard rails: {self.n:,} rows, {self.n_shown:,} shown"

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {"guard rail": "effective sample size of the weights / rows shown", "value": self.ess / self.n_shown, "should be": "≥ 0.1"},
            {"guard rail": "share of all weight that the largest has", "value": self.largest_weight, "should be": "< 0.01"},
            {"guard rail": "mean of T / e", "value": self.mean_weight, "should be": "0.95 to 1.05"},
            {"guard rail": "share of rows shown whose propensity is clipped", "value": self.share_clipped, "should be": "< 0.05"},
            {"guard rail": "calibration error of the propensity (ECE)", "value": self.ece, "should be": "small beside the propensities"},
        ]  # fmt: skip

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is out of its bounds, in words."""
        out = []
        if self.ess < 0.1 * self.n_shown:
            out.append(
                f"the weights leave an effective sample of {self.ess:,.0f} of {self.n_shown:,} rows shown: clip more (clip=Clip(.05) of the objective; "
                "Weighing(clip=Clip(.05)) for those without a clip of their own) or take DR()."
            )
        if self.largest_weight > 0.01:
            out.append(f"one row has {100 * self.largest_weight:.1f} % of all weight.")
        if not 0.95 <= self.mean_weight <= 1.05:
            out.append(
                f"mean(T / e) is {self.mean_weight:.3f} and should be 1: the propensities are not those of this log, or the clip binds."
            )
        if self.share_clipped > 0.05:
            out.append(f"{100 * self.share_clipped:.0f} % of the rows shown are clipped, which biases what is learnt.")
        return tuple(out)


def guard_rails(labels: Labels) -> GuardRails:
    """Guard rails of the weights of some rows."""
    shown = labels.t == 1
    w = labels.learnt[shown]
    return GuardRails(
        len(labels), int(shown.sum()), float(w.sum() ** 2 / (w**2).sum()), float(w.max() / w.sum()),
        float((labels.t * labels.w1).mean()), float((labels.e[shown] < labels.clip.bound).mean()), expected_calibration_error(labels.e, labels.t),
    )  # fmt: skip


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
    thetas = [_theta(log, examination) for log in (train, valid)]
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
        clip, nuisances.logged, curve_error=_curve_error(valid, examination),
        if_examined=examination is not None, users=valid.user_hash,
    )  # fmt: skip
    return first, second


def _held(m: F64, binary: bool) -> F64:
    """Models of a probability within [0, 1], which least squares on clicks over P(examined) may leave."""
    return m if binary else np.clip(m, 0.0, 1.0)


def _theta(log: ImpressionLog, examination: Curve | None) -> F64 | None:
    """(n,) P(examined) of rows shown, 1 of others; None without a curve."""
    if examination is None:
        return None
    if not log.roles.position:
        raise ArgumentError("examination was given, but the log declares no position; name it in read_log(position=...).")
    theta = np.ones(len(log))
    shown = log.treatment == 1
    position = log.frame[log.roles.position[0]].to_numpy()[shown]
    theta[shown] = np.maximum(examination.theta_at(position), RARE_EXAMINATION)
    _check_curve(position, theta[shown], log.outcome[shown])
    return theta


def _curve_error(log: ImpressionLog, examination: Curve | None) -> CurveError | None:
    """How unsure the curve is at each row shown; None without a curve, or for one that was given."""
    covariance, positions = getattr(examination, "covariance", None), getattr(examination, "positions", None)
    if covariance is None or positions is None or not np.any(covariance):
        return None
    at, shown = np.full(len(log), -1), log.treatment == 1
    at[shown] = np.searchsorted(positions, whole_positions(log.frame[log.roles.position[0]].to_numpy()[shown], "position"))
    return CurveError(at, covariance)


def _check_curve(position: npt.NDArray[Any], theta: F64, clicks: F64) -> None:
    """Refuse a curve by which a position was looked at less often than it was clicked; of positions shown often enough to tell."""
    if not np.isin(clicks, (0.0, 1.0)).all():
        return
    positions, code = np.unique(position, return_inverse=True)
    n, rate = np.bincount(code), np.bincount(code, clicks) / np.bincount(code)
    told = np.bincount(code, theta) / n
    sure = rate - 4 * np.sqrt(rate * (1 - np.minimum(rate, 1)) / n)
    odd = np.flatnonzero((n >= LEAST_ROWS) & (sure > BEYOND_DOUBT * told))
    if len(odd):
        worst = odd[np.argmax(sure[odd] / told[odd])]
        raise EstimationError(
            f"P(examined) is {told[worst]:.3g} at position {positions[worst]:g}, but {100 * rate[worst]:.1f} % of its {n[worst]:,} impressions were clicked: at least so many were "
            f"looked at. The curve is not of this log ({len(odd)} of {len(n)} positions); estimate one with position_curve(log)."
        )


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


def users_shown(log: ImpressionLog) -> int:
    """Users with a row that was shown."""
    return len(np.unique(log.units[log.treatment == 1]))


def check_held_out(log: ImpressionLog) -> None:
    """Raise ``EstimationError`` where too few held-out users were shown anything."""
    if users_shown(log) < LEAST_HELD_OUT:
        raise EstimationError(
            f"{users_shown(log)} of {log.n_units} held-out users were shown anything, must be >= {LEAST_HELD_OUT}: they stop the training and judge the ranker, and so few have no "
            "standard error worth the name. Hold out more, Training(validation=0.4) say, or take a longer log."
        )


def check_support(labels: Labels, what: str, clipped_by: str = "Weighing") -> GuardRails:
    """The guard rails of these rows under their clip, which ``clipped_by(clip=...)`` sets; ``OverlapError`` where their weights support nothing."""
    rails = guard_rails(labels)
    if rails.ess < LEAST_SHARE * rails.n_shown or rails.ess < LEAST_ROWS / 5:
        raise OverlapError(
            f"{what}: the propensities leave an effective sample of {rails.ess:,.0f} of {rails.n_shown:,} rows shown, must be >= "
            f"{LEAST_SHARE:.0%} of them and >= {LEAST_ROWS // 5}; what was not shown has no support. Log more randomness, or clip more: {clipped_by}(clip=Clip(...)) with a bound above {labels.clip.bound:g}."
        )
    return rails
