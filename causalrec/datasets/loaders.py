"""Public data sets as frames. Each is looked for on this machine first; see ``sources()`` for terms."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec._checks import check_choice
from causalrec._display import Displayable
from causalrec.datasets.sources import sources
from causalrec.datasets.store import locate
from causalrec.errors import DataUnavailableError

Floats = npt.NDArray[np.float64]

_HERE = Path(__file__).resolve().parent
_DEMO_FOLDERS = (_HERE, _HERE.parents[1] / "data")  # installed; in the repository
_KINDS = {"other": "jacket", "parkas": "parka", "shells": "shell jacket", "vests": "vest"}


@dataclass(frozen=True, eq=False)
class Coat(Displayable):
    """Ratings of 300 coats by 290 users, once of their own choice and once at random.

    Attributes
    ----------
    train : (290, 300)
        Ratings 1–5 of the 24 coats that each user chose; 0 where there is none. Missing not at random.
    test : (290, 300)
        Ratings 1–5 of 16 coats drawn at random for each user; 0 where there is none.
    propensities : (290, 300)
        P(user rates coat in `train`), estimated by the authors from the features.
    users, items : DataFrame
        One column a feature, its level as text, and ``text``: the features as a sentence.
    """

    train: Floats = field(repr=False)
    test: Floats = field(repr=False)
    propensities: Floats = field(repr=False)
    users: pd.DataFrame = field(repr=False)
    items: pd.DataFrame = field(repr=False)

    def _title(self) -> str:
        return f"Coat: {len(self.users):,} users × {len(self.items):,} coats"

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {
                "ratings": name,
                "count": int((values > 0).sum()),
                "mean_rating": float(values[values > 0].mean()),
            }
            for name, values in (
                ("train, chosen by the user", self.train),
                ("test, drawn at random", self.test),
            )
        ]


def load_open_bandit(policy: str = "random", campaign: str = "men") -> pd.DataFrame:
    """Open Bandit Dataset, small sample: 10,000 impressions of 34 fashion items.

    Columns: timestamp, item_id, position (slot 1–3), click, propensity_score, user_feature_0 … 3 (hashed),
    user-item_affinity_0 … 33, item_feature_0 … 3 (joined by item_id). There is no user id: a row is its own unit.

    .. warning::
       ``propensity_score`` is P(**item** | slot) under the logging policy. It is *not* the probability of a
       slot: for an effect of the slot it must not be declared as ``propensity=``. It serves off-policy
       evaluation.

    Parameters
    ----------
    policy : {"random", "bts"}
        Uniform at random, or Bernoulli Thompson sampling.
    campaign : {"men"}

    Raises
    ------
    ArgumentError
        No such policy or campaign.
    DataUnavailableError
        The files are not on this machine and cannot be fetched.
    """
    check_choice(policy, "policy", ["random", "bts"])
    check_choice(campaign, "campaign", ["men"])
    source = sources()["open-bandit"]
    log = pd.read_csv(
        locate(source, f"open-bandit/{policy}/{campaign}.csv"), index_col=0, parse_dates=["timestamp"]
    )
    items = pd.read_csv(locate(source, f"open-bandit/{policy}/item_context.csv"), index_col=0)
    return log.merge(items, on="item_id", how="left", validate="many_to_one")


def load_upworthy() -> pd.DataFrame:
    """Upworthy Research Archive, exploratory part: 22,666 packages in 4,873 tests.

    Viewers were randomised within a test: compare within a test only.

    Columns: clickability_test_id, headline, lede, excerpt, impressions, clicks, significance, winner,
    first_place, test_week, eyecatcher_id, winner_count_anomaly, ctr (clicks per impression).

    Raises
    ------
    DataUnavailableError
        The file is not in ``CAUSALREC_DATA``; it has no address that it can be fetched from as it is.
    """
    return pd.read_parquet(locate(sources()["upworthy"], "upworthy/upworthy_clean.parquet")).reset_index(
        drop=True
    )


def load_goodbooks() -> pd.DataFrame:
    """goodbooks-10k: 10,000 books × 23 columns, among them title, authors, average_rating, ratings_1 … 5.

    Raises
    ------
    DataUnavailableError
        The file is not on this machine and cannot be fetched.
    """
    return pd.read_csv(locate(sources()["goodbooks"], "goodbooks/books.csv"))


def load_coat() -> Coat:
    """Coat shopping (Schnabel et al. 2016): ratings by choice and at random, propensities, features, texts.

    Raises
    ------
    DataUnavailableError
        The files are not on this machine and cannot be fetched.
    """
    source = sources()["coat"]

    def numbers(name: str) -> Floats:
        return np.loadtxt(locate(source, f"coat/{name}.ascii"))

    def features(who: str) -> pd.DataFrame:
        names = locate(source, f"coat/{who}_features_map.txt").read_text(encoding="utf-8").split("\n")
        return _levels(numbers(f"{who}_features"), [n.strip() for n in names if n.strip()])

    users, items = features("user"), features("item")
    return Coat(
        train=numbers("train"),
        test=numbers("test"),
        propensities=numbers("propensities"),
        users=users.assign(text=users.apply(_user_sentence, axis=1)),
        items=items.assign(text=items.apply(_item_sentence, axis=1)),
    )


def load_demo() -> pd.DataFrame:
    """The simulated demo log, with its truth in the columns ``true_*``; see ``demo_card``."""
    return pd.read_parquet(_demo_file("demo.parquet"))


def demo_card() -> dict[str, Any]:
    """What the demo log is: ``roles`` (keywords of ``read_log``), ``truth``, ``seed``, ``sha256`` and more."""
    card: dict[str, Any] = json.loads(_demo_file("demo.json").read_text(encoding="utf-8"))
    return card


def _demo_file(name: str) -> Path:
    for folder in _DEMO_FOLDERS:
        if (path := folder / name).is_file():
            return path
    raise DataUnavailableError(
        f"{name} is in neither {[str(f) for f in _DEMO_FOLDERS]}: the installation is not complete. "
        "Reinstall causalrec, or run data/make_demo.py in the repository."
    )


def _levels(one_hot: Floats, names: list[str]) -> pd.DataFrame:
    """One column a feature, from columns named ``feature:level`` of which one is 1 for each feature."""
    split = [name.split(":", 1) for name in names]
    frame = {}
    for feature in dict.fromkeys(f for f, _ in split):
        columns = [j for j, (f, _) in enumerate(split) if f == feature]
        levels = np.array([split[j][1] for j in columns], dtype=object)
        frame[feature] = levels[one_hot[:, columns].argmax(axis=1)]
    return pd.DataFrame(frame)


def _user_sentence(user: pd.Series) -> str:
    who = "Man" if user["gender"] == "men" else "Woman"
    interest = {"moderately": "moderately", "not at all": "not at all"}.get(user["fashioninterest"], "very")
    return (
        f"{who} aged {user['age']} from {_article(user['location'])} area, {interest} interested in fashion."
    )


def _item_sentence(item: pd.Series) -> str:
    colour = {"multi": "many-coloured", "other": "unusually coloured"}.get(item["color"], item["color"])
    kind = _KINDS.get(item["jackettype"], f"{item['jackettype']} jacket")
    front = ", shown on the front page" if item["onfrontpage"] == "yes" else ""
    return f"{colour.capitalize()} {kind} for {item['gender']}{front}."


def _article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"
