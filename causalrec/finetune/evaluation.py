"""How good is a ranker, judged on users that it has not seen: off policy by four estimators, and on random data if there is any."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
LEAST_MASS = 1e-4
"""Pairs a row, by weight, below which a pairwise loss has nothing to learn from."""
AT_ONCE = 4_000_000
RISKS = {
    "clicks": "risk by {}, nats",
    "effect": "risk of the effect by {}, nats",
    "policy": "risk of the policy by {}, minus clicks per impression",
    "pairs": "risk of the order by {}, nats a pair",
}
"""What a risk is of, by what the score is for."""
OF_RISKS = {
    "clicks": "The naive risk is that of what the old recommender showed; the others estimate that of all impressions, had they been shown.",
    "effect": "The score is for the effect of showing, and no log odds of a click: its risk is the log loss at (1 + effect) / 2, and there is no other.",
    "policy": "The score says whether to show, and is no log odds of a click: its risk is minus the clicks of the policy that shows with probability σ(score).",
    "pairs": "The scores were trained by pairs: they order a user's rows and are no log odds, so that they are judged by pairs as well, and log losses of clicks are left out.",
}


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


def judges_clicks(aims_at: str, pairwise: bool) -> bool:
    """Whether a score is the log odds of a click if shown, so that log losses of clicks are risks of it."""
    return aims_at == "clicks" and not pairwise


def row_loss(f: F64, label: F64, units: Ints, pairwise: bool) -> F64:
    """(n,) whose mean is the log loss a row; or the pairwise loss a pair, of a user's rows by the labels (``objectives.pairwise_loss`` at weight 1)."""
    if not pairwise:
        return log_loss(f, label)
    mass = max(float(pair_masses(label, units)[0].sum()), LEAST_MASS * len(f))
    return np.asarray(pair_losses(f, label, units)[0] * len(f) / mass)


def held_out_loss(f: F64, r: Labels, aims_at: str, pairwise: bool = False) -> F64:
    """(n,) doubly robust loss of what the score is for: clicks if shown, the effect, or a policy of showing; or the order of a user's rows by either of the first two."""
    if aims_at == "policy":
        p = expit(f)
        return np.asarray(-(p * r.psi1 + (1 - p) * r.psi0))
    return row_loss(f, _label(r, aims_at), r.units, pairwise)


def _label(r: Labels, aims_at: str) -> F64:
    return r.psi1 if aims_at == "clicks" else np.asarray((1 + r.psi1 - r.psi0) / 2)


def own_risk(f: F64, r: Labels, aims_at: str, pairwise: bool, other: F64 | None = None) -> Estimate:
    """Doubly robust risk of what the score is for, less that of another ranker on the same rows if there is one."""
    if pairwise:
        return _pair_ratio(f, other, r, aims_at).estimate(r)

    def pair(q: Labels) -> scores.Pair:
        loss = held_out_loss(f, q, aims_at)
        return loss if other is None else loss - held_out_loss(other, q, aims_at), np.ones(len(q))

    return Ratio.of(pair, r).estimate(r)


def _pair_ratio(f: F64, other: F64 | None, r: Labels, aims_at: str) -> Ratio:
    """The pairwise loss a pair, as a ratio of sums over rows; both are products of two rows' labels, and so are their slopes."""
    label = _label(r, aims_at)
    (a, by_label), (b, of_mass) = pair_losses(f, label, r.units), pair_masses(label, r.units)
    if other is not None:
        loss, slope = pair_losses(other, label, r.units)
        a, by_label = a - loss, by_label - slope
    if b.sum() < LEAST_MASS * len(b):  # hardly a pair: as many as there would have to be
        b, of_mass = np.full(len(b), LEAST_MASS), np.zeros(len(b))
    value, influence = scores.ratio_influence(a, b)
    by_theta = -r.t * r.w1 * r.y  # the derivative of a doubly robust label by log P(examined)
    return Ratio(value, influence, np.asarray(by_theta * (by_label - value * of_mass) / b.sum()))


def risk_difference(f: F64, other: F64, r: Labels, aims_at: str = "clicks", pairwise: bool = False) -> Estimate:
    """Doubly robust risk of f less that of another ranker on the same rows; below 0 where f is better."""
    return own_risk(f, r, aims_at, pairwise, other)


def pair_losses(f: F64, label: F64, units: Ints) -> tuple[F64, F64]:
    """Σ_j over other rows j of row i's user of y_i (1 − y_j) log(1 + exp(f_j − f_i)), (n,), nats; and the derivative of their sum by each label, (n,)."""
    loss, slope = np.zeros(len(f)), np.zeros(len(f))
    for rows in _users_alike(units):
        x, y = f[rows], label[rows]
        above = np.logaddexp(0, x[:, None, :] - x[:, :, None])  # [user, i, j]: of i standing above j
        above[:, np.arange(rows.shape[1]), np.arange(rows.shape[1])] = 0
        over = np.einsum("uij,uj->ui", above, 1 - y)
        loss[rows] = y * over
        slope[rows] = over - np.einsum("uij,ui->uj", above, y)
    return loss, slope


def pair_masses(label: F64, units: Ints) -> tuple[F64, F64]:
    """Σ_j over other rows j of row i's user of y_i (1 − y_j), (n,); and the derivative of their sum by each label, (n,)."""
    good, bad = (np.bincount(units, v)[units] - v for v in (label, 1 - label))
    return np.asarray(label * bad), np.asarray(bad - good)


def _users_alike(units: Ints) -> Iterator[Ints]:
    """(g, s) rows of users who have s rows each, at most about `AT_ONCE` pairs of rows together."""
    order = np.argsort(units, kind="stable")
    _, first, size = np.unique(units[order], return_index=True, return_counts=True)
    for s in np.unique(size):
        starts = first[size == s]
        step = max(1, AT_ONCE // int(s) ** 2)
        for k in range(0, len(starts), step):
            yield order[starts[k : k + step, None] + np.arange(s)]


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
    """A ranker on users who were held out.

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
    risk_of : "clicks", "effect", "policy" or "pairs"
        What the risks are of. Of scores that are no log odds of a click there is one, "DR", of what they are for.
    unseen : bool
        Whether no weight has learnt from the held-out users, in earlier rounds either.
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
    risk_of: str = "clicks"
    unseen: bool = True

    def risk_name(self, estimator: str) -> str:
        """Of a risk, with its unit."""
        return RISKS[self.risk_of].format(estimator)

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
        rows = [quantity(self.risk_name(name), e) for name, e in self.risks.items()]
        rows += [quantity(self.risk_name(f"{name} of a constant"), e) for name, e in self.risks_before.items() if name == "DR"]
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
            OF_RISKS[self.risk_of],
            *([] if self.unseen else ["Earlier rounds have learnt from some of these users: the numbers are too hopeful."]),
            "The ranker's choice is as many of each user's rows as he is shown in expectation, the first by score (the last of them in part). Errors are clustered by user"
            + (", and hold those of the estimated P(examined)." if self.curve_estimated else "."),
            *self.notes,
        ]


def quantity(name: str, e: Estimate) -> dict[str, Any]:
    """One record of a result's table."""
    return {"quantity": name, "estimate": e.value, "std_error": e.std_error, "ci_lower": e.ci_lower, "ci_upper": e.ci_upper}


def evaluate(
    f: F64, r: Labels, mar: Ranking | None, notes: tuple[str, ...] = (), aims_at: str = "clicks", pairwise: bool = False, unseen: bool = True
) -> Evaluation:
    """Judge scores (n,), of what they are for, on held-out rows."""
    constant = np.full(len(r), _constant(r, aims_at))
    of = [risks(g, r) if judges_clicks(aims_at, pairwise) else {"DR": own_risk(g, r, aims_at, pairwise)} for g in (f, constant)]
    found = values(f, r)
    if found["value"].ci_lower > 1:
        notes += (
            f"The ranker's choice would be clicked {found['value'].value:.2f} times per impression: more than once, which cannot be. The propensities, or "
            "P(examined) where a curve was given, are not those of this log. Do not act on this value.",
        )
    return Evaluation(
        of[0], of[1], found, mar, len(r), int(r.units.max()) + 1, notes, r.curve_error is not None, r.if_examined, "pairs" if pairwise else aims_at, unseen
    )


def _constant(r: Labels, aims_at: str) -> float:
    """The log odds that know the mean: of clicks if shown, of half of one plus the effect, or of showing today."""
    mean = np.clip(r.t.mean() if aims_at == "policy" else _label(r, aims_at).mean(), 1e-4, 1 - 1e-4)
    return float(np.log(mean / (1 - mean)))


def policy_share(f: F64, r: Labels) -> float:
    """BanditNet's S: mean importance weight of the policy that shows a row with probability σ(f); 1 in expectation."""
    p = expit(f)
    return float((r.t * r.w1 * p + (1 - r.t) * r.w0 * (1 - p)).mean())
