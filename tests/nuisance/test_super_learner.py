from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from causalrec.blocks import Block
from causalrec.errors import ArgumentError, EstimationError
from causalrec.nuisance import Problem, learn_design
from causalrec.nuisance.stacked import StackedNuisances, stack_weights
from causalrec.nuisance.super_learner import SuperLearner, _outer, fit_super_learner
from causalrec.represent.weights import DEFAULT_MODEL, locate

N, U, D = 900, 90, 40
NAMES = ("propensity", "outcome_0", "outcome_1")
WORDS = ("red", "blue", "green", "grey", "white", "black", "pink", "gold", "brown")
TEXTS = tuple(
    f"{colour} {thing}"
    for colour in WORDS
    for thing in ["dress", "shoe", "coat", "scarf", "hat", "glove", "belt", "sock", "tie", "bag"]
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two narrow layers with random weights and the default model's tokenizer."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("tiny")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        BertModel(BertConfig(vocab_size=30522, **sizes)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(locate(DEFAULT_MODEL).folder / name, folder / name)
    return folder


def make(strength: float = 1.0, seed: int = 0) -> tuple[Problem, Block]:
    """Texts whose first two directions act on exposure and click, beside a number that does too."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((U, D)).astype(np.float32)
    codes = rng.integers(0, U, N)
    block = Block("text:title", "text", values, codes, ("title",), "made", texts=TEXTS)
    import pandas as pd

    x = pd.Series(rng.standard_normal(N), name="x")
    z = x.to_numpy()
    words = strength * (values[:, 0] + values[:, 1])[codes]
    t = (rng.random(N) < expit(words + 0.5 * strength * z)).astype(float)
    y = (rng.random(N) < expit(words + 0.5 * strength * z + 0.5 * t - 0.5)).astype(float)
    _, design = learn_design([block, x], N)
    fold = rng.permutation(np.arange(N) % 3)
    return Problem(t, y, np.ones(N), design, design, fold, True), block


def learner(*members: Any, **changed: Any) -> SuperLearner:
    return SuperLearner(members=members, progress=False, **changed)


@pytest.fixture(scope="module")
def mixed() -> tuple[Problem, Block, StackedNuisances]:
    problem, block = make()
    return problem, block, fit_super_learner(problem, learner("ridge", "ngrams", "bottleneck"), [block])


def test_nothing_in_a_fold_has_seen_the_fold_to_the_last_bit(tiny: Path) -> None:
    problem, block = make()
    here = problem.fold == 1
    poisoned = replace(
        problem, t=np.where(here, 1 - problem.t, problem.t), y=np.where(here, 1 - problem.y, problem.y)
    )
    recipe = learner("ridge", "ngrams", "bottleneck", "tuned", encoder=str(tiny), epochs=1)
    mine, other = (fit_super_learner(p, recipe, [block]) for p in (problem, poisoned))
    for name in NAMES:
        assert np.array_equal(getattr(mine, name)[here], getattr(other, name)[here])
        assert np.abs(getattr(mine, name)[~here] - getattr(other, name)[~here]).max() > 0.01
        assert np.array_equal(mine.member_predictions[name][here], other.member_predictions[name][here])


def test_a_single_hold_out_weighs_on_the_rows_that_were_held_out(tiny: Path) -> None:
    problem, block = make()
    recipe = learner("ridge", "tuned", encoder=str(tiny), epochs=1, parts=3, rounds=1)
    fitted = fit_super_learner(problem, recipe, [block])
    for ridge, tuned in fitted.fits:
        assert np.isfinite(ridge.inner["propensity"]).all()
        assert np.isfinite(tuned.inner["propensity"]).mean() == pytest.approx(1 / 3, abs=0.02)
        assert np.isfinite(tuned.outer["outcome_1"]).all()
    assert np.isfinite(fitted.propensity).all()


def test_noise_does_not_beat_the_constant() -> None:
    for seed in range(2):
        problem, block = make(0.0, seed)
        fitted = fit_super_learner(problem, learner("ridge", "bottleneck"), [block])
        for gain in fitted.gains:
            assert gain["held_out_loss"] > gain["loss_of_a_constant"] - 0.003
            assert gain["held_out_loss"] < gain["loss_of_a_constant"] + 0.03


def test_the_mix_does_about_as_well_as_its_best_member(
    mixed: tuple[Problem, Block, StackedNuisances],
) -> None:
    _, _, fitted = mixed
    for i, gain in enumerate(fitted.gains):
        best = min(row["held_out_loss"] for row in fitted.member_gains[3 * i : 3 * i + 3])
        assert gain["held_out_loss"] < best + 0.02  # nats; 600 rows choose the weights
        assert gain["share_explained"] > 0.02


def test_the_summary_shows_every_member_and_its_weight(
    mixed: tuple[Problem, Block, StackedNuisances],
) -> None:
    _, _, fitted = mixed
    frame = fitted.to_frame()
    assert len(frame) == 12
    assert frame["model"].tolist()[:3] == ["propensity", "propensity: ridge", "propensity: ngrams"]
    assert (frame["weight"].dropna() >= 0).all()
    assert "bottleneck" in fitted.summary()
    assert fitted.gains[0]["mixed_from"].startswith("ridge ")


def test_ridge_predicts_new_rows_and_readers_of_texts_say_that_they_cannot(
    mixed: tuple[Problem, Block, StackedNuisances],
) -> None:
    problem, block, fitted = mixed
    design = problem.outcome_design
    with pytest.raises(EstimationError, match=r"\['ngrams', 'bottleneck'\] read texts"):
        fitted.predict(design, design)
    plain = fit_super_learner(problem, learner("ridge", LogisticRegression(C=0.01)), [block])
    e, m0, m1 = plain.predict(design, design)
    assert np.corrcoef(e, plain.propensity)[0, 1] > 0.9
    assert ((m0 > 0) & (m0 < 1) & (m1 > 0) & (m1 < 1)).all()
    assert plain.names == ("ridge", "LogisticRegression")


def test_a_logged_propensity_is_taken_as_it_is() -> None:
    problem, block = make()
    logged = replace(problem, logged=np.full(N, 0.4))
    fitted = fit_super_learner(logged, learner("ridge", "bottleneck"), [block])
    assert (fitted.propensity == 0.4).all()
    assert fitted.logged
    assert [g["model"] for g in fitted.gains] == ["outcome_0", "outcome_1"]


def test_units_share_an_inner_fold() -> None:
    problem, _ = make()
    units = np.arange(N) // 3
    outer = _outer(problem, learner("ridge"), 0, units)
    for hands in (outer.problem.fold, outer.halves):
        for unit in np.unique(units[outer.rows]):
            assert len(set(hands[units[outer.rows] == unit])) == 1
    assert (problem.fold[outer.scored] == 0).all()


def test_weights_go_to_what_predicts() -> None:
    rng = np.random.default_rng(0)
    true, noise = rng.standard_normal(4000), rng.standard_normal(4000)
    y = (rng.random(4000) < expit(true - 1)).astype(float)
    stack = stack_weights(np.column_stack([true, noise]), y, np.ones(4000))
    assert stack.weights[0] == pytest.approx(1, abs=0.12)
    assert stack.weights[1] < 0.08
    assert stack.intercept == pytest.approx(-1, abs=0.12)
    assert (stack_weights(np.column_stack([-true, noise]), y, np.ones(4000)).weights[0]) < 1e-6
    mean = stack.apply(np.column_stack([true, noise])).mean()
    assert mean == pytest.approx(y.mean(), abs=1e-3)  # the intercept is free


def test_constant_members_give_the_constant() -> None:
    y = (np.arange(1000) % 4 == 0).astype(float)
    stack = stack_weights(np.full((1000, 2), 0.3), y, np.ones(1000))
    assert logit(stack.apply(np.full((1, 2), 0.3)))[0] == pytest.approx(logit(0.25), abs=1e-4)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"members": ()}, "members"),
        ({"members": ("rigde",)}, "Did you mean 'ridge'"),
        ({"members": (3,)}, "neither one of"),
        ({"inner_folds": 2}, "inner_folds"),
        ({"parts": 1}, "parts"),
        ({"rounds": 3}, "rounds"),
        ({"method": "x"}, "method"),
    ],
)
def test_settings_out_of_bounds_are_refused(wrong: dict[str, Any], what: str) -> None:
    with pytest.raises(ArgumentError, match=what):
        SuperLearner(**wrong)


def test_menus() -> None:
    assert SuperLearner.quick().members == ("ridge", "ngrams", "bottleneck")
    assert SuperLearner.thorough(epochs=1).members[-1] == "tuned"
    assert SuperLearner().folds.n_splits == 3


def test_problems_that_it_cannot_take_are_refused() -> None:
    problem, block = make()
    with pytest.raises(EstimationError, match="not 0/1"):
        fit_super_learner(replace(problem, binary=False), learner("ridge"), [block])
    with pytest.raises(EstimationError, match="90 distinct vectors and none of their texts"):
        fit_super_learner(problem, learner("ngrams"), [replace(block, texts=None)])
    with pytest.raises(EstimationError, match="5 rows, the problem has 900"):
        fit_super_learner(problem, learner("ridge"), [block.take(np.arange(5))])
    _, design = learn_design([], N)
    with pytest.raises(EstimationError, match="no text block is adjusted for"):
        fit_super_learner(
            replace(problem, propensity_design=design, outcome_design=design), learner("bottleneck"), [block]
        )
