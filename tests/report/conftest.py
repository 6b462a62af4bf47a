from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline

import causalrec as cr
from causalrec import datasets
from causalrec.check import Checks
from causalrec.estimate import Fit
from causalrec.identify import Plan
from causalrec.uplift import UpliftCurve

HOSTILE = "<script>alert('x')</script> & $a$ \"b\""


@dataclass(frozen=True)
class Case:
    """The results of one analysis."""

    plan: Plan
    fit: Fit
    checks: Checks
    curve: UpliftCurve

    def __iter__(self):
        return iter((self.plan, self.fit, self.checks, self.curve))


def plain_log(
    n: int = 1_500,
    *,
    binary: bool = True,
    randomised: bool = False,
    names: dict[str, str] | None = None,
    **roles,
) -> cr.ImpressionLog:
    """A log without words: one confounder, one modifier, five rows a user."""
    rng = np.random.default_rng(0)
    x, group = rng.normal(size=n), rng.integers(0, 3, n)
    t = rng.random(n) < (0.4 if randomised else 1 / (1 + np.exp(-x)))
    risk = np.clip(0.2 + 0.1 * t + 0.08 * x, 0.01, 0.99)
    y = (rng.random(n) < risk).astype(float) if binary else 2 + 0.5 * t + x + rng.normal(size=n)
    frame = pd.DataFrame(
        {
            "t": t.astype(int),
            "y": y,
            "x": x,
            "group": np.array(["a", "b", "c"])[group],
            "user": np.arange(n) // 5,
            "item": np.arange(n) % 40,
        }
    )
    asked = {
        "treatment": "t",
        "outcome": "y",
        "confounders": "x",
        "modifiers": "group",
        "unit": "user",
    } | roles
    new = names or {}
    renamed = {role: new.get(column, column) for role, column in asked.items() if column is not None}
    return cr.read_log(frame.rename(columns=new), **renamed)


def analyse(log: cr.ImpressionLog) -> Case:
    """All results of a log, with few repetitions."""
    plan = cr.identify(log)
    fit = cr.estimate(log, plan, random_state=0)
    train, test = log.split(0.4, random_state=0)
    curve = cr.uplift(cr.estimate(train, plan, random_state=0), test, n_bootstrap=100)
    return Case(plan, fit, cr.refute(fit, n_simulations=20, random_state=0, progress=False), curve)


@pytest.fixture(scope="session")
def case() -> Case:
    """Words, histories, a slot, items: the whole pipeline on a simulated log."""
    log = datasets.simulate(3_000, n_users=500, n_items=150, random_state=0).log()
    return analyse(cr.embed(log, make_pipeline(TfidfVectorizer(), TruncatedSVD(16, random_state=0))))


@pytest.fixture(scope="session")
def fit_plain() -> Callable[..., Fit]:
    """The fit of a log without words, made to order."""

    def fit(n: int = 1_500, *, estimand: str = "ate", **knobs) -> Fit:
        log = plain_log(n, **knobs)
        return cr.estimate(log, cr.identify(log), estimand=estimand, random_state=0)

    return fit


@pytest.fixture(scope="session")
def hostile() -> Case:
    """Column names and labels that are HTML, formulas, control characters and very long."""
    names = {
        "t": HOSTILE,
        "y": "<b>outcome</b>",
        "x": "</svg><img src=x onerror=alert(1)>",
        "group": "gr\x00\x1boup " + "long " * 80,
    }
    return analyse(plain_log(names=names))
