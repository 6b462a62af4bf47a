"""Logs of several arms whose confounding belongs to the item: what ``arm_pairs.py`` and the tests draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, softmax

ROLES: dict[str, Any] = {
    "treatment": "slot",
    "outcome": "clicked",
    "unit": "user",
    "item": "item",
    "confounders": ["age"],
    "treatment_kind": "arms",
    "control": "none",
}
LABELS = np.array(["none", "top", "side"])


def draw(seed: int, n: int = 6_000, items: int = 500, arms: int = 3) -> tuple[pd.DataFrame, np.ndarray]:
    """A trait of the item that no column holds moves the arm and the clicks; (n, K) P(click) under each arm."""
    rng = np.random.default_rng(seed)
    item, user = rng.integers(0, items, n), rng.integers(0, n // 2, n)
    trait, age = rng.standard_normal(items)[item], rng.standard_normal(n)
    pull = np.column_stack([np.zeros(n), 0.8 * trait + 0.3 * age, -0.7 * trait, 0.2 * trait])[:, :arms]
    e = softmax(pull, axis=1)
    arm = (rng.random(n)[:, None] > e.cumsum(axis=1)).sum(axis=1)
    base = -0.8 + 0.9 * trait + 0.4 * age
    p = expit(base[:, None] + np.array([0.0, 0.6, 0.3, 0.0])[:arms])
    clicked = (rng.random(n) < p[np.arange(n), arm]).astype(int)
    names = np.append(LABELS, "foot")[arm]
    frame = pd.DataFrame({"user": user, "item": item, "age": age, "slot": names, "clicked": clicked})
    return frame.assign(
        **{f"e_{name}": e[:, k] for k, name in enumerate(np.append(LABELS, "foot")[:arms])}
    ), p
