"""Small click logs whose truth is known, made by a few lines of numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit

from causalrec.blocks import Block
from causalrec.estimate.analysis import Inputs

F64 = npt.NDArray[np.float64]
ROLES = {
    "treatment": "shown",
    "outcome": "clicked",
    "unit": "user",
    "modifiers": ["age"],
    "confounders": ["rate", "device"],
}


@dataclass(frozen=True)
class World:
    """A click log and its truth, (n,) each."""

    frame: pd.DataFrame
    e: F64
    p0: F64
    p1: F64

    @property
    def tau(self) -> F64:
        return self.p1 - self.p0

    def truth(self, estimand: str) -> float:
        t = self.frame["shown"].to_numpy()
        weights = {"ate": np.ones(len(t)), "att": t, "ato": self.e * (1 - self.e)}[estimand]
        return float(np.average(self.tau, weights=weights))

    @property
    def inputs(self) -> Inputs:
        f = self.frame
        covariates = [f[c].reset_index(drop=True) for c in ("age", "rate", "device")]
        units = pd.factorize(f["user"])[0].astype(np.int64)
        return Inputs(f["shown"].to_numpy(float), f["clicked"].to_numpy(float), covariates, units)


def make_world(
    n: int = 1200,
    n_users: int = 300,
    *,
    seed: int = 0,
    confounding: float = 1.0,
    effect: float = 0.5,
    heterogeneity: float = 0.6,
    user_sd: float = 0.0,
    by_user: bool = False,
) -> World:
    """Draw a log: `rate` and `device` act on exposure and click, `age` on the effect; users may be correlated."""
    rng = np.random.default_rng(seed)
    user = np.concatenate([np.arange(n_users), rng.integers(0, n_users, n - n_users)])
    age, rate = rng.standard_normal(n), rng.standard_normal(n)
    device = rng.integers(0, 3, n)
    if by_user:
        age, rate, device = age[user], rate[user], device[user]
    e = expit(confounding * (0.8 * rate + 0.5 * (device == 1)) + 0.4 * age - 0.3)
    t = (rng.random(n)[user] if by_user else rng.random(n)) < e
    base = -0.8 + 0.9 * rate + 0.6 * (device == 1) + 0.2 * age + user_sd * rng.standard_normal(n_users)[user]
    p0, p1 = expit(base), expit(base + effect + heterogeneity * age)
    y = rng.random(n) < np.where(t, p1, p0)
    frame = pd.DataFrame(
        {
            "user": user,
            "age": age,
            "rate": rate,
            "device": np.array(["phone", "web", "tv"])[device],
            "shown": t.astype(int),
            "clicked": y.astype(int),
        }
    )
    return World(frame, e, p0, p1)


def noise_block(n: int, width: int, seed: int, name: str = "text:noise") -> Block:
    """A representation of pure noise, every row its own text."""
    values = np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)
    return Block(name, "text", values, np.arange(n), ("noise",), "noise")
