"""What a report is about, and the question that it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causalrec.check import Checks
from causalrec.estimate import Fit
from causalrec.identify import Plan
from causalrec.report.words import Question, question
from causalrec.uplift import UpliftCurve

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Results:
    """What a report is about; only the fit is needed."""

    fit: Fit
    plan: Plan
    checks: Checks | None = None
    curve: UpliftCurve | None = None

    @property
    def question(self) -> Question:
        """What was asked, and in which unit it is answered."""
        return question_of(self.fit)

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
        return self.fit.log.roles.unit[0] if self.fit.log.roles.unit else None


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as dicts."""
    return [{str(k): v for k, v in record.items()} for record in frame.to_dict("records")]


def question_of(fit: Fit) -> Question:
    """The question that a fit answers, with the names of its columns and the unit of its effects."""
    roles = fit.log.roles
    return question(
        roles.treatment[0], roles.outcome[0], level=fit.log.treated_level, binary=fit.log.binary_outcome
    )
