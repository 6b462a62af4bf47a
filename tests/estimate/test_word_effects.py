"""Effects that vary with the words: features, their sums by text, what is found, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import causalrec as cr
from causalrec.errors import ArgumentError, EstimationError
from causalrec.estimate.metalearners import Stack, TLearner
from causalrec.estimate.word_effects import _Features, _Moments

ROLES: dict[str, Any] = {"treatment": "t", "outcome": "y", "unit": "user", "text": "title", "propensity": "p"}


def world(seed: int, slope: float, users: str = "u", n: int = 16_000, texts: int = 300) -> cr.ImpressionLog:
    """Randomised; the effect is .1 + slope · (product of the first two axes of a text + its third) + .02 age."""
    z = np.random.default_rng(99).standard_normal((texts, 12)) * np.r_[3.0, 2.5, 2.0, np.full(9, 1.0)]
    rng = np.random.default_rng(seed)
    item, user = rng.integers(0, texts, n), rng.integers(0, n // 4, n)
    a, age, t = z[item] / z.std(axis=0), rng.standard_normal(n), rng.integers(0, 2, n)
    tau = 0.1 + slope * (np.clip(a[:, 0] * a[:, 1], -2, 2) + np.clip(a[:, 2], -2, 2)) + 0.02 * age
    y = (rng.random(n) < np.clip(0.4 + tau * t, 0, 1)).astype(int)
    frame = pd.DataFrame({"user": user, "title": item, "age": age, "t": t, "y": y, "tau": tau, "p": 0.5})
    frame = frame.assign(user=users + frame["user"].astype(str), title="title " + frame["title"].astype(str))
    log = cr.read_log(frame, **ROLES, modifiers=["age"])
    return log.with_blocks([cr.Block("text:title", "text", z.astype(np.float32), item, ("title",), "made")])


@pytest.fixture(scope="module")
def fitted() -> tuple[cr.Fit, cr.ImpressionLog]:
    log = world(1, 0.12)
    fit = cr.estimate(log, cr.identify(log), model=cr.WordEffects(), folds=cr.Folds(4), random_state=0)
    return fit, world(2, 0.12, "v")


def test_products_of_words_are_found_and_rank_new_users(fitted: tuple[cr.Fit, cr.ImpressionLog]) -> None:
    fit, test = fitted
    tau, cate = test.frame["tau"].to_numpy(), fit.cate(test)
    assert ((cate - tau) ** 2).mean() < 0.4 * tau.var()
    assert 0.8 < np.cov(cate, tau)[0, 1] / cate.var() < 1.25
    linear = fit.with_model(TLearner())
    assert linear.modifiers.words is None
    assert ((linear.cate(test) - tau) ** 2).mean() > 0.8 * tau.var()
    assert cr.uplift(fit, test).qini_ci[0] > 0


def test_choose_model_takes_words_where_they_tell_and_one_effect_where_they_do_not() -> None:
    found = {}
    for slope in (0.12, 0.0):
        log = world(3, slope)
        fit = cr.estimate(log, cr.identify(log), folds=cr.Folds(4), random_state=0)
        found[slope] = cr.choose_model(fit, {"T": TLearner(), "words": cr.WordEffects()})
    assert found[0.12].best in ("words", "stack")
    assert found[0.12].best_fit.modifiers.words is not None
    assert {r["model"]: r for r in found[0.0].records}["words"]["joint_lower"] <= 0
    stack = Stack(
        (found[0.12].best_fit.model, found[0.0].best_fit.model), (0.5, 0.5),
        (1 + 12, 1),
    )  # fmt: skip
    x = found[0.12].best_fit.modifiers.matrix(log)
    assert x is not None
    assert len(stack.effect(x)) == len(log)


def test_sums_by_text_are_those_of_all_rows() -> None:
    rng = np.random.default_rng(0)
    words = np.round(rng.standard_normal((40, 14)), 3)[rng.integers(0, 40, 3000)]
    x, psi, p = (
        np.hstack([rng.standard_normal((3000, 2)), words]),
        rng.standard_normal(3000),
        rng.random(3000),
    )
    features = _Features.of(x, (10, 4))
    found = _Moments.of(features, x, psi, p)
    f = features.matrix(x)
    assert f.shape[1] == len(features.structure()) == sum(features.kinds())
    centre = np.average(f, axis=0, weights=p)
    np.testing.assert_allclose(found.centre, centre, atol=1e-10)
    np.testing.assert_allclose(found.gram, ((f - centre) * p[:, None]).T @ (f - centre), atol=1e-7)
    level = np.average(psi, weights=p)
    np.testing.assert_allclose(found.cross, (f - centre).T @ (p * (psi - level)), atol=1e-7)


def test_no_interval_for_a_single_text_and_the_words_shuffled(
    fitted: tuple[cr.Fit, cr.ImpressionLog],
) -> None:
    fit, test = fitted
    with pytest.raises(EstimationError, match="WordEffects was made without inference"):
        fit.cate_interval(test)
    table = cr.explain(fit, test, random_state=0).modifiers.set_index("modifier")
    assert table.loc["words of title", "loss_lower"] > 0


def test_a_fit_by_words_comes_back_from_its_folder(
    fitted: tuple[cr.Fit, cr.ImpressionLog], tmp_path: Path
) -> None:
    fit, test = fitted
    for with_log in (True, False):
        cr.save(fit, tmp_path / str(with_log), with_log=with_log)
        again = cr.load(tmp_path / str(with_log), trusted=True)
        np.testing.assert_allclose(again.cate(test), fit.cate(test), atol=1e-12)


def test_what_is_refused(fitted: tuple[cr.Fit, cr.ImpressionLog]) -> None:
    fit, test = fitted
    bare = cr.read_log(test.frame, **ROLES, modifiers=["age"])
    with pytest.raises(
        EstimationError, match=r"varies with the words of 'text:title', and it has the blocks \[\]"
    ):
        fit.cate(bare)
    log = cr.read_log(test.frame, **{k: v for k, v in ROLES.items() if k != "text"}, modifiers=["age"])
    with pytest.raises(EstimationError, match="the log has no text block of different texts"):
        cr.estimate(log, cr.identify(log), model=cr.WordEffects(), folds=cr.Folds(4), random_state=0)
    with pytest.raises(ArgumentError, match="WordEffects is fitted by estimate"):
        cr.WordEffects().fit(np.r_[0.0, 1], np.r_[0.0, 1], None, fit.nuisances, propensity=np.r_[0.5, 0.5])
