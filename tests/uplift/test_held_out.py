"""Scores of users that the fit has not seen, corrected by their pairs; calibration of what was predicted."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from small_logs import ROLES, make_world

import causalrec as cr
from causalrec.errors import ArgumentError, HonestyError
from causalrec.uplift.calibration import calibrate
from causalrec.uplift.curve import UpliftCurve, judge
from causalrec.uplift.held_out import HeldOut, held_out

module = import_module("causalrec.uplift.held_out")  # as an attribute, ``causalrec.uplift`` is the verb


def item_log(n: int = 12_000, seed: int = 0) -> cr.ImpressionLog:
    """A trait of the item that no column shows acts on exposure and click; x on the effect."""
    rng = np.random.default_rng(seed)
    trait, item = rng.standard_normal(300), rng.integers(0, 300, n)
    x = rng.standard_normal(n)
    tau, m0 = 0.08 + 0.06 * np.tanh(x), 0.3 + 0.14 * np.tanh(trait[item])
    t = rng.random(n) < 0.1 + 0.8 * expit(1.2 * trait[item])
    columns = {"user": rng.integers(0, n // 10, n), "item": item, "x": x, "tau": tau}
    frame = pd.DataFrame(columns | {"t": t.astype(int), "y": (rng.random(n) < m0 + tau * t).astype(int)})
    return cr.read_log(frame, treatment="t", outcome="y", unit="user", item="item", modifiers=["x"])


@pytest.fixture(scope="module")
def by_items() -> tuple[cr.Fit, cr.ImpressionLog, HeldOut]:
    train, test = item_log().split(0.5, random_state=0)
    fit = cr.estimate(train, cr.identify(train), random_state=0)
    return fit, test, held_out(fit, test)


def test_pairs_of_held_out_rows_take_out_what_the_columns_miss(
    by_items: tuple[cr.Fit, cr.ImpressionLog, HeldOut],
) -> None:
    fit, test, held = by_items
    truth = test.frame["tau"].mean()
    assert fit.correction.order == held.order == 2
    plain = replace(held, psi=held.m1 - held.m0 + (held.t - held.e) / held.e / (1 - held.e)
                    * (held.y - np.where(held.t == 1, held.m1, held.m0)), pairs=None)  # fmt: skip
    assert plain.effect().ci_lower > truth
    effect = held.effect()
    assert effect.ci_lower < truth < effect.ci_upper
    assert held.psi.mean() == pytest.approx(effect.value)
    assert "corrected by pairs" in held.note


def test_groups_of_held_out_rows_hold_their_effects(
    by_items: tuple[cr.Fit, cr.ImpressionLog, HeldOut],
) -> None:
    _, test, held = by_items
    x, tau = test.frame["x"].to_numpy(), test.frame["tau"].to_numpy()
    for here in (x > 0.5, x < -0.5, np.abs(x) <= 0.5):
        effect = held.effect(here)
        assert abs(effect.value - tau[here].mean()) < 3.5 * effect.std_error
    few = np.zeros(len(held), dtype=bool)
    few[np.unique(held.items, return_index=True)[1]] = True  # one row an item: no pairs inside
    assert held.effect(few).value == pytest.approx(held.psi[few].mean())


def test_a_curve_of_second_order(by_items: tuple[cr.Fit, cr.ImpressionLog, HeldOut]) -> None:
    fit, test, _ = by_items
    curve = cr.uplift(fit, test)
    tau = test.frame["tau"].to_numpy()
    assert curve.order == 2
    assert curve.clusters == "user and item"
    assert curve.gain_lower[-1] < tau.mean() < curve.gain_upper[-1]
    assert "clustered by user and item" in curve.summary()
    top = fit.cate(test) >= np.quantile(fit.cate(test), 0.5)
    effect, lower, upper = curve.at_k(0.5)
    assert lower < tau[top].mean() < upper
    assert effect == pytest.approx(curve.gain[49] / 0.5)


def test_weights_that_are_equal_change_nothing_and_others_do(
    by_items: tuple[cr.Fit, cr.ImpressionLog, HeldOut],
) -> None:
    fit, test, held = by_items
    x = test.frame["x"].to_numpy()
    frame = test.frame.assign(two=2.0, more=np.where(x > 0, 4.0, 1.0))

    def weighted(column: str) -> HeldOut:
        roles = dict(treatment="t", outcome="y", unit="user", item="item", modifiers=["x"])
        return held_out(fit, cr.read_log(frame, **roles, weight=column))

    for here in (None, x > 0):
        assert weighted("two").effect(here).value == pytest.approx(held.effect(here).value, abs=1e-12)
        assert weighted("two").effect(here).std_error == pytest.approx(held.effect(here).std_error)
    assert weighted("more").effect().value > held.effect().value


def test_without_partners_scores_stay_of_first_order_and_say_so(
    by_items: tuple[cr.Fit, cr.ImpressionLog, HeldOut],
) -> None:
    fit, test, _ = by_items
    wanted = fit.log.frame["item"].max()  # items of their own, each once
    lonely = cr.read_log(
        test.frame.iloc[:800].assign(item=wanted + 1 + np.arange(800)),
        treatment="t", outcome="y", unit="user", item="item", modifiers=["x"],
    )  # fmt: skip
    held = held_out(fit, lonely)
    assert held.order == 1
    assert "no pairs of the kind by which the fit is corrected (same_item)" in held.note
    with pytest.raises(HonestyError, match="units of the test log were in the fit"):
        held_out(fit, fit.log)


def test_verbs_score_a_log_once(
    by_items: tuple[cr.Fit, cr.ImpressionLog, HeldOut], monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, test, _ = by_items
    assert held_out(fit, test) is held_out(fit.with_model(cr.TLearner()), test)
    calls: list[int] = []
    scored = module._scored
    monkeypatch.setattr(module, "_scored", lambda *a: calls.append(1) or scored(*a))
    other = test.take(np.arange(len(test)) % 2 == 0)
    cr.uplift(fit, other)
    cr.target(fit, other, random_state=0)
    cr.explain(fit, other, random_state=0)
    assert len(calls) == 1
    cr.uplift(fit.under("att"), other)
    assert len(calls) == 2


def test_a_band_that_one_arm_never_reached_has_no_effect() -> None:
    held, cate = made(3, 1.0)
    best = cate > np.quantile(cate, 0.8)
    lonely = replace(held, t=np.where(best, 1.0, held.t))
    table = judge(lonely, cate, 100, np.random.default_rng(0)).table
    assert table["effect"].isna().tolist() == [True] * 2 + [False] * 8
    assert table["ci_lower"].isna().tolist() == table["effect"].isna().tolist()
    found = calibrate(lonely, cate)
    assert found.groups == 4
    assert np.isnan(found.table["effect"][0])
    assert calibrate(held, cate).groups == 5
    assert np.isfinite(found.p_groups)


def made(seed: int, slope: float, users: int = 400) -> tuple[HeldOut, np.ndarray]:
    """Users of five rows, scores with effects of the user, and predictions whose true slope is known."""
    rng = np.random.default_rng(seed)
    units = np.repeat(np.arange(users), 5)
    n = len(units)
    cate = 0.1 + 0.1 * (rng.standard_normal(users)[units] + 0.3 * rng.standard_normal(n))
    psi = 0.1 + slope * (cate - 0.1) + 0.5 * rng.standard_normal(n) + 0.2 * rng.standard_normal(users)[units]
    ones = np.ones(n)
    t = rng.integers(0, 2, n).astype(float)
    return HeldOut(psi, t, ones, ones / 2, ones, ones, units, None, ones, None, "Made."), cate


def test_calibration_tells_right_from_exaggerated_from_nothing() -> None:
    right, half, none = (calibrate(*made(0, s)) for s in (1.0, 0.4, 0.0))
    assert right.slope_ci[0] < 1 < right.slope_ci[1]
    assert "about the right size" in right.summary()
    assert right.p_groups > 0.01
    assert "agree with" in right.summary()
    assert half.slope_ci[1] < 1
    assert "exaggerate" in half.summary()
    assert half.p_groups < 0.01
    assert none.p_heterogeneity > 0.05
    assert "do not tell who gains more" in none.summary()
    assert "understate" in calibrate(*made(0, 2.0)).summary()
    assert right.table["group"].tolist() == [1, 2, 3, 4, 5]
    assert right.table["predicted"].is_monotonic_decreasing


def test_calibrations_tests_have_their_level_with_users_of_several_rows() -> None:
    found = [calibrate(*made(seed, 0.0, 80)) for seed in range(150)]
    true = [calibrate(*made(seed, 1.0, 80)) for seed in range(150)]
    assert 1 <= sum(c.p_heterogeneity < 0.05 for c in found) <= 17
    assert sum(c.slope_ci[0] < 1 < c.slope_ci[1] for c in true) >= 133
    assert sum(c.p_groups < 0.05 for c in true) <= 17


def test_a_noise_ranking_reads_as_noise_and_a_bad_one_as_bad() -> None:
    held, cate = made(1, 1.0)
    rng = np.random.default_rng(0)

    def verdict(score: np.ndarray) -> UpliftCurve:
        return judge(held, score, 200, rng)

    noise = verdict(rng.standard_normal(len(held)))
    assert "cannot be told from a random one" in noise.summary()
    assert noise.p_value > 0.025
    assert "worse than recommending at random" in verdict(-cate).summary()
    assert verdict(cate).p_value < 0.001
    tied = verdict((cate > 0.1).astype(float))
    assert "of the rows share one predicted effect" in tied.summary()
    assert tied.table["n"].sum() == len(held)
    flat = verdict(np.zeros(len(held)))
    assert np.isnan(flat.p_value)
    assert np.isnan(flat.calibration.slope)
    assert flat.constant


def test_uplift_at_k_is_on_the_grid() -> None:
    curve = judge(*made(2, 1.0), 200, np.random.default_rng(0))
    assert curve.at_k(1.0)[0] == pytest.approx(curve.gain[-1])
    for share, says in (
        (0.123, "multiple of .01, for instance 0.12"),
        (0.0, "must be > 0"),
        (1.1, "must be <= 1"),
    ):
        with pytest.raises(ArgumentError, match=says):
            curve.at_k(share)


def test_first_order_scores_where_the_fit_has_them() -> None:
    log = cr.read_log(make_world(1500, 300, seed=2).frame, **ROLES)
    train, test = log.split(0.5, random_state=0)
    fit = cr.estimate(train, cr.identify(train), folds=cr.Folds(3), random_state=0)
    held = held_out(fit, test)
    assert held.order == 1
    assert held.items is None
    assert held.effect().value == pytest.approx(held.psi.mean())
    assert held.n_clusters <= test.n_units
