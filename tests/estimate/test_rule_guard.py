"""Where propensities are at the clip or far from what rows of one item say, the fit does not correct, or says what is left."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

import causalrec as cr


def draw(seed: int, strength: float, items: int, known: float = 0.3) -> tuple[cr.ImpressionLog, float]:
    """Exposure follows a hidden trait of the item, and an age that is declared."""
    rng = np.random.default_rng(990_000 + seed)
    n = 6_000
    item, user = rng.integers(0, items, n), rng.integers(0, n // 2, n)
    trait, age = rng.standard_normal(items)[item], rng.standard_normal(n)
    t = (rng.random(n) < expit(strength * trait + known * age)).astype(int)
    p0, p1 = expit(-0.8 + 0.9 * trait + 0.4 * age), expit(-0.2 + 0.9 * trait + 0.4 * age)
    y = (rng.random(n) < np.where(t == 1, p1, p0)).astype(int)
    frame = pd.DataFrame({"item": item, "user": user, "age": age, "t": t, "y": y})
    log = cr.read_log(frame, treatment="t", outcome="y", unit="user", item="item", confounders=["age"])
    return log, float((p1 - p0).mean())


def fitted(log: cr.ImpressionLog, **options: Any) -> cr.Fit:
    return cr.estimate(log, cr.identify(log), random_state=0, **options)


def test_items_exposed_unlike_are_named_and_the_correction_is_still_better_than_none() -> None:
    log, truth = draw(0, strength=3.0, items=2_500)
    fit = fitted(log)
    assert fit.correction.order == 2
    assert fit.correction.alpha > 0.25
    assert "Items are exposed far more unlike than the propensities know" in fit.summary()
    assert abs(fit.effect - truth) < 0.3 * abs(fit.first_order.value - truth)


def test_items_exposed_much_alike_are_not() -> None:
    fit = fitted(draw(0, strength=0.5, items=500)[0])
    assert fit.correction.order == 2
    assert 0 < fit.correction.alpha < 0.25
    assert "far more unlike" not in fit.summary()


def test_clipped_propensities_are_named_and_corrected_all_the_same() -> None:
    """Falling back to the first order was off by .135 here, pairs by .013 (8 logs)."""
    log, truth = draw(1, strength=0.8, items=500, known=2.0)
    fit = fitted(log, clip=cr.Clip(0.06))
    assert 0.1 < fit.share_clipped < 0.25
    assert fit.correction.order == 2
    assert "of the propensities are clipped: for these rows" in fit.summary()
    assert abs(fit.effect - truth) < 0.4 * abs(fit.first_order.value - truth)
    assert "for these rows" not in fitted(log, clip=cr.Clip(0.06), estimand="ato").summary()


def test_another_estimand_is_decided_upon_anew_and_keeps_what_may_remain() -> None:
    log, _ = draw(1, strength=0.8, items=500, known=2.0)
    fit = fitted(log)
    assert fit.under("ato").effect == pytest.approx(fitted(log, estimand="ato").effect)
    plain = replace(fit, analysis=replace(fit.analysis, settings=replace(fit.analysis.settings, correction=cr.Correction(order=1))))
    assert plain.under("ato").correction.order == 1, "an order that was asked for stays"
    same = fit.under("ate")
    assert (same.ci_lower, same.ci_upper) == pytest.approx((fit.ci_lower, fit.ci_upper))


@pytest.mark.parametrize("estimand", ["att", "ato"])
def test_the_ato_needs_no_such_caveat(estimand: str) -> None:
    fit = fitted(draw(2, strength=3.0, items=2_500)[0], estimand=estimand)
    assert ("far more unlike" in fit.summary()) == (estimand == "att")


def test_the_effect_on_items_shown_more_than_once_stands_beside_the_headline() -> None:
    """Effects of items shown once differ: the headline lends them what the others say, the line beside it leaves them out."""
    log, _ = draw(3, strength=1.0, items=500)
    assert fitted(log).analysis.of_repeated is None, "every item repeats"
    frame = log.frame.copy()
    rng = np.random.default_rng(0)
    once = rng.random(len(frame)) < 0.3
    frame["item"] = np.where(once, 10_000 + np.arange(len(frame)), frame["item"])
    frame.loc[once, "y"] = (rng.random(int(once.sum())) < 0.2 + 0.5 * frame.loc[once, "t"]).astype(int)
    log = cr.read_log(frame, treatment="t", outcome="y", unit="user", item="item", confounders=["age"])
    fit = fitted(log)
    beside = fit.analysis.of_repeated
    assert fit.correction.order == 2
    assert beside is not None
    kept = fitted(log.take(np.flatnonzero(~once)))
    assert abs(beside.value - kept.effect) < kept.std_error
    assert "on items shown more than once" in fit.summary()
    assert beside.ci_lower < beside.value < beside.ci_upper
