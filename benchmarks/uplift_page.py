"""The uplift results as lines of benchmarks/RESULTS.md."""

from __future__ import annotations

from typing import Any

PARTS = {
    "heterogeneity": "Effects that vary with the words (D7): learnt from 50,000 rows, judged on 50,000 of other users",
    "bound": "How far D7 can be taken: scores of the true nuisances, the numbers through which the words act in place of the words, and the features fitted to the true effect without noise",
    "null": "No heterogeneity: share of logs in which each test claims some at 5 %",
    "coverage": "Coverage of 95 % intervals of the fitted ranking, users of 5 to 50 rows; by row: with errors that take rows for independent",
    "pairs": "The same where an unseen trait of the item confounds, scores corrected by pairs",
    "hillstrom": "Hillstrom, any mail on visits: AUTOC on held-out customers, ours less that of EconML's learner which its R-score picks, in SD over splits",
    "stages": "Six final stages on 100,000 rows with nuisances fitted once",
    "million": "The uplift curve with clustered bands",
    "saved": "A fit on disk, its log included",
}


def section(results: dict[str, Any]) -> list[str]:
    """A heading and one table a part."""
    out = [
        "## Uplift",
        "",
        "`CAUSALREC_DATA=... python benchmarks/uplift.py [part]`. A line is met or missed where its 95 % interval (Wilson's for shares, else t) "
        "lies inside or outside the reach, else undecided. R: repetitions behind the line. Splits of one experiment overlap: a second line has Nadeau & Bengio's (2003) variance.",
    ]
    for part, title in PARTS.items():
        if part not in results:
            out += ["", f"{title}: not run."]
            continue
        out += [
            "",
            f"**{title}** (`uplift.py {part}`)",
            "",
            "| figure | R | mean | 95 % interval | reach | |",
            "|---|---|---|---|---|---|",
        ]
        out += [_line(row) for row in results[part]]
    return [*out, ""]


def _line(row: dict[str, Any]) -> str:
    ends = f"{_said(row['low'])} to {_said(row['high'])}" if row["R"] > 1 else "–"
    return f"| {row['figure']} | {row['R']:,} | {_said(row['mean'])} | {ends} | {_target(row.get('target', []))} | {row['reach']} |"


def _target(ends: list[float | None]) -> str:
    if not ends:
        return ""
    least, most = ends
    if most is None:
        return f"≥ {least:g}"
    return f"≤ {most:g}" if not least else f"{least:g} to {most:g}"


def _said(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"
