"""Logs of any size with a known effect, for timings: 384-d text vectors of falling spectrum and ten columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit

import causalrec as cr

WIDTH, COLUMNS = 384, 10


@dataclass(frozen=True)
class World:
    """A log, its plan, the true effect, and the columns as one dense matrix would have them."""

    log: cr.ImpressionLog
    plan: cr.Plan
    truth: float

    def dense(self) -> np.ndarray:
        """(n, 394) float64: what a library without blocks is given."""
        block = self.log.blocks["text:title"].dense()
        names = [f"x{j}" for j in range(COLUMNS)]
        return np.hstack([block, self.log.frame[names].to_numpy()]).astype(np.float64)


def make(n: int, texts: int, seed: int, users: int | None = None) -> World:
    """n rows over so many distinct texts; the words act on exposure and clicks through one linear index."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((texts, WIDTH), dtype=np.float32) * (
        1 / np.arange(1, WIDTH + 1) ** 0.7
    ).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = vectors[:, :20] @ rng.standard_normal(20)
    index = (index - index.mean()) / index.std()
    codes = np.arange(n) if texts == n else rng.integers(0, texts, n)
    x = rng.standard_normal((n, COLUMNS))
    words = index[codes]
    e = 0.03 + 0.94 * expit(0.8 * words + 0.4 * x[:, 0])
    p0, p1 = expit(-1.5 + 0.8 * words + 0.4 * x[:, 1]), expit(-1.1 + 0.8 * words + 0.4 * x[:, 1])
    t = (rng.random(n) < e).astype(int)
    frame = pd.DataFrame({f"x{j}": x[:, j] for j in range(COLUMNS)})
    frame["title"] = pd.Categorical.from_codes(codes, categories=[f"t{i}" for i in range(texts)])
    frame["recommended"], frame["clicked"] = t, (rng.random(n) < np.where(t == 1, p1, p0)).astype(int)
    frame["user"] = rng.integers(0, users or max(n // 10, 10), n)
    log = cr.read_log(
        frame,
        treatment="recommended",
        outcome="clicked",
        text="title",
        unit="user",
        confounders=[f"x{j}" for j in range(1, COLUMNS)],
        modifiers="x0",
    )
    keys = np.arange(texts, dtype=np.uint64)
    block = cr.Block("text:title", "text", vectors, codes.astype(np.int64), ("title",), "simulated", keys)
    log = log.with_blocks([block])
    return World(log, cr.identify(log), float((p1 - p0).mean()))
