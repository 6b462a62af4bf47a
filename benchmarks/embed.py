"""How long it takes to embed distinct titles, against SentenceTransformer.encode at its own best settings.

    CAUSALREC_DATA=… python benchmarks/embed.py [--n 2000] [--repeats 5] [--rows 1000000] [--uniques 20000]

First the peer's batch size and thread count are tuned; then the two run alternately in this process, with our
cache off, on real headlines and book titles, and the medians are compared. After that: what one million rows
of 20,000 distinct titles cost beyond the encoder (its vectors being in the cache).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sentence_transformers import SentenceTransformer

import causalrec as cr
from causalrec.represent.cache import VectorCache, text_key
from causalrec.represent.weights import DEFAULT_MODEL, locate

BATCH_SIZES = (16, 32, 64, 128)
PACKAGES = ("torch", "transformers", "sentence-transformers", "numpy")
WIDTH = 384
HISTORIES = 50_000


def titles() -> list[str]:
    """Distinct real headlines and book titles, shuffled."""
    if "CAUSALREC_DATA" not in os.environ:
        raise SystemExit("set CAUSALREC_DATA to the folder that holds upworthy/ and goodbooks/")
    folder = Path(os.environ["CAUSALREC_DATA"])
    headlines = pd.read_parquet(folder / "upworthy" / "upworthy_clean.parquet", columns=["headline"])
    books = pd.read_csv(folder / "goodbooks" / "books.csv", usecols=["title"])
    distinct = pd.concat([headlines["headline"], books["title"]]).dropna().drop_duplicates().sort_values()
    return distinct.sample(frac=1, random_state=0).tolist()


def seconds(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def encode(peer: SentenceTransformer, texts: list[str], setting: tuple[int, int]) -> np.ndarray:
    """The peer's vectors at (batch size, threads); torch's thread count is put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(setting[1])
    try:
        return peer.encode(texts, batch_size=setting[0], show_progress_bar=False, normalize_embeddings=True)
    finally:
        torch.set_num_threads(before)


def compare(texts: list[str], repeats: int) -> dict[str, Any]:
    """Alternating runs of both on the same distinct texts; the peer is tuned first."""
    peer = SentenceTransformer(str(locate(DEFAULT_MODEL).folder), device="cpu")
    ours = cr.TextEmbedder(cache_dir=False, device="cpu", progress=False)
    encode(peer, texts[:64], (32, 1))
    ours.transform(texts[:64])
    threads = sorted({1, torch.get_num_threads()})
    trial = texts[: max(200, len(texts) // 3)]
    tuning = {s: seconds(partial(encode, peer, trial, s)) for s in product(BATCH_SIZES, threads)}
    best = min(tuning, key=tuning.__getitem__)
    runs: dict[str, list[float]] = {"peer": [], "ours": []}
    for _ in range(repeats):
        runs["peer"].append(seconds(lambda: encode(peer, texts, best)))
        runs["ours"].append(seconds(lambda: ours.transform(texts)))
    cosine = np.sum(encode(peer, texts, best) * ours.transform(texts), axis=1)
    medians = {name: statistics.median(values) for name, values in runs.items()}
    return {
        "texts": len(texts),
        "peer_tuning_s": {f"batch {b}, {t} threads": s for (b, t), s in tuning.items()},
        "peer_best": {"batch_size": best[0], "threads": best[1]},
        "runs_s": runs,
        "median_s": medians,
        "texts_per_s": {name: len(texts) / value for name, value in medians.items()},
        "ratio": medians["peer"] / medians["ours"],
        "ratio_of_each_pair": [p / o for p, o in zip(runs["peer"], runs["ours"], strict=True)],
        "min_cosine": float(cosine.min()),
    }


def log_of_titles(rows: int, texts: list[str], with_history: bool) -> cr.ImpressionLog:
    """A log of `rows` impressions of these titles, with histories of five titles if asked for."""
    rng = np.random.default_rng(0)
    pool = np.array(texts, dtype=object)
    frame = pd.DataFrame({"title": pool[rng.integers(0, len(texts), rows)]})
    frame["recommended"], frame["clicked"] = rng.integers(0, 2, rows), rng.integers(0, 2, rows)
    if with_history:
        each = list(pool[rng.integers(0, len(texts), (HISTORIES, 5))])
        frame["history"] = [each[i] for i in rng.integers(0, HISTORIES, rows)]
    roles = {"text": "title", "history": "history" if with_history else None}
    return cr.read_log(frame, treatment="recommended", outcome="clicked", **roles)


def overhead(rows: int, texts: list[str], repeats: int) -> dict[str, Any]:
    """Seconds of ``embed`` when all vectors are cached (random unit vectors stand in for them here)."""
    values = np.random.default_rng(0).normal(size=(len(texts), WIDTH)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    with tempfile.TemporaryDirectory() as folder:
        embedder = cr.TextEmbedder(cache_dir=folder, progress=False)
        cache = VectorCache(Path(folder), embedder.fingerprint)
        keys = [text_key(text) for text in texts]
        for start in range(0, len(texts), 2048):
            cache.append(keys[start : start + 2048], values[start : start + 2048])
        found: dict[str, Any] = {"rows": rows, "uniques": len(texts), "histories": HISTORIES}
        found["cache_read_s"] = statistics.median(seconds(lambda: cache.lookup(keys)) for _ in range(repeats))
        for name, with_history in (("embed_text_s", False), ("embed_text_and_history_s", True)):
            action = partial(cr.embed, log_of_titles(rows, texts, with_history), embedder)
            found[name] = statistics.median(seconds(action) for _ in range(repeats))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=2_000, help="distinct texts that both encode")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--uniques", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/embed.json"))
    options = parser.parse_args()
    texts = titles()
    speed = compare(texts[: options.n], options.repeats)
    extra = overhead(options.rows, texts[: options.uniques], options.repeats)
    versions = {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}}
    found = {"versions": versions, "cores": os.cpu_count(), "encode": speed, "overhead": extra}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    best = speed["peer_best"]
    peer = f"SentenceTransformer.encode (batch {best['batch_size']}, {best['threads']} threads)"
    print(f"{speed['texts']:,} distinct titles, medians of {options.repeats}")
    print(f"  {peer:<55}{speed['median_s']['peer']:8.2f} s")
    print(f"  {'TextEmbedder':<55}{speed['median_s']['ours']:8.2f} s")
    print(
        f"  {'ratio (smallest cosine of the two outputs)':<55}{speed['ratio']:8.2f}   ({speed['min_cosine']:.7f})"
    )
    print(f"{extra['rows']:,} rows of {extra['uniques']:,} distinct titles, vectors cached")
    print(f"  {'reading the cache':<55}{extra['cache_read_s']:8.2f} s")
    print(f"  {'embed, one text column':<55}{extra['embed_text_s']:8.2f} s")
    print(f"  {'embed, with histories and pair features':<55}{extra['embed_text_and_history_s']:8.2f} s")


if __name__ == "__main__":
    main()
