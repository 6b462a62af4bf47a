"""Write benchmarks/RESULTS.md from the files in benchmarks/results/. Nothing in that page is typed by hand.

python benchmarks/page.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import finetune_page
import text_page
import uplift_page
from text_page import decided
from text_page import worded as verdict

HERE = Path(__file__).parent


def load(name: str) -> dict[str, Any] | None:
    path = HERE / "results" / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def identify(r: dict[str, Any]) -> list[str]:
    own = r["identify, 384-d block + 20 blocks"]["median_s"]
    theirs = ", ".join(
        f"{k.split(', ')[1]}: {v['median_s']:.2f} s" for k, v in r.items() if k.startswith("dowhy default")
    )
    return [
        f"| `identify`, a 384-d block and 20 further blocks | ≤ 0.2 s | {own:.3f} s (DoWhy imported; default search on {theirs}) | {verdict(own <= 0.2)} | `identify.py` |"
    ]


def embed(r: dict[str, Any]) -> list[str]:
    e, o = r["encode"], r["overhead"]
    seconds = o["embed_text_s"]
    pairs = e["ratio_of_each_pair"]
    rows = [
        f"| encoder against `SentenceTransformer.encode` at its best batch size and threads, {e['texts']:,} titles | ≥ 1.2×, stretch 1.5×, cosine ≥ .999 "
        f"| {e['ratio']:.2f}× (pairs {min(pairs):.2f}–{max(pairs):.2f}), smallest cosine {e['min_cosine']:.6f} | {verdict(e['ratio'] >= 1.2 and e['min_cosine'] >= 0.999)} | `embed.py` |"
    ]
    rows.append(
        f"| `embed`, 1 M rows of 20,000 titles, beyond the titles | ≤ 5 s | {seconds:.1f} s; with 50,000 histories and pair features {o['embed_text_and_history_s']:.0f} s "
        f"| {verdict(seconds <= 5)} | `embed.py` |"
    )
    return rows


def estimate(r: dict[str, Any]) -> list[str]:
    small, big = r["rows_20000"], r["rows_100000"]
    ok = big["seconds"] <= 90 and big["peak_mb"] <= big["limit_mb"]
    rows = [
        f"| `estimate`, 100,000 rows × 394, 5 folds | ≤ 90 s, ≤ 3 × design + 1 GB = {big['limit_mb']:,.0f} MB | {big['seconds']:.0f} s, {big['peak_mb']:,.0f} MB at its peak "
        f"({big['runs'][0]['before_mb']:,.0f} MB before it began) | {verdict(ok)} | `estimate.py` |",
        f"| the same at 20,000 rows, against `LinearDRLearner` with cross-validated logistic nuisances | ≥ 1×, smaller error | {small['ratio_cv']:.1f}× faster ({small['ours_s']:.1f} s against "
        f"{small['econml_cv_logistic_s']:.1f} s); RMSE {small['ours_rmse']:.4f} against {small['econml_cv_rmse']:.4f} over {len(small['runs'])} logs "
        f"| {verdict(small['ratio_cv'] >= 1)} for speed, error {verdict(None)} (so few logs cannot tell them apart) | `estimate.py` |",
    ]
    if "econml_default_20000" in r:
        d = r["econml_default_20000"]
        finished = "" if d["finished"] else " or more (stopped)"
        error = (
            f"; its error {abs(d['run']['error']):.4f}, ours on the same log {abs(small['runs'][0][0]['error']):.4f}"
            if d["run"]
            else "; its error is not known"
        )
        rows.append(
            f"| the same, against `LinearDRLearner()` | ≥ 20× | {d['ratio']:.0f}×{finished}: {d['seconds']:,.0f} s{error} | {verdict(d['ratio'] >= 20)} | `estimate.py` |"
        )
    return rows


def refute(r: dict[str, Any]) -> list[str]:
    ratios = [x["ratio"] for x in r["runs"]]
    names = ("placebo_treatment", "random_common_cause", "data_subset", "dummy_outcome")
    agree = sum(
        all(abs(x["ours_effects"][n] - x["dowhy_effects"][n]) < 2.5 * x["std_error"] for n in names)
        and all(x["ours"][n] for n in names)
        for x in r["runs"]
    )
    return [
        f"| `refute`, 100 repetitions of each, {r['rows']:,} rows, against DoWhy around the same estimator | ≥ 20×, same verdicts | {r['ratio']:.0f}× (runs {min(ratios):.0f}–{max(ratios):.0f}; "
        f"ours {min(x['ours_s'] for x in r['runs']):.0f}–{max(x['ours_s'] for x in r['runs']):.0f} s; DoWhy's time for 100 from {r['dowhy_sims_timed']} each); "
        f"all four pass and agree on the effect within its error in {agree} of {len(r['runs'])} logs | {verdict(r['ratio'] >= 20 and agree == len(r['runs']))} | `refute.py` |"
    ]


def scaling(r: dict[str, Any]) -> list[str]:
    sizes = [x["report_bytes"] for x in r["rows"]]
    last = r["rows"][-1]
    ok = r["slope_time"] <= 1.1 and r["slope_added_memory"] <= 1.1
    return [
        f"| time and memory against n, 10⁴ to 10⁶ rows | log–log slope ≤ 1.1 | {r['slope_time']:.2f} and {r['slope_added_memory']:.2f} (10⁶ rows: {last['estimate_s']:.0f} s, {last['peak_mb']:,.0f} MB) | {verdict(ok)} | `scaling.py` |",
        f"| report, n = 10³ to 10⁶ | < 1 MB | {min(sizes) / 1000:.0f}–{max(sizes) / 1000:.0f} kB | {verdict(max(sizes) < 1e6)} | `scaling.py` |",
    ]


def known_truth(r: dict[str, Any]) -> list[str]:
    rows = []
    for design, s in r["designs"].items():
        coverage = decided(s["coverage_low"], s["coverage_high"], 0.93, 0.97)
        rmse = decided(s["rmse_low"], s["rmse_high"], 0, 1.05)
        rows.append(
            f"| {design}, n = {r['n']:,} | {s['reps']} | {s['bias']:+.5f} ± {s['bias_mc']:.5f} | {s['bias_over_sd']:.2f} | {s['sd']:.5f} | {s['mean_se']:.5f} | {s['rmse_over_oracle']:.3f} [{s['rmse_low']:.3f}, {s['rmse_high']:.3f}] "
            f"{verdict(rmse)} | {100 * s['coverage']:.1f} % [{100 * s['coverage_low']:.1f}, {100 * s['coverage_high']:.1f}] {verdict(coverage)} | {100 * s['oracle_coverage']:.1f} % | {s['naive_error']:+.4f} |"
        )
    return rows


def main() -> None:
    out = [
        "# Results",
        "",
        "Written by `python benchmarks/page.py` from `benchmarks/results/`; `make benchmark` makes those. Two cores, no GPU; medians of several runs, ratios measured in one run on "
        "one machine, which others used at the time.",
        "",
        "## Speed and size",
        "",
        "| what | reach | measured | | command (`python benchmarks/…`) |",
        "|---|---|---|---|---|",
    ]
    for name, rows in (
        ("identify", identify),
        ("embed", embed),
        ("estimate", estimate),
        ("refute", refute),
        ("scaling", scaling),
    ):
        found = load(name)
        out += rows(found) if found else [f"| {name} | | not run | | `{name}.py` |"]
    truth = load("known_truth")
    out += ["", "## Against known truth", ""]
    if truth:
        out += [
            "`python benchmarks/known_truth.py`: simulated logs, real encoder, clusters of users, defaults throughout. Reach: coverage 93–97 %, RMSE ≤ 1.05 × that of the same estimator with the "
            "true nuisances. A cell is met or missed where its 95 % interval (Wilson; bootstrap for the RMSE) lies inside or outside the reach, else undecided.",
            "",
            "| design | R | bias ± MC error | bias / SD | SD | mean SE | RMSE / oracle | coverage | oracle's | naive error |",
            "|---|---|---|---|---|---|---|---|---|---|",
            *known_truth(truth),
            "",
            truth.get("note", ""),
        ]
    for name, lines in (
        ("text_confounding", text_page.section),
        ("text_tuning", text_page.tuning),
        ("text_latents", text_page.latents),
        ("text_hidden", text_page.hidden),
        ("text_peers", text_page.peers),
        ("shown_once", text_page.shown_once),
        ("arm_pairs", text_page.arm_pairs),
        ("tuned_encoder", text_page.tuned),
        ("diagnostics", text_page.diagnostics),
        ("uplift", uplift_page.section),
        ("debiased_finetuning", finetune_page.gap),
        ("coat", finetune_page.coat),
        ("debiased_mf", finetune_page.factorisation),
        ("training_speed", finetune_page.speed),
        ("examination", finetune_page.examination),
        ("fast_encoder", finetune_page.fast),
    ):
        found = load(name)
        out += ["", *lines(found)] if found else [f"{name}: not run.", ""]
    if (found := load("text_confounding")) is not None:
        text_page.figure(found)
    out += ["", "Real logs: see the README (`make results`).", ""]
    (HERE / "RESULTS.md").write_text("\n".join(out))


if __name__ == "__main__":
    main()
