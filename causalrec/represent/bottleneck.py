"""A small network that squeezes a frozen embedding into what exposure and clicks depend on.

A network has seen exposure and clicks, so it may only be given the counts of rows outside the fold that it will be
scored on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from causalrec._checks import check_scalar
from causalrec.errors import ArgumentError, RepresentationError
from causalrec.represent.counts import TextCounts, training_split

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
PENALTIES = (16.0, 8.0, 4.0, 2.0)
"""Candidates of the penalty on the weights, strongest first, over the root of the number of rows: ½ λ (‖W‖² + ‖V‖²) acts
as a penalty on the singular values of the product WV, and the noise in its gradient grows as that root."""
STEPS = 10
"""Iterations of L-BFGS between two looks at the held-out loss."""
MOST_STEPS = 20
PATIENCE = 2
"""Looks without progress after which a candidate ends."""
FEWEST_TEXTS = 4


@dataclass(frozen=True, eq=False)
class Bottleneck:
    """h = tanh((x − μ) W / σ + b), logits = h V + c; its settings and how it did on held-out texts or rows.

    Attributes
    ----------
    penalty : float
        The candidate that was chosen.
    held_out : mapping of penalty to float
        Least held-out nuisance loss of each candidate, nats per row shown.
    """

    mean: F64
    scale: float
    first: F64 = field(repr=False)
    heads: F64 = field(repr=False)
    penalty: float
    held_out: dict[float, float]

    @property
    def width(self) -> int:
        """Units, r."""
        return int(self.first.shape[1])

    def embed(self, values: F32) -> F64:
        """(u, r) what is left of each vector (u, d)."""
        inner = _scaled(values, self.mean, self.scale) @ self.first[:-1] + self.first[-1]
        return np.asarray(np.tanh(inner), dtype=np.float64)

    def predict(self, values: F32) -> F64:
        """Logits (u, 3) of P(T=1), P(Y=1 | T=0) and P(Y=1 | T=1) for each vector (u, d)."""
        return np.asarray(self.embed(values) @ self.heads[:-1] + self.heads[-1], dtype=np.float64)


def fit_bottleneck(
    values: F32,
    counts: TextCounts,
    *,
    width: int = 16,
    penalties: Sequence[float] = PENALTIES,
    holdout: float | TextCounts = 0.2,
    keys: Sequence[object] | None = None,
    random_state: int = 0,
) -> Bottleneck:
    """Fit one narrow layer and three logistic heads to the counts of texts.

    Minimises Σ_i Σ_heads n log(1 + exp z) − s z + ½ λ √N (‖W‖² + ‖V‖²) by L-BFGS, N rows being shown, with the λ and
    the number of steps that have the least held-out loss. One network serves exposure and both clicks (Shi, Blei & Veitch 2019, Dragonnet),
    so that it keeps what either needs.

    Parameters
    ----------
    values : (u, d) float32
        Vectors of the distinct texts.
    counts : TextCounts, (u,) each
        Of *training rows only*.
    width : int
        Units of the layer, r.
    penalties : sequence of float
        Candidates for λ.
    holdout : float or TextCounts
        Share of the texts that are held out; or the counts of held-out rows, which are then not part of `counts`.
    keys : (u,) or None
        Along which the held-out texts are drawn (the texts), so that their order has no say.
    random_state : int

    Raises
    ------
    RepresentationError
        Fewer than four texts have rows, or the numbers of texts differ.
    """
    width = check_scalar(width, "width", ge=1, le=512, integer=True)
    seed = check_scalar(random_state, "random_state", ge=0, integer=True)
    candidates = [check_scalar(p, "penalties", gt=0) for p in penalties]
    if not candidates:
        raise ArgumentError("penalties is empty; must hold at least one positive number.")
    train, held = training_split(counts, holdout, len(values), keys, seed)
    here = train.shown > 0
    if int(here.sum()) < FEWEST_TEXTS:
        raise RepresentationError(
            f"{int(here.sum())} texts have training rows, must be >= {FEWEST_TEXTS} for a network; leave this member out."
        )
    share = train.shown[here] / train.shown.sum()
    mean = share @ values[here]
    scale = float(np.sqrt((share @ (values[here] - mean) ** 2).mean())) or 1.0
    x, n, s = _scaled(values[here], mean, scale), train.totals[here], train.successes[here]
    tested = held.shown > 0
    x_held, n_held, s_held = _scaled(values[tested], mean, scale), held.totals[tested], held.successes[tested]
    start = _start(x.shape[1], width, train.constants, seed)
    objective = _Objective(x, n, s, width)
    root = float(np.sqrt(train.shown.sum()))
    losses: dict[float, float] = {}
    best, found = (np.inf, candidates[0]), start
    for penalty in candidates:
        loss, theta = _fit(objective, start, penalty * root, x_held, n_held, s_held)
        losses[penalty] = loss
        if loss < best[0]:
            best, found = (loss, penalty), theta
    first, heads = objective.unpack(found)
    return Bottleneck(mean.astype(np.float64), scale, first, heads, best[1], losses)


@dataclass(frozen=True, eq=False)
class _Objective:
    """Summed loss and its gradient at flat parameters; x (u, d), n and s (u, 3)."""

    x: F32
    n: F64
    s: F64
    width: int

    def unpack(self, theta: F64) -> tuple[F64, F64]:
        """W with b below it (d + 1, r), and V with c below it (r + 1, 3)."""
        cut = (self.x.shape[1] + 1) * self.width
        return theta[:cut].reshape(-1, self.width), theta[cut:].reshape(-1, 3)

    def logits(self, theta: F64, x: F32) -> tuple[F64, F64]:
        """Units (u, r) and logits (u, 3)."""
        first, heads = self.unpack(theta)
        h = np.tanh((x @ first[:-1].astype(np.float32)).astype(np.float64) + first[-1])
        return h, h @ heads[:-1] + heads[-1]

    def __call__(self, theta: F64, penalty: float) -> tuple[float, F64]:
        first, heads = self.unpack(theta)
        h, z = self.logits(theta, self.x)
        r = self.n * expit(z) - self.s
        back = (r @ heads[:-1].T) * (1 - h**2)
        g_first = np.vstack([self.x.T @ back.astype(np.float32) + penalty * first[:-1], back.sum(axis=0)])
        g_heads = np.vstack([h.T @ r + penalty * heads[:-1], r.sum(axis=0)])
        loss = (self.n * np.logaddexp(0, z) - self.s * z).sum()
        loss += 0.5 * penalty * ((first[:-1] ** 2).sum() + (heads[:-1] ** 2).sum())
        return float(loss), np.concatenate([g_first.ravel(), g_heads.ravel()])


def _fit(objective: _Objective, start: F64, penalty: float, x: F32, n: F64, s: F64) -> tuple[float, F64]:
    """Held-out loss per row shown, and the parameters that have it, along one candidate's descent."""

    def held_out(theta: F64) -> float:
        z = objective.logits(theta, x)[1]
        return float((n * np.logaddexp(0, z) - s * z).sum() / max(n[:, 0].sum(), 1e-12))

    theta, best, since = start, (held_out(start), start), 0
    for _ in range(MOST_STEPS):
        step = minimize(objective, theta, (penalty,), "L-BFGS-B", jac=True, options={"maxiter": STEPS})
        theta, loss = step.x, held_out(step.x)
        since = 0 if loss < best[0] else since + 1
        if loss < best[0]:
            best = (loss, theta)
        if step.success or since >= PATIENCE:
            break
    return best


def _start(d: int, width: int, constants: F64, seed: int) -> F64:
    """Random directions W of length ½, and heads near the constants; flat."""
    rng = np.random.default_rng([seed, 1])
    first = np.vstack([rng.standard_normal((d, width)) * 0.5 / np.sqrt(d), np.zeros((1, width))])
    heads = np.vstack([rng.standard_normal((width, 3)) * 0.01, constants])
    return np.concatenate([first.ravel(), heads.ravel()])


def _scaled(values: F32, mean: F64, scale: float) -> F32:
    return ((values - mean) / scale).astype(np.float32)
