"""The correction inside ``estimate``: when it is used, what it says, and what it must not see."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

import causalrec as cr
from causalrec.errors import ArgumentError, EstimationError
from causalrec.estimate.analysis import Settings, fit_on
from causalrec.estimate.fit import _inputs
from causalrec.estimate.partners import make_kernel, most_axes, repeated_items
from causalrec.kernels import Rows
from causalrec.nuisance.paired import PairNuisances

EFFECT = 0.1


def table(seed=0, n=6000, items=600, hidden=1.0, known=True):
    rng = np.random.default_rng(seed)
    item = rng.integers(0, items, n)
    trait, x = hidden * rng.normal(size=items)[item], rng.normal(size=n)
    e = 0.1 + 0.8 * expit(0.9 * trait + 0.4 * x)
    t = (rng.random(n) < e).astype(int)
    base = 0.15 + 0.5 * expit(trait + 0.3 * x)
    y = (rng.random(n) < base + EFFECT * t).astype(int)
    frame = pd.DataFrame(
        {
            "t": t,
            "y": y,
            "x": x,
            "item": item,
            "user": rng.permutation(n) // 2,
            "e": e,
            "g": rng.integers(0, 2, n),
        }
    )
    return frame


def read(frame, **roles):
    return cr.read_log(
        frame, treatment="t", outcome="y", unit="user", item="item", confounders=["x"], **roles
    )


def fitted(log, **options):
    return cr.estimate(log, cr.identify(log), random_state=0, **options)


@pytest.fixture(scope="module")
def fit():
    return fitted(read(table(), modifiers="g"))


def test_a_hidden_trait_of_the_item_is_found_and_taken_out(fit):
    assert fit.first_order.ci_lower > EFFECT
    assert fit.ci_lower < EFFECT < fit.ci_upper
    assert fit.correction.order == 2
    assert fit.correction.kernels == ("same_item",)
    left = fit.correction.left
    assert left.ci_lower > 0
    assert left.value == pytest.approx(fit.first_order.value - fit.effect)
    assert "left" in fit.summary()
    assert "bias that the words and covariates left" in list(fit.to_frame()["quantity"])


def test_scores_groups_and_econml_carry_the_correction(fit):
    assert fit.scores.mean() == pytest.approx(fit.effect)
    assert fit.model_average == pytest.approx(fit.effect, abs=1e-6)
    groups = fit.by("g").to_frame()
    assert (groups["ci_lower"] < EFFECT).all()
    assert (groups["ci_upper"] > EFFECT).all()
    value, low, high = fit.share_anyway
    assert low < value < high


def test_coverage_over_logs():
    hits, errors = [], []
    for seed in range(20):
        one = fitted(read(table(seed + 100, n=3000, items=400)))
        hits.append(one.ci_lower <= EFFECT <= one.ci_upper)
        errors.append(one.effect - EFFECT)
    assert sum(hits) >= 16
    assert abs(np.mean(errors)) < 3.5 * np.std(errors) / np.sqrt(20)


def test_a_randomised_log_is_left_alone():
    orders = []
    for seed in range(5):
        frame = table(seed, hidden=0.0)
        frame["t"] = np.random.default_rng(seed).integers(0, 2, len(frame))
        orders.append(fitted(read(frame)).correction.order)
    assert orders.count(1) >= 4


def test_orders_and_kernels_on_demand(fit):
    log = read(table(), modifiers="g")
    first = fitted(log, correction=cr.Correction(order=1))
    assert first.correction.order == 1
    assert first.effect == first.first_order.value
    assert fitted(log, correction=cr.Correction(order=2, kernels=("same_item",))).effect == pytest.approx(
        fit.effect
    )


def test_a_logged_propensity_leaves_nothing_to_correct():
    log = read(table(), propensity="e")
    assert fitted(log).correction.order == 1
    with pytest.raises(EstimationError, match="logged"):
        fitted(log, correction=cr.Correction(order=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 3}, "order is 3"),
        ({"kernels": "same_item"}, "tuple"),
        ({"kernels": ("same_city",)}, "same_city"),
        ({"kernels": ("cells", "same_item")}, "one of these kinds"),
        ({"kernels": ("basis", "same_item")}, "one of these kinds"),
        ({"rows_a_cell": 1}, "rows_a_cell"),
    ],
)
def test_bad_options_say_what_to_do(options, message):
    with pytest.raises(ArgumentError, match=message):
        cr.Correction(**options)


def test_no_pairs_at_all_is_said():
    frame = table().assign(item=lambda f: np.arange(len(f)), user=lambda f: np.arange(len(f)))
    assert fitted(read(frame)).correction.order == 1
    with pytest.raises(EstimationError, match="no pairs"):
        fitted(read(frame), correction=cr.Correction(order=2))


def test_a_treatment_that_goes_by_item_is_not_compared_within_items():
    frame = table()
    frame["t"] = (frame["item"] % 2 == 0).astype(int)
    found = fitted(read(frame)).correction
    assert found.order == 1


def test_nuisances_at_a_pair_of_rows_have_seen_neither_user():
    log = read(table(n=2000, items=200))
    plan = cr.identify(log)

    def values(t, y, sub_only=None):
        inputs = _inputs(log, plan)
        settings = Settings.of("ate", None, None, inputs.t)
        fitted_, sub = fit_on(inputs, settings, None, np.random.default_rng(0))
        items = repeated_items(inputs)
        return inputs, fitted_, sub, items

    inputs, nuisances, sub, items = values(None, None)
    pairs = PairNuisances(
        nuisances, Rows(inputs.t, inputs.y, np.ones(len(sub)), inputs.units, items), sub, 0.01
    )
    block = next(b for b in pairs.blocks() if b.second is not None)
    here = np.concatenate([block.first.rows, block.second.rows])
    from dataclasses import replace

    from causalrec.nuisance import NuisanceRecipe, fit_nuisances

    folds = set(sub[here] % 5)
    scrambled_rows = np.isin(nuisances.fold, list(folds)) & np.isin(sub, sub[here])
    t, y = inputs.t.copy(), inputs.y.copy()
    t[scrambled_rows], y[scrambled_rows] = 1 - t[scrambled_rows], 1 - y[scrambled_rows]
    again = fit_nuisances(replace(nuisances.problem, t=t, y=y), NuisanceRecipe())
    other = PairNuisances(again, Rows(t, y, np.ones(len(sub)), inputs.units, items), sub, 0.01)
    twin = next(b for b in other.blocks() if b.second is not None)
    assert (twin.first.rows == block.first.rows).all()
    for name in ("e", "m0", "m1"):
        np.testing.assert_allclose(getattr(twin.first, name), getattr(block.first, name), atol=2e-4)
        np.testing.assert_allclose(getattr(twin.second, name), getattr(block.second, name), atol=2e-4)


def worded(seed=0, n=5000, d=60, strength=0.8):
    """Every text is shown once; exposure and clicks are linear in d columns of which each says little."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)).astype(np.float32)
    index = x @ rng.normal(size=d) / np.sqrt(d)
    t = (rng.random(n) < expit(strength * index)).astype(int)
    y = (rng.random(n) < 0.15 + 0.5 * expit(strength * index) + EFFECT * t).astype(int)
    frame = pd.DataFrame(
        {"t": t, "y": y, "title": [f"text {k}" for k in range(n)], "g": rng.integers(0, 2, n)}
    )
    log = cr.read_log(frame, treatment="t", outcome="y", text="title", modifiers="g")
    return log.with_blocks([cr.Block("text:title", "text", x, np.arange(n), ("title",), "test")])


def test_the_basis_takes_out_what_shrinking_left_and_needs_no_repetition():
    first, second = [], []
    for seed in range(6):
        found = fitted(worded(seed), correction=cr.Correction(kernels=("basis",)))
        first.append(found.first_order.value - EFFECT)
        second.append(found.effect - EFFECT)
    assert found.correction.kernels == ("basis",)
    assert "alike in text:title" in found.summary()
    kernel = make_kernel("basis", found.correction.pairs.rows, found.correction.pairs)
    assert kernel.z.shape == (5000, 1 + 60)
    assert np.mean(first) > 0.002
    assert abs(np.mean(second)) < np.mean(first) + 0.002


def test_a_fit_by_the_basis_has_groups_another_estimand_and_a_share_anyway():
    found = fitted(worded(3), correction=cr.Correction(kernels=("basis",)))
    assert found.scores.mean() == pytest.approx(found.effect)
    assert found.by("g").to_frame()["effect"].notna().all()
    assert found.share_anyway[1] < found.share_anyway[0] < found.share_anyway[2]
    assert any("no other row shows" in c for c in found.analysis.caveats)


def test_a_basis_without_a_wide_block_is_an_error():
    with pytest.raises(EstimationError, match="no block is wide"):
        fitted(read(table(1, n=800)), correction=cr.Correction(kernels=("basis",)))


def test_axes_are_counted_where_partners_are():
    sets, some = np.repeat([0, 1], [300, 700]), np.ones(1000)
    rows = Rows(some, some, some, np.arange(1000), None)
    assert most_axes(rows, sets, across=True) == 100
    assert most_axes(rows, sets, across=False) == 30
    half = Rows(some, some, np.where(sets == 0, 0.0, 1.0), np.arange(1000), None)
    assert most_axes(half, sets, across=False) == 70


def test_what_the_rule_leaves_in_place_widens_the_interval():
    widened = 0
    for seed in range(8):
        found = fitted(read(table(seed, n=2000, items=500, hidden=0.35)))
        c = found.correction
        assert found.analysis.effect.bias_bound == c.may_remain
        if c.order == 1 and c.may_remain > 0:
            widened += 1
            assert found.ci_upper - found.ci_lower > c.first_order.ci_upper - c.first_order.ci_lower
            assert "allows for a bias" in found.summary()
        if "same_item" in c.kernels:
            assert c.may_remain == 0
    assert widened > 0


def test_an_order_that_was_asked_for_is_not_widened():
    found = fitted(read(table(0, n=2000, items=500, hidden=0.35)), correction=cr.Correction(order=1))
    assert found.correction.may_remain == 0
    assert (found.ci_lower, found.ci_upper) == (found.first_order.ci_lower, found.first_order.ci_upper)
