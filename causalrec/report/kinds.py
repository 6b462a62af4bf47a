"""More than on and off: the sections of several arms, of a dose, and of an instrument."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from causalrec.estimate import ArmsFit, DoseResponse, InstrumentFit
from causalrec.report import arms_plots, parts
from causalrec.report.parts import Part
from causalrec.report.results import Results, question_of, records
from causalrec.report.targeting import short
from causalrec.report.words import Question


def arms(r: Results) -> list[Part]:
    """Mean outcome under each arm, and every contrast."""
    fit = r.arms
    assert fit is not None
    q, found = question_of(fit), fit._rows()
    drawn = parts.figure(
        arms_plots.plot_arms(fit, question=q),
        "arms",
        title="Each arm against the control",
        description="Thick: 95 % interval of one contrast. Thin: intervals that hold for all contrasts at once.",
        data=parts.table(f"In {q.label}", [_arm(row, q) for row in found], name="arms", raw=found),
    )
    overlap = records(fit.overlap_frame())
    return [
        drawn,
        parts.table("Overlap of the arms", overlap, name="arms-overlap"),
        _notes(r, fit),
    ]


def _notes(r: Results, result: ArmsFit | DoseResponse | InstrumentFit) -> Part:
    """Its notes; what is untested has a section of its own where the page is about this result."""
    kept = (n for n in result._notes() if result is not r.main or not n.startswith("Untested: "))
    return parts.bullets(kept)


def _arm(row: dict[str, Any], q: Question) -> dict[str, Any]:
    joint = "–"
    if row["joint_lower"] is not None:
        joint = f"{_plain(q, row['joint_lower'], row)} to {_plain(q, row['joint_upper'], row)}"
    return {
        "quantity": row["quantity"],
        "95 % interval": short(q, row["estimate"], row["ci_lower"], row["ci_upper"]),
        "joint": joint,
        "p_holm": row["p_holm"],
    }


def _plain(q: Question, value: float, row: dict[str, Any]) -> str:
    return q.number(value, q.decimals(row["ci_lower"], row["ci_upper"]))


def dose(r: Results) -> list[Part]:
    """The dose–response curve with its band."""
    curve = r.dose
    assert curve is not None
    q = question_of(curve)
    rows = [
        {
            "dose": f"{row['dose']:g}",
            f"mean, {q.label}": short(q, row["mean"], row["ci_lower"], row["ci_upper"]),
            "joint band": f"{_plain(q, row['band_lower'], row)} to {_plain(q, row['band_upper'], row)}",
            "effective rows": round(row["ess"]),
        }
        for row in curve._rows()
    ]
    return [
        parts.text(f"{curve._title()}."),
        parts.figure(
            arms_plots.plot_dose_response(curve, question=q),
            "dose",
            title="Mean outcome at each dose",
            description="Dark: 95 % interval of one dose. Light: band that covers the whole curve with 95 % confidence.",
            data=parts.table("The curve", rows, name="dose", raw=curve._rows()),
        ),
        _notes(r, curve),
    ]


def instrument(r: Results) -> list[Part]:
    """The effect in compliers, and how strong the instrument is."""
    fit = r.instrument
    assert fit is not None
    q, found = question_of(fit), fit._rows()
    return [
        parts.text(f"{fit._title()}."),
        parts.facts(_strength(fit.first_stage_f, found, q)),
        parts.figure(
            arms_plots.plot_instrument(fit, question=q),
            "instrument",
            title="The effect in those whom the instrument moves",
            description="Thick: the usual 95 % interval. Thin: the Anderson–Rubin interval, which holds however weak the instrument is.",
            data=parts.table("In outcome per impression", found, name="instrument"),
        ),
        _notes(r, fit),
    ]


def _strength(f: float, found: Sequence[dict[str, Any]], q: Question) -> list[tuple[str, str]]:
    first, on_outcome = found[3], found[2]
    share = Question(factor=100.0)
    return [
        ("first-stage F", f"{f:,.1f} (below 10 the effect is refused)"),
        (f"{first['quantity']}, %", short(share, first["estimate"], first["ci_lower"], first["ci_upper"])),
        (
            f"{on_outcome['quantity']}, {q.per}",
            short(q, on_outcome["estimate"], on_outcome["ci_lower"], on_outcome["ci_upper"]),
        ),
    ]
