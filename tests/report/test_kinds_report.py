"""Pages of several arms, of doses, of instruments, and of items that were not seen."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline

import causalrec as cr
from causalrec.errors import ArgumentError
from causalrec.report import Report, plot_cold_start, plot_dose_response, plot_instrument, report
from causalrec.report.words import Question

F64 = npt.NDArray[np.float64]
FEW = cr.Folds(3)


def customers(n: int = 1800) -> tuple[pd.DataFrame, np.random.Generator]:
    rng = np.random.default_rng(1)
    return pd.DataFrame({"user": np.arange(n), "rate": rng.normal(size=n)}), rng


def clicks(rng: np.random.Generator, risk: F64) -> F64:
    return (rng.random(len(risk)) < np.clip(risk, 0.02, 0.98)).astype(float)


@pytest.fixture(scope="module")
def arms() -> cr.ArmsFit:
    frame, rng = customers()
    arm = rng.integers(0, 3, len(frame))
    frame["mail"] = np.array(["none", "a", "b"])[arm]
    frame["clicked"] = clicks(
        rng, 0.2 + 0.15 * (arm == 1) + 0.4 * (arm == 2) + 0.05 * frame["rate"].to_numpy()
    )
    log = cr.read_log(
        frame, treatment="mail", outcome="clicked", unit="user", confounders="rate", treatment_kind="arms", control="none",
    )  # fmt: skip
    return cr.estimate_arms(log, cr.identify(log), folds=FEW, random_state=0)


@pytest.fixture(scope="module")
def dose() -> cr.DoseResponse:
    frame, rng = customers()
    frame["shown"] = rng.integers(1, 5, len(frame))
    frame["minutes"] = 3 + 0.5 * frame["shown"] + frame["rate"] + rng.normal(size=len(frame))
    log = cr.read_log(
        frame, treatment="shown", outcome="minutes", unit="user", confounders="rate", treatment_kind="dose"
    )
    return cr.dose_response(log, cr.identify(log), folds=FEW, random_state=0)


@pytest.fixture(scope="module")
def instrument() -> cr.InstrumentFit:
    frame, rng = customers()
    frame["nudge"] = rng.integers(0, 2, len(frame))
    opened = rng.random(len(frame)) < 0.2 + 0.5 * frame["nudge"]
    frame["opened"] = opened.astype(int)
    frame["clicked"] = clicks(rng, 0.2 + 0.3 * opened + 0.05 * frame["rate"].to_numpy())
    log = cr.read_log(
        frame, treatment="opened", outcome="clicked", unit="user", confounders="rate", instrument="nudge"
    )
    return cr.estimate_instrument(log, cr.identify(log, unobserved="interest"), folds=FEW, random_state=0)


def headline(page: Report) -> str:
    return page.context["answer"]["headline"]


def test_arms_stand_without_a_fit(arms: cr.ArmsFit) -> None:
    page = report(arms, arms.plan)
    assert list(page.context["sections"]) == ["data", "arms", "assumptions", "skipped", "reproducibility"]
    mean = arms.means[2]
    assert headline(page).startswith(
        f"‘b’ is the best arm of ‘mail’: {1000 * mean.value:.0f} clicks per 1,000 impressions (95 %"
    )
    assert page.tables["arms"]["joint_lower"].tolist()[3] == arms.contrasts[0].joint_lower
    assert "arms" in page.figures
    assert "‘mail’: none, a and b" in page.html()
    assert json.loads(json.dumps(page.context)) == page.context


def test_a_dose_says_its_slope_and_its_curve(dose: cr.DoseResponse) -> None:
    page = report(dose)
    slope = dose.slope
    assert slope is not None
    assert re.match(
        rf"‘minutes’ depends on ‘shown’: one more unit changes it by {slope.value:.2f}", headline(page)
    )
    np.testing.assert_array_equal(page.tables["dose"]["mean"], dose.effect)
    ax = plot_dose_response(dose, question=Question(factor=10.0))
    np.testing.assert_allclose(ax.lines[-1].get_ydata(), 10 * dose.effect)


def test_an_instrument_says_how_strong_it_is(instrument: cr.InstrumentFit) -> None:
    page = report(instrument)
    assert headline(page).startswith("In those whom ‘nudge’ moves, the treatment changed the outcome by ")
    assert f"{instrument.first_stage_f:,.1f} (below 10 the effect is refused)" in page.html()
    ax = plot_instrument(instrument)
    assert [list(line.get_xdata()) for line in ax.lines].count(list(instrument.anderson_rubin)) == 1


def test_beside_a_fit_they_are_sections(arms: cr.ArmsFit, dose: cr.DoseResponse, fit_plain: Any) -> None:
    page = report(dose, arms, fit_plain())
    assert list(page.context["sections"])[:5] == ["data", "effect", "for-whom", "arms", "dose"]
    assert headline(page).startswith("Treatment (‘t’)")


def test_what_needs_a_fit_is_refused_without_one(arms: cr.ArmsFit, fit_plain: Any) -> None:
    fit = fit_plain()
    with pytest.raises(ArgumentError, match="report got GroupEffects without the Fit"):
        report(arms, fit.by("group"))
    with pytest.raises(ArgumentError, match="report got GroupSensitivity without the Fit"):
        report(arms, cr.group_sensitivity(fit))


@pytest.fixture(scope="module")
def unseen() -> tuple[cr.Fit, cr.ColdStart]:
    """Titles of which some are shown to the held-out users only."""
    log = cr.simulate(3_000, n_users=600, n_items=80, random_state=2).log(history=False)
    log = cr.embed(log, make_pipeline(TfidfVectorizer(), TruncatedSVD(8, random_state=0)))
    train, test = log.split(0.5, random_state=0)
    kept = train.frame["item_id"].rank(method="dense") > 25
    fit = cr.estimate(train.take(kept.to_numpy()), cr.identify(log), folds=FEW, correction=cr.Correction(order=1), random_state=0)  # fmt: skip
    return fit, cr.cold_start(fit, test, random_state=0)


def test_unseen_items_are_foreseen_on_the_page(unseen: tuple[cr.Fit, cr.ColdStart]) -> None:
    fit, found = unseen
    page = report(fit, found)
    tables = page.tables
    pd.testing.assert_frame_equal(tables["cold-start-items"], found.items)
    pd.testing.assert_frame_equal(tables["cold-start-users"], found.users)
    assert page.figures["cold-start-items"].axes
    ax = plot_cold_start(found, question=Question(factor=1000.0))
    legend = [t.get_text() for t in ax.get_legend().get_texts()]
    assert legend == ["shown in training", "new", "average over items"]


def test_items_that_were_all_seen_are_not_drawn_by_distance(unseen: tuple[cr.Fit, cr.ColdStart]) -> None:
    from dataclasses import replace

    fit, found = unseen
    page = report(fit, replace(found, items=found.items.assign(seen_in_training=True)))
    assert "cold-start-items" not in page.figures
    assert "none is drawn by its distance" in page.html()
