"""The simulator's truth is true, its knobs do what they say, and the seed decides everything."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict

from causalrec.datasets import simulate
from causalrec.datasets.law import CONTROL_SLOTS, TREATED_SLOTS
from causalrec.datasets.simulate import COLUMNS
from causalrec.datasets.titles import write_titles
from causalrec.datasets.vocabulary import QUALITY, SENTIMENT, TOPICS
from causalrec.errors import ArgumentError, OutputError
from causalrec.log import ImpressionLog

N = 6_000


@pytest.fixture(scope="module")
def default():
    return simulate(N, n_users=600, n_items=200, random_state=1)


@pytest.fixture(scope="module")
def large():
    return simulate(200_000, n_users=20_000, random_state=2)


def rates(simulation):
    frame = simulation.frame
    treated = frame["recommended"].to_numpy() == 1
    return treated, frame["clicked"].to_numpy(float)


# what an analyst gets


def test_frame_is_an_analysts_frame(default):
    frame = default.frame
    assert tuple(frame.columns) == COLUMNS
    assert len(frame) == N
    assert not frame.isna().any().any()
    assert frame["shown_at"].is_monotonic_increasing
    assert (frame["written_at"] < frame["shown_at"]).all()
    assert (frame["shown_at"].dt.hour == frame["hour"]).all()
    assert set(frame["device"].cat.categories) == {"phone", "desktop", "tablet"}
    assert frame["history"].map(len).between(6, 10).all()
    assert not any(c.startswith("true_") for c in frame.columns)


def test_what_belongs_to_a_user_or_item_is_constant_within(default):
    by_user = default.frame.assign(history=default.frame["history"].map(tuple)).groupby("user_id")
    assert (by_user[["tenure", "device", "past_ctr", "history"]].nunique() == 1).all().all()
    assert (default.frame.groupby("item_id")[["title", "written_at"]].nunique() == 1).all().all()


def test_log_declares_the_roles(default):
    log = default.log()
    assert isinstance(log, ImpressionLog)
    assert log.roles.as_dict() == {
        "treatment": ("recommended",), "outcome": ("clicked",), "text": ("title",), "history": ("history",),
        "unit": ("user_id",), "item": ("item_id",), "modifiers": ("tenure", "device"),
        "confounders": ("past_ctr", "hour"), "position": ("position",), "time": ("written_at", "shown_at"),
    }  # fmt: skip


def test_log_leaves_out_and_adds_what_is_asked_for(default):
    log = default.log(text=False, history=False, score=True, propensity=True)
    assert not log.roles.text
    assert not log.roles.history
    assert log.roles.score == ("score",)
    np.testing.assert_array_equal(log.logged_propensity, default.propensity)
    assert "logged_propensity" not in default.frame.columns


def test_parquet_round_trip_has_the_truth(default, tmp_path):
    default.to_parquet(tmp_path / "log.parquet")
    back = pd.read_parquet(tmp_path / "log.parquet")
    assert list(back.columns) == [*COLUMNS, "true_propensity", "true_p0", "true_p1", "true_tau"]
    np.testing.assert_array_equal(back["true_tau"], default.tau)
    assert [list(h) for h in back["history"]] == default.frame["history"].tolist()


def test_parquet_to_a_folder_that_is_not_there(default, tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        default.to_parquet(tmp_path / "nowhere" / "log.parquet")


def test_it_shows_itself(default):
    assert "6,000 impressions" in default.summary()
    assert default.to_frame().set_index("quantity").loc["ate", "value"] == default.ate
    assert "<table>" in default._repr_html_()


# the truth is true


def test_averages_are_means_of_tau(default):
    treated, _ = rates(default)
    e, tau = default.propensity, default.p1 - default.p0
    assert default.ate == pytest.approx(tau.mean(), abs=1e-15)
    assert default.att == pytest.approx(tau[treated].mean(), abs=1e-15)
    assert default.ato == pytest.approx((e * (1 - e) * tau).sum() / (e * (1 - e)).sum(), abs=1e-15)


def test_exposure_follows_the_propensity(large):
    treated, _ = rates(large)
    e = large.propensity
    assert e.min() >= 0.03
    assert e.max() <= 0.97
    assert e.mean() == pytest.approx(0.4, abs=0.002)
    assert abs((treated - e).sum() / np.sqrt((e * (1 - e)).sum())) < 4
    for part in np.array_split(np.argsort(e), 10):
        z = (treated[part] - e[part]).sum() / np.sqrt((e * (1 - e))[part].sum())
        assert abs(z) < 4


def test_clicks_follow_p0_and_p1(large):
    treated, clicked = rates(large)
    p = np.where(treated, large.p1, large.p0)
    assert large.p0.mean() == pytest.approx(0.08, abs=0.001)
    for part in np.array_split(np.argsort(p), 10):
        z = (clicked[part] - p[part]).sum() / np.sqrt((p * (1 - p))[part].sum())
        assert abs(z) < 4


def test_weighting_by_the_true_propensity_finds_the_truth_and_naive_does_not(large):
    treated, clicked = rates(large)
    e = large.propensity
    psi = treated * (clicked - large.p1) / e - ~treated * (clicked - large.p0) / (1 - e)
    assert abs(psi.mean() / (psi.std() / np.sqrt(len(psi)))) < 4
    naive_se = np.sqrt(clicked[treated].var() / treated.sum() + clicked[~treated].var() / (~treated).sum())
    assert (large.naive - large.ate) / naive_se > 5


def test_slot_is_set_after_the_decision_and_carries_effect(large):
    treated, clicked = rates(large)
    slot = large.frame["position"].to_numpy()
    assert np.isin(slot[treated], TREATED_SLOTS).all()
    assert np.isin(slot[~treated], CONTROL_SLOTS).all()
    first, last = (treated & (slot == s) for s in (TREATED_SLOTS[0], TREATED_SLOTS[-1]))
    se = np.sqrt(clicked[first].var() / first.sum() + clicked[last].var() / last.sum())
    assert clicked[first].mean() - clicked[last].mean() > 3 * se


def test_score_is_a_balancing_score(default):
    order = np.argsort(default.frame["score"].to_numpy())
    assert (np.diff(default.propensity[order]) >= -1e-12).all()


# the knobs


def test_no_effect_is_no_effect():
    null = simulate(2_000, n_users=200, n_items=80, effect=0, heterogeneity=0, random_state=0)
    np.testing.assert_allclose(null.tau, 0, atol=1e-15)
    assert null.naive > 0.01


def test_randomised_is_a_coin():
    coin = simulate(20_000, randomised=True, random_state=0)
    assert (coin.propensity == 0.4).all()
    assert (coin.items["exposure_index"] == 0).all()
    assert coin.ato == pytest.approx(coin.ate, abs=1e-12)
    assert abs(coin.naive - coin.ate) < 0.02


def test_without_confounding_words_act_on_clicks_only():
    off = simulate(50_000, confounding=0, random_state=0)
    on = simulate(50_000, random_state=0)
    item = off.items.set_index("item_id").loc[off.frame["item_id"], "click_index"].to_numpy()
    assert abs(np.corrcoef(item, off.propensity)[0, 1]) < 0.02
    assert np.corrcoef(item, on.propensity)[0, 1] > 0.3
    assert (off.items["exposure_index"] == 0).all()
    assert np.corrcoef(item, off.p0)[0, 1] > 0.3


def test_without_match_the_history_says_nothing():
    off = simulate(20_000, match=0, random_state=0)
    on = simulate(20_000, random_state=0)
    assert abs(np.corrcoef(off.match, off.propensity)[0, 1]) < 0.05
    assert np.corrcoef(on.match, on.propensity)[0, 1] > 0.2


def test_hidden_inclination_moves_exposure_beyond_the_score():
    hidden = simulate(20_000, hidden=1.0, random_state=0)
    order = np.argsort(hidden.frame["score"].to_numpy())
    assert (np.diff(hidden.propensity[order]) < 0).mean() > 0.2
    assert hidden.naive - hidden.ate > simulate(20_000, random_state=0).naive - hidden.ate


@pytest.mark.parametrize(("knob", "small", "big", "of"), [
    ("overlap_scale", 0.5, 2.0, lambda s: s.propensity.std()),
    ("heterogeneity", 0.0, 0.6, lambda s: np.std(np.log(s.p1 / (1 - s.p1)) - np.log(s.p0 / (1 - s.p0)))),
    ("effect", 0.0, 1.0, lambda s: s.ate),
    ("click_rate", 0.05, 0.3, lambda s: s.p0.mean()),
    ("user_sd", 0.0, 1.5, lambda s: s.p0.std()),
    ("popularity", 0.0, 2.0, lambda s: s.items["exposure_index"].std()),
    ("overlap_eps", 0.01, 0.2, lambda s: s.propensity.min()),
    ("confounding", 0.0, 2.0, lambda s: s.naive - s.ate),
])  # fmt: skip
def test_more_of_a_knob_is_more_of_what_it_names(knob, small, big, of):
    low, high = (
        of(simulate(5_000, n_users=500, n_items=160, random_state=3, **{knob: v})) for v in (small, big)
    )
    assert high > low + 0.01


def test_score_noise_blurs_the_score_only():
    clear, blurred = (simulate(3_000, score_noise=v, random_state=5) for v in (0.0, 1.0))
    assert np.std(blurred.frame["score"] - clear.frame["score"]) == pytest.approx(1.0, abs=0.05)
    pd.testing.assert_frame_equal(clear.frame.drop(columns="score"), blurred.frame.drop(columns="score"))


# titles


def test_titles_are_distinct_and_say_their_latents(default):
    items = default.items
    assert items["title"].is_unique
    words = {t.name: t.nouns for t in TOPICS}
    for _, item in items.iterrows():
        assert any(noun in item["title"] for noun in words[item["topic"]])
        level_s, level_q = (round(item[c] * np.sqrt(2)) + 2 for c in ("sentiment", "quality"))
        assert any(adjective in item["title"] for adjective in SENTIMENT[level_s][0])
        assert any(source in item["title"].lower() for source in QUALITY[level_q])


@pytest.mark.parametrize("index", ["exposure_index", "click_index"])
def test_what_the_words_do_is_linear_in_words(index):
    items = simulate(100, random_state=0).items
    words = CountVectorizer(binary=True).fit_transform(items["title"]).toarray()
    target = items[index].to_numpy()
    guess = cross_val_predict(RidgeCV(np.logspace(-2, 3, 11)), words, target, cv=KFold(5))
    assert 1 - ((target - guess) ** 2).mean() / target.var() > 0.95


def test_vocabulary_is_rich_and_topics_share_no_noun():
    nouns = [noun for topic in TOPICS for noun in topic.nouns]
    assert len(TOPICS) == 8
    assert min(len(topic.nouns) for topic in TOPICS) >= 25
    assert len(set(nouns)) == len(nouns)


def test_thousands_of_titles():
    rng = np.random.default_rng(0)
    m = 5_000
    titles = write_titles(np.arange(m) % 8, rng.integers(-2, 3, m), rng.integers(-2, 3, m), rng)
    assert len(set(titles)) == m
    assert not any("  " in t or "{" in t for t in titles)


def test_the_grammar_says_when_it_runs_dry(monkeypatch):
    rng = np.random.default_rng(0)
    monkeypatch.setattr("causalrec.datasets.titles.TEMPLATE", "{noun}")
    with pytest.raises(ArgumentError, match="more distinct titles than the grammar writes"):
        write_titles(np.zeros(40, int), np.zeros(40, int), np.zeros(40, int), rng)


# the seed, and bad input


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(50, 300), st.integers(8, 60))
def test_the_seed_decides_everything(seed, n, n_items):
    one, two = (simulate(n, n_users=20, n_items=n_items, random_state=seed) for _ in range(2))
    pd.testing.assert_frame_equal(one.truth_frame(), two.truth_frame())
    pd.testing.assert_frame_equal(one.items, two.items)
    assert ((one.p0 > 0) & (one.p0 < 1) & (one.p1 > 0) & (one.p1 < 1)).all()


def test_other_seeds_are_other_logs():
    one, two = (simulate(200, n_users=20, n_items=20, random_state=s) for s in (0, 1))
    assert not one.frame["title"].equals(two.frame["title"])


def test_a_generator_is_used_as_it_is():
    a, b = (simulate(200, n_users=20, n_items=20, random_state=r) for r in (7, np.random.default_rng(7)))
    pd.testing.assert_frame_equal(a.frame, b.frame)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"n": 0}, "n is 0, must be >= 1"),
    ({"n": 2.5}, "n is 2.5, must be a whole number"),
    ({"n_items": 7}, "n_items is 7, must be >= 8"),
    ({"n_users": 0}, "n_users is 0, must be >= 1"),
    ({"click_rate": 1.0}, "click_rate is 1.0, must be < 1"),
    ({"overlap_eps": 0.5}, "overlap_eps is 0.5, must be < 0.5"),
    ({"overlap_eps": 0.0}, "overlap_eps is 0.0, must be > 0"),
    ({"confounding": -1}, "confounding is -1, must be >= 0"),
    ({"user_sd": float("nan")}, "user_sd is nan, must be a finite number"),
    ({"score_noise": -0.1}, "score_noise is -0.1, must be >= 0"),
    ({"effect": "big"}, "effect is 'big', must be a finite number"),
    ({"randomised": "yes"}, "randomised is 'yes', must be True or False"),
    ({"random_state": -1}, "random_state is -1, must be a whole number >= 0"),
])  # fmt: skip
def test_bad_knobs(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        simulate(**{"n": 100, **arguments})
