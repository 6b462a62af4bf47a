"""Position curves from logs with a known one: bias, spread and coverage of harvesting and regression EM.

    python benchmarks/examination.py [--repeats 200]

Every log is made by the position-based model, P(click) = theta_k · P(click | examined). In "items" an old ranker puts relevant
items on top, with noise; in "users" it also knows who likes what, and logs its score; "features" is "items" with texts whose
vectors hold the relevance. Naive is the click rate by position. Writes benchmarks/results/examination.json.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import causalrec as cr
from causalrec.blocks import Block
from causalrec.errors import CausalRecWarning
from causalrec.finetune.examination import position_curve

RESULTS = Path(__file__).parent / "results" / "examination.json"
THETA = np.array([1.0, 0.8, 0.62, 0.5, 0.38, 0.3, 0.22, 0.16])
SEED = 20_261_122
CASES = {
    "items, harvest": ("items", {"method": "harvest"}),
    "items, em of items": ("items", {"method": "em"}),
    "users, harvest": ("users", {"method": "harvest"}),
    "users, harvest, weighted too": ("users", {"method": "harvest", "adjust": "both"}),
    "users, harvest, score not used": ("users", {"method": "harvest", "adjust": "none"}),
    "users, em of items and score": ("users", {"method": "em"}),
    "features, em": ("features", {"method": "em"}),
}


def draw(world: str, seed: int, n_sessions: int = 4000, n_users: int = 500, n_items: int = 200, noise: float = 1.0) -> cr.ImpressionLog:
    """A log of sessions of 12 candidates, of which the old ranker shows eight; those left over are its controls."""
    rng = np.random.default_rng(seed)
    k, pool = len(THETA), 12
    z = rng.standard_normal((n_items, 4))
    quality = 0.8 * z @ np.array([0.7, 0.5, 0.4, 0.3])
    taste = rng.standard_normal((n_users, 3))
    kind = rng.standard_normal((n_items, 3))
    user = rng.integers(0, n_users, n_sessions)
    item = np.argsort(rng.random((n_sessions, n_items)), axis=1)[:, :pool]
    liking = 0.5 * np.einsum("ud,ujd->uj", taste[user], kind[item]) if world == "users" else np.zeros(item.shape)
    score = quality[item] + liking
    order = np.argsort(-(score + noise * rng.standard_normal(item.shape)), axis=1)
    slot = np.argsort(order, axis=1)
    relevance = 1 / (1 + np.exp(1.2 - quality[item] - liking))
    shown = slot < k
    theta = np.where(shown, THETA[np.minimum(slot, k - 1)], 0.05)
    clicked = rng.random(item.shape) < theta * relevance
    frame = pd.DataFrame({
        "user": np.repeat(user, pool), "item": item.ravel(), "score": score.ravel(), "shown": shown.ravel().astype(int),
        "position": np.where(shown, slot + 1.0, np.nan).ravel(), "clicked": clicked.ravel().astype(int),
    })  # fmt: skip
    log = cr.read_log(
        frame, treatment="shown", outcome="clicked", unit="user", item="item", position="position", score="score" if world == "users" else None,
    )  # fmt: skip
    if world == "features":
        noise_axes = rng.standard_normal((n_items, 12))
        log = log.with_blocks([Block("text:title", "text", np.hstack([z, noise_axes]).astype(np.float32), item.ravel(), ("title",), "known")])
    return log


def repeat(case: str, repeats: int, first_seed: int = SEED, **how: Any) -> dict[str, Any]:
    """Bias, SD, mean standard error and coverage of theta per position over `repeats` logs."""
    world, options = CASES[case]
    found, errors, inside, naive, seconds = [], [], [], [], []
    for r in range(repeats):
        log = draw(world, first_seed + r, **how)
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CausalRecWarning)
            curve = position_curve(log, random_state=r, **options)
        seconds.append(time.perf_counter() - start)
        found.append(curve.theta)
        errors.append(curve.std_error)
        naive.append(curve.naive)
        inside.append((curve.ci_lower <= THETA) & (curve.ci_upper >= THETA))
    theta = np.array(found)
    return {
        "repeats": repeats, "rows_shown": curve.n, "users": curve.n_units, "items": curve.n_items, "information": curve.information,
        "bias": (theta.mean(axis=0) - THETA).tolist(), "sd": theta.std(axis=0, ddof=1).tolist(), "mean_se": np.mean(errors, axis=0).tolist(),
        "coverage": np.mean(inside, axis=0).tolist(), "mean_coverage": float(np.mean(inside, axis=0)[1:].mean()),
        "naive_bias": (np.mean(naive, axis=0) - THETA).tolist(), "seconds": float(np.median(seconds)),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    options = parser.parse_args()
    out = {"theta": THETA.tolist(), "seed": SEED, "cases": {}}
    for case in CASES:
        found = out["cases"][case] = repeat(case, options.repeats)
        print(
            f"{case:30s} bias {np.round(found['bias'][1:], 4)}  largest naive {max(map(abs, found['naive_bias'])):.3f}  "
            f"coverage {100 * found['mean_coverage']:.1f} %  {found['seconds']:.2f} s", flush=True,
        )  # fmt: skip
        RESULTS.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
