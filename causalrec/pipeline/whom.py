"""The whole analysis of whom to target in one function: what ``causalrec uplift`` runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from causalrec import __version__
from causalrec.check import group_sensitivity
from causalrec.check import refute as refute_fit
from causalrec.errors import EstimationError
from causalrec.estimate import estimate
from causalrec.identify import identify
from causalrec.pipeline.effect import OF_CHECK, OF_CURVE, OF_FIT
from causalrec.pipeline.stages import Clock, Say, check_writable, in_lines, listening, plain
from causalrec.report import report
from causalrec.represent import embed
from causalrec.uplift import choose_model, cold_start, explain, target, uplift
from causalrec.uplift.protected import Groups
from causalrec.uplift.thresholds import check_limits, check_prices

TEST_SIZE = 0.5
"""Share of the users on whom rules are judged: intervals of what a rule gains need them more than its learning does."""


@dataclass(frozen=True)
class Economics:
    """What targeting is to be judged by, as ``cr.target`` takes it.

    Attributes
    ----------
    value, cost : float
        Of a unit of outcome, and of a recommendation, in one currency.
    budget : float or None
        Largest share of the impressions that may be recommended to.
    protected : tuple of str
        Columns whose groups are compared.
    min_share, max_gap : float or None
    """

    value: float = 1.0
    cost: float = 0.0
    budget: float | None = None
    protected: tuple[str, ...] = ()
    min_share: float | None = None
    max_gap: float | None = None

    def check(self, log: Any, seed: int = 0) -> None:
        """Raise now what ``cr.target`` would raise after everything else was computed.

        Raises
        ------
        ArgumentError
            A price or a limit out of its bounds, or a protected column that is not declared.
        EstimationError
            A protected group with fewer than 30 users in either half of the split that `seed` draws.
        """
        check_prices(self.value, self.cost)
        check_limits(self.budget, self.protected or None, self.min_share, self.max_gap)
        if self.protected:
            train, test = log.split(test_size=TEST_SIZE, random_state=seed)
            Groups.learn(train, self.protected).codes(test, "test")


@dataclass(frozen=True)
class Targeted:
    """What one run found.

    Attributes
    ----------
    log : ImpressionLog
        With its blocks.
    fit : Fit
        On the whole log.
    checks : Checks or None
    choice : ModelChoice
        On the training users, as everything below.
    curve : UpliftCurve
    targeting : Targeting
    explanation : Explanation
    cold_start : ColdStart or None
    sensitivity : GroupSensitivity or None
    page : Report
    output : Path
        Where the page is.
    skipped : tuple of str
        What was left out, and why.
    warnings : tuple of str
    seconds : tuple of (stage, float)
    """

    log: Any
    fit: Any
    checks: Any
    choice: Any
    curve: Any
    targeting: Any
    explanation: Any
    cold_start: Any
    sensitivity: Any
    page: Any
    output: Path
    skipped: tuple[str, ...]
    warnings: tuple[str, ...]
    seconds: tuple[tuple[str, float], ...]


def target_log(
    log: Any,
    output: Path,
    *,
    economics: Economics | None = None,
    refute: bool = True,
    seed: int = 0,
    figures: Path | None = None,
    say: Say = lambda _: None,
) -> Targeted:
    """Run log → representation → plan → effect → checks → models → rules on held-out users → report.

    Parameters
    ----------
    log : ImpressionLog
    output : Path
        The HTML file; that it can be written is checked first.
    economics : Economics
        Value, cost, budget, protected groups.
    refute : bool
        Run the checks that refit.
    seed : int
        Every draw follows from it.
    figures : Path, optional
        A folder for every figure as PNG and SVG.
    say : callable
        Told, in a line each, what begins and how long it took.

    Raises
    ------
    OutputError
        `output` cannot be written; nothing was computed.
    CausalRecError
        The analysis is refused; the message says why.
    """
    check_writable(output)
    clock, goals = Clock(say), economics or Economics()
    goals.check(log, seed)
    skipped: list[str] = [] if refute else ["Checks that refit were not run: they were not asked for."]
    with listening(say) as heard:
        log, fit, checks = _effect(log, refute, seed, clock)
        sensitivity = _group_bounds(fit, clock, skipped)
        whom = _whom(log, fit.plan, goals, seed, clock, skipped)
        with clock(f"the report ({output})"):
            page = report(fit, checks, sensitivity, *whom.values(), skipped=skipped)
            page.save(output)
            if figures is not None:
                page.save_figures(figures)
    return Targeted(
        log, fit, checks, **whom, sensitivity=sensitivity, page=page, output=output, skipped=tuple(skipped),
        warnings=tuple(heard), seconds=tuple(clock.seconds),
    )  # fmt: skip


def _effect(log: Any, refute: bool, seed: int, clock: Clock) -> tuple[Any, Any, Any]:
    """The embedded log, the fit on all of it, and its checks (None if not asked for)."""
    if log.roles.text or log.roles.history:
        with clock("reading the words (frozen encoder)"):
            log = embed(log)
    with clock("what must be adjusted for (DoWhy)"):
        plan = identify(log)
    with clock("the effect (cross-fitted, doubly robust)"):
        fit = estimate(log, plan, random_state=seed)
    if not refute:
        return log, fit, None
    with clock("would it survive a sceptic? (refuters)"):
        return log, fit, refute_fit(fit, random_state=seed)


def _whom(
    log: Any, plan: Any, goals: Economics, seed: int, clock: Clock, skipped: list[str]
) -> dict[str, Any]:
    """Everything that is learnt on one half of the users and judged on the other."""
    train, test = log.split(test_size=TEST_SIZE, random_state=seed)
    test = _known_levels(train, test, plan.modifiers, skipped)
    with clock("which model of the effect? (held-out loss)"):
        trained = estimate(train, plan, random_state=seed)
        choice = choose_model(trained, random_state=seed)
        ranking = choice.ranking_fit if choice.best == "constant" else choice.best_fit
    with clock("for whom? (uplift on held-out users)"):
        curve = uplift(ranking, test, random_state=seed)
    with clock("whom to target, and what it is worth"):
        targeting = target(
            ranking, test, value=goals.value, cost=goals.cost, budget=goals.budget, protected=goals.protected or None,
            min_share=goals.min_share, max_gap=goals.max_gap, random_state=seed,
        )  # fmt: skip
    with clock("what goes with a large effect"):
        explanation = explain(ranking, test, random_state=seed)
    with clock("items and users not seen before"):
        unseen = _or_why("Unseen items", lambda: cold_start(ranking, test, random_state=seed), skipped)
    return {
        "choice": choice,
        "curve": curve,
        "targeting": targeting,
        "explanation": explanation,
        "cold_start": unseen,
    }


def _known_levels(train: Any, test: Any, modifiers: tuple[str, ...], skipped: list[str]) -> Any:
    """The test log without rows whose label of a modifier no training user has, of which nothing was learnt."""
    kept = np.ones(len(test), dtype=bool)
    for name in modifiers:
        column = train.frame[name]
        if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
            continue
        labels = test.frame[name].astype(str)
        new = ~labels.isin(set(column.astype(str))).to_numpy()
        if new.any():
            shown = ", ".join(sorted(set(labels[new]))[:5])
            skipped.append(
                f"{int(new.sum()):,} held-out rows were left out of every judgement: no training user has their level of {name!r} ({shown})."
            )
            kept &= ~new
    return test if kept.all() else test.take(kept)


def _group_bounds(fit: Any, clock: Clock, skipped: list[str]) -> Any:
    """Bounds for every declared modifier's groups, or None with the reason."""
    with clock("how strong would hidden causes have to be, group by group?"):
        return _or_why(
            "Group effects were not tested against hidden causes",
            lambda: group_sensitivity(fit, by=fit.plan.modifiers),
            skipped,
        )


def _or_why(what: str, step: Callable[[], Any], skipped: list[str]) -> Any:
    """The step's result; None where the log does not allow it, and then the reason goes to the page."""
    try:
        return step()
    except EstimationError as error:
        skipped.append(f"{what}: {error}")
        return None


def targeted_findings(found: Targeted, truth: float | None = None) -> dict[str, Any]:
    """What a run found, as plain values for a machine; numbers unrounded, NaN as None.

    `truth` is the true effect, where the log is simulated.
    """
    t, fit, curve = found.targeting, found.fit, found.curve
    return plain(
        {
            "causalrec": __version__,
            "treatment": fit.plan.treatment,
            "outcome": fit.plan.outcome,
            "unit": next(iter(found.log.roles.unit), None),
            **{name: getattr(fit, name) for name in OF_FIT},
            "truth": truth,
            "decision": found.page.context["answer"]["headline"],
            "worth": found.page.context["answer"]["sentences"],
            "recommended": t.recommended,
            "rule": t.rule,
            "policies": t.table.to_dict("records"),
            "differences": t.differences.to_dict("records"),
            "fairness": None if t.fairness is None else t.fairness.records,
            "uplift": {name: getattr(curve, name) for name in OF_CURVE},
            "calibration_slope": curve.calibration.slope,
            "calibration_slope_ci": curve.calibration.slope_ci,
            "model": found.choice.best,
            "checks": found.checks and [{name: getattr(c, name) for name in OF_CHECK} for c in found.checks],
            "segments": found.page.tables["segments"].to_dict("records") if fit.plan.modifiers else [],
            "breakdown": found.sensitivity and {g.name: g.breakdown for g in found.sensitivity.groups},
            "caveats": fit.analysis.caveats,
            "skipped": found.skipped,
            "warnings": found.warnings,
            "seconds": dict(found.seconds),
            "report": str(found.output),
        }
    )


def targeted_in_short(found: dict[str, Any]) -> str:
    """``targeted_findings`` as the few lines that a terminal shows."""
    lines = [("decision", found["decision"])]
    lines += [("worth" if i == 0 else "", line) for i, line in enumerate(found["worth"])]
    low, high = found["uplift"]["qini_ci"]
    lines.append(
        ("the ranking", f"Qini {found['uplift']['qini']:+.4f}   95 % interval {low:+.4f} to {high:+.4f}")
    )
    lines.append(("model of the effect", found["model"]))
    if found["truth"] is not None:
        inside = found["ci_lower"] <= found["truth"] <= found["ci_upper"]
        where = "inside" if inside else "outside"
        lines.append(("the true average effect", f"{found['truth']:+.4f}   {where} its interval"))
    lines += [("caveat" if i == 0 else "", line) for i, line in enumerate(found["caveats"])]
    failed = [f"{c['name']}: {c['message']}" for c in found["checks"] or () if c["passed"] is False]
    lines += [("FAILED" if i == 0 else "", line) for i, line in enumerate(failed)]
    lines += [("skipped" if i == 0 else "", line) for i, line in enumerate(found["skipped"])]
    return in_lines([*lines, ("report", found["report"])])
