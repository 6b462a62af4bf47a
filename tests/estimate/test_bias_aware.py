"""Bias-aware intervals: the pair statistic against loops, what is corrected where it should be, and what is not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from causalrec.blocks import Block
from causalrec.errors import ArgumentError, EstimationError
from causalrec.estimate import bias_aware as ba
from causalrec.estimate import similar
from causalrec.estimate.analysis import Analysis, Inputs, Settings, analyse
from causalrec.estimate.correction import Correction
from causalrec.nuisance import Folds

VOCABULARY = [f"word{k}" for k in range(60)]


def word_log(n=3_000, seed=0, strength=1.0, embed=True, units=None):
    """Texts of six words, each shown once; every word acts on exposure and, alike, on clicks. Truth: the mean of tau."""
    rng = np.random.default_rng(seed)
    picked = np.array([rng.choice(len(VOCABULARY), 6, replace=False) for _ in range(n)])
    acts = rng.standard_normal(len(VOCABULARY))
    index = strength * acts[picked].sum(axis=1) / np.sqrt(6)
    texts = [" ".join([*(VOCABULARY[j] for j in row), f"once{i}"]) for i, row in enumerate(picked)]
    t = (rng.random(n) < 0.1 + 0.8 * expit(index)).astype(float)
    p0, p1 = expit(-0.8 + 0.9 * index), expit(-0.4 + 0.9 * index)
    y = (rng.random(n) < np.where(t == 1, p1, p0)).astype(float)
    x = pd.Series(rng.standard_normal(n), name="x")
    counts = np.zeros((n, len(VOCABULARY)), dtype=np.float32)
    counts[np.arange(n)[:, None], picked] = 1
    crude = counts @ rng.standard_normal((60, 40)).astype(
        np.float32
    )  # keeps two thirds of what the words say
    block = Block("text:title", "text", crude, np.arange(n), ("title",), "test")
    codes = np.arange(n) if units is None else rng.integers(0, units, n)
    inputs = Inputs(t, y, [block, x] if embed else [x], np.unique(codes, return_inverse=True)[1])
    return inputs, ("title", texts, np.arange(n)), float((p1 - p0).mean())


def analysed(inputs: Inputs, estimand="ate") -> Analysis:
    settings = Settings.of(estimand, None, Folds(3), inputs.t, Correction(1))
    return analyse(inputs, settings, None, np.random.default_rng(0))


def observed(a: Analysis, texts) -> similar.Observed:
    nu, inputs = a.nuisances, a.inputs
    return similar.Observed(
        inputs.t, inputs.y, nu.propensity, nu.outcome_0, nu.outcome_1, nu.problem.w, inputs.units, a.settings.clip, inputs.covariates[:1], [texts]
    )  # fmt: skip


@pytest.fixture(scope="module")
def case():
    inputs, texts, truth = word_log()
    return analysed(inputs), texts, truth


def test_pairs_equal_a_loop_over_pairs_of_different_units():
    inputs, texts, _ = word_log(n=400, units=150)
    a = analysed(inputs)
    seen = observed(a, texts)
    similarities = similar.similarities(seen)
    assert [k.name for k in similarities] == ["text:title", "words:title"]
    rows = np.arange(400)
    every = [k.at(np.repeat(rows, 400), np.tile(rows, 400)).reshape(400, 400) for k in similarities]
    for k, matrix in zip(similarities, every, strict=True):
        assert np.diag(matrix).mean() == pytest.approx(1)
        np.testing.assert_allclose(k.times(np.sin(rows)), matrix @ np.sin(rows), atol=1e-8)
    apart = inputs.units[:, None] != inputs.units[None]
    t, y, nu = inputs.t, inputs.y, a.nuisances
    e = a.settings.clip.apply(nu.propensity)
    product = np.outer(t / e - 1, t * (y - nu.outcome_1) / e)
    product -= np.outer((1 - t) / (1 - e) - 1, (1 - t) * (y - nu.outcome_0) / (1 - e))
    design = np.column_stack([m[apart] for m in every])
    slopes = np.linalg.lstsq(design, product[apart], rcond=None)[0]
    found = similar.pair_bias(seen, "ate", a.effect.value)
    assert found.rows.sum() == pytest.approx(found.bias)
    assert found.bias == pytest.approx(slopes.sum(), rel=1e-6)
    assert abs(found.influence.mean()) < 1e-9


@pytest.mark.parametrize("estimand", ["ate", "att", "ato"])
@pytest.mark.parametrize("embed", [True, False])
def test_what_words_share_is_taken_out(estimand, embed):
    gone, before = [], []
    for seed in (1, 2):
        inputs, texts, truth = word_log(seed=seed, embed=embed)
        a = analysed(inputs, estimand)
        found = ba.bias_aware(a, ba.SimilarTexts(), [texts])
        before.append(a.effect.value - truth)
        gone.append(found.value - truth)
        assert found.ci_lower < found.value < found.ci_upper
        assert found.first_order == a.correction.first_order.value
    assert np.mean(before) > 0.02
    assert abs(np.mean(gone)) < 0.5 * np.mean(before)


def test_where_words_do_not_act_nothing_is_taken_out():
    inputs, texts, truth = word_log(strength=0.0)
    a = analysed(inputs)
    found = ba.bias_aware(a, texts=[texts])
    assert abs(found.value - a.effect.value) < 0.5 * a.effect.std_error
    assert found.ci_lower < truth < found.ci_upper
    assert found.ci_upper - found.ci_lower < 1.4 * (a.effect.ci_upper - a.effect.ci_lower)


def test_the_interval_is_the_hull_of_what_is_assumed(case):
    a, texts, _ = case
    exact = ba.bias_aware(a, ba.SimilarTexts((1, 1)), [texts])
    wide = ba.bias_aware(a, ba.SimilarTexts((0, 1)), [texts])
    assert exact.bound == 0
    assert exact.value == pytest.approx(wide.records[-1]["effect"])
    assert wide.ci_lower <= min(exact.ci_lower, a.effect.ci_lower)
    assert wide.ci_upper == pytest.approx(max(exact.ci_upper, a.effect.ci_upper))
    assert "Assumed, not tested" in str(exact)
    assert len(exact.to_frame()) == 2


def test_a_learning_curve_goes_on_in_its_line(case):
    a, _, _ = case
    rng = np.random.default_rng
    still = ba.bias_aware(a, ba.LearningCurve(total=1.0), rng=rng(0))
    assert still.value == pytest.approx(a.effect.value)
    assert (still.ci_lower, still.ci_upper) == pytest.approx((a.effect.ci_lower, a.effect.ci_upper))
    near, far = (ba.bias_aware(a, ba.LearningCurve(total=t), rng=rng(0)) for t in (1.3, 1.6))
    step = near.value - a.effect.value
    assert step * (a.naive.value - a.effect.value) < 0
    assert far.value - a.effect.value == pytest.approx(2 * step)
    assert far.ci_lower <= far.value <= far.ci_upper
    explained = [r["explained"] for r in far.records]
    assert explained == sorted(explained)


def test_without_shares_the_curve_is_a_line_from_the_naive_difference(case):
    a, _, _ = case
    found = ba.bias_aware(a, ba.LearningCurve(shares=(), total=1.5))
    assert found.value == pytest.approx(a.effect.value - 0.5 * (a.naive.value - a.effect.value))


def test_an_omitted_variable_widens_in_proportion(case):
    a, _, _ = case
    none, one, two = (ba.bias_aware(a, ba.OmittedVariable(times=k)) for k in (0.0, 1.0, 2.0))
    assert (none.ci_lower, none.ci_upper) == (a.effect.ci_lower, a.effect.ci_upper)
    assert two.bound == pytest.approx(2 * one.bound)
    assert one.ci_upper == pytest.approx(a.effect.ci_upper + one.bound)
    assert one.bound >= abs(one.records[-1]["effect"] - a.effect.value)  # a bound holds for what was left out


@pytest.mark.parametrize(
    "make",
    [
        lambda: ba.SimilarTexts((-0.1, 1)),
        lambda: ba.SimilarTexts((1, 0.5)),
        lambda: ba.SimilarTexts(min_texts=0),
        lambda: ba.LearningCurve(shares=(1.0,)),
        lambda: ba.LearningCurve(total=0.9),
        lambda: ba.OmittedVariable(times=-1),
    ],
)
def test_assumptions_check_themselves(make):
    with pytest.raises(ArgumentError, match="must be"):
        make()


def test_what_cannot_be_done_is_said(case, monkeypatch):
    a, (name, words, codes), _ = case
    with pytest.raises(ArgumentError, match="must be SimilarTexts"):
        ba.bias_aware(a, "oster")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="has 5 rows, the analysis 3,000"):
        ba.bias_aware(a, texts=[(name, words, codes[:5])])
    bare = analysed(word_log(n=600, embed=False)[0])
    with pytest.raises(EstimationError, match="no two texts can be compared"):
        ba.bias_aware(bare)
    with pytest.raises(EstimationError, match="no representation of a text"):
        ba.bias_aware(bare, ba.OmittedVariable())
    monkeypatch.setattr(similar, "MAX_PAIRS", 100)
    with pytest.raises(EstimationError, match=r"3,000 pairs .* above 100"):
        ba.bias_aware(a)
