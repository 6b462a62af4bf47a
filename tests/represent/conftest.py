from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from causalrec import TextEmbedder
from causalrec.represent.weights import DEFAULT_MODEL, locate


@pytest.fixture(scope="session")
def model_folder() -> Path:
    return locate(DEFAULT_MODEL).folder


@pytest.fixture(scope="session")
def encoder() -> TextEmbedder:
    """The default encoder, loaded once, without a cache."""
    return TextEmbedder(cache_dir=False, device="cpu", progress=False)


@pytest.fixture(scope="session")
def tiny_source(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Path:
    """A BERT of two narrow layers with random weights and the default model's tokenizer."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("tiny")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        BertModel(BertConfig(vocab_size=30522, **sizes)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(model_folder / name, folder / name)
    return folder


@pytest.fixture
def tiny(tiny_source: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that the test may change."""
    return Path(shutil.copytree(tiny_source, tmp_path / "tiny"))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No hub, and an empty hub cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
