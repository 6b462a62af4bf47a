"""A randomised log of titles on three subjects, of which one gains much and one nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline

import causalrec as cr

SUBJECTS = {
    "garden": ("rose", "tulip", "lawn", "seed", "compost", "hedge"),
    "engine": ("piston", "gearbox", "diesel", "turbo", "clutch", "exhaust"),
    "opera": ("tenor", "soprano", "aria", "libretto", "chorus", "overture"),
}
GAIN = {"garden": 0.0, "engine": 0.2, "opera": 0.45}


def make_text_world(
    n: int = 5000, n_users: int = 800, n_items: int = 90, seed: int = 0, gain: float = 1.0
) -> pd.DataFrame:
    """user, title, age, shown, p (logged propensity), clicked, tau and subject."""
    rng = np.random.default_rng(seed)
    subjects = np.array(list(SUBJECTS))[np.arange(n_items) % 3]
    titles = np.array(
        [f"{s} {' '.join(rng.choice(SUBJECTS[s], 3, replace=False))} {k}" for k, s in enumerate(subjects)]
    )
    user, item = rng.integers(0, n_users, n), rng.integers(0, n_items, n)
    tau = gain * np.array([GAIN[s] for s in subjects])[item]
    shown = rng.random(n) < 0.5
    return pd.DataFrame(
        {
            "user": user,
            "title": titles[item],
            "age": rng.standard_normal(n_users)[user],
            "shown": shown.astype(int),
            "p": 0.5,
            "clicked": (rng.random(n) < 0.2 + tau * shown).astype(int),
            "tau": tau,
            "subject": subjects[item],
        }
    )


def read_text_world(
    frame: pd.DataFrame, *, text: bool = True, modifiers: tuple[str, ...] = ("age",)
) -> cr.ImpressionLog:
    """The log, embedded by TF-IDF and SVD."""
    log = cr.read_log(
        frame,
        treatment="shown",
        outcome="clicked",
        unit="user",
        propensity="p",
        modifiers=modifiers,
        text="title" if text else None,
    )
    svd = make_pipeline(TfidfVectorizer(), TruncatedSVD(8, random_state=0))
    return cr.embed(log, svd, lexical=False) if text else log


def fit_on(log: cr.ImpressionLog) -> cr.Fit:
    """A fast first-order fit."""
    return cr.estimate(
        log, cr.identify(log), folds=cr.Folds(3), correction=cr.Correction(order=1), random_state=0
    )
