"""What a section is made of: plain dicts of text, facts, tables, figures and verdicts, ready to be shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from causalrec._display import fmt
from causalrec.report.svg import to_svg
from causalrec.report.words import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Part = dict[str, Any]
MOST_ROWS = 60
LONGEST_CELL = 300
LONGEST_TEXT = 2_000
VERDICTS = {True: ("passed", "✓"), False: ("failed", "✗"), None: ("for information", "○")}


def text(sentence: str) -> Part:
    """A paragraph."""
    return {"kind": "text", "text": shown(sentence, LONGEST_TEXT)}


def missing(sentence: str, code: str) -> Part:
    """One line in the place of a result that was not passed, with the call that makes it."""
    return {"kind": "missing", "text": sentence, "code": code}


def bullets(items: Iterable[str]) -> Part:
    """A list of sentences."""
    return {"kind": "list", "items": [shown(i, LONGEST_TEXT) for i in items]}


def facts(pairs: Iterable[tuple[str, object]]) -> Part:
    """Names and values, one a line."""
    return {"kind": "facts", "items": [[name, _cell(value, name)] for name, value in pairs]}


def heading(words: str) -> Part:
    """A heading inside a section."""
    return {"kind": "heading", "text": shown(words, 120)}


def table(
    caption: str,
    records: Sequence[Mapping[str, Any]],
    *,
    name: str,
    raw: Sequence[Mapping[str, Any]] | None = None,
) -> Part:
    """A table of records that share their keys; beyond 60 rows the rest is counted.

    Values that are strings are shown as they are, numbers as ``_display.fmt`` reads them. ``Report.tables`` has all rows
    under `name`: `raw`, the unrounded numbers, where `records` holds them as words.
    """
    columns = list(records[0]) if records else []
    kept = records[:MOST_ROWS]
    return {
        "kind": "table",
        "name": name,
        "raw": [dict(r) for r in (records if raw is None else raw)],
        "caption": shown(caption, LONGEST_CELL),
        "columns": [shown(str(c).replace("_", " "), LONGEST_CELL) for c in columns],
        "numeric": [i > 0 and all(_is_number(r[c]) for r in kept) for i, c in enumerate(columns)],
        "rows": [[_cell(r[c], c) for c in columns] for r in kept],
        "left_out": len(records) - len(kept),
    }


def figure(ax: Axes, name: str, *, title: str, description: str, data: Part) -> Part:
    """A drawn figure as SVG, what it shows in words, and the table of its data; ``Report.figures`` has it under `name`."""
    words = shown(description, LONGEST_TEXT)
    return {
        "kind": "figure",
        "name": name,
        "drawn": ax.figure,
        "title": title,
        "description": words,
        "svg": to_svg(ax.figure, name, title=title, description=words),
        "table": data,
    }


def harvest(sections: Mapping[str, Part]) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    """Take the unrounded tables and the drawn figures out of the parts, by name; what is left is plain data.

    Returns
    -------
    tables : dict of name → records
    figures : dict of name → matplotlib Figure
    """
    tables: dict[str, list[dict[str, Any]]] = {}
    figures: dict[str, Any] = {}
    for section in sections.values():
        for part in section["parts"]:
            if part["kind"] == "figure":
                figures[part["name"]] = part.pop("drawn")
            found = part["table"] if part["kind"] == "figure" else part
            if found["kind"] == "table":
                tables[found["name"]] = found.pop("raw")
    return tables, figures


def verdicts(records: Iterable[Any]) -> Part:
    """The records of the checks, each with a word and a sign for its verdict."""
    rows = []
    for r in records:
        word, sign = VERDICTS[r.passed]
        rows.append(
            {
                "name": shown(r.name.replace("_", " ")),
                "verdict": word,
                "sign": sign,
                "passed": r.passed,
                "statistic": _cell(r.statistic, "statistic"),
                "p_value": _cell(r.p_value, "p_value"),
                "message": shown(r.message, LONGEST_TEXT),
            }
        )
    return {"kind": "verdicts", "records": rows}


def _is_number(value: object) -> bool:
    if isinstance(value, str):
        return value[:1] in "0123456789−+–" and any(c.isdigit() for c in value[:3])
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _cell(value: object, name: str) -> str:
    said = (
        fmt(value, name).replace("-", "−", 1)
        if _is_number(value) and not isinstance(value, str)
        else fmt(value, name)
    )
    return shown(said, LONGEST_CELL)
