"""A randomised e-mail campaign, its customers' histories as sentences, and a confounded version of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec._checks import as_generator, check_choice, check_scalar
from causalrec._display import Displayable
from causalrec.datasets.sources import sources
from causalrec.datasets.store import locate
from causalrec.errors import ColumnError

Floats = npt.NDArray[np.float64]

ARMS = {"women": "Womens E-Mail", "men": "Mens E-Mail"}
CONTROL = "No E-Mail"
HISTORY = ("recency", "history_segment", "mens", "womens", "zip_code", "channel", "newbie")
_AREA = {"Surburban": "in the suburbs", "Urban": "in the city", "Rural": "in the countryside"}
_CHANNEL = {"Web": "on the web", "Phone": "by phone", "Multichannel": "through several channels"}
_EPS = 0.1


@dataclass(frozen=True, eq=False)
class ConfoundedExperiment(Displayable):
    """Rows of an experiment, kept in such a way that exposure follows the customer's history.

    Attributes
    ----------
    frame : DataFrame
        Kept rows, with the index of the full experiment: its columns, ``mailed`` (0/1) and ``about``, the
        customer's history as a sentence.
    propensity : (n,)
        P(mailed = 1 | history) among the kept rows, by design.
    effect, std_error : float
        The target: effect of the mail on `visit` in the experiment (visits per customer), and its own
        standard error, for the experiment is a sample too.
    """

    frame: pd.DataFrame = field(repr=False)
    propensity: Floats = field(repr=False)
    effect: float
    std_error: float

    @property
    def naive(self) -> float:
        """Visit rate of the mailed minus that of the others, among the kept rows; not an effect."""
        return _difference(self.frame["visit"].to_numpy(float), self.frame["mailed"].to_numpy() == 1)[0]

    def _title(self) -> str:
        return f"Confounded experiment: {len(self.frame):,} customers kept"

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {"quantity": "effect in the experiment", "value": self.effect, "std_error": self.std_error},
            {"quantity": "naive difference of the kept rows", "value": self.naive, "std_error": None},
        ]

    def _notes(self) -> list[str]:
        return [
            "visits per customer",
            "every history was kept with the same probability, so that the target is the experiment's ATE",
        ]


def load_hillstrom() -> pd.DataFrame:
    """The MineThatData e-mail experiment: 64,000 customers × 12 columns, randomised to `segment`.

    Three arms of equal size: a mail of men's merchandise, one of women's, none. Outcomes `visit` and
    `conversion` (0/1) and `spend` (dollars), over the two weeks after. Effect on `visit`: +7.66 percentage
    points (men's), +4.52 (women's). The source spells the suburbs "Surburban".

    Raises
    ------
    DataUnavailableError
        The file is not on this machine and cannot be fetched.
    """
    return pd.read_csv(locate(sources()["hillstrom"], "hillstrom/hillstrom.csv"))


def hillstrom_text(frame: pd.DataFrame) -> pd.Series:
    """Each customer's history as one sentence: recency, money band, what was bought, where, how, since when.

    Parameters
    ----------
    frame : DataFrame
        Rows of ``load_hillstrom()``.

    Returns
    -------
    Series of str, with the index of `frame`, named ``about``.

    Raises
    ------
    ColumnError
        A column of the history is missing.
    """
    missing = [c for c in HISTORY if c not in frame.columns]
    if missing:
        raise ColumnError(
            f"frame has no column {missing}; must be rows of load_hillstrom(), with {list(HISTORY)}."
        )
    distinct = frame[list(HISTORY)].drop_duplicates()
    sentences = pd.Series([_sentence(*row) for row in distinct.itertuples(index=False)], dtype=object)
    key = pd.MultiIndex.from_frame(distinct)
    where = key.get_indexer(pd.MultiIndex.from_frame(frame[list(HISTORY)]))
    return pd.Series(sentences.to_numpy()[where], index=frame.index, name="about", dtype="str")


def confounded_hillstrom(
    arm: str = "women", strength: float = 1.0, random_state: int | np.random.Generator | None = None
) -> ConfoundedExperiment:
    r"""Make exposure follow the customer's history by rejection sampling; the target stays the same.

    Of the mailed and the unmailed customers (P(mailed) = p by randomisation), one with history x and arm t is
    kept with probability

    .. math:: \frac{1}{M} \frac{e(x)^t (1 - e(x))^{1-t}}{p^t (1-p)^{1-t}},
       \qquad e(x) = .1 + .8\,\sigma(strength \cdot x'w)

    M is the largest value of the second fraction that e in [.1, .9] allows. Over both arms a history is kept
    with probability 1/M whatever it is: the kept rows have the covariate distribution of the experiment (but
    for sampling), only P(mailed | x) has become e(x). So the target is the ATE in *all customers of the two
    arms*, the difference of means in the full experiment, all weights being one. x'w is standardised and high
    for customers who bought lately, for much (by money band), and not for the first time: the ones a shop
    would mail. All of x is in the sentence ``about``.

    Parameters
    ----------
    arm : {"women", "men"}
        Which mail, against none.
    strength : float
        Spread of the log odds of e(x); 0 is a smaller randomised experiment.
    random_state : int, Generator or None

    Returns
    -------
    ConfoundedExperiment

    Raises
    ------
    ArgumentError
        `arm` is no arm, or `strength` is negative.
    DataUnavailableError
        See ``load_hillstrom``.

    References
    ----------
    Keith, Feldman, Jurgens, Bragg, Bhattacharya (2023), "RCT rejection sampling for causal estimation
    evaluation", TMLR, algorithm 2.
    """
    check_choice(arm, "arm", list(ARMS))
    check_scalar(strength, "strength", ge=0)
    rng = as_generator(random_state)
    frame = load_hillstrom()
    frame = frame[frame["segment"].isin([ARMS[arm], CONTROL])]
    mailed = (frame["segment"] == ARMS[arm]).to_numpy()
    effect, std_error = _difference(frame["visit"].to_numpy(float), mailed)

    e, p = _target_propensity(frame, strength), mailed.mean()
    ratio = np.where(mailed, e / p, (1 - e) / (1 - p))
    kept = rng.random(len(frame)) < ratio / ((1 - _EPS) / min(p, 1 - p))
    chosen = frame[kept]
    chosen = chosen.assign(mailed=mailed[kept].astype(np.int64), about=hillstrom_text(chosen))
    return ConfoundedExperiment(chosen, e[kept], effect, std_error)


def _target_propensity(frame: pd.DataFrame, strength: float) -> Floats:
    band = frame["history_segment"].str[0].astype(int)  # the sentence says the band, so the band decides
    parts = (-frame["recency"], band, -frame["newbie"])
    index = np.sum([(x - x.mean()) / x.std() for x in parts], axis=0)
    return _EPS + (1 - 2 * _EPS) / (1 + np.exp(-strength * index / index.std()))


def _difference(y: Floats, treated: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Difference of means, and its standard error with unequal variances."""
    one, zero = y[treated], y[~treated]
    return float(one.mean() - zero.mean()), float(
        np.sqrt(one.var(ddof=1) / len(one) + zero.var(ddof=1) / len(zero))
    )


def _sentence(
    recency: int, segment: str, mens: int, womens: int, zip_code: str, channel: str, newbie: int
) -> str:
    band = (
        segment.split(") ")[1].replace("$", "").replace(" - ", " to ").replace("1,000 +", "more than 1,000")
    )
    bought = {(1, 0): "men's", (0, 1): "women's", (1, 1): "men's and women's"}.get((mens, womens), "other")
    months = "1 month" if recency == 1 else f"{recency} months"
    known = "a new customer" if newbie else "a long-standing customer"
    return (
        f"Last bought {months} ago and spent {band} dollars in the past year on {bought} merchandise, "
        f"{_CHANNEL[channel]}; {known} living {_AREA[zip_code]}."
    )
