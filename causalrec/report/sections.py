"""Which sections a page has, and in which order."""

from __future__ import annotations

from collections.abc import Callable

from causalrec.report import (
    design,
    doubts,
    explanation,
    findings,
    group_doubts,
    kinds,
    parts,
    targeting,
    training,
)
from causalrec.report.parts import Part
from causalrec.report.results import MOST_MODIFIERS, Results

Section = tuple[str, str, Callable[[Results], list[Part]], Callable[[Results], bool]]

DATA: Section = ("data", "The data and the design", design.data, lambda r: True)
EFFECT: Section = ("effect", "The effect against the naive answer", findings.effect, lambda r: r.has_fit)
FOR_WHOM: Section = ("for-whom", "For whom?", findings.for_whom, lambda r: r.has_fit)
WHOM: tuple[Section, ...] = (
    ("policies", "Whom to target, and what it is worth", targeting.policies, lambda r: r.is_uplift),
    FOR_WHOM,
    (
        "fairness", "Who is served, and who gains?", targeting.fairness,
        lambda r: r.targeting is not None and r.targeting.fairness is not None,
    ),
    ("explanation", "What goes with a large effect?", explanation.explanation, lambda r: r.explanation is not None),
    ("cold-start", "Items and users not seen before", explanation.cold_start, lambda r: r.cold_start is not None),
    ("models", "Which model of the effect?", explanation.models, lambda r: r.choice is not None),
)  # fmt: skip
KINDS: tuple[Section, ...] = (
    ("arms", "Which arm?", kinds.arms, lambda r: r.arms is not None),
    ("dose", "How much of it?", kinds.dose, lambda r: r.dose is not None),
    ("instrument", "What the encouragement shows", kinds.instrument, lambda r: r.instrument is not None),
)
DOUBTS: tuple[Section, ...] = (
    ("checks", "Would it survive a sceptic?", doubts.checks, lambda r: r.has_fit),
    ("sensitivity", "How strong would a hidden cause have to be?", doubts.sensitivity, lambda r: r.has_fit),
    (
        "group-sensitivity", "How strong, group by group?", group_doubts.group_sensitivity,
        lambda r: r.sensitivity is not None,
    ),
)  # fmt: skip


def _of_ranker(section: training.Section) -> Section:
    """A section about a ranker, on a page that is about more."""
    name, heading, build, applies = section

    def built(r: Results) -> list[Part]:
        assert r.ranker is not None
        return build(r.ranker)

    return name, heading, built, lambda r: r.ranker is not None and applies(r.ranker)


TRAINING: tuple[Section, ...] = tuple(_of_ranker(s) for s in training.SECTIONS)
ASSUMPTIONS: Section = (
    "assumptions", "What is assumed, and what would overturn it", design.assumptions, lambda r: True,
)  # fmt: skip
REPRODUCIBILITY: Section = ("reproducibility", "How to reproduce it", design.reproducibility, lambda r: True)


def skipped(r: Results) -> list[Part]:
    """What was left out of the page, and why; said rather than passed over."""
    said = list(r.skipped)
    if r.explanation is not None:
        said += r.explanation.skipped
    if r.dose is not None:
        said += [f"Dose {d:g}: {reason}." for d, reason in r.dose.unsupported]
    if r.has_fit:
        said += _of_the_fit(r)
    return [parts.bullets(dict.fromkeys(said))] if said else [parts.text("Nothing was skipped.")]


def _of_the_fit(r: Results) -> list[str]:
    found = [
        (r.targeting, "Whom to target was not asked: cr.target(fit_on_train, test)."),
        (r.targeting is None or r.targeting.fairness, "Fairness: no protected group was named, cr.target(…, protected=…)."),
        (r.curve, "The ranking was not judged: cr.uplift(fit_on_train, test)."),
        (r.explanation, "The effect was not explained: cr.explain(fit_on_train, test)."),
        (r.cold_start, "Unseen items: cr.cold_start(fit_on_train, test) was not run."),
        (r.choice, "Models of the effect were not compared: cr.choose_model(fit_on_train)."),
        (r.sensitivity, "Group effects were not tested against hidden causes: cr.group_sensitivity(fit, by)."),
        (r.checks, "Checks that refit were not run: cr.refute(fit)."),
    ]  # fmt: skip
    said = [sentence for result, sentence in found if not result and not _explained(r, sentence)]
    small = [f"{g['modifier']}: {g['group']}" for g in r.segments.records if g["effect"] is None]
    if small:
        said.append(f"Segments with too few rows for an effect: {', '.join(small)}.")
    return said + [
        f"Modifier {m}: beyond the first {MOST_MODIFIERS}." for m in r.plan.modifiers[MOST_MODIFIERS:]
    ]


def _explained(r: Results, sentence: str) -> bool:
    """Whether the caller has given a reason for this one already, which starts with the same words."""
    return any(reason.partition(":")[0] == sentence.partition(":")[0] for reason in r.skipped)


SKIPPED: Section = ("skipped", "What was skipped, and why", skipped, lambda r: r.goes_beyond)


def sections_of(r: Results) -> list[Section]:
    """The sections of this page, in order: a page that says whom to target begins with that."""
    if r.is_uplift:
        order = (*WHOM, *KINDS, *TRAINING, EFFECT, *DOUBTS, DATA, ASSUMPTIONS, SKIPPED, REPRODUCIBILITY)
    else:
        order = (DATA, EFFECT, *WHOM, *KINDS, *TRAINING, *DOUBTS, ASSUMPTIONS, SKIPPED, REPRODUCIBILITY)
    return [section for section in order if section[3](r)]
