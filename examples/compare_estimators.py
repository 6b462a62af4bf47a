"""Research use: four estimators on one simulated log, the same cross-fitted nuisances, plain arrays.

python examples/compare_estimators.py [--n 6000] [--seeds 3]
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline

import causalrec as cr
from causalrec.estimate import IPW, DoublyRobust


def one(n: int, seed: int) -> pd.DataFrame:
    world = cr.simulate(n, n_users=max(n // 10, 20), n_items=300, match=0.0, random_state=seed)
    frame = world.frame
    words = make_pipeline(TfidfVectorizer(), TruncatedSVD(50, random_state=0)).fit_transform(frame["title"])
    covariates = frame[["past_ctr", "hour", "tenure"]].to_numpy()
    y, t, user = frame["clicked"].to_numpy(), frame["recommended"].to_numpy(), frame["user_id"].to_numpy()

    robust = DoublyRobust(random_state=seed).fit(
        y, t, X=frame[["tenure"]], W=[covariates[:, :2], words], groups=user
    )
    shared = robust.nuisances_
    weighting = IPW(nuisances=shared).fit(
        y, t, X=frame[["tenure"]], W=[covariates[:, :2], words], groups=user
    )
    overlap = DoublyRobust(estimand="ato", nuisances=shared).fit(
        y, t, X=frame[["tenure"]], W=[covariates[:, :2], words], groups=user
    )
    rows = [
        ("difference in means", robust.naive_effect_, np.nan, world.ate),
        ("IPW, Hájek", weighting.effect_, weighting.std_error_, world.ate),
        ("doubly robust, ATE", robust.effect_, robust.std_error_, world.ate),
        ("doubly robust, ATO", overlap.effect_, overlap.std_error_, world.ato),
    ]
    return pd.DataFrame(rows, columns=["estimator", "effect", "std_error", "truth"]).assign(seed=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=6000)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    found = pd.concat([one(options.n, seed) for seed in range(options.seeds)])
    found["error"] = found["effect"] - found["truth"]
    print(
        found.groupby("estimator", sort=False)[["effect", "std_error", "truth", "error"]]
        .mean()
        .round(4)
        .to_string()
    )


if __name__ == "__main__":
    main()
