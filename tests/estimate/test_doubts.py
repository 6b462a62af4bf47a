"""What a sceptic found once: each case gave a narrow interval around a wrong number, or died, without a word."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

import causalrec as cr
from causalrec.errors import (
    ArgumentError,
    CausalRecError,
    EstimationError,
    HonestyError,
    LogError,
    OverlapError,
)
from causalrec.estimate import IPW, DoublyRobust


def world(seed: int = 0, n: int = 6_000, strength: float = 1.5) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    t = (rng.random(n) < expit(strength * x)).astype(int)
    p0, p1 = expit(-1 + x), expit(-0.5 + x)
    y = (rng.random(n) < np.where(t == 1, p1, p0)).astype(int)
    return pd.DataFrame(
        {"t": t, "y": y, "x": x, "user": rng.integers(0, 600, n), "tau": p1 - p0, "e": expit(strength * x)}
    )


def read(frame: pd.DataFrame, **roles: object) -> cr.ImpressionLog:
    return cr.read_log(
        frame, **({"treatment": "t", "outcome": "y", "unit": "user", "confounders": "x"} | roles)
    )


def fitted(log: cr.ImpressionLog, **options: object) -> cr.Fit:
    return cr.estimate(log, cr.identify(log), random_state=0, **options)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: x.where(x.index != 7, 1e12),
        lambda x: x.where(x.index % 100 != 3, 9999.0),
        lambda x: x * 1e200,
    ],
)
def test_an_absurd_cell_does_not_switch_adjustment_off(spoil):
    frame = world()
    fit = fitted(read(frame.assign(x=spoil(frame["x"]))))
    assert fit.naive_effect - frame["tau"].mean() > 0.1
    assert abs(fit.effect - frame["tau"].mean()) < 0.04
    if spoil(frame["x"]).abs().max() < 1e100:
        assert any("'x' has" in c and "far from all others" in c for c in fit.analysis.caveats)


def test_nuisances_of_another_plan_log_or_weighting_are_refused():
    frame = world().assign(z=lambda f: np.sin(f["x"]), w=lambda f: 1 + (f["x"] > 0))
    mine = fitted(read(frame))
    cases = [
        (read(frame, confounders="z"), r"adjust for \['x'\].*the plan for \['z'\]"),
        (read(frame.assign(x=frame["x"] ** 3)), "other values"),
        (read(frame, weight="w"), "other row weights"),
        (read(frame, propensity="e"), "logged"),
        (read(frame.assign(user=np.arange(len(frame)) // 3)), "several folds"),
    ]
    for other, message in cases:
        with pytest.raises(HonestyError, match=message):
            cr.estimate(other, cr.identify(other), nuisances=mine.nuisances)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (lambda f, rng: 1 - f["e"], r"slope .* is -.*P\(control\)"),
        (lambda f, rng: np.where(f["t"] == 1, f["e"], 1 - f["e"]), "must be 1 for|drawn"),
        (lambda f, rng: rng.permutation(f["e"]), "joined to the wrong rows"),
    ],
)
def test_a_propensity_that_exposure_does_not_follow_is_refused(declared, message):
    frame = world(strength=0.7)
    with pytest.raises(LogError, match=message):
        read(frame.assign(e=declared(frame, np.random.default_rng(1))), propensity="e")


def test_a_right_propensity_is_taken_at_a_million_rows_or_a_few():
    for n in (400, 200_000):
        assert read(world(n=n, strength=0.7), propensity="e").logged_propensity is not None


def test_a_column_made_from_the_outcome_is_a_caveat():
    frame = world()
    fit = fitted(
        read(
            frame.assign(after=frame["y"] + np.random.default_rng(0).normal(0, 0.05, len(frame))),
            confounders=["x", "after"],
        )
    )
    assert any("all but determines the outcome" in c for c in fit.analysis.caveats)
    assert not any("all but determines" in c for c in fitted(read(frame)).analysis.caveats)


def test_the_share_that_would_have_clicked_anyway_needs_the_overlap_of_the_att():
    frame = world(strength=9.0, n=8_000)
    log = read(frame)
    for refused in ("ate", "att"):
        with pytest.raises(OverlapError, match="ato"):
            fitted(log, estimand=refused)
    fit = fitted(log, estimand="ato")
    assert fit.share_anyway is None
    assert fit.analysis.caveats


def test_overlap_is_that_of_the_estimand():
    rng = np.random.default_rng(0)
    frame = world(n=20_000).assign(
        e=lambda f: np.where(f["x"] > 0, 0.02, 0.004), t=lambda f: (rng.random(len(f)) < f["e"]).astype(int)
    )
    log = read(frame, propensity="e")
    clip = cr.Clip(0.01)
    with pytest.raises(OverlapError, match="beyond the clip"):
        fitted(log, clip=clip)
    att = fitted(log, estimand="att", clip=clip)
    assert att.share_clipped == 0
    t, e = log.treatment, att.nuisances.propensity
    weights = (e / (1 - e))[t == 0]
    assert att.overlap.ess_control == pytest.approx(weights.sum() ** 2 / (weights**2).sum())


def test_dependence_within_items_is_in_the_headline():
    rng = np.random.default_rng(3)
    n, item = 6_000, rng.integers(0, 40, 6_000)
    chance, level = rng.uniform(0.15, 0.85, 40), rng.normal(0, 1, 40)
    frame = pd.DataFrame(
        {
            "t": rng.random(n) < chance[item],
            "y": rng.random(n) < expit(level[item]),
            "item": item,
            "user": np.arange(n) // 3,
        }
    )
    log = cr.read_log(frame, treatment="t", outcome="y", unit="user", item="item")
    fit = fitted(log)
    assert fit.by_item is not None
    assert fit.std_error == fit.by_item.std_error
    plain = cr.estimate(log, cr.identify(log), correction=cr.Correction(order=1), random_state=0)
    assert plain.std_error > 1.3 * plain.by_unit.std_error
    assert "items count as a sample" in fit.summary()


def test_a_log_that_declares_no_cause_says_that_it_is_the_naive_comparison():
    fit = fitted(read(world(), confounders=()))
    assert fit.effect == pytest.approx(fit.naive_effect, abs=1e-3)
    assert any("naive comparison" in c for c in fit.analysis.caveats)


def test_many_labels_are_shrunk():
    rng = np.random.default_rng(0)
    frame = world(strength=0.0).assign(city=lambda f: rng.integers(0, 800, len(f)).astype(str))
    with_city, without = fitted(read(frame, confounders=["x", "city"])), fitted(read(frame))
    assert with_city.std_error < 1.1 * without.std_error


def test_few_treated_users_get_a_wide_interval_and_a_caveat():
    frame = world(strength=0.0).assign(t=lambda f: (f["user"] < 6).astype(int))
    fit = fitted(read(frame))
    assert any("Only 6 units" in c for c in fit.analysis.caveats)
    assert (fit.ci_upper - fit.ci_lower) / fit.std_error == pytest.approx(2 * 2.5706, rel=1e-3)


def test_rows_of_weight_zero_are_no_clusters():
    frame = world().assign(w=lambda f: (f["user"] < 300).astype(float))
    assert fitted(read(frame, weight="w")).analysis.effect.n_clusters <= 300


def test_held_out_means_other_users_however_they_are_written():
    frame = world()
    fit = fitted(read(frame))
    with pytest.raises(HonestyError, match="were in the fit"):
        cr.uplift(fit, read(frame.assign(user=frame["user"].astype(str))))
    rows = read(frame, unit=None)
    with pytest.raises(HonestyError, match="were in the fit"):
        cr.uplift(fitted(rows), read(frame, unit=None))


def test_modifiers_of_another_kind_or_level_are_refused():
    frame = world().assign(
        device=lambda f: np.where(f["x"] > 0, "phone", "desktop"), age=lambda f: f["x"] * 10
    )
    fit = fitted(read(frame, modifiers=["device", "age"]))
    other = world(seed=1).assign(device="desktop", age=1.0)
    with pytest.raises(EstimationError, match=r"'device' has the levels \['watch'\]"):
        fit.cate(read(other.assign(device=np.where(other["x"] > 0, "watch", "phone"))))
    with pytest.raises(EstimationError, match="'age' holds labels"):
        fit.cate(read(other.assign(age=np.where(other["x"] > 0, "old", "young"))))
    with pytest.raises(EstimationError, match="'age' is NaN"):
        fit.cate(read(other.assign(age=np.where(other["x"] > 0, np.nan, 1.0))))


def test_a_treatment_that_is_a_function_of_two_texts_together_is_refused():
    rng = np.random.default_rng(0)
    n = 8_000
    a, b = rng.integers(0, 40, n), rng.integers(0, 40, n)
    table = rng.random((40, 40)) < 0.5
    frame = pd.DataFrame(
        {
            "t": table[a, b].astype(int),
            "y": rng.integers(0, 2, n),
            "a": [f"title {i}" for i in a],
            "b": [f"body {i}" for i in b],
        }
    )
    log = cr.read_log(frame, treatment="t", outcome="y", text=["a", "b"])
    blocks = [
        cr.Block(
            f"text:{name}",
            "text",
            rng.normal(size=(40, 5)).astype(np.float32),
            codes.astype(np.int64),
            (name,),
            "random",
        )
        for name, codes in (("a", a), ("b", b))
    ]
    log = log.with_blocks(blocks)
    with pytest.raises(OverlapError, match=r"text:a and text:b.*ato"):
        fitted(log)


def test_numbers_in_object_columns_are_numbers_and_complex_ones_are_not():
    frame = world()
    from decimal import Decimal

    plain = fitted(read(frame))
    objects = read(frame.assign(y=frame["y"].astype(object), x=[Decimal(repr(float(v))) for v in frame["x"]]))
    assert fitted(objects).effect == pytest.approx(plain.effect, abs=1e-12)
    with pytest.raises(LogError, match="complex"):
        read(frame.assign(x=frame["x"] + 1j))


def test_an_arm_of_weight_zero_is_refused_by_its_name():
    frame = world().assign(w=lambda f: 1.0 - f["t"])
    with pytest.raises(LogError, match=r"treated arm .* has 0 rows"):
        read(frame, weight="w")


def test_ipw_on_known_propensities_refuses_without_overlap_and_clusters_by_item_aside():
    frame = world()
    y, t = frame["y"].to_numpy(), frame["t"].to_numpy()
    fit = IPW().fit(
        y, t, propensity=frame["e"].clip(0.02, 0.98), groups=frame["user"], items=np.arange(len(y)) % 50
    )
    assert fit.by_item_ is not None
    assert fit.by_item_.value == fit.effect_
    hopeless = np.where(t == 1, 0.9999, 0.0001)
    with pytest.raises(OverlapError):
        IPW().fit(y, t, propensity=hopeless)
    with pytest.raises(CausalRecError):
        DoublyRobust(estimand="atx").fit(y, t)
    with pytest.raises(ArgumentError):
        DoublyRobust(folds=3).fit(y, t)


def test_a_negative_control_that_never_varies_is_a_record_not_an_end():
    frame = world(n=3_000).assign(before=0.0)
    checks = cr.refute(fitted(read(frame, negative_controls="before")), n_simulations=20, random_state=0)
    assert checks["negative_control:before"].passed is None
    assert "varies too little" in checks["negative_control:before"].message


def test_the_strongest_of_many_columns_is_a_benchmark_and_a_single_one_is_too():
    rng = np.random.default_rng(99)
    frame = world(n=3_000).assign(**{f"a{j}": rng.normal(size=3_000) for j in range(13)})
    checks = cr.refute(
        fitted(read(frame, confounders=[*(f"a{j}" for j in range(13)), "x"])),
        n_simulations=20,
        random_state=0,
    )
    best = max(checks.sensitivity.benchmarks, key=lambda b: b["bias"])
    assert best["left_out"] == "x"
    alone = cr.refute(fitted(read(frame)), n_simulations=20, random_state=0).sensitivity.benchmarks
    assert [b["left_out"] for b in alone] == ["x"]
    assert alone[0]["effect_without"] == pytest.approx(fitted(read(frame)).naive_effect, abs=0.01)


def test_balance_is_weighed_like_the_effect():
    frame = world(strength=2.5).assign(
        twin=lambda f: f["x"] + np.random.default_rng(0).normal(0, 0.3, len(f))
    )
    fit = fitted(read(frame), estimand="ato")
    assert cr.refute(fit, n_simulations=20, random_state=0)["balance"].passed
