"""``causalrec finetune``: options, refusals, a run from a file to a folder, and going on after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import causalrec as cr
from causalrec.cli import main
from causalrec.errors import ArgumentError, HonestyError
from causalrec.finetune.stored import FORMAT
from causalrec.pipeline import WIDTH, train, trained_in_short
from causalrec.pipeline.recipe import ADAPTERS, OBJECTIVES, RANKED
from causalrec.pipeline.train import checkpoints
from causalrec.settings import FinetuneSettings, Settings, merge, read_settings

ROLES = [
    "--treatment", "recommended", "--outcome", "clicked", "--text", "title", "--history", "history", "--unit", "user_id", "--item", "item_id",
    "--confounders", "past_ctr,hour",
]  # fmt: skip


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Run the command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*argv: object) -> Ran:
        code = 0
        try:
            main([str(a) for a in argv])
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return call


@pytest.fixture(scope="module")
def log_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "clicks.parquet"
    cr.simulate(1_500, n_users=150, n_items=40, random_state=990_061).frame.to_parquet(path)
    return path


def chosen(**options: object) -> FinetuneSettings:
    return merge({}, {"log": Path("a.csv"), **options}, FinetuneSettings)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_has_a_name(name: str) -> None:
    assert type(chosen(objective=name).recipe().objective) is OBJECTIVES[name]


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_adapter_has_a_name_and_a_rank_where_it_has_ranks(name: str) -> None:
    assert chosen(adapter=name).recipe().adapter == ADAPTERS[name]()
    if name in RANKED:
        assert chosen(adapter=name, rank=3).recipe().adapter.rank == 3  # type: ignore[attr-defined]
    else:
        with pytest.raises(ArgumentError, match=f"rank is 3, but the adapter is '{name}'"):
            chosen(adapter=name, rank=3).recipe()


def test_options_reach_their_objects() -> None:
    recipe = chosen(report_to=("tensorboard",), save_steps=7, position="slot", examination="em").recipe()
    assert recipe.training == cr.Training(report_to=("tensorboard",), save_steps=7)
    assert recipe.examination == "em"
    recipe = chosen(clip=0.05, epochs=7, batch_size=32, learning_rate=0.01, head="cross", loss="pairwise", validation=0.3).recipe()
    assert recipe.weighing.clip == cr.Clip(0.05)
    assert recipe.head == cr.Head(kind="cross")
    assert recipe.training == cr.Training(loss="pairwise", batch_size=32, head_rate=0.01, validation=0.3), "the head's rate: the encoder is frozen"
    assert chosen(adapter="lora", learning_rate=0.01).recipe().training == cr.Training(learning_rate=0.01)
    assert recipe.epochs == 7


def test_config_and_flags(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('log = "a.csv"\nobjective = "dr"\nadapter = "lora"\nrank = 4\nepochs = 2\nconfounder = ["hour"]\n')
    settings = merge(read_settings(path, FinetuneSettings), {"rank": 16, "seed": 3}, FinetuneSettings)
    assert settings == FinetuneSettings(Path("a.csv"), objective="dr", adapter="lora", rank=16, epochs=2, confounder=("hour",), seed=3)
    path.write_text("estimand = 'ate'")
    with pytest.raises(ArgumentError, match="unknown key 'estimand'"):
        read_settings(path, FinetuneSettings)
    path.write_text("epochs = 3")
    with pytest.raises(ArgumentError, match="unknown key 'epochs'"):
        read_settings(path, Settings)


REFUSALS = {
    "no log": (["finetune"], 2, "no log is named; say causalrec finetune LOG"),
    "a demo that is no demo": (["finetune", "LOG", "--demo"], 2, "--demo brings its own log"),
    "an unknown objective": (["finetune", "LOG", *ROLES, "--objective", "snip"], 2, "objective is 'snip', must be one of"),
    "an unknown adapter": (["finetune", "LOG", *ROLES, "--adapter", "Lora"], 2, "adapter is 'Lora'"),
    "a rank without ranks": (["finetune", "LOG", *ROLES, "--rank", "4"], 2, "rank is 4, but the adapter is 'frozen'"),
    "two rates for one head": (["finetune", "LOG", *ROLES, "--learning-rate", "0.1", "--head-rate", "0.1"], 2, "give one of them"),
    "no epochs": (["finetune", "LOG", *ROLES, "--epochs", "0"], 2, "epochs is 0, must be >= 1"),
    "a clip above a half": (["finetune", "LOG", *ROLES, "--clip", "0.7"], 2, "must be"),
    "a misspelt column": (["finetune", "LOG", *ROLES[:4], "--text", "titel"], 2, "'titel' (text) is not in the table"),
    "no text": (["finetune", "LOG", *ROLES[:4], "--unit", "user_id"], 1, "declares no text"),
    "a curve without positions": (["finetune", "LOG", *ROLES, "--examination", "harvest"], 2, "add --position COLUMN"),
    "an unknown way to a curve": (["finetune", "LOG", *ROLES, "--position", "position", "--examination", "pbm"], 2, "examination is 'pbm', must be one of"),
    "an unknown logger": (["finetune", "LOG", *ROLES, "--report-to", "tensorbord"], 2, "report_to is 'tensorbord', must be one of"),
    "no such log": (["finetune", "missing.csv", *ROLES], 1, "'missing.csv' does not exist"),
    "no such folder": (["finetune", "LOG", *ROLES, "-o", "none/model"], 1, "output is 'none/model', which cannot be a folder"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS, ids=str)
def test_refusals_are_one_line_and_a_status(run: Callable[..., Ran], case: str, log_path: Path) -> None:
    argv, code, message = REFUSALS[case]
    done = run(*(log_path if a == "LOG" else a for a in argv))
    assert done.code == code, done.err
    assert message in " ".join(done.err.split())
    assert "Traceback" not in done.err
    assert done.out == ""


@pytest.mark.parametrize(("name", "options"), [("ranker", []), ("encoder", ["--adapter", "lora"])])
def test_what_is_not_of_a_run_is_not_replaced(
    name: str, options: list[str], run: Callable[..., Ran], log_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "embed", None)  # reading the words would fail
    mine = tmp_path / "model" / name / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("do not touch")
    done = run("finetune", log_path, *ROLES, *options, "-o", "model")
    assert done.code == 1
    assert f"model/{name} holds no " in done.err
    assert "it is not replaced. Name another folder" in " ".join(done.err.split())
    assert mine.read_text() == "do not touch"


def test_a_device_that_is_not_there_is_missed_before_the_words_are_read(run: Callable[..., Ran], log_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "embed", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = run("finetune", log_path, *ROLES, "--device", "cuda", "-o", "model")
    assert done.code == 2
    assert "device is 'cuda', which torch does not find here" in " ".join(done.err.split())


def test_from_a_file_to_a_folder_and_on(run: Callable[..., Ran], log_path: Path, tmp_path: Path) -> None:
    argv = ["finetune", log_path, *ROLES, "--objective", "snips", "--epochs", 2, "--seed", 3, "-o", "model"]
    done = run(*argv, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["objective"] == "SNIPS"
    assert found["values"]["gain"]["ci_lower"] < found["values"]["gain"]["value"]
    assert found["resumed"] == []
    assert found["encoder"] is None
    page = (tmp_path / "model" / "report.html").read_text(encoding="utf-8")
    assert "What is the ranker’s choice worth?" in page
    assert cr.Ranker.load(tmp_path / "model" / "ranker").evaluation.values["gain"].value == found["values"]["gain"]["value"]
    assert max(map(len, trained_in_short(found).splitlines())) <= WIDTH

    again = run(*argv, "--json")
    assert again.code == 0, again.err
    more = json.loads(again.out)
    assert more["resumed"] == list(checkpoints(tmp_path / "model"))
    assert "found run/checkpoint-" in again.err
    assert more["values"] == found["values"]
    assert "went on from" in trained_in_short(more)

    manifest = tmp_path / "model" / "ranker" / "ranker.json"
    kept = manifest.read_text()
    assert json.loads(kept)["format"] == FORMAT
    for options, message in ((("--seed", 4), "holds a run with another"), (("--objective", "auto"), "model holds a run with another objective (run)")):
        other = run(*argv[:-2], *options, "-o", "model")
        assert other.code == 1
        assert message in " ".join(other.err.split())
        assert manifest.read_text() == kept, "what was there still is"
    newest, = checkpoints(tmp_path / "model")
    (tmp_path / "model" / newest / "scheduler.pt").write_bytes(b"")
    assert checkpoints(tmp_path / "model") != (newest,), "nothing goes on from what is damaged"


def test_clicks_over_p_examined(run: Callable[..., Ran], log_path: Path, tmp_path: Path) -> None:
    argv = ["finetune", log_path, *ROLES, "--position", "position", "--examination", "em", "--objective", "snips", "--epochs", 1, "-o", "model"]
    done = run(*argv)
    assert done.code == 0, done.err
    assert "P(examined | position), by a click model" in done.err
    page = (tmp_path / "model" / "report.html").read_text(encoding="utf-8")
    assert "clicks per 1,000 impressions shown and looked at" in page
    assert "Was it looked at?" in page
    assert cr.Ranker.load(tmp_path / "model" / "ranker").evaluation.if_examined


@pytest.mark.slow
def test_killed_and_called_again_gives_the_same_ranker(log_path: Path, tmp_path: Path) -> None:
    def command(folder: str) -> list[str]:
        options = ["--objective", "snips", "--adapter", "lora", "--rank", "2", "--epochs", "3", "--batch-size", "128", "--json", "-o", folder]
        return [sys.executable, "-m", "causalrec", "finetune", str(log_path), *ROLES, *options]

    whole = subprocess.run(command("whole"), cwd=tmp_path, capture_output=True, text=True, check=True)
    cut = subprocess.Popen(command("cut"), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not checkpoints(tmp_path / "cut") and cut.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    os.kill(cut.pid, signal.SIGKILL)
    cut.wait()
    done = subprocess.run(command("cut"), cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "found run/checkpoint-" in done.stderr
    first, second = json.loads(whole.stdout), json.loads(done.stdout)
    assert second["values"] == first["values"]
    assert second["encoder"] == "cut/encoder"
    with pytest.raises(HonestyError, match="trained on clicks of"):
        cr.embed(cr.read_log(log_path, treatment="recommended", outcome="clicked", text="title", unit="user_id"), cr.TextEmbedder(str(tmp_path / "cut" / "encoder")))
