"""Show it to me: the verb ``report`` and its result, one self-contained page."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from causalrec._display import Displayable
from causalrec.check import Checks
from causalrec.errors import ArgumentError, OutputError
from causalrec.estimate import Fit
from causalrec.identify import Plan
from causalrec.report import design, doubts, findings
from causalrec.report.results import Results
from causalrec.report.words import shown
from causalrec.uplift import UpliftCurve

Result = Plan | Fit | Checks | UpliftCurve
KINDS: dict[type, str] = {Plan: "plan", Fit: "fit", Checks: "checks", UpliftCurve: "curve"}
SECTIONS = (
    ("data", "The data and the design", design.data),
    ("effect", "The effect against the naive answer", findings.effect),
    ("for-whom", "For whom?", findings.for_whom),
    ("checks", "Would it survive a sceptic?", doubts.checks),
    ("sensitivity", "How strong would a hidden cause have to be?", doubts.sensitivity),
    ("assumptions", "What is assumed, and what would overturn it", design.assumptions),
    ("reproducibility", "How to reproduce it", design.reproducibility),
)


@dataclass(frozen=True, eq=False)
class Report(Displayable):
    """An analysis as one HTML page.

    Attributes
    ----------
    context : dict
        All that the page shows: ``title``, ``answer`` (level, headline, sentences, tested, caveats), ``sections``
        by id (heading, parts) and ``numbers`` (quantity, estimate, ci_lower, ci_upper).
    """

    context: dict[str, Any] = field(repr=False)

    def html(self) -> str:
        """The whole page: no script, nothing loaded from elsewhere, the same bytes for the same results."""
        return _render("page.html.j2", self.context)

    def save(self, path: str | Path) -> Path:
        """Write the page as one file, all of it or nothing.

        Raises
        ------
        OutputError
            The file cannot be written; an older file of that name is still there.
        """
        target = Path(path)
        if target.is_dir():
            raise OutputError(
                f"path is {str(target)!r}, a folder; name a file in it, such as {str(target / 'report.html')!r}."
            )
        page = self.html().encode("utf-8", errors="replace")
        draft = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            draft.write_bytes(page)
            os.replace(draft, target)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise OutputError(
                f"path is {str(target)!r}, cannot be written ({error.strerror or error}); nothing was. "
                "Name a file in a folder that exists and is yours."
            ) from error
        return target

    def _repr_html_(self) -> str:
        """The page's body with its style, scoped to its own element, for notebooks."""
        return _render("fragment.html.j2", self.context)

    def _title(self) -> str:
        return self.context["answer"]["headline"]

    def _rows(self) -> list[dict[str, Any]]:
        return list(self.context["numbers"])

    def _notes(self) -> list[str]:
        answer = self.context["answer"]
        return [*answer["sentences"], answer["tested"], *answer["caveats"]]


def report(*results: Result | None, title: str | None = None) -> Report:
    """Put results on one page that a colleague who was not there can judge.

    Parameters
    ----------
    results : Fit, and in any order and as far as there are: Plan, Checks, UpliftCurve
        None is passed over, so that a step that was left out can be passed as None. Without a Plan the fit's
        own is shown.
    title : str
        Heading of the page; by default what was asked.

    Returns
    -------
    Report

    Raises
    ------
    ArgumentError
        There is no Fit, something else than these four kinds, two of a kind, or a Plan that is not the fit's.
    """
    found = _sorted_by_kind(results)
    fit = found.get("fit")
    if fit is None:
        given = ", ".join(type(r).__name__ for r in results) or "nothing"
        raise ArgumentError(
            f"report got {given}; it needs the Fit that cr.estimate returns, and may have a Plan, Checks and "
            "UpliftCurve beside it."
        )
    plan = found.get("plan", fit.plan)
    if plan != fit.plan:
        raise ArgumentError(
            "the Plan is not the one that the Fit was estimated with; pass fit.plan, or leave the plan out."
        )
    if title is not None and (not isinstance(title, str) or not title.strip()):
        raise ArgumentError(f"title is {title!r}; must be text, or None for the question as title.")
    return Report(_context(Results(fit, plan, found.get("checks"), found.get("curve")), title))


def _sorted_by_kind(results: tuple[Any, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for result in results:
        if result is None:
            continue
        kind = next((name for known, name in KINDS.items() if isinstance(result, known)), None)
        if kind is None:
            raise ArgumentError(
                f"report got a {type(result).__name__}; it shows {', '.join(k.__name__ for k in KINDS)}, "
                "as cr.identify, cr.estimate, cr.refute and cr.uplift return them."
            )
        if kind in found:
            raise ArgumentError(
                f"report got two of the kind {type(result).__name__}; a page is about one analysis. "
                "Make a report of each."
            )
        found[kind] = result
    return found


def _context(r: Results, title: str | None) -> dict[str, Any]:
    q = r.question
    asked = f"What {q.doing[:1].lower()}{q.doing[1:]} did to {q.outcome}"
    return {
        "title": shown(title or asked, 200),
        "asked": asked,
        "answer": findings.answer(r),
        "sections": {name: {"heading": words, "parts": build(r)} for name, words, build in SECTIONS},
        "numbers": _numbers(r),
    }


def _numbers(r: Results) -> list[dict[str, Any]]:
    """The main numbers, unrounded, in outcome per impression."""
    keys = ("quantity", "estimate", "ci_lower", "ci_upper")
    rows = [{k: e[k] for k in keys} for e in r.fit.to_frame().to_dict("records")]
    rows += [dict(zip(keys, (name, value, *ci), strict=True)) for name, value, ci in r.ranking]
    return rows


def _render(template: str, context: dict[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("causalrec.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(context)
