"""A distilled encoder is an ordinary encoder that says what its teacher says, and remembers what its teacher remembers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import causalrec as cr
from causalrec.errors import ArgumentError, MissingExtraError, OutputError, RepresentationError
from causalrec.finetune.distillation import RESULT, Distilled, distil
from causalrec.finetune.gates import cosines
from causalrec.represent.text import SEEN_UNITS
from causalrec.represent.weights import DEFAULT_MODEL, locate

pytest.importorskip("accelerate")

ADJECTIVES = ["red", "blue", "quiet", "loud", "famous", "hidden", "early", "late", "bright", "heavy"]
NOUNS = ["river", "doctor", "garden", "engine", "teacher", "senate", "planet", "kitchen", "violin", "winter"]
TEXTS = [f"the {a} {n} {'of the year ' * (i % 3)}{i % 7}" for i, (a, n) in enumerate((a, n) for a in ADJECTIVES for n in NOUNS)]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> cr.TextEmbedder:
    """A BERT of four narrow layers with random weights, and a memory of three users."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("teacher")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}
        BertModel(BertConfig(vocab_size=30522, initializer_range=0.3, **sizes)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(locate(DEFAULT_MODEL).folder / name, folder / name)
    np.save(folder / SEEN_UNITS, np.array([1, 2, 3], dtype=np.uint64))
    return cr.TextEmbedder(str(folder), cache_dir=False, device="cpu", progress=False)


@pytest.fixture(scope="module")
def distilled(teacher: cr.TextEmbedder, tmp_path_factory: pytest.TempPathFactory) -> Distilled:
    folder = tmp_path_factory.mktemp("out") / "student"
    return distil(teacher, folder, texts=TEXTS, layers=2, epochs=8, lr=2e-3, holdout=0.2, min_cosine=0, random_state=0, progress=False)


def test_the_student_learns(teacher: cr.TextEmbedder, distilled: Distilled) -> None:
    r = distilled
    assert (r.layers, r.teacher_layers, r.n_texts, r.n_held_out) == (2, 4, 80, 20)
    assert len(r.history) == 9
    assert r.history[-1] > r.history[0] + 0.05
    assert r.n_weights < r.n_teacher_weights
    assert r.cosine_least <= r.cosine_1_percent <= r.cosine_median
    assert r.history[-1] == pytest.approx(r.cosine_mean, abs=0.02)  # in bfloat16 while training
    found = cosines(r.encoder.transform(TEXTS), teacher.transform(TEXTS))
    assert found.mean() == pytest.approx(r.cosine_mean, abs=0.1)


def test_its_folder_is_an_ordinary_encoder(distilled: Distilled, teacher: cr.TextEmbedder) -> None:
    folder = Path(distilled.encoder.model)
    again = cr.TextEmbedder(str(folder), cache_dir=False, device="cpu", progress=False)
    np.testing.assert_array_equal(again.transform(TEXTS[:3]), distilled.encoder.transform(TEXTS[:3]))
    np.testing.assert_array_equal(again.seen_units, [1, 2, 3])
    assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] == 2
    said = json.loads((folder / RESULT).read_text())
    assert said["teacher"] == teacher.fingerprint
    assert said["cosine_mean"] == distilled.cosine_mean
    assert "has seen texts and vectors, no clicks" in distilled.summary()


def test_the_same_seed_gives_the_same_student(teacher: cr.TextEmbedder, tmp_path: Path) -> None:
    import random

    import torch

    before = torch.get_rng_state(), random.getstate()
    options: dict[str, Any] = {"texts": TEXTS, "layers": 1, "epochs": 1, "min_cosine": -1, "progress": False}
    one, two, other = (distil(teacher, tmp_path / str(i), random_state=s, **options) for i, s in enumerate((5, 5, 6)))
    np.testing.assert_array_equal(one.encoder.transform(TEXTS), two.encoder.transform(TEXTS))
    assert one.history == two.history != other.history
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()


def test_the_order_of_the_texts_has_no_say(teacher: cr.TextEmbedder, tmp_path: Path) -> None:
    options: dict[str, Any] = {"layers": 1, "epochs": 1, "min_cosine": -1, "progress": False, "random_state": 0}
    one = distil(teacher, tmp_path / "a", texts=TEXTS, **options)
    two = distil(teacher, tmp_path / "b", texts=TEXTS[::-1] + TEXTS, **options)
    assert one.history == two.history


def test_a_student_that_is_too_unlike_leaves_nothing(teacher: cr.TextEmbedder, tmp_path: Path) -> None:
    with pytest.raises(RepresentationError, match=r"mean cosine .* must be ≥ 1; nothing was written. By epoch it was"):
        distil(teacher, tmp_path / "out", texts=TEXTS, layers=1, epochs=1, min_cosine=1, progress=False, random_state=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"layers": 4}, ArgumentError, "layers is 4, must be < 4"),
        ({"layers": 0}, ArgumentError, "layers is 0, must be >= 1"),
        ({"epochs": 0}, ArgumentError, "epochs is 0"),
        ({"holdout": 1.0}, ArgumentError, "holdout is 1.0, must be < 1"),
        ({"lr": 0}, ArgumentError, "lr is 0"),
        ({"texts": TEXTS[:20]}, RepresentationError, "20 distinct texts, must be >= 64"),
        ({"encoder": 3}, ArgumentError, "encoder is a int, must be a TextEmbedder"),
        ({"log": "a log"}, ArgumentError, "log is given without plan"),
    ],
)
def test_bad_input(teacher: cr.TextEmbedder, tmp_path: Path, changed: dict[str, Any], error: type[Exception], said: str) -> None:
    given: dict[str, Any] = {"encoder": teacher, "texts": TEXTS} | changed
    with pytest.raises(error, match=said):
        distil(given.pop("encoder"), tmp_path / "out", **given)
    assert list(tmp_path.iterdir()) == []


def test_what_stands_there_is_not_overwritten(teacher: cr.TextEmbedder, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="exists and is not empty"):
        distil(teacher, tmp_path, texts=TEXTS)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_without_accelerate(teacher: cr.TextEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import util

    real = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *a: None if name == "accelerate" else real(name, *a))
    with pytest.raises(MissingExtraError, match=r'pip install "causalrec\[finetune\]"'):
        distil(teacher, tmp_path / "out", texts=TEXTS)


@pytest.mark.slow
def test_half_of_the_default_encoder(tmp_path: Path, small_log: cr.ImpressionLog) -> None:
    """Five of six layers, a few texts: most of the teacher is there, and the effect can be asked."""
    texts = sorted({*small_log.texts("title")[0], *TEXTS})
    found = distil(
        cr.TextEmbedder(progress=False), tmp_path / "out", texts=texts, layers=5, epochs=3, min_cosine=0.8, random_state=0, progress=False,
        log=small_log, plan=cr.identify(small_log), max_shift=3,
    )  # fmt: skip
    assert found.cosine_mean > found.history[0]
    assert found.shift is not None
