"""Which rows are partners, and that no fold is dealt so that twins part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

import causalrec as cr
from causalrec.blocks import Block
from causalrec.errors import ArgumentError, EstimationError
from causalrec.estimate.analysis import Inputs
from causalrec.estimate.caveats import ALONE
from causalrec.estimate.correction import KERNELS
from causalrec.estimate.partners import mostly_once, repeated_items, share_shown_once, shared_by_rows
from causalrec.nuisance import Problem, learn_design
from causalrec.nuisance.super_learner import _deal

WIDTH = 40


def block_of(codes: np.ndarray, seed: int = 0) -> Block:
    values = np.random.default_rng(seed).standard_normal((int(codes.max()) + 1, WIDTH)).astype(np.float32)
    return Block("text:title", "text", values, codes, ("title",), "test")


def inputs_of(codes: np.ndarray, items: np.ndarray | None = None, words: list[str] | None = None) -> Inputs:
    n = len(codes)
    texts = [] if words is None else [("title", words, codes)]
    return Inputs(np.arange(n) % 2.0, np.zeros(n), [block_of(codes)], np.arange(n), items, texts=texts)


def test_rows_of_one_text_and_one_outcome_may_share_a_hand() -> None:
    """Exposure and clicks are coins: the rates of items in one half say nothing about those in the other."""
    rng = np.random.default_rng(3)
    n, texts = 6_000, 100
    code = rng.integers(0, texts, n)
    frame = pd.DataFrame({"t": rng.integers(0, 2, n), "y": rng.integers(0, 2, n), "title": [f"title {k}" for k in code]})
    log = cr.read_log(frame, treatment="t", outcome="y", text="title")
    halves = log.split(0.5, random_state=0)
    rates = [h.frame.groupby("title")["y"].mean().reindex([f"title {k}" for k in range(texts)]) for h in halves]
    assert abs(np.corrcoef(*rates)[0, 1]) < 4 / np.sqrt(texts)
    _, design = learn_design([block_of(code)], n)
    t, y = frame["t"].to_numpy(float), frame["y"].to_numpy(float)
    hand = _deal(Problem(t, y, np.ones(n), design, design, np.zeros(n, dtype=int), True), np.arange(n), None, 2, [0, 0, 0])
    rates = [pd.Series(y[hand == h]).groupby(code[hand == h]).mean().reindex(range(texts)) for h in (0, 1)]
    assert abs(np.corrcoef(*rates)[0, 1]) < 4 / np.sqrt(texts)


def test_what_makes_rows_partners() -> None:
    text = np.repeat(np.arange(80), 10)
    found = shared_by_rows(inputs_of(text))
    assert found is not None
    assert found.what == "text"
    several = shared_by_rows(inputs_of(text, items=text // 8))  # eight headlines an article
    assert several is not None
    assert (several.what, several.varied) == ("item and text", 1.0)
    codes = repeated_items(inputs_of(text, items=text // 8))
    assert codes is not None
    assert len(np.unique(codes)) == 80
    alone = shared_by_rows(inputs_of(np.arange(800), items=text // 8))  # texts of an item that do not repeat
    assert alone is not None
    assert (alone.what, alone.varied) == ("item", 1.0)
    unique = shared_by_rows(inputs_of(text, items=np.arange(800)))  # an id of the row beside texts that repeat
    assert unique is not None
    assert unique.what == "text"


def test_a_text_without_a_word_is_nobodys_partner() -> None:
    n = 1_000
    codes = np.where(np.arange(n) < 400, 0, np.arange(n))
    codes = np.unique(codes, return_inverse=True)[1]
    words = ["", *(f"title {k}" for k in range(int(codes.max())))]
    blank = inputs_of(codes, words=words)
    assert repeated_items(blank) is None
    assert share_shown_once(blank) == 1.0
    assert mostly_once(blank, None)
    spoken = repeated_items(inputs_of(codes, words=["the one that repeats", *words[1:]]))
    assert spoken is not None
    assert (spoken >= 0).sum() == 400
    assert shared_by_rows(inputs_of(np.zeros(5, dtype=int), words=["..."])) is not None
    assert repeated_items(inputs_of(np.zeros(5, dtype=int), words=["..."])) is None


def test_a_correction_that_few_rows_make_is_not_lent_to_all() -> None:
    once = np.arange(1_000)
    a_quarter = np.r_[np.repeat(np.arange(1_000, 1_110), 3), once[330:]]
    some = inputs_of(np.unique(a_quarter, return_inverse=True)[1])
    assert mostly_once(some, repeated_items(some))


def variants(seed: int, n: int = 3_000, items: int = 40, per: int = 8) -> tuple[pd.DataFrame, np.ndarray]:
    """Headlines of articles; a trait of the headline that no column holds confounds, the effect is .08."""
    rng = np.random.default_rng(990_000 + seed)
    trait, k, x = rng.standard_normal(items * per), rng.integers(0, items * per, n), rng.standard_normal(n)
    t = (rng.random(n) < expit(trait[k] + 0.3 * x)).astype(int)
    y = (rng.random(n) < 0.1 + 0.5 * expit(trait[k] + 0.3 * x - 0.5) + 0.08 * t).astype(int)
    return pd.DataFrame({"t": t, "y": y, "title": [f"title {i}" for i in k], "article": k // per, "x": x}), k


def fitted(frame: pd.DataFrame, k: np.ndarray, **options: Any) -> Any:
    log = cr.read_log(frame, treatment="t", outcome="y", text="title", item="article", confounders=["x"])
    log = log.with_blocks([block_of(np.unique(k, return_inverse=True)[1])])
    return cr.estimate(log, cr.identify(log), random_state=0, **options)


def test_what_a_headline_of_an_article_confounds_goes_out() -> None:
    z = []
    for seed in range(4):
        fit = fitted(*variants(seed))
        assert "pairs of rows of the same item and text" in fit.summary()
        assert fit.first_order.ci_lower > 0.08
        z.append((fit.effect - 0.08) / fit.std_error)
    assert abs(np.mean(z)) < 1.5


def test_where_texts_of_an_item_do_not_repeat_a_caveat_says_what_pairs_do_not_know() -> None:
    frame, _ = variants(0)
    rng = np.random.default_rng(0)
    own = rng.permutation(len(frame))
    fit = fitted(frame.assign(title=[f"title {i}" for i in own]), own, correction=cr.Correction(kernels=("same_item",)))
    assert "shown with several texts" in fit.summary()


def test_every_kernel_has_a_word_for_rows_without_partners() -> None:
    assert set(ALONE) == set(KERNELS) - {"similar"}


def test_kernels_that_nobody_can_use_are_refused_by_name() -> None:
    frame, k = variants(1, n=1_200)
    with pytest.raises(EstimationError, match="kernels names 'same_user'"):
        fitted(frame, k, correction=cr.Correction(kernels=("same_user", "same_item")))
    with pytest.raises(ArgumentError, match="a first-order effect uses no pairs"):
        cr.Correction(order=1, kernels=("same_item",))
