"""Coat: its propensities take out the bias that they are known to take out, by the package's own estimators."""

from __future__ import annotations

import os

import numpy as np
import pytest

from causalrec import scores
from causalrec.datasets import load_coat

pytestmark = pytest.mark.skipif(
    not os.environ.get("CAUSALREC_DATA"),
    reason="CAUSALREC_DATA is not set: it names the folder with the public data sets",
)


@pytest.fixture(scope="module")
def cells():
    """T, e, rating and user of all 87,000 cells; the ratings drawn at random."""
    coat = load_coat()
    t = (coat.train > 0).astype(float).ravel()
    users = np.repeat(np.arange(len(coat.users)), len(coat.items))
    return t, coat.propensities.ravel(), coat.train.ravel(), users, coat.test[coat.test > 0]


def means(t, e, y, users):
    """Naive, IPS and SNIPS estimates of E[Y(1)]: Σ a / Σ b of three pairs."""
    w = t / e
    pairs = {"naive": (t * y, t), "IPS": (w * y, np.ones_like(w)), "SNIPS": (w * y, w)}
    return {name: scores.clustered_ratio(pair, users) for name, pair in pairs.items()}


@pytest.mark.parametrize(
    ("outcome", "known", "truth"),
    [
        (lambda r: r, {"naive": 2.611, "IPS": 2.424, "SNIPS": 2.331}, 2.229),
        (lambda r: (r >= 4).astype(float), {"naive": 0.274, "IPS": 0.220, "SNIPS": 0.212}, 0.185),
    ],
    ids=["mean rating", "share rated 4 or 5"],
)
def test_shipped_propensities_take_out_half_of_the_bias_and_more(cells, outcome, known, truth):
    t, e, rating, users, random = cells
    found = means(t, e, outcome(rating), users)
    for name, value in known.items():
        assert found[name].value == pytest.approx(value, abs=1e-3), name
    at_random = float(outcome(random).mean())
    assert at_random == pytest.approx(truth, abs=1e-3)
    left = {name: abs(f.value - at_random) for name, f in found.items()}
    assert left["SNIPS"] < left["IPS"] < left["naive"]


def test_weights_leave_a_third_of_the_ratings(cells):
    t, e, *_ = cells
    assert scores.ess(t / e) == pytest.approx(2_211, abs=1)
    assert t.sum() == 6_960
