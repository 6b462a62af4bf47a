"""How rows are weighed, and randomly drawn impressions beside the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from causalrec._checks import check_flag, check_scalar
from causalrec.errors import ArgumentError
from causalrec.finetune.examination import Examination
from causalrec.finetune.looked_at import Curve
from causalrec.identify import Plan
from causalrec.nuisance import Clip, NuisanceRecipe

MADE_BY = {
    "plan": "a Plan, as identify(log) makes it", "nuisances": "a NuisanceRecipe(...)", "clip": "Clip(...), such as Clip(.05)",
    "examination": "what position_curve(log) returns, or positions with their P(examined), such as {1: 1.0, 2: 0.6}",
}  # fmt: skip


@dataclass(frozen=True)
class Weighing:
    """How rows are weighed.

    Parameters
    ----------
    plan : Plan or None
        What P(shown) and the outcome are modelled by; None is ``identify(log)``.
    nuisances : NuisanceRecipe or None
    examination : Examination, mapping of position to P(examined), or None
        P(examined | position), as ``position_curve`` estimates it: clicks are divided by it, so that a label is relevance.
    policy_aware : bool
        Weigh shown rows by P(examined) over its mean given the covariates as well, where a curve is given: less variance, if the position
        does not depend on relevance beyond what the log declares. False needs no such assumption.
    clip : Clip or None
        Of the evaluation, and of objectives without one of their own.
    """

    plan: Plan | None = None
    nuisances: NuisanceRecipe | None = None
    examination: Curve | None = None
    clip: Clip | None = None
    policy_aware: bool = True

    def __post_init__(self) -> None:
        for name, kind in (("plan", Plan), ("nuisances", NuisanceRecipe), ("clip", Clip)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise ArgumentError(f"{name} is {value!r}; must be {MADE_BY[name]}, or None.")
        if isinstance(self.examination, Mapping):
            object.__setattr__(self, "examination", Examination.of(self.examination))
        if self.examination is not None and not hasattr(self.examination, "theta_at"):
            raise ArgumentError(f"examination is {self.examination!r}; must be {MADE_BY['examination']}, or None.")
        check_flag(self.policy_aware, "policy_aware")


@dataclass(frozen=True, eq=False)
class RandomData:
    """Impressions that were drawn at random and shown, as frames with the log's column names; none is trained on.

    They need the log's columns of text, history, unit, item and outcome; where they have its treatment as well, it has to say "shown" in every row.

    Parameters
    ----------
    test : DataFrame or None
        Judges the ranker.
    validation : DataFrame or None
        Stops the training and chooses the objective, in place of the held-out users' doubly robust risk. Of other rows than `test`; for objectives that aim at clicks.
    k : int
        Of NDCG@k.
    """

    test: pd.DataFrame | None = None
    validation: pd.DataFrame | None = None
    k: int = 5

    def __post_init__(self) -> None:
        check_scalar(self.k, "k", ge=1, integer=True)
        for name in ("test", "validation"):
            frame = getattr(self, name)
            if frame is not None and not isinstance(frame, pd.DataFrame):
                raise ArgumentError(f"{name} is a {type(frame).__name__}; must be a pandas DataFrame with the log's column names, or None.")
