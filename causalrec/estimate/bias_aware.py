"""Intervals that admit what the nuisances have not learnt, for texts that were shown once.

AIPW is off by E[α β], α and β being what the propensity and outcome models still miss. Where a text was shown
often, pairs of its rows measure that product; where it was shown once, nothing does without an assumption. Three
are offered, each stated in the result: that texts which share words share what is missed (``SimilarTexts``), that
what is missed acts like what was learnt (``LearningCurve``), or that it is no stronger (``OmittedVariable``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from causalrec import scores
from causalrec._checks import check_scalar
from causalrec._display import Displayable
from causalrec.blocks import Block
from causalrec.errors import ArgumentError, EstimationError
from causalrec.estimate.analysis import Analysis
from causalrec.estimate.caveats import units_in_smaller_arm
from causalrec.estimate.similar import Observed, Texts, pair_bias
from causalrec.nuisance import refit_nuisances
from causalrec.nuisance.batch import TARGETS
from causalrec.nuisance.design import Design, Part

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SimilarTexts:
    """What the models miss is shared by similar texts, in proportion to the similarity.

    E[α(x_i) β(x_j)] = Σ_k c_k K_k(x_i, x_j) for pairs of rows of different units; the bias is Σ_k c_k, the same
    line at a similarity of 1. K_k are inner products of the embeddings and of TF-IDF words. What a text shares
    with no other text, neither words nor direction, is outside of the assumption.

    Parameters
    ----------
    between : (low, high)
        The bias is between `low` and `high` times what the pairs say; (1, 1) takes them at their word.
    min_texts : int
        Words in fewer distinct texts than this are left out.
    """

    between: tuple[float, float] = (0.5, 1.5)
    min_texts: int = 5

    def __post_init__(self) -> None:
        low, high = self.between
        check_scalar(low, "between[0]", ge=0)
        check_scalar(high, "between[1]", ge=low, gt=0)
        check_scalar(self.min_texts, "min_texts", ge=1, integer=True)


@dataclass(frozen=True)
class LearningCurve:
    """What the models have not learnt yet acts as what they have: the estimate moves in a line with what is explained.

    θ(g) = θ(g₁) + δ (g₁ − g), g the explained product √(v_e v_m) of held-out explained variances, and the truth is at
    g = total · g₁. Altonji, Elder & Taber (2005); Oster (2019), whose bound is total = 1.3.

    Parameters
    ----------
    shares : tuple of float
        Shares of the units, below 1, on which the nuisances are fitted again (penalties kept).
    total : float
        What the words could explain at most, as a multiple of what they explain; at least 1.
    """

    shares: tuple[float, ...] = (0.25, 0.5)
    total: float = 1.3

    def __post_init__(self) -> None:
        for share in self.shares:
            check_scalar(share, "shares", gt=0, lt=1)
        check_scalar(self.total, "total", ge=1)


@dataclass(frozen=True)
class OmittedVariable:
    """What the models miss is at most `times` as strong as what the text, or half of it, adds.

    |bias| ≤ times · S √(C_Y² C_D²), strengths being those of the strongest of three omissions: every other principal
    direction of the representations, the others, or all; and no omission counts for less than it moves the estimate.
    Chernozhukov et al. (2022), *Long story short*.

    Parameters
    ----------
    times : float
        Factor on the bound.
    """

    times: float = 1.0

    def __post_init__(self) -> None:
        check_scalar(self.times, "times", ge=0)


Assumption = SimilarTexts | LearningCurve | OmittedVariable


@dataclass(frozen=True, eq=False)
class BiasAware(Displayable):
    """An effect whose interval allows for a bias, under the stated assumption.

    Attributes
    ----------
    value : float
        Point estimate, corrected where the assumption says how (clicks per impression).
    ci_lower, ci_upper : float
        95 % for every bias that the assumption allows, clustered by unit.
    bound : float
        How far, at the most, the assumption lets ``value`` be off before any noise.
    first_order : float
        The AIPW estimate that was begun with.
    assumption : str
    records : tuple of dict
        The points that the interval is made of.
    """

    value: float
    ci_lower: float
    ci_upper: float
    bound: float
    first_order: float
    assumption: str
    records: tuple[dict[str, Any], ...] = field(repr=False)

    def _title(self) -> str:
        return f"Bias-aware effect {self.value:+.4f} [{self.ci_lower:+.4f}, {self.ci_upper:+.4f}]; without allowance {self.first_order:+.4f}"

    def _rows(self) -> list[dict[str, Any]]:
        return list(self.records)

    def _notes(self) -> list[str]:
        return [
            f"Assumed, not tested: {self.assumption}",
            f"Under it, {self.value:+.4f} is off by at most {self.bound:.4f} before noise.",
        ]


def bias_aware(
    analysis: Analysis,
    assumption: Assumption | None = None,
    texts: Sequence[Texts] = (),
    rng: np.random.Generator | None = None,
) -> BiasAware:
    """An interval for the effect of an analysis that allows for what its nuisances miss.

    It starts from the first-order score ``analysis.pair``, whatever correction ``analysis.effect`` has had.

    Parameters
    ----------
    analysis : Analysis
    assumption : SimilarTexts, LearningCurve or OmittedVariable; default ``SimilarTexts()``
    texts : sequence of (name, distinct texts, codes)
        The words of each text column, (u,) and (n,); ``SimilarTexts`` compares them beside the embeddings.
    rng : Generator or None
        Deals units to the shares of a ``LearningCurve``.

    Raises
    ------
    ArgumentError, EstimationError
    """
    assumption = SimilarTexts() if assumption is None else assumption
    inputs = analysis.inputs
    few = units_in_smaller_arm(inputs)
    first = scores.clustered_ratio(analysis.pair, inputs.units, None, inputs.weights, at_most=few)
    analysis = replace(analysis, effect=first)
    if isinstance(assumption, SimilarTexts):
        return _similar(analysis, assumption, texts)
    if isinstance(assumption, LearningCurve):
        return _learning_curve(analysis, assumption, np.random.default_rng(0) if rng is None else rng)
    if isinstance(assumption, OmittedVariable):
        return _omitted(analysis, assumption)
    raise ArgumentError(
        f"assumption is {assumption!r}; must be SimilarTexts(...), LearningCurve(...) or OmittedVariable(...)."
    )


def _similar(a: Analysis, assumption: SimilarTexts, texts: Sequence[Texts]) -> BiasAware:
    nu = a.nuisances
    seen = Observed(
        a.inputs.t, a.inputs.y, nu.propensity, nu.outcome_0, nu.outcome_1, nu.problem.w, a.inputs.units, a.settings.clip, a.inputs.covariates,
        texts, assumption.min_texts,
    )  # fmt: skip
    found = pair_bias(seen, a.settings.estimand, a.effect.value)
    low, high = assumption.between
    points = [
        _point(a, f"{m:g} × the bias of pairs", a.effect.value - m * found.bias, a.effect.influence - m * found.influence)
        for m in dict.fromkeys((0.0, low, (low + high) / 2, high))
    ]  # fmt: skip
    allowed = points if low == 0 else points[1:]
    said = (
        f"what the models miss is shared by texts in proportion to their similarity ({', '.join(found.names)}), so that "
        f"the bias is between {low:g} and {high:g} times the {found.bias:+.4f} which pairs of rows with different texts show."
    )
    middle = a.effect.value - (low + high) / 2 * found.bias
    return _hull(a, middle, abs(found.bias) * (high - low) / 2, allowed, points, said)


def _point(a: Analysis, name: str, value: float, influence: F64) -> dict[str, Any]:
    """A value with its interval, clustered by unit, on the degrees of freedom of the analysis."""
    effect = a.effect
    quantile = (effect.ci_upper - effect.value) / effect.std_error if effect.std_error > 0 else 0.0
    se = float(np.sqrt(scores.cluster_variance(influence, a.inputs.units)[0]))
    half = quantile * se
    return {
        "at": name,
        "effect": value,
        "std_error": se,
        "ci_lower": value - half,
        "ci_upper": value + half,
    }


def _hull(
    a: Analysis,
    value: float,
    bound: float,
    allowed: list[dict[str, Any]],
    points: list[dict[str, Any]],
    said: str,
) -> BiasAware:
    lower, upper = min(p["ci_lower"] for p in allowed), max(p["ci_upper"] for p in allowed)
    return BiasAware(value, lower, upper, bound, a.effect.value, said, tuple(points))


def _learning_curve(a: Analysis, assumption: LearningCurve, rng: np.random.Generator) -> BiasAware:
    nu = a.nuisances
    deals = [_deal(a.inputs.units, share, rng) for share in assumption.shares]
    w = nu.problem.w[:, None] * np.hstack(deals) if deals else np.zeros((len(nu.fold), 0))
    labels = [s for s, deal in zip(assumption.shares, deals, strict=True) for _ in range(deal.shape[1])]
    t, y = (np.repeat(v[:, None], w.shape[1], axis=1) for v in (nu.problem.t, nu.problem.y))
    short = refit_nuisances(nu, t, y, w, TARGETS) if deals else None
    full = _explained(a, nu.propensity, nu.outcome_0, nu.outcome_1)
    if full <= 0:
        raise EstimationError(
            f"the nuisances explain nothing on held-out rows (product {full:g}), so that there is no curve; use OmittedVariable(...)."
        )
    curve = [(0.0, 0.0, a.naive.value, a.naive.influence)]
    for share in dict.fromkeys(labels):
        found = []
        for r in (r for r, label in enumerate(labels) if label == share and short is not None):
            at = (short.propensity[:, r], short.outcome_0[:, r], short.outcome_1[:, r])  # type: ignore[union-attr]
            value, phi = scores.ratio_influence(
                *a.settings.score(a.inputs.t, a.inputs.y, at), a.inputs.weights
            )
            found.append((_explained(a, *at), value, phi))
        g, value = (float(np.mean([f[j] for f in found])) for j in (0, 1))
        curve.append((share, g, value, np.mean([f[2] for f in found], axis=0)))
    gaps = np.array([full - g for _, g, _, _ in curve])
    slopes = gaps / (gaps**2).sum()
    rise = sum(s * (v - a.effect.value) for s, (_, _, v, _) in zip(slopes, curve, strict=True))
    tilt = sum(s * (phi - a.effect.influence) for s, (_, _, _, phi) in zip(slopes, curve, strict=True))
    step = (assumption.total - 1) * full
    points = [_point(a, f"fitted on {100 * s:g} %", v, phi) | {"explained": g} for s, g, v, phi in curve]
    points.append(_point(a, "fitted on 100 %", a.effect.value, a.effect.influence) | {"explained": full})
    value = a.effect.value - step * float(rise)
    last = _point(a, f"{assumption.total:g} × explained", value, a.effect.influence - step * tilt)
    points.append(last | {"explained": assumption.total * full})
    said = (
        f"the words could explain at most {assumption.total:g} times what the models explain (0 %: the naive difference), "
        "and what they have not learnt moves the estimate in the same proportion as what they have."
    )
    return _hull(a, value, abs(value - a.effect.value), points[-2:], points, said)


def _deal(units: Ints, share: float, rng: np.random.Generator) -> F64:
    """(n, R) indicators of R = ⌊1 / share⌋ disjoint sets of units with this share of them each."""
    count = int(units.max()) + 1
    place = rng.permutation(count)[units] / count
    return np.column_stack([(place >= r * share) & (place < (r + 1) * share) for r in range(int(1 / share + 1e-9))]).astype(np.float64)  # fmt: skip


def _explained(a: Analysis, e: F64, m0: F64, m1: F64) -> float:
    """√(v_e v_m), v the held-out squared error that the model saves against a constant; 0 if it saves none."""
    t, y, w = a.inputs.t, a.inputs.y, a.nuisances.problem.w
    saved_t = np.average((t - np.average(t, weights=w)) ** 2 - (t - e) ** 2, weights=w)
    base = np.where(t == 1, np.average(y, weights=w * t), np.average(y, weights=w * (1 - t)))
    saved_y = np.average((y - base) ** 2 - (y - np.where(t == 1, m1, m0)) ** 2, weights=w)
    return float(np.sqrt(max(saved_t, 0.0) * max(saved_y, 0.0)))


def _omitted(a: Analysis, assumption: OmittedVariable) -> BiasAware:
    names = tuple(c.name for c in a.inputs.covariates if isinstance(c, Block))
    if not names:
        raise EstimationError(
            "the analysis adjusts for no representation of a text, so that there is nothing to compare with; embed the log."
        )
    long = _strengths(a, a.nuisances.propensity, a.nuisances.outcome_0, a.nuisances.outcome_1)
    points = [_point(a, "everything", a.effect.value, a.effect.influence) | {"bound": 0.0}]
    for half, label in (
        (0, "without every second direction"),
        (1, "without the other directions"),
        (None, "without the text"),
    ):
        at = _without(a, names, half)
        value, phi = scores.ratio_influence(*a.settings.score(a.inputs.t, a.inputs.y, at), a.inputs.weights)
        loss, alpha = _strengths(a, *at)
        gain_y, gain_t = max(0.0, 1 - long[0] / loss), min(max(0.0, 1 - alpha / long[1]), 0.99)
        bound = float(np.sqrt(long[0] * long[1] * gain_y * gain_t / (1 - gain_t)))
        points.append(_point(a, label, value, phi) | {"bound": max(bound, abs(value - a.effect.value))})
    bound = assumption.times * max(p["bound"] for p in points)
    said = f"what the models miss is at most {assumption.times:g} times as strong, on exposure and clicks together, as the representations of the text or half of their directions."
    return BiasAware(a.effect.value, a.effect.ci_lower - bound, a.effect.ci_upper + bound, bound, a.effect.value, said, tuple(points))  # fmt: skip


def _strengths(a: Analysis, e: F64, m0: F64, m1: F64) -> tuple[float, float]:
    """E[(Y − m_T)²] and E[α²], α the Riesz representer of the estimand."""
    t, y, w = a.inputs.t, a.inputs.y, a.nuisances.problem.w
    loss = np.average((y - np.where(t == 1, m1, m0)) ** 2, weights=w)
    e = a.settings.clip.apply(e)
    alpha = {
        "ate": t / e - (1 - t) / (1 - e),
        "att": (t - (1 - t) * e / (1 - e)) / np.average(t, weights=w),
        "ato": (t - e) / np.average(e * (1 - e), weights=w),
    }[a.settings.estimand]
    return float(loss), float(np.average(alpha**2, weights=w))


def _without(a: Analysis, names: tuple[str, ...], half: int | None) -> tuple[F64, F64, F64]:
    """Nuisances fitted again (penalties kept) without half of the directions of these blocks, or without all."""
    nu, p = a.nuisances, a.nuisances.problem
    of_outcome = _project(p.outcome_design, names, half)
    same = p.propensity_design is p.outcome_design
    of_propensity = of_outcome if same else _project(p.propensity_design, names, half)
    problem = replace(p, propensity_design=of_propensity, outcome_design=of_outcome)
    t, y, w = problem.t[:, None], problem.y[:, None], problem.w[:, None]
    short = refit_nuisances(replace(nu, problem=problem), t, y, w, TARGETS)
    return short.propensity[:, 0], short.outcome_0[:, 0], short.outcome_1[:, 0]


def _project(design: Design, names: tuple[str, ...], half: int | None) -> Design:
    def projected(part: Part) -> Part:
        if not set(part.owners) <= set(names):
            return part
        kept = np.linalg.eigh(part.values.T.astype(np.float64) @ part.values)[1][:, ::-1]
        kept = kept[:, half::2] if half is not None else kept[:, :0]
        return replace(part, values=(part.values @ kept @ kept.T).astype(np.float32))

    return replace(design, parts=tuple(projected(p) for p in design.parts))
