"""The sentences of a report: pure functions of numbers and names, in plain English."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

CLICK_NAMES = ("click", "clicks", "clicked")
RECOMMEND_NAMES = ("recommended", "recommendation", "recommend")
AMONG = {
    "ATE": "",
    "ATT": " among the impressions that were treated",
    "ATO": " among the impressions that could have gone either way",
}
LONGEST_NAME = 60


@dataclass(frozen=True)
class Question:
    """Doing what changes what, and in which unit it is said.

    Attributes
    ----------
    doing : str
        Subject of the sentences: ``"Recommending"``, ``"Treatment (‘mail’)"``.
    outcome : str
        ``"clicks"``, or the column's name in quotation marks.
    factor : float
        By which an effect in outcome per impression is multiplied before it is shown.
    per : str
        What the shown number refers to.
    """

    doing: str = "Treatment"
    outcome: str = "outcome"
    factor: float = 1.0
    per: str = "per impression"

    @property
    def label(self) -> str:
        """The unit as an axis shows it: ``"clicks per 1,000 impressions"``."""
        return f"{self.outcome} {self.per}"

    def number(self, value: float, decimals: int, *, signed: bool = False) -> str:
        """An effect, in outcome per impression, in the unit of the question."""
        return number(value * self.factor, decimals, signed=signed)

    def decimals(self, lower: float, upper: float) -> int:
        """Decimals that an effect with this interval deserves."""
        return decimals(lower * self.factor, upper * self.factor)


PER_IMPRESSION = Question()
"""An effect in outcome per impression, whatever the outcome is."""


def question(treatment: str, outcome: str, *, level: Any = 1, binary: bool = True) -> Question:
    """The question that a log asks, from its column names.

    Parameters
    ----------
    treatment, outcome : str
        Column names.
    level : object
        The level of the treatment that counts as treated; named where it is neither 1 nor True.
    binary : bool
        The outcome is 0/1, so that effects are said per 1,000 impressions.
    """
    plain_level = not isinstance(level, str) and level in (0, 1)
    if treatment.lower() in RECOMMEND_NAMES and plain_level:
        doing = "Recommending"
    elif plain_level:
        doing = f"Treatment ({quoted(treatment)})"
    else:
        doing = f"{quoted(treatment)} = {quoted(str(level))}"
    what = "clicks" if binary and outcome.lower() in CLICK_NAMES else quoted(outcome)
    return Question(doing, what, 1000.0, "per 1,000 impressions") if binary else Question(doing, what)


def net_value(q: Question) -> Question:
    """The same question in money: value of the outcome less the cost of recommending, per 1,000 impressions."""
    return Question(q.doing, "net value", 1000.0, "per 1,000 impressions")


def per_recommendation(q: Question) -> Question:
    """The same question for those who are recommended to: per recommendation instead of per impression."""
    return replace(q, per=q.per.replace("impression", "recommendation"))


def shown(name: object, longest: int = LONGEST_NAME) -> str:
    """A column name or label as one printable line of at most `longest` characters."""
    line = "".join(
        " " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in str(name)[: 4 * longest]
    )
    line = " ".join(line.split())
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def quoted(name: object) -> str:
    """A name in quotation marks."""
    return f"‘{shown(name)}’"


def listed(names: Sequence[object], most: int = 8) -> str:
    """``a, b and c``; beyond `most` the rest is counted."""
    words = [shown(n) for n in names[:most]]
    if len(names) > most:
        words.append(f"{len(names) - most:,} more")
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def decimals(lower: float, upper: float) -> int:
    """Decimals that show two digits of an interval's half-width, 0 to 6."""
    half = abs(upper - lower) / 2
    if not math.isfinite(half) or half == 0:
        return 3
    return min(max(1 - math.floor(math.log10(half)), 0), 6)


def number(value: float | None, digits: int, *, signed: bool = False) -> str:
    """A number with thousands separators and a true minus; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    rounded = round(value, digits) + 0.0
    text = f"{abs(rounded):,.{digits}f}"
    if rounded < 0:
        return f"−{text}"
    return f"+{text}" if signed and rounded > 0 else text


def percent(share: float | None, digits: int = 0) -> str:
    """A share as a percentage."""
    return "–" if share is None or not math.isfinite(share) else f"{number(100 * share, digits)} %"


def interval(q: Question, lower: float, upper: float) -> str:
    """``15.1 to 27.5``, in the question's unit."""
    d = q.decimals(lower, upper)
    return f"{q.number(lower, d)} to {q.number(upper, d)}"


def effect_sentence(
    q: Question,
    effect: float,
    lower: float,
    upper: float,
    *,
    estimand: str = "ATE",
    clustered_by: str | None = None,
) -> str:
    """What doing it changed, or that the interval does not tell.

    Parameters
    ----------
    q : Question
    effect, lower, upper : float
        Outcome per impression, with its 95 % interval.
    estimand : {"ATE", "ATT", "ATO"}
    clustered_by : str or None
        The column of the units; None where each row is its own.
    """
    d = q.decimals(lower, upper)
    among = AMONG[estimand]
    cluster = f"clustered by {shown(clustered_by)}" if clustered_by else "each row taken for independent"
    bounds = f"95 % interval {interval(q, lower, upper)}, {cluster}"
    if lower <= 0 <= upper:
        return (
            f"The data do not tell whether {_inside(q.doing)} changed {q.outcome}{among}: the estimate is "
            f"{q.number(effect, d, signed=True)} {q.per}, and its interval includes no effect ({bounds})."
        )
    verb = "raised" if effect > 0 else "lowered"
    return f"{q.doing} {verb} {q.outcome} by {q.number(abs(effect), d)} {q.per}{among} ({bounds})."


def _inside(doing: str) -> str:
    """The subject in the middle of a sentence."""
    return doing[:1].lower() + doing[1:]


def caution_sentence(failed: Sequence[str], n_judged: int) -> str:
    """What stands before an effect whose checks failed; empty if none did."""
    if not failed:
        return ""
    count = f"{len(failed)} of {n_judged} checks failed ({listed(failed)})"
    return f"The data do not support a conclusion yet: {count}. At face value:"


def naive_sentence(q: Question, naive: tuple[float, float, float], effect: tuple[float, float, float]) -> str:
    """How the naive comparison of means compares; each argument is (value, lower, upper) per impression."""
    d = max(q.decimals(*naive[1:]), q.decimals(*effect[1:]))
    says = f"The naive comparison says {q.number(naive[0], d, signed=naive[0] < 0)}"
    agree = naive[1] <= effect[0] <= naive[2] and effect[1] <= naive[0] <= effect[2]
    if effect[1] <= 0 <= effect[2]:
        if agree:
            return f"{says}, which tells no more."
        away = "above" if naive[0] > effect[2] else "below"
        inside = effect[1] <= naive[0] <= effect[2]
        return f"{says}, which {'lies inside' if inside else f'lies {away}'} that interval."
    if agree:
        return f"{says}, about the same."
    if naive[0] * effect[0] <= 0:
        return f"{says}: it does not even have the sign of the effect."
    if abs(effect[0]) > abs(naive[0]):
        return f"{says}: it hides {percent(1 - naive[0] / effect[0])} of the effect."
    share = percent(1 - effect[0] / naive[0])
    return f"{says}: by this estimate {share} of it is not caused by the {_cause(q)}."


def _cause(q: Question) -> str:
    return "recommendation" if q.doing == "Recommending" else "treatment"


def anyway_sentence(q: Question, share: tuple[float, float, float] | None) -> str:
    """Which share of the treated impressions' outcome would have happened untreated; empty if undefined."""
    if share is None:
        return ""
    value, lower, upper = share
    d = 1 if upper - lower < 0.02 else 0
    bounds = f"95 % interval {number(100 * lower, d)} to {percent(upper, d)}"
    if 0 <= value <= 1:
        would = f"{percent(value, d)} would have happened anyway ({bounds})."
        return f"Of the {q.outcome} of treated impressions, {would}"
    return (
        f"Untreated, the treated impressions would have had {percent(value, d)} of their {q.outcome} "
        f"({bounds})" + ("; below 0 % reads as none." if value < 0 else ".")
    )


def checks_sentence(passed: Sequence[bool | None]) -> str:
    """How many of the checks passed; an entry that is None was informational."""
    judged = [p for p in passed if p is not None]
    informational = len(passed) - len(judged)
    aside = (
        f" {informational} more {'is' if informational == 1 else 'are'} for information."
        if informational
        else ""
    )
    if not judged:
        return f"No check gave a verdict.{aside}"
    if all(judged):
        which = f"All {len(judged)} checks" if len(judged) > 1 else "The only check"
        return f"{which} with a verdict passed.{aside}"
    return f"{judged.count(False)} of {len(judged)} checks with a verdict failed.{aside}"


def sensitivity_sentence(value: float, value_ci: float, *, significant: bool) -> str:
    """What a hidden cause would have to explain, from the robustness values (shares of residual variance)."""
    first = (
        f"To bring the estimate to 0, a hidden cause would have to explain {percent(value, 1)} of what is "
        "left unexplained of the exposure (its weights) and as much of what is left unexplained of the outcome"
    )
    if not significant:
        return f"{first}. The interval includes 0 already, without any hidden cause."
    return f"{first}; {percent(value_ci, 1)} of each would make the interval include 0."


def e_value_sentence(value: float | None, value_ci: float | None) -> str:
    """The same on the scale of risk ratios; empty where there is no E-value."""
    if value is None:
        return ""
    ending = "" if value_ci is None else f", and {number(value_ci, 2)} to make its interval include none"
    return (
        f"As a risk ratio (E-value): it would have to multiply both the chance of exposure and the "
        f"chance of the outcome by {number(value, 2)} to explain the effect away{ending}."
    )


def benchmark_sentence(q: Question, name: str, bias: float, effect: float) -> str:
    """What a hidden cause as strong as the strongest observed one could do, from numbers per impression."""
    d = q.decimals(0, bias)
    enough = "enough to undo the estimate" if abs(bias) >= abs(effect) else "not enough to undo the estimate"
    return (
        f"A hidden cause as strong as {quoted(name)}, the strongest thing observed, could shift the "
        f"estimate by up to {q.number(abs(bias), d)} {q.per}: {enough}."
    )


def ranking_sentence(q: Question, qini: float, lower: float, upper: float) -> str:
    """Whether treating the best-ranked first beats random targeting, from the Qini coefficient."""
    d = q.decimals(lower, upper)
    bounds = f"Qini coefficient {q.number(qini, d)} {q.per}, 95 % interval {interval(q, lower, upper)}"
    if lower <= 0 <= upper:
        claim = "treating the best-ranked first is better than treating at random"
        return f"The data do not tell whether {claim} ({bounds})."
    verdict = "brings more than" if qini > 0 else "brings less than"
    return (
        f"On held-out users, treating the best-ranked first {verdict} treating as many at random ({bounds})."
    )
