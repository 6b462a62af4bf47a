"""Texts shown once: what like texts show of the bias is taken out by default, half of it is allowed for, and the fit says so."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

import causalrec as cr
from causalrec.blocks import Block
from causalrec.errors import ArgumentError, EstimationError, SavedError
from causalrec.estimate.similar import MORE_OR_LESS

WORDS = [f"word{k}" for k in range(60)]


def draw(seed: int = 0, n: int = 3_000, strength: float = 1.0, again: int = 1) -> tuple[cr.ImpressionLog, float]:
    """A log whose texts of six words are shown `again` times each; every word acts on exposure and clicks. The block keeps two thirds of them."""
    rng = np.random.default_rng(990_000 + seed)
    m = n // again
    picked = np.array([rng.choice(len(WORDS), 6, replace=False) for _ in range(m)])
    acts = rng.standard_normal(len(WORDS))
    index = np.repeat(strength * acts[picked].sum(axis=1) / np.sqrt(6), again)
    x = rng.standard_normal(len(index))
    t = (rng.random(len(index)) < 0.1 + 0.8 * expit(index)).astype(int)
    p0, p1 = expit(-0.8 + 0.9 * index), expit(-0.4 + 0.9 * index + 0.3 * x)
    y = (rng.random(len(index)) < np.where(t == 1, p1, p0)).astype(int)
    texts = [" ".join([*(WORDS[j] for j in row), f"once{i}"]) for i, row in enumerate(picked)]
    code = np.repeat(np.arange(m), again)
    frame = pd.DataFrame({"title": np.array(texts)[code], "shown": t, "clicked": y, "age": x, "user": np.arange(len(t))})
    counts = np.zeros((m, len(WORDS)), dtype=np.float32)
    counts[np.arange(m)[:, None], picked] = 1
    crude = counts @ rng.standard_normal((60, 40)).astype(np.float32)
    log = cr.read_log(frame, treatment="shown", outcome="clicked", unit="user", text="title", modifiers=["age"])
    return log.with_blocks([Block("text:title", "text", crude, code, ("title",), "test")]), float((p1 - p0).mean())


def fitted(log: cr.ImpressionLog, **options: Any) -> cr.Fit:
    return cr.estimate(log, cr.identify(log), folds=cr.Folds(3), random_state=0, **options)


@pytest.fixture(scope="module")
def fit() -> cr.Fit:
    return fitted(draw()[0])


def test_the_default_takes_out_what_like_texts_share_and_covers() -> None:
    first, gone, covered = [], [], 0
    for seed in range(6):
        log, truth = draw(seed)
        found = fitted(log)
        assert found.correction.kernels == ("similar",)
        first.append(found.first_order.value - truth)
        gone.append(found.effect - truth)
        covered += found.ci_lower <= truth <= found.ci_upper
    assert np.mean(first) > 0.02
    assert abs(np.mean(gone)) < 0.5 * np.mean(first)
    assert covered >= 5


def test_where_the_words_do_not_act_it_costs_little() -> None:
    log, truth = draw(strength=0.0)
    found = fitted(log)
    plain = fitted(log, correction=cr.Correction(order=1))
    assert found.ci_lower < truth < found.ci_upper
    assert found.ci_upper - found.ci_lower < 1.3 * (plain.ci_upper - plain.ci_lower)


def test_the_fit_says_what_it_did_and_what_no_interval_holds(fit: cr.Fit) -> None:
    said = fit.summary()
    assert "Pairs of rows whose texts are alike show that the words and covariates left +" in said
    assert "in proportion to how alike they are" in said
    assert "the hard case" in said
    assert "'user' repeats" not in said
    assert "items count as a sample" not in said
    left = fit.correction.left
    assert left is not None
    assert fit.first_order.value - fit.effect == pytest.approx(left.value)
    assert fit.correction.may_remain == pytest.approx(MORE_OR_LESS * abs(left.value))
    assert fit.ci_upper - fit.effect > 1.96 * fit.std_error
    assert fit.scores.mean() == pytest.approx(fit.effect)


def test_first_order_and_other_kernels_are_to_be_had() -> None:
    log, _ = draw(1)
    assert fitted(log, correction=cr.Correction(order=1)).correction.order == 1
    assert fitted(log, correction=cr.Correction(kernels=("basis",))).correction.kernels == ("basis",)
    with pytest.raises(ArgumentError, match="stands alone"):
        cr.Correction(kernels=("similar", "same_user"))
    with pytest.raises(ArgumentError, match="one of these kinds"):
        cr.Correction(kernels=("basis", "cells"))


def test_repeated_texts_are_told_by_their_rows_unless_likeness_is_asked_for() -> None:
    log, truth = draw(2, again=4)
    assert fitted(log).correction.kernels != ("similar",)
    asked = fitted(log, correction=cr.Correction(kernels=("similar",)))
    assert asked.correction.kernels == ("similar",)
    assert abs(asked.effect - truth) < abs(asked.first_order.value - truth)


@pytest.mark.parametrize("estimand", ["att", "ato"])
def test_other_estimands_and_groups_come_from_the_same_texts(fit: cr.Fit, estimand: str) -> None:
    other = fit.under(estimand)
    assert other.correction.kernels == ("similar",)
    assert other.effect < other.first_order.value
    groups = fit.by("age", bins=2).to_frame()
    assert len(groups) == 2
    assert abs(groups["effect"].mean() - fit.effect) < 0.02


def test_held_out_users_are_scored_alike() -> None:
    from causalrec.uplift.held_out import held_out

    log, _ = draw(3)
    train, test = log.split(0.5, random_state=0)
    found = fitted(train)
    scored = held_out(found, test)
    assert scored.order == 2
    assert "texts are alike" in scored.note
    whole = scored.effect()
    assert whole.value == pytest.approx(scored.psi.mean())
    assert whole.bias_bound > 0
    half = scored.effect(np.arange(len(test)) < len(test) // 2)
    assert half.ci_lower < whole.value < half.ci_upper


def test_segments_and_group_sensitivity_keep_the_allowance(fit: cr.Fit) -> None:
    from causalrec.check.group_sensitivity import group_sensitivity
    from causalrec.estimate.segments import segments

    for record in segments(fit, ["age"]).records:
        assert record["joint_upper"] > record["ci_upper"]
        assert record["joint_lower"] < record["ci_lower"]
    everyone = group_sensitivity(fit, "age", gamma=1)["everyone"]
    assert (everyone.lower_ci[0], everyone.upper_ci[0]) == pytest.approx((fit.ci_lower, fit.ci_upper))


def test_the_share_that_would_have_clicked_anyway_keeps_it_too(fit: cr.Fit) -> None:
    found = fit.share_anyway
    assert found is not None
    plain = fitted(fit.log, correction=cr.Correction(order=1)).share_anyway
    assert plain is not None
    assert found[2] - found[1] > 1.3 * (plain[2] - plain[1])


def test_arms_of_texts_shown_once_are_corrected_too() -> None:
    log, truth = draw(7)
    frame = log.frame.assign(shown=np.where(log.frame["shown"] == 1, "top", "none"))
    arms = cr.read_log(frame, treatment="shown", outcome="clicked", unit="user", text="title", modifiers=["age"], treatment_kind="arms", control="none")
    arms = arms.with_blocks(log.blocks.values())
    fit = cr.estimate_arms(arms, cr.identify(arms), folds=cr.Folds(3), random_state=0)
    assert [p.corrected for p in fit.by_pairs] == [True]
    assert fit.contrasts[0].estimate.bias_bound > 0
    assert fit.contrasts[0].joint_lower < truth < fit.contrasts[0].joint_upper
    assert "'top' against the control: 100 % of the rows show a text that no other row shows" in fit.summary()


def test_what_cannot_be_compared_falls_back_unless_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from causalrec.estimate import similar

    monkeypatch.setattr(similar, "MAX_PAIRS", 10)
    log, _ = draw(6, n=1_000)
    assert fitted(log).correction.kernels != ("similar",)
    with pytest.raises(EstimationError, match="few units have most rows"):
        fitted(log, correction=cr.Correction(kernels=("similar",)))


def test_few_users_with_most_rows_are_left_to_the_other_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    from causalrec.estimate import correction

    monkeypatch.setattr(correction, "MOST_OWN_PAIRS", 10)
    log, _ = draw(6, n=1_000)
    found = cr.estimate(log, cr.identify(log), random_state=0)
    assert found.correction.kernels != ("similar",)
    assert found.nuisances.problem.in_pairs, "nuisances are fitted for pairs of folds, as the basis wants them"


def test_a_saved_fit_without_its_log_keeps_no_text(fit: cr.Fit, tmp_path: Path) -> None:
    whole = cr.load(cr.save(fit, tmp_path / "whole"), trusted=True)
    assert whole.effect == fit.effect
    assert whole.by("age", bins=2).to_frame().equals(fit.by("age", bins=2).to_frame())
    folder = cr.save(fit, tmp_path / "slim", with_log=False)
    for file in folder.iterdir():
        raw = file.read_bytes()
        assert b"word1" not in (gzip.decompress(raw) if file.suffix == ".gz" else raw), file.name
    slim = cr.load(folder, trusted=True)
    assert slim.effect == fit.effect
    with pytest.raises(SavedError, match="saved with with_log=False"):
        slim.by("age", bins=2)


def test_the_order_of_rows_changes_nothing() -> None:
    log, _ = draw(4, n=1_500)
    other = log.take(np.random.default_rng(0).permutation(len(log)))
    a, b = fitted(log), fitted(other)
    assert a.effect == pytest.approx(b.effect, abs=1e-5)
    assert a.ci_upper == pytest.approx(b.ci_upper, abs=1e-5)


def test_rows_without_weight_change_nothing() -> None:
    """The statistic of some rows is that of a log of these rows."""
    log, _ = draw(5, n=800)
    seen = fitted(log).correction.observed
    assert seen is not None
    here = np.arange(800) < 500
    among, bias = seen.among(here).estimate("ate")
    alone, own = replace(seen, w=np.ones(800)).take(np.flatnonzero(here)).estimate("ate")
    assert bias.bias == pytest.approx(own.bias, rel=0.05)
    assert among.value == pytest.approx(alone.value, abs=2e-3)
    assert abs(among.influence.sum()) < 1e-6
    assert (among.influence[~here] == 0).all()
