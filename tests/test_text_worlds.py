"""The benchmark's worlds: their truth is true, their texts say what they should, a draw is cheap and repeatable."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import natural_text as nt
import text_worlds as tw
import vocab_text as vt

from causalrec import errors, scores


@pytest.fixture(scope="module")
def worlds() -> dict[str, tw.World]:
    return tw.worlds()


@pytest.fixture(autouse=True, scope="module")
def no_encoder() -> object:
    """Vectors of any text without a model: what is tested here does not depend on them."""

    def encoded(texts: list[str], z: np.ndarray, names: tuple[str, ...]) -> vt.Pool:
        vectors = np.random.default_rng(0).standard_normal((len(texts), 8)).astype(np.float32)
        return vt.Pool(tuple(texts), vectors, z, names, "noise")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vt, "encoded", encoded)
        patch.setattr(nt, "encoded", encoded)
        yield
    for pool in (vt.written_pool, vt.marked_pool, nt.headline_pool, nt.book_pool, nt.some, tw.worlds):
        pool.cache_clear()


def oracle_errors(world: tw.World, draws: int, estimand: str = "ate") -> np.ndarray:
    """Error of the estimate with true nuisances, one a draw."""
    out = []
    for seed in range(draws):
        d = world.draw(seed)
        a, b = scores.SCORES[estimand](d.log.treatment, d.log.outcome, d.e, d.m0, d.m1)
        out.append(a.sum() / b.sum() - d.truth[estimand])
    return np.array(out)


@pytest.mark.parametrize("name", ["D1-10k", "D7-10k", "D8-icc0.3", "D11-rho0.3", "D16"])
@pytest.mark.parametrize("estimand", ["ate", "att", "ato"])
def test_true_nuisances_are_unbiased(worlds: dict[str, tw.World], name: str, estimand: str) -> None:
    errors = oracle_errors(worlds[name], 30, estimand)
    assert abs(errors.mean()) < 3.5 * errors.std(ddof=1) / np.sqrt(len(errors))


def test_the_naive_answer_is_wrong(worlds: dict[str, tw.World]) -> None:
    d = worlds["D1-50k"].draw(0)
    t, y = d.log.treatment, d.log.outcome
    assert y[t == 1].mean() - y[t == 0].mean() > d.truth["ate"] + 0.05


def test_same_seed_same_log(worlds: dict[str, tw.World]) -> None:
    one, two, other = (worlds["D8-icc0.1"].draw(s).log for s in (3, 3, 4))
    assert one.fingerprint == two.fingerprint != other.fingerprint


def test_quadrature_is_the_mean_of_many_rows() -> None:
    law = vt.written_law(vt.written_pool(500), normals=(*nt.hidden_cause(0.3), vt.Normal("x", -0.4, 0.7)))
    rows = nt.draw_rows(law, 400_000, np.random.default_rng(1))
    drawn = nt.means(rows.e, rows.m1 - rows.m0)
    assert law.truth() == pytest.approx(drawn, abs=4e-4)


def test_designs_are_what_they_say(worlds: dict[str, tw.World]) -> None:
    e = worlds["D4"].draw(0).e
    assert 0.03 < (e < 0.01).mean() < 0.07
    tau = (lambda d: d.m1 - d.m0)(worlds["D7-50k"].draw(0))
    assert tau.std() == pytest.approx(0.08, abs=0.003)
    assert (tau < 0).mean() == pytest.approx(0.21, abs=0.02)
    assert 0.01 < worlds["D10"].draw(0).log.outcome.mean() < 0.03
    sizes = np.bincount(worlds["D8-icc0.1"].draw(0).extra["user"])
    assert sizes[:-1].min() >= 5
    assert sizes.max() <= 50


def test_leak_tells_the_treatment(worlds: dict[str, tw.World]) -> None:
    whole = worlds["D5-ainf"].draw(0)
    marked = np.array([any(m in t for m in vt.MARKERS) for t in whole.log.frame["title"]])
    assert (marked == (whole.log.treatment == 1)).all()
    some = worlds["D5-a1"].draw(0)
    t, e = some.log.treatment, some.extra["e_text"]
    high = e > 0.5
    assert t[high].mean() == pytest.approx(e[high].mean(), abs=0.03)


def test_earlier_clicks_know_the_hidden_cause_and_not_the_exposure(worlds: dict[str, tw.World]) -> None:
    d = worlds["D11-rho0.3"].draw(0)
    assert d.log.roles.negative_controls == nt.CONTROLS
    for name in nt.CONTROLS:
        residual = d.log.treatment - d.e
        control = d.log.frame[name].to_numpy()
        z = (residual * control).sum() / np.sqrt((residual**2 * control).sum())
        assert abs(z) < 4
        assert np.corrcoef(control, d.extra["hidden"])[0, 1] > 0.2


def test_earlier_exposures_carry_over() -> None:
    law = vt.written_law(vt.written_pool(500))
    rows = nt.draw_rows(law, 40_000, np.random.default_rng(2), (20, 20), carry=True)
    later = rows.step > 0
    before = np.roll(rows.t, 1)[later]
    assert rows.e[later][before == 1].mean() > rows.e[later][before == 0].mean() + 0.03
    assert abs(rows.t.mean() - rows.e.mean()) < 0.01


def test_item_shares() -> None:
    counts = np.bincount(nt.exactly(30, 100, np.random.default_rng(0)))
    assert set(counts) == {3, 4}
    share = nt.zipf(1_000)
    assert share.sum() == pytest.approx(1)
    assert share.max() / share.min() == pytest.approx(1_000)


def test_index_counts_weighted_words_up_to_a_cap() -> None:
    texts = ["a b", "B’s b a! c", "", "a a a a"]
    assert nt.index(texts, "a b c d").tolist() == [2.0, 2.5, 0.0, 2.5]
    assert nt.index(["d c"], "a b c d").tolist() == [2 * nt.LIGHT]


def test_written_texts_differ_and_say_their_topics() -> None:
    pool = vt.written_pool(400)
    assert len(set(pool.texts)) == 400
    first = vt.TOPICS["climbing"].split()
    said = np.array([sum(w in first for w in nt.words_of(t)) for t in pool.texts])
    assert np.corrcoef(said, pool.latent("climbing"))[0, 1] == pytest.approx(1)


def test_natural_words_are_neither_rare_nor_everywhere(worlds: dict[str, tw.World]) -> None:
    try:
        pool = nt.headline_pool()
    except errors.DataUnavailableError:
        pytest.skip("the headlines are not on this machine")
    rates = nt.hit_rates(list(pool.texts), nt.HEADLINE_WORDS)
    assert all(0.05 < rate < 0.3 for rate in rates.values())
    found = oracle_errors(worlds["natural-8"], 12)
    assert abs(found.mean()) < 3.5 * found.std(ddof=1) / np.sqrt(12)
    assert (np.bincount(worlds["natural-8-exact"].draw(0).extra["item"]) == 8).all()


def test_a_draw_is_cheap(worlds: dict[str, tw.World]) -> None:
    worlds["D1-50k"].draw(0)
    started = time.perf_counter()
    worlds["D1-50k"].draw(1)
    assert time.perf_counter() - started < 0.5
