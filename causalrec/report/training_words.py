"""The training report in sentences: what a ranker is worth, whether debiasing paid, and what may be wrong."""

from __future__ import annotations

from typing import Any

from causalrec.finetune.ranker import Ranker
from causalrec.report import words
from causalrec.report.training_plots import of_risk, question_of_ranker
from causalrec.report.words import Question
from causalrec.scores import Estimate


def spread(q: Question, e: Estimate) -> str:
    """``7.4 (6.5 to 8.3)``, in the question's unit."""
    return f"{q.number(e.value, q.decimals(e.ci_lower, e.ci_upper))} ({words.interval(q, e.ci_lower, e.ci_upper)})"


def decision(ranker: Ranker) -> tuple[str, str]:
    """("clear" or "unclear", what the ranker's choice is worth against today's)."""
    gain, q = ranker.evaluation.values["gain"], question_of_ranker(ranker)
    d = q.decimals(gain.ci_lower, gain.ci_upper)
    number = q.number(gain.value, d, signed=True)
    bounds = f"95 % interval {words.interval(q, gain.ci_lower, gain.ci_upper)}"
    if gain.ci_lower <= 0 <= gain.ci_upper:
        return "unclear", (
            f"No gain is shown: the held-out users do not tell whether the ranker’s choice is worth more than today’s ({number} {q.label}; {bounds} includes 0)."
        )
    if gain.value < 0:
        return "clear", f"Keep today’s choice: the ranker’s is worth {number} {q.label} ({bounds})."
    return "clear", f"The ranker’s choice is worth {number} {q.label} over today’s ({bounds})."


def debiasing(ranker: Ranker) -> str:
    """Whether a debiased objective beat the naive one."""
    c = ranker.choice
    if c is None:
        other = "" if ranker.objective.name == "naive" else " It was not compared with the naive loss; objective=cr.Auto() does that."
        return f"Trained with the {ranker.objective.name} loss.{other}"
    best = min(c.differences.items(), key=lambda kv: kv[1].value, default=None)
    if c.chosen == "naive" or best is None:
        tried = words.listed(list(c.differences))
        return f"Debiasing is not shown to pay: of {tried}, none beats the naive loss by more than {c.standard_errors:g} standard error, so that the naive ranker was kept."
    e = c.differences[c.chosen]
    q = of_risk(c.risk_of)
    sure = "" if e.ci_upper < 0 else " The interval includes no difference: kept by the rule, not proven."
    return (
        f"{c.chosen} was kept: its held-out risk is {q.number(-e.value, q.decimals(e.ci_lower, e.ci_upper))} {q.label} below that of the naive loss (95 % interval "
        f"of the difference {words.interval(q, e.ci_lower, e.ci_upper)}, not corrected for the number of candidates, {len(c.differences)}).{sure}"
    )


def sentences(ranker: Ranker) -> list[str]:
    """What stands below the decision."""
    e, q = ranker.evaluation, question_of_ranker(ranker)
    said = [f"Judged off policy (doubly robust) on {e.judges}; errors are clustered by {e.clusters}."]
    if "caused" in e.values:
        said.append(f"What its choice causes: {spread(q, e.values['caused'])} {q.label}; the rest would be clicked without being shown.")
    if ranker.objective.aims_at == "clicks":
        one = of_risk(e.risk_of, thousand=False)
        said.append(f"Held-out risk of its scores {spread(one, e.risks['DR'])} {one.label}, that of a constant {spread(one, e.risks_before['DR'])}.")
    said.append(debiasing(ranker))
    if e.mar is not None:
        m = e.mar
        said.append(
            f"On {m.n:,} impressions drawn at random: AUC {m.auc.value:.3f} (95 % interval {m.auc.ci_lower:.3f} to {m.auc.ci_upper:.3f}), "
            f"NDCG@{m.k} {m.ndcg.value:.3f} ({m.ndcg.ci_lower:.3f} to {m.ndcg.ci_upper:.3f})."
        )
    if ranker.rounds:
        said.append(f"{ranker.rounds[-1]._title()}")
    return said


def answer(ranker: Ranker, warned: list[str]) -> dict[str, Any]:
    """The top of the page: level, headline, sentences, what was tested, caveats; `warned` is what is out of bounds."""
    level, headline = decision(ranker)
    if warned:
        count = "one guard rail is" if len(warned) == 1 else f"{len(warned)} guard rails are"
        level, headline = "unclear", f"The weights cannot be trusted as they are: {count} out of bounds. At face value: {headline[:1].lower()}{headline[1:]}"
    tested = "Guard rails: all that have a bound hold." if not warned else f"Guard rails out of bounds: {len(warned)}."
    caveats = [f"{w[:1].upper()}{w[1:]}" for w in warned]
    return {
        "level": level, "headline": headline, "sentences": sentences(ranker), "tested": tested,
        "caveats": [words.shown(c, 2_000) for c in (*caveats, *ranker.evaluation.notes, *ranker.notes)],
    }  # fmt: skip


def beside(found: dict[str, Any], ranker: Ranker) -> dict[str, Any]:
    """The top of a page that is about more than the ranker, with what its choice is worth."""
    return found | {"sentences": [*found["sentences"], decision(ranker)[1]]}
