"""Position curves: the truth is recovered where click rates by position are not, and what cannot be told is said."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "benchmarks"))

import examination as world

import causalrec as cr
from causalrec.errors import ArgumentError, CausalRecWarning, EstimationError, LogError
from causalrec.finetune.click_model import fit_click_model
from causalrec.finetune.examination import Examination, position_curve
from causalrec.finetune.harvesting import harvest, item_r2
from causalrec.finetune.shown import position_groups

SEED = 990_000
SMALL: dict[str, Any] = {"n_sessions": 1500, "n_users": 300, "n_items": 80}
ROLES: dict[str, Any] = {"treatment": "shown", "outcome": "clicked", "unit": "user", "item": "item", "position": "position"}


@pytest.fixture(scope="module")
def log() -> cr.ImpressionLog:
    return world.draw("items", SEED, **SMALL)


@pytest.fixture(scope="module")
def users() -> cr.ImpressionLog:
    return world.draw("users", SEED, **SMALL)


def changed(log: cr.ImpressionLog, **columns: Any) -> cr.ImpressionLog:
    return cr.read_log(log.frame.assign(**columns), **ROLES)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["items, harvest", "items, em of items", "users, harvest", "users, em of items and score", "features, em"])
def test_recovery_and_coverage(case: str) -> None:
    """Sixty logs: no bias beyond its noise and .01, intervals that hold the truth, and a naive rate that is far off."""
    found = world.repeat(case, 60, SEED + 100, **SMALL)
    bias, sd = np.array(found["bias"]), np.array(found["sd"])
    assert (np.abs(bias) < 0.01 + 3 * sd / np.sqrt(60)).all()
    assert found["mean_coverage"] > 0.91
    assert np.array(found["mean_se"])[1:] == pytest.approx(sd[1:], rel=0.35)
    assert max(np.abs(found["naive_bias"])) > 0.1


def test_a_score_that_is_left_out_leaves_bias_and_one_that_is_declared_does_not(users: cr.ImpressionLog) -> None:
    without = position_curve(users, adjust="none")
    assert (without.ci_upper < world.THETA)[1:].sum() >= 5
    for adjust in ("regression", "both"):
        curve = position_curve(users, adjust=adjust)  # type: ignore[arg-type]
        assert (np.abs(curve.theta - world.THETA) < 4 * curve.std_error + 1e-12).all()


def test_two_positions_are_a_conditional_ratio() -> None:
    """Two positions, each item as often at both: the maximum has the closed form theta = clicks at 2 / clicks at 1."""
    rng = np.random.default_rng(0)
    strata, group = np.repeat(np.arange(300), 2), np.tile([0, 1], 300)
    y = (rng.random(600) < np.where(group == 0, 0.6, 0.3)).astype(float)
    curve = harvest(strata, group, y, np.ones(600), 2)
    assert curve.log_theta[1] == pytest.approx(np.log(y[group == 1].sum() / y[group == 0].sum()))
    assert curve.influence.sum(axis=0) == pytest.approx([0, 0], abs=1e-8)
    assert curve.information == pytest.approx(1.0, abs=0.02)


def test_agrees_with_fixed_effects_poisson_of_another_library(log: cr.ImpressionLog) -> None:
    """The conditional likelihood has the maximum of the Poisson regression with a dummy for each item."""
    from sklearn.linear_model import PoissonRegressor

    shown = log.frame[log.frame.shown == 1]
    x = pd.get_dummies(shown[["position", "item"]].astype(int).astype(str)).drop(columns="position_1").to_numpy(dtype=float)
    other = PoissonRegressor(alpha=1e-9, max_iter=2000, tol=1e-8).fit(x, shown.clicked)
    assert position_curve(log).theta[1:] == pytest.approx(np.exp(other.coef_[:7]), rel=2e-3)


def test_em_never_falls_and_ends(log: cr.ImpressionLog) -> None:
    curve = position_curve(log, method="em")
    path = np.array(curve.log_likelihood)
    assert curve.converged
    assert (np.diff(path) >= -1e-9).all()
    assert path[-1] > path[0] + 100
    assert curve.theta == pytest.approx(position_curve(log).theta, abs=0.02)


def test_em_gives_relevance_as_well() -> None:
    rng = np.random.default_rng(1)
    n = 20_000
    group, x = rng.integers(0, 3, n), rng.standard_normal((n, 1))
    r = 1 / (1 + np.exp(0.5 - x[:, 0]))
    y = (rng.random(n) < np.array([1, 0.6, 0.3])[group] * r).astype(float)
    model = fit_click_model(group, y, np.ones(n), x, None, 3)
    assert np.exp(model.log_theta) == pytest.approx([1, 0.6, 0.3], abs=0.04)
    assert np.abs(model.relevance - r).mean() < 0.02


def test_a_row_of_weight_two_is_two_rows(log: cr.ImpressionLog) -> None:
    heavy = cr.read_log(log.frame.assign(w=np.where(log.frame.item < 40, 2.0, 1.0)), weight="w", **ROLES)
    twice = cr.read_log(pd.concat([log.frame, log.frame[log.frame.item < 40]], ignore_index=True), **ROLES)
    for method in ("harvest", "em"):
        one, other = (position_curve(v, method=method) for v in (heavy, twice))  # type: ignore[arg-type]
        assert one.theta == pytest.approx(other.theta, rel=1e-5)


def test_nothing_depends_on_the_order_of_rows_or_names(users: cr.ImpressionLog) -> None:
    order = np.random.default_rng(0).permutation(len(users))
    frame = users.frame.iloc[order]
    names = frame.user.map(lambda u: f"u{u * 7919 % 100_003}")
    other = cr.read_log(frame.assign(user=names), score="score", **ROLES)
    one, two = position_curve(users, random_state=0), position_curve(other, random_state=0)
    assert one.theta == pytest.approx(two.theta, rel=1e-6)
    assert one.std_error == pytest.approx(two.std_error, rel=1e-6)


def test_intervals_know_users(log: cr.ImpressionLog) -> None:
    """Every row three times over, under the same user: the interval stays; under new users it shrinks."""
    frame = pd.concat([log.frame.assign(copy=k) for k in range(3)], ignore_index=True)
    same = position_curve(cr.read_log(frame, **ROLES))
    new = position_curve(cr.read_log(frame.assign(user=frame["user"] + 1000 * frame["copy"]), **ROLES))
    one = position_curve(log)
    assert same.std_error[1:] == pytest.approx(one.std_error[1:], rel=0.1)
    assert new.std_error[1:] == pytest.approx(one.std_error[1:] / np.sqrt(3), rel=0.1)


def test_position_that_is_a_function_of_the_item_is_warned_of() -> None:
    """Items keep their place but for one row in two hundred."""
    rng = np.random.default_rng(4)
    item = rng.integers(0, 60, 12_000)
    position = 1 + item % 6
    position = np.where(rng.random(len(item)) < 0.005, rng.integers(1, 7, len(item)), position)
    clicked = (rng.random(len(item)) < 0.5 / position).astype(int)
    frame = pd.DataFrame({"user": rng.integers(0, 500, len(item)), "item": item, "position": position, "clicked": clicked, "shown": 1})
    extra = frame.iloc[:200].assign(shown=0, position=np.nan)
    with pytest.warns(CausalRecWarning, match="nearly a function of the item"):
        curve = position_curve(cr.read_log(pd.concat([frame, extra], ignore_index=True), **ROLES))
    assert curve.information < 0.05
    assert curve.r2_item > 0.95
    assert "CAUTION" in curve.summary()


def test_position_that_is_a_function_of_the_text_is_warned_of() -> None:
    log = world.draw("features", SEED, noise=0.02, **SMALL)
    block = log.blocks["text:title"]
    place = pd.Series(log.frame.position.to_numpy()).groupby(block.codes).transform("mean").fillna(8).to_numpy()
    told = np.zeros((len(block.values), 1), dtype=np.float32)
    told[block.codes, 0] = place
    fixed = changed(log, position=np.where(log.treatment == 1, np.round(place), np.nan)).with_blocks([replace(block, values=told)])
    with pytest.warns(CausalRecWarning, match="nearly a function of the text"):
        curve = position_curve(fixed, method="em", random_state=0)
    assert curve.r2_text > 0.95


def test_item_r2_knows_chance() -> None:
    rng = np.random.default_rng(0)
    strata = np.repeat(np.arange(500), 4)
    assert abs(item_r2(strata, rng.standard_normal(2000))) < 0.05
    assert item_r2(strata, strata + 0.0) == pytest.approx(1.0)
    assert np.isnan(item_r2(np.arange(20), rng.standard_normal(20)))


def test_theta_that_depends_on_context_is_said(log: cr.ImpressionLog) -> None:
    """Items that stand high are looked at to the end, those that stand low only on top."""
    frame = log.frame[log.frame.shown == 1]
    mean = frame.groupby("item").position.transform("mean")
    rng = np.random.default_rng(0)
    high = (mean < mean.median()).to_numpy()
    p = 0.6 * np.where(high, 1.0, frame.position.to_numpy() ** -1.0)
    y = np.zeros(len(log), dtype=int)
    y[np.flatnonzero(log.treatment == 1)] = rng.random(len(frame)) < p
    y[np.flatnonzero(log.treatment == 0)[:50]] = 1
    assert position_curve(log).context_p_value > 0.01
    with pytest.warns(CausalRecWarning, match="depends on more than the position"):
        curve = position_curve(changed(log, clicked=y))
    assert curve.context_p_value < 1e-4
    assert any("depends on more than the position" in n for n in curve.alarms)


def test_few_rows_an_item_bend_em_and_leave_harvesting_alone() -> None:
    thin = world.draw("items", SEED, n_sessions=2500, n_items=5000)
    with pytest.warns(CausalRecWarning, match=r"rows an item.*use method='harvest'"):
        bent = position_curve(thin, method="em")
    curve = position_curve(thin)
    assert (bent.theta - world.THETA)[1:5].min() > 0.02
    assert (np.abs(curve.theta - world.THETA) < 4 * curve.std_error + 1e-12).all()


def test_a_rise_is_reported_not_ruled_out() -> None:
    rng = np.random.default_rng(2)
    n = 20_000
    position = rng.integers(1, 5, n)
    theta = np.array([1.0, 0.4, 0.4, 1.3])[position - 1]
    frame = pd.DataFrame({
        "user": rng.integers(0, 800, n), "item": rng.integers(0, 50, n), "position": position,
        "clicked": (rng.random(n) < 0.4 * theta).astype(int), "shown": (np.arange(n) % 10 > 0).astype(int),
    })  # fmt: skip
    curve = position_curve(cr.read_log(frame, **ROLES))
    assert curve.rises == ((3, 4),)
    assert not curve.monotone
    assert curve.theta[3] == pytest.approx(1.3, abs=0.15)
    assert any("rows='all'" in n for n in curve.notes)
    assert position_curve(cr.read_log(frame, **ROLES), rows="all").n == n
    assert position_curve(cr.read_log(frame, **ROLES), method="em").theta[3] == pytest.approx(1.3, abs=0.15)


def test_rare_positions_are_pooled_without_a_look_at_their_clicks() -> None:
    position = np.repeat([1, 2, 3, 4, 5], [100, 100, 3, 4, 2])
    distinct, group = position_groups(position, np.ones(len(position)), np.ones(len(position)), 10)
    assert distinct.tolist() == [1, 2, 3, 4, 5]
    assert group.tolist() == [0, 1, 1, 1, 1]
    y = np.where(position < 3, 1.0, 0.0)
    assert position_groups(position, y, np.ones(len(position)), 6)[1].tolist() == [0, 1, 2, 2, 2]
    assert position_groups(np.array([1, 1, 2]), np.ones(3), np.ones(3), 10)[1].tolist() == [0, 0]


def test_pooled_positions_share_theta_and_say_so(log: cr.ImpressionLog) -> None:
    place = log.frame.position.where(~((log.frame.position == 8) & (log.frame.index % 40 > 0)), 7)
    curve = position_curve(changed(log, position=place), min_clicks=40)
    assert curve.pooled.tolist() == [False] * 6 + [True, True]
    assert curve.theta[6] == curve.theta[7]
    assert any("positions 7 to 8" in n for n in curve.notes)


def test_a_position_that_no_item_links_is_not_identified(log: cr.ImpressionLog) -> None:
    """Position 8 holds items of its own."""
    item = np.where(log.frame.position == 8, log.frame.item + 1000, log.frame.item)
    for method in ("harvest", "em"):
        with pytest.warns(CausalRecWarning, match="position 8 is not identified"):
            curve = position_curve(changed(log, item=item), method=method)  # type: ignore[arg-type]
        assert np.isnan(curve.theta[7])
        assert np.isfinite(curve.theta[:7]).all()
        assert curve.theta_at([1, 7]).shape == (2,)
        with pytest.raises(EstimationError, match="position 8 is not identified"):
            curve.theta_at([1, 8])


def test_logged_chances_of_positions(log: cr.ImpressionLog) -> None:
    """Slots drawn with chances that go with what the user likes: weighting by these removes what it left."""
    rng = np.random.default_rng(6)
    n = 24_000
    item, likes = rng.integers(0, 60, n), rng.random(n) < 0.5
    top = np.where(likes, 0.8, 0.2)
    position = np.where(rng.random(n) < top, 1, 2)
    clicked = (rng.random(n) < np.where(likes, 0.6, 0.2) * np.where(position == 1, 1.0, 0.5)).astype(int)
    frame = pd.DataFrame({"user": rng.integers(0, 900, n), "item": item, "position": position, "clicked": clicked, "shown": (np.arange(n) % 9 > 0).astype(int)})
    log = cr.read_log(frame, **ROLES)
    plain, weighted = position_curve(log), position_curve(log, propensities=np.where(position == 1, top, 1 - top))
    assert plain.ci_upper[1] < 0.5
    assert weighted.ci_lower[1] < 0.5 < weighted.ci_upper[1]
    with pytest.raises(ArgumentError, match="propensities is 0"):
        position_curve(log, propensities=np.zeros(n))
    with pytest.raises(ArgumentError, match="shape"):
        position_curve(log, propensities=[0.5])
    with pytest.raises(ArgumentError, match="no use for"):
        position_curve(log, method="em", propensities=top)


def test_a_given_curve() -> None:
    curve = Examination.of({1: 0.8, 3: 0.2, 2: 0.4})
    assert curve.positions.tolist() == [1, 2, 3]
    assert curve.theta_at(np.array([3.0, 1, 2])) == pytest.approx([0.25, 1, 0.5])
    assert curve.theta_at(pd.Series([2])).shape == (1,)
    assert "divided by" in curve.summary()
    assert list(curve.to_frame()["position"]) == [1, 2, 3]
    with pytest.raises(EstimationError, match=r"position 4 .*not on the curve, which has positions 1 to 3"):
        curve.theta_at([1, 4])
    with pytest.raises(LogError, match="missing"):
        curve.theta_at([1, np.nan])


@pytest.mark.parametrize(
    ("theta", "says"),
    [({}, "mapping"), ([1.0, 0.5], "mapping"), ({0: 1.0}, "position"), ({1.5: 1.0}, "whole"), ({1: 0.0}, "> 0"), ({1: 1.2}, "<= 1"), ({1: float("nan")}, "finite")],
)
def test_a_curve_that_cannot_be(theta: Any, says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        Examination.of(theta)


def test_result_reads_and_plots(log: cr.ImpressionLog) -> None:
    curve = position_curve(log)
    frame = curve.to_frame()
    assert list(frame["position"]) == list(range(1, 9))
    assert (frame.ci_lower <= frame.theta).all()
    assert (frame.theta <= frame.ci_upper).all()
    assert frame.rows.sum() == curve.n == int(log.treatment.sum())
    assert curve.ci_lower[0] == curve.ci_upper[0] == 1
    assert curve.std_error[0] == 0
    assert np.sqrt(np.diag(curve.covariance)) * curve.theta == pytest.approx(curve.std_error)
    assert "users" in curve.summary()
    assert "<table>" in curve._repr_html_()


def few_users(f: pd.DataFrame) -> pd.DataFrame:
    return f.assign(user=f.user % 10)


def test_ten_users_are_warned_of(log: cr.ImpressionLog) -> None:
    with pytest.warns(CausalRecWarning, match="rest on 10 users"):
        position_curve(cr.read_log(few_users(log.frame), **ROLES))


@pytest.mark.parametrize(
    ("change", "roles", "error", "says"),
    [
        (lambda f: f, {"position": None}, LogError, "declares no position"),
        (lambda f: f.assign(position=f.position + 0.5), {}, LogError, "is 1.5|must be a whole number"),
        (lambda f: f.assign(position=f.position - 1), {}, LogError, "count from 1"),
        (lambda f: f.assign(position=f.position.where(f.index % 50 > 0)), {}, LogError, "missing or no number in"),
        (lambda f: f.assign(position=f.position.map(lambda p: "top")), {}, LogError, "no number"),
        (lambda f: f.assign(position=np.nan), {}, LogError, "missing or no number"),
        (lambda f: f.assign(position=f.position.notna() * 3.0), {}, EstimationError, "at position 3: one position"),
        (lambda f: f.assign(clicked=f.clicked - 1.5), {}, EstimationError, "must be >= 0"),
        (lambda f: f.assign(clicked=f.clicked * (f.shown == 0) + 1e-9 * (f.shown == 0)), {}, EstimationError, "without a click"),
        (lambda f: f.assign(item=f.item * 10 + f.position.fillna(9)), {}, EstimationError, "0 were shown at several positions.*swap some slots"),
        (lambda f: f, {"item": None}, ArgumentError, "neither item nor text"),
    ],
)
def test_bad_logs(log: cr.ImpressionLog, change: Any, roles: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        position_curve(cr.read_log(change(log.frame), **{**ROLES, **roles}))


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"method": "swap"}, ArgumentError, "method"),
        ({"relevance": "item"}, ArgumentError, "Did you mean 'items'"),
        ({"rows": "some"}, ArgumentError, "rows"),
        ({"adjust": True}, ArgumentError, "adjust"),
        ({"alpha": 1}, ArgumentError, "alpha"),
        ({"min_clicks": 1e9}, EstimationError, "too few for two groups"),
        ({"method": "em", "relevance": "features"}, ArgumentError, "needs blocks"),
    ],
)
def test_bad_options(log: cr.ImpressionLog, options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        position_curve(log, **options)


def test_em_wants_clicks(log: cr.ImpressionLog) -> None:
    with pytest.raises(EstimationError, match=r"holds 1.5; method='em' models clicks"):
        position_curve(changed(log, clicked=log.frame.clicked * 1.5), method="em")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert position_curve(changed(log, clicked=log.frame.clicked * 1.5)).theta == pytest.approx(position_curve(log).theta)
