"""Several arms whose confounding belongs to the item: pairs of rows take it out of the contrasts."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import causalrec as cr
from causalrec.errors import ArgumentError, EstimationError
from causalrec.estimate import estimate_arms

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import arm_worlds
from arm_worlds import LABELS, ROLES


def draw(seed: int, **options: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Logs of the tuning seeds."""
    return arm_worlds.draw(990_000 + seed, **options)


def fitted(frame: pd.DataFrame, correction: cr.Correction | None = None, **roles: Any) -> Any:
    log = cr.read_log(frame, **{**ROLES, **roles})
    return estimate_arms(log, cr.identify(log), correction=correction, random_state=0)


def test_what_belongs_to_the_item_goes_out_of_every_contrast() -> None:
    first, errors = [], []
    for seed in range(6):
        frame, p = draw(seed)
        truth = dict(zip(LABELS, p.mean(axis=0), strict=True))
        fit = fitted(frame)
        assert all(b.corrected for b in fit.by_pairs)
        plain = dict(zip(fit.arms, fit.scores.mean(axis=0), strict=True))
        first.append(plain["top"] - plain["none"] - (truth["top"] - truth["none"]))
        errors += [(c.effect - (truth[c.arm] - truth[c.against])) / c.estimate.std_error for c in fit.pairs]
    assert np.mean(first) > 0.05, "the first order is off by what the item confounds"
    z = np.array(errors).reshape(6, 3)
    assert np.abs(z.mean(axis=0)).max() < 4 / np.sqrt(6)
    assert (np.abs(z) < 1.96).sum() >= 14


def test_the_fit_says_what_was_corrected_and_of_what_order_its_means_are() -> None:
    fit = fitted(draw(0)[0])
    said = fit.summary()
    assert "'top' against the control: The words and covariates left +" in said
    assert "mean under top (first order)" in said
    assert "go by the contrasts" in said
    a, b = fit.contrasts
    assert fit.pairs[-1].effect == pytest.approx(b.effect - a.effect)
    assert (fit.pairs[-1].arm, fit.pairs[-1].against) == (b.arm, a.arm) == ("top", "side")


def test_two_arms_are_the_effect_of_estimate() -> None:
    """The same pairs of rows, folds and rule; only the row weights 1 / (e + 1 − e) stand between them."""
    frame, _ = draw(1, arms=2)
    many = fitted(frame).contrasts[0]
    log = cr.read_log(
        frame.assign(slot=(frame["slot"] == "top").astype(int)),
        **{k: v for k, v in ROLES.items() if k not in ("treatment_kind", "control")},
    )
    one = cr.estimate(log, cr.identify(log), random_state=0)
    assert one.correction.order == 2
    assert abs(many.effect - one.effect) < 0.5 * one.std_error
    assert many.estimate.std_error == pytest.approx(one.std_error, rel=0.1)


def test_first_order_is_to_be_had_and_is_what_the_scores_say() -> None:
    fit = fitted(draw(2)[0], cr.Correction(order=1))
    assert fit.by_pairs == ()
    np.testing.assert_allclose(
        [c.effect for c in fit.contrasts], fit.scores.mean(axis=0)[1:] - fit.scores.mean(axis=0)[0]
    )
    assert "first order" not in fit.summary()


def test_effects_given_the_modifiers_are_of_the_corrected_scores() -> None:
    frame, p = draw(3)
    fit = fitted(frame, modifiers=["age"], confounders=[])
    cate = fit.cate(fit.log)
    assert cate.shape == (len(frame), 2)
    truth = p[:, [2, 1]] - p[:, :1]  # side and top, each against none
    for k, contrast in enumerate(fit.contrasts):
        assert abs(cate[:, k].mean() - contrast.effect) < 0.02
    assert np.abs(cate.mean(axis=0) - truth.mean(axis=0)).max() < 0.06


def test_logged_propensities_leave_nothing_to_find() -> None:
    frame, _ = draw(4)
    known = {"propensity": {name: f"e_{name}" for name in LABELS}}
    assert fitted(frame, **known).by_pairs == ()
    with pytest.raises(EstimationError, match="propensities are logged"):
        fitted(frame, cr.Correction(order=2), **known)


def test_bad_corrections_are_refused() -> None:
    frame, _ = draw(5, n=1_500, items=1_500)
    log = cr.read_log(frame, **ROLES)
    with pytest.raises(ArgumentError, match=r"correction is 2; must be Correction"):
        estimate_arms(log, cr.identify(log), correction=2)
    once = frame.assign(item=np.arange(len(frame)), user=np.arange(len(frame)))
    with pytest.raises(EstimationError, match="no pairs of rows"):
        fitted(once, cr.Correction(order=2))


def test_an_arm_whose_rows_cannot_be_compared_in_pairs_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from causalrec.errors import OverlapError
    from causalrec.estimate import arm_pairs

    def none(*_: Any) -> None:
        raise OverlapError("the arms do not overlap.")

    monkeypatch.setattr(arm_pairs, "analyse", none)
    fit = fitted(draw(0)[0])
    assert (
        "first order, since its rows and the control's cannot be compared in pairs: the arms do not overlap."
        in fit.summary()
    )
    assert fit.contrasts[0].effect == pytest.approx(fit.scores[:, 1].mean() - fit.scores[:, 0].mean())


def test_the_order_of_rows_changes_nothing() -> None:
    frame, _ = draw(6, n=3_000)
    other = fitted(frame.sample(frac=1, random_state=1))
    for a, b in zip(fitted(frame).contrasts, other.contrasts, strict=True):
        assert a.effect == pytest.approx(b.effect, abs=1e-5)
        assert a.joint_upper == pytest.approx(b.joint_upper, abs=1e-5)


def test_a_bias_that_may_remain_widens_the_interval() -> None:
    from causalrec.estimate.arm_pairs import effects
    from causalrec.estimate.contrasts import compare

    fit = fitted(draw(7)[0])
    assert fit.by_pairs[0].analysis is not None
    kept = replace(fit.by_pairs[0].analysis.correction, order=1, may_remain=0.05)
    told = replace(fit.by_pairs[0], analysis=replace(fit.by_pairs[0].analysis, correction=kept))
    found = next(iter(effects(fit.scores, fit.adjusted.weights, (told, fit.by_pairs[1]))))
    assert found.bias == 0.05
    rng, args = np.random.default_rng(0), (fit.arms, fit.adjusted)
    other = replace(found, influence=np.roll(found.influence, 7))
    (narrow, *_), _ = compare(*args, [replace(found, bias=0.0), other], fit.overlap, rng)
    (wide, *_), pairs = compare(*args, [found, other], fit.overlap, rng)
    assert wide.joint_upper - narrow.joint_upper == pytest.approx(0.05, abs=2e-3)
    assert narrow.joint_lower - wide.joint_lower == pytest.approx(0.05, abs=2e-3)
    assert wide.estimate.ci_upper - narrow.estimate.ci_upper > 0.03
    assert pairs[-1].estimate.bias_bound == pytest.approx(0.1)
    assert found.value == pytest.approx(fit.scores[:, 1].mean() - fit.scores[:, 0].mean())


def test_weights_make_the_rows_of_two_arms_stand_for_every_item() -> None:
    """Whatever trait of an item decides how many of its rows had either arm, its weight is that of all its rows."""
    from causalrec.estimate.arm_pairs import standing_for_all

    rng = np.random.default_rng(0)
    items = np.repeat(np.arange(50), 40)
    chance = np.repeat(rng.uniform(0.2, 0.9, 50), 40)
    rows = np.flatnonzero(rng.random(2_000) < chance)
    w = standing_for_all(np.ones(2_000), np.full(2_000, 0.5), rows, items)
    np.testing.assert_allclose(np.bincount(items[rows], w), 40, rtol=0.1)
    alone = standing_for_all(np.ones(2_000), np.full(2_000, 0.5), rows, np.full(2_000, -1))
    np.testing.assert_allclose(alone, 2.0)
