"""Regression EM for the position-based click model: P(click) = θ_k · expit(η), η from features or item effects. Arrays only.

Wang, Golbandi, Bendersky, Metzler & Najork (2018). EM climbs this likelihood slowly where clicks are rare, so that after a few
of its steps Fisher scoring on θ and η together, each step halved until the likelihood does not fall, goes to the same maximum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.special import expit, logit

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
EM_STEPS = 10
MAX_STEPS = 200
TOLERANCE = 1e-5
"""The log-likelihood is held to have converged when scoring expects less than this many nats from a step."""
ITEM_RIDGE = 0.01
EDGE = 1e-9


@dataclass(frozen=True, eq=False)
class ClickModel:
    """A fitted position-based model.

    Attributes
    ----------
    log_theta : (K,) the first 0
    influence : (m, K) of each row on log θ, HC2 for the items' effects
    log_likelihood : penalised, at the start and after each step
    converged : bool
    relevance : (m,) expit(η): P(click | examined), in units of the first position's examination
    """

    log_theta: F64
    influence: F64
    log_likelihood: tuple[float, ...]
    converged: bool
    relevance: F64


@dataclass(frozen=True, eq=False)
class _State:
    lam: F64
    items: F64
    beta: F64


class _Problem:
    """Clicks y at group k of item s with features x (m, p), a column of ones in front where there are no item effects."""

    def __init__(self, group: Ints, y: F64, w: F64, x: F64, items: Ints | None, n_groups: int) -> None:
        self.group, self.y, self.w, self.k, self.items = group, y, w, n_groups, items
        self.x = x if items is not None else np.hstack([np.ones((len(y), 1)), x])
        self.ridge = np.ones(self.x.shape[1])
        if items is None:
            self.ridge[0] = 0.0
        self.m = 0 if items is None else int(items.max()) + 1
        self.member = sparse.csr_matrix((np.ones(len(y)), (items, np.arange(len(y)))), shape=(self.m, len(y))) if items is not None else None
        self.base = float(logit(np.clip(w @ y / w.sum(), 1e-6, 1 - 1e-6)))
        self.dummies = np.zeros((len(y), n_groups - 1))
        rest = np.flatnonzero(group > 0)
        self.dummies[rest, group[rest] - 1] = 1.0

    def start(self) -> _State:
        beta = np.zeros(self.x.shape[1])
        if self.items is None:
            beta[0] = self.base
        rate = np.bincount(self.group, self.w * self.y, self.k) / np.bincount(self.group, self.w, self.k)
        lam = np.log(np.clip(rate / rate[0], 0.01, 0.9))  # at θ = 1 EM stands still: every row was examined
        lam[0] = 0.0
        return _State(lam, np.zeros(self.m), beta)

    def parts(self, at: _State) -> tuple[F64, F64, F64]:
        """θ, relevance and P(click) of each row."""
        eta = self.x @ at.beta
        if self.items is not None:
            eta = eta + self.base + at.items[self.items]
        theta, r = np.exp(at.lam)[self.group], expit(eta)
        return theta, r, np.clip(theta * r, EDGE, 1 - EDGE)

    def value(self, at: _State) -> float:
        """Penalised log-likelihood; −∞ where a click would have a probability above one."""
        theta, r, p = self.parts(at)
        if (theta * r > 1).any():
            return -np.inf
        fit = self.w @ (self.y * np.log(p) + (1 - self.y) * np.log1p(-p))
        return float(fit - 0.5 * (self.ridge @ at.beta**2) - 0.5 * ITEM_RIDGE * (at.items @ at.items))

    def solve(self, at: _State, score: F64, slope: F64, info: F64, positions: bool) -> tuple[_State, float, F64, F64]:
        """Newton direction; also its decrement, the inverse of the curvature of features and positions, and their columns clear of the items'.

        A row's column is slope_i on its item and features, 1 on its position (if `positions`); `info` its expected curvature.
        Item effects are eliminated: S = C − B'D⁻¹B.
        """
        z = self.x * slope[:, None]
        ridge, theta = self.ridge, -self.ridge * at.beta
        if positions:
            z = np.hstack([z, self.dummies])
            ridge, theta = np.r_[ridge, np.full(self.k - 1, 1e-8)], np.r_[theta, np.zeros(self.k - 1)]
        gradient = z.T @ score + theta
        curve = (z * info[:, None]).T @ z + np.diag(ridge)
        items = np.zeros(self.m)
        if self.member is not None:
            d = self.member @ (info * slope**2) + ITEM_RIDGE
            b = self.member @ (z * (info * slope)[:, None])
            g = self.member @ (score * slope) - ITEM_RIDGE * at.items
            curve = curve - b.T @ (b / d[:, None])
            gradient = gradient - b.T @ (g / d)
        inverse = np.asarray(np.linalg.pinv(curve, hermitian=True), dtype=np.float64)
        step = inverse @ gradient
        decrement = float(gradient @ step)
        if self.member is not None:
            items = (g - b @ step) / d
            decrement += float(g @ (g / d))
            z = z - slope[:, None] * (b / d[:, None])[self.items]
        p = self.x.shape[1]
        lam = np.r_[0.0, step[p:]] if positions else np.zeros(self.k)
        return _State(lam, items, step[:p]), decrement, inverse, z

    def climb(self, at: _State, step: _State, value: float) -> tuple[_State, float]:
        """The longest of the step's halves that does not lower the likelihood."""
        size = min(1.0, 3.0 / max(float(np.abs(np.r_[step.lam, step.beta, step.items]).max(initial=0.0)), 1e-300))
        for _ in range(25):
            new = _State(at.lam + size * step.lam, at.items + size * step.items, at.beta + size * step.beta)
            if (reached := self.value(new)) >= value:
                return new, reached
            size /= 2
        return at, value

    def em_step(self, at: _State, value: float) -> tuple[_State, float]:
        """Expected examination and relevance given the clicks; θ their mean, η one Newton step of a ridge-logistic regression."""
        theta, r, p = self.parts(at)
        seen = self.y + (1 - self.y) * theta * (1 - r) / (1 - p)
        wanted = self.y + (1 - self.y) * r * (1 - theta) / (1 - p)
        rate = np.bincount(self.group, self.w * seen, self.k) / np.bincount(self.group, self.w, self.k)
        lam = np.log(np.clip(rate, EDGE, 1.0))
        lam[0] = 0.0
        towards = _State(lam - at.lam, np.zeros(self.m), np.zeros(len(at.beta)))
        at, value = self.climb(at, towards, value)
        ones = np.ones(len(r))
        step = self.solve(at, self.w * (wanted - r), ones, self.w * r * (1 - r), positions=False)[0]
        return self.climb(at, step, value)

    def scoring(self, at: _State) -> tuple[_State, float, F64, F64, F64, F64]:
        """Fisher scoring step on (log θ, η): d log p = d log θ + (1 − r) dη."""
        _, r, p = self.parts(at)
        score, info = self.w * (self.y - p) / (1 - p), self.w * p / (1 - p)
        step, decrement, inverse, z = self.solve(at, score, 1 - r, info, positions=True)
        return step, decrement, inverse, z, score, info


def fit_click_model(group: Ints, y: F64, w: F64, x: F64, items: Ints | None, n_groups: int) -> ClickModel:
    """Fit P(click) = θ_k expit(η) by regression EM and scoring.

    Parameters
    ----------
    group : (m,) 0 … K − 1
    y, w : (m,) clicks 0/1 and weights
    x : (m, p) standardised features, with a unit prior on their coefficients
    items : (m,) item codes, or None for no effects of items
    n_groups : K
    """
    problem = _Problem(group, y, w, x, items, n_groups)
    at = problem.start()
    value = problem.value(at)
    path, converged = [value], False
    for _ in range(EM_STEPS):
        at, value = problem.em_step(at, value)
        path.append(value)
    for _ in range(MAX_STEPS):
        step, decrement, *_ = problem.scoring(at)
        new, reached = problem.climb(at, step, value)
        path.append(reached)
        converged = decrement < TOLERANCE or (decrement < 100 * TOLERANCE and reached - value < TOLERANCE)
        stuck = new is at
        at, value = new, reached
        if converged or stuck:
            break
    return ClickModel(at.lam, _influence(problem, at), tuple(path), converged, problem.parts(at)[1])


def _influence(problem: _Problem, at: _State) -> F64:
    """(m, K) influence of each row on log θ; a residual is divided by √(1 − h), h its leverage on its item's effect."""
    _, r, _ = problem.parts(at)
    _, _, inverse, z, score, info = problem.scoring(at)
    if problem.member is not None:
        d = problem.member @ (info * (1 - r) ** 2) + ITEM_RIDGE
        score = score / np.sqrt(1 - np.minimum(info * (1 - r) ** 2 / d[problem.items], 0.95))
    influence = np.zeros((len(r), problem.k))
    influence[:, 1:] = (score[:, None] * z) @ inverse[:, problem.x.shape[1] :]
    return influence
