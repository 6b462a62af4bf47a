"""How a text is written, beside what it is about: length, punctuation, case, questions, pronouns, sentiment.

The features are fixed functions of one text. They have seen neither exposure nor click, nor any other text, so
they may stand beside a frozen embedding as a further representation of the same words. There are at most 30 of
them: a block as narrow as that is shrunk lightly and column by column, so that a rare mark is not penalised
more than a common one.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from importlib import metadata
from math import log1p
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from causalrec._checks import check_choice
from causalrec.blocks import Block
from causalrec.errors import MissingExtraError
from causalrec.log import ImpressionLog
from causalrec.represent.text import _distinct

Floats = npt.NDArray[np.float32]
Numbers = list[float]

MARKS = {
    "exclamation_marks": re.compile(r"[!！]"),
    "question_marks": re.compile(r"[?？؟]"),
    "commas": re.compile(r"[,，、،]"),
    "colons": re.compile(r"[:;：；]"),
    "quotes": re.compile(r"[\"“”„«»「」]|(?<!\w)['‘]|['’](?!\w)"),
    "dashes": re.compile(r"[–—]|--+|(?<=\s)-(?=\s)"),
    "ellipses": re.compile(r"…|\.{3,}"),
    "brackets": re.compile(r"[(\[{（【]"),
}
LENGTH = ("log_characters", "log_words", "log_word_length", "log_sentences", "log_digits", "numeral_share")
PUNCTUATION = (*(f"log_{mark}" for mark in MARKS), "ends_in_question")
CASE = ("capital_share", "log_all_caps_words", "title_case_share")
FIRST_WORD = ("first_is_number", "first_is_question_word", "first_is_determiner")
PRONOUNS = ("log_first_person", "log_second_person", "log_third_person")
VOCABULARY = (*PRONOUNS, "stop_word_share", "type_token_ratio", "reading_ease")
STYLE = LENGTH + PUNCTUATION + CASE + FIRST_WORD + VOCABULARY
SENTIMENT = ("sentiment", "positive_share", "negative_share")
SENTIMENT_CHARACTERS = 5_000
"""Of a text that are read for its sentiment: VADER's time grows with the square of the words."""

TOKEN = re.compile(r"[^\s–—…/]+")
AROUND = string.punctuation + "“”„‘’«»¡¿¢£€¥•·。，、！？：；（）「」【】،؟।"
DIGIT = re.compile(r"\d")
SENTENCE_END = re.compile(r"(?<![.!?…])[.!?…]+[\"'”’)\]]*(?:\s+|$)|[。！？؟।]+")
QUESTION_END = re.compile(r"[?？؟][\"'”’»」)\]]*$")
VOWELS = re.compile(r"[aeiouyàáâãäåæèéêëìíîïòóôõöøùúûüýÿœ]+")
SILENT_E = re.compile(r"[^aeiouyl]e$")
EASIEST, HARDEST = 1.2122, -1.0
"""Reading ease of one word of one syllable; and where a text stops counting as harder still (both over 100)."""

_listed = re.compile(r"\w+").findall
NUMBER_WORDS = _listed(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand "
    "million billion dozen"
)
QUESTION_WORDS = _listed("who whom whose what which when where why how")
DETERMINERS = _listed(
    "a an the this that these those my your his her its our their each every some any no all both"
)
FIRST_PERSON = _listed("i me my mine myself we us our ours ourselves")
SECOND_PERSON = _listed("you your yours yourself yourselves")
THIRD_PERSON = _listed("he him his himself she her hers herself they them their theirs themselves")


class LexicalStyle(TransformerMixin, BaseEstimator):
    """Turn each text into 30 numbers that say how it is written.

    Parameters
    ----------
    sentiment : {"vader", None}
        VADER's rules and lexicon (English; package ``vaderSentiment``), or no sentiment: 27 columns.

    Notes
    -----
    With m words, s sentences and c syllables in a text:

    - ``log_…`` is log(1 + count), or log(1 + mean letters of a word) for ``log_word_length``;
    - ``…_share`` lies in [0, 1]: numerals, title case and stop words (scikit-learn's English list) in words,
      capitals in letters; ``type_token_ratio`` is distinct words / m;
    - ``ends_in_question`` and ``first_is_…`` are 0 or 1;
    - ``reading_ease`` is (206.835 − 1.015 m / s − 84.6 c / m) / 100, held within [−1, 1.2122], with a group of
      vowels for a syllable: Flesch (1948), "A new readability yardstick", J. Applied Psychology 32(3);
    - ``sentiment`` is VADER's compound score in [−1, 1], ``positive_share`` and ``negative_share`` its shares,
      of the first 5,000 characters: Hutto and Gilbert (2014), "VADER", ICWSM 8(1).

    A missing, empty or blank text is a row of zeros. Words are what stands between blanks, so that of a script
    without blanks only characters, marks and digits tell much. The word lists are English.

    Examples
    --------
    >>> from causalrec.represent.lexical import LexicalStyle
    >>> style = LexicalStyle(sentiment=None)
    >>> row = style.fit_transform(["WHY you need 7 dresses"])[0]
    >>> measured = dict(zip(style.get_feature_names_out(), row, strict=True))
    >>> print(f"{measured['numeral_share']:.1f}")
    0.2
    """

    def __init__(self, *, sentiment: Literal["vader"] | None = "vader") -> None:
        self.sentiment = sentiment

    def fit(self, X: Iterable[str | None], y: object = None) -> LexicalStyle:
        """Learn nothing: the features are fixed. Checks the settings and returns itself."""
        check_choice(self.sentiment, "sentiment", ("vader", None))
        return self

    def transform(self, X: Iterable[str | None]) -> Floats:
        """Measure texts, each distinct one once.

        Parameters
        ----------
        X : (n,) texts; None and NaN read as the empty text

        Returns
        -------
        (n, 30) float32; (n, 27) without sentiment

        Raises
        ------
        ArgumentError
            `X` is no one-dimensional collection of texts, or `sentiment` is unknown.
        MissingExtraError
            vaderSentiment is not installed.
        """
        check_choice(self.sentiment, "sentiment", ("vader", None))
        distinct, codes = _distinct(X)
        clean = [unicodedata.normalize("NFC", text).strip() for text in distinct]
        values = np.array([_style(text) for text in clean], dtype=np.float32).reshape(-1, len(STYLE))
        if self.sentiment is not None:
            values = np.hstack([values, _sentiments(clean)])
        return np.ascontiguousarray(values[codes])

    def get_feature_names_out(self, input_features: object = None) -> npt.NDArray[np.object_]:
        """Names of the columns, (q,)."""
        return np.array(STYLE if self.sentiment is None else STYLE + SENTIMENT, dtype=object)

    @property
    def fingerprint(self) -> str:
        """What the features depend on: their number, and the version of the sentiment lexicon."""
        width = len(self.get_feature_names_out())
        if self.sentiment is None:
            return f"LexicalStyle {width} columns, no sentiment"
        _analyser()
        return f"LexicalStyle {width} columns, VADER {metadata.version('vaderSentiment')}"

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags


def lexical_blocks(log: ImpressionLog, transformer: LexicalStyle | None = None) -> list[Block]:
    """One block ``lexical:<column>`` a text column: how its words are written.

    They come in the order of the text columns, (u, q) float32 with one row a distinct text; none without text.
    `transformer` None is ``LexicalStyle()``.
    """
    style = LexicalStyle() if transformer is None else transformer
    return text_column_blocks(log, "lexical", style.fit_transform, style.fingerprint)


def text_column_blocks(
    log: ImpressionLog, kind: str, vectors_of: Callable[[list[str]], Floats], made_by: str
) -> list[Block]:
    """One block ``<kind>:<column>`` a text column; `vectors_of` is called once, on all distinct texts, sorted."""
    columns = {name: log.texts(name) for name in log.roles.text}
    if not columns:
        return []
    words = sorted({text for texts, _ in columns.values() for text in texts})
    vectors = vectors_of(words)
    row = {text: i for i, text in enumerate(words)}
    blocks = []
    for name, (texts, codes) in columns.items():
        values = vectors[[row[text] for text in texts]]
        blocks.append(Block(f"{kind}:{name}", kind, values, codes, (name,), made_by, text_keys(texts)))
    return blocks


def text_keys(texts: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Hash of each text, (u,): the same for every block that is read from it."""
    return pd.util.hash_array(np.array(texts, dtype=object))


def _style(text: str) -> Numbers:
    """The numbers named in ``STYLE`` for one stripped text."""
    if not text:
        return [0.0] * len(STYLE)
    words = [word for token in TOKEN.findall(text) if (word := token.strip(AROUND))]
    stems = [_stem(word) for word in words]
    sentences = max(1, sum(bool(part) for part in SENTENCE_END.split(text)))
    return [
        *_length(text, words, sentences),
        *(log1p(len(mark.findall(text))) for mark in MARKS.values()),
        float(QUESTION_END.search(text) is not None),
        *_case(text, words),
        *_first_word(stems),
        *_vocabulary(words, stems),
        _reading_ease(stems, sentences),
    ]


def _length(text: str, words: list[str], sentences: int) -> Numbers:
    m = max(len(words), 1)
    return [
        log1p(len(text)),
        log1p(len(words)),
        log1p(sum(map(len, words)) / m),
        log1p(sentences),
        log1p(len(DIGIT.findall(text))),
        sum(DIGIT.search(word) is not None for word in words) / m,
    ]


def _case(text: str, words: list[str]) -> Numbers:
    letters = sum(map(str.isalpha, text))
    capitals = sum(letter.isupper() for letter in text if letter.isalpha())
    shouted = sum(len(word) > 1 and word.isupper() for word in words)
    titled = sum(word[0].isupper() for word in words)
    return [capitals / max(letters, 1), log1p(shouted), titled / max(len(words), 1)]


def _first_word(stems: list[str]) -> Numbers:
    first = stems[0] if stems else ""
    number = first[:1].isdigit() or first in NUMBER_WORDS
    return [float(number), float(first in QUESTION_WORDS), float(first in DETERMINERS)]


def _vocabulary(words: list[str], stems: list[str]) -> Numbers:
    m = max(len(words), 1)
    persons = (FIRST_PERSON, SECOND_PERSON, THIRD_PERSON)
    return [
        *(log1p(sum(stem in person for stem in stems)) for person in persons),
        sum(stem in ENGLISH_STOP_WORDS for stem in stems) / m,
        len({word.lower() for word in words}) / m,
    ]


def _reading_ease(stems: list[str], sentences: int) -> float:
    """Flesch's reading ease over 100, held within [−1, 1.2122]; 0 without words."""
    if not stems:
        return 0.0
    per_word = sum(map(_syllables, stems)) / len(stems)
    ease = (206.835 - 1.015 * len(stems) / sentences - 84.6 * per_word) / 100
    return min(max(ease, HARDEST), EASIEST)


def _stem(word: str) -> str:
    """The word in lower case without what follows an apostrophe: 'You’re' → 'you'. The country US is no pronoun."""
    return "u.s" if word == "US" else word.lower().replace("’", "'").partition("'")[0]


def _syllables(word: str) -> int:
    """Groups of vowels, less a silent final e; at least one."""
    return max(1, len(VOWELS.findall(word)) - (SILENT_E.search(word) is not None))


def _sentiments(texts: list[str]) -> Floats:
    """Compound score, positive and negative share of each text, (u, 3)."""
    scored = [_analyser().polarity_scores(text[:SENTIMENT_CHARACTERS]) for text in texts]
    rows = [(s["compound"], s["pos"], s["neg"]) for s in scored]
    return np.array(rows, dtype=np.float32).reshape(-1, len(SENTIMENT))


@lru_cache(maxsize=1)
def _analyser() -> Any:
    """VADER with its lexicon, read once."""
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError as error:
        raise MissingExtraError(
            "LexicalStyle needs vaderSentiment for the sentiment, which is not installed: "
            'pip install "vaderSentiment>=3.3.2". Or go on without: LexicalStyle(sentiment=None).'
        ) from error
    return SentimentIntensityAnalyzer()
