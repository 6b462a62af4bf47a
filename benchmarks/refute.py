"""How long four refuters with 100 repetitions each take, here and in DoWhy around the same estimator.

    python benchmarks/refute.py [--rows 20000] [--sims 3] [--repeats 5]

DoWhy refits the whole estimator for each repetition; `--sims` repetitions of each refuter are timed and the time
for 100 is proportional. Ours is timed in full, 100 repetitions of each of the four. Writes benchmarks/results/refute.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
import warnings
from pathlib import Path

import numpy as np
import worlds

import causalrec as cr

HERE = Path(__file__).parent
FOUR = ("placebo_treatment", "random_common_cause", "data_subset", "dummy_outcome")


def dowhy_seconds(view: cr.DowhyView, sims: int) -> tuple[float, dict[str, float]]:
    """Seconds for 100 repetitions of the four, and the mean effect that each finds."""
    from dowhy.causal_refuters.data_subset_refuter import refute_data_subset
    from dowhy.causal_refuters.dummy_outcome_refuter import refute_dummy_outcome
    from dowhy.causal_refuters.placebo_treatment_refuter import refute_placebo_treatment
    from dowhy.causal_refuters.random_common_cause import refute_random_common_cause

    data, estimand, estimate = view.data, view.estimand, view.estimate
    rng = np.random.RandomState(0)
    actions = {
        "placebo_treatment": lambda: refute_placebo_treatment(
            data,
            estimand,
            estimate,
            treatment_names=["recommended"],
            num_simulations=sims,
            placebo_type="permute",
            random_state=rng,
        ),
        "random_common_cause": lambda: refute_random_common_cause(
            data, estimand, estimate, num_simulations=sims, random_state=rng
        ),
        "data_subset": lambda: refute_data_subset(
            data, estimand, estimate, num_simulations=sims, random_state=rng
        ),
        "dummy_outcome": lambda: refute_dummy_outcome(
            data,
            estimand,
            estimate,
            ["recommended"],
            "clicked",
            required_variables=True,
            num_simulations=sims,
        )[0],
    }
    total, effects = 0.0, {}
    for name, action in actions.items():
        start = time.perf_counter()
        effects[name] = float(action().new_effect)
        total += (time.perf_counter() - start) * 100 / sims
    return total, effects


def our_seconds(fit: cr.Fit, seed: int) -> tuple[float, dict[str, bool], dict[str, float]]:
    """Seconds for 100 repetitions of the same four, their verdicts, and the mean effect that each finds."""
    from causalrec.check.refuters import KNOWN, STABLE, repeat, rerun, unchanged
    from causalrec.check.words import verdict_known, verdict_stable

    rng, se = np.random.default_rng(seed), fit.std_error
    start = time.perf_counter()
    base = rerun(fit.analysis, unchanged(fit.analysis, 1, rng)).effect[0]
    runs = {name: repeat(fit.analysis, {**KNOWN, **STABLE}[name], 100, rng, lambda _: None) for name in FOUR}
    took = time.perf_counter() - start
    verdicts = {
        n: (verdict_known(n, r, se) if n in KNOWN else verdict_stable(n, r, base, se))[0]
        for n, r in runs.items()
    }
    return took, verdicts, {n: float(r.effect.mean()) for n, r in runs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--texts", type=int, default=0, help="distinct texts; 0 = one a row")
    parser.add_argument("--sims", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    runs = []
    for seed in range(options.repeats):
        world = worlds.make(options.rows, options.texts or options.rows, seed)
        fit = cr.estimate(world.log, world.plan, random_state=seed)
        mine, verdicts, found = our_seconds(fit, seed)
        theirs, effects = dowhy_seconds(cr.to_dowhy(fit), options.sims)
        runs.append(
            {
                "ours_s": mine,
                "dowhy_s": theirs,
                "ratio": theirs / mine,
                "effect": fit.effect,
                "std_error": fit.std_error,
                "ours": verdicts,
                "ours_effects": found,
                "dowhy_effects": effects,
            }
        )
        print(json.dumps(runs[-1]), flush=True)
        save(options.rows, options.sims, runs)
    print("median ratio", statistics.median(r["ratio"] for r in runs))


def save(rows: int, sims: int, runs: list[dict[str, object]]) -> None:
    """Write what there is so far."""
    ratio = statistics.median(r["ratio"] for r in runs)
    (HERE / "results").mkdir(exist_ok=True)
    text = json.dumps({"rows": rows, "dowhy_sims_timed": sims, "ratio": ratio, "runs": runs}, indent=1)
    (HERE / "results" / "refute.json").write_text(text)


if __name__ == "__main__":
    main()
