"""Bias, error and coverage of text adjustment against known truth: the designs of ``text_worlds.py``.

    CAUSALREC_DATA=... python benchmarks/text_confounding.py [--quick] [--cells NAME ...] [--reps R] [--workers 2] [--tune]

One repetition draws a log and estimates its ATE (ATO where the cell says so) with the package's defaults; beside it, on
the same rows: the first-order (AIPW) estimate, errors clustered by user alone, O1 (AIPW with true nuisances), O1b (the
second-order estimate with true nuisances), the naive difference, and item fixed effects. Finished chunks of ten
repetitions are kept in benchmarks/cache/ and not run again. Reporting seeds are SEED + repetition, fixed before the
first run; tuning was done on seeds from 990,000 on (``--tune``). Writes benchmarks/results/text_confounding.json.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import hashlib
import json
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

HERE = Path(__file__).parent
SEED, TUNING_SEED, CHUNK = 20_261_122, 990_000, 10
REPS: dict[str, int] = {"D0-2k": 300, "D0-10k": 1000, "D1-2k": 300, "D1-10k": 1000}
ATO = ("D3-s2", "D3-s4")
NATURAL = [f"natural-{k}{c}" for k in (20, 8, 4, 2) for c in ("", "-exact", "-zipf")]
CELLS = [
    "natural-20", "natural-8", "natural-4", "natural-2", "D0-10k", "D1-10k", "D1-50k", "D2-10k", "D2-50k", "D3-s1", "D3-s1.5",
    "D3-s2", "D3-s4", "D4", "D6", "D8-icc0.1", "D8-icc0.3", "D10", "D11-rho0", "D11-rho0.1", "D11-rho0.3", "D14", "D14-score",
    "D15", "D15carry", "D16", "natural-1", "natural-4-users", "books-8", "books-2", "D0-2k", "D1-2k", "D5-a1", "D5-a3", "D5-ainf",
    "D7-10k", "D7-50k", *[c for c in NATURAL if c.count("-") > 1],
]  # fmt: skip
MATCHED = ("D14", "D14-score")


def reps_of(cell: str, asked: int | None) -> int:
    """Repetitions of a cell: what was asked for, at most the cell's own number."""
    return min(REPS.get(cell, 300), asked or 10**9)


def one(cell: str, seed: int) -> dict[str, Any]:
    """One repetition: errors, standard errors and interval ends of every estimator."""
    import text_worlds

    import causalrec as cr
    from causalrec import scores
    from causalrec.errors import OverlapError

    draw = text_worlds.worlds()[cell].draw(seed)
    estimand = "ato" if cell in ATO else "ate"
    truth, log = draw.truth[estimand], draw.log
    t, y = log.treatment, log.outcome
    row: dict[str, Any] = {"seed": seed, "truth": truth}
    start = time.perf_counter()
    try:
        fit = cr.estimate(log, draw.plan, estimand=estimand, random_state=seed)
    except OverlapError as refusal:
        return row | {"refused": str(refusal)[:120]}
    row["seconds"] = time.perf_counter() - start
    m0, m1 = draw.extra.get("m0_seen", draw.m0), draw.extra.get("m1_seen", draw.m1)
    keep(row, "ours", fit.analysis.effect, truth)
    keep(row, "by_unit", fit.by_unit, truth)
    keep(row, "first", fit.first_order, truth)
    keep(row, "first_by_unit", scores.clustered_ratio(fit.analysis.pair, log.units), truth)
    iid = scores.estimate_of(fit.effect, fit.analysis.effect.influence, np.arange(len(t)))
    keep(row, "iid", iid, truth)
    items = fit.correction.items
    clusters = None if items is None else np.where(items < 0, items.max() + 1 + np.arange(len(t)), items)
    pair = scores.SCORES[estimand](t, y, draw.e, m0, m1)
    keep(row, "o1", scores.clustered_ratio(pair, log.units, clusters), truth)
    if items is not None:
        keep(
            row,
            "o1b",
            second_order_oracle(log, items, draw.e, m0, m1, estimand, fit.correction.kernels),
            truth,
        )
        keep(row, "item_fe", item_fixed_effects(t, y, clusters, log.units), truth)
    for kernel in ("same_item",):
        if len(fit.correction.kernels) > 1:
            alone = cr.estimate(log, draw.plan, random_state=seed, correction=cr.Correction(2, (kernel,)))
            keep(row, f"only_{kernel}", alone.analysis.effect, truth)
    e = fit.analysis.settings.clip.apply(fit.nuisances.propensity)
    a1, a0 = draw.e / e - 1, (1 - draw.e) / (1 - e) - 1
    b1, b0 = draw.m1 - fit.nuisances.outcome_1, draw.m0 - fit.nuisances.outcome_0
    left = fit.correction.left
    row |= {
        "order": fit.correction.order,
        "kernels": list(fit.correction.kernels),
        "served": fit.correction.share_served,
        "ab": float((a1 * b1 - a0 * b0).mean()),
        "a2b": float((a1**2 * b1 - a0**2 * b0).mean()),
        "naive": fit.naive_effect - truth,
        "left_z": 0.0 if left is None else left.value / left.std_error,
        "warned": len(fit.analysis.caveats),
        "clipped": fit.share_clipped,
    }
    return row


def keep(row: dict[str, Any], name: str, e: Any, truth: float) -> None:
    """Error, standard error, coverage and rejection of an estimate."""
    row[name] = e.value - truth
    row[f"{name}_se"] = e.std_error
    row[f"{name}_covers"] = float(e.ci_lower <= truth <= e.ci_upper)
    row[f"{name}_rejects"] = float(not e.ci_lower <= 0 <= e.ci_upper)


def second_order_oracle(
    log: Any, items: Any, e: Any, m0: Any, m1: Any, estimand: str, kernels: tuple[str, ...]
) -> Any:
    """O1b: the package's second-order estimate, with all pairs and the true nuisances."""
    from causalrec import kernels as ks
    from causalrec import scores
    from causalrec import second_order as so

    n = len(items)
    rows = ks.Rows(log.treatment, log.outcome, np.ones(n), log.units, items)
    at = ks.Values(np.arange(n), e, m0, m1, e, m0, m1)
    names = [k for k in kernels if k != "basis"] or ["same_item"]
    found = [ks.cluster_kernel(k, rows, np.zeros(n, dtype=np.int64), across=False) for k in names]
    found = [k for k in found if k.served.any()]
    if len(found) == 2:
        found = ks.serve_both(found[0], found[1], rows)

    def blocks() -> list[Any]:
        return [ks.BlockOfPairs(at, None)]

    centre = (float(e.mean()), float(m0.mean()), float(log.outcome.std()))
    sums = so.all_totals(rows, found, blocks, estimand, centre)
    best = so.pair_estimate(rows, found, blocks, estimand, centre, sums)
    clusters = np.where(items < 0, items.max() + 1 + np.arange(n), items)
    return scores.estimate_of(best.value, best.influence, log.units, clusters)


def item_fixed_effects(t: Any, y: Any, items: Any, units: Any) -> Any:
    """Least squares of the outcome on the treatment with an intercept for each item, errors by item and user."""
    from causalrec import scores

    def within(x: Any) -> Any:
        return x - (np.bincount(items, x) / np.maximum(np.bincount(items), 1))[items]

    td = within(t)
    beta = float((td * y).sum() / (td**2).sum())
    influence = td * (within(y) - beta * td) / (td**2).mean()
    return scores.estimate_of(beta, influence, units, items)


def stamp() -> str:
    """Hash of the package's source and of the worlds: results of other code are not mixed with these."""
    files = sorted((HERE.parent / "causalrec").rglob("*.py")) + [
        HERE / n for n in ("text_worlds.py", "natural_text.py", "vocab_text.py")
    ]
    rooms = (
        "nuisance",
        "estimate",
        "represent",
        "scores",
        "second_order",
        "kernels",
        "text_worlds",
        "natural_text",
        "vocab_text",
    )
    digest = hashlib.sha256()
    for file in files:
        if any(room in str(file.relative_to(HERE.parent)) for room in rooms):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:10]


def chunk(cell: str, first: int, reps: int, version: str, tune: bool) -> tuple[str, list[dict[str, Any]]]:
    """Ten repetitions, from the cache if they are there."""
    seeds = range((TUNING_SEED if tune else SEED) + first, (TUNING_SEED if tune else SEED) + first + reps)
    file = HERE / "cache" / f"text-{version}{'-tune' if tune else ''}" / f"{cell}-{first}-{reps}.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = [one(cell, s) for s in seeds]
        part = file.with_suffix(".part")
        part.write_text(json.dumps(rows))
        part.replace(file)
    return cell, json.loads(file.read_text())


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The row of the table."""
    done = [r for r in rows if "ours" in r]
    out: dict[str, Any] = {"reps": len(rows), "refused": 1 - len(done) / len(rows)}
    if not done:
        return out
    n = len(done)
    o1 = np.array([r["o1"] for r in done])
    rng = np.random.default_rng(0)
    draws = rng.integers(0, n, (2000, n))
    for name in (
        "ours",
        "first",
        "first_by_unit",
        "by_unit",
        "iid",
        "o1",
        "o1b",
        "item_fe",
        "only_same_item",
    ):
        some = [r for r in done if name in r]
        if not some:
            continue
        x = np.array([r[name] for r in some])
        o1_there = np.mean([r["o1"] ** 2 for r in some])
        out[name] = summary_of(name, some) | {"rmse_over_o1": float(np.sqrt((x**2).mean() / o1_there))}
    ours = np.array([r["ours"] for r in done])
    ratio = np.sqrt((ours[draws] ** 2).mean(axis=1) / (o1[draws] ** 2).mean(axis=1))
    paired = ours - o1
    out |= {
        "rmse_low": float(np.quantile(ratio, 0.025)),
        "rmse_high": float(np.quantile(ratio, 0.975)),
        "bias_beyond_o1": float(paired.mean()),
        "bias_beyond_o1_mc": float(paired.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan"),
        "naive": float(np.mean([r["naive"] for r in done])),
        "second_order": float(np.mean([r["order"] == 2 for r in done])),
        "user_kernel": float(np.mean(["same_user" in r["kernels"] for r in done])),
        "item_kernel": float(np.mean(["same_item" in r["kernels"] for r in done])),
        "basis_kernel": float(np.mean(["basis" in r["kernels"] for r in done])),
        "served": float(np.mean([r["served"] for r in done])),
        "ab": float(np.mean([r["ab"] for r in done])),
        "a2b": float(np.mean([r["a2b"] for r in done])),
        "warned": float(np.mean([r["warned"] > 0 for r in done])),
        "seconds": float(np.median([r["seconds"] for r in done])),
    }
    if "o1b" in out:
        o1b = np.array([r.get("o1b", np.nan) for r in done])
        out["rmse_over_o1b"] = float(np.sqrt((ours**2).mean() / np.nanmean(o1b**2)))
    return out


def summary_of(name: str, some: list[dict[str, Any]]) -> dict[str, Any]:
    """Bias, spread and coverage of one estimator."""
    x = np.array([r[name] for r in some])
    covers = np.array([r[f"{name}_covers"] for r in some])
    wilson = binomtest(int(covers.sum()), len(x)).proportion_ci(method="wilson")
    sd = float(x.std(ddof=1)) if len(x) > 1 else float("nan")
    return {
        "reps": len(x),
        "bias": float(x.mean()),
        "bias_mc": sd / np.sqrt(len(x)),
        "sd": sd,
        "mean_se": float(np.mean([r[f"{name}_se"] for r in some])),
        "bias_over_sd": abs(float(x.mean())) / sd,
        "coverage": float(covers.mean()),
        "coverage_low": wilson.low,
        "coverage_high": wilson.high,
        "rejects": float(np.mean([r[f"{name}_rejects"] for r in some])),
    }


def line(cell: str, s: dict[str, Any]) -> str:
    """One cell in one line."""
    if "ours" not in s:
        return f"{cell}: R {s['reps']}, all refused"
    u, f = s["ours"], s["first"]
    return (
        f"{cell}: R {s['reps']} refused {s['refused']:.2f} naive {s['naive']:+.4f} | first {f['bias']:+.4f} cov {f['coverage']:.2f} | "
        f"ours {u['bias']:+.4f}±{u['bias_mc']:.4f} (beyond o1 {s['bias_beyond_o1']:+.4f}±{s['bias_beyond_o1_mc']:.4f}) sd {u['sd']:.4f} se {u['mean_se']:.4f} "
        f"b/sd {u['bias_over_sd']:.2f} rmse/o1 {u['rmse_over_o1']:.3f} [{s['rmse_low']:.2f}, {s['rmse_high']:.2f}] /o1b {s.get('rmse_over_o1b', float('nan')):.3f} "
        f"cov {u['coverage']:.3f} [{u['coverage_low']:.3f}, {u['coverage_high']:.3f}] order2 {s['second_order']:.2f} item {s['item_kernel']:.2f} basis {s['basis_kernel']:.2f} user {s['user_kernel']:.2f} {s['seconds']:.1f}s"
    )


def record(cell: str, found: dict[str, Any]) -> None:
    """Put a finished cell into the results."""
    results = HERE / "results" / "text_confounding.json"
    results.parent.mkdir(exist_ok=True)
    table = json.loads(results.read_text())["cells"] if results.exists() else {}
    results.write_text(json.dumps({"seed": SEED, "cells": table | {cell: found}}, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", nargs="*", default=CELLS)
    parser.add_argument("--reps", type=int, help="at most so many repetitions a cell")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tune", action="store_true", help="tuning seeds; nothing is written to results/")
    parser.add_argument("--quick", action="store_true", help="ten repetitions of six cells")
    options = parser.parse_args()
    cells = (
        ["natural-8", "natural-2", "D1-10k", "D2-10k", "D8-icc0.1", "D15"] if options.quick else options.cells
    )
    asked = 10 if options.quick else options.reps
    version = stamp()
    jobs = [
        (cell, first, min(CHUNK, reps_of(cell, asked) - first), version, options.tune)
        for cell in cells
        for first in range(0, reps_of(cell, asked), CHUNK)
    ]
    found: dict[str, list[dict[str, Any]]] = {cell: [] for cell in cells}
    with ProcessPoolExecutor(options.workers) as pool:
        for future in as_completed([pool.submit(chunk, *job) for job in jobs]):
            cell, rows = future.result()
            found[cell] += rows
            if len(found[cell]) == reps_of(cell, asked):
                print(line(cell, summary(found[cell])), flush=True)
                if not (options.quick or options.tune):
                    record(cell, summary(found[cell]) | {"version": version})


if __name__ == "__main__":
    main()
