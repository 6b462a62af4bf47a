"""What ``finetune`` recovers of what an old recommender's bias costs, on logs whose truth is known (``debiased_worlds``).

    CAUSALREC_DATA=... python benchmarks/debiased_finetuning.py [--part gap|misspecified|dropout|value] [--cells ...] [--seeds 1] [--adapter frozen|lora] [--rows N]

"oracle, as informed", on request after "SNIPS true", is the oracle with as few rows as SNIPS has information: the training rows of the log
divided by the dispersion of its labels (``objectives.dispersion``). What it lacks to the oracle is the price of few labels, and no bias.
gap: 22 cells. Arms: naive; SNIPS and DR with true P(shown) and true θ(slot); SNIPS with both estimated (cross-fitted, and
``position_curve``); the oracle, naive training on relevance labels of all rows. "examination seen", on request, is SNIPS that is told
which rows were looked at: what no log says, and so a bound on what can be recovered from clicks. The share of the oracle-minus-naive NDCG@10
gap that an arm recovers has a 95 % interval over held-out users (bootstrap of users).
misspecified: 5 cells × 4 ways of being wrong (``MISSPECIFIED``; "power" squares θ as well). NDCG@10 less that of naive, which is given the
same curve (dividing by θ is no merit of an objective) and stopped by the same wrong risk; one-sided p by user, Holm; less that of naive on plain
clicks beside it. Two arms: SNIPS as it is, and ``Auto`` over SNIPS and DR.
``read_log`` refuses most of these propensities ("refused"); they are put in behind its back. ``finetune`` refuses a θ that
is below the clicks ("refusal"), and such a cell has no difference.
dropout: NDCG@10 of SNIPS with true propensities at ``Head(dropout=)`` of ``DROPOUTS``, less that without, in the 5 cells.
Off-policy value: of each debiased ranker, on the users whom ``finetune`` held out, against the mean true relevance of the
rows chosen (as nothing of it depends on how a ranker was trained, --part value draws many logs without training, a fifth of the users held
out, scores that are the true log odds and noise, and true propensities); its standard error is also of the draw of users, which this truth is conditional on, so that coverage is high.

NDCG by user is kept in benchmarks/cache/debiased/ and not computed again; the table is benchmarks/results/debiased_finetuning.json.
Heads and training are the package's defaults, which were chosen on tuning seeds 990,000 + r.
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

import debiased_worlds as worlds
import numpy as np
import torch
from scipy.stats import norm

import causalrec as cr
from causalrec.errors import EstimationError, LogError
from causalrec.finetune.labels import Labels
from causalrec.finetune.objectives import Rows, dispersion
from causalrec.finetune.policy_value import chosen, values

HERE = Path(__file__).parent
CACHE = HERE / "cache" / "debiased"
RESULTS = HERE / "results" / "debiased_finetuning.json"
ARMS = ("naive", "oracle", "SNIPS true", "SNIPS estimated", "DR true")
BOUND = "examination seen"
INFORMED = "oracle, as informed"
BASES = (
    "headlines-popular-steep-match", "books-popular-steep-match", "headlines-mild-flat-match", "books-mild-flat-match",
    "headlines-thin-overlap",
)  # fmt: skip
DROPOUTS = (0.0, 0.1, 0.3)
ONE = cr.RidgeLogistic(variances=(0.1,))
RECIPE = cr.NuisanceRecipe(ONE, ONE)
EPOCHS = {"frozen": 4, "lora": 2}
HEAD, TRAINING = cr.Head(), cr.Training(progress=False)
ADAPTERS = {"frozen": cr.Frozen(), "lora": cr.LoRA(rank=8)}


def spec(world: worlds.World, arm: str, seed: int) -> tuple[cr.ImpressionLog, Any, Any]:
    """The log, objective and curve of an arm."""
    true = cr.Examination.of(world.thetas)
    if arm == "naive":
        return world.log(), cr.Naive(), None
    if arm == "oracle":
        return world.oracle_log(), cr.Naive(), None
    if arm == INFORMED:
        held = read(world.cell.name, seed, "SNIPS true", "frozen")
        if held is None:
            raise SystemExit(f"{INFORMED!r} comes after 'SNIPS true'")
        log = world.oracle_log()
        rows = np.random.default_rng(7).permutation(len(log))[: round(len(log) / held[1]["dispersion"])]
        return log.take(np.sort(rows)), cr.Naive(), None
    if arm == BOUND:
        return world.seen_log(), cr.SNIPS(), None
    if arm.startswith("dropout"):
        return world.log(), cr.SNIPS(), true
    if arm in ("SNIPS true", "DR true"):
        return world.log(), cr.SNIPS() if arm.startswith("SNIPS") else cr.DR(), true
    if arm == "SNIPS estimated":
        log = world.log(None)
        return log, cr.SNIPS(), cr.position_curve(log, random_state=0)
    objective, how = arm.split(", ")
    if how == "power":
        true = cr.Examination.of({k: v**2 for k, v in world.thetas.items()})
    wrong = worlds.misspecified(world, how)
    log = world.log()
    log = replace(log, frame=log.frame.assign(logged=wrong))  # read_log would refuse it: see ``refused``
    return log, {"Auto": cr.Auto(candidates=(cr.SNIPS(), cr.DR())), "SNIPS": cr.SNIPS(), "Naive": cr.Naive()}[objective], true


def refused(world: worlds.World, how: str) -> bool:
    """Whether ``read_log`` sees that these propensities do not predict what was shown."""
    try:
        world.log(worlds.misspecified(world, how))
    except LogError:
        return True
    return False


def run(cell: str, seed: int, arm: str, adapter: str, world: worlds.World | None) -> worlds.World | None:
    """One ranker; its NDCG@10 by user and facts are written to the cache. `adapter` is a name, and "@" and rows where the log is shorter."""
    which, _, rows = adapter.partition("@")
    name = CACHE / f"{cell}-{seed}-{arm.replace(', ', '-').replace(' ', '-')}-{adapter}.npz"
    if name.exists():
        return world
    began = time.perf_counter()
    world = world or worlds.CELLS[cell].draw(seed, int(rows or worlds.ROWS))
    log, objective, curve = spec(world, arm, seed)
    head = replace(HEAD, dropout=float(arm.split()[1])) if arm.startswith("dropout") else HEAD
    embedder = cr.TextEmbedder(progress=False)
    folder = Path(tempfile.mkdtemp())
    try:
        ranker = cr.finetune(
            cr.embed(log, embedder), objective=objective, adapter=ADAPTERS[which], head=head, epochs=EPOCHS[which], training=TRAINING,
            weighing=cr.Weighing(nuisances=RECIPE, examination=curve), encoder=embedder, output=folder / "run", random_state=seed,
        )  # fmt: skip
    except EstimationError as refusal:
        if ", " not in arm:
            raise
        CACHE.mkdir(parents=True, exist_ok=True)
        np.savez(name, ndcg=np.empty(0), facts=np.array(json.dumps({"refusal": str(refusal)})))
        print(f"{cell} {seed} {arm}: refused, {refusal}", flush=True)
        return world
    ndcg = world.ndcg_of_users(ranker.score_log(cr.read_log(world.test_frame(), **worlds.ROLES)))
    facts = value_of(ranker) if curve is not None else {}
    if arm == "SNIPS true":
        labels = ranker.replay.labels
        columns = {k: torch.from_numpy(v) for k, v in labels.columns(objective.clip).items()}
        rows = Rows.of(columns, (float(labels.t.mean()), float((labels.t * labels.learnt).mean()), len(labels)))
        facts["dispersion"] = dispersion(objective, rows)
    facts |= {"chosen": ranker.objective.name, "epochs": len(ranker.history), "seconds": time.perf_counter() - began}
    if ", " in arm:
        facts["refused"] = refused(world, arm.split(", ")[1])
    if arm == "SNIPS estimated":
        slots = np.array(sorted(world.thetas))[:10]
        facts["theta_error"] = float(np.abs(curve.theta_at(slots) - [world.thetas[k] for k in slots]).max())
    CACHE.mkdir(parents=True, exist_ok=True)
    np.savez(name, ndcg=ndcg, facts=np.array(json.dumps(facts)))
    shutil.rmtree(folder, ignore_errors=True)
    print(f"{cell} {seed} {arm}: {ndcg.mean():.4f} {facts}", flush=True)
    return world


def value_of(ranker: cr.Ranker) -> dict[str, float]:
    """The off-policy value, its error and interval, and the mean true relevance of the rows that the ranker chose."""
    held = ranker.held_out
    pi = chosen(ranker.trained.valid_scores, ranker.held_labels)
    truth = float((pi * held.frame["relevance"].to_numpy()).sum() / pi.sum())
    value = ranker.evaluation.values["value"]
    return {
        "value": value.value, "value_se": value.std_error, "truth": truth,
        "covered": bool(value.ci_lower <= truth <= value.ci_upper), "curve_in_error": ranker.evaluation.curve_estimated,
    }  # fmt: skip


def read(cell: str, seed: int, arm: str, adapter: str) -> tuple[np.ndarray, dict[str, Any]] | None:
    name = CACHE / f"{cell}-{seed}-{arm.replace(', ', '-').replace(' ', '-')}-{adapter}.npz"
    if not name.exists():
        return None
    with np.load(name) as held:
        return held["ndcg"], json.loads(str(held["facts"]))


def share(arm: np.ndarray, naive: np.ndarray, oracle: np.ndarray) -> dict[str, float]:
    """(arm − naive) / (oracle − naive) of means over users, percentile interval of 1,000 bootstraps."""
    rng = np.random.default_rng(0)
    times = rng.multinomial(len(arm), np.full(len(arm), 1 / len(arm)), 1_000)
    draws = (times @ (arm - naive)) / (times @ (oracle - naive))
    low, high = np.quantile(draws, (0.025, 0.975))
    return {"share": float((arm - naive).mean() / (oracle - naive).mean()), "ci_lower": float(low), "ci_upper": float(high)}


def gap_table(seeds: list[int], adapter: str) -> list[dict[str, Any]]:
    rows = []
    for cell in worlds.CELLS:
        for seed in seeds:
            found = {arm: read(cell, seed, arm, adapter) for arm in (*ARMS, BOUND, INFORMED)}
            if found["naive"] is None or found["oracle"] is None:
                continue
            naive, oracle = found["naive"][0], found["oracle"][0]
            row: dict[str, Any] = {"cell": cell, "seed": seed, "adapter": adapter, "gap": float((oracle - naive).mean())}
            row["gap_se"] = float((oracle - naive).std() / np.sqrt(len(naive)))
            for arm, held in found.items():
                if held is None:
                    continue
                row[arm] = {"ndcg": float(held[0].mean()), **held[1]}
                if arm not in ("naive", "oracle"):
                    row[arm] |= share(held[0], naive, oracle)
            rows.append(row)
    return rows


def misspecified_table(seeds: list[int]) -> list[dict[str, Any]]:
    rows = []
    for cell in BASES:
        for how in worlds.MISSPECIFIED:
            for objective in ("SNIPS", "Auto"):
                for seed in seeds:
                    mine, rival, plain = (read(cell, seed, arm, "frozen") for arm in (f"{objective}, {how}", f"Naive, {how}", "naive"))
                    if mine is None or rival is None or plain is None:
                        continue
                    if "refusal" in mine[1]:
                        rows.append({"cell": cell, "how": how, "objective": objective, "seed": seed, "refusal": mine[1]["refusal"]})
                        continue
                    d, to_plain = mine[0] - rival[0], mine[0] - plain[0]
                    rows.append({
                        "cell": cell, "how": how, "objective": objective, "seed": seed, "chosen": mine[1]["chosen"], "refused": mine[1]["refused"],
                        "difference": float(d.mean()), "se": float(d.std() / np.sqrt(len(d))), "p_below": below(d),
                        "difference_to_plain": float(to_plain.mean()), "p_below_plain": below(to_plain),
                    })  # fmt: skip
    for objective in ("SNIPS", "Auto"):
        for p, holm in (("p_below", "p_holm"), ("p_below_plain", "p_holm_plain")):
            group = sorted((r for r in rows if r["objective"] == objective and p in r), key=lambda r: r[p])
            worst = 0.0
            for k, r in enumerate(group):
                worst = max(worst, min(1.0, (len(group) - k) * r[p]))
                r[holm] = worst
    return rows


def below(d: np.ndarray) -> float:
    """One-sided p of a mean difference (users,) at or above 0; 1 where there is none."""
    return float(norm.cdf(d.mean() / (d.std() / np.sqrt(len(d))))) if d.any() else 1.0


def dropout_table(seeds: list[int]) -> list[dict[str, Any]]:
    rows = []
    for p in DROPOUTS[1:]:
        for cell in BASES:
            for seed in seeds:
                mine, without = (read(cell, seed, f"dropout {q}", "frozen") for q in (p, 0.0))
                if mine is not None and without is not None:
                    d = mine[0] - without[0]
                    rows.append({"cell": cell, "seed": seed, "dropout": p, "difference": float(d.mean()), "se": float(d.std() / np.sqrt(len(d)))})
    return rows


def value_runs(seeds: list[int]) -> list[dict[str, Any]]:
    """Error of the off-policy value over its standard error, of noisy true scores on a fifth of the users of many logs."""
    out = []
    for cell in BASES:
        for seed in seeds:
            world = worlds.CELLS[cell].draw(seed)
            rng = np.random.default_rng(seed)
            user = world.frame["user"].to_numpy()
            held = world.frame[np.isin(user, rng.permutation(int(user.max()) + 1)[: (int(user.max()) + 1) // 5])]
            t, e, r = (held[name].to_numpy(dtype=float) for name in ("shown", "e", "relevance"))
            y = np.where(t == 1, held["clicked"] / held["theta"], 0.0)
            units, items = (np.unique(held[name], return_inverse=True)[1] for name in ("user", "item"))
            labels = Labels(t, y, e, np.full(len(t), np.nan), np.full(len(t), y.sum() / t.sum()), units, items, cr.Clip(0.01), True)
            f = np.log(r / (1 - r)) + 0.5 * rng.standard_normal(len(r))
            pi, found = chosen(f, labels), values(f, labels)["value"]
            truth = float((pi * r).sum() / pi.sum())
            out.append({
                "cell": cell, "seed": seed, "error": found.value - truth, "se": found.std_error, "covered": bool(found.ci_lower <= truth <= found.ci_upper),
            })  # fmt: skip
        print(cell, np.mean([v["error"] / v["se"] for v in out]), np.mean([v["covered"] for v in out]), flush=True)
    return out


def off_policy(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean error in standard errors, and coverage, by arm; of estimated curves, once more without the worlds whose old score knows relevance.

    There position follows relevance beyond what the log declares, and no estimate of P(examined) from it is right.
    """
    out = {}
    for arm, here in (*((a, rows) for a in ARMS), ("SNIPS estimated", [r for r in rows if "knowing" not in r["cell"]])):
        held = [r[arm] for r in here if arm in r and "value" in r[arm]]
        held = [h for h in held if "estimated" not in arm or h.get("curve_in_error")]
        arm = arm if here is rows else f"{arm}, position explained by the log"
        if held:
            z = np.array([(h["value"] - h["truth"]) / h["value_se"] for h in held])
            out[arm] = {"runs": len(z), "mean_error_in_se": float(z.mean()), "sd": float(z.std()), "coverage": float(np.mean([h["covered"] for h in held]))}
    return out


def write(seeds: list[int]) -> None:
    """The tables; rows of earlier runs whose cache is gone stay."""
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"gap": [], "misspecified": []}
    made = {name.stem.rsplit("-", 1)[1] for name in CACHE.glob("*.npz")}
    rows = _joined(before["gap"], [r for adapter in sorted(made) for r in gap_table(seeds, adapter)], ("cell", "seed", "adapter"))
    wrong = _joined(before["misspecified"], misspecified_table(seeds), ("cell", "how", "objective", "seed"))
    dropped = _joined(before.get("dropout", []), dropout_table(seeds), ("cell", "seed", "dropout"))
    kept = {"value": before["value"]} if "value" in before else {}
    RESULTS.write_text(json.dumps(kept | {"gap": rows, "misspecified": wrong, "dropout": dropped, "off_policy": off_policy([r for r in rows if r["adapter"] == "frozen"])}, indent=1))


def _joined(before: list[dict[str, Any]], now: list[dict[str, Any]], key: tuple[str, ...]) -> list[dict[str, Any]]:
    known = {tuple(r[k] for k in key): r for r in before} | {tuple(r[k] for k in key): r for r in now}
    return list(known.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["gap", "misspecified", "dropout", "value"], default="gap")
    parser.add_argument("--cells", nargs="*")
    parser.add_argument("--arms", nargs="*", default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--skip", type=int, default=0, help="seeds to leave out, of an earlier run")
    parser.add_argument("--adapter", choices=list(ADAPTERS), default="frozen")
    parser.add_argument("--rows", type=int, default=worlds.ROWS, help="of a log")
    parser.add_argument("--tuning", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    adapter = options.adapter if options.rows == worlds.ROWS else f"{options.adapter}@{options.rows}"
    first = worlds.TUNING if options.tuning else worlds.SEED
    seeds = list(range(first + options.skip, first + options.skip + options.seeds))
    if options.part == "value":
        before = json.loads(RESULTS.read_text())
        RESULTS.write_text(json.dumps(before | {"value": value_runs(seeds)}, indent=1))
        return
    cells = options.cells or ([*BASES, *(c for c in worlds.CELLS if c not in BASES)] if options.part == "gap" else list(BASES))
    wrong = [f"{o}, {how}" for how in worlds.MISSPECIFIED for o in ("Naive", "SNIPS", "Auto")]
    arms = {"gap": options.arms, "misspecified": ["naive", *wrong], "dropout": [f"dropout {p}" for p in DROPOUTS]}[options.part]
    for seed in seeds:
        for cell in cells:
            world = None
            for arm in arms:
                world = run(cell, seed, arm, adapter, world)
            if not options.tuning:
                write(seeds)
    if options.tuning:
        for row in gap_table(seeds, adapter):
            print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
