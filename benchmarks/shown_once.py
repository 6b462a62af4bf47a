"""Texts shown once: how much of the bias goes, and how often bias-aware intervals cover, where their assumption holds and where it fails.

    CAUSALREC_DATA=... python benchmarks/shown_once.py [--reps 100] [--others 20] [--designs ...] [--quick]

Four designs, every text in one row at the most:

- natural-1: headlines whose words act, through lists that no representation was built from (10,000 rows);
- written-1: written texts that the embedding says nearly all of (6,000 rows): nothing should be over-corrected;
- hash-1: as natural-1, with half of either index a fixed coin of the whole text, which no two texts share and no model
  can learn: every assumption about what was learnt, or is shared, fails;
- tossed-1: as natural-1, with words that act on clicks only: nothing to take out, and what looking for it costs.

*default* is what ``estimate`` gives: pairs of rows with like texts, half of what they take out allowed for.

Seeds are 1, 2, …; those used while defaults were being chosen (990000 to 990039) are not among them. LearningCurve and
OmittedVariable run in the first `--others` repetitions. Finished repetitions are kept in benchmarks/cache/ and not
run again. Prints a table; writes benchmarks/results/shown_once.json.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from natural_text import natural_law, some
from scipy.stats import binomtest
from text_worlds import Cell, Draw, worlds
from vocab_text import Law, Pool, written_law, written_pool

import causalrec as cr
from causalrec import scores
from causalrec.estimate.bias_aware import LearningCurve, OmittedVariable, SimilarTexts, bias_aware

HERE = Path(__file__).parent
SIMILAR = {
    "similar (0.5, 1.5)": SimilarTexts(),
    "similar (0.75, 1.25)": SimilarTexts((0.75, 1.25)),
    "similar (0, 1)": SimilarTexts((0.0, 1.0)),
    "similar (1, 1)": SimilarTexts((1.0, 1.0)),
}
OTHERS = {
    "curve 1.3": LearningCurve(),
    "curve 2": LearningCurve(total=2.0),
    "omitted 1": OmittedVariable(),
    "omitted 0.5": OmittedVariable(times=0.5),
}
BATCH = 5


def coined(pool: Pool) -> Law:
    """The natural law with each index √½ · (index + coin), the coin ±1 by a hash of the whole text."""
    law = natural_law(pool)
    coin = np.array([1.0 if zlib.crc32(t.encode()) % 2 else -1.0 for t in pool.texts])
    exposure = np.sqrt(0.5) * (pool.latent("exposure") + coin) - 0.1
    click = -1.25 + 0.9 * np.sqrt(0.5) * (pool.latent("click") + coin)
    return replace(law, exposure=exposure, click=click)


def tossed(pool: Pool) -> Law:
    """The natural law, but no word acts on exposure."""
    return replace(natural_law(pool), exposure=np.zeros(len(pool)))


def draws() -> dict[str, Callable[[int], Draw]]:
    """How a log of each design is drawn from its seed."""
    headlines = partial(some, "headlines", 12_387)
    return {
        "natural-1": worlds()["natural-1"].draw,
        "written-1": Cell("written-1", 6_000, written_pool, written_law, exact=True).make,
        "hash-1": Cell("hash-1", 10_000, headlines, coined, exact=True).make,
        "tossed-1": Cell("tossed-1", 10_000, headlines, tossed, exact=True).make,
    }


def one(draw: Callable[[int], Draw], seed: int, others: bool) -> dict[str, Any]:
    """Errors and intervals of one repetition."""
    d = draw(seed)
    truth = d.truth["ate"]
    fit = cr.estimate(d.log, d.plan, random_state=seed)
    best = scores.aipw_ate(d.log.treatment, d.log.outcome, d.e, d.m0, d.m1)
    oracle = scores.clustered_ratio(best, d.log.units)
    out: dict[str, Any] = {"seed": seed, "naive": fit.naive_effect - truth}
    out["oracle"] = _interval(oracle.value, oracle.ci_lower, oracle.ci_upper, truth)
    first = fit.first_order
    out["first order"] = _interval(first.value, first.ci_lower, first.ci_upper, truth)
    out["default"] = _interval(fit.effect, fit.ci_lower, fit.ci_upper, truth)
    texts = [(name, *d.log.texts(name)) for name in d.log.roles.text]
    for name, assumption in (SIMILAR | OTHERS if others else SIMILAR).items():
        b = bias_aware(fit.analysis, assumption, texts, np.random.default_rng(seed))
        out[name] = _interval(b.value, b.ci_lower, b.ci_upper, truth)
    return out


def _interval(value: float, lower: float, upper: float, truth: float) -> dict[str, float]:
    return {"error": value - truth, "width": upper - lower, "covered": float(lower <= truth <= upper)}


def run(design: str, reps: int, others: int) -> list[dict[str, Any]]:
    """The repetitions of a design, in batches from the cache where they are there."""
    draw, rows = draws()[design], []
    for start in range(1, reps + 1, BATCH):
        seeds = range(start, min(start + BATCH, reps + 1))
        full = start <= others
        file = HERE / "cache" / f"shown-once-{design}-{seeds[0]}-{seeds[-1]}{'-all' if full else ''}.json"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            part = file.with_suffix(".part")
            part.write_text(json.dumps([one(draw, seed, full) for seed in seeds]))
            part.replace(file)
            print(design, f"{seeds[-1]}/{reps}", flush=True)
        rows += json.loads(file.read_text())
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """A row of the table for each method; the naive bias is that of the same repetitions."""
    table = {}
    for method in ("oracle", "first order", "default", *SIMILAR, *OTHERS):
        here = [r for r in rows if method in r]
        if not here:
            continue
        error, width, covered = (
            np.array([r[method][k] for r in here]) for k in ("error", "width", "covered")
        )
        naive = np.array([r["naive"] for r in here])
        chance = np.array([r["oracle"]["error"] for r in here])
        bias = (error - chance).mean()
        interval = binomtest(int(covered.sum()), len(here)).proportion_ci(method="wilson")
        table[method] = {
            "reps": len(here),
            "naive_bias": float((naive - chance).mean()),
            "bias": float(bias),
            "bias_mc": float((error - chance).std(ddof=1) / np.sqrt(len(here))),
            "sd": float(error.std(ddof=1)),
            "rmse_over_oracle": float(np.sqrt((error**2).mean() / (chance**2).mean())),
            "share_gone": float(1 - bias / (naive - chance).mean()),
            "share_gone_raw": float(1 - error.mean() / naive.mean()),
            "coverage": float(covered.mean()),
            "coverage_low": float(interval.low),
            "coverage_high": float(interval.high),
            "width": float(width.mean()),
            "width_over_oracle": float(width.mean() / np.mean([r["oracle"]["width"] for r in here])),
            "width_over_naive": float(width.mean() / abs(naive.mean())),
        }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reps", type=int, default=100, help="repetitions a design")
    parser.add_argument("--others", type=int, default=20, help="repetitions with the slower assumptions too")
    parser.add_argument("--designs", nargs="*", default=list(draws()))
    parser.add_argument("--quick", action="store_true", help="5 repetitions, nothing written")
    options = parser.parse_args()
    reps = 5 if options.quick else options.reps
    results = HERE / "results" / "shown_once.json"
    tables = json.loads(results.read_text())["designs"] if results.exists() else {}
    for design in options.designs:
        tables[design] = tables.get(design, {}) | summary(run(design, reps, options.others))
        for method, s in tables[design].items():
            print(f"{design:10} {method:21}", *(f"{k} {v:.4g}" for k, v in s.items()), flush=True)
    if not options.quick:
        results.parent.mkdir(exist_ok=True)
        results.write_text(json.dumps({"seeds": "1 …", "designs": tables}, indent=1))


if __name__ == "__main__":
    main()
