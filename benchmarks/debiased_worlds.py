"""Click logs with known exposure, examination and relevance, on natural titles: what a debiased ranker has to undo.

    CAUSALREC_DATA=... python benchmarks/debiased_worlds.py [cell ...] [--seeds 2] [--tuning]

A user has a history of six titles, drawn by two lists of words that he likes (``natural_text``). A candidate (user, title) is

- relevant with probability r = σ(base + words · c_j + taste · m_uj), c_j the click index of the title's words, m_uj the
  match of the words of the history with those of the title: no representation was built from either;
- shown with probability e = .05 + .9 σ(a + popular · p_j), p_j the popularity of the title: 0.95 what some words (``PUSHED``)
  have beside the click index, 0.3 chance, within ±2;
- if shown, put into a slot by the old score, p_j + knows · (log odds of r) + noise, the best first; looked at with
  probability θ = .12 + .88 exp(−η (slot − 1)); clicked if looked at and relevant.

What was not shown is found by the user himself with probability .01 (``read_log`` refuses a log without any click there).
A naive ranker learns θ(slot) r, and the slot follows the words. Judged on users of their own, 100 random candidates each, by NDCG@10 with gain r. Labels of the oracle are relevances, drawn for every row of the log.

Run as a program: ridge-logistic two towers on frozen vectors (item, and item × history coordinate by coordinate), the share of
the oracle-minus-naive gap in NDCG@10 that weighting recovers, per cell. Results: benchmarks/results/debiased_worlds.json.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import time
import zlib
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import natural_text as nt
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit
from vocab_text import Pool

import causalrec as cr
from causalrec.finetune.ranking import ndcg_by_user

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
HERE = Path(__file__).parent
SEED, TUNING = 20_261_122, 990_000
ROWS, LIST, SESSIONS, HISTORY = 100_000, 20, 2, 6
TEST_USERS, TEST_LIST = 1_000, 100
FOUND = 0.01  # P(looked at) of what was not shown: a user finds it by himself
LIKING = 1.6  # of the two lists that a user likes: log odds per standard deviation, of a title being in his history
PUSHED = {"headlines": ("kin", "groups"), "books": ("series", "life")}  # words that the old recommender likes, dislikes
ROLES = {
    "treatment": "shown", "outcome": "clicked", "text": "title", "history": "read", "unit": "user", "item": "item",
    "position": "slot", "confounders": ["popularity"],
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One world: how strong its biases are."""

    name: str
    pool: str
    popular: float
    eta: float
    taste: float
    base: float = 0.0
    words: float = 1.3
    knows: float = 0.0
    items: int = 3_000
    intercept: float = 0.0
    noise: float = 0.15

    def draw(self, seed: int, rows: int = ROWS) -> World:
        """A log and held-out users; the same seed gives the same ones."""
        return _draw(self, np.random.default_rng([zlib.crc32(self.name.encode()), seed]), rows)


@dataclass(frozen=True, eq=False)
class World:
    """A log and what made it.

    Attributes
    ----------
    frame : (n,) rows with ``ROLES``' columns, and ``e``, ``theta``, ``relevance`` (true) and ``relevant`` (drawn)
    codes : (n,) item of each row among `pool`; user_history : (users, HISTORY) among `pool`
    test_codes, test_relevance : (TEST_USERS · TEST_LIST,)
    test_histories : (TEST_USERS, HISTORY)
    """

    cell: Cell
    pool: Pool = field(repr=False)
    frame: pd.DataFrame = field(repr=False)
    codes: Ints = field(repr=False)
    users: Ints = field(repr=False)
    user_history: Ints = field(repr=False)
    test_codes: Ints = field(repr=False)
    test_relevance: Floats = field(repr=False)
    test_histories: Ints = field(repr=False)

    @property
    def thetas(self) -> dict[int, float]:
        """The true curve: slot → P(looked at)."""
        return {k: float(v) for k, v in zip(range(1, LIST + 1), examined(np.arange(1, LIST + 1), self.cell.eta), strict=True)}

    def log(self, propensity: Floats | str | None = "true") -> cr.ImpressionLog:
        """The log as its owner reads it, with the true P(shown), with another (n,), or with none logged."""
        if propensity is None:
            return cr.read_log(self.frame, **ROLES)
        e = self.frame["e"].to_numpy() if isinstance(propensity, str) else propensity
        return cr.read_log(self.frame.assign(logged=e), **ROLES, propensity="logged")

    def oracle_log(self) -> cr.ImpressionLog:
        """The same rows with the relevance of every one: what would be learnt if nothing had to be undone.

        A verb wants both arms: one row in 50 counts as not shown, at random.
        """
        out = np.random.default_rng(5).random(len(self.frame)) < 0.02
        frame = self.frame.assign(shown=(~out).astype(np.int64), clicked=self.frame["relevant"], logged=0.98)
        roles = {k: v for k, v in ROLES.items() if k != "position"}
        return cr.read_log(frame, **roles, propensity="logged")

    def seen_log(self) -> cr.ImpressionLog:
        """The rows with "shown and looked at" as treatment, its probability, and relevance as outcome."""
        f = self.frame
        doubtful = np.random.default_rng(6).random(len(f)) < f["theta"]
        looked = np.where(f["relevant"] == 1, f["clicked"], doubtful) * f["shown"]
        band = (f["e"].rank(method="first") * 200 // (len(f) + 1)).astype(int)  # rows of like popularity
        chance = f["e"] * band.map(f["theta"][f["shown"] == 1].groupby(band[f["shown"] == 1]).mean())
        frame = f.assign(shown=looked.astype(np.int64), clicked=f["relevant"] * looked, logged=chance)
        roles = {k: v for k, v in ROLES.items() if k != "position"}
        return cr.read_log(frame, **roles, propensity="logged")

    @cached_property
    def test_units(self) -> Ints:
        return np.repeat(np.arange(TEST_USERS), TEST_LIST)

    def test_frame(self) -> pd.DataFrame:
        """The held-out candidates as rows of the log, for ``Ranker.score_log``; nothing of it is an outcome."""
        texts = np.array(self.pool.texts, dtype=object)
        reads = [list(texts[h]) for h in self.test_histories]
        n = len(self.test_codes)
        return pd.DataFrame({
            "shown": np.arange(n) % 2, "clicked": np.arange(n) // 2 % 2, "title": texts[self.test_codes],
            "read": pd.Series([reads[u] for u in self.test_units], dtype=object), "user": [f"t{u}" for u in self.test_units],
            "item": self.test_codes, "slot": 1.0, "popularity": 0.0,
        })  # fmt: skip

    def ndcg(self, f: Floats) -> float:
        """Mean NDCG@10 over the held-out users, gain r."""
        return float(self.ndcg_of_users(f).mean())

    def ndcg_of_users(self, f: Floats) -> Floats:
        """(TEST_USERS,) NDCG@10."""
        return ndcg_by_user(f, self.test_relevance, self.test_units, 10)


@cache
def _lists(pool_name: str, items: int) -> tuple[Pool, Floats, Floats, Floats]:
    """The pool of a cell: texts, standardised indices (m, q), click index and what the old recommender pushes (m,)."""
    pool = nt.some(pool_name, items)
    more, less = PUSHED[pool_name]
    pushed = _beside(pool.latent(more) - pool.latent(less), pool.latent("click"))
    return pool, pool.z[:, :-2], pool.latent("click"), pushed


def examined(slot: Ints, eta: float) -> Floats:
    """P(looked at | slot)."""
    return np.asarray(0.12 + 0.88 * np.exp(-eta * (slot - 1.0)))


def _beside(a: Floats, b: Floats) -> Floats:
    """What of a is not b, standardised."""
    rest = a - a.mean() - (b - b.mean()) * np.cov(a, b)[0, 1] / b.var(ddof=1)
    return np.asarray(rest / rest.std())


def _histories(d: Floats, users: int, rng: np.random.Generator) -> Ints:
    """(users, HISTORY) titles, drawn ∝ exp(LIKING · the two lists that the user likes)."""
    pairs = list(combinations(range(d.shape[1]), 2))
    mine = rng.integers(0, len(pairs), users)
    out = np.empty((users, HISTORY), dtype=np.int64)
    for k, (a, b) in enumerate(pairs):
        share = np.exp(LIKING * np.minimum(d[:, a] + d[:, b], 4.0))
        who = np.flatnonzero(mine == k)
        out[who] = rng.choice(len(d), (len(who), HISTORY), p=share / share.sum())
    return out


def _draw(cell: Cell, rng: np.random.Generator, rows: int) -> World:
    pool, d, click, pushed = _lists(cell.pool, cell.items)
    m = len(pool)
    users = rows // (LIST * SESSIONS)
    read = _histories(d, users + TEST_USERS, rng)
    mean = d[read].mean(axis=1)
    mean = (mean - mean.mean(axis=0)) / mean.std(axis=0)
    scale = float(np.std(mean[rng.integers(0, len(mean), 20_000)] * d[rng.integers(0, m, 20_000)], axis=0).mean() * np.sqrt(d.shape[1]))

    def odds(user: Ints, item: Ints) -> Floats:
        return np.asarray(cell.base + cell.words * click[item] + cell.taste * (mean[user] * d[item]).sum(axis=1) / scale)

    fame = np.clip(0.95 * pushed + 0.3 * rng.standard_normal(m), -2, 2)
    user = np.repeat(np.arange(users), LIST * SESSIONS)
    session = np.arange(len(user)) // LIST
    item = np.argsort(rng.random((len(user) // LIST, m)), axis=1)[:, :LIST].ravel() if m < 400 else rng.integers(0, m, len(user))
    e = 0.05 + 0.9 * expit(cell.intercept + cell.popular * fame[item])
    shown = rng.random(len(user)) < e
    r = expit(odds(user, item))
    old = fame[item] + cell.knows * (odds(user, item) - cell.base) + cell.noise * rng.standard_normal(len(user))
    order = np.lexsort((-np.where(shown, old, -np.inf), session))
    slot = np.empty(len(user), dtype=np.int64)
    slot[order] = np.tile(np.arange(1, LIST + 1), len(user) // LIST)
    theta = examined(slot, cell.eta)
    relevant = rng.random(len(user)) < r
    clicked = relevant & (rng.random(len(user)) < np.where(shown, theta, FOUND))
    texts = np.array(pool.texts, dtype=object)
    reads = [list(texts[h]) for h in read]
    frame = pd.DataFrame({
        "shown": shown.astype(np.int64), "clicked": clicked.astype(np.int64), "title": texts[item],
        "read": pd.Series([reads[u] for u in user], dtype=object), "user": user, "item": item,
        "slot": np.where(shown, slot, np.nan), "popularity": fame[item], "e": e, "theta": theta, "relevance": r,
        "relevant": relevant.astype(np.int64),
    })  # fmt: skip
    test_user = np.repeat(np.arange(users, users + TEST_USERS), TEST_LIST)
    test_item = rng.integers(0, m, len(test_user))
    return World(cell, pool, frame, item, user, read, test_item, expit(odds(test_user, test_item)), read[users:])


def _cells() -> list[Cell]:
    out = []
    for pool in ("headlines", "books"):
        for p_name, popular in (("popular", 1.0), ("mild", 0.5)):
            for s_name, eta in (("steep", 0.3), ("flat", 0.12)):
                for m_name, taste in (("match", 1.0), ("plain", 0.0)):
                    out.append(Cell(f"{pool}-{p_name}-{s_name}-{m_name}", pool, popular, eta, taste))
        out.append(Cell(f"{pool}-rare", pool, 1.0, 0.3, 1.0, base=-1.0))
        out.append(Cell(f"{pool}-knowing", pool, 1.0, 0.3, 1.0, knows=0.3))
    out.append(Cell("headlines-few-items", "headlines", 1.0, 0.3, 1.0, items=600))
    out.append(Cell("headlines-thin-overlap", "headlines", 1.6, 0.3, 1.0))
    return out


CELLS = {c.name: c for c in _cells()}
MISSPECIFIED = ("noise", "power", "swapped", "constant")


def misspecified(world: World, how: str, seed: int = 0) -> Floats:
    """(n,) P(shown) that is not: with noise on the log odds (sd 1), squared odds, of another row, or the mean for all."""
    e = world.frame["e"].to_numpy()
    rng = np.random.default_rng(seed)
    if how == "noise":
        return expit(np.log(e / (1 - e)) + rng.standard_normal(len(e)))
    if how == "power":
        return expit(2 * np.log(e / (1 - e)))
    if how == "swapped":
        return e[rng.permutation(len(e))]
    return np.full(len(e), e.mean())


# a fast two-tower of our own, to see what a world is like


@dataclass(frozen=True, eq=False)
class Design:
    """Frozen coordinates of rows: [1, x, x ⊙ h] of item x and history h, at √width length."""

    train: Any
    test: Any


def design(world: World, width: int = 48) -> Design:
    """The first axes of the titles' vectors."""
    import torch

    v = world.pool.vectors.astype(np.float64)
    v = v - v.mean(axis=0)
    axes = np.linalg.eigh(v.T @ v)[1][:, ::-1][:, :width]
    x = v @ axes
    x = (x / x.std(axis=0).mean()).astype(np.float32)

    def part(codes: Ints, users: Ints, read: Ints) -> Any:
        h = x[read].mean(axis=1)
        h = h / h.std(axis=0).mean()
        return torch.from_numpy(np.hstack([np.ones((len(codes), 1), np.float32), x[codes], x[codes] * h[users]]))

    return Design(
        part(world.codes, world.users, world.user_history),
        part(world.test_codes, world.test_units, world.test_histories),
    )


def fitted(x: Any, weight: Floats, label: Floats, penalty: float, theta: Floats | None = None, steps: int = 30) -> Floats:
    """β that minimises mean weight ℓ + penalty/2 |β|², intercept free; L-BFGS. With θ, ℓ is −log likelihood of clicks at θ σ(f)."""
    import torch

    rows = np.flatnonzero(weight > 0)
    a = x if len(rows) == len(weight) else x[torch.from_numpy(rows)]
    w, y = (torch.tensor(v[rows], dtype=torch.float32) for v in (weight / weight.sum(), label))
    look = None if theta is None else torch.tensor(theta[rows], dtype=torch.float32)
    beta = torch.zeros(a.shape[1], requires_grad=True)
    ridge = torch.ones(a.shape[1])
    ridge[0] = 0.0
    solver = torch.optim.LBFGS([beta], max_iter=steps, history_size=10, line_search_fn="strong_wolfe", tolerance_grad=1e-6)

    def loss() -> Any:
        solver.zero_grad()
        f = a @ beta
        if look is None:
            each = torch.nn.functional.softplus(f) - y * f
        else:
            chance = look * torch.sigmoid(f)
            each = -y * torch.nn.functional.logsigmoid(f) - (1 - y) * torch.log1p(-chance.clamp_max(1 - 1e-6))
        value = (w * each).sum() + penalty / 2 * (ridge * beta**2).sum()
        value.backward()
        return value

    solver.step(loss)
    return beta.detach().numpy()


def arms(world: World, d: Design, penalty: float, which: tuple[str, ...]) -> dict[str, Floats]:
    """Scores (tests,) of each way of learning from the log."""
    f = world.frame
    t, y, e, theta = (f[c].to_numpy().astype(float) for c in ("shown", "clicked", "e", "theta"))
    theta = np.where(t == 1, theta, 1.0)
    rows = len(t)
    out = {}
    for name in which:
        look = None
        if name == "oracle":
            w, label = np.ones(rows), f["relevant"].to_numpy().astype(float)
        elif name == "oracle, shown rows":
            w, label = t, f["relevant"].to_numpy().astype(float)
        elif name == "naive":
            w, label = t, y
        elif name == "theta only":
            w, label = t, y / theta
        elif name == "e only":
            w, label = t / e, y
        elif name == "SNIPS":
            w, label = t / e, y / theta
        elif name == "DR":
            half = world.users % 2 == 0
            m1 = np.empty(rows)
            for fold in (half, ~half):
                beta = fitted(d.train, t * fold, y / theta, penalty)
                m1[~fold] = expit((d.train @ _tensor(beta)).numpy())[~fold]
            w, label = np.ones(rows), m1 + t / e * (y / theta - m1)
        elif name in ("click model", "click model, e"):
            w, label, look = t / e if name.endswith("e") else t, y, theta
        else:
            raise ValueError(name)
        out[name] = (d.test @ _tensor(fitted(d.train, w, label, penalty, look))).numpy().astype(float)
    return out


def _tensor(values: Floats) -> Any:
    import torch

    return torch.tensor(np.asarray(values, dtype=np.float32))


WHICH = ("naive", "theta only", "e only", "SNIPS", "DR", "click model, e", "oracle", "oracle, shown rows")
SHARES = WHICH[1:-2]


def describe(cell: Cell, seed: int, penalty: float = 0.05) -> dict[str, float]:
    """What a world is like, and NDCG@10 by each way of learning."""
    world = cell.draw(seed)
    f = world.frame
    shown = f["shown"] == 1
    d = design(world)
    scores = arms(world, d, penalty, WHICH)
    found = {name: world.ndcg(s) for name, s in scores.items()}
    gap = found["oracle"] - found["naive"]
    spread = world.ndcg_of_users(scores["oracle"]) - world.ndcg_of_users(scores["naive"])
    w = 1 / f["e"][shown]
    return {
        **found, "gap": gap, "gap_se": float(spread.std() / np.sqrt(TEST_USERS)),
        **{f"{n}, share": (found[n] - found["naive"]) / gap for n in SHARES},
        "ideal_by_chance": world.ndcg(np.random.default_rng(0).random(len(world.test_codes))), "shown": float(shown.mean()),
        "clicks": float(f["clicked"][shown].mean()), "relevant": float(f["relevance"].mean()), "ess": float(w.sum() ** 2 / (w**2).sum()),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", nargs="*", default=list(CELLS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--tuning", action="store_true")
    options = parser.parse_args()
    first = TUNING if options.tuning else SEED
    file = HERE / "results" / "debiased_worlds.json"
    for name in options.cells:
        began = time.perf_counter()
        rows = pd.DataFrame([describe(CELLS[name], first + r) for r in range(options.seeds)])
        row = {k: float(v) for k, v in rows.mean().items()} | {"seeds": options.seeds}
        print(name, {k: round(v, 4) for k, v in row.items()}, f"{time.perf_counter() - began:.0f} s", flush=True)
        if not options.tuning:
            known = json.loads(file.read_text()) if file.exists() else {}
            file.write_text(json.dumps(known | {name: row}, indent=1))


if __name__ == "__main__":
    main()
