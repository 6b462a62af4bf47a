"""Scores of pairs of rows: what the first-order score leaves of the confounding, taken from repetition.

The same item is shown to many users, and the same user sees many items. Whatever moves both the exposure and the
outcome of an item, in the words or not, makes two of its rows alike; so products of one row's exposure residual with
*another* row's outcome residual show how much confounding is left, and it can be taken out. With e, m0, m1 that
neither row's user has trained,

    t̃ = T − e,   r = Y − m_T,   τ = m1 − m0,   a = v t̃,   v = 1/(e (1 − e)) (ATE), 1/(1 − e) (ATT), 1 (ATO),

the first-order residual term of row i is a_i r_i, and its expectation given the item holds the product of the item's
exposure error δ with its baseline error β. Over partners j of i (same item, other user),

    N = Σ_i w_i a_i φ_i (r_i − mean_j r_j),   D = Σ_i w_i a_i φ_i (t̃_i φ_i − mean_j t̃_j φ_j)',

E[a_i r_j | item] = v δ β cancels the confounding, and N, D have the means Σ w v e(1 − e) φ (τ_true − τ) and
Σ w v e(1 − e) φ φ': a regression of the effect model's error on the basis φ, of which nothing confounds any more.
With γ = (D + R)⁻¹ N the effect is

    θ = Σ π w (τ + φ'γ) / Σ π w,    π = 1 (ATE), T (ATT).

The ATO takes r = Y − e m1 − (1 − e) m0, φ = 1 and θ = N / D, which holds whatever the effects are.

Partners by user (same user, other item) are taken off in the same way. With both, what rows of one user share *because their
items are alike* would go twice; so partners by user are taken less the mean of their own partners by item, who are
other users: r_j − mean_l r_l, and t̃_j φ_j alike.

It is a second-order U-statistic (Robins, Li, Tchetgen & van der Vaart 2008; Liu, Mukherjee & Robins 2020) whose kernel
is "same item", in ratio form. What is left for the ATE: the part of the effect model's error that φ does not hold, if
it goes with the error of e(1 − e).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from causalrec.kernels import TINY, BlockOfPairs, Blocks, Floats, Kernel, Partners, Rows, Values

RIDGE_ROWS = 400.0
"""Weight, in rows, of the prior that the effect model's error has no slope in the basis."""
Centre = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class PairEstimate:
    """θ and its influence function, (n,), of mean zero; γ (q,); ``scores`` (n,), whose weighted mean is θ; a bias that intervals allow for."""

    value: float
    influence: Floats
    scores: Floats
    gamma: Floats
    may_remain: float = 0.0


def basis(estimand: str, e: Floats, m0: Floats, centre: Centre) -> Floats:
    """φ, (m, q): 1, and for the ATE and ATT the propensity and the baseline outcome, in fixed units.

    `centre` is (mean of e, mean of m0, standard deviation of the outcome); it changes the units, not the span.
    """
    one = np.ones_like(e)
    if estimand == "ato":
        return one[:, None]
    return np.column_stack([one, 4 * (e - centre[0]), (m0 - centre[1]) / max(centre[2], 1e-12)])


@dataclass(frozen=True, eq=False)
class _Side:
    """Residuals of some rows, (m,) each, φ (m, q); ``s`` is t̃; ``*_words`` are without item effects."""

    rows: npt.NDArray[np.intp]
    a: Floats
    s: Floats
    r: Floats
    tau: Floats
    phi: Floats
    v_words: Floats
    s_words: Floats
    r_words: Floats


def _side(rows: Rows, at: Values, estimand: str, centre: Centre) -> _Side:
    t, y = rows.t[at.rows], rows.y[at.rows]

    def parts(e: Floats, m0: Floats, m1: Floats) -> tuple[Floats, Floats, Floats]:
        mean = e * m1 + (1 - e) * m0 if estimand == "ato" else np.where(t > 0.5, m1, m0)
        v = {"ate": lambda: 1 / (e * (1 - e)), "att": lambda: 1 / (1 - e), "ato": lambda: np.ones_like(e)}
        return v[estimand](), t - e, y - mean

    v, s, r = parts(at.e, at.m0, at.m1)
    words = parts(at.e_words, at.m0_words, at.m1_words)
    return _Side(at.rows, v * s, s, r, at.m1 - at.m0, basis(estimand, at.e, at.m0, centre), *words)


def _directions(
    rows: Rows, block: BlockOfPairs, estimand: str, centre: Centre
) -> Iterator[tuple[_Side, _Side]]:
    """(rows, where their partners are) of a block, both ways round."""
    first = _side(rows, block.first, estimand, centre)
    if block.second is None:
        yield first, first
    else:
        second = _side(rows, block.second, estimand, centre)
        yield first, second
        yield second, first


def _shares(kernel: Kernel, mine: _Side, block: BlockOfPairs, part: Partners) -> Floats:
    """(m,) with which share of its partners each row meets them in this block; rows without any count in their own set."""
    share = np.zeros(len(mine.rows))
    if kernel.within:
        if block.second is None:
            share[:] = 1.0
        return share
    if block.second is None:
        share[~kernel.served[mine.rows]] = 1.0
    met = part.met()
    of = kernel.partners[mine.rows[part.i]]
    share[part.i] = np.where(of > 0, met / np.maximum(of, TINY), share[part.i])
    return share


@dataclass(frozen=True, eq=False)
class Totals:
    """Sums over all rows with one kernel.

    Attributes
    ----------
    n, d : (q,), (q, q) first-order parts of N and D
    pairs_n, pairs_d : (q,), (q, q) what partners take off
    tau, phi : Σ π w τ, and (q,) Σ π w φ
    left_t, left_r : Σ w v δ² and Σ w v β² with their standard errors: what partners share in exposure and in outcome
        beyond the words
    less : Others or None
        What was taken off the partners' residuals beforehand, by the first of two kernels.
    """

    n: Floats
    d: Floats
    pairs_n: Floats
    pairs_d: Floats
    tau: float
    phi: Floats
    left_t: tuple[float, float]
    left_r: tuple[float, float]
    less: Others | None = None


@dataclass(frozen=True, eq=False)
class Others:
    """What the partners of each row leave, on average: r (n,), t̃ φ (n, q); ``weight`` (n,), their summed weight."""

    r: Floats
    s: Floats
    weight: Floats


def _population(rows: Rows, estimand: str) -> Floats:
    """π w, (n,)."""
    return rows.w * rows.t if estimand == "att" else rows.w


def others(rows: Rows, kernel: Kernel, blocks: Blocks, estimand: str, centre: Centre) -> Others:
    """The mean residuals of each row's partners, whether or not the row itself is corrected."""
    q = basis(estimand, np.zeros(1), np.zeros(1), centre).shape[1]
    r, s, weight = np.zeros(len(rows.t)), np.zeros((len(rows.t), q)), np.zeros(len(rows.t))
    for block in blocks():
        if kernel.within and block.second is not None:
            continue
        for mine, theirs in _directions(rows, block, estimand, centre):
            part = kernel.meet(rows, mine.rows, theirs.rows, theirs is mine)
            at = mine.rows[part.i]
            weight[at] += part.met()
            r[at] += part.of_rows(theirs.r)
            for k in range(q):
                s[at, k] += part.of_rows(theirs.s * theirs.phi[:, k])
    safe = np.where(weight > 0, weight, 1.0)
    return Others(r / safe, s / safe[:, None], weight)


def all_totals(
    rows: Rows, kernels: Sequence[Kernel], blocks: Blocks, estimand: str, centre: Centre
) -> list[Totals]:
    """The sums of one kernel; or of two, the second's partners less what the first takes off them."""
    found = [totals(rows, kernels[0], blocks, estimand, centre)]
    if len(kernels) > 1:
        less = others(rows, kernels[0], blocks, estimand, centre)
        found.append(totals(rows, kernels[1], blocks, estimand, centre, less))
    return found


def totals(
    rows: Rows, kernel: Kernel, blocks: Blocks, estimand: str, centre: Centre, less: Others | None = None
) -> Totals:
    """The sums of one kernel over all blocks."""
    pi = _population(rows, estimand)
    sums: dict[str, Any] = dict.fromkeys(("n", "d", "pairs_n", "pairs_d", "tau", "phi"), 0.0)
    alike_t: Floats | float = 0.0
    alike_r: Floats | float = 0.0
    for block in blocks():
        if kernel.within and block.second is not None:
            continue
        for mine, theirs in _directions(rows, block, estimand, centre):
            part = kernel.meet(rows, mine.rows, theirs.rows, theirs is mine)
            share = _shares(kernel, mine, block, part)
            served = rows.w[mine.rows] * share * kernel.served[mine.rows]
            of_phi = (served * mine.a)[:, None] * mine.phi
            x = pi[mine.rows] * share
            i = part.i
            one = (
                rows.w[mine.rows[i]]
                * kernel.served[mine.rows[i]]
                / np.maximum(kernel.partners[mine.rows[i]], TINY)
            )
            own = (one * mine.a[i])[:, None] * mine.phi[i]
            r, s = theirs.r, theirs.s[:, None] * theirs.phi
            if less is not None:
                r, s = r - less.r[theirs.rows], s - less.s[theirs.rows]
            theirs_s = [part.of_rows(s[:, k]) for k in range(s.shape[1])]
            new = {
                "n": of_phi.T @ mine.r,
                "d": of_phi.T @ (mine.s[:, None] * mine.phi),
                "pairs_n": own.T @ part.of_rows(r),
                "pairs_d": own.T @ np.column_stack(theirs_s),
                "tau": float(x @ mine.tau),
                "phi": x @ mine.phi,
            }
            weighted = one * mine.v_words[i]
            alike_t = alike_t + part.alike(weighted * mine.s_words[i], theirs.s_words)
            alike_r = alike_r + part.alike(weighted * mine.r_words[i], theirs.r_words)
            sums = {name: sums[name] + value for name, value in new.items()}
    return Totals(**sums, left_t=_with_error(alike_t), left_r=_with_error(alike_r), less=less)


def _with_error(parts: Floats | float) -> tuple[float, float]:
    """A sum over clusters (or axes) and its standard error, √Σ x²."""
    return float(np.sum(parts)), float(np.sqrt(np.sum(np.square(parts))))


def solve(found: list[Totals], rows: Rows, estimand: str) -> tuple[float, Floats, Floats]:
    """(θ, γ, h) from the totals of one kernel or two; h = (D + R)⁻ᵀ · mean φ, with which N enters θ."""
    first = found[0]
    n, d = first.n - sum(f.pairs_n for f in found), first.d - sum(f.pairs_d for f in found)
    ridge = np.diag([0.0] + [RIDGE_ROWS * float(rows.w[rows.w > 0].mean())] * (len(n) - 1))
    gamma = np.asarray(np.linalg.solve(d + ridge, n), dtype=np.float64)
    total = float(_population(rows, estimand).sum())
    mean = np.ones(1) if estimand == "ato" else first.phi / total
    h = np.asarray(np.linalg.solve((d + ridge).T, mean), dtype=np.float64)
    return float(mean @ gamma) + (0.0 if estimand == "ato" else first.tau / total), gamma, h


def pair_estimate(
    rows: Rows, kernels: Sequence[Kernel], blocks: Blocks, estimand: str, centre: Centre, found: list[Totals]
) -> PairEstimate:
    """The second-order estimate with the given kernels (and their totals), and the influence of each row.

    The influence of row i is that of the mean of τ + φ'γ, plus n h' times: w a φ (s_i − mean of its partners' s)
    with s = r − t̃ φ'γ, plus what i adds as a partner, less the pair total of its cluster spread over its rows (so that
    summed over a cluster each pair counts once). With two kernels s_j of the second's partners is less the mean of *their*
    partners by the first, and a row enters through these means too.
    """
    theta, gamma, h = solve(found, rows, estimand)
    size = len(rows.t)
    sums = _row_sums(rows, kernels, blocks, estimand, centre, gamma, h, found[-1].less)
    own, pairs = np.zeros(size), sums.through.copy()
    for kernel, mine, back in zip(kernels, sums.own, sums.back, strict=True):
        own += mine
        pairs += mine + back - kernel.spread(mine, rows.w)
    pi = _population(rows, estimand) if estimand != "ato" else np.zeros(size)
    effect = pi * (sums.effect - theta) / max(float(pi.mean()), TINY)
    influence = effect + size * (sums.base + pairs)
    scores = (effect + size * (sums.base + own)) / np.where(rows.w > 0, rows.w, 1.0) * float(rows.w.mean())
    scores = scores - np.average(scores, weights=rows.w) + theta
    used = rows.w > 0
    centred = np.where(used, influence - influence.sum() / used.sum(), 0.0)
    return PairEstimate(theta, centred, scores, gamma)


@dataclass(frozen=True, eq=False)
class _RowSums:
    effect: Floats
    base: Floats
    own: list[Floats]
    back: list[Floats]
    through: Floats


def _row_sums(
    rows: Rows,
    kernels: Sequence[Kernel],
    blocks: Blocks,
    estimand: str,
    centre: Centre,
    gamma: Floats,
    h: Floats,
    less: Others | None,
) -> _RowSums:
    """What each row adds to θ: alone, with its partners, as the partner of others, and through the means of `less`; (n,) each."""
    effect, base = np.zeros(len(rows.t)), np.zeros(len(rows.t))
    taken = np.zeros(len(rows.t)) if less is None else less.r - less.s @ gamma
    asked = np.zeros(len(rows.t))
    own, back = [np.zeros(len(rows.t)) for _ in kernels], [np.zeros(len(rows.t)) for _ in kernels]
    for block in blocks():
        for mine, theirs in _directions(rows, block, estimand, centre):
            weight = rows.w[mine.rows] * mine.a * (mine.phi @ h)
            left = mine.r - mine.s * (mine.phi @ gamma)
            left_theirs = left if theirs is mine else theirs.r - theirs.s * (theirs.phi @ gamma)
            for index, kernel in enumerate(kernels):
                if kernel.within and block.second is not None:
                    continue
                part = kernel.meet(rows, mine.rows, theirs.rows, theirs is mine)
                served = kernel.served[mine.rows]
                if index == 0:
                    share = _shares(kernel, mine, block, part)
                    effect[mine.rows] += share * (mine.tau + mine.phi @ gamma)
                    base[mine.rows] += share * served * weight * left
                i, j = part.i, part.j
                ratio = weight[i] * served[i] / np.maximum(kernel.partners[mine.rows[i]], TINY)
                back_to = part.back(ratio)
                back[index][theirs.rows[j]] -= left_theirs[j] * back_to
                if index == 1:
                    asked[theirs.rows[j]] += back_to
                    own[index][mine.rows[i]] -= ratio * part.of_rows(left_theirs - taken[theirs.rows])
                else:
                    own[index][mine.rows[i]] -= ratio * part.of_rows(left_theirs)
    through = np.zeros(len(rows.t))
    if less is not None:
        each = np.where(less.weight > 0, asked / np.where(less.weight > 0, less.weight, 1.0), 0.0)
        through = _through(rows, kernels[0], blocks, estimand, centre, gamma, each)
    return _RowSums(effect, base, own, back, through)


def _through(
    rows: Rows, kernel: Kernel, blocks: Blocks, estimand: str, centre: Centre, gamma: Floats, asked: Floats
) -> Floats:
    """(n,) s_l Σ_j asked_j w_l k(j, l): what a row adds as one of those over whom the means were taken."""
    out = np.zeros(len(rows.t))
    for block in blocks():
        if kernel.within and block.second is not None:
            continue
        for mine, theirs in _directions(rows, block, estimand, centre):
            part = kernel.meet(rows, mine.rows, theirs.rows, theirs is mine)
            left = theirs.r - theirs.s * (theirs.phi @ gamma)
            out[theirs.rows[part.j]] += left[part.j] * part.back(asked[mine.rows[part.i]])
    return out
