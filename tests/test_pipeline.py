"""What the command line guards against before and between the expensive stages."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import causalrec as cr
from causalrec.errors import EstimationError
from causalrec.pipeline import Economics
from causalrec.pipeline.whom import TEST_SIZE, _known_levels


def log_of(device: np.ndarray) -> cr.ImpressionLog:
    rng = np.random.default_rng(0)
    n = len(device)
    frame = pd.DataFrame(
        {
            "t": rng.integers(0, 2, n),
            "y": rng.integers(0, 2, n),
            "user": np.arange(n),
            "device": device,
            "age": rng.normal(size=n),
        }
    )
    return cr.read_log(frame, treatment="t", outcome="y", unit="user", modifiers=["device", "age"])


def test_a_level_that_only_held_out_users_have_is_left_out_and_said() -> None:
    device = np.array(["phone", "desk"] * 600, dtype=object)
    _, test = log_of(device).split(test_size=TEST_SIZE, random_state=0)
    alone = int(test.frame["user"].iloc[0])
    device[alone] = "toaster"
    train, test = log_of(device).split(test_size=TEST_SIZE, random_state=0)
    if alone in set(train.frame["user"]):
        train, test = test, train
    skipped: list[str] = []
    kept = _known_levels(train, test, ("device", "age"), skipped)
    assert len(kept) == len(test) - 1
    assert skipped == [
        "1 held-out rows were left out of every judgement: no training user has their level of 'device' (toaster)."
    ]
    assert _known_levels(train, train, ("device", "age"), skipped) is train


def test_a_protected_group_too_small_for_one_half_is_refused_before_anything_is_computed() -> None:
    device = np.array(["phone"] * 1155 + ["desk"] * 45, dtype=object)
    with pytest.raises(EstimationError, match="must have >= 30"):
        Economics(protected=("device",)).check(log_of(device))
    Economics(protected=("device",)).check(log_of(np.array(["phone", "desk"] * 600, dtype=object)))


def test_embedding_does_not_move_users_between_the_halves() -> None:
    log = log_of(np.array(["phone", "desk"] * 300, dtype=object))
    block = cr.Block(
        "text:device", "text", np.eye(2, dtype=np.float32), np.tile([0, 1], 300), ("device",), "test"
    )
    plain, embedded = (
        one.split(0.3, random_state=4)[1].frame["user"] for one in (log, log.with_blocks([block]))
    )
    assert plain.tolist() == embedded.tolist()
