from __future__ import annotations

import math
import pickle
import sys
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from causalrec import ImpressionLog, read_log
from causalrec.errors import ArgumentError, MissingExtraError
from causalrec.nuisance.columns import WIDE, learn_design
from causalrec.represent import lexical
from causalrec.represent.lexical import LexicalStyle, lexical_blocks

TEXTS = st.lists(st.text(max_size=60), min_size=1, max_size=8)
ENGLISH = st.lists(
    st.sampled_from(["You", "WON'T", "believe", "7", "—", "great!", "why?", "“no”", "…", "but", "(video)"]),
    max_size=12,
).map(" ".join)


def features(text: str | None) -> dict[str, float]:
    style = LexicalStyle()
    names = style.get_feature_names_out().tolist()
    return dict(zip(names, style.fit_transform([text])[0].tolist(), strict=True))


def count(text: str, name: str) -> int:
    """A count that was measured, back from its logarithm."""
    return round(math.expm1(features(text)[name]))


def make_log(**columns: list[str | None]) -> ImpressionLog:
    n = 400
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"t": rng.integers(0, 2, n), "y": rng.integers(0, 2, n)})
    for name, texts in columns.items():
        frame[name] = np.array(texts, dtype=object)[rng.integers(0, len(texts), n)]
    return read_log(frame, treatment="t", outcome="y", text=list(columns))


def test_thirty_named_finite_columns_of_float32() -> None:
    style = LexicalStyle()
    values = style.fit_transform(["Red dress", None, "Why?"])
    names = style.get_feature_names_out()
    assert values.dtype == np.float32
    assert values.shape == (3, 30) == (3, len(set(names)))
    assert LexicalStyle(sentiment=None).fit_transform(["Red dress"]).shape == (1, 27)
    assert LexicalStyle(sentiment=None).get_feature_names_out().tolist() == names[:27].tolist()


def test_the_block_is_narrow_enough_to_be_shrunk_lightly() -> None:
    assert len(LexicalStyle().get_feature_names_out()) <= WIDE


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, "", "   ", "\n\t"])
def test_a_missing_or_blank_text_is_a_row_of_zeros(missing: str | None) -> None:
    values = LexicalStyle().transform([missing, "red"])
    assert not values[0].any()
    assert values[1].any()


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("Red dress", "log_characters", 9),
        ("Red dress – on sale", "log_words", 4),
        ("One. Two! Three", "log_sentences", 3),
        ("Wait... what?!", "log_sentences", 2),
        ("In 2014, 3rd of 10", "log_digits", 7),
        ("No! Never!!", "log_exclamation_marks", 3),
        ("Why? なぜ？", "log_question_marks", 2),
        ("a, b, c", "log_commas", 2),
        ("Watch: this; now", "log_colons", 2),
        ("He said 'it's done'", "log_quotes", 2),
        ("“Yes” and \"no\"", "log_quotes", 4),
        ("It's the dog's bone", "log_quotes", 0),
        ("A – b — c - d", "log_dashes", 3),
        ("well-known", "log_dashes", 0),
        ("And then… or....", "log_ellipses", 2),
        ("Look (now) [video]", "log_brackets", 2),
        ("The CEO of IBM is A man", "log_all_caps_words", 2),
        ("I told my son we won", "log_first_person", 3),
        ("The US told us", "log_first_person", 1),
        ("You’re late, your call", "log_second_person", 2),
        ("They saw her", "log_third_person", 2),
    ],
)  # fmt: skip
def test_counts_by_hand(text: str, name: str, expected: int) -> None:
    assert count(text, name) == expected


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("7 ways to spend $5 now", "numeral_share", 2 / 6),
        ("AbcD 12", "capital_share", 2 / 4),
        ("Red Dress on sale", "title_case_share", 2 / 4),
        ("to be or not to be", "type_token_ratio", 4 / 6),
        ("the dress of silk", "stop_word_share", 2 / 4),
        ("Is it true?", "ends_in_question", 1),
        ("“Is it true?”", "ends_in_question", 1),
        ("Really? Yes", "ends_in_question", 0),
        ("9 things", "first_is_number", 1),
        ("Seven things", "first_is_number", 1),
        ("“What’s in it", "first_is_question_word", 1),
        ("This dress", "first_is_determiner", 1),
        ("Dress this", "first_is_determiner", 0),
    ],
)  # fmt: skip
def test_shares_and_flags_by_hand(text: str, name: str, expected: float) -> None:
    assert features(text)[name] == pytest.approx(expected, abs=1e-6)


def test_reading_ease_is_fleschs_formula() -> None:
    text = "The cat sat on the mat. A yellow ribbon"  # 9 words, 2 sentences, 11 syllables
    expected = 206.835 - 1.015 * 9 / 2 - 84.6 * 11 / 9
    assert features(text)["reading_ease"] == pytest.approx(expected / 100, abs=1e-6)
    assert features("so")["reading_ease"] == pytest.approx(1.2122)
    assert features("internationalisation")["reading_ease"] == -1
    assert features("?!")["reading_ease"] == 0


def test_sentiment_is_vaders() -> None:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    for text in ("This is WONDERFUL!", "a terrible, sad story", "Red dress", "not good :("):
        found, scores = features(text), SentimentIntensityAnalyzer().polarity_scores(text)
        assert found["sentiment"] == pytest.approx(scores["compound"])
        assert found["positive_share"] == pytest.approx(scores["pos"])
        assert found["negative_share"] == pytest.approx(scores["neg"])


def test_equal_characters_in_another_encoding_are_the_same_text() -> None:
    values = LexicalStyle().transform(["Café", "Cafe\u0301"])
    assert np.array_equal(values[0], values[1])


@pytest.mark.parametrize(
    "text",
    ["全10回の講座、なぜ？", "Почему ОН ушёл?", "यह क्यों हुआ?", "لماذا؟", "🙂🙂", "\ud800", "\x00", "Ⓐ Ⓑ"],
)
def test_other_scripts_and_odd_characters_are_measured(text: str) -> None:
    found = features(text)
    assert np.isfinite(list(found.values())).all()
    assert found["log_characters"] > 0
    assert all(0 <= value <= 1 for name, value in found.items() if name.endswith("_share"))


@settings(deadline=None)
@given(TEXTS, st.randoms())
def test_the_order_of_the_texts_has_no_say(texts: list[str], random: object) -> None:
    order = list(range(len(texts)))
    random.shuffle(order)  # type: ignore[attr-defined]
    values = LexicalStyle().transform(texts)
    assert np.array_equal(LexicalStyle().transform([texts[i] for i in order]), values[order])


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_a_text_is_measured_whatever_stands_beside_it(texts: list[str], others: list[str]) -> None:
    alone = np.vstack([LexicalStyle().transform([text]) for text in texts])
    assert np.array_equal(LexicalStyle().transform([*others, *texts])[len(others) :], alone)
    assert np.array_equal(LexicalStyle().fit(others).transform(texts), alone)
    assert np.array_equal(LexicalStyle().transform(texts + texts)[len(texts) :], alone)


@settings(deadline=None)
@given(st.one_of(ENGLISH, st.text()))
def test_every_feature_is_finite_and_within_its_bounds(text: str) -> None:
    for name, value in features(text).items():
        low = -1 if name in ("sentiment", "reading_ease") else 0
        high = math.inf if name.startswith("log_") else 1.2122 if name == "reading_ease" else 1
        assert low <= value <= high + 1e-6, name


def test_long_texts_take_linear_time() -> None:
    start = time.perf_counter()
    LexicalStyle().transform(["good but bad " * 20_000, "." * 200_000 + "x", "?'" * 100_000, "a" * 200_000])
    assert time.perf_counter() - start < 5


def test_twenty_thousand_titles_take_seconds() -> None:
    titles = [
        f"Why {i} people didn't believe this “wonderful” story, and what YOU can do" for i in range(20_000)
    ]
    start = time.perf_counter()
    LexicalStyle().transform(titles)
    assert time.perf_counter() - start < 10  # 2 s on an idle core


def test_it_is_a_transformer_that_clones_pickles_and_names_its_frame() -> None:
    style = LexicalStyle(sentiment=None)
    assert clone(style).sentiment is None
    texts = pd.Series(["Red dress", "Why?"], index=[7, 9])
    twin = pickle.loads(pickle.dumps(style))
    assert np.array_equal(twin.transform(texts), style.transform(texts))
    framed = clone(style).set_output(transform="pandas").fit_transform(texts)
    assert framed.index.tolist() == [7, 9]
    assert framed.columns.tolist() == style.get_feature_names_out().tolist()
    assert style.transform([]).shape == (0, 27)


@pytest.mark.parametrize("wrong", ["one text", [["a"]], [1, 2], 5])
def test_what_is_no_list_of_texts_is_refused(wrong: object) -> None:
    with pytest.raises(ArgumentError, match="X "):
        LexicalStyle().transform(wrong)  # type: ignore[arg-type]


def test_an_unknown_lexicon_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"sentiment is 'vadr'.*Did you mean 'vader'"):
        LexicalStyle(sentiment="vadr").fit(["a"])  # type: ignore[arg-type]


def test_without_the_lexicon_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vaderSentiment", None)
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    lexical._analyser.cache_clear()
    with pytest.raises(MissingExtraError, match=r"pip install .*LexicalStyle\(sentiment=None\)"):
        LexicalStyle().transform(["red"])
    assert LexicalStyle(sentiment=None).transform(["red"]).shape == (1, 27)


def test_one_block_a_text_column_with_the_keys_of_its_texts() -> None:
    log = make_log(title=["Red dress", "Why?", None], teaser=["Red dress", "7 shoes"])
    blocks = lexical_blocks(log)
    assert [(b.name, b.kind, b.columns, b.width) for b in blocks] == [
        ("lexical:title", "lexical", ("title",), 30),
        ("lexical:teaser", "lexical", ("teaser",), 30),
    ]
    for block in blocks:
        assert np.array_equal(block.dense(), LexicalStyle().transform(log.frame[block.columns[0]]))
    title, teaser = (dict(zip(log.texts(b.columns[0])[0], b.keys, strict=True)) for b in blocks)
    assert title["Red dress"] == teaser["Red dress"]
    assert len(set(title.values())) == 3
    assert "VADER 3." in blocks[0].made_by


def test_blocks_take_the_transformer_that_is_given_and_need_a_text() -> None:
    (block,) = lexical_blocks(make_log(title=["Red", "Blue"]), LexicalStyle(sentiment=None))
    assert block.width == 27
    assert block.made_by == "LexicalStyle 27 columns, no sentiment"
    frame = make_log(title=["Red"]).frame
    assert lexical_blocks(read_log(frame, treatment="t", outcome="y")) == []


def test_constant_columns_stay_and_become_zeros_in_the_design() -> None:
    log = make_log(title=["red dress", "blue shoe"])
    (block,) = lexical_blocks(log)
    _, design = learn_design([block], len(log))
    (part,) = design.parts
    assert part.shrinkage == "light"
    constant = np.ptp(block.values, axis=0) == 0
    assert constant.any()
    assert np.abs(part.values[:, constant]).max() < 1e-6
