"""Several arms where a trait of the item that no column holds moves arm and clicks: contrasts of first order and corrected by pairs.

    python benchmarks/arm_pairs.py [--reps 200]

Log of 6,000 rows, 500 items, 3,000 users, three arms; seeds 20,261,122 + r. Writes benchmarks/results/arm_pairs.json.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
from pathlib import Path

import numpy as np
from arm_worlds import LABELS, ROLES, draw
from scipy.stats import binomtest

import causalrec as cr
from causalrec.estimate import estimate_arms

HERE = Path(__file__).parent
SEED = 20_261_122


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reps", type=int, default=200)
    reps = parser.parse_args().reps
    errors: dict[str, list[tuple[float, float, bool, bool]]] = {}
    for r in range(reps):
        frame, p = draw(SEED + r)
        truth = dict(zip(LABELS, p.mean(axis=0), strict=True))
        log = cr.read_log(frame, **ROLES)
        plan = cr.identify(log)
        for order in ("first order", "corrected"):
            fit = estimate_arms(log, plan, correction=cr.Correction(order=1) if order == "first order" else None, random_state=r)
            for c in fit.pairs:
                true = truth[c.arm] - truth[c.against]
                e = c.estimate
                inside = e.ci_lower <= true <= e.ci_upper, c.joint_lower <= true <= c.joint_upper
                errors.setdefault(f"{c.arm} − {c.against}, {order}", []).append((e.value - true, e.std_error, *inside))
    rows = []
    for name, found in errors.items():
        e = np.array(found, dtype=float)
        ci = binomtest(int(e[:, 2].sum()), reps).proportion_ci(method="wilson")
        rows.append({
            "contrast": name, "R": reps, "bias": e[:, 0].mean(), "mc_error": e[:, 0].std(ddof=1) / np.sqrt(reps), "sd": e[:, 0].std(ddof=1),
            "mean_se": e[:, 1].mean(), "coverage": e[:, 2].mean(), "low": float(ci.low), "high": float(ci.high), "joint": e[:, 3].mean(),
        })  # fmt: skip
        print(rows[-1], flush=True)
    (HERE / "results" / "arm_pairs.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
