"""How far off the scores of held-out users are: log losses and pairwise losses at off-policy labels, with their errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from causalrec import scores
from causalrec.finetune.labels import Labels
from causalrec.scores import Estimate

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
ESTIMATORS = ("naive", "IPS", "SNIPS", "DR")
LEAST_MASS = 1e-4
"""Pairs a row, by weight, below which a pairwise loss has nothing to learn from."""
UNITS = {"clicks": "nats", "effect": "nats", "policy": "clicks per impression", "pairs": "nats a pair"}
"""In what a risk is counted, by what it is of."""
AT_ONCE = 4_000_000
"""Pairs of rows that are in memory together; of a user with more rows than its root some rows at a time."""


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
    return row_loss(f, label_of(r, aims_at), r.units, pairwise)


def label_of(r: Labels, aims_at: str) -> F64:
    """(n,) doubly robust labels: of the click if shown, or half of one plus the effect."""
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
    label = label_of(r, aims_at)
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
        step = max(1, AT_ONCE // rows.size)
        for k in range(0, rows.shape[1], step):
            mine = np.arange(k, min(k + step, rows.shape[1]))
            above = np.logaddexp(0, x[:, None, :] - x[:, mine, None])  # [user, i, j]: of i standing above j
            above[:, mine - k, mine] = 0
            over = np.einsum("uij,uj->ui", above, 1 - y)
            loss[rows[:, mine]] = y[:, mine] * over
            slope[rows[:, mine]] += over
            slope[rows] -= np.einsum("uij,ui->uj", above, y[:, mine])
    return loss, slope


def pair_masses(label: F64, units: Ints) -> tuple[F64, F64]:
    """Σ_j over other rows j of row i's user of y_i (1 − y_j), (n,); and the derivative of their sum by each label, (n,)."""
    good, bad = (np.bincount(units, v)[units] - v for v in (label, 1 - label))
    return np.asarray(label * bad), np.asarray(bad - good)


def _users_alike(units: Ints) -> Iterator[Ints]:
    """(g, s) rows of users who have s rows each, at most about `AT_ONCE` pairs of rows together unless it is one user."""
    order = np.argsort(units, kind="stable")
    _, first, size = np.unique(units[order], return_index=True, return_counts=True)
    for s in np.unique(size):
        starts = first[size == s]
        step = max(1, AT_ONCE // int(s) ** 2)
        for k in range(0, len(starts), step):
            yield order[starts[k : k + step, None] + np.arange(s)]


def policy_share(f: F64, r: Labels) -> float:
    """BanditNet's S: mean importance weight of the policy that shows a row with probability σ(f); 1 in expectation."""
    p = expit(f)
    return float((r.t * r.w1 * p + (1 - r.t) * r.w0 * (1 - p)).mean())
