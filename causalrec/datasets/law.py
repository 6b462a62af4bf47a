"""The law of a simulated log: who is recommended what, and who clicks, as functions of known latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from causalrec._checks import check_scalar
from causalrec.datasets import world
from causalrec.errors import ArgumentError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

TREATED_SHARE = 0.4
TREATED_SLOTS = np.arange(1, 4)
CONTROL_SLOTS = np.arange(4, 9)
SLOT_SHARE = 0.5  # of the effect, that comes about through the slot
EXPOSURE_WORDS = (0.4, 0.2, 0.1)  # log odds for one SD of topic popularity, sentiment, quality
CLICK_WORDS = (0.25, 0.15, 0.1)
EXPOSURE_MATCH, CLICK_MATCH = 0.25, 0.15
EXPOSURE_COVARIATES = (0.2, 0.2, 0.3, 0.2)  # tenure, phone, past_ctr, hour
CLICK_COVARIATES = (0.15, 0.2, 0.0, 0.2)  # past_ctr acts through the inclination to click
_MOST_ROWS = 50_000


@dataclass(frozen=True, eq=False)
class Rows:
    """What acts on exposure and click, ``(n,)`` each; all but `item` standardised."""

    item: Ints
    match: Floats
    tenure: Floats
    phone: Floats
    past_ctr: Floats
    hour: Floats
    inclination: Floats

    @classmethod
    def of(cls, meetings: world.Meetings, users: world.Users, catalogue: world.Catalogue) -> Rows:
        """Look up users and items of each meeting."""
        share = world.DEVICE_SHARE[0]
        phone = ((users.device == 0) - share) / np.sqrt(share * (1 - share))
        tenure = (users.tenure - world.TENURE_MEAN) / world.TENURE_SD
        past_ctr = (users.past_ctr - world.CTR_MEAN) / world.CTR_SD
        u = meetings.user
        return cls(
            item=meetings.item,
            match=users.match[u, catalogue.topic[meetings.item]],
            tenure=tenure[u],
            phone=phone[u],
            past_ctr=past_ctr[u],
            hour=(meetings.hour.astype(np.float64) - world.HOUR_MEAN) / world.HOUR_SD,
            inclination=users.inclination[u],
        )

    def covariates(self, weights: tuple[float, float, float, float]) -> Floats:
        """Weighted sum of tenure, phone, past_ctr and hour."""
        parts = (self.tenure, self.phone, self.past_ctr, self.hour)
        return np.sum([w * x for w, x in zip(weights, parts, strict=True)], axis=0)


@dataclass(frozen=True)
class Law:
    """The knobs of ``simulate`` that decide who is recommended and who clicks; see there."""

    effect: float
    heterogeneity: float
    confounding: float
    match: float
    popularity: float
    click_rate: float
    user_sd: float
    hidden: float
    overlap_eps: float
    overlap_scale: float
    randomised: bool

    def __post_init__(self) -> None:
        if not isinstance(self.randomised, (bool, np.bool_)):
            raise ArgumentError(f"randomised is {self.randomised!r}, must be True or False.")
        signed = ("effect", "hidden")
        for name in (f.name for f in fields(self) if f.name != "randomised"):
            check_scalar(getattr(self, name), name, ge=None if name in signed else 0)
        check_scalar(self.click_rate, "click_rate", gt=0, lt=1)
        check_scalar(self.overlap_eps, "overlap_eps", gt=0, lt=0.5)

    def exposure_words(self, catalogue: world.Catalogue) -> Floats:
        """``(m,)`` the words' part of the recommender's ranking score, in log odds."""
        return self.overlap_scale * self.confounding * catalogue.index(self.popularity, EXPOSURE_WORDS)

    def click_words(self, catalogue: world.Catalogue) -> Floats:
        """``(m,)`` the words' part of the log odds of a click."""
        return catalogue.index(self.popularity, CLICK_WORDS)

    def score(self, rows: Rows, words: Floats) -> Floats:
        """``(n,)`` the recommender's ranking score: log odds of being recommended, up to a constant."""
        others = self.confounding * self.match * EXPOSURE_MATCH * rows.match + rows.covariates(
            EXPOSURE_COVARIATES
        )
        return words[rows.item] + self.overlap_scale * others

    def propensity(self, rows: Rows, score: Floats) -> Floats:
        """``(n,)`` P(recommended = 1), within [ε, 1 − ε], with mean .4."""
        if self.randomised:
            return np.full(len(score), TREATED_SHARE)
        index = score + self.hidden * rows.inclination
        inner = (TREATED_SHARE - self.overlap_eps) / (1 - 2 * self.overlap_eps)
        index += _intercept(_sigmoid, index, min(max(inner, 0.05), 0.95))
        return self.overlap_eps + (1 - 2 * self.overlap_eps) * _sigmoid(index)

    def click_index(self, rows: Rows, words: Floats) -> Floats:
        """``(n,)`` log odds of a click in an average control slot; the intercept gives `click_rate`."""
        index = words[rows.item] + self.match * CLICK_MATCH * rows.match + rows.covariates(CLICK_COVARIATES)
        index += self.user_sd * rows.inclination
        return index + _intercept(lambda b: self._over_slots(b, CONTROL_SLOTS), index, self.click_rate)

    def gain(self, rows: Rows) -> Floats:
        """``(n,)`` log odds that exposure adds: effect + heterogeneity · (tenure + phone + match) / √3."""
        return self.effect + self.heterogeneity * (rows.tenure + rows.phone + rows.match) / np.sqrt(3)

    def click_chances(self, index: Floats, gain: Floats) -> tuple[Floats, Floats]:
        """``(n,)`` p0 and p1: P(click) by arm, averaged over the slots of the arm."""
        return self._over_slots(index, CONTROL_SLOTS), self._over_slots(index + gain, TREATED_SLOTS)

    def click_chance(self, index: Floats, gain: Floats, treated: npt.NDArray[np.bool_], slot: Ints) -> Floats:
        """``(n,)`` P(click) in the arm and the slot that came about."""
        centre = np.where(treated, TREATED_SLOTS.mean(), CONTROL_SLOTS.mean())
        return _sigmoid(index + treated * gain + self._per_slot * (centre - slot))

    @property
    def _per_slot(self) -> float:
        return SLOT_SHARE * self.effect / float(CONTROL_SLOTS.mean() - TREATED_SLOTS.mean())

    def _over_slots(self, index: Floats, slots: Ints) -> Floats:
        shifts = self._per_slot * (slots.mean() - slots)
        return np.mean([_sigmoid(index + s) for s in shifts], axis=0)


def draw_slots(treated: npt.NDArray[np.bool_], rng: np.random.Generator) -> Ints:
    """``(n,)`` slots: one of 1–3 for recommended rows, one of 4–8 for the others, each as likely."""
    u = rng.random(len(treated))
    own, other = (slots[(u * len(slots)).astype(np.int64)] for slots in (TREATED_SLOTS, CONTROL_SLOTS))
    return np.where(treated, own, other)


def _sigmoid(x: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-np.clip(x, -35.0, 35.0)))


def _intercept(mean_of: Callable[[Floats], Floats], index: Floats, target: float) -> float:
    """The constant c for which the mean of ``mean_of(index + c)`` is `target`, by bisection.

    Means are taken over at most 50,000 evenly spaced rows.
    """
    some = index[:: max(1, len(index) // _MOST_ROWS)]
    low, high = -60.0, 60.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if mean_of(some + middle).mean() < target else (low, middle)
    return (low + high) / 2
