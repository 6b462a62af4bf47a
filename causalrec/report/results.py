"""What a report is about, and the question that it answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from causalrec.check import Checks, GroupSensitivity
from causalrec.errors import ArgumentError
from causalrec.estimate import ArmsFit, DoseResponse, Fit, GroupEffects, InstrumentFit
from causalrec.estimate.segments import Segments, segments
from causalrec.finetune.ranker import Ranker
from causalrec.identify import Plan
from causalrec.log import ImpressionLog
from causalrec.report.words import Question, question, quoted
from causalrec.uplift import ColdStart, Explanation, ModelChoice, Targeting, UpliftCurve

if TYPE_CHECKING:
    import pandas as pd

MOST_MODIFIERS = 12


@dataclass(frozen=True, eq=False)
class Results:
    """What a report is about.

    Attributes
    ----------
    main : Fit, ArmsFit, DoseResponse or InstrumentFit
        Whose log and plan the page describes; the Fit where there is one.
    skipped : tuple of str
        What the caller left out, and why.
    others : results that were passed beside; None, or no group effects, where they were not
    """

    main: Fit | ArmsFit | DoseResponse | InstrumentFit
    plan: Plan
    checks: Checks | None = None
    curve: UpliftCurve | None = None
    targeting: Targeting | None = None
    explanation: Explanation | None = None
    cold_start: ColdStart | None = None
    choice: ModelChoice | None = None
    sensitivity: GroupSensitivity | None = None
    arms: ArmsFit | None = None
    dose: DoseResponse | None = None
    instrument: InstrumentFit | None = None
    ranker: Ranker | None = None
    groups: tuple[GroupEffects, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def has_fit(self) -> bool:
        """Whether there is an effect of one treatment against none."""
        return isinstance(self.main, Fit)

    @property
    def fit(self) -> Fit:
        """The Fit.

        Raises
        ------
        ArgumentError
            The page has none; its sections do not ask for it.
        """
        if not isinstance(self.main, Fit):
            raise ArgumentError(f"this report is about a {type(self.main).__name__} and has no Fit.")
        return self.main

    @property
    def log(self) -> ImpressionLog:
        """The log that was analysed."""
        return self.main.log

    @property
    def is_uplift(self) -> bool:
        """Whether the page answers whom to target."""
        return self.targeting is not None

    @property
    def goes_beyond(self) -> bool:
        """Whether there is more than an effect, its checks and a curve."""
        more = (
            self.targeting, self.explanation, self.cold_start, self.choice, self.sensitivity, self.arms, self.dose, self.instrument,
        )  # fmt: skip
        return bool(self.groups or self.skipped or any(v is not None for v in more))

    @property
    def question(self) -> Question:
        """What was asked, and in which unit it is answered."""
        return question_of(self.main)

    @property
    def effect(self) -> tuple[float, float, float]:
        """(value, lower, upper) per impression."""
        return self.fit.effect, self.fit.ci_lower, self.fit.ci_upper

    @property
    def ranking(self) -> list[tuple[str, float, tuple[float, float]]]:
        """(measure, value, interval) of the ranking, per impression; empty without a curve."""
        c = self.curve
        return [] if c is None else [("Qini coefficient", c.qini, c.qini_ci), ("AUTOC", c.autoc, c.autoc_ci)]

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that failed."""
        return tuple(r.name.replace("_", " ") for r in self.checks or () if r.passed is False)

    @property
    def unit(self) -> str | None:
        """The column of the units, or None where each row is its own."""
        return self.log.roles.unit[0] if self.log.roles.unit else None

    @cached_property
    def segments(self) -> Segments:
        """Group effects of the declared modifiers, up to twelve of them, corrected for their number."""
        return segments(self.fit, self.plan.modifiers[:MOST_MODIFIERS])


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as dicts."""
    return [{str(k): v for k, v in record.items()} for record in frame.to_dict("records")]


def question_of(result: Fit | ArmsFit | DoseResponse | InstrumentFit) -> Question:
    """The question that a fit answers, with the names of its columns and the unit of its effects."""
    log, roles = result.log, result.log.roles
    asked = question(roles.treatment[0], roles.outcome[0], level=log.treated_level, binary=log.binary_outcome)
    if log.treatment_kind == "binary":
        return asked
    return Question(quoted(roles.treatment[0]), asked.outcome, asked.factor, asked.per)
