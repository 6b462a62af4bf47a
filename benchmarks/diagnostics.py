"""How often the diagnostics raise their hand: where nothing is wrong (size), and where something is (power).

    CAUSALREC_DATA=... python benchmarks/diagnostics.py [--reps 200] [--quick]

Negative controls (two earlier clicks, each with its p-value, and Holm's over both) on D11: a hidden cause correlates the
errors of exposure and click by 0, .1 or .3. Probes of what is left in the words on D1-10k, whose words the encoder holds
nearly all of, and on natural-4, whose words it does not; each plan adjusts for the frozen embedding alone. The next
exposure of the same user on D8 (users differ in clicks only) and D15 (a hidden trait of the user acts on both).
Finished repetitions are kept in benchmarks/cache/ and not run again. Prints a table with Wilson's 95 % intervals;
writes benchmarks/results/diagnostics.json (not with --quick: 20 repetitions).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

HERE = Path(__file__).parent
SEED = 910_000  # of the first log; the diagnostics were written on logs 0 to 20 and 90,000 to 90,019
LEVEL = 0.05
Row = dict[str, float]


def negative(fit: Any, seed: int) -> Row:
    """Whether each control, and either after Holm, says that something was left out."""
    from causalrec.check.negative import effect_on
    from causalrec.joint import holm

    found = {name: effect_on(fit, name) for name in fit.log.roles.negative_controls}
    p_values = np.array([e.p_value for e in found.values()])
    out: Row = {"holm": float((holm(p_values) <= LEVEL).any())}
    for name, e in found.items():
        out |= {name: float(e.p_value <= LEVEL), f"{name}_value": e.value, f"{name}_se": e.std_error}
    return out


def probes(fit: Any, seed: int) -> Row:
    """What is said of exposure, of clicks, of both, and the verdict; the bias that is claimed."""
    from causalrec.check.probes import further_representations, probe, verdict

    found = probe(fit, further_representations(fit), np.random.default_rng(seed))
    return {
        "exposure": float(found.p_exposure <= LEVEL),
        "clicks": float(found.p_outcome <= LEVEL),
        "both": float(max(found.p_exposure, found.p_outcome) <= LEVEL),
        "failed": float(verdict(found) is False),
        "claimed": found.bias,
        "claimed_se": found.bias_se,
    }


def future(fit: Any, seed: int) -> Row:
    """Whether the next exposure goes with today's clicks."""
    from causalrec.check.negative import future_exposure

    found = future_exposure(fit)
    return {
        "future": float(found.p_value <= LEVEL),
        "future_value": found.value,
        "future_se": found.std_error,
    }


CELLS: dict[str, tuple[str, Callable[[Any, int], Row]]] = {
    "negative controls, rho 0": ("D11-rho0", negative),
    "negative controls, rho .1": ("D11-rho0.1", negative),
    "negative controls, rho .3": ("D11-rho0.3", negative),
    "probes, words held": ("D1-10k", probes),
    "probes, words not held": ("natural-4", probes),
    "next exposure, nothing hidden in both": ("D8-icc0.3", future),
    "next exposure, hidden trait": ("D15", future),
}


def one(cell: str, seed: int) -> Row:
    """One repetition, from the cache if it is there."""
    import text_worlds

    import causalrec as cr

    world, look = CELLS[cell]
    file = HERE / "cache" / f"diagnostics-{look.__name__}-{world}-{seed}.json"
    if not file.exists():
        start = time.perf_counter()
        draw = text_worlds.worlds()[world].draw(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = cr.estimate(draw.log, draw.plan, random_state=seed)
            row = look(fit, seed)
        row |= {"error": fit.effect - draw.truth["ate"], "se": fit.std_error}
        row["seconds"] = time.perf_counter() - start
        file.parent.mkdir(exist_ok=True)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(row))
        part.replace(file)
    found: Row = json.loads(file.read_text())
    return found


def summary(rows: list[Row]) -> dict[str, Any]:
    """Shares with their intervals for verdicts, means and their Monte-Carlo errors for the rest."""
    n, out = len(rows), {}
    for name in rows[0]:
        v = np.array([r[name] for r in rows])
        if np.isin(v, (0.0, 1.0)).all():
            interval = binomtest(int(v.sum()), n).proportion_ci(method="wilson")
            out[name] = {"share": v.mean(), "low": interval.low, "high": interval.high}
        else:
            out[name] = {"mean": v.mean(), "mc": v.std(ddof=1) / np.sqrt(n), "sd": v.std(ddof=1)}
    return {"reps": n, **out}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reps", type=int, default=200, help="repetitions a cell")
    parser.add_argument("--cells", nargs="*", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--quick", action="store_true", help="20 repetitions, nothing written")
    options = parser.parse_args()
    reps, table = 20 if options.quick else options.reps, {}
    for cell in options.cells:
        table[cell] = summary([one(cell, SEED + r) for r in range(reps)])
        print(f"{cell} ({CELLS[cell][0]}), R {reps}")
        for name, s in table[cell].items():
            if name == "reps":
                continue
            share = "share" in s
            said = (
                f"{s['share']:.3f} [{s['low']:.3f}, {s['high']:.3f}]"
                if share
                else f"{s['mean']:+.5f} ± {s['mc']:.5f}, sd {s['sd']:.5f}"
            )
            print(f"    {name:18} {said}", flush=True)
    if not options.quick:
        (HERE / "results").mkdir(exist_ok=True)
        file = HERE / "results" / "diagnostics.json"
        file.write_text(json.dumps({"seed": SEED, "level": LEVEL, "cells": table}, indent=1))


if __name__ == "__main__":
    main()
