from __future__ import annotations

import numpy as np
import pytest

from causalrec.estimate.overlap import measure_overlap
from causalrec.nuisance import Clip

N = 10_000


def drawn(seed: int, low: float, high: float) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    e = rng.uniform(low, high, N)
    return (rng.random(N) < e).astype(float), e, rng


@pytest.mark.parametrize("arm", ["treated", "control"])
def test_texts_that_are_never_in_an_arm_show_though_the_models_smooth_over_them(arm: str) -> None:
    for seed in range(20):
        t, e, rng = drawn(seed, 0.09, 0.91)
        edge = np.argsort(e)[:200] if arm == "treated" else np.argsort(e)[-200:]
        never = rng.random(200) < 0.01
        t[edge] = never if arm == "treated" else 1 - never
        (found,) = measure_overlap(t, e, Clip()).edges
        assert found[:2] == (arm, 200)
        assert found[2] < found[3] / 2
        assert measure_overlap(t, e, Clip(), estimand="ato").edges == ()
        assert len(measure_overlap(t, e, Clip(), estimand="att").edges) == (arm == "control")


@pytest.mark.parametrize(("low", "high"), [(0.02, 0.98), (0.05, 0.6), (0.001, 0.02), (0.4, 0.6)])
def test_right_propensities_have_no_thin_edge_and_a_rare_arm_is_none(low: float, high: float) -> None:
    for seed in range(100):
        t, e, _ = drawn(seed, low, high)
        assert measure_overlap(t, e, Clip(min(0.01, t.mean() / 10))).edges == ()


def test_a_short_log_has_no_edges() -> None:
    t, e, _ = drawn(0, 0.09, 0.91)
    t[e < 0.3] = 0
    assert measure_overlap(t[:300], e[:300], Clip()).edges == ()
