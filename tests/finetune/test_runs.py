"""Runs that break off: killed, out of space, not finite; and folders that hold something else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import causalrec as cr
from causalrec.errors import ArgumentError, OutputError, OverlapError, SavedError, TrainingError
from causalrec.finetune import preparation, run_folder, towers, trainer
from causalrec.finetune.stopping import Latest

KILLED = """
import os, sys, numpy as np, causalrec as cr
from causalrec.finetune import trainer
log = cr.embed(cr.simulate(1500, n_users=150, n_items=30, random_state=990001).log(), cr.TextEmbedder(progress=False))
at, old = int(sys.argv[2]), trainer.DebiasedTrainer.training_step
def step(self, *given, **options):
    if self.state.global_step == at:
        os.kill(os.getpid(), 9)
    return old(self, *given, **options)
trainer.DebiasedTrainer.training_step = step
adapter = cr.LoRA(rank=2, dropout=.1) if sys.argv[3] == "lora" else cr.Frozen()
r = cr.finetune(log, objective=cr.POEM(), adapter=adapter, epochs=2, random_state=0, output=sys.argv[1],
                weighing=cr.Weighing(nuisances=cr.NuisanceRecipe(*[cr.RidgeLogistic(variances=(0.1,))] * 2)),
                training=cr.Training(progress=False, batch_size=256, max_length=8, save_steps=2))
np.savez(sys.argv[1] + ".npz", **{k: v.numpy() for k, v in r.trained.network.learned().items()})
"""


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["frozen", "lora"])
def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(adapter: str, tmp_path: Path) -> None:
    def go(name: str, at: int) -> int:
        line = [sys.executable, "-c", KILLED, str(tmp_path / name), str(at), adapter]
        return subprocess.run(line, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, check=False).returncode

    assert go("whole", -1) == 0
    assert [go("cut", 3), go("cut", 7), go("cut", -1)] == [-9, -9, 0]
    whole, cut = (np.load(tmp_path / f"{n}.npz") for n in ("whole", "cut"))
    assert set(whole.files) == set(cut.files)
    for name in whole.files:
        np.testing.assert_array_equal(whole[name], cut[name])


def small(log: cr.ImpressionLog, output: Path, **options: Any) -> cr.Ranker:
    one = cr.RidgeLogistic(variances=(0.1,))
    weighing = cr.Weighing(nuisances=cr.NuisanceRecipe(one, one))
    given: dict[str, Any] = {"objective": cr.SNIPS(), "weighing": weighing, "epochs": 2, "random_state": 0} | options
    training = given.pop("training", cr.Training(progress=False, save_steps=2))
    return cr.finetune(log, output=output, training=training, **given)


def test_a_full_disk_leaves_the_last_good_checkpoint(small_log: cr.ImpressionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = trainer.save_file
    saved: list[str] = []

    def full(state: Any, file: str) -> None:
        if len(saved) == 2:
            Path(file).write_bytes(b"half of it")
            raise OSError(28, "No space left on device")
        saved.append(file)
        save(state, file)

    monkeypatch.setattr(trainer, "save_file", full)
    with pytest.raises(OutputError, match=r"No space left on device.*it goes on from checkpoint-4"):
        small(small_log, tmp_path / "out")
    monkeypatch.setattr(trainer, "save_file", save)
    assert run_folder.last_checkpoint(tmp_path / "out" / "run") == tmp_path / "out" / "run" / "checkpoint-4"
    whole = small(small_log, tmp_path / "other")
    np.testing.assert_array_equal(small(small_log, tmp_path / "out").trained.valid_scores, whole.trained.valid_scores)


@pytest.mark.parametrize("file", ["complete.json", "finished.json"])
def test_a_disk_that_is_full_for_the_last_word_is_an_output_error(
    file: str, small_log: cr.ImpressionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = run_folder._put

    def full(at: Path, held: Any) -> None:
        if at.name == file:
            raise OSError(28, "No space left on device")
        put(at, held)

    monkeypatch.setattr(run_folder, "_put", full)
    with pytest.raises(OutputError, match=r"No space left on device.*Make room there and call again with the same output"):
        small(small_log, tmp_path / "out", epochs=1)
    monkeypatch.setattr(run_folder, "_put", put)
    whole = small(small_log, tmp_path / "other", epochs=1)
    np.testing.assert_array_equal(small(small_log, tmp_path / "out", epochs=1).trained.valid_scores, whole.trained.valid_scores)


def test_damaged_words_of_a_run(small_log: cr.ImpressionLog, tmp_path: Path) -> None:
    first = small(small_log, tmp_path / "out", epochs=1)
    run = tmp_path / "out" / "run"
    for damaged in ('{"best": "check', "[]", '{"best": "checkpoint-2"}'):
        (run / "finished.json").write_text(damaged)
        again = small(small_log, tmp_path / "out", epochs=1)
        np.testing.assert_array_equal(again.trained.valid_scores, first.trained.valid_scores)
        assert again.history == first.history
    for damaged, message in (("[]", "is damaged: it holds no description of a run"), ("{", "cannot be used")):
        (run / "run.json").write_text(damaged)
        with pytest.raises(OutputError, match=message):
            small(small_log, tmp_path / "out", epochs=1)


def test_a_damaged_checkpoint_is_passed_over(small_log: cr.ImpressionLog, tmp_path: Path) -> None:
    found = small(small_log, tmp_path / "out")
    run = tmp_path / "out" / "run"
    newest = run_folder.last_checkpoint(run)
    assert newest is not None
    (newest / "optimizer.pt").write_bytes(bytes((newest / "optimizer.pt").stat().st_size))
    (run / "finished.json").unlink()
    np.testing.assert_array_equal(small(small_log, tmp_path / "out").trained.valid_scores, found.trained.valid_scores)
    assert run_folder.is_whole(newest), "it was trained again from the one before"
    for file in list(newest.iterdir()):
        held = file.read_bytes()
        for damaged in (bytes(len(held)), b"[]", b'{"step": 2, "sha256": []}', b'{"step": 2, "sha256": 3}'):
            file.write_bytes(damaged)
            assert not run_folder.is_whole(newest), file.name
        file.write_bytes(held)
    assert run_folder.is_whole(newest)
    (newest / run_folder.WEIGHTS).write_bytes(b"damaged")
    assert run_folder.last_checkpoint(run) != newest
    assert not newest.exists()


def test_a_loss_that_is_not_finite_stops_before_it_reaches_the_weights(
    small_log: cr.ImpressionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = trainer.DebiasedTrainer.compute_loss

    def spoilt(self: Any, *given: Any, **options: Any) -> Any:
        loss = old(self, *given, **options)
        return loss * float("nan") if self.state.global_step == 5 else loss

    monkeypatch.setattr(trainer.DebiasedTrainer, "compute_loss", spoilt)
    with pytest.raises(TrainingError, match=r"the loss is nan at step 6, epoch .*Its batch has \d+ rows of \d+ users, the largest weight .*Kept: checkpoint-4"):
        small(small_log, tmp_path / "out")


def test_a_folder_of_another_run_is_left_alone(small_log: cr.ImpressionLog, tmp_path: Path) -> None:
    small(small_log, tmp_path / "out", epochs=1)
    with pytest.raises(TrainingError, match=r"holds a run with another epochs: there it is 1, here 2"):
        small(small_log, tmp_path / "out", epochs=2)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "run").mkdir()
    (tmp_path / "mine" / "run" / "thesis.txt").write_text("do not touch")
    with pytest.raises(OutputError, match="is not empty and holds no run of finetune"):
        small(small_log, tmp_path / "mine")
    assert (tmp_path / "mine" / "run" / "thesis.txt").read_text() == "do not touch"


def test_a_folder_of_another_kind_of_run_is_refused_before_training(small_log: cr.ImpressionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def auto(*candidates: Any) -> cr.Ranker:
        return small(small_log, tmp_path / "many", epochs=1, objective=cr.Auto(candidates))

    auto(cr.SNIPS())
    one = small(small_log, tmp_path / "one", epochs=1)
    one.save(tmp_path / "kept")
    monkeypatch.setattr(preparation, "run", None)  # training would fail
    for call, message in (
        (lambda: small(small_log, tmp_path / "many", epochs=1), r"many holds a run with another objective \(runs/naive\)"),
        (lambda: small(small_log, tmp_path / "one", epochs=1, objective=cr.Auto()), r"one holds a run with another objective \(run\)"),
        (lambda: auto(cr.DR()), r"many holds a run with another objective \(runs/snips\)"),
        (lambda: auto(cr.SNIPS(clip=cr.Clip(0.2)), cr.DR()), "snips holds a run with another objective: there it is"),
        (lambda: one.update(small_log, output=tmp_path / "many"), r"many holds a run with another objective \(runs/naive\)"),
    ):
        with pytest.raises(TrainingError, match=message):
            call()
    with pytest.raises(OutputError, match="kept holds a saved ranker"):
        one.update(small_log, output=tmp_path / "kept")


def test_saved_and_loaded(ranker: cr.Ranker, small_log: cr.ImpressionLog, tmp_path: Path) -> None:
    ranker.save(tmp_path / "kept")
    again = cr.Ranker.load(tmp_path / "kept")
    np.testing.assert_allclose(again.score_log(small_log), ranker.score_log(small_log), atol=1e-6)
    assert again.summary() == ranker.summary()
    assert again.evaluation.summary() == ranker.evaluation.summary()
    with pytest.raises(OutputError, match="exists and is not empty"):
        ranker.save(tmp_path / "kept")
    ranker.save(tmp_path / "kept", overwrite=True)


def tuned(ranker: cr.Ranker, folder: Path, max_length: int = 16) -> cr.Ranker:
    """The ranker with an encoder of its own, its LoRA drawn at random."""
    adapter = cr.LoRA(rank=2)
    network, tokenizer = towers.build(ranker.base._files(), adapter, ranker.head, 0, ranker.has_history, False, 10, 0)
    with torch.no_grad():
        for name, weights in network.named_parameters():
            if "lora_B" in name:
                weights.normal_(0, 0.05, generator=torch.Generator().manual_seed(0))
    trained = replace(ranker.trained, network=network.eval(), tokenizer=tokenizer)
    return replace(ranker, adapter=adapter, training=replace(ranker.training, max_length=max_length), trained=trained, folder=folder)


def test_the_encoder_of_a_loaded_ranker_outlives_what_is_saved_over_it(ranker: cr.Ranker, tmp_path: Path) -> None:
    saved = tuned(ranker, tmp_path / "out").save(tmp_path / "kept")
    again = cr.Ranker.load(saved)
    encoder = again.encoder
    assert saved not in Path(encoder.model).parents
    again.save(saved, overwrite=True)
    assert sorted(f.name for f in saved.iterdir()) == ["arrays.npz", "learned.safetensors", "ranker.json", "words.json"]
    encoder.set_params(cache_dir=False)
    np.testing.assert_allclose(encoder.transform(["a red coat"]), again._vectors(["a red coat"]), atol=1e-5)
    np.testing.assert_array_equal(encoder.seen_units, ranker.seen_units)


def test_what_is_no_encoder_is_not_replaced_by_one(ranker: cr.Ranker, tmp_path: Path) -> None:
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "thesis.txt").write_text("do not touch")
    with pytest.raises(OutputError, match=r"encoder holds no causalrec_seen_units.npy, so that no ranker's encoder was written there"):
        _ = tuned(ranker, tmp_path).encoder
    (tmp_path / "encoder" / "thesis.txt").unlink()
    for _ in range(2):
        assert Path(tuned(ranker, tmp_path).encoder.model) == tmp_path / "encoder"


@pytest.mark.parametrize("max_length", [8, 64])
def test_the_encoder_s_folder_reads_as_many_tokens_as_training(max_length: int, ranker: cr.Ranker, tmp_path: Path) -> None:
    found = tuned(ranker, tmp_path, max_length)
    texts = ["a red coat", " ".join(f"{colour} coats of wool" for colour in ("red", "blue", "green", "black") * 10)]
    mine = found._vectors(texts)
    for encoder in (found.encoder.set_params(cache_dir=False), cr.TextEmbedder(str(found.folder / "encoder"), cache_dir=False, progress=False)):
        np.testing.assert_allclose(encoder.transform(texts), mine, atol=1e-5)
    again = tuned(replace(found, base=found.encoder), tmp_path / "further", 2 * max_length)
    np.testing.assert_allclose(again.encoder.set_params(cache_dir=False).transform(texts), again._vectors(texts), atol=1e-5)


def test_a_ranker_goes_on_where_it_is_loaded(ranker: cr.Ranker, small_log: cr.ImpressionLog, tmp_path: Path) -> None:
    replace(ranker, training=replace(ranker.training, device="xpu")).save(tmp_path / "kept")
    again = cr.Ranker.load(tmp_path / "kept", device="cpu")
    assert again.training == replace(ranker.training, device="cpu")
    assert again.update(small_log, weighing=ranker.weighing, random_state=0).rounds
    assert cr.Ranker.load(tmp_path / "kept").training.device is None


def test_rows_to_replay_are_saved_whole(ranker: cr.Ranker, tmp_path: Path) -> None:
    assert ranker.replay is not None
    n = len(ranker.replay.labels)
    labels = replace(ranker.replay.labels, if_examined=True, examined=np.linspace(0.5, 1.5, n), clip=cr.Clip(0.2), logged=True)
    replace(ranker, replay=replace(ranker.replay, labels=labels)).save(tmp_path / "kept")
    again = cr.Ranker.load(tmp_path / "kept").replay
    assert again is not None
    for one in fields(labels):
        np.testing.assert_array_equal(getattr(again.labels, one.name), getattr(labels, one.name), err_msg=one.name)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda m: m["base"].update(fingerprint="another"), "another vocabulary or other weights"),
        (lambda m: m.update(format=99), "has format 99, this version reads"),
        (lambda m: m["ranker"]["objective"].update({"is": "os.system"}), "names 'os.system', which no ranker"),
        (lambda m: m["files"].update({"learned.safetensors": "0"}), "missing or damaged"),
        (lambda m: m["ranker"]["head"].update(width=3), "does not fit what its ranker.json describes"),
        *((lambda m, n=n: m.pop(n), rf"is damaged \(KeyError: '{n}'\); save") for n in ("base", "ranker", "trained", "labels", "has_history")),
        (lambda m: m.pop("files"), "is no whole ranker"),
        (lambda m: m.update(files=sorted(m["files"])), "is no whole ranker"),
        (lambda m: m["ranker"].pop("roles"), "is damaged .KeyError: 'roles'"),
        (lambda m: m["trained"].pop("kept"), "is damaged .KeyError: 'kept'"),
        (lambda m: m["ranker"]["head"].pop("is"), "is damaged .KeyError: 'is'"),
        (lambda m: m["ranker"]["head"].update(wings=2), "is damaged .TypeError: .*unexpected keyword argument 'wings'"),
        (lambda m: m["ranker"]["head"].update(width=-3), "is damaged .ArgumentError: width is -3"),
        (lambda m: m["ranker"].update(head="two-tower"), "is damaged .TypeError: head is 'two-tower'"),
        (lambda m: m.update(base=[]), "is damaged .TypeError"),
        (lambda m: m["base"].update(model=5), "is damaged .TypeError: model is 5"),
    ],
)
def test_a_spoilt_folder_is_refused(spoil: Any, message: str, ranker: cr.Ranker, tmp_path: Path) -> None:
    ranker.save(tmp_path / "kept")
    manifest = json.loads((tmp_path / "kept" / "ranker.json").read_text())
    spoil(manifest)
    (tmp_path / "kept" / "ranker.json").write_text(json.dumps(manifest))
    with pytest.raises(SavedError, match=message):
        cr.Ranker.load(tmp_path / "kept")


@pytest.mark.parametrize("held", ["[]", "null", '"a ranker"', "3"])
def test_a_manifest_that_describes_nothing_is_refused(held: str, tmp_path: Path) -> None:
    (tmp_path / "ranker.json").write_text(held)
    with pytest.raises(SavedError, match="it describes no ranker"):
        cr.Ranker.load(tmp_path)


def test_a_folder_is_a_path(ranker: cr.Ranker) -> None:
    for call in (cr.Ranker.load, ranker.save):
        for folder in (5, None, ""):
            with pytest.raises(ArgumentError, match=f"folder is {folder!r}, must be the path of a folder"):
                call(folder)  # type: ignore[operator]


def test_a_round_says_whether_it_was_promoted_and_why(ranker: cr.Ranker) -> None:
    new = cr.embed(cr.simulate(2_400, n_users=240, n_items=60, random_state=990_002).log(), cr.TextEmbedder(progress=False))
    strict = ranker.update(new, random_state=0, standard_errors=100)
    assert not strict.rounds[0].promoted
    np.testing.assert_array_equal(strict.score_log(new), ranker.score_log(new))
    assert "The old weights stay" in strict.rounds[0].summary()
    assert strict.rounds[0]._title() in strict.summary()
    assert "Round" not in ranker.summary()
    assert strict.rounds[0].n_replayed > 0
    free = ranker.update(new, random_state=0, standard_errors=0, epochs=3)
    assert free.rounds[0].promoted == (free.rounds[0].risk.value < 0)


@pytest.mark.slow
def test_a_round_compares_the_effect_by_the_new_encoder_with_that_by_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from causalrec.finetune import rounds

    monkeypatch.setattr(rounds, "LEAST_USERS", 40)
    first, second = (
        cr.embed(cr.simulate(3_000, n_users=600, n_items=40, confounding=0.3, random_state=990_001 + k).log(), cr.TextEmbedder(progress=False)) for k in (0, 1)
    )
    second = replace(second, frame=second.frame.assign(user_id="new-" + second.frame["user_id"]))
    began = small(first, tmp_path / "out", adapter=cr.LoRA(rank=2), training=cr.Training(progress=False, max_length=8, learning_rate=5e-4))
    found = began.update(second, random_state=0, standard_errors=0, output=tmp_path / "next")
    one = found.rounds[0]
    assert one.effect is not None, one.reason
    whose = cr.TextEmbedder(str(tmp_path / "next" / "encoder")).seen_units
    assert np.isin(began.seen_units, whose).all(), "what lies in the folder remembers the users of every round"
    naive = small(second, tmp_path / "chained", encoder=began.encoder, objective=cr.Naive(), epochs=1)
    assert np.isin(np.union1d(began.seen_units, naive.train.unit_hashes), naive.seen_units).all(), "so does an encoder that began as another's"
    assert one.effect_moved is not None
    assert 0 < abs(one.effect_moved.value) < one.effect.std_error
    assert 0 < one.effect_moved.std_error < one.effect.std_error, "it is of the same users"
    assert "by the new encoder less by the old one" in one.summary()


def test_whoever_is_held_out_stays_so_and_is_not_replayed(ranker: cr.Ranker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from causalrec.finetune import rounds

    new = cr.embed(cr.simulate(2_400, n_users=300, n_items=60, random_state=990_002).log(), cr.TextEmbedder(progress=False))
    mixed: list[Any] = []
    old = rounds._with_replay
    monkeypatch.setattr(rounds, "_with_replay", lambda *given: mixed.append(old(*given)) or mixed[-1])
    ranker.save(tmp_path / "kept")
    found = replace(cr.Ranker.load(tmp_path / "kept"), weighing=ranker.weighing)
    for _ in range(2):
        before = found
        found = found.update(new, random_state=1, standard_errors=0, replay=2.0)
        prepared, replayed = mixed[-1]
        assert replayed > 0
        held = prepared.valid.unit_hashes
        assert not np.isin(held, before.seen_units).any()
        assert np.isin(np.intersect1d(before.held_units, new.unit_hashes), held).all()
        assert not np.isin(prepared.labels.users, held).any()
        assert np.isin(held, found.held_units).all()
        assert f"The effect of showing is missing: {prepared.valid.n_units} held-out users were in no round's training" in found.rounds[-1].reason
    assert found.evaluation.unseen


def test_where_all_users_were_learnt_from_the_round_says_so(ranker: cr.Ranker, small_log: cr.ImpressionLog) -> None:
    found = ranker.update(small_log.take(small_log.rows_of(ranker.seen_units)), random_state=0, standard_errors=0, epochs=3)
    assert "some of those who judged were learnt from in earlier rounds" in found.rounds[0].reason
    if found.rounds[0].promoted:
        assert "numbers are too hopeful" in found.evaluation.summary()


def test_an_update_checks_its_options(ranker: cr.Ranker, small_log: cr.ImpressionLog) -> None:
    with pytest.raises(cr.CausalRecError, match=r"weighing is 'x'; must be Weighing"):
        ranker.update(small_log, weighing="x")
    with pytest.raises(cr.CausalRecError, match="output is 3, must be the path"):
        ranker.update(small_log, output=3)  # type: ignore[arg-type]


def test_an_update_learns_and_compares_one_kind_of_label(ranker: cr.Ranker, small_log: cr.ImpressionLog) -> None:
    with pytest.raises(cr.CausalRecError, match=r"has learnt clicks as they are, and this update would learn clicks divided by P\(examined\)"):
        ranker.update(small_log, weighing=replace(ranker.weighing, examination={k: 1 / k for k in range(1, 11)}))
    divided = replace(ranker, evaluation=replace(ranker.evaluation, if_examined=True))
    with pytest.raises(cr.CausalRecError, match=r"Pass the curve"):
        divided.update(small_log)


def test_an_update_needs_the_same_roles(ranker: cr.Ranker, small_log: cr.ImpressionLog) -> None:
    for role, column in (("unit", ()), ("item", ()), ("history", ())):
        other = replace(small_log, roles=replace(small_log.roles, **{role: column}))
        with pytest.raises(cr.CausalRecError, match=rf"declares unit, item, history, text; this one declares .*\({role}= is missing\)"):
            ranker.update(other)


def test_an_update_of_a_naive_ranker_needs_support_too(ranker: cr.Ranker, small_log: cr.ImpressionLog) -> None:
    rare = np.where(np.arange(len(small_log)) % 800 == 0, 1e-5, 0.5)
    frame = small_log.frame.assign(p=rare, recommended=np.where(rare < 0.5, 1, small_log.treatment))
    poor = replace(small_log, frame=frame, roles=replace(small_log.roles, propensity=("p",)))
    with pytest.raises(OverlapError, match=r"the new log, whose doubly robust risk decides.*Weighing\(clip=Clip"):
        replace(ranker, objective=cr.Naive()).update(poor, weighing=replace(ranker.weighing, clip=cr.Clip(1e-5)))


def test_an_update_without_support_is_refused(ranker: cr.Ranker, small_log: cr.ImpressionLog) -> None:
    certain = replace(
        small_log, frame=small_log.frame.assign(p=small_log.treatment), roles=replace(small_log.roles, propensity=("p",))
    )
    with pytest.raises(OverlapError, match="what was shown was certain"):
        ranker.update(certain)


def test_a_run_that_stopped_early_is_not_trained_further(small_log: cr.ImpressionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter([-1.0, -2.0, 1.0])
    monkeypatch.setattr(Latest, "order", lambda self, loss, units: next(said))
    training = cr.Training(progress=False, patience=1)
    first = small(small_log, tmp_path / "out", epochs=12, training=training)
    assert len(first.history) == 3
    monkeypatch.setattr(trainer.DebiasedTrainer, "training_step", None)  # a step would fail
    for killed_before_it_said_so in (False, True):
        if killed_before_it_said_so:
            next((tmp_path / "out").rglob("finished.json")).unlink()
        again = small(small_log, tmp_path / "out", epochs=12, training=training)
        np.testing.assert_array_equal(again.trained.valid_scores, first.trained.valid_scores)
        assert again.history == first.history
        assert again.trained.kept == first.trained.kept == 1


def test_a_run_knows_its_histories_its_clip_and_its_validation(small_log: cr.ImpressionLog, tmp_path: Path) -> None:
    small(small_log, tmp_path / "out", epochs=1)
    other = replace(small_log, frame=small_log.frame.assign(history=[("a novel",)] * len(small_log)))
    one = cr.RidgeLogistic(variances=(0.1,))
    clipped = cr.Weighing(nuisances=cr.NuisanceRecipe(one, one), clip=cr.Clip(0.2))
    other_rows = cr.simulate(1_200, n_users=240, n_items=60, random_state=990_003).frame
    random = cr.RandomData(validation=other_rows[other_rows["recommended"] == 1].head(300))
    for log, options in ((other, {}), (small_log, {"weighing": clipped}), (small_log, {"random_data": random})):
        with pytest.raises(TrainingError, match="holds a run with another rows"):
            small(log, tmp_path / "out", epochs=1, **options)


def test_a_loaded_ranker_asks_how_rows_were_weighed(ranker: cr.Ranker, small_log: cr.ImpressionLog, tmp_path: Path) -> None:
    ranker.save(tmp_path / "kept")  # its nuisances are not the default
    with pytest.raises(cr.CausalRecError, match=r"pass update\(..., weighing=Weighing"):
        cr.Ranker.load(tmp_path / "kept").update(small_log)


@pytest.mark.slow
def test_a_disk_that_is_really_full_is_an_output_error(small_log: cr.ImpressionLog, tmp_path: Path) -> None:
    code = (
        "import resource, sys, numpy as np, causalrec as cr\n"
        "from pathlib import Path\n"
        "from causalrec.finetune.folder import written\n"
        "from safetensors.torch import save_file\n"
        "import torch\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "try:\n"
        "    with written(Path(sys.argv[1]), 'the ranker') as half:\n"
        "        save_file({'a': torch.zeros(100_000)}, str(half / 'w'))\n"
        "except cr.errors.OutputError if hasattr(cr, 'errors') else cr.CausalRecError as error:\n"
        "    print('refused', error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], capture_output=True, text=True, check=False)
    assert "refused the ranker cannot be written" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_folder_leaves_none_behind() -> None:
    """Its checkpoints lie in a temporary folder that Python removes when it ends."""
    code = (
        "from causalrec.finetune.folder import passing_folder\n"
        "folder = passing_folder()\n"
        "(folder / 'run').mkdir()\n"
        "print(folder)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert told
    assert not Path(told).exists()
