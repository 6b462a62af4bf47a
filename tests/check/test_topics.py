"""Topics, and balance on them: held back from the fit, blind to exposure and clicks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from small_logs import ROLES, make_world

import causalrec as cr
from causalrec.check.balance import balance, held_back
from causalrec.check.topics import find_topics

GARDEN = ("roses", "spade", "hedge", "compost", "lawn", "tulips")
KITCHEN = ("oven", "butter", "recipe", "flour", "skillet", "pastry")


def texts(n: int = 80, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Distinct texts about one of two things, and which."""
    rng = np.random.default_rng(seed)
    about = rng.integers(0, 2, n)
    words = [rng.choice((GARDEN, KITCHEN)[a], 3, replace=False) for a in about]
    return [f"{' '.join(w)} no {j}" for j, w in enumerate(words)], about


def test_topics_are_what_the_texts_are_about() -> None:
    said, about = texts()
    topics = find_topics(said, np.arange(80), most=2)
    assert topics is not None
    garden = int({w for w in topics.names[1].split(", ")} <= set(GARDEN))
    assert np.corrcoef(topics.shares[:, garden], about == 0)[0, 1] > 0.9
    assert topics.shares.sum(axis=1) == pytest.approx(np.ones(80))
    assert all(len(name.split(", ")) == 3 for name in topics.names)


def test_topics_do_not_depend_on_the_order_of_texts() -> None:
    said, _ = texts()
    order = np.random.default_rng(1).permutation(80)
    one = find_topics(said, np.arange(80))
    two = find_topics([said[i] for i in order], np.arange(80))
    assert one is not None
    assert two is not None
    assert one.names == two.names
    assert np.allclose(one.shares[order], two.shares)


@pytest.mark.parametrize(
    "said", [["one", "two"], [f"unlike{j}" for j in range(50)], [""] * 3, ["1 2 3"] * 40]
)
def test_texts_without_topics(said: list[str]) -> None:
    assert find_topics(said, np.arange(len(said))) is None


def worded(seed: int = 0, n: int = 3000, *, popularity: bool = False, ngrams: bool = False) -> cr.Fit:
    """A log whose titles' subject acts on exposure, adjusted for the word "roses" only."""
    rng = np.random.default_rng(seed)
    said, about = texts()
    item = np.minimum(rng.geometric(0.04, n) - 1, 79)
    shown = rng.random(n) < np.where(about[item] == 1, 0.65, 0.35)
    frame = pd.DataFrame(
        {
            "user": np.arange(n),
            "item": item,
            "title": np.array(said)[item],
            "shown": shown.astype(int),
            "clicked": (rng.random(n) < 0.4).astype(int),
        }
    )
    frame["popularity"] = np.bincount(item)[item] ** 2.0 if popularity else rng.standard_normal(n)
    log = cr.read_log(
        frame, treatment="shown", outcome="clicked", unit="user", item="item", text="title",
        confounders="popularity",
    )  # fmt: skip
    log = cr.embed(log, CountVectorizer(vocabulary=["roses"]), lexical=False, ngrams=ngrams)
    return cr.estimate(log, cr.identify(log), folds=cr.Folds(3), random_state=0)


def test_balance_is_judged_on_topics_and_popularity() -> None:
    fit = worded()
    names = list(held_back(fit))
    assert sum(name.startswith("topic of title: ") for name in names) >= 2
    assert names[-1] == "log rows of item"
    assert not any("letters" in name or "words in" in name for name in names)
    rows, record = balance(fit)
    assert record.passed is False
    assert "(topic of title: " in record.message
    assert "ngrams=True" in record.message
    assert len(rows) == len(names)


def test_popularity_that_was_adjusted_for_is_not_held_back() -> None:
    assert "log rows of item" not in held_back(worded(popularity=True))


def test_topics_of_words_that_were_adjusted_for_are_no_independent_witness() -> None:
    _, record = balance(worded(ngrams=True))
    assert abs(record.statistic) < abs(balance(worded())[1].statistic)
    assert "built from the same words" in record.message


def test_a_log_without_text_or_item_has_its_spare_columns_only() -> None:
    frame = make_world(600, 200).frame.assign(spare=np.arange(600.0))
    log = cr.read_log(frame, **ROLES)
    fit = cr.estimate(log, cr.identify(log), folds=cr.Folds(3), random_state=0)
    assert list(held_back(fit)) == ["spare"]
