from __future__ import annotations

import html
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from small_logs import make_world

import causalrec as cr
from causalrec.cli import main
from causalrec.errors import ArgumentError, CausalRecWarning, OutputError
from causalrec.pipeline import WIDTH, Economics, check_writable, findings, in_short, targeted_in_short
from causalrec.pipeline.stages import Clock, listening, plain
from causalrec.settings import Settings, UpliftSettings, apart, merge, read_settings

ROLES = ["--treatment", "recommended", "--outcome", "clicked", "--text", "title", "--unit", "user_id"]


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
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
    cr.simulate(2_000, n_users=200, n_items=60, random_state=11).frame.to_parquet(path)
    return path


@pytest.mark.parametrize(
    "argv", [("--help",), ("report", "--help"), ("uplift", "--help"), ("finetune", "--help"), ("demo", "--help")]
)
def test_help(run, argv: tuple[str, ...]) -> None:
    done = run(*argv)
    assert done.code == 0
    assert "Usage: causalrec" in done.out


def test_version_and_module_entry(run) -> None:
    assert run("--version").out.strip() == cr.__version__
    shown = subprocess.run([sys.executable, "-m", "causalrec", "--version"], capture_output=True, text=True)
    assert (shown.returncode, shown.stdout.strip()) == (0, cr.__version__)


# arguments → (exit status, part of the message)
REFUSALS = {
    "no command that is known": (["reprot"], 2, "No such command"),
    "an option that is not known": (["report", "--txet", "title"], 2, "No such option"),
    "a seed below zero": (["demo", "--seed", "-1"], 2, "--seed"),
    "no log": (["report"], 2, "no log is named"),
    "no treatment": (["report", "LOG", "--outcome", "clicked"], 2, "treatment is None"),
    "a misspelt column": (
        ["report", "LOG", *ROLES[:4], "--text", "titel"], 2, "'titel' (text) is not in the table. Did you",
    ),
    "an unknown estimand": (["report", "LOG", *ROLES, "--estimand", "atx"], 2, "estimand is 'atx', must be"),
    "an unknown level": (["report", "LOG", *ROLES, "--treated", "yes"], 2, "treated is 'yes'"),
    "no such log": (["report", "missing.csv", *ROLES], 1, "'missing.csv' does not exist"),
    "an outcome that does not vary": (
        ["report", "LOG", "--treatment", "recommended", "--outcome", "title"], 1, "must be numeric",
    ),
    "no such folder": (["report", "LOG", *ROLES, "-o", "none/report.html"], 1, "there is no folder 'none'"),
    "a folder as output": (["report", "LOG", *ROLES, "-o", "."], 1, "a folder; name a file in it"),
    "uplift without a log": (["uplift"], 2, "no log is named; say causalrec uplift LOG"),
    "uplift of a demo that is no demo": (["uplift", "LOG", "--demo"], 2, "--demo brings its own log"),
    "a budget of nothing": (["uplift", "LOG", *ROLES, "--budget", "0"], 2, "budget is 0: no one is recommended"),
    "a budget above all": (["uplift", "LOG", *ROLES, "--budget", "1.2"], 2, "budget is 1.2, must be <= 1"),
    "a negative cost": (["uplift", "LOG", *ROLES, "--cost", "-1"], 2, "cost is -1.0, must be >= 0"),
    "a worthless click": (["uplift", "LOG", *ROLES, "--value", "0"], 2, "value is 0.0, must be > 0"),
    "a protected column that is not declared": (
        ["uplift", "LOG", *ROLES, "--protected", "device", "--modifiers", "tenure"], 2,
        "protected is 'device', must be a declared modifier or confounder: ['tenure']",
    ),
    "a bound without groups": (["uplift", "LOG", *ROLES, "--max-gap", "0.1"], 2, "protected is None"),
    "a misspelt modifier": (
        ["uplift", "LOG", *ROLES[:4], "--modifiers", "tenure,devise"], 2, "'devise' (modifiers) is not in",
    ),
    "no such folder for the uplift report": (
        ["uplift", "LOG", *ROLES, "-o", "none/u.html"], 1, "there is no folder 'none'",
    ),
    "no such folder for a simulation": (["simulate", "-o", "none/a.parquet"], 1, "there is no folder 'none'"),
    "a simulation of nothing": (["simulate", "--n", "0"], 2, "n is 0"),
    "an unknown data set": (["data", "coats"], 2, "Did you mean 'coat'"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS, ids=str)
def test_refusals_are_one_line_and_a_status(run, case: str, log_path: Path, tmp_path: Path) -> None:
    argv, code, message = REFUSALS[case]
    done = run(*(log_path if a == "LOG" else a for a in argv))
    assert done.code == code
    assert message in done.err
    assert "Traceback" not in done.err
    assert done.out == ""
    assert list(tmp_path.iterdir()) == []


def test_simulate_writes_a_log_with_its_truth(run, tmp_path: Path) -> None:
    done = run("simulate", "-o", "a.parquet", "--n", 600, "--users", 60, "--items", 40, "--seed", 5)
    assert done.code == 0
    assert "written to a.parquet" in done.out
    first = pd.read_parquet(tmp_path / "a.parquet")
    assert len(first) == 600
    assert "true_tau" in first
    run("simulate", "-o", "b.parquet", "--n", 600, "--users", 60, "--items", 40, "--seed", 5)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_data_says_terms_and_place(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CAUSALREC_DATA", str(tmp_path))
    monkeypatch.setenv("CAUSALREC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "goodbooks").mkdir()
    (tmp_path / "goodbooks" / "books.csv").write_text("x")
    done = run("data")
    assert done.code == 0
    assert f"found: {tmp_path}" in done.out
    assert "CC BY-SA 4.0" in done.out
    assert "not on this machine; get it from" in run("data", "upworthy").out
    assert "sha256" in run("data", "coat").out


def test_doctor(run) -> None:
    done = run("doctor")
    assert done.code == 0
    assert "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db" in done.out
    records = {r["what"]: r for r in json.loads(run("doctor", "--json").out)}
    assert records["numpy"]["found"] == np.__version__
    assert records["encoder"]["well"] is True


def test_doctor_misses_what_is_missing(run, monkeypatch: pytest.MonkeyPatch) -> None:
    import causalrec.doctor as doctor

    monkeypatch.setattr(doctor, "PACKAGES", ("numpy", "a-package-that-nobody-wrote"))
    done = run("doctor")
    assert done.code == 1
    assert "something is missing" in done.out


def test_flags_win_over_the_config(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('log = "a.csv"\ntext = "title"\nmodifier = ["tenure"]\nseed = 3\nrefute = false\n')
    settings = merge(
        read_settings(path), {"seed": 0, "text": ["headline"], "output": None, "modifier": None}, Settings
    )
    assert settings == Settings(Path("a.csv"), text=("headline",), modifier=("tenure",), seed=0, refute=False)


def test_settings_of_uplift(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        'log = "a.csv"\nvalue = 2\nbudget = 0.2\nprotected = ["gender,age"]\nmodifier = "tenure"\n'
    )
    chosen = merge(read_settings(path, UpliftSettings), {"cost": 0.02, "budget": 0.3}, UpliftSettings)
    assert chosen.modifier == ("tenure",)
    assert chosen.output == Path("uplift.html")
    assert chosen.economics(["gender", "age"]) == Economics(2, 0.02, 0.3, ("gender", "age"))
    with pytest.raises(ArgumentError, match="unknown key 'value'"):
        read_settings(path)
    path.write_text('budget = "some"')
    with pytest.raises(ArgumentError, match="budget is 'some' in the config, must be a number"):
        read_settings(path, UpliftSettings)


def test_names_joined_by_commas_are_taken_apart_unless_a_column_is_called_so() -> None:
    assert apart(["a,b", "c", "d, e"], ["a", "b", "c", "d, e"]) == ("a", "b", "c", "d, e")
    assert apart(["a, b,"], []) == ("a", "b")


BAD_CONFIGS = {
    'modifiers = ["tenure"]': "unknown key 'modifiers'. Did you mean 'modifier'",
    "text = 3": "text is 3 in the config, must be a column name or a list of them",
    'refute = "no"': "refute is 'no' in the config, must be true or false",
    "treatment = 1": "treatment is 1 in the config, must be text",
    'log = "a.csv"\nseed = 1.5': "seed is 1.5, must be a whole number",
    "seed = [1]": "must be one value",
    "log = ": "cannot be read as TOML",
}


@pytest.mark.parametrize("text", BAD_CONFIGS, ids=str)
def test_bad_config(text: str, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ArgumentError) as caught:
        merge(read_settings(path), {}, Settings)
    assert BAD_CONFIGS[text] in str(caught.value)


def test_missing_config_is_wrong_usage(run) -> None:
    done = run("report", "--config", "none.toml")
    assert done.code == 2
    assert "none.toml" in done.err


@pytest.mark.parametrize(("levels", "treated"), [([1, 2], "2"), ([False, True], "True"), (["a", "2"], "2")])
def test_treated_level_is_read_as_the_column_has_it(levels: list, treated: str, tmp_path: Path) -> None:
    n = 400
    frame = pd.DataFrame({"arm": levels * (n // 2), "clicked": [0, 0, 1, 1] * (n // 4)})
    frame.to_parquet(tmp_path / "log.parquet")
    log = Settings(tmp_path / "log.parquet", treatment="arm", outcome="clicked", treated=treated).read()
    assert log.treatment.tolist() == [float(i % 2) for i in range(n)]


def test_output_is_checked_and_nothing_is_left(tmp_path: Path) -> None:
    there = tmp_path / "report.html"
    there.write_text("old")
    assert check_writable(there) == there
    assert there.read_text() == "old"
    assert check_writable(tmp_path / "new.html") == tmp_path / "new.html"
    assert list(tmp_path.iterdir()) == [there]
    with pytest.raises(OutputError, match="cannot be written"):
        check_writable(Path("/proc/report.html"))


def test_progress_and_warnings_are_said_once() -> None:
    import warnings

    said: list[str] = []
    clock = Clock(said.append)
    with listening(said.append) as heard, clock("counting"):
        for _ in range(2):
            warnings.warn("few users", CausalRecWarning, stacklevel=1)
        warnings.warn("new in pandas 4", FutureWarning, stacklevel=1)
        warnings.warn("divide by zero", RuntimeWarning, stacklevel=1)
    assert heard == ["few users", "RuntimeWarning: divide by zero"]
    assert said[:2] == ["counting …", "warning: few users"]
    assert said[-1].endswith(" s")
    assert [stage for stage, _ in clock.seconds] == ["counting"]


def test_plain_values_only() -> None:
    value = {"a": np.float64(1.5), "b": (np.int64(2), float("nan")), "c": [None, "x"], "d": np.bool_(False)}
    assert plain(value) == {"a": 1.5, "b": [2, None], "c": [None, "x"], "d": False}
    json.dumps(plain(value), allow_nan=False)


def make_analysis(*, passed: bool | None = True) -> SimpleNamespace:
    """The values that ``findings`` reads, by hand."""
    fit = SimpleNamespace(
        estimand="ate", effect=0.03, std_error=0.004, ci_lower=0.022, ci_upper=0.038, p_value=1e-9,
        naive_effect=0.07, n=4000, n_units=400, ess=3100.0, share_anyway=(0.712, 0.69, 0.735),
        by_item=None, analysis=SimpleNamespace(caveats=("few users",)),
    )  # fmt: skip
    record = SimpleNamespace(
        name="placebo",
        passed=passed,
        statistic=0.1,
        p_value=0.9,
        message="no effect, " + "as it should, " * 9,
    )
    plan = SimpleNamespace(
        treatment="recommended", outcome="clicked", strategy="backdoor", propensity_nodes=("text:title",),
        outcome_nodes=("text:title",), refused=(("slot", "a mediator"),), assumptions=("overlap",), notes=(),
    )  # fmt: skip
    return SimpleNamespace(
        log=SimpleNamespace(roles=SimpleNamespace(unit=("user_id",))),
        plan=plan,
        fit=fit,
        checks=[record],
        curve=SimpleNamespace(qini=0.1, qini_ci=(0.05, 0.15), autoc=0.2, autoc_ci=(float("nan"), 0.3)),
        output=Path("report.html"),
        warnings=(),
        seconds=(("the effect", 1.0),),
    )


def test_findings_in_short() -> None:
    found = findings(make_analysis(), truth=0.031)
    lines = in_short(found).splitlines()
    assert lines[0].endswith("+0.0700 clicked per impression")
    assert "+0.0300   95 % interval +0.0220 to +0.0380, clustered by user_id" in lines[1]
    assert max(map(len, lines)) <= WIDTH
    assert "clustered by user_id and item" in in_short(found | {"by_item": {"std_error": 0.01}})
    assert "71.2 % of all clicked where recommended   95 % interval 69.0 % to 73.5 %" in lines[2]
    assert "+0.0310   inside the interval" in lines[3]
    assert lines[4].split(maxsplit=1) == ["caveat", "few users"]
    assert "passed  placebo: no effect" in lines[5]
    assert found["uplift"]["autoc_ci"] == [None, 0.3]
    assert "outside the interval" in in_short(findings(make_analysis(), truth=0.05))


@pytest.mark.parametrize(("passed", "word"), [(True, "passed"), (False, "FAILED"), (None, "note")])
def test_verdicts_are_marked(passed: bool | None, word: str) -> None:
    assert f"{word:<7} placebo" in in_short(findings(make_analysis(passed=passed)))


@pytest.mark.slow
def test_report_end_to_end(run, log_path: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text(f'log = "{log_path}"\nmodifier = ["tenure"]\nconfounder = ["past_ctr"]\nseed = 1\n')
    done = run("report", "--config", config, *ROLES, "--history", "history", "--json", "-o", "r.html")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["plan"]["propensity_nodes"][0] == "text:title"
    assert found["ci_lower"] < found["effect"] < found["ci_upper"]
    assert found["n"] == 2_000
    assert {c["passed"] for c in found["checks"]} <= {True, False, None}
    assert found["report"] == "r.html"
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "</html>" in page
    assert "the effect" in done.err


@pytest.mark.slow
def test_same_seed_same_bytes(run, log_path: Path, tmp_path: Path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        done = run("report", log_path, *ROLES, "--no-refute", "-o", folder / "r.html", "--seed", 4)
        assert done.code == 0, done.err
        assert "left out" in done.out
    assert (tmp_path / "a" / "r.html").read_bytes() == (tmp_path / "b" / "r.html").read_bytes()


@pytest.mark.slow
def test_uplift_end_to_end(run, tmp_path: Path) -> None:
    """From a CSV file to a page, figures and numbers; the same bytes from the same seed."""
    world = make_world(2_500, 1_250, seed=4, heterogeneity=1.5, effect=0.2).frame
    world.to_csv(tmp_path / "clicks.csv", index=False)
    argv = [
        "uplift", "clicks.csv", "--treatment", "shown", "--outcome", "clicked", "--unit", "user", "--modifiers", "age,device",
        "--confounders", "rate", "--value", "2", "--cost", "0.1", "--budget", "0.4", "--protected", "device", "--no-refute",
        "--json", "--seed", "3",
    ]  # fmt: skip
    done = run(*argv, "-o", "u.html", "--figures", "figures")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert "which model of the effect?" in done.err
    assert found["report"] == "u.html"
    assert {p["policy"] for p in found["policies"]} == {
        "tree",
        "forest",
        "cate",
        "none",
        "random",
        "all",
        "today",
    }
    assert found["recommended"] in ("tree", "forest", "cate", None)
    assert len(found["segments"]) == 7
    assert set(found["breakdown"]) >= {"everyone", "device = phone"}
    assert any(s.startswith("Unseen items: ") for s in found["skipped"])
    page = (tmp_path / "u.html").read_text(encoding="utf-8")
    assert found["decision"] in html.unescape(page)
    assert "What was skipped, and why" in page
    assert (tmp_path / "figures" / "policies.svg").exists()
    assert (tmp_path / "figures" / "policies.png").exists()
    short = targeted_in_short(found)
    assert max(map(len, short.splitlines())) <= WIDTH
    assert found["decision"].split(".")[0] in " ".join(short.split())
    assert run(*argv, "-o", "v.html").code == 0
    assert (tmp_path / "v.html").read_text(encoding="utf-8") == page
