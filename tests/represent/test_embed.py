from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import TargetEncoder

from causalrec import ImpressionLog, TextEmbedder, embed, read_log
from causalrec.errors import ArgumentError, RepresentationError
from causalrec.represent.text import TextEmbedder as Embedder

N = 400
WORDS = ("red", "dress", "blue", "shoe", "warm", "coat", "silk", "scarf")
TITLES = [f"{a} {b}" for a in WORDS for b in WORDS if a != b]


def make_frame(seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    pool = np.array(TITLES, dtype=object)
    frame = pd.DataFrame(
        {"title": pool[rng.integers(0, len(pool), N)], "teaser": pool[rng.integers(0, 5, N)]}
    )
    frame["read"] = [list(pool[rng.integers(0, len(pool), rng.integers(0, 4))]) for _ in range(N)]
    frame["t"], frame["y"] = rng.integers(0, 2, N), rng.integers(0, 2, N)
    return frame


def make_log(frame: pd.DataFrame | None = None, **roles: object) -> ImpressionLog:
    declared = {"text": "title", **roles}
    return read_log(make_frame() if frame is None else frame, treatment="t", outcome="y", **declared)


def lexical() -> object:
    return make_pipeline(TfidfVectorizer(), TruncatedSVD(6, random_state=0))


class Fixed(TransformerMixin, BaseEstimator):
    """Returns what a function makes of the texts."""

    def __init__(self, make: Callable[[list[str]], object]) -> None:
        self.make = make

    def fit(self, X: list[str], y: object = None) -> Fixed:
        return self

    def transform(self, X: list[str]) -> object:
        return self.make(X)


class TwoNumbers(Fixed):
    """(number of letters, number of words), so that features can be checked by hand."""

    def __init__(self) -> None:
        super().__init__(lambda X: [[len(x), len(x.split())] for x in X])

    @classmethod
    def _get_param_names(cls) -> list[str]:
        return []


def test_a_text_column_becomes_one_block_of_its_distinct_texts(tiny: Path) -> None:
    frame = make_frame()
    frame.loc[:3, "title"] = None
    embedder = TextEmbedder(str(tiny), cache_dir=False, device="cpu")
    log = embed(make_log(frame), embedder)
    block, style = log.blocks.values()
    assert (style.name, style.kind, style.columns) == ("lexical:title", "lexical", ("title",))
    assert (block.name, block.kind, block.columns) == ("text:title", "text", ("title",))
    assert block.made_by == embedder.fingerprint
    assert block.values.dtype == np.float32
    assert len(block.values) == frame["title"].nunique() + 1
    assert np.allclose(block.dense(), embedder.transform(frame["title"]), atol=1e-6)


def test_the_log_that_came_in_is_not_changed() -> None:
    frame = make_frame()
    before = frame.copy()
    log = make_log(frame)
    embed(log, lexical())
    assert not log.blocks
    pd.testing.assert_frame_equal(frame, before)


def test_several_texts_and_a_history_make_all_blocks() -> None:
    log = embed(make_log(text=["title", "teaser"], history="read"), lexical(), pair_components=3)
    shapes = {name: (block.kind, block.width) for name, block in log.blocks.items()}
    assert shapes == {
        "text:title": ("text", 6),
        "text:teaser": ("text", 6),
        "history:read": ("history", 6),
        "match:read~title": ("match", 4),
        "match:read~teaser": ("match", 4),
        "lexical:title": ("lexical", 30),
        "lexical:teaser": ("lexical", 30),
    }
    assert set(embed(log, lexical(), pair_components=3, lexical=False, ngrams=True).blocks) >= {
        "ngrams:title"
    }
    assert log.blocks["match:read~title"].columns == ("read", "title")
    assert log.blocks["match:read~title"].made_by.endswith("; cosine and 3 products")
    assert all(block.values.dtype == np.float32 for block in log.blocks.values())


def test_history_and_match_by_hand() -> None:
    frame = make_frame()
    log = embed(make_log(frame, history="read"), TwoNumbers(), pair_components=1)
    words = sorted({*frame["title"], *(w for ws in frame["read"] for w in ws)})
    unit = {w: np.array([len(w), 2]) / np.hypot(len(w), 2) for w in words}
    axes = PCA(1, random_state=0).fit(np.array([unit[w] for w in words]))
    for i in (0, 5, 17, 100):
        texts = frame["read"][i]
        mean = np.mean([[len(w), 2] for w in texts], axis=0) if texts else np.zeros(2)
        history = mean / np.linalg.norm(mean) if texts else mean
        title = unit[frame["title"][i]]
        product = axes.transform([history])[0, 0] * axes.transform([title])[0, 0] if texts else 0.0
        assert log.blocks["history:read"].dense()[i] == pytest.approx(history, abs=1e-5)
        assert log.blocks["match:read~title"].dense()[i] == pytest.approx(
            [history @ title, product], abs=1e-5
        )
    assert any(len(texts) == 0 for texts in frame["read"])


def test_an_empty_history_is_a_zero_vector_and_matches_nothing() -> None:
    frame = make_frame()
    frame.at[0, "read"] = []
    frame.at[1, "read"] = None
    log = embed(make_log(frame, history="read"), lexical())
    for name in ("history:read", "match:read~title"):
        assert not log.blocks[name].dense()[:2].any()


def test_a_history_as_json_says_the_same_as_a_list() -> None:
    frame = make_frame()
    as_json = frame.assign(read=[json.dumps(list(texts)) for texts in frame["read"]])
    blocks = [embed(make_log(f, history="read"), lexical()).blocks for f in (frame, as_json)]
    for name in blocks[0]:
        assert np.array_equal(blocks[0][name].dense(), blocks[1][name].dense())


def test_shuffled_rows_give_shuffled_vectors() -> None:
    frame = make_frame()
    order = np.random.default_rng(1).permutation(N)
    log = embed(make_log(frame, history="read"), lexical())
    shuffled = embed(make_log(frame.iloc[order], history="read"), lexical())
    for name, block in log.blocks.items():
        assert np.allclose(shuffled.blocks[name].dense(), block.dense()[order], atol=1e-6)


def test_treatment_and_outcome_have_no_say() -> None:
    frame = make_frame()
    other = frame.assign(t=1 - frame["t"], y=np.roll(frame["y"], 7))
    found, again = (embed(make_log(f, history="read"), lexical()).blocks for f in (frame, other))
    assert all(np.array_equal(found[name].values, again[name].values) for name in found)


def test_each_distinct_text_is_encoded_once_for_all_columns(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    real = Embedder.transform
    monkeypatch.setattr(Embedder, "transform", lambda self, X: asked.append(list(X)) or real(self, X))
    frame = make_frame()
    embedder = TextEmbedder(str(tiny), cache_dir=False, device="cpu")
    embed(make_log(frame, text=["title", "teaser"], history="read"), embedder)
    everything = {*frame["title"], *frame["teaser"], *(w for ws in frame["read"] for w in ws)}
    assert asked == [sorted(everything)]


@pytest.mark.parametrize(("asked", "used"), [(0, 0), (2, 2), (100, 6)])
def test_pair_components_are_as_asked_or_as_many_as_there_are(asked: int, used: int) -> None:
    log = embed(make_log(history="read"), lexical(), pair_components=asked)
    assert log.blocks["match:read~title"].width == 1 + used


def test_the_users_transformer_is_cloned() -> None:
    pipeline = lexical()
    embed(make_log(), pipeline)
    assert not hasattr(pipeline[0], "vocabulary_")


def test_sparse_output_becomes_dense_float32() -> None:
    block = embed(make_log(), TfidfVectorizer()).blocks["text:title"]
    assert block.values.shape == (len(TITLES), len(WORDS))
    assert block.made_by == "TfidfVectorizer()"


def test_text_and_no_history_match_a_log_of_nothing_but_history() -> None:
    log = embed(read_log(make_frame(), treatment="t", outcome="y", history="read"), lexical())
    assert list(log.blocks) == ["history:read"]


def test_without_a_text_there_is_nothing_to_embed() -> None:
    log = read_log(make_frame(), treatment="t", outcome="y")
    with pytest.raises(RepresentationError, match=r"declares no text.*read_log\(text=\.\.\.\)"):
        embed(log)


WRONG = {
    "one row short": (
        Fixed(lambda X: np.zeros((len(X) - 1, 2))),
        r"returns shape \(55, 2\), must be \(56, d\)",
    ),
    "one number a text": (Fixed(lambda X: np.zeros(len(X))), r"returns shape \(56,\), must be"),
    "no column": (Fixed(lambda X: np.zeros((len(X), 0))), r"must be \(56, d\) with d >= 1"),
    "NaN": (Fixed(lambda X: np.full((len(X), 2), np.nan)), "returns NaN or infinity for 56 of 56 texts"),
    "overflow": (Fixed(lambda X: np.full((len(X), 2), 1e300)), "returns NaN or infinity for 56 of 56"),
    "words": (Fixed(lambda X: np.array([[x] for x in X])), "returns a ndarray that is not numeric"),
    "too wide": (
        Fixed(lambda X: csr_array((len(X), 20_001))),
        r"has 20,001 sparse columns, must be <= 20,000",
    ),
    "hashing": (HashingVectorizer(), r"has 1,048,576 sparse columns.*put TruncatedSVD\(64\) behind it"),
    "supervised": (TargetEncoder(), "asks for an outcome y; embed passes texts only"),
    "supervised at the end": (make_pipeline(TfidfVectorizer(), SelectKBest(k=2)), "asks for an outcome y"),
    "fails": (TfidfVectorizer(min_df=1.0), r"failed on the 56 distinct texts \(ValueError: After pruning"),
}


@pytest.mark.parametrize(("transformer", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_transformer_that_cannot_be_used_is_refused(transformer: object, message: str) -> None:
    with pytest.raises(RepresentationError, match=message):
        embed(make_log(), transformer)


@pytest.mark.parametrize("transformer", [TfidfVectorizer, 3, "all-MiniLM-L6-v2", np.zeros((3, 2))])
def test_what_is_no_transformer_is_refused(transformer: object) -> None:
    with pytest.raises(ArgumentError, match="must be a TextEmbedder or a scikit-learn transformer"):
        embed(make_log(), transformer)


@pytest.mark.parametrize("value", [-1, 1.5, True, None])
def test_pair_components_must_be_a_whole_number(value: object) -> None:
    with pytest.raises(ArgumentError, match="pair_components is"):
        embed(make_log(), lexical(), pair_components=value)


def test_the_default_is_the_default_encoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CAUSALREC_CACHE", str(tmp_path))
    frame = make_frame().assign(title=np.resize(TITLES[:3], N))
    block = embed(make_log(frame)).blocks["text:title"]
    assert block.made_by == TextEmbedder().fingerprint
    assert block.values.shape == (3, 384)
