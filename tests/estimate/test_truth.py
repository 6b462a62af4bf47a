"""Every estimand against a known truth, over many seeds."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom
from small_logs import World, make_world, noise_block

from causalrec import scores
from causalrec.errors import OverlapError
from causalrec.estimate.analysis import Analysis, Inputs, Settings, analyse, rescore
from causalrec.nuisance import Folds

SEEDS = 30


def run(inputs: Inputs, seed: int = 0, estimand: str = "ate") -> Analysis:
    return analyse(inputs, Settings.of(estimand, None, Folds(3), inputs.t), None, np.random.default_rng(seed))


def fewest(runs: int, rate: float = 0.95) -> int:
    """Covered intervals that an honest one falls short of once in a thousand times."""
    return int(binom.ppf(0.001, runs, rate))


def supported(runs: list[tuple[World, Analysis]], estimand: str) -> list[tuple[World, Analysis]]:
    """The runs under another estimand; a small log may be refused for want of overlap, at most one in ten."""
    found = []
    for world, analysis in runs:
        with contextlib.suppress(OverlapError):
            found.append((world, rescore(analysis, estimand)))
    assert len(found) >= 0.9 * len(runs)
    return found


@pytest.fixture(scope="module")
def runs() -> list[tuple[World, Analysis]]:
    worlds = [make_world(900, 300, seed=s, heterogeneity=1.2) for s in range(SEEDS)]
    return [(w, run(w.inputs, s)) for s, w in enumerate(worlds)]


@pytest.mark.parametrize("estimand", ["ate", "att", "ato"])
def test_each_estimand_finds_its_own_truth(runs: list[tuple[World, Analysis]], estimand: str) -> None:
    found = [(w.truth(estimand), a.effect) for w, a in supported(runs, estimand)]
    errors = np.array([e.value - truth for truth, e in found])
    covered = sum(e.ci_lower <= truth <= e.ci_upper for truth, e in found)
    assert abs(errors.mean()) < 3 * errors.std(ddof=1) / np.sqrt(len(found))
    assert covered >= fewest(len(found))
    assert np.mean([e.std_error for _, e in found]) == pytest.approx(errors.std(ddof=1), rel=0.4)


def test_the_truths_differ_and_the_naive_answer_is_wrong(runs: list[tuple[World, Analysis]]) -> None:
    gaps = np.array([w.truth("att") - w.truth("ate") for w, _ in runs])
    naive = np.array([a.naive.value - w.truth("ate") for w, a in runs])
    missed = sum(not a.naive.ci_lower <= w.truth("ate") <= a.naive.ci_upper for w, a in runs)
    assert gaps.mean() > 0.02
    assert naive.mean() > 0.1
    assert missed > 0.9 * SEEDS


def test_the_att_of_the_others_would_be_wrong(runs: list[tuple[World, Analysis]]) -> None:
    """The estimands are told apart: ATT scores are biased for the ATE by the gap of the truths."""
    errors = np.array([a.effect.value - w.truth("ate") for w, a in supported(runs, "att")])
    assert errors.mean() > 2 * errors.std(ddof=1) / np.sqrt(SEEDS)


def test_the_share_that_would_have_clicked_anyway(runs: list[tuple[World, Analysis]]) -> None:
    covered, errors = 0, []
    for w, a in runs:
        t = w.frame["shown"].to_numpy() == 1
        truth = w.p0[t].mean() / w.p1[t].mean()
        if a.anyway is None:  # the ATT of a small log may be refused
            continue
        covered += a.anyway.ci_lower <= truth <= a.anyway.ci_upper
        errors.append(a.anyway.value - truth)
    assert len(errors) >= 0.9 * SEEDS
    assert covered >= fewest(len(errors))
    assert abs(np.mean(errors)) < 0.05


def test_users_who_are_treated_throughout_need_clustered_errors() -> None:
    ours = rows = 0
    for seed in range(40):
        world = make_world(
            1200, 200, seed=seed, by_user=True, user_sd=2.0, confounding=0.3, heterogeneity=0.0
        )
        a = run(world.inputs, seed)
        truth = world.truth("ate")
        row = scores.clustered_ratio(a.pair, np.arange(1200))
        ours += a.effect.ci_lower <= truth <= a.effect.ci_upper
        rows += row.ci_lower <= truth <= row.ci_upper
        assert a.effect.std_error > 1.2 * row.std_error
    assert ours >= fewest(40)
    assert rows < ours


def test_a_representation_of_pure_noise_costs_no_coverage() -> None:
    """120 columns of noise on 400 rows, beside the real confounders."""
    covered, errors = 0, []
    for seed in range(60):
        world = make_world(400, 400, seed=seed)
        inputs = replace(world.inputs, covariates=[*world.inputs.covariates, noise_block(400, 120, seed)])
        with contextlib.suppress(OverlapError):  # four hundred rows may be too few for the weights
            a = run(inputs, seed)
            covered += a.effect.ci_lower <= world.truth("ate") <= a.effect.ci_upper
            errors.append(a.effect.value - world.truth("ate"))
    assert len(errors) >= 54
    assert covered >= fewest(len(errors))
    assert abs(np.mean(errors)) < 3 * np.std(errors, ddof=1) / np.sqrt(len(errors))


def test_known_propensities_repair_a_missing_confounder() -> None:
    errors = []
    for seed in range(20):
        world = make_world(900, 900, seed=seed)
        blind = replace(world.inputs, covariates=[])
        known = run(replace(blind, logged=world.e), seed).effect.value
        errors.append((known - world.truth("ate"), run(blind, seed).effect.value - world.truth("ate")))
    known_error, blind_error = np.array(errors).T
    assert abs(known_error.mean()) < 3 * known_error.std(ddof=1) / np.sqrt(20)
    assert blind_error.mean() > 0.1


def test_a_continuous_outcome() -> None:
    errors, covered = [], 0
    for seed in range(20):
        world = make_world(800, 300, seed=seed)
        rng = np.random.default_rng(seed)
        truth = 2.0 + world.frame["age"].to_numpy()
        y = 3 * world.frame["rate"].to_numpy() + truth * world.inputs.t + rng.standard_normal(800)
        a = run(replace(world.inputs, y=y), seed)
        errors.append(a.effect.value - truth.mean())
        covered += a.effect.ci_lower <= truth.mean() <= a.effect.ci_upper
        assert a.anyway is None
    assert abs(np.mean(errors)) < 3 * np.std(errors, ddof=1) / np.sqrt(20)
    assert covered >= fewest(20)
