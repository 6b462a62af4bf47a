from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer

from causalrec import ImpressionLog, read_log
from causalrec.errors import ArgumentError, RepresentationError
from causalrec.represent.ngrams import WordNgrams, ngram_blocks

COLOURS = ("red", "blue", "green", "grey", "white")
THINGS = ("dress", "shoe", "coat", "scarf", "hat", "glove")
TITLES = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]
WORDS = st.lists(st.sampled_from(TITLES), min_size=1, max_size=10)


def make_log(**columns: list[str | None]) -> ImpressionLog:
    n = 400
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"t": rng.integers(0, 2, n), "y": rng.integers(0, 2, n)})
    for name, texts in columns.items():
        frame[name] = np.array(texts, dtype=object)[rng.integers(0, len(texts), n)]
    return read_log(frame, treatment="t", outcome="y", text=list(columns))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_components_of_words_and_of_letters_side_by_side() -> None:
    ngrams = WordNgrams(components=5)
    values = ngrams.fit_transform(TITLES)
    assert values.dtype == np.float32
    assert values.shape == (30, 10)
    names = ngrams.get_feature_names_out().tolist()
    assert names == [f"word_{j}" for j in range(5)] + [f"character_{j}" for j in range(5)]
    assert cosine(values[0], values[1]) > cosine(values[0], values[-1])  # two red things, and a white one


def test_all_components_keep_the_inner_products_of_tf_idf() -> None:
    values = WordNgrams(components=1_000).fit_transform(TITLES)
    words = TfidfVectorizer(token_pattern=r"\b\w+\b", ngram_range=(1, 2), sublinear_tf=True)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    expected = sum((a := v.fit_transform(TITLES)) @ a.T for v in (words, letters)).toarray()
    assert np.allclose(values @ values.T, expected, atol=1e-4)


def test_letters_see_through_a_misspelling() -> None:
    values = WordNgrams(components=50).fit([*TITLES, "red dresses"]).transform(["dress", "dresss", "glove"])
    assert cosine(values[0], values[1]) > 0.5 > cosine(values[0], values[2])


def test_components_shrink_to_what_the_texts_hold() -> None:
    assert WordNgrams().fit_transform(["red dress"]).shape == (1, 2)
    assert WordNgrams().fit_transform(["red", "blue"]).shape == (2, 4)
    many = WordNgrams().fit_transform(TITLES)
    assert many.shape[1] <= 60
    assert (np.linalg.norm(many, axis=0) > 1e-3).all()


def test_directions_that_are_rounding_error_are_left_out() -> None:
    texts = ["a b", "b a", "b  a", "A B", "a  b"]  # words: two distinct rows
    ngrams = WordNgrams().fit(texts)
    assert sum(name.startswith("word") for name in ngrams.get_feature_names_out()) == 2


def test_a_single_letter_still_has_a_column() -> None:
    values = WordNgrams().fit_transform(["a", "", None])
    assert values.shape == (3, 2)
    assert values[0].all()
    assert not values[1:].any()


@pytest.mark.parametrize("texts", [[], [""], [None, "  "]])
def test_texts_without_a_word_are_refused_with_the_next_step(texts: list[str | None]) -> None:
    with pytest.raises(RepresentationError, match=r"no word and no letter .* check which column"):
        WordNgrams().fit(texts)


def test_marks_alone_have_letters_but_no_words() -> None:
    ngrams = WordNgrams().fit(["!!!", "???"])
    assert set(ngrams.vectorizers_) == {"character"}
    assert ngrams.transform(["!!!"]).any()


@settings(deadline=None, max_examples=20)
@given(WORDS, st.randoms())
def test_neither_order_nor_repetition_has_a_say(texts: list[str], random: object) -> None:
    values = WordNgrams(4).fit_transform(texts)
    order = list(range(len(texts)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = WordNgrams(4).fit_transform([texts[i] for i in order])
    assert np.allclose(shuffled, values[order], atol=1e-6)
    twice = WordNgrams(4).fit_transform(texts + texts)
    assert np.allclose(twice, np.vstack([values, values]), atol=1e-6)


def test_a_seed_gives_the_same_numbers_again() -> None:
    first = WordNgrams(3, random_state=1).fit_transform(TITLES)
    assert np.array_equal(first, WordNgrams(3, random_state=1).fit_transform(TITLES))
    assert np.array_equal(first, clone(WordNgrams(3, random_state=1)).fit(TITLES).transform(TITLES))


def test_the_outcome_is_not_looked_at() -> None:
    rng = np.random.default_rng(0)
    values = WordNgrams(3).fit_transform(TITLES)
    assert np.array_equal(values, WordNgrams(3).fit_transform(TITLES, rng.integers(0, 2, len(TITLES))))


def test_new_missing_and_foreign_texts_are_zeros_or_near() -> None:
    ngrams = WordNgrams(3).fit(TITLES)
    assert not ngrams.transform([None, "", "全10回", "zzz"]).any()
    assert ngrams.transform([]).shape == (0, 6)
    assert WordNgrams(3).fit_transform(["全10回の講座", "なぜ？", "Почему он ушёл"]).any()


def test_the_most_frequent_terms_are_kept() -> None:
    ngrams = WordNgrams(2, max_terms=7).fit(TITLES)
    assert [len(v.vocabulary_) for v in ngrams.vectorizers_.values()] == [7, 7]


@pytest.mark.parametrize(
    "wrong", [{"components": 0}, {"components": 2.5}, {"max_terms": 0}, {"random_state": -1}]
)
def test_settings_out_of_bounds_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        WordNgrams(**wrong).fit(TITLES)  # type: ignore[arg-type]


def test_it_must_be_fitted_first() -> None:
    with pytest.raises(NotFittedError):
        WordNgrams().transform(TITLES)


def test_twelve_thousand_headlines_take_seconds() -> None:
    rng = np.random.default_rng(0)
    words = np.array(["".join(rng.choice(list("abcdefghij"), 6)) for _ in range(3_000)])
    titles = [" ".join(words[rng.zipf(1.3, 12) % 3_000]) for _ in range(12_000)]
    start = time.perf_counter()
    assert WordNgrams().fit_transform(titles).shape == (12_000, 200)
    assert time.perf_counter() - start < 20  # 3 s on an idle core


def test_one_block_a_text_column_in_one_space() -> None:
    log = make_log(title=[*TITLES, None], teaser=TITLES[:4])
    made = WordNgrams(4)
    title, teaser = ngram_blocks(log, made)
    assert (title.name, title.kind, title.columns) == ("ngrams:title", "ngrams", ("title",))
    assert (teaser.name, teaser.width) == ("ngrams:teaser", 8)
    assert title.values.dtype == np.float32
    assert len(title.values) == 31
    place = {text: i for i, text in enumerate(log.texts("title")[0])}
    for text, row, key in zip(log.texts("teaser")[0], teaser.values, teaser.keys, strict=True):
        assert np.array_equal(row, title.values[place[text]])
        assert key == title.keys[place[text]]
    assert not hasattr(made, "vectorizers_")
    assert title.made_by == "WordNgrams 4 components, 20000 terms, seed 0"


def test_blocks_do_not_depend_on_the_order_of_the_rows() -> None:
    log = make_log(title=TITLES)
    order = np.random.default_rng(1).permutation(len(log))
    turned = read_log(log.frame.iloc[order], treatment="t", outcome="y", text="title")
    assert np.array_equal(ngram_blocks(turned)[0].dense(), ngram_blocks(log)[0].dense()[order])
    assert ngram_blocks(read_log(log.frame, treatment="t", outcome="y")) == []
