"""Coat with words: ``finetune`` on ratings of the user's own choice, judged on ratings drawn at random.

    CAUSALREC_DATA=... python benchmarks/coat.py [--seeds 20] [--objectives naive SNIPS DR]

All 87,000 cells are rows: treatment is "rated", outcome a rating above 3, propensity the shipped one, text the coat's sentence.
A user is known by his history: the sentence of his features, a sentence that says how many of the coats that he rated he
likes (three times), and the sentences of those he likes. A row that he rated is in one of eight parts of his ratings, and
its history is made of the other seven; the history of a row of the test is made of all his (biased) ratings.

The options of each objective are the best of six random trials, the same for each, by held-out risk: the mean of four tuning seeds, each of which holds out other users
("biased"), or that of the MAR tenth.
Settings, test and NDCG@5 are those of ``debiased_mf``: "biased" selects on held-out users' doubly robust risk, "10 % of MAR" on
a tenth of the randomly drawn ratings. Seeds 20,261,122 + r draw the held-out users, parts of the ratings and start values.
Resumable: benchmarks/cache/coat.jsonl; the table with paired differences is benchmarks/results/coat.json.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import debiased_mf as mf
import numpy as np
import pandas as pd

import causalrec as cr
from causalrec.datasets import load_coat
from causalrec.finetune.ranking import auc, ndcg_by_user

HERE = Path(__file__).parent
CACHE, RESULTS = HERE / "cache" / "coat.jsonl", HERE / "results" / "coat.json"
OBJECTIVES = {"naive": cr.Naive(), "SNIPS": cr.SNIPS(), "DR": cr.DR()}
PARTS = 8
LEVELS = (
    "This shopper likes none of the coats.", "This shopper dislikes almost every coat.", "This shopper likes few coats.",
    "This shopper likes some coats.", "This shopper likes about half of the coats.", "This shopper likes most coats.",
    "This shopper loves nearly every coat.",
)  # fmt: skip
CUTS = (0.09, 0.15, 0.22, 0.32, 0.45, 0.6)
ONE = cr.RidgeLogistic(variances=(0.1,))
TRAINING = cr.Training(batch_size=1024, validation=0.1, patience=3, progress=False)
EPOCHS = 12
TRIALS = 6
DRAWS = {"biased": 4}
"""Tuning seeds, whose held-out users differ: 29 of them cannot tell six trials apart."""
OPTIONS = HERE / "cache" / "coat_options.json"


def draw(rng: np.random.Generator) -> dict[str, Any]:
    """One trial of the search."""
    return {
        "width": int(rng.choice([4, 16, 32])), "prior_variance": float(rng.choice([0.03, 0.1, 0.3])),
        "dropout": float(rng.choice([0.1, 0.4])), "item_effects": bool(rng.integers(0, 2)),
        "head_rate": float(rng.choice([1e-3, 2e-3, 4e-3])),
    }  # fmt: skip


def tuned(setting: str, objective: str) -> dict[str, Any]:
    """The trial with the least held-out risk on the tuning seeds: naive's own for naive, doubly robust for the others, that of the MAR tenth where there is one."""
    known: dict[str, Any] = json.loads(OPTIONS.read_text()) if OPTIONS.exists() else {}
    key = f"{setting}, {objective}"
    if key not in known:
        rng, found = np.random.default_rng(mf.TUNING), []
        for _ in range(TRIALS):
            trial = draw(rng)
            name = "risk" if setting != "biased" else "risk_naive" if objective == "naive" else "risk_dr"
            risk = float(np.mean([_kept(setting, objective, mf.TUNING + k, trial)[name] for k in range(DRAWS.get(setting, 1))]))
            found.append((risk, trial))
            print(key, trial, risk, flush=True)
        known = (json.loads(OPTIONS.read_text()) if OPTIONS.exists() else {}) | {key: min(found, key=lambda pair: pair[0])[1]}
        OPTIONS.write_text(json.dumps(known, indent=1))
    chosen: dict[str, Any] = known[key]
    return chosen


def _kept(setting: str, objective: str, seed: int, trial: dict[str, Any]) -> dict[str, Any]:
    """A trial's figures, from the cache if they are there."""
    file = HERE / "cache" / "coat_trials.jsonl"
    key = json.dumps([setting, objective, seed, trial], sort_keys=True)
    for line in file.read_text().splitlines() if file.exists() else []:
        held = json.loads(line)
        if held["key"] == key:
            return dict(held["row"])
    row = one(setting, objective, seed, trial)
    file.parent.mkdir(exist_ok=True)
    with file.open("a") as out:
        out.write(json.dumps({"key": key, "row": row}) + "\n")
    return row


def told(coat: Any, user: int, items: np.ndarray, likes: np.ndarray) -> list[str]:
    """A user's history from some of his ratings."""
    level = LEVELS[int(np.searchsorted(CUTS, (likes.sum() + 1) / (len(likes) + 5)))]
    return [coat.users["text"][user], *[level] * 3, *coat.items["text"].to_numpy()[items[likes]]]


def frames(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All cells, and the randomly drawn ones, as rows."""
    coat = load_coat()
    rng = np.random.default_rng(seed)
    n_users, n_items = coat.train.shape
    reads: list[list[str]] = []
    full: list[list[str]] = []
    for u in range(n_users):
        rated = np.flatnonzero(coat.train[u])
        likes = coat.train[u, rated] > 3
        part = rng.permutation(len(rated)) % PARTS
        known = [told(coat, u, rated[part != k], likes[part != k]) for k in range(PARTS)]
        of = rng.integers(0, PARTS, n_items)
        of[rated] = part
        reads += [known[k] for k in of]
        full.append(told(coat, u, rated, likes))
    user, item = np.divmod(np.arange(n_users * n_items), n_items)
    rating, text = coat.train.ravel(), coat.items["text"].to_numpy()
    log = pd.DataFrame({
        "rated": (rating > 0).astype(int), "liked": (rating > 3).astype(int), "coat": text[item],
        "read": pd.Series(reads, dtype=object), "user": user, "item": item, "p": coat.propensities.ravel(),
    })  # fmt: skip
    u, i = np.nonzero(coat.test)
    drawn = pd.DataFrame({
        "rated": 1, "liked": (coat.test[u, i] > 3).astype(int), "coat": text[i],
        "read": pd.Series([full[k] for k in u], dtype=object), "user": u, "item": i, "p": 0.5,
    })  # fmt: skip
    return log, drawn


ROLES = {"treatment": "rated", "outcome": "liked", "text": "coat", "history": "read", "unit": "user", "item": "item"}


def one(setting: str, objective: str, seed: int, options: dict[str, Any]) -> dict[str, Any]:
    """A ranker's AUC and NDCG@5."""
    began = time.perf_counter()
    log, drawn = frames(seed)
    slice_ = np.arange(len(drawn)) % 10 == 3
    random_data = None if setting == "biased" else cr.RandomData(validation=drawn[slice_])
    test = drawn if setting == "biased" else drawn[~slice_]
    head = cr.Head(**{k: v for k, v in options.items() if k != "head_rate"})
    folder = Path(tempfile.mkdtemp())
    rows = cr.embed(cr.read_log(log, **ROLES, propensity="p"), cr.TextEmbedder(progress=False))
    ranker = cr.finetune(
        rows, objective=OBJECTIVES[objective],
        adapter=cr.Frozen(), head=head, epochs=EPOCHS, training=replace(TRAINING, head_rate=options["head_rate"]), random_data=random_data,
        weighing=cr.Weighing(nuisances=cr.NuisanceRecipe(ONE, ONE)), output=folder / "run", random_state=seed,
    )  # fmt: skip
    f = ranker.score_log(replace(rows, frame=test, blocks={}, origin=None))  # all of them were shown, which read_log refuses
    shutil.rmtree(folder, ignore_errors=True)
    y, users = test["liked"].to_numpy().astype(float), test["user"].to_numpy()
    each = ndcg_by_user(f, y, users, 5)
    ranked = np.bincount(users, minlength=len(each)) > 0
    least = {k: float(min(h[k] for h in ranker.history)) for k in ("risk", "risk_dr", "risk_naive")}
    return {
        "setting": setting, "objective": objective, "seed": seed, **least, "auc": auc(f, y), "ndcg": float(np.nanmean(each)),
        "ndcg_published": float(np.nan_to_num(each[ranked], nan=1.0).mean()), "epochs": len(ranker.history),
        "seconds": time.perf_counter() - began,
    }  # fmt: skip


def table(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Means over seeds with 95 % t intervals, and paired differences to naive."""
    out = []
    for (setting, objective), group in rows.groupby(["setting", "objective"], sort=False):
        naive = rows[(rows.setting == setting) & (rows.objective == "naive")].set_index("seed")
        mine = group.set_index("seed")
        both = mine.index.intersection(naive.index)
        if len(both) < 2:
            continue
        row: dict[str, Any] = {"setting": setting, "objective": objective, "seeds": len(both)}
        for name in ("auc", "ndcg", "ndcg_published"):
            row[name] = mf.interval(mine.loc[both, name].to_numpy())
            row[f"{name}_less_naive"] = mf.interval((mine.loc[both, name] - naive.loc[both, name]).to_numpy())
        out.append(row)
    return out


def _write(rows: pd.DataFrame) -> None:
    """The table; settings of earlier runs whose cache is gone stay."""
    before: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"options": {}, "table": []}
    now = table(rows)
    kept = [r for r in before["table"] if r["setting"] not in {n["setting"] for n in now}]
    options = before["options"] | json.loads(OPTIONS.read_text())
    RESULTS.write_text(json.dumps({"options": options, "table": kept + now}, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--objectives", nargs="*", default=list(OBJECTIVES))
    parser.add_argument("--settings", nargs="*", default=list(mf.SETTINGS))
    options = parser.parse_args()
    first = mf.SEED
    CACHE.parent.mkdir(exist_ok=True)
    for seed in range(first, first + options.seeds):
        for setting in options.settings:
            for objective in options.objectives:
                held = pd.read_json(CACHE, lines=True) if CACHE.exists() else pd.DataFrame(columns=["setting", "objective", "seed"])
                if len(held[(held.setting == setting) & (held.objective == objective) & (held.seed == seed)]):
                    continue
                row = one(setting, objective, seed, tuned(setting, objective))
                print(row, flush=True)
                with CACHE.open("a") as file:
                    file.write(json.dumps(row) + "\n")
        _write(pd.read_json(CACHE, lines=True))


if __name__ == "__main__":
    main()
