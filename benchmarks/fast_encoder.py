"""Exported and distilled encoders on real headlines: texts a second, cosine to the float32 vectors, and what becomes of an effect.

    CAUSALREC_DATA=… python benchmarks/fast_encoder.py --work FOLDER [--threads 2] [--texts 300] [--repeats 5] [--draws 3]

Exports and students are kept in the work folder, so that a run that was cut off goes on. All encoders are timed in turn, in one
process, on the same distinct headlines and threads; the ratio is the median over the turns. The effect is that of the world "natural-4"
(48,000 rows of 12,387 headlines whose words decide exposure and click), once a draw with each encoder's vectors, same folds and seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from text_worlds import worlds

import causalrec as cr
from causalrec.finetune.distillation import RESULT, distil
from causalrec.finetune.export import alternate, export_onnx, torch_threads
from causalrec.finetune.fast import NETWORK, FastEncoder
from causalrec.finetune.gates import EffectShift, cosines
from causalrec.represent.weights import DEFAULT_MODEL, locate

PACKAGES = ("torch", "transformers", "onnx", "onnxruntime", "sentence-transformers", "numpy")
FIRST_SEED = 20_261_122
WORLD = "natural-4"
FEW = 500


def headlines() -> list[str]:
    """The distinct headlines, in a fixed random order."""
    found = sorted(set(cr.datasets.load_upworthy()["headline"].dropna()))
    return [found[i] for i in np.random.default_rng(0).permutation(len(found))]


def encoders(work: Path, texts: list[str], options: argparse.Namespace) -> dict[str, cr.TextEmbedder]:
    """Ours in float32, the exports, and the student; made where they are not there yet."""
    plain = cr.TextEmbedder(device="cpu", progress=False)
    made: dict[str, cr.TextEmbedder] = {"TextEmbedder, float32": plain}

    def exported(name: str, folder: Path, source: cr.TextEmbedder, int8: bool) -> None:
        if not folder.exists():
            export_onnx(source, folder, texts=texts, int8=int8, threads=options.threads, random_state=0)
        made[name] = FastEncoder(str(folder), threads=options.threads, progress=False)

    exported("ONNX float32", work / "float32", plain, False)
    exported("ONNX int8", work / "int8", plain, True)
    student = work / "student"
    if options.epochs:
        if not student.exists():
            some = texts[: options.student_texts]
            distil(plain, student, texts=some, layers=options.layers, epochs=options.epochs, lr=5e-4, min_cosine=0, random_state=0)
        small = cr.TextEmbedder(str(student), device="cpu", progress=False)
        made[f"student of {options.layers} layers, float32"] = small
        exported(f"student of {options.layers} layers, ONNX int8", work / "student_int8", small, True)
    return made


def speed(made: dict[str, cr.TextEmbedder], texts: list[str], threads: int, repeats: int) -> dict[str, Any]:
    """Texts a second without caches, in turn; ratios to our own float32 encoder."""
    actions: dict[str, Callable[[], object]] = {
        name: partial(type(e)(**{**e.get_params(), "cache_dir": False}).transform, texts) for name, e in made.items()
    }
    if find_spec("sentence_transformers"):
        from sentence_transformers import SentenceTransformer

        peer = SentenceTransformer(str(locate(DEFAULT_MODEL).folder), device="cpu")
        actions["SentenceTransformer.encode"] = partial(peer.encode, texts, batch_size=32, normalize_embeddings=True, show_progress_bar=False)
    load_before = os.getloadavg()
    with torch_threads(threads):
        seconds = dict(zip(actions, alternate(list(actions.values()), repeats), strict=True))
    own = seconds["TextEmbedder, float32"]
    rows = {
        name: {
            "texts_per_s": len(texts) / statistics.median(s),
            "ratio": statistics.median(b / a for b, a in zip(own, s, strict=True)),
            "ratio_of_each_turn": [b / a for b, a in zip(own, s, strict=True)],
        }
        for name, s in seconds.items()
    }
    return {"n": len(texts), "repeats": repeats, "threads": threads, "load_before": load_before, "load_after": os.getloadavg(), "of": rows}


def likeness(made: dict[str, cr.TextEmbedder], texts: list[str]) -> dict[str, Any]:
    """Cosine to the float32 vectors over all headlines (least, 1 %, median), and MiB of weights on disk."""
    plain, *_ = made.values()
    own, found = plain.transform(texts), {}
    for name, encoder in made.items():
        some = FEW if name == "ONNX float32" else len(texts)  # another engine only
        c = cosines(own[:some], encoder.transform(texts[:some]))
        folder = encoder._files().folder
        files = [folder / NETWORK] if isinstance(encoder, FastEncoder) else list(folder.glob("*.safetensors"))
        found[name] = {
            "n": len(c), "cosine_least": float(c.min()), "cosine_1_percent": float(np.quantile(c, 0.01)), "cosine_median": float(np.median(c)),
            "mib": sum(f.stat().st_size for f in files) / 2**20,
        }  # fmt: skip
    return found


def effects(made: dict[str, cr.TextEmbedder], draws: int) -> dict[str, Any]:
    """The effect with each encoder's vectors, and its shift in standard errors, over draws of the world."""
    names = [n for n in made if n != "ONNX float32"]
    found: dict[str, Any] = {n: {"effect": [], "shift_se": []} for n in names}
    truth = 0.0
    for r in range(draws):
        drawn = worlds()[WORLD].draw(FIRST_SEED + r)
        truth = drawn.truth["ate"]
        fits = {n: cr.estimate(cr.embed(drawn.log, made[n]), drawn.plan, random_state=r) for n in names}
        own = fits["TextEmbedder, float32"]
        for n, fit in fits.items():
            found[n]["effect"].append(fit.effect)
            found[n]["shift_se"].append(EffectShift(own.effect, fit.effect, own.std_error).shift)
        print(f"draw {r}: " + ", ".join(f"{n} {f.effect:.5f}" for n, f in fits.items()), f"± {own.std_error:.5f}", flush=True)
    return {"world": WORLD, "truth": truth, "draws": draws, "of": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6, help="of the distillation; 0 leaves it out")
    parser.add_argument("--student-texts", type=int, default=12_387)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/fast_encoder.json"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    texts = headlines()
    made = encoders(options.work, texts, options)
    result = {
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES if find_spec(p.replace("-", "_"))}},
        "cores": os.cpu_count(),
        "report": vars(made["ONNX int8"].report),  # type: ignore[attr-defined]
        "student": json.loads((options.work / "student" / RESULT).read_text()) if options.epochs else None,
        "speed": speed(made, texts[: options.texts], options.threads, options.repeats),
        "likeness": likeness(made, texts),
        "effects": effects(made, options.draws),
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name, row in result["speed"]["of"].items():
        like, effect = result["likeness"].get(name, {}), result["effects"]["of"].get(name, {})
        shifts = ", ".join(f"{s:.3f}" for s in effect.get("shift_se", []))
        print(f"{name:36}{row['texts_per_s']:8.0f} texts/s  ×{row['ratio']:.2f}  least cosine {like.get('cosine_least', float('nan')):.4f}  shift in SE {shifts}")


if __name__ == "__main__":
    main()
