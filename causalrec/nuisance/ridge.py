"""Many ridge-logistic regressions on one design at once.

All candidates, folds, arms and repetitions share the design matrix, so their coefficients are the columns of one
matrix and each pass over the data is a matrix product. Newton's method, each step solved by conjugate gradients
that are preconditioned with the (unweighted) Gram matrix; columns drop out as they converge.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.linalg.lapack import dpotri
from scipy.special import expit

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]

TOLERANCE = 1e-5
"""A solve ends when its Newton decrement says that the summed loss is within this many nats of its minimum."""
MAX_NEWTON = 40
MAX_CG = 25
TINY = np.float32(1e-37)
MAX_HALVINGS = 30


class Operator(Protocol):
    """A design matrix as far as a solve needs it."""

    @property
    def n(self) -> int: ...  # noqa: D102
    @property
    def p(self) -> int: ...  # noqa: D102
    @property
    def gram(self) -> F64: ...  # noqa: D102
    def weighted_gram(self, v: F32) -> F64: ...  # noqa: D102
    def matmul(self, b: F32) -> F32: ...  # noqa: D102
    def rmatmul(self, r: F32) -> F64: ...  # noqa: D102
    def columns_at(self, active: Index) -> Operator: ...  # noqa: D102


@dataclass(frozen=True, eq=False)
class Problems:
    """k penalised regressions on one design.

    minimise over β_c:  Σ_i w_ic loss(y_ic, x_i'β_c) + ½ Σ_j λ_jc β_jc²,  loss = log-loss or half squared error.

    Attributes
    ----------
    y, w : (n, k) float32
        Targets and row weights; a fold or an arm is left out by weight 0.
    penalty : (p, k)
        λ; 0 for the intercept.
    logistic : (k,) bool
    family : (k,) int
        Problems of one family share a preconditioner.
    """

    y: F32
    w: F32
    penalty: F64
    logistic: npt.NDArray[np.bool_]
    family: npt.NDArray[np.int64]

    def at(self, keep: Index) -> Problems:
        """Some of the problems."""
        if len(keep) == self.y.shape[1]:
            return self
        return Problems(
            self.y[:, keep], self.w[:, keep], self.penalty[:, keep], self.logistic[keep], self.family[keep]
        )


@dataclass(frozen=True, eq=False)
class Inverse:
    """M⁻¹ = S C⁻¹ S of a symmetric positive definite M, with S = diag(M)^(−1/2) and so a unit diagonal in C.

    Attributes
    ----------
    scale : (p, 1)
        The diagonal of S.
    core : (p, p)
        C⁻¹; float32 where rounding leaves it positive definite, else float64.
    """

    scale: F64
    core: F32 | F64

    @classmethod
    def of(cls, matrix: F64) -> Inverse:
        """The inverse of a matrix that rounding may have left indefinite.

        Applied hundreds of times to one or two columns, it costs a tenth of as many triangular solves.
        """
        factor = _factor(matrix)  # L with L L' = M, so that S L is that of C
        scale = 1 / np.sqrt(np.einsum("ij,ij->i", factor, factor))
        factor *= scale[:, None]
        core, _ = dpotri(factor, lower=1)
        core = np.tril(core) + np.tril(core, -1).T
        # float32 moves an eigenvalue of C⁻¹ by at most 6e-8 ‖C⁻¹‖ (Frobenius), and none is below 1 / ‖C‖
        if 6e-8 * float(np.linalg.norm(core) * np.linalg.norm(matrix * scale[:, None] * scale)) < 0.05:
            core = core.astype(np.float32)
        return cls(scale[:, None], core)

    def times(self, r: F64) -> F64:
        """M⁻¹ r, (p, k)."""
        return self.scale * (self.core @ (self.scale * r).astype(self.core.dtype))


@dataclass(eq=False)
class Preconditioner:
    """Inverses of an approximate Hessian, one a family, kept from one solve to the next.

    Attributes
    ----------
    exact : bool
        Take the Hessian at the start of the family's first problem, X' diag(w μ (1 − μ)) X + diag(λ), which pays
        where many problems are like it; otherwise c·n·G + diag(λ) with the curvature c at the intercept.
    """

    exact: bool = False
    inverses: dict[int, Inverse] = field(default_factory=dict)

    def prepare(self, x: Operator, problems: Problems, start: F64) -> None:
        """Invert what is not inverted yet."""
        for f in np.unique(problems.family):
            if int(f) in self.inverses:
                continue
            c = int(np.flatnonzero(problems.family == f)[0])
            matrix = self._curved(x, problems, start, c) if self.exact else self._flat(x, problems, c)
            np.einsum("ii->i", matrix)[:] += problems.penalty[:, c]
            self.inverses[int(f)] = Inverse.of(matrix)

    @staticmethod
    def _flat(x: Operator, problems: Problems, c: int) -> F64:
        total = float(problems.w[:, c].sum(dtype=np.float64))
        mean = float((problems.w[:, c] * problems.y[:, c]).sum(dtype=np.float64)) / total
        curvature = max(mean * (1 - mean), 1e-4) if problems.logistic[c] else 1.0
        return total * curvature * x.gram

    @staticmethod
    def _curved(x: Operator, problems: Problems, start: F64, c: int) -> F64:
        one = np.array([c])
        return x.weighted_gram(_expand(x.columns_at(one), problems.at(one), start[:, one])[1][:, 0])

    def solve(self, r: F64, family: npt.NDArray[np.int64]) -> F64:
        """M⁻¹ r, (p, k)."""
        out = np.empty_like(r)
        for f in np.unique(family):
            here = np.flatnonzero(family == f)
            out[:, here] = self.inverses[int(f)].times(r[:, here])
        return out


def _factor(matrix: F64) -> F64:
    """Lower Cholesky factor of a matrix that rounding may have left indefinite (all levels of two labels, in float32).

    What is added to the diagonal changes the number of steps of the solver, not its solution.
    """
    largest = float(np.einsum("ii->i", matrix).max())
    for jitter in (1e-6, 1e-4):
        try:
            return _cholesky(matrix, jitter * largest)
        except np.linalg.LinAlgError:
            continue
    return _cholesky(matrix, 1e-2 * largest)


def _cholesky(matrix: F64, added: float) -> F64:
    return np.asarray(np.linalg.cholesky(matrix + added * np.eye(len(matrix))), dtype=np.float64)


@np.errstate(over="ignore", invalid="ignore")  # a step that overflows is seen below, and taken back
def solve(
    x: Operator,
    problems: Problems,
    start: F64 | None = None,
    preconditioner: Preconditioner | None = None,
    tolerance: float = TOLERANCE,
) -> F64:
    """Minimise all problems; returns β, (p, k) float64.

    Parameters
    ----------
    x : Operator, (n, p) with the intercept first
    problems : Problems
    start : (p, k) or None
        Warm start; the intercept-only solution if None.
    preconditioner : Preconditioner or None
        To share factors between calls with the same families.
    tolerance : float
        Nats by which the summed loss may exceed its minimum.
    """
    m = preconditioner or Preconditioner()
    beta = intercepts(problems, x.p) if start is None else start.astype(np.float64)
    m.prepare(x, problems, beta)
    before, last = beta.copy(), np.full(beta.shape[1], np.inf)
    active = np.arange(beta.shape[1])
    for _ in range(MAX_NEWTON):
        if not len(active):
            break
        here, xa = problems.at(active), x.columns_at(active)
        gradient, curvature, loss = _expand(xa, here, beta[:, active])
        for _ in range(MAX_HALVINGS):  # a Newton step went too far (or off to infinity): go half of it back
            worse = ~(loss <= last[active] + 1e-5 * np.abs(loss) + 1e-3)
            if not worse.any():
                break
            back = active[worse]
            part = np.where(np.isfinite(loss[worse]), 0.5, 0.01)
            beta[:, back] = before[:, back] + part * (beta[:, back] - before[:, back])
            gradient, curvature, loss = _expand(xa, here, beta[:, active])
        before[:, active], last[active] = beta[:, active], loss
        step = _conjugate_gradients(xa, curvature, here.penalty, gradient, m, here.family)
        lost = np.flatnonzero(~np.isfinite(step).all(axis=0))  # no curvature is left here: begin again
        if len(lost):
            step[:, lost] = beta[:, active[lost]] - intercepts(here.at(lost), x.p)
            last[active[lost]] = np.inf
        beta[:, active] -= step
        decrement = (step * gradient).sum(axis=0)
        decrement[lost] = np.inf
        active = active[decrement > 2 * tolerance]
    if len(active) and start is not None:  # the start was too far off
        beta[:, active] = solve(x.columns_at(active), problems.at(active), None, m, tolerance)
    return beta


def intercepts(problems: Problems, p: int) -> F64:
    """(p, k) coefficients of the intercept-only solutions."""
    beta = np.zeros((p, problems.y.shape[1]))
    total = problems.w.sum(axis=0, dtype=np.float64)
    mean = (problems.w * problems.y).sum(axis=0, dtype=np.float64) / np.maximum(total, 1e-12)
    odds = np.clip(mean, 1e-6, 1 - 1e-6)
    beta[0] = np.where(problems.logistic, np.log(odds / (1 - odds)), mean)
    return beta


def _expand(x: Operator, problems: Problems, beta: F64) -> tuple[F64, F32, F64]:
    """Gradient (p, k), curvature weights (n, k) and penalised loss (k,) at β."""
    eta = x.matmul(beta.astype(np.float32))
    logistic, y, w = problems.logistic, problems.y, problems.w
    mu = expit(eta)
    curvature = w * mu * (1 - mu)
    row_loss = w * ((1 - y) * eta - np.log(np.maximum(mu, TINY)))  # = log(1 + exp(eta)) − y eta
    if not logistic.all():
        flat = ~logistic
        mu[:, flat], curvature[:, flat] = eta[:, flat], w[:, flat]
        row_loss[:, flat] = w[:, flat] * 0.5 * (y[:, flat] - eta[:, flat]) ** 2
    loss = row_loss.sum(axis=0, dtype=np.float64) + 0.5 * (problems.penalty * beta**2).sum(axis=0)
    gradient = x.rmatmul(w * (mu - y)) + problems.penalty * beta
    return gradient, curvature, loss


def _conjugate_gradients(
    x: Operator, v: F32, penalty: F64, g: F64, m: Preconditioner, family: npt.NDArray[np.int64]
) -> F64:
    """Solve (X' diag(v_c) X + diag(λ_c)) s_c = g_c for all c in step, each to a tenth of its residual."""
    s = np.zeros_like(g)
    r = g.copy()
    z = m.solve(r, family)
    d = z.copy()
    rz = (r * z).sum(axis=0)
    goal = 0.01 * rz
    alive = np.arange(g.shape[1])
    for _ in range(MAX_CG):
        alive = alive[(rz[alive] > goal[alive]) & (rz[alive] > 0)]
        if not len(alive):
            break
        da, xa = d[:, alive], x.columns_at(alive)
        q = xa.rmatmul(v[:, alive] * xa.matmul(da.astype(np.float32))) + penalty[:, alive] * da
        alpha = rz[alive] / np.maximum((da * q).sum(axis=0), 1e-300)
        s[:, alive] += alpha * da
        r[:, alive] -= alpha * q
        z = m.solve(r[:, alive], family[alive])
        new = (r[:, alive] * z).sum(axis=0)
        d[:, alive] = z + (new / rz[alive]) * da
        rz[alive] = new
    return s
