"""Show it to me: the verb ``report`` and its result, one self-contained page."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causalrec._checks import as_names, check_choice
from causalrec._display import Displayable
from causalrec.errors import ArgumentError, OutputError
from causalrec.estimate import DoseResponse
from causalrec.finetune.ranker import Ranker
from causalrec.report import parts, training, training_words
from causalrec.report.decision import answer
from causalrec.report.given import MAIN, Result, check_beside, sorted_by_kind
from causalrec.report.results import Results
from causalrec.report.sections import sections_of
from causalrec.report.svg import picture_file
from causalrec.report.words import shown

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")


@dataclass(frozen=True, eq=False)
class Report(Displayable):
    """An analysis as one HTML page.

    Attributes
    ----------
    context : dict
        All that the page shows: ``title``, ``answer`` (level, headline, sentences, tested, caveats), ``sections``
        by id (heading, parts) and ``numbers`` (quantity, estimate, ci_lower, ci_upper).
    figures : dict of name → matplotlib Figure
        Every figure of the page; ``report.figures["uplift"].savefig(…)``.
    """

    context: dict[str, Any] = field(repr=False)
    figures: dict[str, Figure] = field(repr=False, default_factory=dict)
    records: dict[str, list[dict[str, Any]]] = field(repr=False, default_factory=dict)

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table of the page by name, all rows, numbers unrounded, effects in outcome per impression.

        The table behind a figure has the figure's name, but where it has one of its own, such as ``"fairness"``.
        """
        import pandas as pd

        return {name: pd.DataFrame(rows) for name, rows in self.records.items()}

    def save_figures(self, folder: str | Path, formats: Sequence[str] = FORMATS) -> list[Path]:
        """Write every figure of the page to a folder, which is made if it is missing.

        Parameters
        ----------
        folder : path
        formats : sequence of {"png", "svg"}

        Returns
        -------
        list of Path
            The files, ``<name>.<format>``; the same bytes for the same results.

        Raises
        ------
        ArgumentError
            A format is unknown.
        OutputError
            The folder or a file in it cannot be written.
        """
        kinds = [check_choice(kind, "formats", FORMATS) for kind in formats]
        target = Path(folder)
        try:
            target.mkdir(parents=True, exist_ok=True)
            return [
                picture_file(figure, target / f"{name}.{kind}")
                for name, figure in self.figures.items()
                for kind in kinds
            ]
        except OSError as error:
            raise OutputError(
                f"folder is {str(target)!r}, cannot be written to ({error.strerror or error}). Name a folder that is yours."
            ) from error

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


def report(*results: Result | None, title: str | None = None, skipped: Iterable[str] = ()) -> Report:
    """Put results on one page that a colleague who was not there can judge.

    With a Targeting the page opens with whom to target and what that is worth, else with the effect; a Ranker alone makes the
    training report.

    Parameters
    ----------
    results : Fit, and in any order and as far as there are: Plan, Checks, UpliftCurve, Targeting, Explanation, ColdStart, \
            ModelChoice, GroupSensitivity, GroupEffects (one a modifier), ArmsFit, DoseResponse, InstrumentFit, Ranker
        None is passed over, so that a step that was left out can be passed as None. Without a Plan the fit's
        own is shown. An ArmsFit, DoseResponse, InstrumentFit or Ranker may stand without a Fit.
    title : str
        Heading of the page; by default what was asked.
    skipped : list of str
        Steps that were left out, each with its reason, such as ``"Unseen items: 12 distinct texts are too few."``.

    Returns
    -------
    Report

    Raises
    ------
    ArgumentError
        There is nothing to report on, something of another kind, two of a kind, a Plan that is not the fit's, or results
        about another treatment or outcome.
    """
    found = sorted_by_kind(results)
    _check_title(title)
    main = next((found[kind] for kind in MAIN if kind in found), None)
    if main is None and list(found) == ["ranker"]:
        return _training(found["ranker"], title, as_names(skipped, "skipped"))
    if main is None:
        given = ", ".join(type(r).__name__ for r in results) or "nothing"
        raise ArgumentError(
            f"report got {given}; it needs the Fit that cr.estimate returns (or an ArmsFit, DoseResponse or InstrumentFit), "
            "and may have a Plan, Checks, UpliftCurve, Targeting and others beside it; or a Ranker by itself."
        )
    plan = found.pop("plan", main.plan)
    if plan != main.plan:
        raise ArgumentError(
            "the Plan is not the one that the Fit was estimated with; pass fit.plan, or leave the plan out."
        )
    check_beside(main, found)
    found.pop("fit", None)
    groups = tuple(found.pop("groups", ()))
    return _made(Results(main, plan, groups=groups, skipped=as_names(skipped, "skipped"), **found), title)


def _check_title(title: Any) -> None:
    if title is not None and (not isinstance(title, str) or not title.strip()):
        raise ArgumentError(f"title is {title!r}; must be text, or None for the question as title.")


def _made(r: Results, title: str | None) -> Report:
    q = r.question
    doing = f"{q.doing[:1].lower()}{q.doing[1:]}"
    asked = f"What {doing} did to {q.outcome}"
    if r.is_uplift:
        asked = f"For whom {doing} works, and whom to target"
    sections = {
        name: {"heading": words, "parts": build(r)} for name, words, build, _ in sections_of(r)
    }  # fmt: skip
    found = answer(r) if r.ranker is None else training_words.beside(answer(r), r.ranker)
    return _page(title, asked, found, sections, _numbers(r))


def _training(ranker: Ranker, title: str | None, left_out: Sequence[str]) -> Report:
    """The page of a ranker alone."""
    sections = {
        name: {"heading": words, "parts": build(ranker)} for name, words, build, applies in training.SECTIONS if applies(ranker)
    }  # fmt: skip
    if left_out:
        sections["skipped"] = {"heading": "What was skipped, and why", "parts": [parts.bullets(left_out)]}
    found = training_words.answer(ranker, training.warnings_of(ranker))
    return _page(title, "What a ranker learnt from the clicks, and what its choice is worth", found, sections, _of_ranker(ranker))


def _page(title: str | None, asked: str, found: dict[str, Any], sections: dict[str, Any], numbers: list[dict[str, Any]]) -> Report:
    tables, figures = parts.harvest(sections)
    context = {"title": shown(title or asked, 200), "asked": asked, "answer": found, "sections": sections, "numbers": numbers}
    return Report(context, figures, tables)


def _numbers(r: Results) -> list[dict[str, Any]]:
    """The main numbers, unrounded, in outcome per impression."""
    keys = ("quantity", "estimate", "ci_lower", "ci_upper")
    rows = [] if isinstance(r.main, DoseResponse) else [{k: e[k] for k in keys} for e in r.main._rows()]
    if r.targeting is not None:
        rows += [
            {"quantity": f"clicks gained, {p['policy']}", "estimate": p["clicks"], "ci_lower": p["clicks_lower"],
             "ci_upper": p["clicks_upper"]}
            for p in r.targeting.table.to_dict("records")
        ]  # fmt: skip
    rows += [dict(zip(keys, (name, value, *ci), strict=True)) for name, value, ci in r.ranking]
    return rows if r.ranker is None else rows + _of_ranker(r.ranker)


def _of_ranker(ranker: Ranker) -> list[dict[str, Any]]:
    """A ranker's numbers: nats, and clicks per impression shown."""
    return [{k: e[k] for k in ("quantity", "estimate", "ci_lower", "ci_upper")} for e in ranker.evaluation._rows()]


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
