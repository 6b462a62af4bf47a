"""Worlds whose truth is known, for estimators that adjust for words: written texts (D0 to D16) and natural ones.

    CAUSALREC_DATA=... python benchmarks/text_worlds.py [name ...]

prints for each cell what it is like, and the bias of AIPW with its true nuisances over 50 draws: the proof that its
truth is true. Texts are encoded once; a draw is arithmetic on arrays. A row draws its text from the cell's pool and
everything else afresh, so that the truth is that of the superpopulation of rows unless the cell's note says otherwise.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, lru_cache, partial
from typing import Any

import natural_text as nt
import numpy as np
import numpy.typing as npt
import pandas as pd
import vocab_text as vt
from natural_text import CONTROLS, natural_law, some, zipf
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from vocab_text import Law, Normal, Pool, written_law, written_pool

import causalrec as cr
from causalrec import scores
from causalrec.datasets import Simulation

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Indices = tuple[npt.NDArray[np.float32], Floats, Floats]
_PLANS: dict[str, cr.Plan] = {}
ROLES = dict(treatment="recommended", outcome="clicked", text="title", unit="user_id", item="item_id")
COUNTS = ("poisson", "exact", "zipf")
HANDS, MATCH_ROWS, MATCH_USERS = 25, 20_000, 2_000


@dataclass(frozen=True, eq=False)
class Draw:
    """One log and its truth; nuisances are those of each row given all that acts on it, hidden causes included.

    Attributes
    ----------
    log, plan : ImpressionLog with its blocks, and its plan
    e, m0, m1 : (n,) P(T=1), E[Y | T=0], E[Y | T=1]
    truth : "ate", "att", "ato" in clicks per impression
    z : (n, q) latents of the text and numeric covariates: all observed confounders in few columns
    extra : "sample_ate"; "item" and "user" codes (n,); "index_e" and "index_y" (n,), the log odds as far as
        observed causes make them; hidden normals by name; "m0_seen" and "m1_seen" where hidden causes act on
        clicks alone, averaged over these
    """

    log: cr.ImpressionLog
    plan: cr.Plan
    e: Floats
    m0: Floats
    m1: Floats
    truth: dict[str, float]
    z: Floats
    extra: dict[str, Any]


@dataclass(frozen=True, eq=False)
class World:
    """A cell of the benchmark. ``draw(seed)``: the same seed gives the same log; ``indices()`` is (vectors (m, d), exposure (m,), click (m,)) of its texts."""

    name: str
    n: int
    note: str
    draw: Callable[[int], Draw] = field(repr=False)
    indices: Callable[[], Indices] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Cell:
    """How the rows of a world are drawn from a pool of texts by a law.

    Attributes
    ----------
    rows_per_user : (least, most); (1, 1): every row its own user
    exact : bool, each text equally often instead of drawn at random
    leak : float or None, the text says T through a marker with d' = leak
    controls : bool, two earlier clicks that the hidden causes act on and exposure does not
    carry : bool, earlier exposures of the user act on exposure and click
    """

    name: str
    n: int
    pool: Callable[[], Pool]
    law: Callable[[Pool], Law]
    rows_per_user: tuple[int, int] = (1, 1)
    exact: bool = False
    leak: float | None = None
    controls: bool = False
    carry: bool = False

    @cached_property
    def parts(self) -> tuple[Pool, Law, dict[str, float]]:
        pool = self.pool()
        law = self.law(pool)
        return pool, law, nt.carried_truth(law, self.rows_per_user) if self.carry else law.truth()

    def indices(self) -> Indices:
        pool, law, _ = self.parts  # a marked pool has each text twice
        return pool.vectors[: len(law.click)], law.exposure, law.click

    def make(self, seed: int) -> Draw:
        """One log."""
        pool, law, truth = self.parts
        rng = np.random.default_rng([zlib.crc32(self.name.encode()), seed])
        rows = nt.draw_rows(law, self.n, rng, self.rows_per_user, self.exact, self.carry)
        chances = np.where(rows.t == 1, rows.m1, rows.m0)
        clicked = (rng.random(self.n) < chances).astype(np.int64)
        columns = {"recommended": rows.t, "clicked": clicked, "user_id": rows.user, "item_id": rows.item}
        seen = {v.name: rows.normals[v.name] for v in law.normals if v.seen}
        seen |= {name: values[rows.item] for name, values in law.known.items()}
        index_e, index_y = nt.seen_indices(law, rows)
        extra: dict[str, Any] = {"item": rows.item, "user": rows.user, "index_e": index_e, "index_y": index_y}
        extra["sample_ate"] = float((rows.m1 - rows.m0).mean())
        extra |= {name: values for name, values in rows.normals.items() if name not in seen}
        extra |= nt.seen_means(law, rows.item, index_y)
        if self.controls:
            controls = nt.prior_clicks(law, rows, index_y, rng)
            columns, extra = columns | controls, extra | controls
        if self.rows_per_user[1] > 1:
            columns["shown_at"] = rows.step
        text = rows.item
        if self.leak is not None:
            text, extra["e_text"] = nt.marked(rows, self.leak, len(law.exposure), rng)
        log = _log(pool, text, columns | seen, list(seen))
        z = np.column_stack([pool.z[rows.item], *seen.values()])
        return Draw(log, _plan(self.name, log), rows.e, rows.m0, rows.m1, truth, z, extra)


def _plan(name: str, log: cr.ImpressionLog) -> cr.Plan:
    """The plan, found once a world: it depends on roles and names of blocks only."""
    if name not in _PLANS:
        _PLANS[name] = cr.identify(log)
    return _PLANS[name]


def _log(pool: Pool, text: Ints, columns: dict[str, Any], confounders: list[str]) -> cr.ImpressionLog:
    frame = pd.DataFrame(columns)
    frame["title"] = pd.Categorical.from_codes(text, dtype=pool.dtype)
    time = "shown_at" if "shown_at" in columns else None
    controls = [c for c in CONTROLS if c in columns]
    log = cr.read_log(frame, **ROLES, confounders=confounders, time=time, negative_controls=controls)
    return log.with_blocks([_compact(pool.block(text)), _compact(pool.style_block(text))])


@lru_cache(maxsize=1)
def _catalogue(number: int, score: bool) -> tuple[cr.ImpressionLog, Simulation, Ints, dict[str, float]]:
    """One long embedded log of a recommender that acts on matches, the hand of each row, and the truth over its rows."""
    sim = cr.simulate(
        MATCH_ROWS * HANDS, n_users=MATCH_USERS * HANDS, match=1.0, random_state=80_000 + number
    )
    log = cr.embed(sim.log(score=score), cr.TextEmbedder(progress=False))
    hands = np.random.default_rng(number).permutation(log.n_units)[log.units] % HANDS
    return log, sim, hands, nt.means(sim.propensity, sim.tau)


def _matched(name: str, score: bool, seed: int) -> Draw:
    """D14: hand seed % 25 of catalogue seed // 25."""
    whole, sim, hands, truth = _catalogue(seed // HANDS, score)
    rows = np.flatnonzero(hands == seed % HANDS)
    log = whole.take(rows)
    log = log.with_blocks([_compact(b) for b in log.blocks.values()])
    item = pd.Index(sim.items["item_id"]).get_indexer(log.frame["item_id"])
    words = sim.items[["exposure_index", "click_index"]].to_numpy()[item]
    x = log.frame[["tenure", "past_ctr", "hour"]].to_numpy(dtype=np.float64)
    z = np.column_stack([words, sim.match[rows], vt.standardised(x), log.frame["device"] == "phone"])
    extra = {"item": item, "user": log.units, "sample_ate": float(sim.tau[rows].mean())}
    return Draw(log, _plan(name, log), sim.propensity[rows], sim.p0[rows], sim.p1[rows], truth, z, extra)


def _compact(block: cr.Block) -> cr.Block:
    """The block with the vectors that its rows use, and no others."""
    used, codes = np.unique(block.codes, return_inverse=True)
    keys = None if block.keys is None else block.keys[used]
    return replace(block, values=block.values[used], codes=codes.astype(np.int64), keys=keys)


def _matched_indices(score: bool) -> Indices:
    items = _catalogue(0, score)[1].items
    vectors = cr.TextEmbedder(progress=False).transform(items["title"])
    return vectors, items["exposure_index"].to_numpy(), items["click_index"].to_numpy()


def _written() -> list[tuple[Cell, str]]:
    """D0 to D16, but D14, on texts written from latents."""
    law, trait, shares = written_law, (Normal("hidden", 0.5, 0.5, "user", seen=False),), zipf(3_000)
    hidden = partial(law, normals=trait)
    plain: list[tuple[str, int, Callable[[Pool], Law], str]] = [
        *((f"D0-{n}k", n, partial(law, scale=0.0), "randomised, e = .5") for n in (2, 10)),
        *((f"D1-{n}k", n, law, "linear in topics, sentiment, quality; e in [.1, .9]") for n in (2, 10, 50)),
        *((f"D2-{n}k", n, partial(law, index=vt.curved), "topic × sentiment + quality²") for n in (10, 50)),
        *((f"D3-s{s:g}", 10, partial(law, scale=s, eps=0.05), "weak overlap") for s in (1, 1.5, 2, 4)),
        ("D4", 10, vt.near_violation, "5 % of the texts have e < .01"),
        ("D6", 10, vt.instrument_like, "half of the variance of logit e is words that do not act on clicks"),
        *((f"D7-{n}k", n, vt.heterogeneous, "sd(tau) = ATE, a fifth below 0") for n in (10, 50)),
        ("D10", 50, partial(law, base=-4.3), "clicks of 1 to 3 %"),
    ]
    cells = [(Cell(name, 1_000 * n, written_pool, made), note) for name, n, made, note in plain]
    for a in (1.0, 3.0, np.inf):
        note = "the text says T through a marker (d'); e and truth are given the words without it, extra['e_text'] with it"
        cells.append((Cell(f"D5-a{a:g}", 10_000, vt.marked_pool, _unmarked, leak=a), note))
    for rho in (0.0, 0.1, 0.3):
        made = partial(law, normals=nt.hidden_cause(rho))
        cell = Cell(f"D11-rho{rho:g}", 10_000, written_pool, made, controls=True)
        cells.append((cell, "a hidden cause correlates the latent errors by rho; truth averages over it"))
    for icc in (0.1, 0.3):
        made, few = partial(law, normals=nt.clustered(icc)), partial(written_pool, 2_000)
        note = "users of 5 to 50 rows, a seen trait, hidden effects of user and item on clicks; truth averages over them"
        cells.append((Cell(f"D8-icc{icc:g}", 20_000, few, made, (5, 50)), note))
    note = "hidden trait of the user, sd .5 on both log odds, 20 rows a user"
    past = "; earlier exposures raise later exposure and clicks; truth: of a row, its past held (2e6 rows)"
    for name, carry in (("D15", False), ("D15carry", True)):
        cell = Cell(name, 50_000, written_pool, hidden, (20, 20), carry=carry)
        cells.append((cell, note + past * carry))
    famous = Cell("D16", 50_000, partial(written_pool, 3_000), partial(vt.popular, share=shares))
    return [*cells, (famous, "Zipf items, seen popularity acts on both; truth weighs items by their shares")]


def _unmarked(pool: Pool) -> Law:
    """The law of the first half of the marked pool: its texts without their marker."""
    return written_law(pool.take(np.arange(len(pool) // 2)))


def _natural() -> list[tuple[Cell, str]]:
    """Natural texts: how many rows, of how many texts, dealt how."""
    mood = (Normal("user_mood", 0.0, 0.5, "user", seen=False),)
    sizes = {2: (24_000, 12_387), 4: (48_000, 12_387), 8: (50_000, 6_250), 20: (50_000, 2_500)}
    plan = [("natural-1", "headlines", 10_000, 12_387, "exact", (1, 1))]
    plan += [(f"natural-{k}", "headlines", n, m, c, (1, 1)) for k, (n, m) in sizes.items() for c in COUNTS]
    plan += [("natural-4-users", "headlines", 48_000, 12_387, "poisson", (5, 5))]
    for k, (n, m) in {2: (20_000, 9_964), 8: (50_000, 6_250)}.items():
        plan.append((f"books-{k}", "books", n, m, "poisson", (1, 1)))
    cells = []
    for name, source, n, m, dealt, users in plan:
        share = zipf(m, shift=10.0) if dealt == "zipf" else None
        extra, of = (mood, "user") if users != (1, 1) else ((), "row")
        law = partial(natural_law, share=share, extra=extra, of=of)
        full = name if dealt == "poisson" or name == "natural-1" else f"{name}-{dealt}"
        cell = Cell(full, n, partial(some, source, m), law, users, exact=dealt == "exact")
        cells.append((cell, f"{n:,} rows of {m:,} {source}, counts {dealt}"))
    return cells


@cache
def worlds() -> dict[str, World]:
    """Every cell by name."""
    found = [World(c.name, c.n, note, c.make, c.indices) for c, note in [*_written(), *_natural()]]
    for name, score in (("D14", False), ("D14-score", True)):
        note = "recommender acts on matches of title and history; truth over the long log of a catalogue (25 seeds)"
        make, indices = partial(_matched, name, score), partial(_matched_indices, score)
        found.append(World(name, MATCH_ROWS, note, make, indices))
    return {w.name: w for w in found}


def recoverable(vectors: npt.NDArray[np.float32], index: Floats) -> float:
    """R² on unseen texts of ridge on the embedding; nan for an index that is the same for every text."""
    if np.ptp(index) < 1e-9:
        return float("nan")
    folds = KFold(5, shuffle=True, random_state=0)
    fitted = cross_val_predict(RidgeCV(np.logspace(-3, 2, 8)), vectors, index, cv=folds)
    return 1 - float(((index - fitted) ** 2).sum() / ((index - index.mean()) ** 2).sum())


def describe(world: World, draws: int = 50) -> dict[str, float]:
    """What a cell is like, and the bias of AIPW with true nuisances."""
    errors, naive, clicks = [], [], []
    for seed in range(draws):
        d = world.draw(seed)
        t, y = d.log.treatment, d.log.outcome
        errors.append(scores.aipw_ate(t, y, d.e, d.m0, d.m1)[0].mean() - d.truth["ate"])
        naive.append(y[t == 1].mean() - y[t == 0].mean() - d.truth["ate"])
        clicks.append(y.mean())
    vectors, exposure, click = world.indices()
    items = len(np.unique(d.extra["item"]))
    low, high = np.quantile(d.e, [0.01, 0.99])
    return {
        "n": world.n, "ate": d.truth["ate"], "naive": float(np.mean(naive)), "e01": low, "e99": high,
        "clicks": float(np.mean(clicks)), "items": items, "rows": world.n / items,
        "bias": float(np.mean(errors)), "bias_se": float(np.std(errors, ddof=1) / np.sqrt(draws)),
        "r2_exposure": recoverable(vectors, exposure), "r2_click": recoverable(vectors, click),
    }  # fmt: skip


def main() -> None:
    for name in sys.argv[1:] or worlds():
        print(f"{name:17}", *(f"{k} {v:.4g}" for k, v in describe(worlds()[name]).items()), flush=True)


if __name__ == "__main__":
    main()
