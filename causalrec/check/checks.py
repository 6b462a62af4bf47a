"""Would it survive a sceptic? The verb ``refute`` and its result."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from causalrec._checks import as_generator, check_scalar
from causalrec._display import Displayable
from causalrec.check.balance import balance
from causalrec.check.negative import negative_controls
from causalrec.check.probes import words_left
from causalrec.check.refuters import KNOWN, STABLE, CheckRecord, Reruns, run_refuters
from causalrec.check.sensitivity import Sensitivity, sensitivity
from causalrec.errors import ArgumentError
from causalrec.estimate import Fit
from causalrec.estimate.overlap import Overlap

BINS = 20


@dataclass(frozen=True, eq=False)
class Checks(Displayable):
    """Records of all checks, and the aggregates that pictures of them need.

    Attributes
    ----------
    records : tuple of CheckRecord
        Also what iteration yields.
    overlap : Overlap
    propensity_histogram : dict
        ``edges`` (21,), ``treated`` and ``control`` (20,) shares of each arm.
    balance : tuple of dict
        column, before, after.
    placebo_effects : tuple of float
        Effects found under shuffled treatments.
    sensitivity : Sensitivity
    runs : dict of str to Reruns
        Every repetition of every refuter.
    """

    records: tuple[CheckRecord, ...]
    overlap: Overlap
    propensity_histogram: dict[str, tuple[float, ...]]
    balance: tuple[dict[str, Any], ...]
    placebo_effects: tuple[float, ...]
    sensitivity: Sensitivity
    runs: dict[str, Reruns] = field(repr=False)

    def __iter__(self) -> Iterator[CheckRecord]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, name: str) -> CheckRecord:
        for record in self.records:
            if record.name == name:
                return record
        raise KeyError(f"{name!r}; the checks are {[r.name for r in self.records]}")

    @property
    def passed(self) -> bool:
        """No check failed."""
        return all(r.passed is not False for r in self.records)

    def _title(self) -> str:
        failed = [r.name for r in self.records if r.passed is False]
        count = sum(r.passed is True for r in self.records)
        return f"Checks: {count} passed, {len(failed)} failed" + (f" ({', '.join(failed)})" if failed else "")

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {"check": r.name, "passed": r.passed, "statistic": r.statistic, "p_value": r.p_value}
            for r in self.records
        ]

    def _notes(self) -> list[str]:
        return [f"{r.name}: {r.message}" for r in self.records]


def refute(
    fit: Fit,
    *,
    n_simulations: int = 100,
    random_state: int | np.random.Generator | None = None,
    progress: bool | None = None,
) -> Checks:
    """Try to break an effect.

    Overlap, and balance on what the fit was not given; five refuters, each of which perturbs the log so that the
    right answer is known (shuffled treatment, clicks that ignore the treatment, a planted effect) or must not change
    (a noise covariate, a fifth of the users left out) and runs the same estimator again, all touched regressions
    anew; what the fit leaves in the words and the items; declared negative controls, and the next exposure of the
    same user as one where times are declared; and how strong a hidden confounder would have to be.

    Parameters
    ----------
    fit : Fit
    n_simulations : int
        Repetitions of each refuter, at least 20.
    random_state : int, Generator or None
    progress : bool or None
        Show a progress bar; None = where the error stream is a terminal.

    Returns
    -------
    Checks
    """
    if not isinstance(fit, Fit):
        raise ArgumentError(f"refute takes the Fit that estimate returned; got {type(fit).__name__}.")
    reps = check_scalar(n_simulations, "n_simulations", ge=20, le=10_000, integer=True)
    rng = as_generator(random_state)
    from tqdm.auto import tqdm

    shown = sys.stderr.isatty() if progress is None else progress
    with tqdm(total=reps * (len(KNOWN) + len(STABLE)), desc="refuters", unit="fit", disable=not shown) as bar:
        records, runs = run_refuters(fit.analysis, reps, rng, lambda k: bar.update(k) and None)
    rows, balanced = balance(fit)
    return Checks(
        (overlap_record(fit), balanced, *records, *words_left(fit, rng), *negative_controls(fit)),
        fit.overlap,
        _histogram(fit),
        rows,
        tuple(float(v) for v in runs["placebo_treatment"].effect[:200]),
        sensitivity(fit),
        runs,
    )


def overlap_record(fit: Fit) -> CheckRecord:
    """Verdict on the overlap of the arms."""
    o = fit.overlap
    low = min(o.ess_treated / o.n_treated, o.ess_control / o.n_control)
    said = (
        f"Propensities run from {o.quantiles[0]:.2f} to {o.quantiles[-1]:.2f} (1 % and 99 % quantile); {100 * o.share_clipped:.1f} % are clipped; "
        f"the weights keep {100 * low:.0f} % of the smaller arm as effective sample size; the largest weight is {100 * o.max_weight_share:.2f} % of its arm"
    )
    if fit.estimand == "ATO":
        return CheckRecord(
            "overlap", None, o.auc, None, said + ". The ATO rests on the overlap that there is."
        )
    ok = (
        o.share_clipped <= 0.01
        and low >= 0.2
        and o.max_weight_share <= 0.01 + 20 / min(o.n_treated, o.n_control)
    )
    tail = (
        ". Either arm could have happened to nearly all rows."
        if ok
        else ". Few rows carry the estimate: compare fit.under('ato')."
    )
    return CheckRecord("overlap", ok, o.auc, None, said + tail)


def _histogram(fit: Fit) -> dict[str, tuple[float, ...]]:
    e, t = fit.nuisances.propensity, fit.log.treatment
    edges = np.linspace(0, 1, BINS + 1)
    shares = {
        arm: np.histogram(e[t == value], edges)[0] / (t == value).sum()
        for arm, value in (("treated", 1), ("control", 0))
    }
    return {"edges": tuple(edges.tolist()), **{arm: tuple(v.tolist()) for arm, v in shares.items()}}
