"""How long identification takes: one node per block (causalrec) against one per column (DoWhy's default).

    python benchmarks/identify.py [--repeats 5] [--out benchmarks/results/identify.json]

Medians of `repeats` runs after one warm-up. The import of DoWhy is timed once, apart, in a fresh process.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd

import causalrec as cr

ROWS, WIDTH = 2_000, 384
FURTHER_BLOCKS = 20
COLUMNS = (8, 12, 16)


def seconds(action: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Median and all runs of `action`, in seconds, after one warm-up."""
    action()
    runs = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        runs.append(time.perf_counter() - start)
    return {"median_s": statistics.median(runs), "runs_s": runs}


def log_of_blocks(width: int) -> cr.ImpressionLog:
    """One text block of `width` and ``FURTHER_BLOCKS`` columns beside it."""
    rng = np.random.default_rng(0)
    extra = [f"x{i}" for i in range(FURTHER_BLOCKS)]
    frame = pd.DataFrame(rng.normal(size=(ROWS, FURTHER_BLOCKS)), columns=extra)
    frame["recommended"], frame["clicked"] = rng.integers(0, 2, ROWS), rng.integers(0, 2, ROWS)
    frame["title"] = "a title"
    log = cr.read_log(frame, treatment="recommended", outcome="clicked", text="title", confounders=extra)
    values = rng.normal(size=(1, width)).astype(np.float32)
    return log.with_blocks(
        [cr.Block("text:title", "text", values, np.zeros(ROWS, dtype=np.int64), ("title",), "random")]
    )


def dowhy_on_columns(k: int, search: str) -> Callable[[], Any]:
    """DoWhy's identification with one node for each of `k` confounding columns."""
    from dowhy.causal_identifier import BackdoorAdjustment, EstimandType, identify_effect_auto

    graph = nx.DiGraph([("t", "y"), *((f"x{i}", to) for i in range(k) for to in "ty")])
    how = BackdoorAdjustment(search)
    return lambda: identify_effect_auto(
        graph, ["t"], ["y"], list(graph), EstimandType.NONPARAMETRIC_ATE, backdoor_adjustment=how
    )


def import_seconds() -> float:
    """The import of DoWhy's identifier, in a process of its own."""
    code = (
        "import time; start = time.perf_counter(); import dowhy.causal_identifier; "
        "print(time.perf_counter() - start)"
    )
    return float(subprocess.check_output([sys.executable, "-c", code], text=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/identify.json"))
    options = parser.parse_args()
    logging.getLogger("dowhy").setLevel(logging.ERROR)
    log = log_of_blocks(WIDTH)
    ours = f"identify, {WIDTH}-d block + {FURTHER_BLOCKS} blocks"
    found: dict[str, Any] = {
        "versions": {"python": platform.python_version(), **{p: version(p) for p in ("dowhy", "networkx")}},
        "import_dowhy_s": import_seconds(),
        ours: seconds(lambda: cr.identify(log), options.repeats),
    }
    for k in COLUMNS:
        found[f"dowhy default, {k} columns"] = seconds(dowhy_on_columns(k, "default"), options.repeats)
    k = WIDTH + FURTHER_BLOCKS
    found[f"dowhy maximal-adjustment, {k} columns"] = seconds(
        dowhy_on_columns(k, "maximal-adjustment"), options.repeats
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for name, value in found.items():
        if isinstance(value, dict) and "median_s" in value:
            print(f"{name:<45} {value['median_s']:8.3f} s")
    print(f"{'import of dowhy, once':<45} {found['import_dowhy_s']:8.3f} s")


if __name__ == "__main__":
    main()
