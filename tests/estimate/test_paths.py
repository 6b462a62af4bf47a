"""The fit says what its models have learnt, member by member, and what the other way of fitting them would cost."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

import causalrec as cr

FOLDS = cr.Folds(3)


@pytest.fixture(scope="module")
def log() -> cr.ImpressionLog:
    rng = np.random.default_rng(0)
    n = 1_200
    words = np.array(["garden", "money", "storm", "recipe", "children", "match"])
    picked = rng.integers(0, 6, (n, 4))
    cold = (picked == 2).sum(axis=1)
    t = (rng.random(n) < 1 / (1 + np.exp(-(cold - 0.7)))).astype(int)
    y = (rng.random(n) < 1 / (1 + np.exp(-(cold - 1.0 + 0.4 * t)))).astype(int)
    frame = pd.DataFrame({"title": [" ".join(words[row]) for row in picked], "t": t, "y": y, "user": np.arange(n)})
    return cr.embed(cr.read_log(frame, treatment="t", outcome="y", unit="user", text="title"))


def test_the_default_says_what_it_explains_and_what_a_mix_would_cost(log: cr.ImpressionLog) -> None:
    said = cr.estimate(log, cr.identify(log), folds=FOLDS, random_state=0).summary()
    found = re.search(r"Held-out log-loss explained: exposure (\S+) % \(AUC (\S+)\); clicks without it", said)
    assert found
    assert float(found[1]) > 1
    assert float(found[2]) > 0.55
    assert re.search(r"SuperLearner\.quick\(\) mixes in n-grams and a network \(about \d+ s\), \.thorough\(\)", said)


@pytest.mark.slow
def test_a_mix_says_what_each_member_explains(log: cr.ImpressionLog) -> None:
    nuisances = cr.SuperLearner(members=("ridge", "ngrams"), progress=False)
    said = cr.estimate(log, cr.identify(log), nuisances=nuisances, random_state=0).summary()
    assert re.search(r"exposure \S+ % \(AUC \S+\), alone ridge \S+ %, ngrams \S+ %; clicks without it", said)
    assert "The other path: the default" in said


def test_without_texts_there_is_no_other_path() -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"x": rng.standard_normal(600), "t": rng.integers(0, 2, 600), "y": rng.standard_normal(600)})
    log = cr.read_log(frame, treatment="t", outcome="y", confounders=["x"])
    said = cr.estimate(log, cr.identify(log), folds=FOLDS, random_state=0).summary()
    assert "The other path" not in said
    assert "log-loss (exposure) and variance (outcome) explained" in said
