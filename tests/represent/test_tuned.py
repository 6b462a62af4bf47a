from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from causalrec.errors import ArgumentError, MissingExtraError, ModelNotFoundError, RepresentationError
from causalrec.represent import trainable
from causalrec.represent.counts import TextCounts, nuisance_loss
from causalrec.represent.tuned import Tuned, tune_encoder

GOOD, BAD = ("lovely", "cheerful", "tender", "bright"), ("grim", "rotten", "bitter", "dull")
THINGS = ("coat", "lamp", "river", "song", "letter", "garden", "window", "horse")
TEXTS = [f"a {word} {thing}" for word in (*GOOD, *BAD) for thing in THINGS]
MOOD = np.array([1.0 if text.split()[1] in GOOD else -1.0 for text in TEXTS])


def draw(signal: np.ndarray, rows: int = 30, seed: int = 0) -> TextCounts:
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(len(TEXTS)), rows)
    t = (rng.random(len(codes)) < expit(signal[codes])).astype(float)
    y = (rng.random(len(codes)) < expit(-signal[codes])).astype(float)
    return TextCounts.of(codes, t, y, np.ones(len(codes)), len(TEXTS))


def quickly(folder: Path, counts: TextCounts, **changed: Any) -> Tuned:
    settings: dict[str, Any] = {"encoder": str(folder), "epochs": 1, "progress": False}
    return tune_encoder(TEXTS, counts, **{**settings, **changed})


def test_the_real_encoder_learns_words_and_predicts_texts_without_rows() -> None:
    unseen = np.array([text.split()[2] in ("horse", "song") for text in TEXTS])
    counts = draw(1.5 * MOOD).keep(~unseen)
    tuned = tune_encoder(TEXTS, counts, epochs=3, lr=5e-4, holdout=draw(1.5 * MOOD, 5, 1), progress=False)
    z = tuned.predict(TEXTS)
    assert z.shape == (len(TEXTS), 3)
    assert np.corrcoef(z[unseen, 0], MOOD[unseen])[0, 1] > 0.8
    assert np.corrcoef(z[unseen, 1], -MOOD[unseen])[0, 1] > 0.8
    assert min(tuned.history) < tuned.history[0] - 0.05
    assert tuned.embed(TEXTS[:2]).shape == (2, 384)


def test_the_best_epoch_is_kept(tiny: Path) -> None:
    held = draw(np.zeros(len(TEXTS)), 5, 1)
    tuned = quickly(tiny, draw(np.zeros(len(TEXTS)), 1), epochs=3, lr=0.01, holdout=held)
    assert len(tuned.history) == 4
    assert tuned.history[tuned.epochs] == min(tuned.history)
    assert nuisance_loss(tuned.predict(TEXTS), held) == pytest.approx(min(tuned.history), abs=1e-4)


def test_the_constants_are_kept_where_no_epoch_beats_them(tiny: Path) -> None:
    train = draw(3 * MOOD)
    tuned = quickly(tiny, train, lr=0.01, epochs=4, holdout=draw(-3 * MOOD))
    assert tuned.epochs == 0
    assert np.allclose(tuned.predict(TEXTS), train.constants, atol=1e-5)


def test_a_seed_gives_the_same_again_and_order_has_no_say(tiny: Path) -> None:
    counts, held = draw(MOOD), draw(MOOD, 5, 1)
    first = quickly(tiny, counts, holdout=held)
    order = np.random.default_rng(0).permutation(len(TEXTS))
    texts = [TEXTS[i] for i in order]
    turned = tune_encoder(
        texts, counts.at(order), encoder=str(tiny), epochs=1, holdout=held.at(order), progress=False
    )
    assert np.array_equal(quickly(tiny, counts, holdout=held).predict(TEXTS), first.predict(TEXTS))
    assert np.allclose(turned.predict(TEXTS), first.predict(TEXTS), atol=1e-3)
    assert turned.saw == first.saw
    assert quickly(tiny, counts.keep(MOOD > 0), holdout=held).saw != first.saw


def test_texts_without_training_rows_leave_no_trace(tiny: Path) -> None:
    some = draw(MOOD).keep(MOOD > 0)
    held = draw(MOOD, 5, 1)
    first = quickly(tiny, some, holdout=held)
    others = [text if mood > 0 else "something else" + text for text, mood in zip(TEXTS, MOOD, strict=True)]
    again = tune_encoder(
        others, some, encoder=str(tiny), epochs=1, holdout=held.keep(MOOD > 0), progress=False
    )
    kept = quickly(tiny, some, holdout=held.keep(MOOD > 0))
    assert np.array_equal(again.predict(TEXTS), kept.predict(TEXTS))
    assert first.saw != again.saw


def test_padding_changes_no_prediction(tiny: Path) -> None:
    tuned = quickly(tiny, draw(MOOD))
    long = "a " * 40 + "coat"
    assert np.allclose(tuned.predict([*TEXTS[:3], long])[:3], tuned.predict(TEXTS[:3]), atol=0.02)
    assert tuned.predict([]).shape == (0, 3)
    assert np.isfinite(tuned.predict(["", "\ud800"])).all()


def test_lora_says_what_to_install(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainable, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install peft.*method='full'"):
        quickly(tiny, draw(MOOD), method="lora")


def test_lora_tunes_few_weights(tiny: Path) -> None:
    pytest.importorskip("peft")
    tuned = quickly(tiny, draw(MOOD), method="lora", epochs=2)
    assert tuned.predict(TEXTS).shape == (len(TEXTS), 3)
    trained = [p.requires_grad for p in tuned.network.encoder.parameters()]
    assert 0 < sum(trained) < len(trained)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"method": "head"}, "method"),
        ({"epochs": 0}, "epochs"),
        ({"lr": 0.0}, "lr"),
        ({"holdout": 0.0}, "holdout"),
    ],
)
def test_settings_out_of_bounds_are_refused(tiny: Path, wrong: dict[str, Any], what: str) -> None:
    with pytest.raises(ArgumentError, match=what):
        quickly(tiny, draw(MOOD), **wrong)


def test_nothing_to_train_on_is_refused(tiny: Path) -> None:
    counts = draw(MOOD)
    with pytest.raises(RepresentationError, match="has 64 texts, must have 63"):
        tune_encoder(TEXTS[1:], counts, encoder=str(tiny))
    with pytest.raises(RepresentationError, match="must be >= 1"):
        quickly(tiny, counts.keep(MOOD > 2), holdout=counts)
    with pytest.raises(ModelNotFoundError, match="was not found"):
        quickly(tiny / "nowhere", counts)


def test_it_is_frozen(tiny: Path) -> None:
    tuned = quickly(tiny, draw(MOOD))
    assert replace(tuned, epochs=0).history == tuned.history
    assert "Network" not in repr(tuned)
