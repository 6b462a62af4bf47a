"""DoWhy's own refuters around our estimator."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_logs import ROLES, make_world

import causalrec as cr
from causalrec.check.dowhy_bridge import DowhyView
from causalrec.estimate.fit import Fit


@pytest.fixture(scope="module")
def fit_() -> Fit:
    logging.getLogger("dowhy").setLevel(logging.ERROR)
    log = cr.read_log(make_world(500, 150, seed=1, effect=1.0).frame, **ROLES)
    return cr.estimate(log, cr.identify(log), folds=cr.Folds(3), random_state=0)


@pytest.fixture(scope="module")
def view(fit_: Fit) -> DowhyView:
    return cr.to_dowhy(fit_)


def test_the_view_is_the_fit(fit_: Fit, view: DowhyView) -> None:
    assert view.estimate.value == fit_.effect
    again = view.estimate.estimator.fit(view.data).estimate_effect(view.data)
    assert again.value == pytest.approx(fit_.effect, abs=0.05 * fit_.std_error)
    assert set(view.estimand.get_adjustment_set()) == {c for c in view.data.columns if c.startswith("x")}
    assert "column" in view.to_frame().columns


def test_dowhys_placebo_finds_nothing(fit_: Fit, view: DowhyView) -> None:
    from dowhy.causal_refuters.placebo_treatment_refuter import PlaceboType, refute_placebo_treatment

    rng = np.random.RandomState(0)  # with a number, DoWhy draws the same placebo every time
    found = refute_placebo_treatment(
        view.data, view.estimand, view.estimate, ["shown"], 8, PlaceboType.PERMUTE, random_state=rng
    )
    assert abs(found.new_effect) < 1.5 * fit_.std_error


@pytest.mark.parametrize("name", ["refute_random_common_cause", "refute_data_subset"])
def test_dowhys_other_refuters_find_the_effect_again(fit_: Fit, view: DowhyView, name: str) -> None:
    import dowhy.causal_refuters as refuters

    options: dict[str, Any] = {"subset_fraction": 0.8} if "subset" in name else {}
    found = getattr(refuters, name)(
        view.data,
        view.estimand,
        view.estimate,
        num_simulations=8,
        random_state=np.random.RandomState(0),
        **options,
    )
    assert abs(found.new_effect - fit_.effect) < 1.5 * fit_.std_error  # DoWhy draws folds of its own, and few


def test_dowhys_dummy_outcome_finds_nothing(fit_: Fit, view: DowhyView) -> None:
    from dowhy.causal_refuters import refute_dummy_outcome

    found = refute_dummy_outcome(
        view.data,
        view.estimand,
        view.estimate,
        ["shown"],
        "clicked",
        required_variables=True,
        num_simulations=8,
    )
    assert all(abs(f.new_effect) < 0.5 for f in found)


def test_blocks_travel_as_codes_and_come_back(
    embedded: tuple[cr.datasets.Simulation, cr.ImpressionLog],
) -> None:
    _, log = embedded
    small = log.take(np.arange(600))
    made = cr.estimate(small, cr.identify(small), folds=cr.Folds(3), random_state=0)
    view = cr.to_dowhy(made)
    codes = [c for c in view.data.columns if "text_title" in c]
    assert len(codes) == 1
    assert pd.api.types.is_integer_dtype(view.data[codes[0]])
    again = view.estimate.estimator.fit(view.data).estimate_effect(view.data)
    assert again.value == pytest.approx(made.effect, abs=0.5 * made.std_error)
