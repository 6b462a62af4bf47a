"""Coat without words: matrix factorisation on ratings of the user's own choice, judged on ratings drawn at random.

    CAUSALREC_DATA=... python benchmarks/debiased_mf.py [--seeds 20] [--trials 12]

Positive is a rating above 3. Models: MF (b + b_u + b_i + p_u·q_i, logistic loss), MF-IPS (rows weighted by 1 / shipped
propensity, clipped), MF-DR-JL (Wang et al. 2019: errors of all 87,000 cells imputed by a second factorisation, learnt in
turns), and a logistic regression on the features of users and items, their products, and who and what it is
("features"), naive and by IPS. Each has the same number of random trials of its options, on tuning seeds 990,000 + r;
the options are then fixed for reporting seeds 20,261,122 + r (which draw start values and the held-out tenth).

Two settings. "biased": a tenth of the biased ratings is held out, stops the training and chooses the options, by each
model's own risk. "10 % of MAR": the tenth of the randomly drawn ratings with row number ≡ 3 (mod 10) does, and the
other nine tenths are the test, as for the published rows. "features" starts at nought: in this setting its seeds are one run.

NDCG@5 is a mean over users, of the ranking of a user's randomly drawn coats (16; 14 or so in the second setting), gain 1
for a positive, discount log2(1 + rank), divided by that of the best order. "ndcg": users without a positive are left
out (53 of 290 have none). "ndcg_published": they count as 1, as in the published code of the DR-JL family.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import t as student

from causalrec.datasets import load_coat
from causalrec.finetune.ranking import auc, ndcg_by_user

HERE = Path(__file__).parent
SEED, TUNING = 20_261_122, 990_000
MODELS = ("MF", "MF-IPS", "MF-DR-JL", "features", "features-IPS")
SETTINGS = ("biased", "10 % of MAR")
STEPS, EVERY, PATIENCE = 400, 10, 5
Floats = np.ndarray


@dataclass(frozen=True, eq=False)
class Ratings:
    """Cells (m,) of users and items, 1 where the rating is above 3, and P(rated) of each."""

    user: Floats
    item: Floats
    y: Floats
    e: Floats

    def take(self, rows: Floats) -> Ratings:
        return Ratings(self.user[rows], self.item[rows], self.y[rows], self.e[rows])

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Options:
    """What is searched: width, λ of the squared norm per parameter, step size, clip, and scales of the features."""

    width: int
    penalty: float
    rate: float
    clip: float
    own: float
    taste: float


def ratings(matrix: Floats, e: Floats) -> Ratings:
    user, item = np.nonzero(matrix)
    return Ratings(user, item, (matrix[user, item] > 3).astype(float), e[user, item])


@cache
def data() -> tuple[Ratings, Ratings, torch.Tensor, torch.Tensor]:
    """Biased ratings, randomly drawn ones, and one-hot features of users and items."""
    coat = load_coat()
    one_hot = [
        torch.tensor(pd.get_dummies(part.drop(columns="text")).to_numpy(np.float32))
        for part in (coat.users, coat.items)
    ]
    return ratings(coat.train, coat.propensities), ratings(coat.test, coat.propensities), one_hot[0], one_hot[1]


def draw(rng: np.random.Generator) -> Options:
    """One trial."""
    return Options(
        int(rng.choice([2, 4, 8, 16])), float(10 ** rng.uniform(-4.5, -2.5)), float(10 ** rng.uniform(-2.2, -1.2)),
        float(rng.choice([0.0, 0.02, 0.05, 0.1])), float(rng.uniform(0.3, 1.0)), float(rng.uniform(0.2, 1.2)),
    )  # fmt: skip


class Scores(torch.nn.Module):
    """The matrix (290, 300) of log odds: a factorisation, or features with each user's own taste for them."""

    def __init__(self, o: Options, kind: str) -> None:
        super().__init__()
        _, _, users, items = data()
        self.features, n, m = kind.startswith("features"), len(users), len(items)
        self.constant = torch.nn.Parameter(torch.tensor(-1.0))
        self.of_user, self.of_item = (torch.nn.Parameter(torch.zeros(k)) for k in (n, m))
        if self.features:
            self.own, self.taste, self.users, self.items = o.own, o.taste, users, items
            self.pairs = torch.nn.Parameter(torch.zeros(users.shape[1], items.shape[1]))
            self.likes = torch.nn.Parameter(torch.zeros(n, items.shape[1]))
            self.liked = torch.nn.Parameter(torch.zeros(m, users.shape[1]))
        else:
            self.p = torch.nn.Parameter(0.1 * torch.randn(n, o.width))
            self.q = torch.nn.Parameter(0.1 * torch.randn(m, o.width))

    def forward(self) -> torch.Tensor:
        f = self.constant + self.of_user[:, None]
        if not self.features:
            return f + self.of_item[None] + self.p @ self.q.T
        left = 0.3 * self.users @ self.pairs + self.taste * self.likes
        return f + self.own * self.of_item[None] + left @ self.items.T + 0.3 * self.users @ self.liked.T

    def penalty(self) -> torch.Tensor:
        return sum(((v**2).sum() for n, v in self.named_parameters() if n != "constant"), torch.tensor(0.0))


def loss(f: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.softplus(f) - y * f


def weights(r: Ratings, kind: str, clip: float) -> Floats:
    """1, or 1 / e with mean 1 (the clip is a lower bound of e)."""
    if kind in ("MF", "features"):
        return np.ones(len(r))
    w = 1 / np.maximum(r.e, clip)
    return w / w.mean()


def fit(kind: str, o: Options, train: Ratings, held: Ratings, seed: int, random: bool) -> tuple[Floats, float]:
    """Scores (290, 300) at the step with the least held-out risk, and that risk (weighted as the model is, unless drawn at random)."""
    torch.manual_seed(seed)
    model = Scores(o, kind)
    parts = [model]
    cells = torch.tensor(train.user * 300 + train.item)
    y, w = (torch.tensor(v, dtype=torch.float32) for v in (train.y, weights(train, kind, o.clip)))
    w_held = np.ones(len(held)) if random else weights(held, kind, 0.0)
    joint = kind == "MF-DR-JL"
    if joint:
        parts.append(Scores(o, "MF"))
        inverse = torch.tensor(1 / np.maximum(train.e, max(o.clip, 0.02)), dtype=torch.float32)
    steps = [torch.optim.Adam(p.parameters(), lr=o.rate) for p in parts]
    best, kept, since = np.inf, None, 0
    for step in range(STEPS):
        f = model().ravel()
        if joint:
            with torch.no_grad():
                g = torch.sigmoid(parts[1]().ravel())
            error = loss(f, g)
            total = error.mean() + (inverse * (loss(f[cells], y) - error[cells])).sum() / error.numel()
        else:
            total = (w * loss(f[cells], y)).mean()
        steps[0].zero_grad()
        (total + o.penalty * model.penalty()).backward()
        steps[0].step()
        if joint:
            label = torch.sigmoid(parts[1]().ravel()[cells])
            gap = (inverse * (f.detach()[cells] ** 2).clamp_min(0.1) * (y - label) ** 2).mean()
            steps[1].zero_grad()
            (gap + o.penalty * parts[1].penalty()).backward()
            steps[1].step()
        if step % EVERY == EVERY - 1:
            now = model().detach().numpy().astype(float)
            s = now[held.user, held.item]
            risk = float(np.average(np.logaddexp(0, s) - held.y * s, weights=w_held))
            if risk < best - 1e-5:
                best, kept, since = risk, now, 0
            else:
                since += 1
            if since >= PATIENCE:
                break
    return kept, best


def parts(setting: str, seed: int) -> tuple[Ratings, Ratings, Ratings]:
    """Training, held-out and test ratings."""
    biased, drawn, _, _ = data()
    if setting == "biased":
        held = np.random.default_rng(seed).random(len(biased)) < 0.1
        return biased.take(~held), biased.take(held), drawn
    slice_ = np.arange(len(drawn)) % 10 == 3
    return biased, drawn.take(slice_), drawn.take(~slice_)


def judged(scores: Floats, test: Ratings) -> dict[str, float]:
    """AUC over all test ratings, NDCG@5 over users with a positive, and with the others as 1."""
    f = scores[test.user, test.item]
    each = ndcg_by_user(f, test.y, test.user, 5)
    ranked = np.bincount(test.user, minlength=len(each))[: len(each)] > 0
    return {
        "auc": auc(f, test.y),
        "ndcg": float(np.nanmean(each)),
        "ndcg_published": float(np.nan_to_num(each[ranked], nan=1.0).mean()),
    }


def tuned(kind: str, setting: str, trials: int, seeds: int = 2) -> Options:
    """The trial with the least mean held-out risk over tuning seeds; the same trials for every model."""
    rng = np.random.default_rng(TUNING)
    found = []
    for _ in range(trials):
        o = draw(rng)
        risks = []
        for seed in range(TUNING, TUNING + seeds):
            train, held, _ = parts(setting, seed)
            risks.append(fit(kind, o, train, held, seed, setting != "biased")[1])
        found.append((float(np.mean(risks)), o))
    return min(found, key=lambda pair: pair[0])[1]


def interval(values: Floats) -> dict[str, float]:
    """Mean over seeds and its 95 % t interval."""
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return {"mean": float(values.mean()), "ci_lower": float(values.mean() - half), "ci_upper": float(values.mean() + half)}


def table(setting: str, seeds: int, trials: int) -> list[dict[str, Any]]:
    """One row a model: means over seeds, and paired differences to the naive model of its kind."""
    found: dict[str, pd.DataFrame] = {}
    rows = []
    for kind in MODELS:
        began = time.perf_counter()
        o = tuned(kind, setting, trials)
        results = []
        for seed in range(SEED, SEED + seeds):
            train, held, test = parts(setting, seed)
            results.append(judged(fit(kind, o, train, held, seed, setting != "biased")[0], test))
        found[kind] = pd.DataFrame(results)
        row: dict[str, Any] = {"model": kind, "setting": setting, "seeds": seeds, "trials": trials, "options": vars(o)}
        naive = found["features" if kind.startswith("features") else "MF"]
        for name in results[0]:
            row[name] = interval(found[kind][name].to_numpy())
            row[f"{name}_less_naive"] = interval((found[kind][name] - naive[name]).to_numpy())
        row["seconds"] = time.perf_counter() - began
        rows.append(row)
        print(setting, kind, {k: np.round(list(v.values()), 4).tolist() for k, v in row.items() if isinstance(v, dict) and "mean" in v}, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {s: table(s, options.seeds, options.trials) for s in SETTINGS}
    file = HERE / "results" / "debiased_mf.json"
    file.write_text(json.dumps(found, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
