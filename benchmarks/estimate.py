"""How long `estimate` takes, what memory, and how far it is from the truth, beside EconML on the same columns.

    python benchmarks/estimate.py [--limit 900] [--repeats 5] [--skip-default]

Each measurement runs in a process of its own. 394 columns (a 384-d text block, every row its own text, and ten
numbers), five folds. EconML's `LinearDRLearner()` with its defaults is stopped after `--limit` seconds, and the
ratio is then a lower bound. Writes benchmarks/results/estimate.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

HERE = Path(__file__).parent


def ours(n: int, seed: int, texts: int) -> dict[str, float]:
    import worlds

    import causalrec as cr

    world = worlds.make(n, texts, seed)
    from econml.dr import LinearDRLearner  # the import is paid by both sides, and timed by neither

    del LinearDRLearner
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    fit = cr.estimate(world.log, world.plan, random_state=seed)
    took = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "seconds": took,
        "error": fit.effect - world.truth,
        "se": fit.std_error,
        "peak_mb": peak,
        "before_mb": before,
    }


def econml(n: int, seed: int, kind: str) -> dict[str, float]:
    import worlds
    from econml.dr import LinearDRLearner
    from sklearn.linear_model import LogisticRegressionCV

    warnings.simplefilter("ignore")
    world = worlds.make(n, n, seed)
    w = world.dense()
    if kind == "default":
        model = LinearDRLearner(random_state=seed)
    else:
        nuisance = LogisticRegressionCV(max_iter=1000, scoring="neg_log_loss")
        model = LinearDRLearner(
            model_propensity=nuisance,
            model_regression=nuisance,
            discrete_outcome=True,
            cv=5,
            random_state=seed,
        )
    x = world.log.frame[["x0"]].to_numpy()
    start = time.perf_counter()
    model.fit(world.log.outcome, world.log.treatment, X=x, W=w)
    took = time.perf_counter() - start
    inference = model.ate_inference(x)
    return {
        "seconds": took,
        "error": float(inference.mean_point) - world.truth,
        "se": float(inference.stderr_mean),
    }


def measure(arguments: list[str], limit: float) -> dict[str, float] | None:
    """One measurement in a process of its own; None if it took longer than `limit` seconds."""
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--one", *arguments],
            capture_output=True,
            text=True,
            timeout=limit,
            check=True,
        )
    except subprocess.TimeoutExpired:
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def median(runs: list[dict[str, float]], key: str) -> float:
    return statistics.median(r[key] for r in runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs="+")
    parser.add_argument("--limit", type=float, default=900)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--skip-default", action="store_true")
    options = parser.parse_args()
    if options.one:
        who, n, seed, last = options.one
        result = ours(int(n), int(seed), int(last)) if who == "ours" else econml(int(n), int(seed), last)
        print(json.dumps(result))
        return
    found: dict[str, object] = {}
    pairs = []
    for seed in range(options.repeats):
        pairs.append(
            (
                measure(["ours", "20000", str(seed), "20000"], 600),
                measure(["econml", "20000", str(seed), "cv"], 3600),
            )
        )
        print("20,000 rows:", pairs[-1], flush=True)
    mine, cv = [p[0] for p in pairs if p[0]], [p[1] for p in pairs if p[1]]
    found["rows_20000"] = {
        "ours_s": median(mine, "seconds"),
        "econml_cv_logistic_s": median(cv, "seconds"),
        "ratio_cv": statistics.median(b["seconds"] / a["seconds"] for a, b in pairs if a and b),
        "ours_rmse": statistics.fmean(r["error"] ** 2 for r in mine) ** 0.5,
        "econml_cv_rmse": statistics.fmean(r["error"] ** 2 for r in cv) ** 0.5,
        "runs": pairs,
    }
    if not options.skip_default:
        default = measure(["econml", "20000", "0", "default"], options.limit)
        seconds = default["seconds"] if default else options.limit
        found["econml_default_20000"] = {
            "seconds": seconds, "finished": default is not None, "ratio": seconds / median(mine, "seconds"), "run": default,
        }  # fmt: skip
        print("LinearDRLearner():", found["econml_default_20000"], flush=True)
    big = [measure(["ours", "100000", str(s), "100000"], 600) for s in range(options.repeats)]
    big = [r for r in big if r]
    design = 100_000 * 394 * 4 / 1e6
    found["rows_100000"] = {
        "seconds": median(big, "seconds"), "peak_mb": median(big, "peak_mb"), "design_mb": design, "limit_mb": 3 * design + 1000, "runs": big,
    }  # fmt: skip
    print("100,000 rows:", found["rows_100000"], flush=True)
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "estimate.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
