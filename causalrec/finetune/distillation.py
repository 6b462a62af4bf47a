"""A smaller encoder that says the same: a student of fewer layers, trained to reproduce the teacher's sentence vectors."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from causalrec._checks import as_generator, check_scalar
from causalrec._display import Displayable
from causalrec.finetune.fitting import need_trainer, own_randomness
from causalrec.finetune.folder import new_folder, written
from causalrec.finetune.gates import (
    Gate,
    check_encoder,
    check_pair,
    cosines,
    distinct_texts,
    gated_shift,
    shift_of,
)
from causalrec.identify import Plan
from causalrec.log import ImpressionLog
from causalrec.represent.text import TextEmbedder

RESULT = "causalrec_distilled.json"
LEAST_HELD = 16


@dataclass(frozen=True)
class Distilled(Displayable):
    """A student and how well it says what its teacher says.

    Attributes
    ----------
    encoder : TextEmbedder
        The student, in a folder of its own.
    teacher : str
        Fingerprint of the teacher.
    layers, teacher_layers : int
    n_weights, n_teacher_weights : int
    n_texts, n_held_out : int
        Distinct texts it was trained on, and others that it is judged on.
    history : tuple of float
        Mean held-out cosine before training and after each epoch.
    cosine_least, cosine_1_percent, cosine_median, cosine_mean : float
        To the teacher's vectors, on the texts held out.
    effect, effect_student, std_error : float or None
        The effect of the log with either encoder's vectors; None without a log.
    min_cosine, max_shift : float
        The bounds: of the mean cosine, and of the effect's shift in standard errors.
    """

    encoder: TextEmbedder = field(repr=False)
    teacher: str
    layers: int
    teacher_layers: int
    n_weights: int
    n_teacher_weights: int
    n_texts: int
    n_held_out: int
    history: tuple[float, ...]
    cosine_least: float
    cosine_1_percent: float
    cosine_median: float
    cosine_mean: float
    effect: float | None
    effect_student: float | None
    std_error: float | None
    min_cosine: float
    max_shift: float

    @property
    def shift(self) -> float | None:
        """By how many standard errors the effect moved; None where no log was given."""
        return shift_of(self.effect, self.effect_student, self.std_error)

    def _title(self) -> str:
        return f"Encoder of {self.layers} layers, distilled from {self.teacher_layers} of {self.teacher}"

    def _rows(self) -> list[dict[str, Any]]:
        values = {
            "mean cosine, held out": self.cosine_mean, "median cosine": self.cosine_median, "1 % quantile": self.cosine_1_percent,
            "least cosine": self.cosine_least, "weights": self.n_weights, "of the teacher": self.n_teacher_weights,
        }  # fmt: skip
        return [{"what": name, "value": value} for name, value in values.items()]

    def _notes(self) -> list[str]:
        steps = " → ".join(f"{h:.3f}" for h in self.history)
        notes = [
            f"Mean cosine on {self.n_held_out:,} texts held out, before training and after each epoch over {self.n_texts:,} texts: {steps}.",
            "The student has seen texts and vectors, no clicks; whose clicks its teacher has seen, it remembers.",
        ]
        if self.shift is None:
            return [*notes, "No log was given, so it was not checked that an effect estimated with these vectors stays where it was."]
        return [*notes, f"The effect moved from {self.effect:.4g} to {self.effect_student:.4g}: {self.shift:.3f} standard errors."]


def distil(
    encoder: TextEmbedder,
    folder: str | PathLike[str],
    *,
    texts: Iterable[str | None],
    layers: int = 3,
    epochs: int = 6,
    holdout: float = 0.1,
    lr: float = 3e-4,
    log: ImpressionLog | None = None,
    plan: Plan | None = None,
    min_cosine: float = 0.98,
    max_shift: float = 0.1,
    random_state: int | None = None,
    progress: bool = True,
) -> Distilled:
    """Train a student of fewer layers to give the teacher's vectors of the same texts, and write it to a folder.

    The student begins as layers of the teacher, evenly spaced from its first to its last (as DistilBERT takes one of two: Sanh et al.
    2019, §3), and learns by ``1 − cos(student, teacher)``, the squared distance of unit vectors halved (Reimers & Gurevych
    2020, eq. 1). It sees texts and the teacher's vectors only. ``transformers.Trainer`` runs the training.

    Parameters
    ----------
    encoder : TextEmbedder
        The teacher: frozen or tuned.
    folder : path
        A new or empty folder; it appears complete, or not at all. ``TextEmbedder(folder)`` reads it.
    texts : iterable of str
        At least 64 distinct ones, such as the student will read. Vectors of other texts are less like the teacher's.
    layers : int
        Of the student; fewer than the teacher has.
    epochs : int
    holdout : float
        Share of the distinct texts that it is judged on and does not learn from.
    lr : float
        Peak learning rate of AdamW (a tenth of the steps of warm-up, then linearly to 0).
    log, plan : ImpressionLog and Plan, or None
        Where both are given, the effect with the student's vectors has to stay where it was, as in ``export_onnx``.
    min_cosine : float
        The least *mean* cosine on the texts held out. Few students reach .98 (3 of 6 layers had .934 after 11,000 headlines, 5 of 6 layers .963 after
        2,700): with a lower bound, let `log` and `plan` say whether the effect stays where it was.
    max_shift : float
        In standard errors of the effect.
    random_state : int or None
        Which texts are held out, their order, and the folds of the estimates.
    progress : bool

    Raises
    ------
    RepresentationError
        A gate was not passed, there are too few texts, or the model is not a stack of layers.
    ArgumentError
        `layers` is not below the teacher's, or `encoder` is no TextEmbedder.
    HonestyError
        The teacher has seen clicks of users of `log`.
    OutputError
        The folder holds something, or the disk is full.
    MissingExtraError
        torch, transformers or accelerate is not installed.
    """
    check_encoder(encoder)
    epochs = check_scalar(epochs, "epochs", ge=1, le=1000, integer=True)
    holdout = check_scalar(holdout, "holdout", gt=0, lt=1)
    lr = check_scalar(lr, "lr", gt=0, le=1)
    min_cosine = check_scalar(min_cosine, "min_cosine", ge=-1, le=1)
    max_shift = check_scalar(max_shift, "max_shift", gt=0)
    layers = check_scalar(layers, "layers", ge=1, integer=True)
    check_pair(log, plan, encoder)
    target, words, rng = new_folder(folder, "distil"), distinct_texts(texts), as_generator(random_state)
    need_trainer()
    from causalrec.finetune.student import make_student, teach

    words = [words[i] for i in rng.permutation(len(words))]
    n_held = min(max(LEAST_HELD, round(holdout * len(words))), len(words) - LEAST_HELD)
    seed, seed_of_folds = (int(s) for s in rng.integers(2**31, size=2))
    student = make_student(encoder._files(), layers)
    vectors = encoder.transform(words)
    with own_randomness(seed), tempfile.TemporaryDirectory() as scratch:
        tokens = encoder._encoder().tokenize(words)
        history = teach(student, tokens, vectors, n_held, epochs, lr, seed, Path(scratch), progress)
    with written(target, "the student") as half:
        student.write(encoder._files().folder, half)
        small = TextEmbedder(str(half), device=encoder.device, max_length=encoder.max_length, cache_dir=False, progress=False)
        cosine = cosines(small.transform(words[:n_held]), vectors[:n_held])
        Gate("the mean cosine to the teacher on texts held out", float(cosine.mean()), "≥", min_cosine).enforce(
            f"By epoch it was {', '.join(f'{h:.3f}' for h in history)}. Give more texts or epochs, or keep more layers; or lower min_cosine if you can answer for it."
        )
        moved = gated_shift(log, plan, (encoder, small), max_shift, seed_of_folds)
        found = Distilled(
            encoder=small, teacher=encoder.fingerprint, layers=layers, teacher_layers=student.teacher_layers,
            n_weights=student.n_weights, n_teacher_weights=student.n_teacher_weights, n_texts=len(words) - n_held, n_held_out=n_held,
            history=history, cosine_least=float(cosine.min()), cosine_1_percent=float(np.quantile(cosine, 0.01)),
            cosine_median=float(np.median(cosine)), cosine_mean=float(cosine.mean()),
            effect=moved.effect if moved else None, effect_student=moved.effect_fast if moved else None,
            std_error=moved.std_error if moved else None, min_cosine=min_cosine, max_shift=max_shift,
        )  # fmt: skip
        said = {f.name: getattr(found, f.name) for f in fields(found) if f.name != "encoder"}
        (half / RESULT).write_text(json.dumps(said, indent=1, ensure_ascii=False), encoding="utf-8")
    own = TextEmbedder(
        str(folder), device=encoder.device, batch_size=encoder.batch_size, max_length=encoder.max_length, cache_dir=encoder.cache_dir, progress=encoder.progress
    )
    return replace(found, encoder=own)
