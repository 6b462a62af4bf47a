from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from small_logs import ROLES, make_world

import causalrec as cr
from causalrec.check.group_bounds import GroupSensitivity
from causalrec.check.group_sensitivity import group_sensitivity
from causalrec.check.sensitivity import sensitivity
from causalrec.errors import ArgumentError, EstimationError
from causalrec.estimate.fit import Fit

WORLD = make_world(6000, 1200, seed=4)


def fitted(frame: pd.DataFrame, correction: cr.Correction | None = None, **roles: Any) -> Fit:
    log = cr.read_log(frame, **{**ROLES, **roles})
    return cr.estimate(log, cr.identify(log), folds=cr.Folds(4), correction=correction, random_state=0)


@pytest.fixture(scope="module")
def fit() -> Fit:
    return fitted(WORLD.frame, modifiers=["age", "device"], confounders=["rate"])


@pytest.fixture(scope="module")
def found(fit: Fit) -> GroupSensitivity:
    return group_sensitivity(fit, ["age", "device"])


@pytest.mark.parametrize("estimand", ["ate", "att"])
def test_without_hidden_causes_the_bounds_are_the_effects_of_the_fit(fit: Fit, estimand: str) -> None:
    under = fit.under(estimand)
    got = group_sensitivity(under, ["age", "device"], gamma=1)
    everyone = got["everyone"]
    assert everyone.lower[0] == pytest.approx(under.effect, abs=1e-12)
    assert (everyone.lower_ci[0], everyone.upper_ci[0]) == pytest.approx((under.ci_lower, under.ci_upper))
    for name in ("age", "device"):
        for record in under.by(name).records:
            one = got[f"{name} = {record['group']}"]
            assert (one.lower[0], one.upper[0]) == pytest.approx((record["effect"],) * 2)
            assert (one.lower_ci[0], one.upper_ci[0]) == pytest.approx(
                (record["ci_lower"], record["ci_upper"])
            )
            assert (one.n, one.n_units) == (record["n"], record["n_units"])


def test_robustness_values_are_those_of_the_whole_log_and_of_its_groups(
    fit: Fit, found: GroupSensitivity
) -> None:
    whole = sensitivity(fit)
    assert found["everyone"].robustness_value == pytest.approx(whole.robustness_value)
    assert found["everyone"].robustness_value_ci == pytest.approx(whole.robustness_value_ci)
    ages = [g for g in found.groups if g.by == "age"]
    values = [g.robustness_value for g in ages]
    assert values == sorted(values, key=lambda v: v or 0)  # the effect grows with age, and so does this
    assert all(g.robustness_value_ci == 0 for g in ages if g.breakdown == 1)


def test_the_breakdown_is_where_the_interval_first_includes_0(fit: Fit, found: GroupSensitivity) -> None:
    for g in found.groups:
        assert g.breakdown is not None
        assert g.breakdown_point is not None
        assert g.breakdown <= g.breakdown_point
        assert (g.breakdown == 1) == (g.ci_lower <= 0 <= g.ci_upper)  # type: ignore[operator]
        if g.breakdown > 1:
            near = group_sensitivity(fit, ["age", "device"], gamma=(0.995 * g.breakdown, 1.005 * g.breakdown))
            before, after = (near[g.name].lower_ci[k] <= 0 <= near[g.name].upper_ci[k] for k in (0, 1))
            assert (before, after) == (False, True)
    assert found["everyone"].breakdown > 1.1  # type: ignore[operator]


def test_bounds_widen_with_gamma_and_everyone_is_the_mean_of_the_groups(found: GroupSensitivity) -> None:
    for g in found.groups:
        assert list(g.upper) == sorted(g.upper)
        assert list(g.lower) == sorted(g.lower, reverse=True)
        assert all(
            a <= b <= c <= d for a, b, c, d in zip(g.lower_ci, g.lower, g.upper, g.upper_ci, strict=True)
        )
    for name in ("age", "device"):
        groups = [g for g in found.groups if g.by == name]
        mean = np.average([g.upper for g in groups], weights=[g.n for g in groups], axis=0)
        np.testing.assert_allclose(mean, found["everyone"].upper, atol=1e-9)


def hidden_world(n: int, seed: int, sharpness: float) -> tuple[pd.DataFrame, float, float]:
    """A log with a hidden cause; its true ATE and the Γ that it amounts to."""
    rng = np.random.default_rng(seed)
    rate, hidden = rng.standard_normal(n), rng.integers(0, 2, n)
    high, low = (expit(0.6 * rate + s * sharpness) for s in (1, -1))
    e = (high + low) / 2
    gamma = np.exp(max(np.abs(logit(p) - logit(e)).max() for p in (high, low)))
    t = rng.random(n) < np.where(hidden == 1, high, low)
    p0 = expit(-1.0 + 0.7 * rate + 1.5 * (hidden - 0.5))
    p1 = expit(-0.6 + 0.7 * rate + 1.5 * (hidden - 0.5))
    y = rng.random(n) < np.where(t, p1, p0)
    frame = pd.DataFrame(
        {"user": rng.integers(0, n // 4, n), "rate": rate, "age": rng.standard_normal(n), "device": "tv", "shown": t * 1, "clicked": y * 1}
    )  # fmt: skip
    return frame, float((p1 - p0).mean()), float(gamma)


@pytest.mark.parametrize("sharpness", [0.4, -0.6])
def test_bounds_at_the_true_gamma_hold_the_truth(sharpness: float) -> None:
    frame, truth, gamma = hidden_world(20_000, 3, sharpness)
    got = group_sensitivity(fitted(frame, confounders=["rate"]), gamma=(1, gamma))["everyone"]
    assert not got.lower_ci[0] <= truth <= got.upper_ci[0]  # the effect as estimated is wrong
    assert got.lower[1] <= truth <= got.upper[1]
    assert got.upper[1] - got.lower[1] < 0.5


def test_benchmarks_say_how_much_a_known_cause_matters(found: GroupSensitivity) -> None:
    for g in found.groups:
        factors = dict(g.benchmarks)
        assert set(factors) == {"rate", "age", "device"}
        assert max(factors, key=lambda k: factors[k]) == "rate"
    table = found.to_frame()
    assert set(table["strongest_cause"]) == {"rate"}
    # log-odds .8·rate: the ninth decile of |.8·rate| is 1.3, and with .5·(device is 1) and .4·age left as they were
    assert 2.5 < dict(found["everyone"].benchmarks)["rate"] < 5.0


def test_second_order_groups_start_from_the_corrected_effects() -> None:
    frame = WORLD.frame.assign(item=np.random.default_rng(0).integers(0, 150, len(WORLD.frame)))
    fit = fitted(frame, cr.Correction(order=2, kernels=("same_item",)), item="item")
    assert fit.correction.order == 2
    got = group_sensitivity(fit, "age", gamma=(1, 1.5))
    assert got["everyone"].lower[0] == pytest.approx(fit.effect)
    assert got["everyone"].upper[1] > fit.effect + 0.05
    for record in fit.by("age").records:
        one = got[record["group"]]
        if record["effect"] is None:
            assert one.breakdown is None
        else:
            assert one.effect == pytest.approx(record["effect"])
            assert (one.lower_ci[0], one.upper_ci[0]) == pytest.approx(
                (record["ci_lower"], record["ci_upper"])
            )


def test_watch_time_in_groups() -> None:
    rng = np.random.default_rng(1)
    age, shown = WORLD.frame["age"], WORLD.frame["shown"]
    minutes = WORLD.frame["rate"] + shown * (1 + (age > 0)) + (1 + (age > 0)) * rng.standard_normal(len(age))
    got = group_sensitivity(fitted(WORLD.frame.assign(clicked=minutes)), "age")
    everyone = got["everyone"]
    assert list(everyone.upper) == sorted(everyone.upper)
    assert everyone.breakdown > 1.5  # type: ignore[operator]
    wide, narrow = (g.upper[-1] - g.lower[-1] for g in (got.groups[-1], got.groups[1]))
    assert 1.6 < wide / narrow < 2.4  # as far as the noise of these groups differs


def test_what_is_said(found: GroupSensitivity, fit: Fit) -> None:
    text = found.summary()
    assert (
        "everyone: hidden causes would have to change the odds of being recommended by a factor of 1." in text
    )
    assert "leaving out rate, the strongest of what was adjusted for, changes them by" in text
    assert found._repr_html_().count("<tr>") == 1 + len(found.groups)
    bounds = found.bounds()
    assert len(bounds) == 5 * len(found.groups)
    assert list(bounds.columns) == ["by", "group", "gamma", "lower", "upper", "lower_ci", "upper_ci"]
    with pytest.raises(KeyError, match="the groups are"):
        found["nobody"]
    assert len(group_sensitivity(fit).groups) == 1


def test_the_figure_shows_every_group_at_every_gamma(found: GroupSensitivity) -> None:
    ax = found.plot()
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == [g.name for g in found.groups]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "1.25", "1.5", "2", "3"]
    low, high = ax.get_ylim()
    assert low < min(g.lower_ci[-1] for g in found.groups)
    assert high > max(g.upper_ci[-1] for g in found.groups)
    assert found.plot(ax) is ax


def test_groups_too_small_and_effects_too_large_to_break() -> None:
    world = make_world(1500, 500, seed=2)
    frame = world.frame.assign(
        device=np.where(np.arange(1500) < 40, "radio", world.frame["device"]),
        clicked=np.where(world.frame["shown"] == 1, np.arange(1500) % 50 > 0, np.arange(1500) % 50 == 0) * 1,
    )
    got = group_sensitivity(fitted(frame, modifiers=["device"], confounders=["rate"]), "device")
    radio = got["device = radio"]
    assert (radio.n, radio.effect, radio.breakdown) == (40, None, None)
    assert "device = radio: too few rows" in got.summary()
    assert got["everyone"].breakdown == np.inf
    assert "by a factor of 20 would still leave an effect" in got["everyone"].sentence()
    assert "device = radio" not in [t.get_text() for t in got.plot().get_legend().get_texts()]


def test_logged_propensities_leave_nothing_hidden() -> None:
    frame = WORLD.frame.assign(p=np.clip(WORLD.e, 0.02, 0.98))
    got = group_sensitivity(fitted(frame, propensity="p"))
    assert got["everyone"].benchmarks == ()
    assert "no hidden cause has changed the odds" in got.summary()


def test_a_super_learner_has_bounds_and_says_why_no_benchmarks() -> None:
    log = cr.read_log(make_world(1200, 300).frame, **ROLES)
    learner = cr.SuperLearner(members=("ridge",), inner_folds=3, parts=2)
    mixed = cr.estimate(log, cr.identify(log), nuisances=learner, folds=cr.Folds(3), random_state=0)
    got = group_sensitivity(mixed, "age")
    assert got["everyone"].upper[-1] > mixed.effect + 0.1
    assert "No benchmarks: a super learner is not refitted" in got.summary()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"by": "rate"}, EstimationError, "not a declared modifier; declared are"),
        ({"by": "agee"}, EstimationError, "Did you mean 'age'"),
        ({"by": 3}, ArgumentError, "must be a column name or a list"),
        ({"gamma": 0.5}, ArgumentError, "gamma is 0.5, must be >= 1"),
        ({"gamma": ()}, ArgumentError, "gamma is empty"),
        ({"gamma": (1, float("nan"))}, ArgumentError, "must be a finite number"),
        ({"gamma": "2"}, ArgumentError, "must be a finite number"),
    ],
)
def test_bad_arguments(fit: Fit, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        group_sensitivity(fit, **arguments)


def test_bad_fits(fit: Fit) -> None:
    with pytest.raises(EstimationError, match=r"estimand is the ATO.*fit.under"):
        group_sensitivity(fit.under("ato"))
    with pytest.raises(ArgumentError, match="takes a Fit; got a ImpressionLog"):
        group_sensitivity(fit.log)  # type: ignore[arg-type]
