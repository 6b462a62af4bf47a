"""Refuters: perturb the log so that the right answer is known, run the same estimator again, and compare.

Folds, representations, Gram matrices, penalties and warm starts are reused; every regression that a
perturbation touches is fitted anew, for many repetitions at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from causalrec import scores
from causalrec.check.words import verdict_known, verdict_stable
from causalrec.estimate.analysis import Analysis
from causalrec.nuisance import nuisances as nuisance_room
from causalrec.nuisance.batch import TARGETS, Target

F64 = npt.NDArray[np.float64]
CELLS = 3_000_000
"""Rows × repetitions × folds that are refitted at once."""
Tick = Callable[[int], None]


@dataclass(frozen=True)
class CheckRecord:
    """One check and its verdict.

    Attributes
    ----------
    name : str
    passed : bool or None
        None where the check only informs.
    statistic : float
    p_value : float or None
    message : str
        The verdict in plain words.
    """

    name: str
    passed: bool | None
    statistic: float
    p_value: float | None
    message: str


@dataclass(frozen=True, eq=False)
class Perturbation:
    """R perturbed logs with the covariates of the first.

    Attributes
    ----------
    t, y, w : (n, R)
    touched : targets whose regressions see something new
    z : (n, R) or None
        A further covariate.
    truth : (R,)
        The effect that a right estimator finds, NaN where it is that of the log.
    logged : (n, R) or None
        Logged propensities that went along with the treatment.
    """

    t: F64
    y: F64
    w: F64
    touched: tuple[Target, ...]
    z: F64 | None
    truth: F64
    logged: F64 | None = None


@dataclass(frozen=True, eq=False)
class Reruns:
    """Effects and standard errors on the perturbed logs, (R,) each, and the effects that are right."""

    effect: F64
    std_error: F64
    truth: F64

    @property
    def reps(self) -> int:
        """R."""
        return len(self.effect)


def rerun(analysis: Analysis, p: Perturbation) -> Reruns:
    """Run the analysis's first-order estimator on perturbed logs, nuisances and scores and intervals.

    Pairs of rows are not formed anew: what is examined is the nuisances, the scores and their errors by unit.
    """
    refitted = nuisance_room.refit_nuisances(analysis.nuisances, p.t, p.y, p.w, p.touched, p.z)
    found = []
    propensity = refitted.propensity if p.logged is None else p.logged
    for r in range(p.t.shape[1]):
        at = (propensity[:, r], refitted.outcome_0[:, r], refitted.outcome_1[:, r])
        pair = analysis.settings.score(p.t[:, r], p.y[:, r], at)
        theta, phi = scores.ratio_influence(*pair, p.w[:, r])
        found.append((theta, np.sqrt(scores.cluster_variance(phi, analysis.inputs.units)[0])))
    effect, std_error = np.array(found).T
    return Reruns(effect, std_error, p.truth)


def chunks(analysis: Analysis, reps: int) -> Iterator[int]:
    """Sizes of the batches in which `reps` repetitions are run, memory bounded."""
    k = int(analysis.nuisances.fold.max()) + 1
    size = int(np.clip(CELLS // (len(analysis.inputs.t) * k), 1, 50))
    for start in range(0, reps, size):
        yield min(size, reps - start)


Maker = Callable[[Analysis, int, np.random.Generator], Perturbation]


def repeat(analysis: Analysis, make: Maker, reps: int, rng: np.random.Generator, tick: Tick) -> Reruns:
    """All repetitions of one refuter."""
    parts = []
    for size in chunks(analysis, reps):
        parts.append(rerun(analysis, make(analysis, size, rng)))
        tick(size)
    return Reruns(
        *(np.concatenate([getattr(p, name) for p in parts]) for name in ("effect", "std_error", "truth"))
    )


def _same(analysis: Analysis, reps: int) -> tuple[F64, F64, F64]:
    problem = analysis.nuisances.problem
    return tuple(np.repeat(v[:, None], reps, axis=1) for v in (problem.t, problem.y, problem.w))  # type: ignore[return-value]


def unchanged(analysis: Analysis, reps: int, rng: np.random.Generator) -> Perturbation:
    """The log itself, refitted; what the perturbed effects are compared with."""
    return Perturbation(*_same(analysis, reps), TARGETS, None, np.full(reps, np.nan))


def placebo_treatment(analysis: Analysis, reps: int, rng: np.random.Generator) -> Perturbation:
    """Treatment shuffled between rows (between users, where a user is treated throughout or not at all): effect 0.

    A logged propensity goes along with its treatment, and so stays that treatment's probability.
    """
    t, y, w = _same(analysis, reps)
    units = analysis.inputs.units
    n_units = int(units.max()) + 1
    size = np.bincount(units, minlength=n_units)
    of_unit = np.bincount(units, t[:, 0], n_units) / size
    by_unit = bool(np.isin(of_unit, (0.0, 1.0)).all())
    known = analysis.nuisances.problem.logged
    logged = None if known is None else np.empty_like(t)
    for r in range(reps):
        order = rng.permutation(n_units if by_unit else len(t))
        t[:, r] = of_unit[order][units] if by_unit else t[order, r]
        if logged is not None and known is not None:
            mean = np.bincount(units, known, n_units) / size
            logged[:, r] = mean[order][units] if by_unit else known[order]
    return Perturbation(t, y, w, TARGETS, None, np.zeros(reps), logged)


def random_common_cause(analysis: Analysis, reps: int, rng: np.random.Generator) -> Perturbation:
    """A covariate of pure noise is adjusted for as well: the effect of the log."""
    z = rng.standard_normal((len(analysis.inputs.t), reps))
    return Perturbation(
        *_same(analysis, reps), TARGETS, (z - z.mean(axis=0)) / z.std(axis=0), np.full(reps, np.nan)
    )


def data_subset(analysis: Analysis, reps: int, rng: np.random.Generator) -> Perturbation:
    """A random fifth of the users left out: the effect of the log, within its error."""
    t, y, w = _same(analysis, reps)
    units = analysis.inputs.units
    n_units = int(units.max()) + 1
    for r in range(reps):
        dropped = np.zeros(n_units, dtype=bool)
        dropped[rng.permutation(n_units)[: n_units // 5]] = True
        w[:, r] *= ~dropped[units]
    return Perturbation(t, y, w, TARGETS, None, np.full(reps, np.nan))


def _expected(analysis: Analysis) -> F64:
    """E[Y | X] as fitted, (n,): what is clicked given the words, whatever was recommended."""
    nu = analysis.nuisances
    e = analysis.settings.clip.apply(nu.propensity)
    return e * nu.outcome_1 + (1 - e) * nu.outcome_0


def _draw(analysis: Analysis, mean: F64, rng: np.random.Generator) -> F64:
    """An outcome with this mean: clicks, or the mean plus shuffled residuals."""
    if analysis.nuisances.problem.binary:
        return (rng.random(mean.shape) < mean).astype(np.float64)
    return mean + rng.permutation(analysis.inputs.y - _expected(analysis))


def _exposed_anew(analysis: Analysis, reps: int, rng: np.random.Generator) -> F64:
    """(n, R) treatments drawn from the fitted propensities (by user, where a user is treated throughout or not at all)."""
    t, units = analysis.inputs.t, analysis.inputs.units
    n_units = int(units.max()) + 1
    size = np.bincount(units, minlength=n_units)
    e = analysis.settings.clip.apply(analysis.nuisances.propensity)
    if np.isin(np.bincount(units, t, n_units) / size, (0.0, 1.0)).all():
        of_unit = np.bincount(units, e, n_units) / size
        return (rng.random((n_units, reps)) < of_unit[:, None]).astype(np.float64)[units]
    return (rng.random((len(t), reps)) < e[:, None]).astype(np.float64)


def dummy_outcome(analysis: Analysis, reps: int, rng: np.random.Generator) -> Perturbation:
    """Exposure and clicks drawn from what the words and covariates predict, the treatment doing nothing: effect 0."""
    _, y, w = _same(analysis, reps)
    mean = _within(_expected(analysis), analysis)
    for r in range(reps):
        y[:, r] = _draw(analysis, mean, rng)
    return Perturbation(_exposed_anew(analysis, reps, rng), y, w, TARGETS, None, np.zeros(reps))


def planted_effect(analysis: Analysis, reps: int, rng: np.random.Generator) -> Perturbation:
    """As ``dummy_outcome``, with an effect of known size planted in the treated rows."""
    _, y, w = _same(analysis, reps)
    t = _exposed_anew(analysis, reps, rng)
    base = _within(_expected(analysis), analysis)
    size = max(5 * analysis.effect.std_error, 0.25 * float(abs(base).mean()))
    lifted = _within(base + size, analysis)
    weights = _population(analysis)
    truth = float((weights * (lifted - base)).sum() / weights.sum())
    for r in range(reps):
        y[:, r] = _draw(analysis, np.where(t[:, r] == 1, lifted, base), rng)
    return Perturbation(t, y, w, TARGETS, None, np.full(reps, truth))


def _within(mean: F64, analysis: Analysis) -> F64:
    """Means that can be drawn from: inside (0, 1) for clicks."""
    return np.clip(mean, 1e-4, 1 - 1e-4) if analysis.nuisances.problem.binary else mean


def _population(analysis: Analysis) -> F64:
    """(n,) weights of the rows in the estimand's population, exposure drawn from the fitted propensities."""
    e = analysis.settings.clip.apply(analysis.nuisances.propensity)
    of = {"ate": np.ones_like(e), "att": e, "ato": e * (1 - e)}
    return of[analysis.settings.estimand] * analysis.nuisances.problem.w


KNOWN = {
    "placebo_treatment": placebo_treatment,
    "dummy_outcome": dummy_outcome,
    "planted_effect": planted_effect,
}
STABLE = {"random_common_cause": random_common_cause, "data_subset": data_subset}


def run_refuters(
    analysis: Analysis, reps: int, rng: np.random.Generator, tick: Tick
) -> tuple[tuple[CheckRecord, ...], dict[str, Reruns]]:
    """All refuters, `reps` repetitions each: their records, and the reruns behind them."""
    base = rerun(analysis, unchanged(analysis, 1, rng)).effect[0]
    runs: dict[str, Reruns] = {}
    records = []
    for name, make in {**KNOWN, **STABLE}.items():
        runs[name] = repeat(analysis, make, reps, rng, tick)
        se = analysis.effect.std_error
        passed, statistic, p, message = (
            verdict_known(name, runs[name], se)
            if name in KNOWN
            else verdict_stable(name, runs[name], base, se)
        )
        records.append(CheckRecord(name, passed, statistic, p, message))
    return tuple(records), runs
