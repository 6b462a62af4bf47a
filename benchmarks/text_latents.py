"""O2: the package's first-order estimate given the true latents of the words, their squares and products, in place of the words.

    CAUSALREC_DATA=... python benchmarks/text_latents.py [--reps 100] [--cells NAME ...]

What an analyst could reach who knew the few numbers through which the words act, nuisances still fitted: the share of
the distance to O1 that no representation can close. Seeds are those of ``text_confounding.py``.
Writes benchmarks/results/text_latents.json after each cell.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
from pathlib import Path

import numpy as np
from text_confounding import ATO, CELLS, SEED, summary_of

HERE = Path(__file__).parent


def one(cell: str, seed: int) -> dict[str, float]:
    """Error and coverage on one log."""
    import text_worlds

    import causalrec as cr

    draw = text_worlds.worlds()[cell].draw(seed)
    estimand = "ato" if cell in ATO else "ate"
    truth = draw.truth[estimand]
    model = cr.DoublyRobust(estimand=estimand, correction=cr.Correction(order=1), random_state=seed)
    z = draw.z
    i, j = np.triu_indices(z.shape[1])
    w = np.column_stack([z, z[:, i] * z[:, j]])
    found = model.fit(draw.log.outcome, draw.log.treatment, W=w, groups=draw.log.units)
    return {
        "o2": found.effect_ - truth,
        "o2_se": found.std_error_,
        "o2_covers": float(found.ci_lower_ <= truth <= found.ci_upper_),
        "o2_rejects": float(not found.ci_lower_ <= 0 <= found.ci_upper_),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reps", type=int, default=100)
    parser.add_argument("--cells", nargs="*", default=CELLS)
    options = parser.parse_args()
    file = HERE / "results" / "text_latents.json"
    table = json.loads(file.read_text())["cells"] if file.exists() else {}
    for cell in options.cells:
        rows = [one(cell, SEED + r) for r in range(options.reps)]
        table[cell] = summary_of("o2", rows) | {"rmse": float(np.sqrt(np.mean([r["o2"] ** 2 for r in rows])))}
        print(cell, {k: round(v, 4) for k, v in table[cell].items()}, flush=True)
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"seed": SEED, "cells": table}, indent=1))


if __name__ == "__main__":
    main()
