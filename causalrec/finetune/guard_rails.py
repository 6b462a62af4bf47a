"""Whether there is enough to learn from, and enough to judge by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from causalrec._display import Displayable
from causalrec.errors import EstimationError, OverlapError
from causalrec.finetune.calibration import expected_calibration_error
from causalrec.finetune.labels import Labels
from causalrec.log import ImpressionLog

LEAST_SHARE = 0.01
"""Effective sample size of the weights, as a share of the rows shown, below which they say nothing."""
LEAST_ROWS = 50
LEAST_HELD_OUT = 10
"""Held-out users with a row shown, below whom risks and values have no standard error worth the name."""


@dataclass(frozen=True)
class GuardRails(Displayable):
    """Whether the weights are fit to be trained with.

    Attributes
    ----------
    n, n_shown : rows, and those that were shown
    ess : Kish's effective sample size of the weights, examination included, of the rows shown, (Σ w)² / Σ w²
    largest_weight : share of Σ w that the largest has
    mean_weight : mean(T w); 1 in expectation at true propensities without clipping
    share_clipped : of the rows shown, those whose propensity is below the clip
    ece : expected calibration error of the propensity, 10 bins of equal mass.
    """

    n: int
    n_shown: int
    ess: float
    largest_weight: float
    mean_weight: float
    share_clipped: float
    ece: float

    def _title(self) -> str:
        return f"Guard rails: {self.n:,} rows, {self.n_shown:,} shown"

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {"guard rail": "effective sample size of the weights / rows shown", "value": self.ess / self.n_shown, "should be": "≥ 0.1"},
            {"guard rail": "share of all weight that the largest has", "value": self.largest_weight, "should be": "< 0.01"},
            {"guard rail": "mean of T / e", "value": self.mean_weight, "should be": "0.95 to 1.05"},
            {"guard rail": "share of rows shown whose propensity is clipped", "value": self.share_clipped, "should be": "< 0.05"},
            {"guard rail": "calibration error of the propensity (ECE)", "value": self.ece, "should be": "small beside the propensities"},
        ]  # fmt: skip

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is out of its bounds, in words."""
        out = []
        if self.ess < 0.1 * self.n_shown:
            out.append(
                f"the weights leave an effective sample of {self.ess:,.0f} of {self.n_shown:,} rows shown: clip more (clip=Clip(.05) of the objective; "
                "Weighing(clip=Clip(.05)) for those without a clip of their own) or take DR()."
            )
        if self.largest_weight > 0.01:
            out.append(f"one row has {100 * self.largest_weight:.1f} % of all weight.")
        if not 0.95 <= self.mean_weight <= 1.05:
            out.append(
                f"mean(T / e) is {self.mean_weight:.3f} and should be 1: the propensities are not those of this log, or the clip binds."
            )
        if self.share_clipped > 0.05:
            out.append(f"{100 * self.share_clipped:.0f} % of the rows shown are clipped, which biases what is learnt.")
        return tuple(out)


def guard_rails(labels: Labels) -> GuardRails:
    """Guard rails of the weights of some rows."""
    shown = labels.t == 1
    w = labels.learnt[shown]
    return GuardRails(
        len(labels), int(shown.sum()), float(w.sum() ** 2 / (w**2).sum()), float(w.max() / w.sum()),
        float((labels.t * labels.w1).mean()), float((labels.e[shown] < labels.clip.bound).mean()), expected_calibration_error(labels.e, labels.t),
    )  # fmt: skip


def check_support(labels: Labels, what: str, clipped_by: str = "Weighing") -> GuardRails:
    """The guard rails of these rows under their clip, which ``clipped_by(clip=...)`` sets; ``OverlapError`` where their weights support nothing."""
    rails = guard_rails(labels)
    if rails.ess < LEAST_SHARE * rails.n_shown or rails.ess < LEAST_ROWS / 5:
        raise OverlapError(
            f"{what}: the propensities leave an effective sample of {rails.ess:,.0f} of {rails.n_shown:,} rows shown, must be >= "
            f"{LEAST_SHARE:.0%} of them and >= {LEAST_ROWS // 5}; what was not shown has no support. Log more randomness, or clip more: {clipped_by}(clip=Clip(...)) with a bound above {labels.clip.bound:g}."
        )
    return rails


def users_shown(log: ImpressionLog) -> int:
    """Users with a row that was shown."""
    return len(np.unique(log.units[log.treatment == 1]))


def check_held_out(log: ImpressionLog) -> None:
    """Raise ``EstimationError`` where too few held-out users were shown anything."""
    if users_shown(log) < LEAST_HELD_OUT:
        raise EstimationError(
            f"{users_shown(log)} of {log.n_units} held-out users were shown anything, must be >= {LEAST_HELD_OUT}: they stop the training and judge the ranker, and so few have no "
            "standard error worth the name. Hold out more, Training(validation=0.4) say, or take a longer log."
        )
