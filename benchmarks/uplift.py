"""The uplift rooms against known truth and against EconML: one part a line of the table.

    CAUSALREC_DATA=... python benchmarks/uplift.py [part ...] [--reps R] [--seed S]

Parts: heterogeneity (D7, 50,000 rows), bound (how far it can be taken), null (no heterogeneity), coverage (users of 5 to 50 rows), pairs (the same where an
unseen trait of the item confounds), hillstrom (AUTOC against EconML), stages (six final stages), million (time and memory),
saved (a fit on disk). A repetition's figures are kept in benchmarks/cache/uplift-<part>.jsonl and not computed again; the tables
go to benchmarks/results/uplift.json with the number of repetitions that they rest on. Seeds start at 20,261,122, those used
while the defaults were being chosen are below 1,000 or, for heterogeneity, from 990,000.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import resource
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import binomtest
from scipy.stats import t as student

import causalrec as cr
from causalrec.estimate.metalearners import TLearner, XLearner
from causalrec.uplift import ranking
from causalrec.uplift.choice import choose_model, default_models
from causalrec.uplift.curve import GRID, judge
from causalrec.uplift.held_out import HeldOut, held_out

HERE = Path(__file__).parent
SEED = 20_261_122
Row = dict[str, float]


def log_of(seed: int, users: int, spread: float, items: int = 0) -> tuple[cr.ImpressionLog, np.ndarray]:
    """Users of 5 to 50 rows, tau = .08 + spread · (tanh x + what is the user's own).

    A user is exposed in all rows or in none; with items, row by row, and a trait of the item that no column shows
    acts on exposure and clicks. Clicks depend on the user's own inclination as well.
    """
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), rng.integers(5, 51, users))
    n = len(user)
    taste, own, response, z = rng.standard_normal((4, users))[:, user]
    x = 0.8 * taste + 0.6 * rng.standard_normal(n)
    hidden, item = (
        (rng.standard_normal(items), rng.integers(0, items, n)) if items else (np.zeros(1), np.zeros(n, int))
    )
    tau = 0.08 + spread * (np.tanh(x) + np.tanh(response))
    m0 = 0.2 + 0.4 * expit(z + 1.2 * own + 1.2 * hidden[item])
    chance = rng.random(n) if items else rng.random(users)[user]
    t = chance < 0.1 + 0.8 * expit(0.8 * z + 0.4 * taste + 1.2 * hidden[item])
    columns = {"user": user, "item": item, "x": x, "z": z, "taste": taste, "tau": tau, "shown": t.astype(int)}
    frame = pd.DataFrame(columns | {"clicked": (rng.random(n) < m0 + tau * t).astype(int)})
    roles: dict[str, Any] = {"item": "item"} if items else {}
    log = cr.read_log(
        frame,
        treatment="shown",
        outcome="clicked",
        unit="user",
        modifiers=["x"],
        confounders=["z", "taste"],
        **roles,
    )
    return log, tau


def null(seed: int) -> Row:
    """One log without heterogeneity: which tests claim some at 5 %."""
    log, _ = log_of(seed, 300, 0.0)
    train, test = log.split(0.5, random_state=seed)
    fit = cr.estimate(train, cr.identify(train), random_state=seed)
    held = held_out(fit, test)
    curve = judge(held, fit.cate(test), 200, np.random.default_rng(seed))
    choice = choose_model(fit, {"T": TLearner(), "X": XLearner()})
    df = held.n_clusters - 1
    se = (curve.autoc_ci[1] - curve.autoc) / student.ppf(0.975, df)
    return {
        "qini": curve.p_value < 0.05,
        "slope": curve.calibration.p_heterogeneity < 0.05,
        "autoc": curve.autoc / se > student.ppf(0.95, df),
        "beats the constant": choice.best != "constant",
    }


def coverage(seed: int, items: int = 0) -> Row:
    """One fitted ranking: does each interval hold the truth of this ranking, by user and, wrongly, by row."""
    log, _ = log_of(seed, 300, 0.06, items)
    train, test = log.split(0.5, random_state=seed)
    fit = cr.estimate(train, cr.identify(train), random_state=seed)
    held, cate = held_out(fit, test), fit.cate(test)
    people, tau = log_of(7, 6_000, 0.06)
    tie = ranking.ties(np.round(fit.cate(people), 12))
    true = ranking.gains(tie, tau, np.ones_like(tau))
    band = ranking.bands_of(tie, np.ones_like(tau), 10)
    out: Row = {}
    alone = replace(held, units=np.arange(len(held)), items=None)
    for name, scored in (("", held), (" by row", alone)):
        c = judge(scored, cate, 500, np.random.default_rng(seed))
        out["qini" + name] = c.qini_ci[0] <= true.qini() <= c.qini_ci[1]
        out["autoc" + name] = c.autoc_ci[0] <= true.autoc() <= c.autoc_ci[1]
        _, lower, upper = c.at_k(0.3)
        out["policy value, top 30 %" + name] = lower <= true.at(np.array([0.3]))[0] / 0.3 <= upper
        inside = [
            row.ci_lower <= tau[band == row.decile - 1].mean() <= row.ci_upper for row in c.table.itertuples()
        ]
        out["deciles" + name] = float(np.mean(inside))
        out["joint band" + name] = bool(
            ((c.gain_lower <= true.at(GRID)) & (true.at(GRID) <= c.gain_upper)).all()
        )
    return out


def pairs(seed: int) -> Row:
    """As ``coverage``, with items of which a hidden trait confounds, so that scores are of second order."""
    return coverage(seed, 150)


def heterogeneity(seed: int) -> Row:
    """D7: effects that vary with the words. Learnt from a log of 50,000 rows, judged on 50,000 others of new users."""
    log, test = words_log(seed), words_log(seed + 500_000)
    fit = cr.estimate(log, cr.identify(log), random_state=seed)
    choice = choose_model(fit, random_state=seed)
    curve = cr.uplift(choice.best_fit, test)
    tau, cate = test.frame["tau"].to_numpy(), choice.best_fit.cate(test)
    oracle = ranking.gains(ranking.ties(tau), tau, np.ones_like(tau)).qini()
    ranked = ranking.gains(ranking.ties(cate), tau, np.ones_like(tau)).qini()
    return {
        "√PEHE / sd(tau)": float(np.sqrt(((cate - tau) ** 2).mean()) / tau.std()),
        "Qini / oracle": ranked / oracle,
        "calibration slope": float(np.cov(cate, tau)[0, 1] / max(cate.var(ddof=1), 1e-12)),
        "slope from clicks": curve.calibration.slope,
        "words are chosen": choice.best == "words",
    }


def bound(seed: int) -> Row:
    """How far D7 can be taken: the same model on scores of the true nuisances, on the few numbers through which the words act, and without noise.

    "true nuisances": what remains is the noise of single clicks and what the features cannot say. "no noise": the features' least squares fit of the
    true effect itself, on the training rows. "true latents": second-degree polynomial of the numbers that the effect depends on, on scores of the true nuisances.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.preprocessing import PolynomialFeatures

    logs, truths = zip(*(words_and_truth(s) for s in (seed, seed + 500_000)), strict=True)
    (log, test), (draw, other) = logs, truths
    plan = cr.identify(log)
    fitted = cr.estimate(log, plan, correction=cr.Correction(order=1), random_state=seed)
    true = replace(fitted.nuisances, propensity=draw.e, outcome_0=draw.m0, outcome_1=draw.m1)
    best = cr.estimate(log, plan, nuisances=true, correction=cr.Correction(order=1), model=cr.WordEffects(), random_state=seed)
    tau, tau_train = other.m1 - other.m0, draw.m1 - draw.m0

    def error(cate: np.ndarray) -> float:
        return float(np.sqrt(((cate - tau) ** 2).mean()) / tau.std())

    psi = best.analysis.pair[0]
    polynomial = PolynomialFeatures(2, include_bias=False)
    z, z_test = polynomial.fit_transform(draw.z), polynomial.transform(other.z)
    latents = RidgeCV(np.logspace(0, 5, 11)).fit(z, psi).predict(z_test)
    features, x, x_test = best.model.features_, best.modifiers.matrix(log), best.modifiers.matrix(test)
    alone = RidgeCV(np.logspace(-3, 3, 7)).fit(features.matrix(x), tau_train).predict(features.matrix(x_test))
    oracle = ranking.gains(ranking.ties(tau), tau, np.ones_like(tau)).qini()
    out: Row = {}
    for name, cate in {"true nuisances": best.cate(test), "true latents": latents, "no noise": alone}.items():
        out[f"√PEHE / sd(tau), {name}"] = error(cate)
        out[f"Qini / oracle, {name}"] = ranking.gains(ranking.ties(cate), tau, np.ones_like(tau)).qini() / oracle
    return out


def words_and_truth(seed: int) -> tuple[cr.ImpressionLog, Any]:
    """The log of ``words_log`` and the draw that it came from."""
    import text_worlds

    return words_log(seed), text_worlds.worlds()["D7-50k"].draw(seed)


def words_log(seed: int) -> cr.ImpressionLog:
    """An embedded log of D7 with each row's true effect and users of its own."""
    import text_worlds

    draw = text_worlds.worlds()["D7-50k"].draw(seed)
    users = f"{seed}-" + draw.log.frame["user_id"].astype(str)
    frame = draw.log.frame.assign(tau=draw.m1 - draw.m0, user_id=users)
    return cr.read_log(frame, **text_worlds.ROLES).with_blocks(draw.log.blocks.values())


def hillstrom(seed: int) -> Row:
    """One split of the experiment (any mail, visit): AUTOC of our choice and of EconML's learner that its R-scorer picks."""
    frame = cr.datasets.load_hillstrom()
    frame["mailed"] = (frame["segment"] != "No E-Mail").astype(int)
    frame["known"] = 2 / 3
    modifiers = ["recency", "history", "mens", "womens", "zip_code", "channel", "newbie"]
    log = cr.read_log(frame, treatment="mailed", outcome="visit", modifiers=modifiers, propensity="known")
    train, test = log.split(0.5, random_state=seed)
    fit = cr.estimate(train, cr.identify(train), random_state=seed)
    choice = choose_model(fit, random_state=seed)
    x = [pd.get_dummies(part.frame[modifiers]).to_numpy(dtype=float) for part in (train, test)]
    peer = peers_choice(train.outcome, train.treatment, x[0], seed)
    held = held_out(fit, test)

    def autoc(cate: np.ndarray) -> float:
        return ranking.gains(ranking.ties(np.round(cate, 12)), held.psi, held.weights).autoc()

    return {
        "ours": autoc(choice.best_fit.cate(test)),
        "ours, ranking_fit": autoc(choice.ranking_fit.cate(test)),
        "econml": autoc(np.ravel(peer.effect(x[1]))),
    }


def peers_choice(y: np.ndarray, t: np.ndarray, x: np.ndarray, seed: int) -> Any:
    """EconML's learners as its notebooks fit them, and the one that ``RScorer`` prefers on half of the training customers."""
    from econml.dml import CausalForestDML, LinearDML
    from econml.dr import ForestDRLearner, LinearDRLearner
    from econml.score import RScorer
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    def r() -> Any:
        return GradientBoostingRegressor(n_estimators=100, max_depth=3, random_state=seed)

    def c() -> Any:
        return GradientBoostingClassifier(n_estimators=100, max_depth=3, random_state=seed)

    dr = {"model_regression": r(), "model_propensity": c(), "random_state": seed}
    dml: dict[str, Any] = {"model_y": r(), "model_t": c(), "discrete_treatment": True, "random_state": seed}
    half = np.random.default_rng(seed).random(len(y)) < 0.5
    models = [LinearDRLearner(**dr), ForestDRLearner(**dr), LinearDML(**dml), CausalForestDML(**dml)]
    fitted = [m.fit(y[half], t[half], X=x[half]) for m in models]
    scorer = RScorer(model_y=r(), model_t=c(), discrete_treatment=True, cv=3, random_state=seed)
    scorer.fit(y[~half], t[~half], X=x[~half])
    best = int(np.argmax([scorer.score(m) for m in fitted]))
    return models[best].fit(y, t, X=x)


def stages(seed: int) -> Row:
    """Six final stages on 100,000 rows: seconds with shared nuisances, and of the final stages by themselves."""
    import worlds
    from sklearn.dummy import DummyClassifier, DummyRegressor

    world = worlds.make(100_000, 5_000, seed % 1_000)
    began = time.perf_counter()
    fit = cr.estimate(world.log, world.plan, model=TLearner(), random_state=0)
    shared = time.perf_counter() - began
    began = time.perf_counter()
    for model in default_models().values():
        fit.with_model(model)
    ours = time.perf_counter() - began
    y, t, x = world.log.outcome, world.log.treatment, fit.modifiers.apply(world.log.frame)
    began = time.perf_counter()
    for name, model in default_models().items():
        if name in ("T-learner", "X-learner"):
            fit.with_model(model)
            continue
        if hasattr(model, "model_regression"):
            model.model_regression, model.model_propensity = DummyRegressor(), DummyClassifier()
        else:
            model.model_y, model.model_t = DummyRegressor(), DummyClassifier()
        model.fit(y, t, X=x)
    alone = time.perf_counter() - began
    return {
        "nuisances, s": shared,
        "six stages, s": ours,
        "alone, s": alone,
        "total / sum": (shared + ours) / (shared + alone),
    }


def million(seed: int) -> Row:
    """Seconds of the curve with clustered bands at 250,000 to 1,000,000 rows, by user and by user and item; peak memory."""
    out: Row = {}
    for n in (250_000, 500_000, 1_000_000):
        rng = np.random.default_rng(seed)
        units = np.unique(rng.integers(0, n // 20, n), return_inverse=True)[1]
        cate, t, one = rng.standard_normal(n), rng.integers(0, 2, n).astype(float), np.ones(n)
        psi = 0.1 * cate + rng.standard_normal(n)
        for name, items in (("", None), (" two-way", rng.integers(0, n // 50, n))):
            held = HeldOut(psi, t, psi, one / 2, one, one, units, items, one, None, "Made.")
            began = time.perf_counter()
            judge(held, cate, 2_000, rng)
            out[f"{n:,} rows{name}, s"] = time.perf_counter() - began
        out[f"{n:,} rows, peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return out


def saved(seed: int) -> Row:
    """Megabytes on disk of a first-order fit on 600,000 impressions of 20,000 texts of 384 numbers, with its log."""
    import tempfile

    import worlds

    world = worlds.make(600_000, 20_000, seed % 1_000)
    fit = cr.estimate(world.log, world.plan, correction=cr.Correction(order=1), random_state=0)
    with tempfile.TemporaryDirectory() as folder:
        files = cr.save(fit, Path(folder) / "fit").iterdir()
        return {"600,000 rows, MB": sum(f.stat().st_size for f in files) / 1e6}


PARTS: dict[str, tuple[Callable[[int], Row], int]] = {
    "heterogeneity": (heterogeneity, 20), "bound": (bound, 5), "null": (null, 1_000), "coverage": (coverage, 500), "pairs": (pairs, 500),
    "hillstrom": (hillstrom, 50), "stages": (stages, 3), "million": (million, 1),
    "saved": (saved, 1),
}  # fmt: skip
REACH: dict[tuple[str, str], tuple[float, float]] = {
    ("heterogeneity", "√PEHE / sd(tau)"): (0.0, 0.5), ("heterogeneity", "Qini / oracle"): (0.9, np.inf),
    ("heterogeneity", "calibration slope"): (0.9, 1.1), ("null", "qini"): (0.04, 0.06), ("null", "slope"): (0.04, 0.06),
    ("null", "autoc"): (0.04, 0.06), ("stages", "total / sum"): (0.0, 1.1), ("million", "1,000,000 rows, s"): (0.0, 60.0), ("saved", "600,000 rows, MB"): (0.0, 200.0),
    **{("hillstrom", f"({name} − econml) / sd"): (-0.25, np.inf) for name in ("ours", "ours, ranking_fit")},
    **{(p, q): (0.93, 0.97) for p in ("coverage", "pairs") for q in ("qini", "autoc", "policy value, top 30 %", "deciles")},
}  # fmt: skip


def repeated(part: str, reps: int, first: int) -> pd.DataFrame:
    """The repetitions' figures, those that are kept and those that are new."""
    run, _ = PARTS[part]
    file = HERE / "cache" / f"uplift-{part}.jsonl"
    file.parent.mkdir(exist_ok=True)
    kept = {r["seed"]: r for r in map(json.loads, file.read_text().splitlines())} if file.exists() else {}
    for seed in range(first, first + reps):
        if seed not in kept:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                row = {k: float(v) for k, v in run(seed).items()}
            kept[seed] = {"seed": seed, **row}
            with file.open("a") as out:
                out.write(json.dumps(kept[seed]) + "\n")
    return pd.DataFrame([kept[s] for s in range(first, first + reps)]).drop(columns="seed")


def interval(values: np.ndarray, widen: float = 0.0) -> tuple[float, float]:
    """95 % for the mean: Wilson's for shares of yes and no, else t; `widen` adds to 1/R where repetitions overlap."""
    r = len(values)
    if set(np.unique(values)) <= {0.0, 1.0}:
        ci = binomtest(int(values.sum()), r).proportion_ci(method="wilson")
        return float(ci.low), float(ci.high)
    half = student.ppf(0.975, max(r - 1, 1)) * values.std(ddof=1) * np.sqrt(1 / r + widen) if r > 1 else 0.0
    return float(values.mean() - half), float(values.mean() + half)


def verdict(part: str, name: str, low: float, high: float) -> str:
    """Met, missed or undecided, by the interval."""
    if (part, name) not in REACH:
        return ""
    least, most = REACH[part, name]
    if least <= low and high <= most:
        return "met"
    return "missed" if high < least or low > most else "undecided"


def table(part: str, found: pd.DataFrame) -> list[dict[str, Any]]:
    """Each figure's mean, interval and verdict; of splits of one experiment, which overlap, also with Nadeau & Bengio's (2003) variance."""
    if part == "hillstrom":
        for name in ("ours", "ours, ranking_fit"):
            gap = found[name] - found["econml"]
            found = found.assign(
                **{f"({name} − econml) / sd": gap / (gap.std(ddof=1) if len(gap) > 1 else 1.0)}
            )
    rows = []
    for name in found.columns:
        rows.append(line(part, name, found[name].to_numpy()))
        if name.startswith("("):
            wide = line(part, f"{name}, allowing for overlapping splits", found[name].to_numpy(), 1.0)
            rows.append(wide)
    return rows


def line(part: str, name: str, values: np.ndarray, widen: float = 0.0) -> dict[str, Any]:
    """One figure's row."""
    low, high = interval(values, widen)
    target = [x if np.isfinite(x) else None for x in REACH.get((part, name), ())]
    said = verdict(part, name, low, high)
    found = {"figure": name, "R": len(values), "mean": float(values.mean()), "low": low, "high": high}
    return found | {"target": target, "reach": said}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--reps", type=int, help="repetitions of each part; default that of the part")
    parser.add_argument("--seed", type=int, default=SEED, help="the first seed")
    options = parser.parse_args()
    file = HERE / "results" / "uplift.json"
    for part in options.parts:
        rows = table(part, repeated(part, options.reps or PARTS[part][1], options.seed))
        print(f"\n{part}\n{pd.DataFrame(rows).to_string(index=False)}", flush=True)
        if options.seed == SEED:
            file.parent.mkdir(exist_ok=True)
            known = json.loads(file.read_text()) if file.exists() else {}
            file.write_text(json.dumps(known | {part: rows}, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
