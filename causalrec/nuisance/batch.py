"""Cross-fitted regressions by the dozen: which folds are left out, which arm, which penalty, which repetition.

One task is one regression: the propensity, or the outcome in one arm, fitted on the rows outside some folds.
Tasks of one design are solved together, in batches that bound the memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from causalrec.nuisance.design import Design, PrivateColumn
from causalrec.nuisance.options import RidgeLogistic
from causalrec.nuisance.parallel import in_threads
from causalrec.nuisance.ridge import TOLERANCE, Preconditioner, Problems, intercepts, solve

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Target = Literal["propensity", "outcome_0", "outcome_1"]
TARGETS: tuple[Target, ...] = ("propensity", "outcome_0", "outcome_1")
CELLS = 6_000_000
"""Rows × regressions that one thread solves at once."""
PROHIBITIVE = 1e8
NEAR = 1e-2
"""Nats, for repetitions of a regression, and for regressions without some nodes (their benchmark moves by less than 0.0005
clicks per impression; a hundredth of it takes four times as long)."""


@dataclass(frozen=True)
class Task:
    """One regression.

    Attributes
    ----------
    target : "propensity", "outcome_0" or "outcome_1"
    out : tuple of int
        Folds whose rows are left out.
    variances : tuple of float
        Prior variance of each block that is shrunk by choice, in the order of the design.
    rep : int
        Which repetition's treatment, outcome, weights (and private column).
    """

    target: Target
    out: tuple[int, ...]
    variances: tuple[float, ...] = ()
    rep: int = 0


@dataclass(frozen=True, eq=False)
class Data:
    """Treatment, outcome and weights of R repetitions on one log; R = 1 is the log itself.

    Attributes
    ----------
    t, y, w : (n, R) float32
    z : (n, R) float32 or None
        A private covariate of each repetition.
    left_out : tuple of tuple of str, (R,), or None
        The nodes that each repetition does without.
    """

    t: F32
    y: F32
    w: F32
    z: F32 | None = None
    left_out: tuple[tuple[str, ...], ...] | None = None


@dataclass(frozen=True, eq=False)
class Batch:
    """Regressions of one log: designs, folds and learners.

    Attributes
    ----------
    designs : mapping of target to Design
        The propensity's design may be narrower than the outcomes' (a balancing score).
    fold : (n,)
    learners : mapping of target to RidgeLogistic
    logistic : mapping of target to bool
    """

    designs: dict[Target, Design]
    fold: Ints
    learners: dict[Target, RidgeLogistic]
    logistic: dict[Target, bool]

    @cached_property
    def n_folds(self) -> int:
        """K."""
        return int(self.fold.max()) + 1

    @cached_property
    def _scales(self) -> dict[tuple[int, tuple[int, ...]], F64]:
        return {}

    @cached_property
    def _families(
        self,
    ) -> dict[tuple[Target, tuple[float, ...], tuple[int, ...], tuple[str, ...] | None], int]:
        return {}

    def n_blocks(self, target: Target) -> int:
        """How many blocks of the target's design are shrunk by a chosen penalty."""
        return sum(part.shrinkage == "chosen" for part in self.designs[target].parts)

    @cached_property
    def _preconditioners(self) -> dict[tuple[int, bool, bool], Preconditioner]:
        return {}

    @cached_property
    def _outside(self) -> dict[tuple[int, ...], npt.NDArray[np.bool_]]:
        return {}

    def outside(self, out: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """(n,) True for the rows that are in none of these folds."""
        if out not in self._outside:
            self._outside[out] = ~np.isin(self.fold, out)
        return self._outside[out]

    def prepare(self, outs: list[tuple[int, ...]]) -> None:
        """Compute the in-fold variance of every column for these left-out sets, in one pass."""
        for design in {id(d): d for d in self.designs.values()}.values():
            new = [o for o in outs if (id(design), o) not in self._scales]
            if new:
                v = design.variances(np.column_stack([self.outside(o) for o in new]).astype(np.float32))
                self._scales.update({(id(design), o): v[:, j] for j, o in enumerate(new)})

    def penalty(self, task: Task, left_out: tuple[str, ...] | None = None) -> F64:
        """(p,) penalties: λ_j = d / variance × mean in-fold variance of the block, or light × own in-fold variance.

        Nodes that are left out have a prohibitive penalty.
        """
        design, learner = self.designs[task.target], self.learners[task.target]
        scale = self._scales[id(design), task.out]
        out = np.zeros(design.p)
        chosen = iter(task.variances)
        for part, where in zip(design.parts, design.slices, strict=True):
            if part.shrinkage == "chosen":
                out[where] = part.width / next(chosen) * max(scale[where].mean(), 1e-12)
            else:
                out[where] = learner.light * np.maximum(scale[where], 1e-12)
            if left_out is not None:
                out[where] *= np.where([owner in left_out for owner in part.owners], PROHIBITIVE, 1.0)
        return out

    def without(self, beta: F64, tasks: list[Task], data: Data) -> F64:
        """(p, k) coefficients with zeros for the nodes that each task's repetition does without."""
        if data.left_out is None:
            return beta
        out = beta.copy()
        for j, task in enumerate(tasks):
            owners = [o for part in self.designs[task.target].parts for o in part.owners]
            out[1 : 1 + len(owners), j] *= ~np.isin(owners, data.left_out[task.rep])
        return out

    def fit(
        self, tasks: list[Task], data: Data, start: F64 | None = None, alike: bool = False
    ) -> tuple[F64, ...]:
        """Coefficients of each task, a (p,) array each, in the order of the tasks.

        Parameters
        ----------
        tasks : list of Task
        data : Data
        start : (p, len(tasks)) or None
        alike : bool
            Many tasks repeat one regression on perturbed data: its Hessian at `start` is worth factoring, and a
            hundredth of a nat is near enough.
        """
        self.prepare(sorted({t.out for t in tasks}))
        size = int(np.clip(CELLS // len(self.fold), 4, 24))
        jobs = []
        for group in _same_design([id(self.designs[t.target]) for t in tasks]):
            _ = self.designs[tasks[group[0]].target].gram  # once, before the threads
            jobs += [group[a : a + size] for a in range(0, len(group), size)]

        def factor(i: int) -> None:
            self._factor(tasks[i], data, None if start is None else start[:, [i]], alike)

        def run(some: list[int]) -> F64:
            return self._fit([tasks[i] for i in some], data, None if start is None else start[:, some], alike)

        in_threads(factor, self._first_of_each_family(tasks, data, alike))
        found: dict[int, F64] = {}
        for some, betas in zip(jobs, in_threads(run, jobs), strict=True):
            found.update({i: betas[:, j] for j, i in enumerate(some)})
        return tuple(found[i] for i in range(len(tasks)))

    def _operator(self, tasks: list[Task], data: Data) -> Design | PrivateColumn:
        design = self.designs[tasks[0].target]
        return design if data.z is None else PrivateColumn(design, data.z[:, [t.rep for t in tasks]])

    def _family(self, task: Task, data: Data, alike: bool) -> int:
        left_out = None if data.left_out is None else data.left_out[task.rep]
        key = (task.target, task.variances, task.out if alike else (), left_out)
        return self._families.setdefault(key, len(self._families))

    def _shared(self, task: Task, data: Data, alike: bool) -> Preconditioner:
        key = (id(self.designs[task.target]), data.z is None, alike)
        return self._preconditioners.setdefault(key, Preconditioner(exact=alike))

    def _first_of_each_family(self, tasks: list[Task], data: Data, alike: bool) -> list[int]:
        """Tasks whose family has no inverse yet, one a family: chosen here, not by the thread that comes first."""
        first: dict[tuple[int, int], int] = {}
        for i, task in enumerate(tasks):
            family, shared = self._family(task, data, alike), self._shared(task, data, alike)
            if family not in shared.inverses:
                first.setdefault((id(shared), family), i)
        return list(first.values())

    def _factor(self, task: Task, data: Data, start: F64 | None, alike: bool) -> None:
        x, problems = self._operator([task], data), self._problems([task], data, alike)
        beta = intercepts(problems, x.p) if start is None else start
        self._shared(task, data, alike).prepare(x, problems, beta)

    def _problems(self, tasks: list[Task], data: Data, alike: bool) -> Problems:
        reps = [t.rep for t in tasks]
        w = data.w[:, reps].copy()
        y = np.empty_like(w)
        for j, task in enumerate(tasks):
            w[:, j] *= self.outside(task.out)
            t = data.t[:, task.rep]
            if task.target == "propensity":
                y[:, j] = t
            else:
                y[:, j] = data.y[:, task.rep]
                w[:, j] *= t if task.target == "outcome_1" else 1 - t
        without = [None if data.left_out is None else data.left_out[r] for r in reps]
        penalty = np.column_stack([self.penalty(t, name) for t, name in zip(tasks, without, strict=True)])
        if data.z is not None:
            penalty = np.vstack([penalty, [self.learners[t.target].light for t in tasks]])
        family = np.array([self._family(t, data, alike) for t in tasks])
        return Problems(y, w, penalty, np.array([self.logistic[t.target] for t in tasks]), family)

    def _fit(self, tasks: list[Task], data: Data, start: F64 | None, alike: bool) -> F64:
        shared = self._shared(tasks[0], data, alike)
        near = NEAR if alike or data.left_out is not None else TOLERANCE
        return solve(self._operator(tasks, data), self._problems(tasks, data, alike), start, shared, near)

    def predict(self, tasks: list[Task], betas: tuple[F64, ...], data: Data) -> F64:
        """Linear predictors in all rows, (n, len(tasks)) float64. The tasks are of one design."""
        return (
            self._operator(tasks, data).matmul(np.column_stack(betas).astype(np.float32)).astype(np.float64)
        )


def _same_design(designs: list[int]) -> list[list[int]]:
    groups: dict[int, list[int]] = {}
    for i, design in enumerate(designs):
        groups.setdefault(design, []).append(i)
    return list(groups.values())
