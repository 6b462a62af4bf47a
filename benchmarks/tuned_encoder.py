"""How much of the true exposure and click log odds of unseen texts each representation explains, and how long it takes.

    CAUSALREC_DATA=... python benchmarks/tuned_encoder.py [--world natural-4] [--seeds 990001] [--epochs 2] [--threads 2]

A tenth of the texts is held out with all its rows. On the rows of the others are fitted: ridge on the frozen vectors;
the same with word n-grams; the bottleneck; the tuned encoder. The figure is the squared correlation of predicted log
odds with the true index over the held-out texts. Results are added to benchmarks/results/tuned_encoder.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import logit
from text_worlds import Draw, worlds

from causalrec.blocks import Block
from causalrec.nuisance import NuisanceRecipe, Problem, fit_nuisances, learn_design
from causalrec.represent.bottleneck import fit_bottleneck
from causalrec.represent.counts import TextCounts
from causalrec.represent.ngrams import WordNgrams
from causalrec.represent.tuned import tune_encoder

OUT = Path(__file__).parent / "results" / "tuned_encoder.json"
HELD_OUT = 0.1
METHODS = ("frozen", "ngrams", "bottleneck", "tuned")
Floats = npt.NDArray[np.float64]


def ridge(blocks: list[npt.NDArray[np.float32]], item: npt.NDArray[np.int64], draw: Draw) -> Floats:
    """Logits (m, 3) of all texts by ridge on blocks of vectors (m, d) each, fitted to rows of some texts."""
    t, y = draw.log.treatment, draw.log.outcome
    m, rows = len(blocks[0]), np.flatnonzero(item >= 0)
    made = [Block(f"text:{i}", "text", v, item[rows], (f"{i}",), "") for i, v in enumerate(blocks)]
    recipe, design = learn_design(made, len(rows))
    fold = np.random.default_rng(0).permutation(np.arange(len(rows)) % 3)
    problem = Problem(t[rows], y[rows], np.ones(len(rows)), design, design, fold, True)
    every = [Block(b.name, b.kind, b.values, np.arange(m), b.columns, "") for b in made]
    new = recipe.apply(every, m)
    return logit(np.column_stack(fit_nuisances(problem, NuisanceRecipe()).predict(new, new)))


def explained(z: Floats, exposure: Floats, click: Floats, where: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Squared correlations over some texts; the click index against the mean of the two arms' logits."""
    click_logit = z[where, 1:].mean(axis=1)
    return {
        "exposure": float(np.corrcoef(z[where, 0], exposure[where])[0, 1] ** 2),
        "click": float(np.corrcoef(click_logit, click[where])[0, 1] ** 2),
    }


def measure(world: str, seed: int, epochs: int, lr: float | None, methods: list[str]) -> list[dict[str, Any]]:
    draw = worlds()[world].draw(seed)
    vectors, exposure, click = worlds()[world].indices()
    texts, item = list(draw.log.frame["title"].cat.categories), draw.extra["item"]
    m = len(texts)
    held = np.random.default_rng(seed).random(m) < HELD_OUT
    item = np.where(held[item], -1, item)
    rows = np.flatnonzero(item >= 0)
    t, y = draw.log.treatment[rows], draw.log.outcome[rows]
    counts = TextCounts.of(item[rows], t, y, np.ones(len(rows)), m)
    info: dict[str, Any] = {}

    def tuned() -> Floats:
        found = tune_encoder(texts, counts, epochs=epochs, lr=lr)
        info.update(history=found.history, epochs=found.epochs, lr=lr)
        return found.predict(texts)

    fits: dict[str, Callable[[], Floats]] = {
        "frozen": lambda: ridge([vectors], item, draw),
        "ngrams": lambda: ridge([vectors, WordNgrams().fit_transform(texts)], item, draw),
        "bottleneck": lambda: fit_bottleneck(vectors, counts, keys=texts).predict(vectors),
        "tuned": tuned,
    }
    out = []
    for name in methods:
        info.clear()
        start, cpu = time.perf_counter(), time.process_time()
        z = fits[name]()
        took = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
        row = {"world": world, "seed": seed, "method": name, "rows": len(rows), "texts": int((~held).sum())}
        out.append(row | explained(z, exposure, click, held) | took | info)
        print(out[-1], flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--world", default="natural-4")
    parser.add_argument("--seeds", type=int, nargs="+", default=[990001])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--lr", type=float, default=None)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    rows = json.loads(OUT.read_text())["rows"] if OUT.exists() else []
    for seed in asked.seeds:
        for row in measure(asked.world, seed, asked.epochs, asked.lr, asked.methods):
            row |= {"threads": asked.threads, "load": os.getloadavg()[0]}
            key = ("world", "seed", "method", "lr", "threads")
            rows = [r for r in rows if [r.get(k) for k in key] != [row.get(k) for k in key]] + [row]
            OUT.write_text(json.dumps({"machine": platform.platform(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
