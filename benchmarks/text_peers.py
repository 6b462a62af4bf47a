"""Other libraries as their documentation uses them, on the logs of ``text_confounding.py``.

    CAUSALREC_DATA=... python benchmarks/text_peers.py [--reps 50] [--cells NAME ...] [--methods NAME ...]

The words become the first 50 principal components of the same frozen embedding, beside the log's other covariates: the
way that each library's documentation shows for wide covariates. DoWhy identifies (maximal adjustment) and hands over
to EconML's ``LinearDRLearner()`` and ``CausalForestDML(discrete_treatment=True)``; DoubleML's ``DoubleMLIRM`` has random forests
(``pip install doubleml``; skipped, and said, where it is missing). "logistic" is ``LinearDRLearner`` with a logistic
propensity and a linear outcome model, far faster. Seeds are those of ``text_confounding.py``. Finished repetitions are kept
in benchmarks/cache/peers and not run again. Writes benchmarks/results/text_peers.json.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

HERE = Path(__file__).parent
CELLS = ["natural-2", "D1-10k", "D2-10k"]
COMPONENTS = 50
Answer = tuple[float, float, float]


def columns(draw: Any) -> pd.DataFrame:
    """Principal components of the embedding and the log's own confounders, one row an impression."""
    from sklearn.decomposition import PCA

    block = next(b for b in draw.log.blocks.values() if b.kind == "text" and b.width > COMPONENTS)
    parts = PCA(COMPONENTS, random_state=0).fit_transform(block.values[block.codes].astype(float))
    table = pd.DataFrame(parts, columns=[f"pc{k}" for k in range(COMPONENTS)])
    for name in draw.log.roles.confounders:
        table[name] = draw.log.frame[name].to_numpy(dtype=float)
    return table


def by_dowhy(draw: Any, x: pd.DataFrame, method: str, options: dict[str, Any]) -> Answer:
    """DoWhy's estimate with an EconML learner, and EconML's own 95 % interval of the average."""
    from dowhy import CausalModel

    data = x.assign(t=draw.log.treatment.astype(int), y=draw.log.outcome)
    model = CausalModel(data, treatment="t", outcome="y", common_causes=list(x))
    estimand = model.identify_effect(method_name="maximal-adjustment")
    estimate = model.estimate_effect(
        estimand, method_name=f"backdoor.econml.{method}", control_value=0, treatment_value=1,
        target_units="ate", method_params={"init_params": options, "fit_params": {}},
    )  # fmt: skip
    learner = estimate.estimator.estimator
    found = (
        learner.ate_inference(X=None) if method.endswith("LinearDRLearner") else learner.ate_inference(X=x)
    )
    low, high = found.conf_int_mean(alpha=0.05)
    return float(estimate.value), float(np.ravel(low)[0]), float(np.ravel(high)[0])


def default(draw: Any, x: pd.DataFrame) -> Answer:
    """``LinearDRLearner()``."""
    return by_dowhy(draw, x, "dr.LinearDRLearner", {})


def logistic(draw: Any, x: pd.DataFrame) -> Answer:
    """``LinearDRLearner`` with ``LogisticRegression`` and ``LinearRegression``."""
    from sklearn.linear_model import LinearRegression, LogisticRegression

    options = {"model_propensity": LogisticRegression(max_iter=1000), "model_regression": LinearRegression()}
    return by_dowhy(draw, x, "dr.LinearDRLearner", options)


def forest(draw: Any, x: pd.DataFrame) -> Answer:
    """``CausalForestDML`` on the components, random forests for the nuisances; its doubly robust average and interval."""
    from econml.dml import CausalForestDML
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    found = CausalForestDML(
        model_y=RandomForestRegressor(min_samples_leaf=10, random_state=0),
        model_t=RandomForestClassifier(min_samples_leaf=10, random_state=0),
        discrete_treatment=True, random_state=0,
    )  # fmt: skip
    found.fit(draw.log.outcome, draw.log.treatment.astype(int), X=x.to_numpy())
    value, error = float(np.ravel(found.ate_)[0]), float(np.ravel(found.ate_stderr_)[0])
    return value, value - 1.96 * error, value + 1.96 * error


def irm(draw: Any, x: pd.DataFrame) -> Answer:
    """``DoubleMLIRM`` with random forests, as in its user guide."""
    from doubleml import DoubleMLData, DoubleMLIRM
    from sklearn.ensemble import RandomForestClassifier

    learner = dict(n_estimators=100, max_features=20, max_depth=5, min_samples_leaf=2, random_state=0)
    data = DoubleMLData.from_arrays(x.to_numpy(), draw.log.outcome, draw.log.treatment)
    np.random.seed(0)  # noqa: NPY002 - the library draws its folds from the global state
    found = DoubleMLIRM(data, RandomForestClassifier(**learner), RandomForestClassifier(**learner)).fit()
    low, high = found.confint().iloc[0]
    return float(found.coef[0]), float(low), float(high)


METHODS = {"LinearDRLearner()": default, "logistic": logistic, "CausalForestDML": forest, "DoubleMLIRM": irm}


def one(cell: str, method: str, seed: int) -> dict[str, float]:
    """Error, coverage and seconds of one method on one log; kept."""
    import text_worlds

    file = HERE / "cache" / "peers" / f"{cell}-{method.strip('()')}-{seed}.json"
    if not file.exists():
        draw = text_worlds.worlds()[cell].draw(seed)
        x, truth = columns(draw), draw.truth["ate"]
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value, low, high = METHODS[method](draw, x)
        row = {"error": value - truth, "covers": float(low <= truth <= high), "half": (high - low) / 2}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(row | {"seconds": time.perf_counter() - start}))
    found: dict[str, float] = json.loads(file.read_text())
    return found


def summary(rows: list[dict[str, float]]) -> dict[str, float]:
    """The row of the table."""
    error, covers = np.array([r["error"] for r in rows]), sum(r["covers"] for r in rows)
    wilson = binomtest(int(covers), len(rows)).proportion_ci(method="wilson")
    return {
        "reps": len(rows), "bias": float(error.mean()), "sd": float(error.std(ddof=1)) if len(rows) > 1 else 0.0,
        "coverage": covers / len(rows), "coverage_low": wilson.low, "coverage_high": wilson.high,
        "seconds": float(np.median([r["seconds"] for r in rows])),
    }  # fmt: skip


def main() -> None:
    from text_confounding import SEED

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reps", type=int, default=50)
    parser.add_argument("--cells", nargs="*", default=CELLS)
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    options = parser.parse_args()
    file = HERE / "results" / "text_peers.json"
    table = json.loads(file.read_text())["cells"] if file.exists() else {}
    for cell in options.cells:
        for method in options.methods:
            if method == "DoubleMLIRM" and find_spec("doubleml") is None:
                print("DoubleMLIRM skipped: doubleml is not installed", flush=True)
                continue
            found = summary([one(cell, method, SEED + r) for r in range(options.reps)])
            table.setdefault(cell, {})[method] = found
            print(cell, method, {k: round(v, 4) for k, v in found.items()}, flush=True)
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps({"seed": SEED, "components": COMPONENTS, "cells": table}, indent=1))


if __name__ == "__main__":
    main()
