"""Negative controls: Holm's p-values, clustering by item, and the user's next exposure."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

import causalrec as cr
from causalrec.check.negative import FUTURE, future_exposure, negative_controls, next_impressions
from causalrec.estimate.correction import Correction
from causalrec.joint import holm


def test_holm_by_hand() -> None:
    assert holm(np.array([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])
    assert holm(np.array([0.6, 0.9])) == pytest.approx([1.0, 1.0])
    assert len(holm(np.array([]))) == 0


def test_the_next_impression_is_the_users_own_and_strictly_later() -> None:
    units = np.array([0, 1, 0, 0, 1, 0])
    moments = np.array([5, 2, 3, 5, 2, 9])
    today, later = next_impressions(units, moments)
    assert (units[today] == units[later]).all()
    assert (moments[later] > moments[today]).all()
    assert sorted(zip(moments[today], moments[later], strict=True)) == [(3, 5), (5, 9)]
    assert set(today) <= {0, 2, 3}


def by_time(
    seed: int, *, trait: float = 0.0, reaction: float = 0.0, users: int = 400, visits: int = 5
) -> pd.DataFrame:
    """Impressions in time; a hidden trait of the user acts on both, and the recommender may react to a click."""
    rng = np.random.default_rng(seed)
    rate = rng.standard_normal((users, visits))
    hidden = trait * rng.standard_normal(users)
    shown, clicked = np.zeros((2, users, visits))
    before = np.zeros(users)
    for k in range(visits):
        shown[:, k] = rng.random(users) < expit(0.7 * rate[:, k] + hidden + reaction * before)
        clicked[:, k] = rng.random(users) < expit(0.7 * rate[:, k] + hidden + 0.5 * shown[:, k] - 0.5)
        before = clicked[:, k] - 0.5
    return pd.DataFrame(
        {
            "user": np.repeat(np.arange(users), visits),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(np.tile(np.arange(visits), users), "D"),
            "item": rng.integers(0, 40, users * visits),
            "rate": rate.ravel(),
            "shown": shown.ravel().astype(int),
            "clicked": clicked.ravel().astype(int),
        }
    )


def fitted(frame: pd.DataFrame, **changed: object) -> cr.Fit:
    roles = {"treatment": "shown", "outcome": "clicked", "unit": "user", "time": "day", "confounders": "rate"}
    log = cr.read_log(frame.sample(frac=1, random_state=0), **{**roles, **changed})
    return cr.estimate(log, cr.identify(log), folds=cr.Folds(3), random_state=0)


def alarms(reps: int, **law: float) -> int:
    found = [negative_controls(fitted(by_time(seed, **law))) for seed in range(reps)]
    assert all(len(records) == 1 and records[0].name == FUTURE for records in found)
    return sum(records[0].passed is not True for records in found)


def test_the_next_exposure_hears_a_hidden_trait_of_the_user_and_nothing_else() -> None:
    assert alarms(12) <= 2
    assert alarms(8, trait=0.8) >= 7


def test_a_recommender_that_reacts_to_clicks_is_said_to_be_another_reason() -> None:
    (record,) = negative_controls(fitted(by_time(0, reaction=1.5)))
    assert record.passed is None
    assert "the recommender reacts to their clicks" in record.message
    assert record.statistic > 0.05


def test_a_trait_that_pairs_of_a_users_rows_took_out_does_not_bias_the_effect() -> None:
    log = fitted(by_time(0, trait=0.8), item="item").log
    correction = Correction(kernels=("same_user",))
    made = cr.estimate(log, cr.identify(log), correction=correction, random_state=0)
    record = negative_controls(made)[-1]
    assert made.analysis.correction.kernels == ("same_user",)
    assert record.passed is None
    assert "taken out of the effect" in record.message


@pytest.mark.parametrize("changed", [{"time": None}, {"unit": None}])
def test_without_time_or_user_there_is_no_next_exposure(changed: dict[str, None]) -> None:
    assert future_exposure(fitted(by_time(0, users=300), **changed)) is None


def test_times_written_as_text_are_in_order_of_time_not_of_letters() -> None:
    frame = by_time(1, trait=0.8)
    written = frame.assign(day=frame["day"].dt.strftime("%d %B %Y"))
    one, two = (future_exposure(fitted(f)) for f in (frame, written))
    assert one is not None
    assert two is not None
    assert one.value == pytest.approx(two.value)


def test_too_few_neighbouring_impressions() -> None:
    assert future_exposure(fitted(by_time(0, users=300).drop_duplicates("user"))) is None


def test_controls_are_counted_together_and_clustered_by_item() -> None:
    """Two earlier clicks that an item's hidden mood moves, and one next exposure: three p-values."""
    frame = by_time(2)
    rng = np.random.default_rng(0)
    mood = 1.5 * rng.standard_normal(40)[frame["item"]]
    earlier = {f"before_{j}": (rng.random(len(frame)) < expit(mood)).astype(int) for j in range(2)}
    fit = fitted(frame.assign(**earlier), item="item", negative_controls=list(earlier))
    records = negative_controls(fit)
    assert [r.name for r in records] == ["negative_control:before_0", "negative_control:before_1", FUTURE]
    alone = negative_controls(fitted(frame.assign(**earlier), negative_controls=list(earlier)))
    assert all(
        a.statistic == pytest.approx(b.statistic, abs=0.02) for a, b in zip(records, alone, strict=True)
    )
    assert all(r.p_value is not None and r.p_value > 0.05 for r in records)
