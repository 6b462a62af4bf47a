"""The results of the debiased loop as lines of benchmarks/RESULTS.md."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import binomtest
from text_page import decided, worded

TRUE, ESTIMATED, BOUND = ("SNIPS true", "DR true"), ("SNIPS estimated",), "examination seen"
INFORMED = "oracle, as informed"


def gap(r: dict[str, Any]) -> list[str]:
    """Share of the gap by cell, misspecified propensities, and the off-policy value."""
    rows = [row for row in r["gap"] if "naive" in row and "oracle" in row]
    out = [
        "## The debiased loop: what it recovers",
        "",
        "`CAUSALREC_DATA=... python benchmarks/debiased_finetuning.py`: natural titles, position and popularity bias, 100,000 rows, frozen encoder and head with the package's defaults, "
        f"4 epochs. Share of the oracle-minus-naive gap in NDCG@10 on 1,000 held-out users; [95 % interval over users]. *{BOUND}*: SNIPS told which rows were looked at, which no "
        f"log says: about what clicks can give at most. *{INFORMED}*: the oracle with as few rows as the weighted labels are worth (rows over the dispersion of SNIPS' labels): what an "
        "unbiased learner reaches on that much information. \"@ n\": logs of n rows, encoders that learn for 2 epochs.",
        "",
        "| cell | seed | naive | oracle | " + " | ".join((*TRUE, *ESTIMATED, BOUND, INFORMED)) + " |",
        "|---|---|---|---|" + "---|" * 5,
    ]
    for row in rows:
        cells = " | ".join(_share(row.get(arm)) for arm in (*TRUE, *ESTIMATED, BOUND, INFORMED))
        name = row["cell"] + ("" if row["adapter"] == "frozen" else f" ({row['adapter']})")
        out.append(f"| {name} | {row['seed']} | {row['naive']['ndcg']:.3f} | {row['oracle']['ndcg']:.3f} | {cells} |")
    out += ["", "| arm | reach | cells | mean share [95 % interval over cells] | cells within reach | |", "|---|---|---|---|---|---|"]
    for arm, least in (*((a, 0.8) for a in TRUE), *((a, 0.6) for a in ESTIMATED), (BOUND, None), (INFORMED, None)):
        shares = np.array([row[arm]["share"] for row in rows if arm in row and row["adapter"] == "frozen"])
        if len(shares) > 1:
            out.append(_mean_line(arm, shares, least))
    return [*out, "", *_wrong(r.get("misspecified", [])), *_dropout(r.get("dropout", [])), *_values(r.get("off_policy", {}), r.get("value", []))]


def _share(held: dict[str, Any] | None) -> str:
    return "–" if held is None else f"{100 * held['share']:.0f} % [{100 * held['ci_lower']:.0f}, {100 * held['ci_upper']:.0f}]"


def _mean_line(arm: str, shares: Any, least: float | None) -> str:
    mean, half = shares.mean(), 2 * shares.std(ddof=1) / len(shares) ** 0.5
    said = "" if least is None else worded(decided(mean - half, mean + half, least, np.inf))
    within = "" if least is None else f"{(shares >= least).sum()} of {len(shares)}"
    asked = "–" if least is None else f"≥ {100 * least:.0f} %"
    return f"| {arm} | {asked} | {len(shares)} | {100 * mean:.0f} % [{100 * (mean - half):.0f}, {100 * (mean + half):.0f}] | {within} | {said} |"


def _wrong(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return ["Misspecified propensities: not run.", ""]
    out = [
        "**Misspecified propensities** (`--part misspecified`): NDCG@10 less that of naive on the same log; one-sided p of being below, Holm over an objective's cells. *Same curve*: a naive ranker whose "
        "clicks are divided by the same P(examined) as well, so that what the curve brings is no merit of the objective. *Plain*: naive on clicks as they are. `read_log` refuses most of these propensities, which are put in behind its back; `finetune` refuses a curve that is below the clicks.",
        "",
        "| objective | cells | refused by `finetune` | mean difference, same curve | significantly below it | of those that `read_log` takes | least difference | | mean difference, plain | below it | |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for objective in dict.fromkeys(r["objective"] for r in rows):
        every = [r for r in rows if r["objective"] == objective]
        some = [r for r in every if "difference" in r]
        d, plain = (np.array([r[k] for r in some]) for k in ("difference", "difference_to_plain"))
        under, under_plain = [r for r in some if r["p_holm"] < 0.05], sum(r["p_holm_plain"] < 0.05 for r in some)
        taken = [r for r in some if not r["refused"]]
        out.append(
            f"| {objective} | {len(every)} | {len(every) - len(some)} | {d.mean():+.4f} | {len(under)} of {len(some)} | {sum(not r['refused'] for r in under)} of {len(taken)} | "
            f"{d.min():+.4f} ± {min(some, key=lambda r: r['difference'])['se']:.4f} | {worded(not under and d.mean() >= 0)} | {plain.mean():+.4f} | {under_plain} | {worded(under_plain == 0 and plain.mean() >= 0)} |"
        )
    return [*out, ""]


def _dropout(rows: list[dict[str, Any]]) -> list[str]:
    """What dropout does to NDCG@10, by share dropped."""
    if not rows:
        return []
    out = ["**Dropout** (`--part dropout`): NDCG@10 of SNIPS with true propensities, less that without dropout on the same log.", "", "| dropout | cells | mean difference [95 % interval over cells] | least | most |", "|---|---|---|---|---|"]
    for p in dict.fromkeys(r["dropout"] for r in rows):
        d = np.array([r["difference"] for r in rows if r["dropout"] == p])
        half = 2 * d.std(ddof=1) / len(d) ** 0.5
        out.append(f"| {p:g} | {len(d)} | {d.mean():+.4f} [{d.mean() - half:+.4f}, {d.mean() + half:+.4f}] | {d.min():+.4f} | {d.max():+.4f} |")
    return [*out, ""]


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Wilson interval of a share, 95 %."""
    found = binomtest(hits, n).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def _values(found: dict[str, Any], drawn: list[dict[str, Any]]) -> list[str]:
    if not found:
        return []
    out = [
        "**Off-policy value of the tuned ranker** against the true relevance of the rows that it chose, on the users held out of its training. "
        "In two worlds of each seed the old score knows relevance beyond what the log declares: there no curve from the log is right.",
        "",
        "| arm | runs | mean error in SE (reach ≤ .25) | coverage (reach 93–97 %) |",
        "|---|---|---|---|",
    ]
    if drawn:
        z = np.array([v["error"] / v["se"] for v in drawn])
        scored = {"runs": len(z), "mean_error_in_se": z.mean(), "sd": z.std(), "coverage": np.mean([v["covered"] for v in drawn])}
        found = found | {"scores without training, true propensities (`--part value`)": scored}
    for arm, v in found.items():
        half = 2 * v["sd"] / v["runs"] ** 0.5
        said = worded(decided(v["mean_error_in_se"] - half, v["mean_error_in_se"] + half, -0.25, 0.25))
        low, high = wilson(round(v["coverage"] * v["runs"]), v["runs"])
        out.append(f"| {arm} | {v['runs']} | {v['mean_error_in_se']:+.2f} ± {half:.2f} {said} | {100 * v['coverage']:.0f} % [{100 * low:.0f}, {100 * high:.0f}] {worded(decided(low, high, 0.93, 0.97))} |")
    return [*out, ""]


def coat(r: dict[str, Any]) -> list[str]:
    """The loop on Coat, with the differences to naive."""
    out = [
        "**Coat, items and users as texts** (`coat.py`): trained on the users' own choice, judged on ratings drawn at random. Naive is tuned with the same trials; reach: its AUC ≥ .70, stretch of "
        "a debiased one .751 / .657 (AUC / NDCG@5).",
        "",
        "| setting | objective | seeds | AUC | less naive | NDCG@5 as published | less naive | NDCG@5, users with positives |",
        "|---|---|---|---|---|---|---|---|",
    ]
    out += [_coat_line(row) for row in r["table"]]
    return [*out, ""]


def factorisation(r: dict[str, Any]) -> list[str]:
    """Matrix factorisation beside it."""
    rows = [row for setting in r.values() if isinstance(setting, list) for row in setting if "auc" in row]
    out = ["Matrix factorisation of our own on the same ratings, without words (`debiased_mf.py`).", "", "| setting | model | seeds | AUC | less naive | NDCG@5 as published | less naive |", "|---|---|---|---|---|---|---|"]
    out += [
        f"| {row['setting']} | {row['model']} | {row['seeds']} | {_mean(row['auc'])} | {_mean(row['auc_less_naive'])} | {_mean(row['ndcg_published'])} | {_mean(row['ndcg_published_less_naive'])} |"
        for row in rows if "auc_less_naive" in row and "ndcg_published" in row
    ]  # fmt: skip
    return [*out, ""]


def _coat_line(row: dict[str, Any]) -> str:
    naive = row["objective"] == "naive"
    less = [("–" if naive else _mean(row[f"{n}_less_naive"], True)) for n in ("auc", "ndcg_published")]
    return f"| {row['setting']} | {row['objective']} | {row['seeds']} | {_mean(row['auc'])} | {less[0]} | {_mean(row['ndcg_published'])} | {less[1]} | {_mean(row['ndcg'])} |"


def _mean(e: dict[str, float], signed: bool = False) -> str:
    form = "+.4f" if signed else ".3f"
    return f"{e['mean']:{form}} [{e['ci_lower']:{form}}, {e['ci_upper']:{form}}]"


def speed(r: dict[str, Any]) -> list[str]:
    """Throughput of the loop against a plain Trainer."""
    out = [f"**Training throughput** against a plain `Trainer` on the same network (`training_speed.py`, {r['rows']:,} rows, LoRA).", "", "| objective | reach | median ratio (range) | |", "|---|---|---|---|"]
    for name, least in (("SNIPS", 0.95), ("IPS", 0.95), ("DR", 0.5), ("DR-JL", 0.5), ("MRDR", 0.5)):
        if name in r:
            v = r[name]
            out.append(f"| {name} | ≥ {least:g}× | {v['ratio']:.2f} ({v['low']:.2f}–{v['high']:.2f}, {v['pairs']} pairs) | {worded(decided(v['low'], v['high'], least, np.inf))} |")
    return [*out, ""]


def examination(r: dict[str, Any]) -> list[str]:
    """Bias and coverage of position curves."""
    out = ["**P(examined | position)** (`examination.py`), relative to the first of eight positions.", "", "| case | R | largest bias | mean coverage | largest bias of clicks by position |", "|---|---|---|---|---|"]
    for name, c in r["cases"].items():
        naive = f"{max(map(abs, c['naive_bias'])):.3f}" if c.get("naive_bias") else "–"
        covered = f"{100 * c['mean_coverage']:.0f} %" if c.get("mean_coverage") is not None else "–"
        out.append(f"| {name} | {c['repeats']} | {max(map(abs, c['bias'])):.4f} | {covered} | {naive} |")
    return [*out, ""]


def fast(r: dict[str, Any]) -> list[str]:
    """Smaller encoders, their gates and speed."""
    report, student = r["report"], r["student"]
    return [
        "**Smaller and faster encoders** (`fast_encoder.py`)",
        "",
        "| what | reach | measured | |",
        "|---|---|---|---|",
        f"| ONNX int8 against float32, {report['threads']} threads | ≥ 2×, cosine ≥ {report['min_cosine']:g} | {report['speedup']:.2f}×, least cosine {report['cosine_least']:.4f} | "
        f"{worded(report['speedup'] >= 2 and report['cosine_least'] >= report['min_cosine'])} |",
        f"| distilled to {student['layers']} of {student['teacher_layers']} layers | cosine ≥ .98 | held-out mean {student['cosine_mean']:.3f}, 1 % quantile {student['cosine_1_percent']:.3f} | "
        f"{worded(student['cosine_mean'] >= 0.98)} |",
        "",
    ]
