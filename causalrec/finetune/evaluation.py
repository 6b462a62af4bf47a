"""How good is a ranker, judged on users that it has not seen: off policy by four estimators, and on random data if there is any."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from causalrec._display import Displayable
from causalrec.finetune.labels import Labels
from causalrec.finetune.policy_value import values
from causalrec.finetune.ranking import Ranking, quantity
from causalrec.finetune.risk import UNITS, judges_clicks, label_of, own_risk, risks
from causalrec.scores import Estimate

F64 = npt.NDArray[np.float64]
RISKS = {
    "clicks": f"risk by {{}}, {UNITS['clicks']}",
    "effect": f"risk of the effect by {{}}, {UNITS['effect']}",
    "policy": f"risk of the policy by {{}}, minus {UNITS['policy']}",
    "pairs": f"risk of the order by {{}}, {UNITS['pairs']}",
}
"""What a risk is of, by what the score is for."""
OF_RISKS = {
    "clicks": "The naive risk is that of what the old recommender showed; the others estimate that of all impressions, had they been shown.",
    "effect": "The score is for the effect of showing, and no log odds of a click: its risk is the log loss at (1 + effect) / 2, and there is no other.",
    "policy": "The score says whether to show, and is no log odds of a click: its risk is minus the clicks of the policy that shows with probability σ(score).",
    "pairs": "The scores were trained by pairs: they order a user's rows and are no log odds, so that they are judged by pairs as well, and log losses of clicks are left out.",
}


@dataclass(frozen=True, eq=False)
class Evaluation(Displayable):
    """A ranker on users who were held out.

    Attributes
    ----------
    risks, risks_before : mapping of "naive", "IPS", "SNIPS", "DR" to Estimate
        Held-out risk, nats per impression, of the ranker and of a constant that knows the mean.
    values : mapping of str to Estimate
        Clicks per impression shown: of the ranker's choice, of today's, their difference; caused clicks if known.
    mar : Ranking or None
    n, n_users : int
    notes : tuple of str
    curve_estimated : bool
        Whether errors hold those of an estimated P(examined).
    if_examined : bool
        Whether clicks were divided by P(examined): then values are those of impressions that are looked at, today's as well.
    risk_of : "clicks", "effect", "policy" or "pairs"
        What the risks are of. Of scores that are no log odds of a click there is one, "DR", of what they are for.
    unseen : bool
        Whether no weight has learnt from the held-out users, in earlier rounds either.
    random_judged : bool
        Whether randomly drawn impressions, and not the held-out users, stopped the training and chose the objective.
    clusters : "user", "user and item", "row" or "row and item"
        By what errors are clustered; rows where each stands for a user of its own.
    """

    risks: dict[str, Estimate] = field(repr=False)
    risks_before: dict[str, Estimate] = field(repr=False)
    values: dict[str, Estimate] = field(repr=False)
    mar: Ranking | None
    n: int
    n_users: int
    notes: tuple[str, ...] = ()
    curve_estimated: bool = False
    if_examined: bool = False
    risk_of: str = "clicks"
    unseen: bool = True
    random_judged: bool = False
    clusters: str = "user"

    def risk_name(self, estimator: str) -> str:
        """Of a risk, with its unit."""
        return RISKS[self.risk_of].format(estimator)

    @property
    def unit(self) -> str:
        """What values count."""
        return "clicks per impression shown and looked at" if self.if_examined else "clicks per impression shown"

    @property
    def judges(self) -> str:
        """The rows that it is judged on, in words."""
        return f"{self.n:,} held-out candidate impressions" if self.clusters.startswith("row") else f"{self.n:,} candidate impressions of {self.n_users:,} held-out users"

    def _title(self) -> str:
        gain = self.values["gain"]
        return (
            f"Ranker on {self.judges}: {gain.value:+.4f} {self.unit} against today's choice "
            f"[{gain.ci_lower:+.4f}, {gain.ci_upper:+.4f}], 95 %"
        )

    def _rows(self) -> list[dict[str, Any]]:
        rows = [quantity(self.risk_name(name), e) for name, e in self.risks.items()]
        rows += [quantity(self.risk_name(f"{name} of a constant"), e) for name, e in self.risks_before.items() if name == "DR"]
        words = {
            "value": f"{self.unit}, the ranker's choice (DR)",
            "value_today": f"{self.unit}, today's choice",
            "gain": "difference",
            "caused": "caused clicks per impression shown, the ranker's choice (DR)",
        }
        rows += [quantity(words[name], e) for name, e in self.values.items()]
        if self.mar is not None:
            rows += [{**r, "quantity": f"random data: {r['quantity']}"} for r in self.mar._rows()]
        return rows

    def _notes(self) -> list[str]:
        return [
            OF_RISKS[self.risk_of],
            *([] if self.unseen else ["Earlier rounds have learnt from some of these users: the numbers are too hopeful."]),
            f"The ranker's choice is as many of each user's rows as he is shown in expectation, the first by score (the last of them in part). Errors are clustered by {self.clusters}"
            + (", and hold those of the estimated P(examined)." if self.curve_estimated else "."),
            *self.notes,
        ]


def evaluate(
    f: F64, r: Labels, mar: Ranking | None, notes: tuple[str, ...] = (), aims_at: str = "clicks", pairwise: bool = False, unseen: bool = True,
    random_judged: bool = False,
) -> Evaluation:
    """Judge scores (n,), of what they are for, on held-out rows."""
    constant = np.full(len(r), _constant(r, aims_at))
    of = [risks(g, r) if judges_clicks(aims_at, pairwise) else {"DR": own_risk(g, r, aims_at, pairwise)} for g in (f, constant)]
    found = values(f, r)
    if found["value"].ci_lower > 1:
        notes += (
            f"The ranker's choice would be clicked {found['value'].value:.2f} times per impression: more than once, which cannot be. The propensities, or "
            "P(examined) where a curve was given, are not those of this log. Do not act on this value.",
        )
    return Evaluation(
        of[0], of[1], found, mar, len(r), int(r.units.max()) + 1, notes, r.curve_error is not None, r.if_examined, "pairs" if pairwise else aims_at, unseen,
        random_judged, clusters_of(r),
    )


def clusters_of(r: Labels) -> str:
    """By what the errors of these rows are clustered."""
    return ("row" if int(r.units.max()) + 1 == len(r) else "user") + ("" if r.items is None else " and item")


def _constant(r: Labels, aims_at: str) -> float:
    """The log odds that know the mean: of clicks if shown, of half of one plus the effect, or of showing today."""
    mean = np.clip(r.t.mean() if aims_at == "policy" else label_of(r, aims_at).mean(), 1e-4, 1 - 1e-4)
    return float(np.log(mean / (1 - mean)))
