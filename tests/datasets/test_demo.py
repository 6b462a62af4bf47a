"""The demo log is the one that its script makes, its card is right, and it can be analysed as declared."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from causalrec.datasets import demo_card, load_demo, loaders, simulate
from causalrec.errors import DataUnavailableError
from causalrec.reading import read_log


@pytest.fixture(scope="module")
def demo():
    return load_demo()


@pytest.fixture(scope="module")
def card():
    return demo_card()


def shipped():
    return next(p for f in loaders._DEMO_FOLDERS if (p := Path(f) / "demo.parquet").is_file())


def test_file_is_small_and_as_the_card_says(card):
    content = shipped().read_bytes()
    assert len(content) <= 5_000_000
    assert hashlib.sha256(content).hexdigest() == card["sha256"]
    assert card["seed"] == 2026
    assert card["licence"] == "CC0-1.0"


def test_truth_of_the_card_is_that_of_the_columns(demo, card):
    tau, e, treated = demo["true_tau"], demo["true_propensity"], demo["recommended"] == 1
    assert len(demo) == card["n"] == 20_000
    assert card["truth"]["ate"] == pytest.approx(tau.mean(), abs=1e-12)
    assert card["truth"]["att"] == pytest.approx(tau[treated].mean(), abs=1e-12)
    assert card["truth"]["ato"] == pytest.approx(np.average(tau, weights=e * (1 - e)), abs=1e-12)
    naive = demo["clicked"][treated].mean() - demo["clicked"][~treated].mean()
    assert card["truth"]["naive"] == pytest.approx(naive, abs=1e-12)
    np.testing.assert_allclose(demo["true_p1"] - demo["true_p0"], tau, atol=1e-15)


def test_it_is_what_the_simulator_makes_of_the_seed(demo, card):
    made = simulate(card["n"], random_state=card["seed"]).truth_frame().drop(columns="score")
    assert list(made.columns) == list(demo.columns)
    plain = [c for c in made.columns if c != "history" and not c.startswith("true_")]
    pd.testing.assert_frame_equal(demo[plain], made[plain], check_dtype=False)
    numbers = ["true_propensity", "true_p0", "true_p1", "true_tau"]
    np.testing.assert_allclose(demo[numbers], made[numbers], rtol=1e-9, atol=1e-12)
    assert [list(h) for h in demo["history"]] == made["history"].tolist()


def test_it_can_be_read_with_the_roles_of_the_card(demo, card):
    log = read_log(demo, **card["roles"])
    assert log.n_units > 1_900
    assert log.binary_outcome
    assert not {c for names in log.roles.as_dict().values() for c in names if c.startswith("true_")}


def test_an_installation_without_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(loaders, "_DEMO_FOLDERS", (tmp_path,))
    with pytest.raises(DataUnavailableError, match=r"demo.parquet is in neither .*make_demo.py"):
        load_demo()
    (tmp_path / "demo.json").write_text("{}")
    assert demo_card() == {}
