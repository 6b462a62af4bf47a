"""A small and fast encoder for production: export to ONNX int8, behind gates on its vectors and on the effect."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from causalrec._checks import as_generator, check_scalar
from causalrec._display import Displayable
from causalrec.finetune.fast import (
    FORMAT,
    MANIFEST,
    NETWORK,
    FastEncoder,
    default_threads,
    need,
)
from causalrec.finetune.folder import copy_beside, digest, new_folder, written
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
from causalrec.represent.encoder import CPU_TOKENS, _batches
from causalrec.represent.text import TextEmbedder

CALIBRATION_TEXTS, HELD_BACK_TEXTS, TIMED_TEXTS, REPEATS = 512, 2_000, 200, 5


@dataclass(frozen=True)
class ExportReport(Displayable):
    """What an export cost and gained.

    Attributes
    ----------
    source : str
        Fingerprint of the encoder that was exported.
    int8 : bool
    n_calibration, n_held_back : int
        Texts on which scales were found, and others on which the vectors were compared.
    cosine_least, cosine_1_percent, cosine_median : float
        Between the float32 vectors and the exported encoder's, on the texts held back.
    effect, effect_fast, std_error : float or None
        The effect of the log with either encoder's vectors, outcomes per impression; None without a log.
    bytes_before, bytes_after : int
        Weights on disk.
    texts_per_s_before, texts_per_s_after : float
        Medians of `repeats` alternating runs over `n_timed` distinct texts on `threads` threads of this machine.
    speedup : float
        Median over the pairs of runs of the ratio of their times.
    min_cosine, max_shift : float
        The bounds of the gates.
    """

    source: str
    int8: bool
    n_calibration: int
    n_held_back: int
    cosine_least: float
    cosine_1_percent: float
    cosine_median: float
    effect: float | None
    effect_fast: float | None
    std_error: float | None
    bytes_before: int
    bytes_after: int
    texts_per_s_before: float
    texts_per_s_after: float
    speedup: float
    n_timed: int
    repeats: int
    threads: int
    min_cosine: float
    max_shift: float

    @property
    def shift(self) -> float | None:
        """By how many standard errors the effect moved; None where no log was given."""
        return shift_of(self.effect, self.effect_fast, self.std_error)

    @property
    def gates(self) -> tuple[Gate, ...]:
        """The gates that were asked for; an encoder that exists has passed them."""
        cosine = Gate("least cosine on texts held back", self.cosine_least, "≥", self.min_cosine)
        return (cosine,) if self.shift is None else (cosine, Gate("shift of the effect, in standard errors", self.shift, "<", self.max_shift))

    def _title(self) -> str:
        return f"Encoder exported to ONNX {'int8' if self.int8 else 'float32'}, from {self.source}"

    def _rows(self) -> list[dict[str, Any]]:
        mib = 2.0**20
        return [
            {"what": "least cosine", "before": 1.0, "after": self.cosine_least, "gate": f"≥ {self.min_cosine:g}: passed"},
            {"what": "1 % quantile of the cosine", "before": 1.0, "after": self.cosine_1_percent, "gate": ""},
            {"what": "median cosine", "before": 1.0, "after": self.cosine_median, "gate": ""},
            {"what": "effect", "before": self.effect, "after": self.effect_fast, "gate": "not asked" if self.shift is None else f"moved < {self.max_shift:g} SE: passed"},
            {"what": "weights on disk, MiB", "before": self.bytes_before / mib, "after": self.bytes_after / mib, "gate": ""},
            {"what": "texts per second", "before": self.texts_per_s_before, "after": self.texts_per_s_after, "gate": ""},
        ]  # fmt: skip

    def _notes(self) -> list[str]:
        notes = [
            f"{self.speedup:.2f} times as fast: median of {self.repeats} pairs of runs over {self.n_timed:,} distinct texts, {self.threads} threads.",
            f"Scales were found on {self.n_calibration:,} texts, vectors compared on {self.n_held_back:,} others.",
        ]
        if self.shift is not None:
            return [*notes, f"The effect moved by {self.shift:.3f} standard errors (of {self.std_error:.3g})."]
        return [*notes, "No log was given, so it was not checked that an effect estimated with these vectors stays where it was."]


def export_onnx(
    encoder: TextEmbedder,
    folder: str | PathLike[str],
    *,
    texts: Iterable[str | None],
    int8: bool = True,
    log: ImpressionLog | None = None,
    plan: Plan | None = None,
    min_cosine: float = 0.98,
    max_shift: float = 0.1,
    threads: int | None = None,
    random_state: int | np.random.Generator | None = None,
) -> FastEncoder:
    """Export an encoder to ONNX, in int8, and keep it only if its vectors, and the effect, stay where they were.

    Parameters
    ----------
    encoder : TextEmbedder
        Frozen, tuned or distilled; whose clicks it has seen is remembered.
    folder : path
        A new or empty folder; it appears when all gates are passed, or not at all.
    texts : iterable of str
        Texts such as the encoder will read, at least 64 distinct ones. Half of them (at most 512) set the int8 scales, the others (at
        most 2,000) are held back for the comparison.
    int8 : bool
        False keeps float32: a change of engine only.
    log, plan : ImpressionLog and Plan, or None
        Where both are given, the effect is estimated with either encoder's vectors and the same folds. The plan is that of
        the embedded log.
    min_cosine : float
        The least that the cosine to the float32 vector may be, of any text held back.
    max_shift : float
        The effect has to move by less than this many standard errors.
    threads : int or None
        Of the timing, on both sides, and of the encoder returned; None is ``$OMP_NUM_THREADS`` or all cores.
    random_state : int, Generator or None
        Which texts are held back, and the folds of the two estimates.

    Returns
    -------
    FastEncoder
        Its ``report`` is an ``ExportReport``.

    Raises
    ------
    RepresentationError
        A gate was not passed, there are too few texts, or the model has parts that cannot be exported.
    ArgumentError
        `encoder` is no TextEmbedder, or one that is exported already; a log without its plan.
    HonestyError
        The encoder has seen clicks of users of `log`.
    OutputError
        The folder holds something, the disk is full.
    MissingExtraError
        onnx, onnxscript or onnxruntime is not installed.
    """
    check_encoder(encoder)
    min_cosine = check_scalar(min_cosine, "min_cosine", ge=0, le=1)
    max_shift = check_scalar(max_shift, "max_shift", gt=0)
    threads = default_threads() if threads is None else check_scalar(threads, "threads", ge=1, integer=True)
    check_pair(log, plan, encoder)
    target, words, rng = new_folder(folder, "export_onnx"), distinct_texts(texts), as_generator(random_state)
    need("onnx", "onnxscript", "onnxruntime")
    order = rng.permutation(len(words))
    n_calibration = min(len(words) // 2, CALIBRATION_TEXTS)
    calibration = [words[i] for i in order[:n_calibration]]
    held = [words[i] for i in order[n_calibration : n_calibration + HELD_BACK_TEXTS]]
    with written(target, "the encoder") as half:
        _write(encoder, half, calibration, int8)
        fast = FastEncoder(str(half), threads=threads, max_length=encoder.max_length, cache_dir=False, progress=encoder.progress)
        cosine = cosines(encoder.transform(held), fast.transform(held))
        Gate("least cosine on texts held back", float(cosine.min()), "≥", min_cosine).enforce(
            "Give more texts, and texts like those that it will read; take int8=False, which keeps float32; or lower min_cosine if you can answer for it."
        )
        moved = gated_shift(log, plan, (encoder, fast), max_shift, int(rng.integers(2**31)))
        timed = throughput(encoder, fast, held[:TIMED_TEXTS], threads)
        report = ExportReport(
            source=encoder.fingerprint, int8=int8, n_calibration=len(calibration), n_held_back=len(held),
            cosine_least=float(cosine.min()), cosine_1_percent=float(np.quantile(cosine, 0.01)), cosine_median=float(np.median(cosine)),
            effect=moved.effect if moved else None, effect_fast=moved.effect_fast if moved else None, std_error=moved.std_error if moved else None,
            bytes_before=sum(f.stat().st_size for f in encoder._files().folder.glob("*.safetensors")),
            bytes_after=(half / NETWORK).stat().st_size, texts_per_s_before=timed.before, texts_per_s_after=timed.after,
            speedup=timed.ratio, n_timed=timed.n, repeats=REPEATS, threads=threads, min_cosine=min_cosine, max_shift=max_shift,
        )  # fmt: skip
        _write_manifest(half, encoder, report)
    return FastEncoder(
        str(folder), threads=threads, batch_size=encoder.batch_size, max_length=encoder.max_length, cache_dir=encoder.cache_dir, progress=encoder.progress
    )


def _write(encoder: TextEmbedder, folder: Path, calibration: list[str], int8: bool) -> None:
    """The graph, the tokenizer and the manifest, still without a report."""
    from causalrec.finetune.quantise import write_graph

    files, loaded = encoder._files(), encoder._encoder()
    tokens = loaded.tokenize(calibration)
    batches = [np.array([tokens[i] for i in b], dtype=np.int64) for b in _batches(np.array([len(t) for t in tokens]), CPU_TOKENS, None)]
    copy_beside(files.folder, folder)
    write_graph(files, batches, folder / NETWORK, int8)
    _write_manifest(folder, encoder, None)


def _write_manifest(folder: Path, encoder: TextEmbedder, report: ExportReport | None) -> None:
    from causalrec import __version__

    names = [p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*")) if p.is_file() and p.name != MANIFEST]
    loaded = encoder._encoder()
    manifest = {
        "format": FORMAT, "causalrec": __version__, "source": encoder.fingerprint, "pooling": loaded.files.pooling,
        "width": loaded.width, "max_length": loaded.max_length,
        "files": {n: {"sha256": digest(folder / n), "bytes": (folder / n).stat().st_size} for n in names},
        "report": None if report is None else asdict(report),
    }  # fmt: skip
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")


@dataclass(frozen=True)
class Throughput:
    """Texts a second of two encoders, medians; the median ratio of the pairs of runs; and over how many texts."""

    before: float
    after: float
    ratio: float
    n: int


def throughput(encoder: TextEmbedder, fast: TextEmbedder, texts: list[str], threads: int) -> Throughput:
    """Time both, without their caches, on the CPU, in turn."""
    plain = TextEmbedder(
        encoder.model, revision=encoder.revision, device="cpu", batch_size=encoder.batch_size, max_length=encoder.max_length, cache_dir=False, progress=False
    )
    with torch_threads(threads):
        before, after = alternate([lambda: plain.transform(texts), lambda: fast.transform(texts)], REPEATS)
    ratio = statistics.median(b / a for b, a in zip(before, after, strict=True))
    return Throughput(len(texts) / statistics.median(before), len(texts) / statistics.median(after), ratio, len(texts))


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """As many threads for torch, and as many as before afterwards."""
    import torch

    kept = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(kept)


def alternate(actions: Sequence[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Seconds of each action, run in turn after one run of each that does not count."""
    seconds: list[list[float]] = [[] for _ in actions]
    for turn in range(repeats + 1):
        for action, kept in zip(actions, seconds, strict=True):
            start = time.perf_counter()
            action()
            if turn:
                kept.append(time.perf_counter() - start)
    return seconds
