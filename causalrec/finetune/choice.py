"""Which objective? Judged on held-out users, with naive as the rival that has to be beaten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from causalrec._checks import check_scalar
from causalrec._display import Displayable
from causalrec.errors import ArgumentError
from causalrec.finetune.objectives import DR, DRJL, MRDR, SNIPS, Naive, Objective
from causalrec.finetune.risk import UNITS
from causalrec.scores import Estimate


@dataclass(frozen=True)
class Auto:
    """Train with each candidate, and of those that beat naive take the one with the least held-out doubly robust risk.

    Debiased losses lose to the naive one where propensities are poor or logs short (on transformers: Hager et al. 2024), so
    that a candidate is taken only if it is better than naive by more than `standard_errors` of the paired difference.

    Parameters
    ----------
    candidates : tuple of Objective
        That aim at clicks. ``Naive()`` is always among them.
    standard_errors : float
    """

    candidates: tuple[Objective, ...] = (SNIPS(), DR(), DRJL(), MRDR())
    standard_errors: float = 1.0

    def __post_init__(self) -> None:
        check_scalar(self.standard_errors, "standard_errors", ge=0)
        if not self.candidates or not all(isinstance(c, Objective) for c in self.candidates):
            raise ArgumentError(f"candidates is {self.candidates!r}; must be a tuple of objectives such as (SNIPS(), DR()).")
        names = [c.name for c in self.candidates]
        if len(set(names)) < len(names):
            raise ArgumentError(f"candidates has {names}, must be of different names: train one objective's settings apart, and compare their evaluations.")
        other = [c.name for c in self.candidates if c.aims_at != "clicks"]
        if other:
            raise ArgumentError(f"candidates holds {other}, whose scores mean something else; train them by themselves.")

    @property
    def all(self) -> tuple[Objective, ...]:
        """Naive first, then the others."""
        return (Naive(), *(c for c in self.candidates if c.name != "naive"))


@dataclass(frozen=True, eq=False)
class ObjectiveChoice(Displayable):
    """How the candidates did on held-out users.

    Attributes
    ----------
    chosen : str
    differences : mapping of name to Estimate
        Held-out risk less that of naive, nats per impression or per pair; naive itself is left out.
    standard_errors : float
        By how many a candidate had to be better.
    where : str
    risk_of : "clicks" or "pairs"
    """

    chosen: str
    differences: dict[str, Estimate]
    standard_errors: float
    where: str
    risk_of: str = "clicks"

    def _title(self) -> str:
        return f"Objective: {self.chosen}, chosen on {self.where}"

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {
                "objective": name, f"risk less that of naive, {UNITS[self.risk_of]}": e.value, "std_error": e.std_error, "ci_lower": e.ci_lower,
                "ci_upper": e.ci_upper, "chosen": name == self.chosen,
            }
            for name, e in self.differences.items()
        ]  # fmt: skip

    def _notes(self) -> list[str]:
        return [
            f"Of those whose risk is below that of naive by more than {self.standard_errors:g} standard error of the paired difference, the best is taken; "
            "if there is none naive stays."
        ]


def choose(differences: dict[str, Estimate], standard_errors: float) -> str:
    """The name of the best of those that beat naive by so many standard errors, else "naive"."""
    better = {name: e.value for name, e in differences.items() if e.value < -standard_errors * e.std_error}
    return min(better, key=lambda name: better[name]) if better else "naive"
