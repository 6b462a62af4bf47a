"""An exported encoder says what its source says, faster; or it does not exist."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

import causalrec as cr
from causalrec.errors import (
    ArgumentError,
    HonestyError,
    MissingExtraError,
    ModelNotFoundError,
    OutputError,
    RepresentationError,
    SavedError,
)
from causalrec.finetune.export import ExportReport, Gate, export_onnx
from causalrec.finetune.fast import MANIFEST, NETWORK, FastEncoder, default_threads
from causalrec.finetune.gates import EffectShift, cosines
from causalrec.represent.text import SEEN_UNITS
from causalrec.represent.weights import DEFAULT_MODEL, locate

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ADJECTIVES = ["red", "blue", "quiet", "loud", "famous", "hidden", "early", "late", "bright", "heavy"]
NOUNS = ["river", "doctor", "garden", "engine", "teacher", "senate", "planet", "kitchen", "violin", "winter"]
TEXTS = [f"the {a} {n} {'of the year ' * (i % 3)}{i % 7}" for i, (a, n) in enumerate((a, n) for a in ADJECTIVES for n in NOUNS)]


def tiny_model(folder: Path) -> Path:
    """A BERT of two narrow layers with random weights, the default tokenizer, and a memory of three users."""
    import torch
    from transformers import BertConfig, BertModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        BertModel(BertConfig(vocab_size=30522, **sizes)).save_pretrained(folder)
    source = locate(DEFAULT_MODEL).folder
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(source / name, folder / name)
    np.save(folder / SEEN_UNITS, np.array([1, 2, 3], dtype=np.uint64))
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> cr.TextEmbedder:
    folder = tiny_model(tmp_path_factory.mktemp("tiny"))
    return cr.TextEmbedder(str(folder), cache_dir=False, device="cpu", progress=False)


@pytest.fixture(scope="module")
def fast(tiny: cr.TextEmbedder, tmp_path_factory: pytest.TempPathFactory) -> FastEncoder:
    return export_onnx(tiny, tmp_path_factory.mktemp("out") / "fast", texts=TEXTS, min_cosine=0.95, threads=2, random_state=0)


@pytest.fixture
def copied(fast: FastEncoder, tmp_path: Path) -> Path:
    """A copy of the exported folder that the test may damage."""
    return Path(shutil.copytree(fast.model, tmp_path / "copy"))


def test_vectors_are_the_encoders_own(tiny: cr.TextEmbedder, fast: FastEncoder) -> None:
    others = ["A text that was not there", "short", "", "x " * 400, None, "ünïcode 你好"]
    found = fast.transform(others)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert cosines(found, tiny.transform(others)).min() > 0.95
    apart = cosines(np.roll(found, 1, axis=0), tiny.transform(others))
    assert cosines(found, tiny.transform(others)).mean() > apart.mean() + 0.05  # of this text, not of any


def test_a_vector_does_not_depend_on_its_neighbours(fast: FastEncoder) -> None:
    together = fast.transform(TEXTS)
    alone = np.vstack([fast.transform([t]) for t in TEXTS[:10]])
    assert np.abs(together[:10] - alone).max() < 5e-3  # one step of int8 where float32 sums differ in their last bit
    np.testing.assert_array_equal(fast.transform(TEXTS[::-1])[::-1], together)


def test_report_says_what_the_folder_does(tiny: cr.TextEmbedder, fast: FastEncoder) -> None:
    r = fast.report
    assert isinstance(r, ExportReport)
    assert r.source == tiny.fingerprint
    assert (r.n_calibration, r.n_held_back, r.threads) == (50, 50, 2)
    assert r.bytes_after == (Path(fast.model) / NETWORK).stat().st_size < r.bytes_before / 2
    assert 0.95 <= r.cosine_least <= r.cosine_1_percent <= r.cosine_median <= 1
    assert r.speedup > 0
    assert r.shift is None
    assert [g.passed for g in r.gates] == [True]
    assert "not checked that an effect" in r.summary()
    assert "ONNX int8" in r._repr_html_()


def test_it_is_a_transformer_like_any_other(fast: FastEncoder, tmp_path: Path) -> None:
    twin = clone(fast).set_params(cache_dir=str(tmp_path / "cache"))
    assert twin.get_params()["threads"] == 2
    assert twin.fingerprint == fast.fingerprint
    first = twin.transform(TEXTS[:5])
    assert list((tmp_path / "cache").rglob("*.shard"))
    np.testing.assert_array_equal(twin.transform(TEXTS[:5]), first)
    again = pickle.loads(pickle.dumps(fast))
    np.testing.assert_array_equal(again.transform(TEXTS[:5]), fast.transform(TEXTS[:5]))
    assert fast.transform([]).shape == (0, 32)


def test_save_and_open_again(fast: FastEncoder, tmp_path: Path) -> None:
    where = fast.save(tmp_path / "moved" / "fast")
    other = FastEncoder(str(where), cache_dir=False)
    np.testing.assert_array_equal(other.transform(TEXTS[:3]), fast.transform(TEXTS[:3]))
    assert other.report == fast.report
    with pytest.raises(OutputError, match="is not empty"):
        fast.save(where)


def test_it_remembers_whose_clicks_it_saw(fast: FastEncoder, copied: Path) -> None:
    np.testing.assert_array_equal(fast.seen_units, [1, 2, 3])
    log = cr.simulate(200, n_users=40, n_items=20, random_state=990_002).log(history=False)
    assert cr.embed(log, fast).blocks["text:title"].made_by == fast.fingerprint
    np.save(copied / SEEN_UNITS, log.unit_hashes)
    manifest = json.loads((copied / MANIFEST).read_text())
    del manifest["files"][SEEN_UNITS]
    (copied / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(HonestyError, match="trained on clicks of"):
        cr.embed(log, FastEncoder(str(copied)))


@pytest.mark.parametrize("name", [NETWORK, "tokenizer.json", SEEN_UNITS])
def test_a_damaged_file_is_not_read(copied: Path, name: str) -> None:
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    with pytest.raises(SavedError, match=f"{name} is missing or damaged"):
        FastEncoder(str(copied)).transform(["a"])


def test_a_folder_that_is_none(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="is no folder"):
        FastEncoder(str(tmp_path / "nowhere")).transform(["a"])
    (copied / SEEN_UNITS).unlink()  # its memory cannot be taken from it
    with pytest.raises(SavedError, match="is missing or damaged"):
        FastEncoder(str(copied)).transform(["a"])
    manifest = json.loads((copied / MANIFEST).read_text())
    (copied / MANIFEST).write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(SavedError, match="has format 99"):
        FastEncoder(str(copied)).transform(["a"])
    (copied / MANIFEST).write_text("{")
    with pytest.raises(SavedError, match="is damaged"):
        FastEncoder(str(copied)).transform(["a"])
    (copied / MANIFEST).unlink()
    with pytest.raises(ModelNotFoundError, match="holds no exported encoder"):
        FastEncoder(str(copied)).transform(["a"])


def test_a_gate_that_fails_leaves_nothing(tiny: cr.TextEmbedder, tmp_path: Path) -> None:
    with pytest.raises(RepresentationError, match=r"least cosine .* must be ≥ 1; nothing was written.*int8=False"):
        export_onnx(tiny, tmp_path / "out", texts=TEXTS, min_cosine=1.0, random_state=0)
    assert list(tmp_path.iterdir()) == []


def test_gates() -> None:
    assert EffectShift(0.10, 0.11, 0.05).shift == pytest.approx(0.2)
    assert Gate("cosine", 0.98, "≥", 0.98).passed
    assert not Gate("shift", 0.1, "<", 0.1).passed
    assert not Gate("cosine", float("nan"), "≥", 0.98).passed
    assert not Gate("shift", float("nan"), "<", 0.1).passed
    with pytest.raises(RepresentationError, match=r"shift is 0\.2000, must be < 0\.1"):
        Gate("shift", 0.2, "<", 0.1).enforce("Next.")
    np.testing.assert_allclose(cosines(np.float32([[3, 0], [1, 1]]), np.float32([[1, 0], [1, -1]])), [1, 0], atol=1e-7)


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"encoder": "a name"}, ArgumentError, "encoder is a str, must be a TextEmbedder"),
        ({"texts": TEXTS[:63]}, RepresentationError, "63 distinct texts, must be >= 64"),
        ({"texts": [*TEXTS[:63], *TEXTS[:63], None, " "]}, RepresentationError, "63 distinct texts"),
        ({"texts": "one text"}, ArgumentError, "texts is a str"),
        ({"texts": 3}, ArgumentError, "texts is a int"),
        ({"min_cosine": 1.1}, ArgumentError, "min_cosine is 1.1, must be <= 1"),
        ({"max_shift": 0}, ArgumentError, "max_shift is 0, must be > 0"),
        ({"threads": 0}, ArgumentError, "threads is 0"),
        ({"random_state": -1}, ArgumentError, "random_state is -1"),
        ({"plan": "a plan"}, ArgumentError, "plan is given without log"),
        ({"log": "a log", "plan": "a plan"}, ArgumentError, "log is a str"),
        ({"folder": ""}, ArgumentError, "folder is ''"),
    ],
)
def test_bad_input(tiny: cr.TextEmbedder, tmp_path: Path, changed: dict[str, Any], error: type[Exception], said: str) -> None:
    given: dict[str, Any] = {"encoder": tiny, "folder": tmp_path / "out", "texts": TEXTS} | changed
    with pytest.raises(error, match=said):
        export_onnx(given.pop("encoder"), given.pop("folder"), **given)
    assert list(tmp_path.iterdir()) == []


def test_what_stands_there_is_not_overwritten(tiny: cr.TextEmbedder, fast: FastEncoder, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="exists and is not empty"):
        export_onnx(tiny, tmp_path, texts=TEXTS)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    with pytest.raises(ArgumentError, match="is a FastEncoder"):
        export_onnx(fast, tmp_path / "again", texts=TEXTS)


def test_the_users_of_the_log_must_be_others(tiny: cr.TextEmbedder, tmp_path: Path, small_log: cr.ImpressionLog) -> None:
    folder = Path(shutil.copytree(tiny.model, tmp_path / "tuned"))
    np.save(folder / SEEN_UNITS, small_log.unit_hashes)
    with pytest.raises(HonestyError, match="trained on clicks"):
        export_onnx(cr.TextEmbedder(str(folder)), tmp_path / "out", texts=TEXTS, log=small_log, plan=cr.identify(small_log))


def test_a_full_disk_leaves_nothing(tiny: cr.TextEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copy", full)
    with pytest.raises(OutputError, match="No space left"):
        export_onnx(tiny, tmp_path / "out", texts=TEXTS)
    assert list(tmp_path.iterdir()) == []


def test_without_onnxruntime(tiny: cr.TextEmbedder, fast: FastEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.util import find_spec

    monkeypatch.setattr(sys.modules[FastEncoder.__module__], "find_spec", lambda name: None if name == "onnxruntime" else find_spec(name))
    for action in (
        lambda: export_onnx(tiny, tmp_path / "out", texts=TEXTS),
        lambda: FastEncoder(fast.model, cache_dir=False).transform(["a"]),
    ):
        with pytest.raises(MissingExtraError, match=r'pip install "causalrec\[onnx\]"'):
            action()
    assert list(tmp_path.iterdir()) == []


def test_threads(monkeypatch: pytest.MonkeyPatch, fast: FastEncoder) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert default_threads() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert default_threads() >= 1
    with pytest.raises(ArgumentError, match="threads is 0"):
        FastEncoder(fast.model, threads=0).transform(["a"])
    one = FastEncoder(fast.model, threads=1, cache_dir=False)
    np.testing.assert_array_equal(one.transform(TEXTS), fast.transform(TEXTS))


def test_import_is_light() -> None:
    import subprocess

    code = "import sys, causalrec.finetune.fast, causalrec.finetune.export; print([m for m in ('torch', 'onnx', 'onnxruntime', 'transformers') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_default_encoder_within_the_gates(small_log: cr.ImpressionLog, tmp_path: Path) -> None:
    texts = sorted({*small_log.texts("title")[0], *TEXTS})
    encoder = cr.TextEmbedder(progress=False)
    fast = export_onnx(encoder, tmp_path / "fast", texts=texts, log=small_log, plan=cr.identify(small_log), random_state=0, max_shift=0.5)
    r = fast.report
    assert r.cosine_least >= 0.98
    assert r.shift is not None
    assert r.shift < 0.5
    assert len(r.gates) == 2
    assert r.bytes_after < r.bytes_before / 3
    assert r.speedup > 1.3  # nearly 3 on a machine that does nothing else
