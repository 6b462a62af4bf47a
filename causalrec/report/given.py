"""What a report was given: results by kind, and whether they can stand on one page."""

from __future__ import annotations

from typing import Any

from causalrec.check import Checks, GroupSensitivity
from causalrec.errors import ArgumentError
from causalrec.estimate import ArmsFit, DoseResponse, Fit, GroupEffects, InstrumentFit
from causalrec.finetune.ranker import Ranker
from causalrec.identify import Plan
from causalrec.uplift import ColdStart, Explanation, ModelChoice, Targeting, UpliftCurve

Main = Fit | ArmsFit | DoseResponse | InstrumentFit
Result = (
    Main | Plan | Checks | UpliftCurve | Targeting | Explanation | ColdStart | ModelChoice | GroupSensitivity
    | GroupEffects | Ranker
)  # fmt: skip
KINDS: dict[type, str] = {
    Plan: "plan", Fit: "fit", Checks: "checks", UpliftCurve: "curve", Targeting: "targeting",
    Explanation: "explanation", ColdStart: "cold_start", ModelChoice: "choice", GroupSensitivity: "sensitivity",
    GroupEffects: "groups", ArmsFit: "arms", DoseResponse: "dose", InstrumentFit: "instrument", Ranker: "ranker",
}  # fmt: skip
MAIN = ("fit", "arms", "dose", "instrument")
NEED_A_FIT = ("checks", "curve", "targeting", "explanation", "cold_start", "choice", "sensitivity", "groups")


def sorted_by_kind(results: tuple[Any, ...]) -> dict[str, Any]:
    """Results by kind; None is passed over.

    Raises
    ------
    ArgumentError
        Something of another kind, or two of a kind.
    """
    found: dict[str, Any] = {}
    for result in results:
        if result is None:
            continue
        kind = next((name for known, name in KINDS.items() if isinstance(result, known)), None)
        if kind is None:
            raise ArgumentError(
                f"report got a {type(result).__name__}; it shows {', '.join(k.__name__ for k in KINDS)}, "
                "as the verbs of causalrec return them."
            )
        if kind == "groups":
            found.setdefault(kind, []).append(result)
            continue
        if kind in found:
            raise ArgumentError(
                f"report got two of the kind {type(result).__name__}; a page is about one analysis. "
                "Make a report of each."
            )
        found[kind] = result
    by = [g.by for g in found.get("groups", ())]
    if len(set(by)) < len(by):
        raise ArgumentError(
            f"report got two GroupEffects by one modifier; they are by {by}. Pass one of each."
        )
    return found


def check_beside(main: Main, found: dict[str, Any]) -> None:
    """Raise unless what was passed beside the main result can be about the same question."""
    if not isinstance(main, Fit):
        alone = [type(found[kind]).__name__ for kind in NEED_A_FIT if kind in found and kind != "groups"]
        alone += ["GroupEffects"] if "groups" in found else []
        if alone:
            raise ArgumentError(
                f"report got {', '.join(alone)} without the Fit that they are about; pass the Fit of cr.estimate too."
            )
        return
    asked = (main.log.roles.treatment, main.log.roles.outcome)
    for kind, fit in (
        ("targeting", found["targeting"].fit if "targeting" in found else main),
        ("cold_start", found["cold_start"].fit if "cold_start" in found else main),
        ("choice", found["choice"].best_fit if "choice" in found else main),
        ("ranker", found.get("ranker", main)),
    ):
        log = fit.train if isinstance(fit, Ranker) else fit.log
        if log is None:  # a ranker that was loaded
            continue
        other = (log.roles.treatment, log.roles.outcome)
        if other != asked:
            raise ArgumentError(
                f"the {type(found[kind]).__name__} is about {other[0][0]!r} → {other[1][0]!r}, the Fit about "
                f"{asked[0][0]!r} → {asked[1][0]!r}; a page is about one question. Make a report of each."
            )
    strangers = [g.by for g in found.get("groups", ()) if g.by not in main.plan.modifiers]
    if strangers:
        raise ArgumentError(
            f"the GroupEffects are by {strangers}, which the Fit does not have as modifiers; it has {list(main.plan.modifiers)}."
        )
