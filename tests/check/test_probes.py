"""Probes of what the fit leaves in the words: statistics against their definitions, power and size on small logs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.feature_extraction.text import CountVectorizer

import causalrec as cr
from causalrec.check import pairs
from causalrec.check.pairs import Kernel, Residuals
from causalrec.check.probes import _whitened, further_representations, probe, words_left
from causalrec.estimate.correction import Correction

F64 = np.ndarray[Any, np.dtype[np.float64]]
SUBJECTS = ("harbour", "kitchen", "garden", "theatre", "stadium")
TONES = ("cheerful", "gloomy")
EXTRAS = ("morning", "evening", "visit", "story", "report", "guide", "letter", "portrait")

TONE_ROLES: dict[str, Any] = dict(
    treatment="shown", outcome="clicked", unit="user", item="item", text="title", confounders="tenure"
)


def made_residuals(n: int = 60, seed: int = 0) -> tuple[Residuals, Kernel, Kernel]:
    rng = np.random.default_rng(seed)
    units = rng.integers(0, 25, n)
    fold = (np.arange(25) % 2)[units]
    weights = rng.uniform(0.5, 2, n)
    made = Residuals(*rng.standard_normal((3, n)), weights, fold, units)
    words = Kernel("words", rng.integers(0, 12, n), rng.standard_normal((12, 4)))
    return made, words, Kernel("item", rng.integers(0, 9, n))


def by_hand(kernel: Kernel, r: Residuals, a: F64, b: F64, scaled: bool = False) -> float:
    """Σ over pairs of different users in one fold, written as it is defined."""
    total = 0.0
    for k in range(int(r.fold.max()) + 1):
        rows = np.flatnonzero(r.fold == k)
        size = np.bincount(kernel.codes[rows], minlength=50)
        for i in rows:
            for j in rows:
                if r.units[i] == r.units[j]:
                    continue
                ci, cj = kernel.codes[i], kernel.codes[j]
                if kernel.values is None:
                    like = float(ci == cj) / (size[ci] - 1 if scaled and ci == cj else 1)
                else:
                    like = float(kernel.values[ci] @ kernel.values[cj])
                total += like * a[i] * b[j]
    return total


def sd_by_hand(kernel: Kernel, r: Residuals, a: F64) -> float:
    """√(2 Σ_{u≠v} k_uv²), the standard deviation over random signs by user."""
    variance = 0.0
    for u in np.unique(r.units):
        for v in np.unique(r.units):
            if u != v:
                pair = np.isin(r.units, (u, v))
                one = Residuals(*(x[pair] for x in (a, a, a, a)), r.fold[pair], r.units[pair])
                part = Kernel(kernel.name, kernel.codes[pair], kernel.values)
                variance += 2 * (by_hand(part, one, a[pair], a[pair]) / 2) ** 2
    return float(np.sqrt(variance))


def test_statistics_are_the_sums_over_pairs_that_define_them() -> None:
    r, words, item = made_residuals()
    z, p = pairs.score_test(r.exposure, (words, item), r, np.random.default_rng(0), draws=4000)
    for found, kernel in zip(z, (words, item), strict=True):
        expected = by_hand(kernel, r, r.exposure, r.exposure) / sd_by_hand(kernel, r, r.exposure)
        assert found == pytest.approx(expected, rel=0.05, abs=0.02)
    assert 0 < p <= 1
    ones = np.ones_like(r.weights)
    assert pairs.count_pairs(item, r) == pytest.approx(by_hand(item, r, ones, ones) / 2)
    bias, se = pairs.product(item, r, np.random.default_rng(0))
    weight = by_hand(item, r, r.weights, r.weights, scaled=True)
    assert bias == pytest.approx(by_hand(item, r, r.exposure, r.influence, scaled=True) / weight)
    assert se > 0


def test_whitened_vectors_are_uncorrelated_over_the_rows() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((20, 6))
    values[:, 5] = values[:, 0] - values[:, 1]
    codes = rng.integers(0, 20, 500)
    z = _whitened("x", values, codes)
    assert z.values is not None
    assert z.values.shape == (20, 5)
    assert np.cov(z.values[codes].T, bias=True) == pytest.approx(np.eye(5), abs=1e-8)


@pytest.mark.parametrize("user_sd", [0.0, 1.0])
def test_the_score_test_keeps_its_level(user_sd: float) -> None:
    """Noise, with and without something that a user's rows share: 5 % of 200."""
    hits = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        units = rng.integers(0, 150, 400)
        noise = user_sd * rng.standard_normal(150)[units] + rng.standard_normal(400)
        r = Residuals(noise, noise, noise, np.ones(400), (np.arange(150) % 5)[units], units)
        words = _whitened("words", rng.standard_normal((60, 10)), rng.integers(0, 60, 400))
        kernels = (words, Kernel("item", rng.integers(0, 60, 400)))
        hits += pairs.score_test(noise, kernels, r, rng, draws=99)[1] <= 0.05
    assert 2 <= hits <= 19


def test_the_product_finds_the_bias_and_how_sure_it_is() -> None:
    """Exposure error .3 g and influence g of the item's trait g: E = .3; and 95 % of its intervals hold it."""
    inside, found = 0, []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        item, units = rng.integers(0, 200, 2000), np.arange(2000)
        g = rng.choice([-1.0, 1.0], 200)[item]
        r = Residuals(
            0.3 * g + rng.standard_normal(2000), g, g + rng.standard_normal(2000),
            np.ones(2000), units % 5, units,
        )  # fmt: skip
        bias, se = pairs.product(Kernel("item", item), r, rng)
        inside += abs(bias - 0.3) < 1.96 * se
        found.append(bias)
    assert np.mean(found) == pytest.approx(0.3, abs=0.02)
    assert inside >= 88


def tone_log(seed: int, *, on_exposure: float, on_click: float, n: int = 4000) -> cr.ImpressionLog:
    """Titles whose tone and subject act on exposure and clicks, 120 items, two impressions a user."""
    rng = np.random.default_rng(seed)
    titles = [
        f"a {tone} {subject} {extra} {other}"
        for tone in TONES for subject in SUBJECTS for extra in EXTRAS[:4] for other in EXTRAS[4:7]
    ]  # fmt: skip
    item = rng.integers(0, len(titles), n)
    tone = np.array([1.0 if "cheerful" in t else -1.0 for t in titles])[item]
    subject = np.array([SUBJECTS.index(t.split()[2]) for t in titles])[item] - 2.0
    shown = rng.random(n) < expit(on_exposure * tone + 0.3 * subject)
    clicked = rng.random(n) < expit(on_click * tone + 0.2 * subject + 0.5 * shown - 0.5)
    frame = pd.DataFrame(
        {
            "user": np.arange(n) // 2,
            "item": item,
            "title": np.array(titles)[item],
            "shown": shown.astype(int),
            "clicked": clicked.astype(int),
            "tenure": rng.standard_normal(n),
        }
    )
    return cr.read_log(frame, **TONE_ROLES)


def fitted(log: cr.ImpressionLog, words: tuple[str, ...], *, ngrams: bool = False, order: Any = 1) -> cr.Fit:
    """Adjusted for these words only; of first order, which takes nothing out by pairs of rows."""
    log = cr.embed(log, CountVectorizer(vocabulary=words), lexical=False, ngrams=ngrams)
    correction = Correction(order=order)
    return cr.estimate(log, cr.identify(log), folds=cr.Folds(4), correction=correction, random_state=0)


def test_words_that_were_left_out_of_both_are_found_with_their_bias() -> None:
    fit = fitted(tone_log(0, on_exposure=0.7, on_click=0.7), SUBJECTS)
    right = fitted(tone_log(0, on_exposure=0.7, on_click=0.7), (*SUBJECTS, *TONES))
    (record,) = words_left(fit, np.random.default_rng(0))
    assert record.name == "words_left"
    assert record.passed is False
    assert record.p_value is not None
    assert record.p_value < 0.01
    assert record.statistic == pytest.approx(fit.effect - right.effect, abs=0.04)
    assert "moves exposure (p = 0.00" in record.message
    assert "moves clicks (p = 0.00" in record.message
    assert "clicks per impression" in record.message
    assert "ngrams=True" in record.message


def test_what_pairs_of_rows_have_taken_out_is_no_failure() -> None:
    fit = fitted(tone_log(0, on_exposure=0.7, on_click=0.7), SUBJECTS, order=2)
    (record,) = words_left(fit, np.random.default_rng(0))
    assert fit.analysis.correction.order == 2
    assert record.passed is None
    assert "pairs of rows have taken that out" in record.message


@pytest.mark.parametrize(("exposure", "click"), [(0.7, 0.0), (0.0, 0.7)])
def test_words_that_were_left_out_of_one_are_no_failure(exposure: float, click: float) -> None:
    quiet = 0
    for seed in range(4):
        log = tone_log(seed, on_exposure=exposure, on_click=click)
        (record,) = words_left(fitted(log, SUBJECTS), np.random.default_rng(0))
        quiet += record.passed is True
        assert record.passed is not False
        moved = "exposure" if exposure else "clicks"
        assert f"moves {moved} (p = 0.0" in record.message
    assert quiet >= 3


def test_a_fit_that_took_all_is_left_alone() -> None:
    failed = 0
    for seed in range(6):
        fit = fitted(tone_log(seed, on_exposure=0.7, on_click=0.7), (*SUBJECTS, *TONES))
        (record,) = words_left(fit, np.random.default_rng(seed))
        failed += record.passed is False
    assert failed == 0


def test_what_the_probes_look_at() -> None:
    log = tone_log(0, on_exposure=0.5, on_click=0.5)
    plain = fitted(log, SUBJECTS)
    assert [k.name for k in further_representations(plain)] == ["the words of title", "the item"]
    ngrams = fitted(log, SUBJECTS, ngrams=True)
    assert [k.name for k in further_representations(ngrams)] == ["the topics of title", "the item"]
    found = probe(plain, further_representations(plain), np.random.default_rng(0))
    assert [row["name"] for row in found.to_frame().to_dict("records")] == ["the words of title", "the item"]


def test_a_log_without_words_or_items_is_not_probed(fit: cr.Fit) -> None:
    assert words_left(fit, np.random.default_rng(0)) == ()


def test_the_verdict_depends_on_neither_order_nor_names() -> None:
    log = tone_log(3, on_exposure=0.7, on_click=0.7)
    order = np.random.default_rng(1).permutation(len(log))
    frame = log.frame.iloc[order].assign(user=lambda f: "u" + (9999 - f["user"]).astype(str))
    other = cr.read_log(frame, **TONE_ROLES)
    records = [words_left(fitted(x, SUBJECTS), np.random.default_rng(0))[0] for x in (log, other)]
    assert records[0].statistic == pytest.approx(records[1].statistic, rel=1e-3)
