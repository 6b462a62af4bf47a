"""How good is a ranker, judged on users that it has not seen: off policy by four estimators, and on random data if there is any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from causalrec import scores
from causalrec._display import Displayable
from causalrec.errors import EstimationError
from causalrec.finetune.labels import Labels
from causalrec.nuisance import nuisances
from causalrec.scores import Estimate

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
ESTIMATORS = ("naive", "IPS", "SNIPS", "DR")


def log_loss(f: F64, label: F64) -> F64:
    """ℓ(f, y) = log(1 + exp f) − y f, (n,), nats."""
    return np.asarray(np.logaddexp(0, f) - label * f)


def risk_pairs(f: F64, r: Labels) -> dict[str, scores.Pair]:
    """The risk R(f) = E[ℓ(f, Y(1))] as ratios of means Σ a / Σ b, by estimator; a, b (n,).

    naive: T ℓ over T; IPS: T w ℓ over 1; SNIPS: T w ℓ over T w; DR: ℓ at the pseudo-outcome m₁ + T w (Y − m₁), over 1.
    """
    seen, one = log_loss(f, r.y), np.ones(len(r))
    return {
        "naive": (r.t * seen, r.t),
        "IPS": (r.t * r.w1 * seen, one),
        "SNIPS": (r.t * r.w1 * seen, r.t * r.w1),
        "DR": (log_loss(f, r.psi1), one),
    }


@dataclass(frozen=True, eq=False)
class Ratio:
    """Σ a / Σ b of some rows: its value, its influence (n,), and its slope (n,), the derivative by log P(examined) at the row's position."""

    value: float
    influence: F64
    slope: F64

    @classmethod
    def of(cls, pair_of: Callable[[Labels], scores.Pair], r: Labels) -> Ratio:
        """Σ a / Σ b of ``pair_of(r)``, whose a is linear in the outcome y = click / θ: its derivative by log θ is a(0) − a(y).

        The outcome model moves with θ too, which cancels at true propensities.
        """
        a, b = pair_of(r)
        slope = np.zeros(len(r)) if r.curve_error is None else (pair_of(replace(r, y=np.zeros(len(r))))[0] - a) / b.sum()
        return cls(*scores.ratio_influence(a, b), slope)

    def less(self, other: Ratio) -> Ratio:
        """The difference of two."""
        return Ratio(self.value - other.value, self.influence - other.influence, self.slope - other.slope)

    def estimate(self, r: Labels) -> Estimate:
        """Errors clustered by user (and item); those of an estimated curve on top, as if it came from other users."""
        beyond = 0.0 if r.curve_error is None else r.curve_error.variance(self.slope)
        return scores.estimate_of(self.value, self.influence, r.units, r.items, beyond=beyond)


def risks(f: F64, r: Labels) -> dict[str, Estimate]:
    """Held-out risk by estimator, nats per impression, errors clustered by user."""
    return {name: Ratio.of(lambda q, n=name: risk_pairs(f, q)[n], r).estimate(r) for name in ESTIMATORS}  # type: ignore[misc]


def held_out_loss(f: F64, r: Labels, aims_at: str) -> F64:
    """(n,) doubly robust loss of what the score is for: clicks if shown, the effect, or a policy of showing."""
    if aims_at == "policy":
        p = expit(f)
        return np.asarray(-(p * r.psi1 + (1 - p) * r.psi0))
    return log_loss(f, r.psi1 if aims_at == "clicks" else (1 + r.psi1 - r.psi0) / 2)


def risk_difference(f: F64, other: F64, r: Labels, aims_at: str = "clicks") -> Estimate:
    """Doubly robust risk of f less that of another ranker on the same rows; below 0 where f is better."""

    def difference(q: Labels) -> scores.Pair:
        return held_out_loss(f, q, aims_at) - held_out_loss(other, q, aims_at), np.ones(len(q))

    return Ratio.of(difference, r).estimate(r)


def chosen(f: F64, r: Labels) -> npt.NDArray[np.float64]:
    """(n,) how much of each row the ranker would show: see ``first_of_each``."""
    return first_of_each(f, r.e, r.units)


def first_of_each(f: F64, slots: F64, units: Ints) -> npt.NDArray[np.float64]:
    """(n,) in [0, 1]: the first rows of each user by score f, as many as the sum of his `slots`; the last one in part, rows that tie in equal parts.

    With the propensities as slots that is how many he is shown in expectation, so that the ranker's choice and today's are as large in every
    user. What he *was* shown will not do where the choice is scored by 1 / e: a policy that knows T picks rows whose weight it knows. Where every
    user has one row, they are chosen among like the rows of one.
    """
    if len(np.unique(units)) == len(units):
        units = np.zeros(len(units), dtype=np.int64)
    order = np.lexsort((-f, units))
    user, score = units[order], f[order]
    new_user = np.r_[True, np.diff(user) > 0]
    first = np.flatnonzero(new_user)
    place = np.arange(len(f)) - np.repeat(first, np.diff(np.r_[first, len(f)]))
    room = np.bincount(units, slots)
    part = np.clip(room[user] - place, 0.0, 1.0)
    tie = np.cumsum(new_user | np.r_[True, np.diff(score) != 0]) - 1
    shared = np.bincount(tie, part) / np.bincount(tie)
    out = np.empty(len(f))
    out[order] = shared[tie]
    return out


def values(f: F64, r: Labels) -> dict[str, Estimate]:
    """Clicks per impression shown, of the ranker's choice and of today's, off policy by DR scores; their difference; caused clicks.

    V(π) = Σ π ψ₁ / Σ π with π how much of each row the ranker would show, as many a user as he is shown in expectation, Σ e. Today's is Σ T Y / Σ T.
    """
    pi = chosen(f, r)
    ours = Ratio.of(lambda q: (pi * q.psi1, pi), r)
    today = Ratio.of(lambda q: (q.t * q.y, q.t), r)
    found = {"value": ours, "value_today": today, "gain": ours.less(today)}
    if r.control_seen:
        found["caused"] = Ratio.of(lambda q: (pi * (q.psi1 - q.psi0), pi), r)
    return {name: ratio.estimate(r) for name, ratio in found.items()}


@dataclass(frozen=True, eq=False)
class Ranking(Displayable):
    """Quality on data whose impressions were drawn at random (MAR).

    Attributes
    ----------
    n, n_users : rows, and users
    auc, ndcg : Estimate
        AUC over all rows, and mean NDCG@k over users with at least one positive; 95 % intervals from a bootstrap of users.
    k : int
    log_loss : Estimate
    """

    n: int
    n_users: int
    auc: Estimate
    ndcg: Estimate
    log_loss: Estimate
    k: int

    def _title(self) -> str:
        return f"On {self.n:,} randomly drawn impressions of {self.n_users:,} users"

    def _rows(self) -> list[dict[str, Any]]:
        return [
            quantity(name, e) for name, e in (("AUC", self.auc), (f"NDCG@{self.k}", self.ndcg), ("log loss, nats", self.log_loss))
        ]  # fmt: skip


def ndcg_by_user(f: F64, gain: F64, units: Ints, k: int) -> F64:
    """(G,) NDCG@k of each user, Σ_{ranks ≤ k} gain / log₂(rank + 1) over its best; NaN where no gain is positive.

    Ties in f are broken by a fixed shuffle of the rows.
    """
    shuffle = np.random.default_rng(0).permutation(len(f))
    users = int(units.max()) + 1

    def dcg(score: F64) -> F64:
        order = np.lexsort((shuffle, -score, units))
        starts = np.flatnonzero(np.r_[True, np.diff(units[order]) > 0])
        place = np.arange(len(f)) - np.repeat(starts, np.diff(np.r_[starts, len(f)]))
        discounted = np.where(place < k, gain[order] / np.log2(place + 2), 0.0)
        return np.asarray(np.bincount(units[order], discounted, minlength=users), dtype=np.float64)

    best = dcg(gain)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(best > 0, dcg(f) / best, np.nan)


def auc(f: F64, y: F64, weight: F64 | None = None) -> float:
    """P(score of a positive > score of a negative), ties half; `weight` counts a row so often."""
    if weight is None:
        return nuisances.auc(f, y)
    order = np.argsort(f, kind="stable")
    _, tie = np.unique(f[order], return_inverse=True)
    neg, pos = weight[order] * (1 - y[order]), weight[order] * y[order]
    below = np.bincount(tie, neg)
    before = np.concatenate([[0.0], np.cumsum(below)[:-1]])
    return float((pos * (before + below / 2)[tie]).sum() / (pos.sum() * neg.sum()))


def ranking_of(f: F64, y: F64, units: Ints, k: int = 5, draws: int = 500, seed: int = 0) -> Ranking:
    """AUC, NDCG@k and log loss of randomly drawn impressions.

    Raises
    ------
    EstimationError
        All outcomes are the same.
    """
    if np.ptp(y) == 0:
        raise EstimationError(f"all {len(y):,} outcomes of the random data are {y[0]:g}: nothing can be ranked well or badly.")
    rng, users = np.random.default_rng(seed), int(units.max()) + 1
    each, loss = ndcg_by_user(f, y, units, k), log_loss(f, y)
    of_user, size = np.bincount(units, loss, users), np.bincount(units, minlength=users)
    found = []
    for _ in range(draws):
        times = np.bincount(rng.integers(0, users, users), minlength=users).astype(float)
        rows = times[units]
        if (rows * y).sum() > 0 and (rows * (1 - y)).sum() > 0:
            with np.errstate(invalid="ignore"):
                ndcg = np.nansum(times * each) / (times * np.isfinite(each)).sum()
            found.append((auc(f, y, rows), ndcg, (times * of_user).sum() / (times * size).sum()))
    spread = np.array(found)
    points = (auc(f, y), float(np.nanmean(each)), float(loss.mean()))
    made = [_bootstrapped(p, s) for p, s in zip(points, spread.T, strict=True)]
    return Ranking(len(y), users, made[0], made[1], made[2], k)


def _bootstrapped(value: float, draws: F64) -> Estimate:
    low, high = np.quantile(draws, (0.025, 0.975))
    return Estimate(float(value), float(draws.std(ddof=1)), float(low), float(high), float("nan"), len(draws), np.empty(0))


@dataclass(frozen=True, eq=False)
class Evaluation(Displayable):
    """A ranker on users whose clicks it has not seen.

    Attributes
    ----------
    risks, risks_before : mapping of "naive", "IPS", "SNIPS", "DR" to Estimate
        Held-out risk, nats per impression, of the ranker and of a constant that knows the mean.
    values : mapping of str to Estimate
        Clicks per impression shown: of the ranker's choice, of today's, their difference; caused clicks if known.
    mar : Ranking or None
    n, n_users : int
    notes : tuple of str
    curve_estimated : bool
        Whether errors hold those of an estimated P(examined).
    if_examined : bool
        Whether clicks were divided by P(examined): then values are those of impressions that are looked at, today's as well.
    """

    risks: dict[str, Estimate] = field(repr=False)
    risks_before: dict[str, Estimate] = field(repr=False)
    values: dict[str, Estimate] = field(repr=False)
    mar: Ranking | None
    n: int
    n_users: int
    notes: tuple[str, ...] = ()
    curve_estimated: bool = False
    if_examined: bool = False

    @property
    def unit(self) -> str:
        """What values count."""
        return "clicks per impression shown and looked at" if self.if_examined else "clicks per impression shown"

    def _title(self) -> str:
        gain = self.values["gain"]
        return (
            f"Ranker on {self.n:,} rows of {self.n_users:,} held-out users: {gain.value:+.4f} {self.unit} against today's choice "
            f"[{gain.ci_lower:+.4f}, {gain.ci_upper:+.4f}], 95 %"
        )

    def _rows(self) -> list[dict[str, Any]]:
        rows = [quantity(f"risk by {name}, nats", e) for name, e in self.risks.items()]
        rows += [quantity(f"risk by {name} of a constant, nats", e) for name, e in self.risks_before.items() if name == "DR"]
        words = {
            "value": f"{self.unit}, the ranker's choice (DR)",
            "value_today": f"{self.unit}, today's choice",
            "gain": "difference",
            "caused": "caused clicks per impression shown, the ranker's choice (DR)",
        }
        rows += [quantity(words[name], e) for name, e in self.values.items()]
        if self.mar is not None:
            rows += [{**r, "quantity": f"random data: {r['quantity']}"} for r in self.mar._rows()]
        return rows

    def _notes(self) -> list[str]:
        return [
            "The naive risk is that of what the old recommender showed; the others estimate that of all impressions, had they been shown.",
            "The ranker's choice is as many of each user's rows as he is shown in expectation, the first by score (the last of them in part). Errors are clustered by user"
            + (", and hold those of the estimated P(examined)." if self.curve_estimated else "."),
            *self.notes,
        ]


def quantity(name: str, e: Estimate) -> dict[str, Any]:
    """One record of a result's table."""
    return {"quantity": name, "estimate": e.value, "std_error": e.std_error, "ci_lower": e.ci_lower, "ci_upper": e.ci_upper}


def evaluate(f: F64, r: Labels, mar: Ranking | None, notes: tuple[str, ...] = ()) -> Evaluation:
    """Judge scores (n,) on held-out rows."""
    mean = np.clip(r.psi1.mean(), 1e-4, 1 - 1e-4)
    constant = np.full(len(r), np.log(mean / (1 - mean)))
    found = values(f, r)
    if found["value"].ci_lower > 1:
        notes += (
            f"The ranker's choice would be clicked {found['value'].value:.2f} times per impression: more than once, which cannot be. The propensities, or "
            "P(examined) where a curve was given, are not those of this log. Do not act on this value.",
        )
    return Evaluation(risks(f, r), risks(constant, r), found, mar, len(r), int(r.units.max()) + 1, notes, r.curve_error is not None, r.if_examined)


def policy_share(f: F64, r: Labels) -> float:
    """BanditNet's S: mean importance weight of the policy that shows a row with probability σ(f); 1 in expectation."""
    p = expit(f)
    return float((r.t * r.w1 * p + (1 - r.t) * r.w0 * (1 - p)).mean())
