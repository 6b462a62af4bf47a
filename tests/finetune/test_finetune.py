"""The verb: trains, judges, remembers, refuses."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import causalrec as cr
from causalrec.errors import (
    ArgumentError,
    CausalRecWarning,
    EstimationError,
    HonestyError,
    LogError,
    MissingExtraError,
    OverlapError,
    TrainingError,
)
from causalrec.finetune import preparation
from causalrec.finetune.choice import choose
from causalrec.finetune.feed import feed_of_log, labels_by_words, numbered
from causalrec.finetune.labelling import _check_certain, labels_of
from causalrec.finetune.risk import held_out_loss
from causalrec.scores import Estimate

ALL = [cr.Naive(), cr.IPS(), cr.DR(), cr.DRJL(), cr.MRDR(), cr.POEM(), cr.BanditNet(), cr.UpliftWeighted()]


def test_a_ranker_scores_ranks_and_shows_itself(ranker: cr.Ranker, small_log: cr.ImpressionLog) -> None:
    titles = list(small_log.frame["title"].unique()[:5])
    users = list(small_log.frame["user_id"].unique()[:3])
    f = ranker.score(users, titles)
    assert f.shape == (3, 5)
    again = ranker.score([ranker.histories[str(u)] for u in users], titles)
    np.testing.assert_allclose(f, again, atol=1e-5)
    table = ranker.rank(users[0], titles, k=2)
    assert list(table["item"]) == [titles[i] for i in np.argsort(-f[0])[:2]]
    for text in (ranker.summary(), ranker.evaluation.summary(), ranker.guard_rails.summary()):
        assert "nan" not in text
    assert len(ranker.to_frame()) == len(ranker.history) == 2


def test_held_out_users_are_not_trained_on(ranker: cr.Ranker) -> None:
    assert ranker.train is not None
    assert ranker.held_out is not None
    assert ranker.train.shared_units(ranker.held_out) == 0
    assert not ranker.held_out.rows_of(ranker.seen_units).any()
    assert ranker.train.rows_of(ranker.seen_units).all()


def test_the_evaluation_has_all_four_estimators(ranker: cr.Ranker) -> None:
    assert set(ranker.evaluation.risks) == {"naive", "IPS", "SNIPS", "DR"}
    for e in ranker.evaluation.risks.values():
        assert e.ci_lower < e.value < e.ci_upper


@pytest.mark.parametrize("objective", ALL, ids=lambda o: o.name)
def test_every_objective_trains(objective: Any, small_log: cr.ImpressionLog, quick: cr.Training, weighing: cr.Weighing) -> None:
    found = cr.finetune(small_log, objective=objective, training=quick, weighing=weighing, epochs=1, random_state=0)
    assert np.isfinite(found.trained.valid_scores).all()
    assert found.trained.valid_scores.std() > 0


def test_the_same_seed_gives_the_same_weights(small_log: cr.ImpressionLog, quick: cr.Training, weighing: cr.Weighing, ranker: cr.Ranker) -> None:
    again = cr.finetune(small_log, objective=cr.SNIPS(), training=quick, weighing=weighing, epochs=2, random_state=0)
    np.testing.assert_array_equal(again.trained.valid_scores, ranker.trained.valid_scores)


def test_the_order_of_rows_has_no_say_in_who_is_held_out(small_log: cr.ImpressionLog, quick: cr.Training, weighing: cr.Weighing, ranker: cr.Ranker) -> None:
    shuffled = small_log.take(np.random.default_rng(1).permutation(len(small_log)))
    again = cr.finetune(shuffled, objective=cr.SNIPS(), training=quick, weighing=weighing, epochs=1, random_state=0)
    np.testing.assert_array_equal(again.seen_units, ranker.seen_units)


def test_auto_has_naive_as_its_rival(small_log: cr.ImpressionLog, quick: cr.Training, weighing: cr.Weighing) -> None:
    found = cr.finetune(small_log, objective=cr.Auto((cr.SNIPS(), cr.DR())), training=quick, weighing=weighing, epochs=1, random_state=0)
    assert found.choice is not None
    assert set(found.choice.differences) == {"SNIPS", "DR"}
    best = min(found.choice.differences.values(), key=lambda e: e.value)
    assert (found.objective.name == "naive") == (best.value >= -best.std_error)


def test_the_best_of_those_that_beat_naive_is_chosen() -> None:
    def found(value: float, se: float) -> Estimate:
        return Estimate(value, se, value - 2 * se, value + 2 * se, float("nan"), 100, np.empty(0))

    rivals = {"SNIPS": found(-0.002, 0.001), "DR": found(-0.009, 0.002), "MRDR": found(-0.010, 0.012)}
    assert choose(rivals, 1.0) == "DR", "the lowest is not shown to beat naive, and does not stand in the way of one that is"
    assert choose(rivals, 5.0) == choose({}, 1.0) == "naive"


def test_pairwise_with_item_effects(small_log: cr.ImpressionLog, quick: cr.Training, weighing: cr.Weighing) -> None:
    head, training = cr.Head(item_effects=True, hidden=4), replace(quick, loss="pairwise")
    found = cr.finetune(small_log, objective=cr.DR(), head=head, training=training, weighing=weighing, epochs=1, random_state=0)
    assert np.isfinite(found.trained.valid_scores).all()
    assert set(found.history[0]) >= {"ess_share", "largest_weight", "share_clipped"}
    assert "risk_dr" not in found.history[0]
    assert found.history[0]["risk"] == pytest.approx(found.evaluation.risks["DR"].value)
    assert found.held_labels is not None
    assert found.history[0]["risk"] == pytest.approx(held_out_loss(found.trained.valid_scores, found.held_labels, "clicks", True).mean())
    assert "are no log odds" in found.summary() + found.evaluation.summary()
    t, y = found.replay.labels.t, found.replay.labels.y
    began = float(np.log((t @ y / t.sum()) / (1 - t @ y / t.sum())))
    assert found.trained.network.score.constant.item() == pytest.approx(began, abs=1e-6), "pairs say nothing of a constant, and rounding must not"
    assert set(found.known_items) == set(small_log.frame["item_id"].astype(str)) | set(labels_by_words(small_log.frame["title"]))
    assert set(found.known_items.values()) == set(range(60))
    log = small_log.take(np.arange(5))
    histories, codes = log.histories()
    for i, title in enumerate(log.frame["title"]):  # asked by its words, an item has the effect that it has in a log
        np.testing.assert_allclose(found.score([list(histories[codes[i]])], [title])[0, 0], found.score_log(log)[i], atol=1e-6)


def test_an_id_that_reads_like_another_item_s_words_is_not_taken_for_them(ranker: cr.Ranker, small_log: cr.ImpressionLog, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = small_log.frame["item_id"].unique()[:2]
    title = small_log.frame.loc[small_log.frame["item_id"] == first, "title"].iloc[0]
    log = changed(small_log, item_id=small_log.frame["item_id"].replace({second: title}))
    known = numbered(log)
    of_id, of_words = known[title], known[labels_by_words([title])[0]]
    assert known[first] == of_words != of_id
    asked: list[Any] = []
    monkeypatch.setattr(cr.Ranker, "_score", lambda self, feed: asked.append(feed.item_effect) or np.zeros(len(feed)))
    replace(ranker, known_items=known).score(None, [title])
    assert asked[0].tolist() == [of_words]
    unknown = changed(small_log, item_id=title)
    assert (feed_of_log(unknown, "two-tower", numbered(small_log)).item_effect == -1).all(), "a new item, whatever its id reads like"


@pytest.mark.slow
def test_a_cross_encoder_reads_both_together(small_log: cr.ImpressionLog, quick: cr.Training, weighing: cr.Weighing) -> None:
    short = small_log.frame.assign(history=[h[:1] for h in small_log.frame["history"]])
    log = replace(small_log, frame=short).take(np.arange(300))
    found = cr.finetune(log, objective=cr.DR(), head=cr.Head(kind="cross"), training=replace(quick, batch_size=32), weighing=weighing, epochs=1, random_state=0)
    f = found.score([["a novel"], ["a red coat"]], ["a blue coat", "news of today"])
    assert f.shape == (2, 2)
    assert not np.allclose(f[0] - f[0].mean(), f[1] - f[1].mean())


@pytest.mark.slow
def test_a_tuned_encoder_remembers_whose_clicks_it_saw(small_log: cr.ImpressionLog, weighing: cr.Weighing) -> None:
    quick = cr.Training(progress=False, batch_size=256, max_length=16)
    found = cr.finetune(small_log, objective=cr.DR(), adapter=cr.LoRA(rank=2), training=quick, weighing=weighing, epochs=1, random_state=0)
    texts = list(small_log.frame["title"].unique()[:4])
    np.testing.assert_allclose(found.encoder.transform(texts), found._vectors(texts), atol=2e-3)
    moved = (found.encoder.transform(texts) * cr.TextEmbedder(progress=False).transform(texts)).sum(axis=1)
    assert (moved < 1 - 1e-6).any()
    assert found.train is not None
    assert found.held_out is not None
    with pytest.raises(HonestyError, match=r"trained on clicks of 192 of the 192 users"):
        cr.embed(found.train, found.encoder)
    assert cr.embed(found.held_out, found.encoder).blocks
    assert found.trained.n_trained < found.trained.n_weights / 20


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [cr.IA3(), cr.PrefixTuning(2), cr.PromptTuning(2), cr.FullTuning()], ids=lambda a: a.name)
def test_every_adapter_trains(adapter: Any, small_log: cr.ImpressionLog, weighing: cr.Weighing) -> None:
    quick = cr.Training(progress=False, batch_size=256, max_length=12)
    found = cr.finetune(small_log.take(np.arange(1_000)), objective=cr.DR(), adapter=adapter, training=quick, weighing=weighing, epochs=1, random_state=0)
    assert found.trained.valid_scores.std() > 0
    if adapter.mergeable:
        assert found.encoder.transform(["a dress"]).shape == (1, 384)
    else:
        with pytest.raises(TrainingError, match="cannot be folded into an encoder's weights"):
            _ = found.encoder


def test_examination_turns_clicks_into_relevance(small_log: cr.ImpressionLog, quick: cr.Training, weighing: cr.Weighing) -> None:
    class Half:
        alarms = ("theta rests on one item",)

        def theta_at(self, positions: Any) -> Any:
            return np.full(len(positions), 0.5)

    plain = cr.finetune(small_log, objective=cr.DR(), training=quick, weighing=weighing, epochs=1, random_state=0)
    with_curve = replace(weighing, examination=Half())
    halved = cr.finetune(small_log, objective=cr.DR(), training=quick, weighing=with_curve, epochs=1, random_state=0)
    assert plain.replay is not None
    assert halved.replay is not None
    shown = plain.replay.labels.t == 1
    np.testing.assert_allclose(halved.replay.labels.y[shown], 2 * plain.replay.labels.y[shown])
    assert "P(examined | position) is in doubt: theta rests on one item." in halved.evaluation.summary()


def test_random_data_judge_and_choose(small_log: cr.ImpressionLog, quick: cr.Training, weighing: cr.Weighing) -> None:
    frame = drawn(400)
    found = cr.finetune(
        small_log, objective=cr.SNIPS(), training=quick, weighing=weighing, epochs=1, random_state=0,
        random_data=cr.RandomData(test=frame.iloc[200:], validation=frame.iloc[:200]),
    )  # fmt: skip
    assert found.evaluation.mar is not None
    assert 0 < found.evaluation.mar.auc.ci_lower < found.evaluation.mar.auc.ci_upper < 1


def drawn(n: int) -> pd.DataFrame:
    """Rows that were shown, of another log with the same columns."""
    frame = cr.simulate(4 * n, n_users=240, n_items=60, random_state=990_003).frame
    return frame[frame["recommended"] == 1].head(n)


BAD_RANDOM: list[tuple[Any, type[Exception], str]] = [
    (lambda log: {"test": [1, 2]}, ArgumentError, "test is a list; must be a pandas DataFrame"),
    (lambda log: {"test": drawn(300).drop(columns="title")}, LogError, r"the random data lack the columns \['title'\] \(test\)"),
    (lambda log: {"validation": drawn(300).head(0)}, LogError, r"RandomData\(validation=...\) has no rows"),
    (lambda log: {"test": drawn(300).assign(clicked=0)}, LogError, "all 300 outcomes of the random data .test. are 0"),
    (lambda log: {"test": drawn(300).assign(clicked=2)}, LogError, "holds other values than 0 and 1"),
    (lambda log: {"test": drawn(300).assign(recommended=0)}, LogError, r"300 of the 300 rows of RandomData\(test=...\) were not shown .*keep the rows shown"),
    (lambda log: {"test": drawn(300).assign(user_id="u")}, LogError, "have one user"),
    *(
        (lambda log, c=c: {"validation": drawn(300).assign(**{c: lambda f: f[c].where(np.arange(300) > 1)})}, LogError, rf"RandomData\(validation=...\): column '{c}' .* 2 of 300 rows; drop")
        for c in ("user_id", "item_id")
    ),
    (lambda log: {"test": log.frame[log.treatment == 1]}, LogError, "are rows of the log"),
    (lambda log: {"test": drawn(300), "validation": drawn(300).tail(100)}, LogError, r"10\d of the 300 rows of RandomData\(test=...\) are rows of its validation"),
]  # fmt: skip


@pytest.mark.parametrize(("frames", "error", "message"), BAD_RANDOM)
def test_random_data_are_looked_at_before_anything_is_fitted(
    frames: Any, error: type[Exception], message: str, small_log: cr.ImpressionLog, quick: cr.Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "labels_of", None)  # fitting would fail
    with pytest.raises(error, match=message):
        cr.finetune(small_log, objective=cr.SNIPS(), training=quick, random_data=cr.RandomData(**frames(small_log)))


def test_a_device_that_is_not_there_is_missed_before_anything_is_fitted(small_log: cr.ImpressionLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "labels_of", None)
    with pytest.raises(ArgumentError, match="device is 'tpu', must be None or one of"):
        cr.finetune(small_log, objective=cr.SNIPS(), training=cr.Training(device="tpu"))


@pytest.mark.parametrize("objective", [cr.UpliftWeighted(), cr.BanditNet()], ids=lambda o: o.name)
def test_clicks_do_not_stop_what_does_not_aim_at_them(objective: Any, small_log: cr.ImpressionLog) -> None:
    with pytest.raises(ArgumentError, match=f"which the score of {objective.name} is not the log odds of"):
        cr.finetune(small_log, objective=objective, random_data=cr.RandomData(validation=drawn(300)))


def test_a_logger_that_is_not_installed_is_missed_before_anything_is_fitted(small_log: cr.ImpressionLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "labels_of", None)
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else there(name, *rest))
    with pytest.raises(MissingExtraError, match=r"report_to has 'wandb'.*pip install wandb"):
        cr.finetune(small_log, objective=cr.SNIPS(), training=cr.Training(report_to=("wandb",)), random_state=0)


@pytest.mark.parametrize("adapter", [cr.PromptTuning(8), cr.PrefixTuning(8), cr.LoRA(rank=1)], ids=lambda a: a.name)
def test_long_texts_leave_room_for_a_prompt(adapter: Any) -> None:
    """One batch of texts as long as the encoder reads: with a prompt before them they would be longer."""
    from causalrec.finetune.fitting import most_tokens, tokenize
    from causalrec.finetune.towers import build, encode_all

    network, tokenizer = build(cr.TextEmbedder(progress=False)._files(), adapter, cr.Head(), 0, False, False, 10, 0)
    positions = network.texts.encoder.config.max_position_embeddings
    room = most_tokens(network, adapter, 10_000)
    assert room == positions - getattr(adapter, "tokens", 0)
    assert most_tokens(network, adapter, 12) == 12
    tokens = tokenize(tokenizer, ["coat " * 2 * positions], room)
    assert len(tokens[0]) == room
    assert np.isfinite(encode_all(network, tokens, 0)).all()


def test_a_ranking_of_a_column_is_that_of_a_list(ranker: cr.Ranker, small_log: cr.ImpressionLog) -> None:
    titles = small_log.frame["title"].drop_duplicates().iloc[:5]
    column = pd.Series(titles.to_numpy(), index=[4, 3, 2, 1, 0])
    assert list(ranker.rank(None, column, k=5)["item"]) == list(ranker.rank(None, list(column), k=5)["item"])
    with pytest.raises(ArgumentError, match="k is 0, must be >= 1"):
        ranker.rank(None, list(titles), k=0)


def test_guard_rails_are_those_of_the_objective_s_own_clip(small_log: cr.ImpressionLog, quick: cr.Training, weighing: cr.Weighing) -> None:
    found = cr.finetune(small_log, objective=cr.SNIPS(clip=cr.Clip(0.3)), training=quick, weighing=weighing, epochs=1, random_state=0)
    assert found.replay is not None
    shown = found.replay.labels.t == 1
    assert found.guard_rails.share_clipped == pytest.approx((found.replay.labels.e[shown] < 0.3).mean())
    assert found.guard_rails.share_clipped > 0.1
    rare = np.where(np.arange(len(small_log)) % 800 == 0, 1e-5, 0.5)
    odd = replace(changed(small_log, p=rare, recommended=(rare < 0.5) | (small_log.treatment == 1)), roles=replace(small_log.roles, propensity=("p",)))
    with pytest.raises(OverlapError, match=r"clip more: SNIPS\(clip=Clip\(...\)\) with a bound above 1e-05"):
        cr.finetune(odd, objective=cr.SNIPS(clip=cr.Clip(1e-5)), training=quick, weighing=weighing, epochs=1, random_state=0)


def test_what_is_not_shown_has_no_say(small_log: cr.ImpressionLog, quick: cr.Training, weighing: cr.Weighing) -> None:
    """An outcome of rows not shown that nobody saw: whatever stands there, the labels are the same."""
    is_held, found = small_log.units % 5 == 0, []
    for filler in (0, 1, -1, 7):
        log = changed(small_log, clicked=np.where(small_log.treatment == 1, small_log.frame["clicked"], filler))
        found.append(
            labels_of(
                log.take(~is_held), log.take(is_held), plan=None, recipe=weighing.nuisances, examination=None, clip=None, policy_aware=True,
                rng=np.random.default_rng(0),
            )
        )  # fmt: skip
    for other in found[1:]:
        for mine, theirs in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(mine.psi1, theirs.psi1)
            assert not theirs.control_seen
    with pytest.raises(EstimationError, match="their outcome 'clicked' holds 7, must be 0 or 1"):
        cr.finetune(log, objective=cr.UpliftWeighted(), training=quick, weighing=weighing, epochs=1, random_state=0)


def test_too_few_held_out_users_are_refused_before_training(small_log: cr.ImpressionLog, quick: cr.Training) -> None:
    with pytest.raises(EstimationError, match=r"5 of 5 held-out users were shown anything, must be >= 10.*Training\(validation=0.4\)"):
        cr.finetune(small_log.take(small_log.units < 24), objective=cr.SNIPS(), training=quick, random_state=0)


@pytest.mark.parametrize(("share", "refused"), [(0.4, False), (0.7, True)])
def test_rows_that_could_not_be_shown_are_counted(share: float, refused: bool, small_log: cr.ImpressionLog) -> None:
    t = (np.arange(1_000) % 10 == 9).astype(float)
    e = np.where((np.arange(1_000) < 1_000 * share) & (t == 0), 0.0, 0.3)
    if refused:
        with pytest.raises(OverlapError, match=r"63 % of the rows have a logged propensity of 0 or 1"):
            _check_certain(t, e)
    else:
        with pytest.warns(CausalRecWarning, match=r"36 % could never be shown"):
            _check_certain(t, e)


def changed(log: cr.ImpressionLog, **columns: Any) -> cr.ImpressionLog:
    return replace(log, frame=log.frame.assign(**columns))


REFUSED: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (lambda log: changed(log, clicked=0), {}, EstimationError, "one class only"),
    (lambda log: log.take(log.treatment == 1), {}, EstimationError, "0 training rows were not shown"),
    (lambda log: log.frame, {}, ArgumentError, "finetune takes an ImpressionLog, got a DataFrame"),
    (lambda log: log.take(log.units < 5), {}, LogError, "has 5 users, must have >= 20"),
    (lambda log: log, {"objective": cr.SNIPS}, ArgumentError, r"Did you mean SNIPS\(\)\?"),
    (lambda log: log, {"adapter": "lora"}, ArgumentError, "adapter is 'lora'; must be one of"),
    (lambda log: log, {"output": 3}, ArgumentError, "output is 3, must be the path of a folder"),
    (lambda log: log, {"encoder": cr.FastEncoder("nowhere")}, ArgumentError, "encoder is a FastEncoder .*holds no weights to go on from"),
    (lambda log: log, {"epochs": 0}, ArgumentError, "epochs is 0, must be >= 1"),
    (lambda log: log, {"training": cr.Training(device="cuda:7", progress=False)}, ArgumentError, "device is 'cuda:7', which torch does not find"),
    (lambda log: changed(log, clicked=log.frame["clicked"] * 2), {}, EstimationError, "a ranker learns clicks, 0 or 1"),
    (
        lambda log: replace(changed(log, p=log.treatment), roles=replace(log.roles, propensity=("p",))), {}, OverlapError,
        "what was shown was certain",
    ),
    (
        lambda log: changed(log, clicked=np.where(log.treatment == 1, log.frame["clicked"], 0)), {"objective": cr.UpliftWeighted()},
        EstimationError, "nobody saw what happened there",
    ),
    (
        lambda log: log, {"objective": cr.POEM(), "training": cr.Training(loss="pairwise", progress=False)}, ArgumentError,
        "POEM has no pairwise form",
    ),
    (
        lambda log: log, {"random_data": cr.RandomData(test=pd.DataFrame({"title": ["a"]}))}, LogError,
        "the random data lack the columns",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "options", "error", "message"), REFUSED)
def test_refusals(
    spoil: Any, options: dict[str, Any], error: type[Exception], message: str, small_log: cr.ImpressionLog, quick: cr.Training,
    weighing: cr.Weighing,
) -> None:  # fmt: skip
    given: dict[str, Any] = {"objective": cr.SNIPS(), "training": quick, "weighing": weighing, "epochs": 1, "random_state": 0} | options
    with pytest.raises(error, match=message):
        cr.finetune(spoil(small_log), **given)


@pytest.mark.parametrize(
    ("users", "items", "message"),
    [
        (["nobody"], ["a"], "user 'nobody' was not in the log; give a history instead"),
        ([[3]], ["a"], r"a history holds 3 \(int\)"),
        (None, "a title", "items is a str; must be a list of texts"),
        ("u1", ["a"], r"users_or_histories is 'u1' \(str\); must be a list of users, or of histories: for one user \['u1'\]"),
        (7, ["a"], r"users_or_histories is 7 \(int\); must be a list of users"),
        (None, [b"x"], r"items holds b'x'"),
    ],
)
def test_bad_scoring(ranker: cr.Ranker, users: Any, items: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        ranker.score(users, items)


def test_clicks_that_are_seen_only_where_shown_are_enough(small_log: cr.ImpressionLog, quick: cr.Training, weighing: cr.Weighing) -> None:
    from causalrec.datasets.simulate import ROLES

    seen = np.where(small_log.treatment == 1, small_log.frame["clicked"], 0)
    log = cr.read_log(small_log.frame.assign(clicked=seen), **ROLES).with_blocks(small_log.blocks.values())
    found = cr.finetune(log, objective=cr.DR(), training=quick, weighing=weighing, epochs=1, random_state=0)
    assert "caused" not in found.evaluation.values
    assert found.replay is not None
    assert not found.replay.labels.control_seen


def test_a_cross_encoder_does_not_cut_the_item_off() -> None:
    from causalrec.finetune.feed import feed_of

    long = tuple(f"a long headline number {i} about many things at once" for i in range(20))
    feed = feed_of(["a red coat", "a blue coat"], ([long], np.zeros(2, dtype=int)), "cross", None, {})
    assert feed.texts[0].startswith("a red coat")
    assert feed.texts[0].index("number 19") < feed.texts[0].index("number 18")


def test_row_weights_are_refused_rather_than_left_out(small_log: cr.ImpressionLog) -> None:
    weighted = replace(changed(small_log, w=2.0), roles=replace(small_log.roles, weight=("w",)))
    with pytest.raises(LogError, match=r"declares row weights \('w'\)"):
        cr.finetune(weighted, objective=cr.SNIPS())


def test_pairs_need_users_with_several_rows(small_log: cr.ImpressionLog, quick: cr.Training, weighing: cr.Weighing) -> None:
    alone = replace(small_log, roles=replace(small_log.roles, unit=()))
    with pytest.raises(TrainingError, match="pairs of a clicked and another row of one user"):
        cr.finetune(alone, objective=cr.DR(), training=replace(quick, loss="pairwise"), weighing=weighing, epochs=1, random_state=0)
