"""One score per impression, then a mean clustered by user and item. Arrays in, arrays out.

Every estimand is a ratio of two means, θ = E[a] / E[b], with one pair (a_i, b_i) per impression; b ≡ 1 for the
ATE. Its influence function is φ_i = (a_i − θ b_i) / E[b], so that one function gives every estimate its
standard error. Units: clicks per impression, unless the outcome has another unit.

Notation: T (n,) 0/1, Y (n,) outcome, e (n,) P(T=1 | X), m0 and m1 (n,) E[Y | T=t, X].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Pair = tuple[Floats, Floats]
ScoreFunction = Callable[[Floats, Floats, Floats, Floats, Floats], Pair]


def aipw_ate(t: Floats, y: Floats, e: Floats, m0: Floats, m1: Floats) -> Pair:
    """Doubly robust score of the ATE, E[Y(1) − Y(0)].

    a = m1 − m0 + T (Y − m1) / e − (1 − T)(Y − m0) / (1 − e),  b = 1.

    Robins, Rotnitzky & Zhao (1994); Chernozhukov et al. (2018), eq. 5.3.
    """
    a = m1 - m0 + t * (y - m1) / e - (1 - t) * (y - m0) / (1 - e)
    return a, np.ones_like(a)


def aipw_att(t: Floats, y: Floats, e: Floats, m0: Floats, m1: Floats) -> Pair:
    """Doubly robust score of the ATT, E[Y(1) − Y(0) | T = 1]; m1 is not used.

    a = T (Y − m0) − (1 − T) e / (1 − e) (Y − m0),  b = T.

    Chernozhukov et al. (2018), eq. 5.4.
    """
    return (t - (1 - t) * e / (1 - e)) * (y - m0), t.copy()


def aipw_ato(t: Floats, y: Floats, e: Floats, m0: Floats, m1: Floats) -> Pair:
    """Orthogonal score of the ATO, the effect weighted by e (1 − e): the population in which either arm could have been.

    a = (T − e)(Y − l),  b = (T − e)²,  l = e m1 + (1 − e) m0.

    Estimand: Li, Morgan & Zaslavsky (2018); score: Robinson (1988), Nie & Wager (2021), eq. 4. Bounded
    whatever e is, so that nothing is clipped.
    """
    r = t - e
    return r * (y - e * m1 - (1 - e) * m0), r**2


def share_anyway(t: Floats, y: Floats, e: Floats, m0: Floats, m1: Floats) -> Pair:
    """Share of the treated rows' outcome that would have happened untreated, E[Y(0) | T=1] / E[Y(1) | T=1].

    a = T m0 + (1 − T) e / (1 − e) (Y − m0),  b = T Y; m1 is not used.
    """
    return t * m0 + (1 - t) * e / (1 - e) * (y - m0), t * y


def hajek(t: Floats, y: Floats, e: Floats, m0: Floats, m1: Floats) -> Pair:
    """Self-normalised (Hájek, SNIPS) weighting score of the ATE; m0 and m1 are not used.

    With w_t = 1{T=t} / P(T=t|X) and μ_t = Σ w_t Y / Σ w_t:  a = Σ_t ± (μ_t + w_t (Y − μ_t) / mean(w_t)),  b = 1.
    Its mean is μ_1 − μ_0 exactly and its variance that of the linearised ratio. Hájek (1971).
    """
    a = np.zeros_like(y)
    for sign, w in ((1.0, t / e), (-1.0, (1 - t) / (1 - e))):
        mu = (w * y).sum() / w.sum()
        a += sign * (mu + w * (y - mu) / w.mean())
    return a, np.ones_like(a)


SCORES: dict[str, ScoreFunction] = {"ate": aipw_ate, "att": aipw_att, "ato": aipw_ato}


def difference_in_means(t: Floats, y: Floats, weights: Floats | None = None) -> Pair:
    """The naive comparison, (weighted) mean of Y among the treated minus mean among the others, as a score.

    With p = mean of T and μ_t the mean of Y in each arm:  a = Σ_t ± (μ_t + 1{T=t} (Y − μ_t) / P(T=t)),  b = 1;
    its mean under the same weights is μ_1 − μ_0 exactly.
    """
    w = np.ones_like(y) if weights is None else weights
    a = np.zeros_like(y)
    for sign, arm in ((1.0, t), (-1.0, 1 - t)):
        mu, share = np.average(y, weights=w * arm), np.average(arm, weights=w)
        a += sign * (mu + arm * (y - mu) / share)
    return a, np.ones_like(a)


def ess(weights: Floats) -> float:
    """Kish's effective sample size, (Σ w)² / Σ w², in rows."""
    total = float((weights**2).sum())
    return float(weights.sum()) ** 2 / total if total > 0 else 0.0


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; ``influence`` has one entry a row and mean zero.

    ``bias_bound`` is the bias that the interval and the p-value allow for, beside the standard error.
    """

    value: float
    std_error: float
    ci_lower: float
    ci_upper: float
    p_value: float
    n_clusters: int
    influence: Floats = field(repr=False)
    bias_bound: float = 0.0


def ratio_influence(a: Floats, b: Floats, weights: Floats | None = None) -> tuple[float, Floats]:
    """θ = Σ w a / Σ w b and its influence function φ = w (a − θ b) / mean(w b), (n,)."""
    w = np.ones_like(a) if weights is None else weights
    theta = float((w * a).sum() / (w * b).sum())
    return theta, w * (a - theta * b) / (w * b).mean()


def cluster_variance(influence: Floats, clusters: Ints) -> tuple[float, int]:
    """Variance of a mean from its influence function, rows of one cluster being dependent.

    V = G / (G − 1) · n⁻² · Σ_g (Σ_{i in g} φ_i)².  Liang & Zeger (1986). Returns (V, G).
    """
    sums = np.bincount(clusters, influence)
    present = int((np.bincount(clusters, np.abs(influence)) > 0).sum())
    return float((sums**2).sum()) / len(influence) ** 2 * present / max(present - 1, 1), present


def two_way_variance(influence: Floats, units: Ints, items: Ints) -> tuple[float, int]:
    """Variance with rows dependent within a unit and within an item.

    V = V_unit + V_item − V_(unit, item), floored at the larger one-way variance; G is the smaller count.
    Cameron, Gelbach & Miller (2011), eq. 2.7.
    """
    v_unit, g_unit = cluster_variance(influence, units)
    v_item, g_item = cluster_variance(influence, items)
    pairs = np.unique(units * (int(items.max()) + 1) + items, return_inverse=True)[1]
    v_both, _ = cluster_variance(influence, pairs)
    return max(v_unit + v_item - v_both, v_unit, v_item), min(g_unit, g_item)


def estimate_of(
    value: float,
    influence: Floats,
    units: Ints,
    items: Ints | None = None,
    alpha: float = 0.05,
    at_most: int | None = None,
    bias: float = 0.0,
    beyond: float = 0.0,
) -> Estimate:
    """An estimate from its influence function, with a t interval on G − 1 degrees of freedom.

    Clustered by unit, or by unit and item if `items` is given; `at_most` bounds G, for instance by the number of
    users in the smaller arm. With a bound on the `bias` the half-length is cv(bias/σ) σ, cv the 1 − α quantile of
    |N(bias/σ, 1)|, and the p-value the largest under that bound. Armstrong & Kolesár (2018), eq. 18.
    `beyond` is a variance from outside these rows, of something estimated elsewhere that the value depends on.
    """
    from scipy.stats import t as student

    variance, g = (
        cluster_variance(influence, units) if items is None else two_way_variance(influence, units, items)
    )
    se, df = float(np.sqrt(variance + beyond)), max((g if at_most is None else min(g, at_most)) - 1, 1)
    half = float(student.ppf(1 - alpha / 2, df)) * se
    p = float(2 * student.sf(abs(value) / se, df)) if se > 0 else float("nan")
    if bias > 0 and se > 0:
        half *= folded_quantile(bias / se, 1 - alpha) / folded_quantile(0.0, 1 - alpha)
        z, b = abs(value) / se, bias / se
        p = float(student.sf(z - b, df) + student.cdf(-z - b, df))
    return Estimate(value, se, value - half, value + half, p, g, influence, bias)


def folded_quantile(mean: float, level: float) -> float:
    """The `level` quantile of |N(mean, 1)|: the root of a non-central χ² quantile with one degree of freedom."""
    from scipy.stats import ncx2, norm

    return float(np.sqrt(ncx2.ppf(level, 1, mean**2))) if mean > 1e-6 else float(norm.ppf((1 + level) / 2))


def clustered_ratio(
    pair: Pair,
    units: Ints,
    items: Ints | None = None,
    weights: Floats | None = None,
    alpha: float = 0.05,
    at_most: int | None = None,
) -> Estimate:
    """Estimate θ = Σ a / Σ b with a t interval, clustered by unit (and item, if given); see ``estimate_of``."""
    return estimate_of(*ratio_influence(*pair, weights), units, items, alpha, at_most)
