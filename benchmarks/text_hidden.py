"""Sensitivity intervals where something is hidden (D11): a cause of both exposure and clicks that no column holds.

    CAUSALREC_DATA=... python benchmarks/text_hidden.py [--reps 100]

Three intervals on each log: the fit's own; ``fit.bias_aware(OmittedVariable(1))``, which lets what is missed be as strong as the
words; and the omitted-variable bound at the hidden cause's true strength (its shares of the residual variance of the outcome and
of the Riesz representer, from the truth). Finished repetitions are kept in benchmarks/cache/. Writes results/text_hidden.json.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest
from text_confounding import SEED, stamp

HERE = Path(__file__).parent
CELLS = ("D11-rho0.3", "D11-rho0.1")
METHODS = {"plain": "the fit's", "words": "as strong as the words", "true": "at the true strength"}


def one(cell: str, seed: int, version: str) -> dict[str, Any]:
    """One log: the error, and for each interval whether it covers and how far it reaches."""
    file = HERE / "cache" / f"hidden-{version}" / f"{cell}-{seed}.json"
    if not file.exists():
        import text_worlds

        import causalrec as cr
        from causalrec.estimate.bias_aware import OmittedVariable

        draw = text_worlds.worlds()[cell].draw(seed)
        fit = cr.estimate(draw.log, draw.plan, random_state=seed)
        truth = draw.truth["ate"]
        words = fit.bias_aware(OmittedVariable(1.0))
        bound = true_bound(draw, fit)
        ends = {
            "plain": (fit.ci_lower, fit.ci_upper),
            "words": (words.ci_lower, words.ci_upper),
            "true": (fit.ci_lower - bound, fit.ci_upper + bound),
        }
        found = {name: float(low <= truth <= high) for name, (low, high) in ends.items()}
        found |= {"error": fit.effect - truth, "words_bound": words.bound, "true_bound": bound}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found))
    return dict(json.loads(file.read_text()))


def true_bound(draw: Any, fit: Any) -> float:
    """√(E[(m − m̂)²] · E[(α − α̂)²]): the largest bias of a cause as strong as the one that is hidden.

    Chernozhukov et al. (2022), theorem 2, with the regression and the representer that know the cause as the long ones.
    """
    t, nu = draw.log.treatment, fit.nuisances
    m, m_hat = np.where(t == 1, draw.m1, draw.m0), np.where(t == 1, nu.outcome_1, nu.outcome_0)
    e_hat = fit.analysis.settings.clip.apply(nu.propensity)
    alpha = t / draw.e - (1 - t) / (1 - draw.e)
    short = t / e_hat - (1 - t) / (1 - e_hat)
    return float(np.sqrt(np.mean((m - m_hat) ** 2) * np.mean((alpha - short) ** 2)))


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares covered with Wilson's intervals, and mean bounds."""
    out: dict[str, Any] = {"reps": len(rows), "bias": float(np.mean([r["error"] for r in rows]))}
    for name in METHODS:
        hits = int(sum(r[name] for r in rows))
        wilson = binomtest(hits, len(rows)).proportion_ci(method="wilson")
        out[name] = {"coverage": hits / len(rows), "low": wilson.low, "high": wilson.high}
    for name in ("words_bound", "true_bound"):
        out[name] = float(np.mean([r[name] for r in rows]))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reps", type=int, default=100)
    parser.add_argument("--cells", nargs="*", default=list(CELLS))
    options = parser.parse_args()
    file, version = HERE / "results" / "text_hidden.json", stamp()
    table = json.loads(file.read_text())["cells"] if file.exists() else {}
    for cell in options.cells:
        rows = []
        for r in range(options.reps):
            rows.append(one(cell, SEED + r, version))
            table[cell] = summary(rows) | {"version": version}
            file.write_text(json.dumps({"seed": SEED, "cells": table}, indent=1))
        print(cell, table[cell], flush=True)


if __name__ == "__main__":
    main()
