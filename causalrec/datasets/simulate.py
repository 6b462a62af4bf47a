"""A click log whose truth is known: a recommender that acts on titles and histories, and tau of every row."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec._checks import as_generator, check_scalar
from causalrec._display import Displayable
from causalrec.datasets import world
from causalrec.datasets.law import Law, Rows, draw_slots
from causalrec.errors import OutputError
from causalrec.log import ImpressionLog
from causalrec.reading import read_log

Floats = npt.NDArray[np.float64]

COLUMNS = (
    "user_id", "item_id", "title", "history", "tenure", "device", "past_ctr", "hour",
    "position", "score", "recommended", "clicked", "shown_at", "written_at",
)  # fmt: skip
ROLES: dict[str, Any] = {
    "treatment": "recommended",
    "outcome": "clicked",
    "text": "title",
    "history": "history",
    "unit": "user_id",
    "item": "item_id",
    "modifiers": ["tenure", "device"],
    "confounders": ["past_ctr", "hour"],
    "position": "position",
    "time": ["written_at", "shown_at"],
}


@dataclass(frozen=True, eq=False)
class Simulation(Displayable):
    """A simulated log and its truth.

    Attributes
    ----------
    frame : DataFrame, n rows in order of time
        What an analyst would have: user_id, item_id, title, history, tenure, device, past_ctr, hour,
        position, score, recommended, clicked, shown_at, written_at.
    propensity : (n,)
        P(recommended = 1) of the row, given all that the recommender acted on.
    p0, p1 : (n,)
        P(clicked = 1) of the row if it is not, or is, recommended; clicks per impression, averaged over the
        slots that the recommender may choose afterwards.
    match : (n,)
        How well the item's topic fits the user's history, standardised.
    items : DataFrame
        The catalogue: item_id, title, topic, sentiment, quality, and the words' part of the log odds of being
        recommended (`exposure_index`; 0 without confounding, or randomised) and of being clicked
        (`click_index`).
    """

    frame: pd.DataFrame = field(repr=False)
    propensity: Floats = field(repr=False)
    p0: Floats = field(repr=False)
    p1: Floats = field(repr=False)
    match: Floats = field(repr=False)
    items: pd.DataFrame = field(repr=False)

    @property
    def tau(self) -> Floats:
        """``(n,)`` effect of being recommended, p1 − p0, in clicks per impression."""
        return self.p1 - self.p0

    @property
    def ate(self) -> float:
        """Mean of tau over the rows."""
        return float(self.tau.mean())

    @property
    def att(self) -> float:
        """Mean of tau over the rows that were recommended."""
        return float(self.tau[self._treated].mean())

    @property
    def ato(self) -> float:
        """Mean of tau with the overlap weights e (1 − e), e the true propensity."""
        return float(np.average(self.tau, weights=self.propensity * (1 - self.propensity)))

    @property
    def naive(self) -> float:
        """Click rate of the recommended rows minus that of the others; not an effect."""
        clicked = self.frame["clicked"].to_numpy()
        return float(clicked[self._treated].mean() - clicked[~self._treated].mean())

    @property
    def _treated(self) -> npt.NDArray[np.bool_]:
        return self.frame["recommended"].to_numpy() == 1

    def log(
        self, *, text: bool = True, history: bool = True, score: bool = False, propensity: bool = False
    ) -> ImpressionLog:
        """The frame with its roles declared.

        Parameters
        ----------
        text, history : bool
            Declare the title, and the titles clicked before.
        score : bool
            Declare the recommender's own ranking score; otherwise the log has no such column.
        propensity : bool
            Add the true propensity as the column ``logged_propensity`` and declare it.

        Returns
        -------
        ImpressionLog
        """
        roles = {k: v for k, v in ROLES.items() if (text or k != "text") and (history or k != "history")}
        frame = self.frame if score else self.frame.drop(columns="score")
        if score:
            roles["score"] = "score"
        if propensity:
            roles["propensity"] = "logged_propensity"
            frame = frame.assign(logged_propensity=self.propensity)
        return read_log(frame, **roles)

    def truth_frame(self) -> pd.DataFrame:
        """The frame with its truth beside it: true_propensity, true_p0, true_p1, true_tau."""
        return self.frame.assign(
            true_propensity=self.propensity, true_p0=self.p0, true_p1=self.p1, true_tau=self.tau
        )

    def to_parquet(self, path: str | Path) -> None:
        """Write ``truth_frame()`` as one Parquet file.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        try:
            self.truth_frame().to_parquet(path, index=False)
        except OSError as error:
            raise OutputError(
                f"path is {str(path)!r}, cannot be written ({error}); name a file in a folder that exists."
            ) from error

    def _title(self) -> str:
        users, items = self.frame["user_id"].nunique(), self.frame["item_id"].nunique()
        return f"Simulated log: {len(self.frame):,} impressions, {users:,} users, {items:,} items shown"

    def _rows(self) -> list[dict[str, Any]]:
        return [{"quantity": name, "value": getattr(self, name)} for name in ("ate", "att", "ato", "naive")]

    def _notes(self) -> list[str]:
        e = self.propensity
        return [
            "clicks per impression; ate, att and ato are exact means over these rows",
            "naive is the difference of click rates, and not an effect",
            f"true propensity {e.min():.3f} to {e.max():.3f}; {100 * self._treated.mean():.1f} % recommended",
        ]


def simulate(
    n: int = 20_000,
    *,
    n_users: int = 2_000,
    n_items: int = 800,
    effect: float = 0.5,
    heterogeneity: float = 0.3,
    confounding: float = 1.0,
    match: float = 1.0,
    popularity: float = 1.0,
    click_rate: float = 0.08,
    user_sd: float = 0.5,
    hidden: float = 0.0,
    overlap_eps: float = 0.03,
    overlap_scale: float = 1.0,
    randomised: bool = False,
    score_noise: float = 0.0,
    random_state: int | np.random.Generator | None = None,
) -> Simulation:
    r"""Simulate a log of impressions with a known effect of being recommended.

    Titles are written from a topic, a sentiment and a quality. With the words' indices :math:`g_e, g_c`
    (linear in topic popularity, sentiment and quality), m the match of the item's topic and the user's
    history, x the covariates (tenure, phone, past_ctr, hour; standardised) and u the user's own inclination
    to click,

    .. math::
        e &= \epsilon + (1 - 2 \epsilon)\, \sigma\{a + s\,[c\,(g_e + 0.25\, k\, m) + x'\alpha] + h\, u\} \\
        p_t &= \mathrm{mean}_{l | t}\; \sigma\{b + g_c + 0.15\, k\, m + x'\beta + r\, u + t\, \delta + s_l\} \\
        \delta &= effect + heterogeneity \cdot (tenure + phone + m) / \sqrt{3}

    l being the slot, which the recommender sets afterwards (1–3 for recommended items, 4–8 for others) and
    through which half of `effect` comes about: a mediator. u is correlated with past_ctr (.6). a makes .4 the
    mean of e, and b makes `click_rate` the mean of p0.

    Parameters
    ----------
    n, n_users, n_items : int
        Impressions; users (clusters, of uneven activity); distinct titles (at least 8).
    effect : float
        Mean effect on the log odds of a click. 0 together with heterogeneity 0: no row has an effect.
    heterogeneity : float
        Standard deviation of the effect over rows, in log odds.
    confounding : float
        c, how strongly exposure follows the words and the match; 0: words act on clicks only (tenure,
        device, past_ctr and hour still act on both).
    match : float
        k, how strongly the match acts, on exposure and on clicks.
    popularity : float
        Spread of the topics' popularity, in exposure and in clicks.
    click_rate : float
        Mean of p0, in (0, 1).
    user_sd : float
        r, standard deviation of the users' own inclination to click, in log odds.
    hidden : float
        h, how strongly exposure follows that inclination, which no column shows: if not 0, there is
        unobserved confounding.
    overlap_eps : float
        ε, the propensity stays within [ε, 1 − ε]; in (0, .5).
    overlap_scale : float
        s, spread of the propensity; above 1 the arms overlap less.
    randomised : bool
        Exposure by a coin with P = .4.
    score_noise : float
        Standard deviation of noise on the logged score, in log odds. With 0, and hidden 0, the score is a
        balancing score.
    random_state : int, Generator or None

    Returns
    -------
    Simulation

    Raises
    ------
    ArgumentError
        A number is out of its bounds.
    """
    law = Law(
        effect=effect, heterogeneity=heterogeneity, confounding=confounding, match=match,
        popularity=popularity, click_rate=click_rate, user_sd=user_sd, hidden=hidden, overlap_eps=overlap_eps,
        overlap_scale=overlap_scale, randomised=randomised,
    )  # fmt: skip
    check_scalar(score_noise, "score_noise", ge=0)
    n = check_scalar(n, "n", ge=1, integer=True)
    n_users = check_scalar(n_users, "n_users", ge=1, integer=True)
    n_items = check_scalar(n_items, "n_items", ge=8, integer=True)
    for_items, for_users, for_rows, for_draws = as_generator(random_state).spawn(4)
    catalogue = world.draw_catalogue(n_items, for_items)
    users = world.draw_users(n_users, catalogue, for_users)
    meetings = world.draw_meetings(n, users, catalogue, for_rows)
    rows = Rows.of(meetings, users, catalogue)

    words = law.exposure_words(catalogue)
    score = law.score(rows, words)
    propensity = law.propensity(rows, score)
    treated = for_draws.random(n) < propensity
    slot = draw_slots(treated, for_draws)
    index, gain = law.click_index(rows, law.click_words(catalogue)), law.gain(rows)
    p0, p1 = law.click_chances(index, gain)
    clicked = for_draws.random(n) < law.click_chance(index, gain, treated, slot)
    logged_score = score + score_noise * for_draws.standard_normal(n)
    items = catalogue.to_frame().assign(
        exposure_index=np.zeros(n_items) if law.randomised else words, click_index=law.click_words(catalogue)
    )
    frame = _frame(meetings, users, catalogue).assign(
        position=slot,
        score=logged_score,
        recommended=treated.astype(np.int64),
        clicked=clicked.astype(np.int64),
    )
    return Simulation(frame[list(COLUMNS)], propensity, p0, p1, rows.match, items)


def _frame(meetings: world.Meetings, users: world.Users, catalogue: world.Catalogue) -> pd.DataFrame:
    """The columns that were there before the recommender decided."""
    user, item = meetings.user, meetings.item
    devices = pd.Categorical(np.array(world.DEVICES)[users.device], categories=list(world.DEVICES))
    return pd.DataFrame(
        {
            "user_id": world.labels("u", len(users.tenure))[user],
            "item_id": world.labels("i", len(catalogue.titles))[item],
            "title": np.array(catalogue.titles, dtype=object)[item],
            "history": users.histories[user],
            "tenure": users.tenure[user],
            "device": devices.take(user),
            "past_ctr": users.past_ctr[user],
            "hour": meetings.hour,
            "shown_at": meetings.shown_at,
            "written_at": catalogue.written_at[item],
        }
    )
