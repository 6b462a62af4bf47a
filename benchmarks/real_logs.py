"""Real logs: randomised experiments, the same made confounded, a bandit's log, and headlines. Writes the README's table.

    CAUSALREC_DATA=... python benchmarks/real_logs.py

Needs the public data (``causalrec data`` says where they come from). Writes benchmarks/results/real_logs.json and the
part of README.md between the marks ``<!-- real logs -->``.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import causalrec as cr
from causalrec import datasets

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
MARKS = ("<!-- real logs -->", "<!-- /real logs -->")
SEEDS = range(20)


def interval(fit: cr.Fit) -> dict[str, float]:
    return {
        "effect": fit.effect, "lower": fit.ci_lower, "upper": fit.ci_upper, "se": fit.std_error,
        "naive": fit.naive_effect, "naive_lower": fit.naive.ci_lower, "naive_upper": fit.naive.ci_upper, "n": fit.n,
    }  # fmt: skip


def hillstrom_randomised(arm: str) -> dict[str, float]:
    """The mail against none, as randomised (P = 1/2 among the two arms), the history adjusted for to gain precision."""
    frame = datasets.load_hillstrom()
    mail = {"women": "Womens E-Mail", "men": "Mens E-Mail"}[arm]
    frame = frame[frame["segment"].isin([mail, "No E-Mail"])]
    frame = frame.assign(
        mailed=(frame["segment"] == mail).astype(int), about=datasets.hillstrom_text(frame), p=0.5
    )
    log = cr.read_log(
        frame,
        treatment="mailed",
        outcome="visit",
        text="about",
        propensity="p",
        modifiers=["recency", "newbie"],
    )
    log = cr.embed(log, cr.TextEmbedder(progress=False))
    return interval(cr.estimate(log, cr.identify(log), random_state=0))


def hillstrom_confounded(arm: str) -> dict[str, Any]:
    """Rejection-sampled so that exposure follows the history; 20 draws."""
    rows = []
    for seed in SEEDS:
        made = datasets.confounded_hillstrom(arm, random_state=seed)
        log = cr.read_log(made.frame, treatment="mailed", outcome="visit", text="about")
        log = cr.embed(log, cr.TextEmbedder(progress=False))
        fit = cr.estimate(log, cr.identify(log), random_state=seed)
        rows.append(interval(fit) | {"target": made.effect})
    table = pd.DataFrame(rows)
    covered = (table["lower"] <= table["target"]) & (table["target"] <= table["upper"])
    naive_covered = (table["naive_lower"] <= table["target"]) & (table["target"] <= table["naive_upper"])
    return rows[0] | {
        "draws": len(rows),
        "covered": int(covered.sum()),
        "naive_covered": int(naive_covered.sum()),
        "mean_error": float((table["effect"] - table["target"]).mean()),
        "sd": float(table["effect"].std()),
        "mean_naive_error": float((table["naive"] - table["target"]).mean()),
    }


def open_bandit(policy: str) -> dict[str, Any]:
    """Slot 1 against slot 3 on clicks; no user id, so that a row is its own unit; item-clustered interval beside it."""
    frame = datasets.load_open_bandit(policy)
    frame = frame[frame["position"].isin([1, 3])]
    frame = frame.assign(first=(frame["position"] == 1).astype(int))
    features = [f"user_feature_{j}" for j in range(4)]
    log = cr.read_log(
        frame,
        treatment="first",
        outcome="click",
        item="item_id",
        confounders=[*features, "item_feature_1", "item_feature_2"],
    )
    fit = cr.estimate(log, cr.identify(log), random_state=0)
    by_item = fit.by_item
    assert by_item is not None
    return interval(fit) | {
        "item_lower": by_item.ci_lower,
        "item_upper": by_item.ci_upper,
        "clicks": int(frame["click"].sum()),
    }


def wrong_propensity() -> str:
    """What happens when P(item | slot) is declared as P(treated)."""
    frame = datasets.load_open_bandit("bts")
    frame = frame[frame["position"].isin([1, 3])].assign(first=lambda f: (f["position"] == 1).astype(int))
    try:
        cr.read_log(frame, treatment="first", outcome="click", propensity="propensity_score")
    except cr.CausalRecError as error:
        return str(error)
    raise RuntimeError("P(item | slot) was taken for P(treated)")


def upworthy() -> dict[str, float]:
    """Share of the click-rate variation between headlines of one test that the frozen embedding explains, out of sample.

    Arms of one test and picture differ in the headline. Within each test the click rates and embeddings are centred; ridge
    regression weighted by impressions; folds by test. The share is of the true variation: sampling noise, known from
    the impressions, is taken off the denominator.
    """
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GroupKFold

    frame = datasets.load_upworthy()
    frame = frame[frame["impressions"] > 100].dropna(subset=["headline"])
    keys = ["clickability_test_id", "eyecatcher_id"]
    arms = frame.groupby([*keys, "headline"], as_index=False, dropna=False)[["clicks", "impressions"]].sum()
    arms = arms[arms.groupby(keys, dropna=False)["headline"].transform("size") >= 2].reset_index(drop=True)
    texts, codes = np.unique(arms["headline"].to_numpy(dtype=object), return_inverse=True)
    x = cr.TextEmbedder(progress=False).transform(list(texts))[codes].astype(np.float64)
    rate, w = (
        (arms["clicks"] / arms["impressions"]).to_numpy(),
        arms["impressions"].to_numpy(dtype=np.float64),
    )
    group = arms.groupby(keys, dropna=False).ngroup().to_numpy()

    def centred(v: np.ndarray) -> np.ndarray:
        total = np.bincount(group, w)
        v2 = v if v.ndim == 2 else v[:, None]
        means = (
            np.column_stack([np.bincount(group, w * v2[:, j]) for j in range(v2.shape[1])]) / total[:, None]
        )
        return (v2 - means[group]).reshape(v.shape)

    y, z = centred(rate), centred(x)
    inner = GroupKFold(5)
    predicted = np.zeros_like(y)
    for train, test in inner.split(z, y, group):
        best = min(
            (1e4, 1e5, 1e6, 1e7),
            key=lambda alpha: sum(
                (w[train][b] * (y[train][b] - Ridge(alpha=alpha, fit_intercept=False).fit(z[train][a], y[train][a], w[train][a]).predict(z[train][b])) ** 2).sum()
                for a, b in inner.split(z[train], y[train], group[train])
            ),
        )  # fmt: skip
        predicted[test] = (
            Ridge(alpha=best, fit_intercept=False).fit(z[train], y[train], w[train]).predict(z[test])
        )
    sizes = np.bincount(group)[group]
    noise = rate * (1 - rate) / w * (sizes - 1) / sizes
    total, left = (w * y**2).sum(), (w * (y - predicted) ** 2).sum()
    signal = total - (w * noise).sum()
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(300):
        m = rng.standard_exponential(group.max() + 1)[group] * w
        draws.append(
            ((m * y**2).sum() - (m * (y - predicted) ** 2).sum()) / ((m * y**2).sum() - (m * noise).sum())
        )
    return {
        "arms": len(arms), "comparisons": int(group.max()) + 1, "share_of_all": (total - left) / total,
        "share_of_true": (total - left) / signal, "low": float(np.quantile(draws, 0.025)), "high": float(np.quantile(draws, 0.975)),
    }  # fmt: skip


def pp(r: dict[str, Any], key: str = "effect", low: str = "lower", high: str = "upper") -> str:
    return f"{100 * r[key]:+.2f} [{100 * r[low]:+.2f}, {100 * r[high]:+.2f}]"


def markdown(found: dict[str, Any]) -> str:
    lines = ["| log | naive, pp | causalrec, pp (95 %) | truth, pp |", "|---|---|---|---|"]
    for arm in ("women", "men"):
        r = found[f"hillstrom_{arm}"]
        naive = pp(r, "naive", "naive_lower", "naive_upper")
        lines.append(
            f"| Hillstrom, {arm}'s mail on visits, randomised (n = {r['n']:,}) | {naive} | {pp(r)} | it is the experiment |"
        )
    for arm in ("women", "men"):
        r = found[f"hillstrom_{arm}_confounded"]
        naive = pp(r, "naive", "naive_lower", "naive_upper")
        lines.append(
            f"| the same, exposure made to follow the history, history given as text (n = {r['n']:,}, first of {r['draws']} draws) | {naive} | {pp(r)} | {100 * r['target']:+.2f} |"
        )
        lines.append(
            f"| – all {r['draws']} draws: mean error, intervals that cover | {100 * r['mean_naive_error']:+.2f}, {r['naive_covered']} of {r['draws']} "
            f"| {100 * r['mean_error']:+.2f} (sd {100 * r['sd']:.2f}), {r['covered']} of {r['draws']} | |"
        )
    lines.append(
        "| (the target is estimated from rows that include the log's, so that more than 95 % cover) | | | |"
    )
    for policy, label in (("random", "uniform-random log"), ("bts", "Thompson-sampling log")):
        r = found[f"open_bandit_{policy}"]
        naive = pp(r, "naive", "naive_lower", "naive_upper")
        lines.append(
            f"| Open Bandit men, slot 1 against 3, {label} (n = {r['n']:,}, {r['clicks']} clicks, row = unit) | {naive} "
            f"| {pp(r)}; by item too: [{100 * r['item_lower']:+.2f}, {100 * r['item_upper']:+.2f}] | unknown |"
        )
    u = found["upworthy"]
    lines += [
        "",
        f"Upworthy: of the true variation of click rates between headlines of one test and picture ({u['comparisons']:,} comparisons, {u['arms']:,} arms) "
        f"the frozen embedding explains {100 * u['share_of_true']:.1f} % out of sample [{100 * u['low']:.1f}, {100 * u['high']:.1f}] "
        f"({100 * u['share_of_all']:.1f} % with the sampling noise in the denominator). What a frozen encoder does not see, it cannot adjust for.",
    ]
    return "\n".join(lines)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    warnings.simplefilter("ignore")
    found: dict[str, Any] = {}
    for arm in ("women", "men"):
        found[f"hillstrom_{arm}"] = hillstrom_randomised(arm)
        found[f"hillstrom_{arm}_confounded"] = hillstrom_confounded(arm)
        print(arm, found[f"hillstrom_{arm}"], found[f"hillstrom_{arm}_confounded"], flush=True)
    for policy in ("random", "bts"):
        found[f"open_bandit_{policy}"] = open_bandit(policy)
        print(policy, found[f"open_bandit_{policy}"], flush=True)
    found["wrong_propensity"] = wrong_propensity()
    found["upworthy"] = upworthy()
    print(found["upworthy"], flush=True)
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "real_logs.json").write_text(json.dumps(found, indent=1))
    text = README.read_text()
    start, end = text.index(MARKS[0]) + len(MARKS[0]), text.index(MARKS[1])
    README.write_text(text[:start] + "\n" + markdown(found) + "\n" + text[end:])


if __name__ == "__main__":
    main()
