"""Who and what there is in a simulated log: a catalogue of titles, users with tastes, and who meets what."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec.datasets.titles import N_TOPICS, TOPIC_NAMES, write_titles

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DEVICES = ("phone", "desktop", "tablet")
DEVICE_SHARE = (0.6, 0.3, 0.1)
HISTORY_LENGTH = (6, 10)
TASTE = 0.35
CTR_MEAN, CTR_SD = 0.12, 0.04
TENURE_MEAN, TENURE_SD = 4.0, 2.8
HOUR_MEAN, HOUR_SD = 15.0, 5.0
FIRST_DAY = np.datetime64("2026-03-02T00:00:00", "s")
DAYS = 28

_POPULARITY = np.array([1.5, -0.2, 0.4, -1.5, 0.9, -0.9, -0.6, 0.4])  # in the order of TOPICS
POPULARITY = (_POPULARITY - _POPULARITY.mean()) / _POPULARITY.std()


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The items: ``(m,)`` each, standardised levels, and where each topic's items lie in ``by_topic``."""

    titles: tuple[str, ...]
    topic: Ints
    sentiment: Floats
    quality: Floats
    written_at: npt.NDArray[np.datetime64]
    by_topic: Ints
    start: Ints

    def pick(self, topic: Ints, rng: np.random.Generator) -> Ints:
        """A random item of each topic in `topic` (any shape), as item codes of the same shape."""
        count = np.diff(self.start)[topic]
        return self.by_topic[self.start[topic] + (rng.random(topic.shape) * count).astype(np.int64)]

    def index(self, popularity: float, weights: tuple[float, float, float]) -> Floats:
        """``(m,)`` log odds of the words: popularity · w₀ · topic + w₁ · sentiment + w₂ · quality."""
        return (
            popularity * weights[0] * POPULARITY[self.topic]
            + weights[1] * self.sentiment
            + weights[2] * self.quality
        )

    def to_frame(self) -> pd.DataFrame:
        """One row an item: its title and the latents that it was written from."""
        names = np.array(TOPIC_NAMES, dtype=object)
        return pd.DataFrame(
            {
                "item_id": labels("i", len(self.titles)),
                "title": self.titles,
                "topic": names[self.topic],
                "sentiment": self.sentiment,
                "quality": self.quality,
            }
        )


@dataclass(frozen=True, eq=False)
class Users:
    """The users: ``(G,)`` each; `match` is ``(G, 8)``, how well each topic fits the user's history."""

    tenure: Floats
    device: Ints
    past_ctr: Floats
    inclination: Floats
    histories: npt.NDArray[np.object_]
    match: Floats
    share: Floats
    activity: Floats


@dataclass(frozen=True, eq=False)
class Meetings:
    """The impressions in order of time, ``(n,)`` each: which user, which item, when."""

    user: Ints
    item: Ints
    hour: Ints
    shown_at: npt.NDArray[np.datetime64]


def labels(prefix: str, count: int) -> npt.NDArray[np.object_]:
    """``prefix`` and a zero-padded number, `count` of them."""
    width = len(str(count - 1))
    return np.array([f"{prefix}{k:0{width}d}" for k in range(count)], dtype=object)


def draw_catalogue(n_items: int, rng: np.random.Generator) -> Catalogue:
    """Items with topics as even as can be, uniform levels of sentiment and quality, and a title for each."""
    topic = rng.permutation(np.arange(n_items) % N_TOPICS)
    sentiment, quality = rng.integers(-2, 3, (2, n_items))
    age = rng.integers(1, 60 * 24 * 60, n_items)
    return Catalogue(
        titles=tuple(write_titles(topic, sentiment, quality, rng)),
        topic=topic,
        sentiment=sentiment / np.sqrt(2),
        quality=quality / np.sqrt(2),
        written_at=FIRST_DAY - age.astype("timedelta64[m]"),
        by_topic=np.argsort(topic, kind="stable"),
        start=np.concatenate([[0], np.cumsum(np.bincount(topic, minlength=N_TOPICS))]),
    )


def draw_users(n_users: int, catalogue: Catalogue, rng: np.random.Generator) -> Users:
    """Users with a taste over topics, and the titles that each clicked before the log begins.

    The match of a user and a topic is the share of the user's history in that topic, standardised over
    users and topics: whatever a recommender can know of a taste, it knows from the history.
    """
    taste = rng.dirichlet(np.full(N_TOPICS, TASTE), n_users)
    longest = HISTORY_LENGTH[1]
    topics = _draw_rows(taste[:, None, :], (n_users, longest), rng)
    read = np.arange(longest) < rng.integers(HISTORY_LENGTH[0], longest + 1, n_users)[:, None]
    items = catalogue.pick(topics, rng)
    histories = np.empty(n_users, dtype=object)
    for g in range(n_users):
        histories[g] = [catalogue.titles[j] for j in items[g, read[g]]]
    share = (
        np.stack([((topics == k) & read).sum(axis=1) for k in range(N_TOPICS)], axis=1)
        / read.sum(axis=1)[:, None]
    )
    shown = rng.standard_normal(n_users)
    past_ctr = (CTR_MEAN + CTR_SD * shown).clip(min=0.005).round(3)
    return Users(
        tenure=np.minimum(rng.gamma(2.0, TENURE_MEAN / 2, n_users), 20.0).round(1),
        device=rng.choice(len(DEVICES), n_users, p=DEVICE_SHARE),
        past_ctr=past_ctr,
        inclination=0.6 * (past_ctr - CTR_MEAN) / CTR_SD + 0.8 * rng.standard_normal(n_users),
        histories=histories,
        match=(share - 1 / N_TOPICS) / max(share.std(), 1e-9),
        share=share,
        activity=rng.lognormal(0.0, 0.5, n_users),
    )


def draw_meetings(n: int, users: Users, catalogue: Catalogue, rng: np.random.Generator) -> Meetings:
    """Who meets what: half of the candidates are from the topics of the user's history."""
    weight = np.cumsum(users.activity)
    user = np.searchsorted(weight, rng.random(n) * weight[-1], side="right").clip(max=len(weight) - 1)
    topic = _draw_rows((0.5 * users.share + 0.5 / N_TOPICS)[user], (n,), rng)
    hours = np.exp(-0.5 * ((np.arange(24) - 18) / 5) ** 2) + 0.15
    hour = np.searchsorted(np.cumsum(hours / hours.sum()), rng.random(n), side="right").clip(max=23)
    second = rng.integers(0, DAYS, n) * 86_400 + hour * 3_600 + rng.integers(0, 3_600, n)
    item = catalogue.pick(topic, rng)
    order = np.argsort(second, kind="stable")
    shown_at = FIRST_DAY + second[order].astype("timedelta64[s]")
    return Meetings(user=user[order], item=item[order], hour=hour[order], shown_at=shown_at)


def _draw_rows(probabilities: Floats, shape: tuple[int, ...], rng: np.random.Generator) -> Ints:
    """One code drawn for each entry of `shape`; `probabilities` broadcasts, its last axis being the codes."""
    below = np.cumsum(probabilities, axis=-1)[..., :-1]
    return (rng.random(shape)[..., None] > below).sum(axis=-1)
