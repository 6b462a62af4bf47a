"""How time, memory and the report grow with the log, 10⁴ to 10⁶ rows of at most 20,000 distinct texts.

    python benchmarks/scaling.py [--repeats 3]

Each size runs in a process of its own: `estimate`, then `uplift` on held-out users and the report. Prints the
log–log slopes; writes benchmarks/results/scaling.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SIZES = (1_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)


def one(n: int, seed: int) -> dict[str, float]:
    import econml.dr
    import worlds

    import causalrec as cr

    del econml
    world = worlds.make(n, min(n, 20_000), seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    fit = cr.estimate(world.log, world.plan, random_state=seed)
    estimate = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    train, test = world.log.split(0.3, random_state=seed)
    start = time.perf_counter()
    curve = cr.uplift(cr.estimate(train, world.plan, random_state=seed), test)
    uplift = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        size = cr.report(world.plan, fit, curve).save(Path(folder) / "report.html").stat().st_size
    return {
        "n": n, "estimate_s": estimate, "before_mb": before, "peak_mb": peak, "uplift_s": uplift, "report_bytes": size,
        "error": fit.effect - world.truth, "se": fit.std_error,
    }  # fmt: skip


def slope(sizes: list[int], values: list[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, type=int)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*options.one)))
        return
    rows = []
    for n in SIZES:
        runs = []
        for seed in range(options.repeats):
            done = subprocess.run(
                [sys.executable, __file__, "--one", str(n), str(seed)],
                capture_output=True,
                text=True,
                check=True,
            )
            runs.append(json.loads(done.stdout.strip().splitlines()[-1]))
        rows.append({k: statistics.median(r[k] for r in runs) for k in runs[0]})
        print(rows[-1], flush=True)
    fitted = [r for r in rows if r["n"] >= 10_000]
    sizes = [int(r["n"]) for r in fitted]
    result = {
        "rows": rows,
        "slope_time": slope(sizes, [r["estimate_s"] for r in fitted]),
        "slope_memory": slope(sizes, [r["peak_mb"] for r in fitted]),
        "slope_added_memory": slope(sizes, [max(r["peak_mb"] - r["before_mb"], 1) for r in fitted]),
    }
    print({k: v for k, v in result.items() if k != "rows"})
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "scaling.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
