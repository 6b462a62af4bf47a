"""The whole analysis of an effect in one function: what ``causalrec demo`` and ``causalrec report`` run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import causalrec as cr
from causalrec.errors import OverlapError
from causalrec.pipeline.stages import Clock, Say, check_writable, in_lines, listening, plain

TEST_SIZE = 0.3
OF_FIT = (
    "estimand", "effect", "std_error", "ci_lower", "ci_upper", "p_value", "naive_effect",
    "n", "n_units", "ess",
)  # fmt: skip
OF_ESTIMATE = ("value", "std_error", "ci_lower", "ci_upper", "p_value")
OF_CURVE = ("qini", "qini_ci", "autoc", "autoc_ci")
OF_CHECK = ("name", "passed", "statistic", "p_value", "message")


@dataclass(frozen=True)
class Analysis:
    """What one run found.

    Attributes
    ----------
    log : ImpressionLog
        With its blocks.
    plan : Plan
    fit : Fit
        On the whole log: the effect and what the checks are about.
    checks : Checks or None
        None if the checks were left out.
    curve : UpliftCurve or None
        Uplift on held-out users, from nuisances fitted on the others; None where overlap does not allow it.
    output : Path
        Where the report is.
    warnings : tuple of str
        What a careful reader has to know.
    seconds : tuple of (stage, float)
    """

    log: Any
    plan: Any
    fit: Any
    checks: Any
    curve: Any
    output: Path
    warnings: tuple[str, ...]
    seconds: tuple[tuple[str, float], ...]


def analyse(
    log: Any,
    output: Path,
    *,
    estimand: str = "ate",
    refute: bool = True,
    seed: int = 0,
    say: Say = lambda _: None,
) -> Analysis:
    """Run log → representation → plan → effect → checks → uplift → report.

    Parameters
    ----------
    log : ImpressionLog
    output : Path
        The HTML file; that it can be written is checked first.
    estimand : {"ate", "att", "ato"}
    refute : bool
        Run the checks that refit.
    seed : int
        Every draw follows from it.
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
    clock = Clock(say)
    with listening(say) as heard:
        if log.roles.text or log.roles.history:
            with clock("reading the words (frozen encoder)"):
                log = cr.embed(log)
        with clock("what must be adjusted for (DoWhy)"):
            plan = cr.identify(log)
        with clock("the effect (cross-fitted, doubly robust)"):
            fit = cr.estimate(log, plan, estimand=estimand, random_state=seed)
        checks = None
        if refute:
            with clock("would it survive a sceptic? (refuters)"):
                checks = cr.refute(fit, random_state=seed)
        with clock("for whom? (uplift on held-out users)"):
            train, test = log.split(test_size=TEST_SIZE, random_state=seed)
            curve = _curve(cr.estimate(train, plan, estimand=estimand, random_state=seed), test, say)
        with clock(f"the report ({output})"):
            cr.report(plan, fit, checks, curve).save(output)
    return Analysis(log, plan, fit, checks, curve, output, tuple(heard), tuple(clock.seconds))


def _curve(fit: Any, test: Any, say: Say) -> Any:
    """The uplift curve, or None where the arms overlap too little for the scores of an ATE."""
    try:
        fit.under("ate")
    except OverlapError as error:
        say(f"no uplift curve: {error}")
        return None
    return cr.uplift(fit, test)


def findings(analysis: Analysis, truth: float | None = None) -> dict[str, Any]:
    """What a run found, as plain values for a machine; numbers unrounded, NaN as None.

    `truth` is the true effect, where the log is simulated.
    """
    fit, plan, curve = analysis.fit, analysis.plan, analysis.curve
    share = fit.share_anyway and dict(zip(("value", "ci_lower", "ci_upper"), fit.share_anyway, strict=True))
    checks = analysis.checks and [{name: getattr(c, name) for name in OF_CHECK} for c in analysis.checks]
    return plain(
        {
            "causalrec": cr.__version__,
            "treatment": plan.treatment,
            "outcome": plan.outcome,
            "unit": next(iter(analysis.log.roles.unit), None),
            **{name: getattr(fit, name) for name in OF_FIT},
            "share_anyway": share,
            "truth": truth,
            "plan": {
                "strategy": plan.strategy,
                "propensity_nodes": plan.propensity_nodes,
                "outcome_nodes": plan.outcome_nodes,
                "refused": [{"node": node, "reason": reason} for node, reason in plan.refused],
                "assumptions": plan.assumptions,
                "notes": plan.notes,
            },
            "checks": checks,
            "uplift": curve and {name: getattr(curve, name) for name in OF_CURVE},
            "by_item": fit.by_item and {name: getattr(fit.by_item, name) for name in OF_ESTIMATE},
            "caveats": fit.analysis.caveats,
            "warnings": analysis.warnings,
            "seconds": dict(analysis.seconds),
            "report": str(analysis.output),
        }
    )


def _clustered(found: dict[str, Any]) -> str:
    """By what the errors of the effect are clustered."""
    by = [name for name in (found["unit"], "item" if found["by_item"] else None) if name]
    return f"clustered by {' and '.join(by)}" if by else "every row its own unit"


def in_short(found: dict[str, Any]) -> str:
    """``findings`` as the few lines that a terminal shows."""
    share = found["share_anyway"]
    who = _clustered(found)
    lines = [
        ("the naive comparison says", f"{found['naive_effect']:+.4f} {found['outcome']} per impression"),
        (
            f"{found['treatment']} caused ({found['estimand']})",
            f"{found['effect']:+.4f}   "
            f"95 % interval {found['ci_lower']:+.4f} to {found['ci_upper']:+.4f}, {who}",
        ),
    ]
    if share is not None:
        whose = f"of all {found['outcome']} where {found['treatment']}"
        spread = f"95 % interval {_percent(share['ci_lower'])} to {_percent(share['ci_upper'])}"
        lines.append(("would have happened anyway", f"{_percent(share['value'])} {whose}   {spread}"))
    if found["truth"] is not None:
        inside = found["ci_lower"] <= found["truth"] <= found["ci_upper"]
        where = "inside" if inside else "outside"
        lines.append(("the truth (simulated log)", f"{found['truth']:+.4f}   {where} the interval"))
    lines += [("caveat" if i == 0 else "", line) for i, line in enumerate(found["caveats"])]
    lines += [("check" if i == 0 else "", line) for i, line in enumerate(_verdicts(found["checks"]))]
    lines.append(("report", found["report"]))
    return in_lines(lines)


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.1f} %"


def _verdicts(checks: list[dict[str, Any]] | None) -> list[str]:
    if checks is None:
        return ["left out"]
    mark = {True: "passed", False: "FAILED", None: "note"}
    return [f"{mark[c['passed']]:<7} {c['name']}: {c['message']}" for c in checks]
