from __future__ import annotations

import pickle
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.utils import get_tags
from transformers import AutoModel, AutoTokenizer

from causalrec import TextEmbedder
from causalrec.errors import (
    ArgumentError,
    CausalRecWarning,
    MissingExtraError,
    ModelNotFoundError,
    RepresentationError,
)
from causalrec.represent import encoder as encoder_module
from causalrec.represent import text as text_module
from causalrec.represent.encoder import Encoder, pack_linears
from causalrec.represent.weights import describe

TITLES = [
    "Red dress",
    "You won't believe what this senator said about school lunches",
    "",
    "فستان أحمر للصيف",
    "שמלה אדומה",
    "🔥🔥 SALE 🔥🔥 today only",
    "naïve café résumé",
    "赤いドレス",
    "[CLS] [PAD] <b>bold</b>",
    "a" * 5_000,
    " \t\n ",
    "null \x00 byte",
]


def reference(folder: Path, texts: list[str], pooling: str = "mean", max_length: int = 256) -> np.ndarray:
    """The textbook way: one padded batch with its attention mask through the untouched model."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    batch = tokenizer(texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    mask = batch["attention_mask"][:, :, None]
    pooled = {
        "mean": (states * mask).sum(1) / mask.sum(1),
        "cls": states[:, 0],
        "max": states.masked_fill(mask == 0, -torch.inf).amax(1),
    }[pooling]
    return torch.nn.functional.normalize(pooled, dim=1).numpy()


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sum(a.astype(np.float64) * b, axis=1)


def test_vectors_equal_the_textbook_forward_pass(encoder: TextEmbedder, model_folder: Path) -> None:
    found = encoder.transform(TITLES)
    assert found.shape == (len(TITLES), 384)
    assert found.dtype == np.float32
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    assert cosines(found, reference(model_folder, TITLES)).min() > 0.99999


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_each_pooling_equals_the_textbook_one(tiny: Path, pooling: str) -> None:
    (tiny / "1_Pooling").mkdir()
    (tiny / "1_Pooling" / "config.json").write_text(f'{{"pooling_mode": "{pooling}"}}')
    (tiny / "modules.json").write_text(
        '[{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]'
    )
    found = TextEmbedder(str(tiny), cache_dir=False, device="cpu").transform(TITLES)
    assert cosines(found, reference(tiny, TITLES, pooling)).min() > 0.99999


def test_missing_texts_read_as_the_empty_text(encoder: TextEmbedder) -> None:
    found = encoder.transform([None, "", float("nan"), pd.NA, "x"])
    assert np.array_equal(found[:4], np.repeat(found[1:2], 4, axis=0))
    assert not np.array_equal(found[0], found[4])


def test_half_an_emoji_is_read_as_a_question_mark(encoder: TextEmbedder) -> None:
    found = encoder.transform(["sale \ud83d today", "sale ? today"])
    assert np.allclose(found[0], found[1], atol=1e-6)


def test_a_very_long_text_is_cut_at_max_length(tiny: Path) -> None:
    long = "word " * 20_000
    assert len(long) == 100_000
    short = TextEmbedder(str(tiny), cache_dir=False, device="cpu", max_length=32)
    found = short.transform([long, "word " * 30, "word " * 29])
    assert np.allclose(found[0], found[1], atol=1e-6)
    assert not np.allclose(found[0], found[2], atol=1e-6)


def test_max_length_stops_at_the_models_own_limit(tiny: Path) -> None:
    found = TextEmbedder(str(tiny), cache_dir=False, device="cpu", max_length=10_000).transform(
        ["word " * 3_000]
    )
    assert np.isfinite(found).all()


def test_the_order_of_the_texts_has_no_say(tiny: Path) -> None:
    embedder = TextEmbedder(str(tiny), cache_dir=False, device="cpu")
    texts = [f"{word} number {i}" for i in range(40) for word in ("dress", "shoe", "a warm winter coat")]
    order = np.random.default_rng(0).permutation(len(texts))
    assert np.array_equal(embedder.transform([texts[i] for i in order]), embedder.transform(texts)[order])


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_batch_size_changes_nothing_but_the_last_bits(tiny: Path, batch_size: int) -> None:
    found = TextEmbedder(str(tiny), cache_dir=False, device="cpu", batch_size=batch_size).transform(TITLES)
    whole = TextEmbedder(str(tiny), cache_dir=False, device="cpu").transform(TITLES)
    assert np.allclose(found, whole, atol=1e-6)


def test_equal_texts_and_equal_tokens_are_encoded_once(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = Encoder.encode

    def counting(self: Encoder, tokens: list[tuple[int, ...]]) -> Iterator:
        seen.append(len(tokens))
        return real(self, tokens)

    monkeypatch.setattr(Encoder, "encode", counting)
    found = TextEmbedder(str(tiny), cache_dir=False, device="cpu").transform(
        ["Dress", "dress", "DRESS", "hat"] * 50
    )
    assert seen == [2]
    assert np.array_equal(found[0], found[2])


@pytest.mark.parametrize("kind", [list, tuple, pd.Series, np.array, lambda x: (t for t in x)])
def test_any_one_dimensional_collection_will_do(tiny: Path, kind) -> None:
    embedder = TextEmbedder(str(tiny), cache_dir=False, device="cpu")
    assert embedder.fit_transform(kind(["a", "b"])).shape == (2, 32)


def test_no_texts_make_an_empty_matrix(tiny: Path) -> None:
    assert TextEmbedder(str(tiny), cache_dir=False, device="cpu").transform([]).shape == (0, 32)


# the cache


def test_a_second_run_reads_the_cache_and_loads_no_model(tiny: Path, tmp_path: Path, monkeypatch) -> None:
    first = TextEmbedder(str(tiny), cache_dir=tmp_path / "c", device="cpu").transform(TITLES)

    def never(*_: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(Encoder, "__init__", never)
    again = TextEmbedder(str(tiny), cache_dir=str(tmp_path / "c")).transform(TITLES[::-1])
    assert np.array_equal(again, first[::-1])


def test_the_default_cache_folder_is_used_and_false_uses_none(
    tiny: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("CAUSALREC_CACHE", str(tmp_path / "c"))
    TextEmbedder(str(tiny), cache_dir=False, device="cpu").transform(["a"])
    assert not (tmp_path / "c").exists()
    TextEmbedder(str(tiny), device="cpu").transform(["a"])
    assert len(list((tmp_path / "c" / "embeddings").rglob("*.shard"))) == 1


def test_a_corrupt_shard_is_recomputed(tiny: Path, tmp_path: Path) -> None:
    embedder = TextEmbedder(str(tiny), cache_dir=tmp_path / "c", device="cpu")
    first = embedder.transform(TITLES)
    (shard,) = (tmp_path / "c").rglob("*.shard")
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.warns(CausalRecWarning, match="truncated or corrupt"):
        assert np.allclose(embedder.transform(TITLES), first, atol=1e-6)
    assert np.allclose(embedder.transform(TITLES), first, atol=1e-6)


def stopping_after(batches: int, stop: type[BaseException]):
    real = Encoder.encode

    def encode(self: Encoder, tokens: list[tuple[int, ...]]) -> Iterator:
        for done, result in enumerate(real(self, tokens)):
            if done == batches:
                raise stop
            yield result

    return encode


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_run_goes_on_where_it_stopped(tiny: Path, tmp_path: Path, monkeypatch, stop) -> None:
    texts = [f"number {i}" for i in range(60)]
    whole = TextEmbedder(str(tiny), cache_dir=False, device="cpu", batch_size=5).transform(texts)
    embedder = TextEmbedder(str(tiny), cache_dir=tmp_path / "c", device="cpu", batch_size=5)
    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "encode", stopping_after(4, stop))
        with pytest.raises(stop):
            embedder.transform(texts)
    encoded: list[int] = []
    real = Encoder.encode
    monkeypatch.setattr(
        Encoder, "encode", lambda self, tokens: encoded.append(len(tokens)) or real(self, tokens)
    )
    assert np.allclose(embedder.transform(texts), whole, atol=1e-6)
    assert encoded == [60 - 4 * 5]


def test_long_work_is_cached_as_it_goes(tiny: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(text_module, "SHARD_TEXTS", 10)
    monkeypatch.setattr(text_module, "CHUNK_TEXTS", 25)
    embedder = TextEmbedder(str(tiny), cache_dir=tmp_path / "c", device="cpu", batch_size=5)
    found = embedder.transform([f"number {i}" for i in range(60)])
    assert len(list((tmp_path / "c").rglob("*.shard"))) >= 6
    assert np.array_equal(embedder.transform([f"number {i}" for i in range(60)]), found)


def test_an_unwritable_cache_is_a_warning_once_and_the_vectors_come(
    tiny: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(text_module, "SHARD_TEXTS", 1)
    (tmp_path / "file").write_text("in the way")
    embedder = TextEmbedder(str(tiny), cache_dir=tmp_path / "file", device="cpu", batch_size=1)
    with pytest.warns(CausalRecWarning, match="cannot be cached") as caught:
        assert embedder.transform(["a", "b", "c"]).shape == (3, 32)
    assert len(caught) == 1


# what the vectors depend on


def test_the_fingerprint_changes_with_what_changes_the_vectors(tiny: Path) -> None:
    base = TextEmbedder(str(tiny))
    assert base.fingerprint == clone(base).fingerprint
    assert base.fingerprint.endswith(" mean l2 256")
    assert TextEmbedder(str(tiny), max_length=64).fingerprint != base.fingerprint
    for same in ({"batch_size": 3}, {"device": "cpu"}, {"cache_dir": False}, {"progress": False}):
        assert TextEmbedder(str(tiny), **same).fingerprint == base.fingerprint


def test_a_setting_changed_later_is_obeyed(tiny: Path) -> None:
    embedder = TextEmbedder(str(tiny), cache_dir=False, device="cpu")
    before = embedder.transform(["word " * 50])
    embedder.set_params(max_length=8)
    assert not np.allclose(embedder.transform(["word " * 50]), before, atol=1e-4)


def test_a_pickle_holds_no_weights(tiny: Path) -> None:
    embedder = TextEmbedder(str(tiny), cache_dir=False, device="cpu")
    before = embedder.transform(["a"])
    content = pickle.dumps(embedder)
    assert len(content) < 1_000
    assert np.array_equal(pickle.loads(content).transform(["a"]), before)


def test_scikit_learn_sees_a_stateless_transformer_of_strings() -> None:
    tags = get_tags(TextEmbedder())
    assert tags.input_tags.string
    assert not tags.requires_fit
    assert not tags.target_tags.required
    assert TextEmbedder(max_length=9).get_params()["max_length"] == 9


def test_nothing_global_is_changed(tiny: Path) -> None:
    from transformers.utils import logging

    before = torch.get_num_threads(), logging.is_progress_bar_enabled(), logging.get_verbosity()
    TextEmbedder(str(tiny), cache_dir=False).transform(["a"])
    assert (torch.get_num_threads(), logging.is_progress_bar_enabled(), logging.get_verbosity()) == before


def test_short_work_shows_no_progress(tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    TextEmbedder(str(tiny), cache_dir=False, device="cpu").transform(["a", "b"])
    assert capfd.readouterr() == ("", "")


# packed linear layers


def test_packed_layers_give_the_same_states(tiny: Path) -> None:
    plain, packed = (AutoModel.from_pretrained(tiny).eval() for _ in range(2))
    linear = [m for m in packed.modules() if type(m) is torch.nn.Linear]
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    assert pack_linears(packed) == len(linear) == 13
    ids = torch.arange(60).reshape(3, 20) + 1000
    with torch.inference_mode():
        assert torch.allclose(packed(ids).last_hidden_state, plain(ids).last_hidden_state, atol=1e-5)


def test_a_torch_whose_packed_product_differs_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "_packed_linear", lambda x, weight, bias: x[:, :3] * 2)
    layer = torch.nn.Linear(5, 3)
    assert pack_linears(torch.nn.Sequential(layer)) == 0
    assert "forward" not in vars(layer)


# errors


@pytest.mark.parametrize("absent", ["torch", "transformers"])
def test_a_missing_extra_says_how_to_install_it(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(MissingExtraError, match=r'pip install "causalrec\[text,minilm\]".*TfidfVectorizer'):
        TextEmbedder(str(tiny), cache_dir=False).transform(["a"])


BAD_SETTINGS = {
    "max_length is 2, must be >= 3": {"max_length": 2},
    "max_length is 2.5, must be a whole number": {"max_length": 2.5},
    "batch_size is 0, must be >= 1": {"batch_size": 0},
    "cache_dir is True, must be a folder": {"cache_dir": True},
    "model is None, must be a model's name": {"model": None},
    "device is 'quantum', must be None or one of": {"device": "quantum"},
    "device is 'meta', which torch does not find here": {"device": "meta"},
}


@pytest.mark.parametrize(("message", "setting"), BAD_SETTINGS.items(), ids=BAD_SETTINGS.keys())
def test_bad_settings(tiny: Path, message: str, setting: dict[str, object]) -> None:
    with pytest.raises(ArgumentError, match=message):
        TextEmbedder(**{"model": str(tiny), "cache_dir": False, **setting}).transform(["a"])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one string", "X is a str; must be one-dimensional texts"),
        (3, "X is a int; must be"),
        (np.array([["a"], ["b"]]), "X is a ndarray; must be"),
        (pd.DataFrame({"title": ["a"]}), "X is a DataFrame; must be"),
        (["a", 3], r"X holds 3 \(int\); must hold strings"),
        (["a", ["b"]], r"X holds \['b'\] \(list\)"),
    ],
)
def test_bad_texts(texts: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        TextEmbedder(cache_dir=False).transform(texts)


def test_weights_cut_short_are_refused(tiny: Path) -> None:
    file = tiny / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelNotFoundError, match=r"cannot be loaded .* is the download complete"):
        TextEmbedder(str(tiny), cache_dir=False).transform(["a"])


def test_code_that_comes_with_a_model_is_never_run(tiny: Path, tmp_path: Path) -> None:
    mark = tmp_path / "was run"
    (tiny / "own.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass C: pass\n")
    config = (tiny / "config.json").read_text().replace('"bert"', '"my-own-thing"')
    (tiny / "config.json").write_text(config.replace("{", '{"auto_map": {"AutoConfig": "own.C"},', 1))
    with pytest.raises(ModelNotFoundError, match="cannot be loaded"):
        TextEmbedder(str(tiny), cache_dir=False).transform(["a"])
    assert not mark.exists()


def test_an_encoder_decoder_is_refused(tiny: Path) -> None:
    (tiny / "config.json").write_text('{"model_type": "t5", "is_encoder_decoder": true}')
    with pytest.raises(RepresentationError, match=r"is an encoder-decoder \(t5\)"):
        TextEmbedder(str(tiny), cache_dir=False).transform(["a"])


def test_damaged_weights_are_noticed_and_not_cached(tiny: Path, tmp_path: Path) -> None:
    model = AutoModel.from_pretrained(tiny)
    with torch.no_grad():
        model.embeddings.LayerNorm.weight.fill_(torch.nan)
    broken = tmp_path / "broken"
    shutil.copytree(tiny, broken)
    model.save_pretrained(broken)
    assert describe(broken, "x") != describe(tiny, "x")
    with pytest.raises(RepresentationError, match="returned NaN; its weights are damaged"):
        TextEmbedder(str(broken), cache_dir=tmp_path / "c", device="cpu").transform(["a"])
    assert not list((tmp_path / "c").rglob("*.shard"))
