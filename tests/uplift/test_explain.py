from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from small_logs import ROLES, make_world
from text_world import fit_on, make_text_world, read_text_world

import causalrec as cr
from causalrec.errors import ArgumentError, HonestyError
from causalrec.report import plot_cold_start, plot_explanation
from causalrec.uplift.cold_start import ColdStart, cold_start
from causalrec.uplift.explain import Explanation, explain
from causalrec.uplift.topics import find_text_topics

Halves = tuple[cr.Fit, cr.ImpressionLog]


@pytest.fixture(scope="module")
def texts() -> Halves:
    """The last ten titles are shown to the held-out users only."""
    log = read_text_world(make_text_world(8000))
    train, test = log.split(0.5, random_state=0)
    new = train.frame["title"].str.split().str[-1].astype(int) >= 66
    return fit_on(train.take(~new.to_numpy())), test


@pytest.fixture(scope="module")
def explained(texts: Halves) -> Explanation:
    return explain(*texts, n_topics=3, random_state=0)


@pytest.fixture(scope="module")
def cold(texts: Halves) -> ColdStart:
    return cold_start(*texts, random_state=0)


def test_topics_are_found_named_and_measured(texts: Halves, explained: Explanation) -> None:
    frame, topics = texts[1].frame, explained.topics
    assert len(topics) == 3
    assert topics["effect"].is_monotonic_decreasing
    for subject, (_, r) in zip(("opera", "engine", "garden"), topics.iterrows(), strict=True):
        assert subject in r["topic"]
        assert r["n"] == (frame["subject"] == subject).sum()
        assert r["ci_lower"] < frame.loc[frame["subject"] == subject, "tau"].mean() < r["ci_upper"]
        assert r["shrunken_upper"] - r["shrunken_lower"] < r["ci_upper"] - r["ci_lower"]
    assert explained.topics_p_value < 1e-6
    assert "Effects of the topics differ" in explained.summary()
    assert "Topics and words go with effects" in explained.summary()


def test_example_items_are_of_the_subjects_that_gain_most_and_least(
    texts: Halves, explained: Explanation
) -> None:
    examples = explained.examples
    assert examples["side"].tolist() == ["high"] * 5 + ["low"] * 5
    assert examples["text"].str.startswith("opera").tolist() == [True] * 5 + [False] * 5
    assert examples["text"].str.startswith("garden").tolist()[5:] == [True] * 5
    counts = texts[1].frame["title"].value_counts()
    assert examples["n"].tolist() == counts[examples["text"]].tolist()
    assert (examples["ci_lower"] < examples["effect"]).all()
    assert (examples["observed_lower"] < examples["observed"]).all()


def test_a_modifier_without_a_say_is_not_said_to_matter(explained: Explanation) -> None:
    age = explained.modifiers.set_index("modifier").loc["age"]
    assert age["p_value"] > 0.01
    assert explained.tree_p_value > 0.01


def test_modifiers_with_a_say_lead_and_the_tree_is_honest() -> None:
    world = make_world(4000, 800, seed=4, heterogeneity=1.5)
    roles = {**ROLES, "modifiers": ["age", "device"], "confounders": ["rate"]}
    train, test = cr.read_log(world.frame.assign(tau=world.tau), **roles).split(0.5, random_state=0)
    fit = cr.estimate(train, cr.identify(train), folds=cr.Folds(3), random_state=0)
    found = explain(fit, test, random_state=0)
    table = found.modifiers
    assert table["modifier"].tolist() == ["age", "device"]
    assert table["loss_lower"].iloc[0] > 0
    assert table["p_value"].iloc[0] < 1e-4
    assert table["shap"].iloc[0] > 3 * table["shap"].iloc[1]
    assert found.tree["n"].sum() == len(test)
    assert found.tree["who"].str.contains("age").all()
    assert found.tree_p_value < 1e-6
    assert any("no text block" in s for s in found.skipped)
    assert found.topics.empty
    assert found.examples.empty
    ax = plot_explanation(found, "tree")
    assert len(ax.get_yticklabels()) == len(found.tree)
    with pytest.raises(ArgumentError, match=r"the table 'topics' is empty.*no text block"):
        plot_explanation(found)
    with pytest.raises(ArgumentError, match=r"table is 'topic', must be one of.*Did you mean 'topics'"):
        plot_explanation(found, "topic")


def test_what_is_skipped_is_said(texts: Halves) -> None:
    log = read_text_world(make_text_world(1500, n_items=12), modifiers=())
    train, test = log.split(0.5, random_state=0)
    found = explain(fit_on(train), test, random_state=0)
    said = " ".join(found.skipped)
    assert "Modifiers: the log declares none" in said
    assert "Tree of effects: no declared modifier varies" in said
    assert "12 distinct texts are too few" in said
    assert "must have >= 30" in said
    assert found.modifiers.empty
    with pytest.raises(ArgumentError, match=r"n_topics is 1, must be >= 2"):
        explain(*texts, n_topics=1)
    with pytest.raises(HonestyError, match="were in the fit"):
        explain(texts[0], texts[0].log)


def test_topics_do_not_depend_on_how_often_a_text_was_shown() -> None:
    rng = np.random.default_rng(0)
    z = np.vstack([rng.normal(m, 0.1, (40, 3)) for m in ([1, 0, 0], [0, 1, 0])])
    texts = [f"red wine {k}" for k in range(40)] + [f"blue cheese {k}" for k in range(40)]
    found = find_text_topics(z, texts)
    assert found is not None
    assert {frozenset(n.split(", ")) for n in found.names} == {
        frozenset({"red", "wine"}),
        frozenset({"blue", "cheese"}),
    }
    assert found.sizes.tolist() == [40, 40]
    assert len(set(found.of(z[:40]))) == 1
    assert find_text_topics(z[:20], texts[:20]) is None
    wordless = find_text_topics(z, ["1"] * 80)
    assert wordless is not None
    assert wordless.names == ("topic 1", "topic 2")


def test_unseen_items_are_predicted_from_their_words(texts: Halves, cold: ColdStart) -> None:
    assert cold.explains
    assert cold.check.share_lower > 0
    assert cold.check.coverage_upper > 0.95
    truth = texts[1].frame.groupby("title")["tau"].mean()
    new = cold.items[~cold.items["seen_in_training"]]
    assert len(new) == 24
    true = truth[new["text"]].to_numpy()
    assert np.corrcoef(new["effect"], true)[0, 1] > 0.9
    assert ((new["ci_lower"] <= true) & (true <= new["ci_upper"])).mean() > 0.8
    assert new["distance"].min() > 0
    assert cold.items.loc[cold.items["seen_in_training"], "distance"].max() < 1e-3
    assert cold.new_items_covered is not None
    share, lower, upper, n = cold.new_items_covered
    assert n == 24
    assert lower <= share <= upper
    assert upper > 0.95


def test_the_interval_of_a_strange_text_is_wider(cold: ColdStart, texts: Halves) -> None:
    block = texts[0].log.blocks["text:title"]
    known, strange = block.values[block.codes[:1]], -block.values[block.codes[:1]]
    found = cold.for_texts(np.vstack([known, strange]))
    width = (found["ci_upper"] - found["ci_lower"]).to_numpy()
    assert found["distance"].is_monotonic_increasing
    assert width[1] > width[0]


def test_new_users_are_predicted_from_their_modifiers(cold: ColdStart, texts: Halves) -> None:
    test = texts[1]
    assert cold.users["n"].sum() == len(test)
    assert (cold.users["predicted_lower"] < cold.users["predicted"]).all()
    found = cold.for_users(test)
    assert (found["ci_lower"] < found["effect"]).all()
    np.testing.assert_allclose(found["effect"], texts[0].cate(test))
    ax = plot_cold_start(cold)
    assert "distance" in ax.get_xlabel()
    assert len(ax.lines) >= 3


def test_words_that_tell_nothing_fall_back_to_the_average() -> None:
    frame = make_text_world(3000, seed=1, gain=0.0)
    train, test = read_text_world(frame).split(0.5, random_state=0)
    found = cold_start(fit_on(train), test, random_state=0)
    assert not found.explains
    assert found.items["effect"].nunique() == 1
    assert "given the average effect over items" in found.summary()
    first = found.to_frame().iloc[0]
    assert first["ci_lower"] < 0 < first["ci_upper"]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda f, t, c: cold_start(f, t, alpha=1.0), r"alpha is 1\.0, must be < 1"),
        (lambda f, t, c: c.for_texts([["a"]]), r"vectors holds values that are no numbers"),
        (
            lambda f, t, c: c.for_texts(np.ones((2, 3))),
            r"vectors has shape \(2, 3\); must be finite and \(k, 8\)",
        ),
        (lambda f, t, c: c.for_texts(np.full((2, 8), np.nan)), r"must be finite"),
        (lambda f, t, c: cold_start(f, t.frame), r"cold_start takes \(fit, test\)"),
        (lambda f, t, c: cold_start(f, t.with_blocks([])), r"text:title"),
        (lambda f, t, c: cold_start(f, f.log), r"were in the fit"),
    ],
)
def test_what_cold_start_refuses(
    texts: Halves, cold: ColdStart, call: Callable[[cr.Fit, cr.ImpressionLog, ColdStart], object], says: str
) -> None:
    with pytest.raises(cr.errors.CausalRecError, match=says):
        call(*texts, cold)


def test_a_log_without_text_is_refused() -> None:
    train, test = read_text_world(make_text_world(1000), text=False).split(0.5, random_state=0)
    with pytest.raises(
        cr.errors.EstimationError,
        match=r"the fit.s log has no text block, so that unseen items cannot be told apart: declare text=",
    ):
        cold_start(fit_on(train), test)
