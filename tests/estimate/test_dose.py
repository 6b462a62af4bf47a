from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LogisticRegression

import causalrec as cr
from causalrec.errors import ArgumentError, EstimationError, LogError, OverlapError
from causalrec.estimate.dose import DoseResponse, dose_response
from causalrec.estimate.dose_models import DoseModels, DoseRidge
from causalrec.estimate.several import adjust
from causalrec.estimate.smooth import choose_width, local_parabola
from causalrec.report import plot_dose_response

ROLES: dict[str, Any] = {
    "treatment": "dose",
    "outcome": "minutes",
    "unit": "user",
    "modifiers": ["x"],
    "confounders": ["z"],
    "treatment_kind": "dose",
}
FEW = cr.Folds(3)
GRID = np.linspace(0.75, 3.25, 6)
SLOPE = 0.3 + np.exp(-1.52 / 2) * np.cos(2)  # E[cos D] + .3 with D ~ N(2, 1.52)


def curve(d: Any) -> Any:
    return np.sin(d) + 0.3 * d


def draw(n: int = 3000, seed: int = 0, spread: float = 1.0) -> pd.DataFrame:
    """Watch time by dose; `x` and `z` move both, users differ."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, n // 4, n)
    x, z = rng.standard_normal(n), rng.standard_normal(n)
    dose = 2 + 0.6 * x + 0.4 * z + spread * rng.standard_normal(n)
    own = 0.5 * rng.standard_normal(n // 4)[user]
    minutes = curve(dose) + 0.8 * x + 0.2 * dose * x + own + 0.5 * rng.standard_normal(n)
    return pd.DataFrame({"user": user, "x": x, "z": z, "dose": dose, "minutes": minutes})


def levels(frame: pd.DataFrame) -> pd.DataFrame:
    """Doses 0 … 4, and the outcome that belongs to them."""
    rounded = frame["dose"].round().clip(0, 4)
    return frame.assign(dose=rounded, minutes=frame["minutes"] - curve(frame["dose"]) + curve(rounded))


def read(frame: pd.DataFrame, **changed: Any) -> tuple[cr.ImpressionLog, cr.Plan]:
    log = cr.read_log(frame, **{**ROLES, **changed})
    return log, cr.identify(log)


@pytest.fixture(scope="module")
def smooth() -> DoseResponse:
    return dose_response(*read(draw()), folds=FEW, random_state=0)


@pytest.fixture(scope="module")
def stepped() -> DoseResponse:
    return dose_response(*read(levels(draw())), folds=FEW, random_state=0)


def test_the_curve_is_recovered_where_the_naive_one_is_wrong(smooth: DoseResponse) -> None:
    frame = draw()
    z = (smooth.effect - curve(smooth.grid)) / smooth.std_error
    assert np.abs(z).max() < 3.5
    assert (smooth.band_lower <= curve(smooth.grid)).all()
    assert (curve(smooth.grid) <= smooth.band_upper).all()
    near = np.abs(frame["dose"] - 3.25) < 0.25
    k = int(np.argmin(np.abs(smooth.grid - 3.25)))
    naive_error = frame["minutes"][near].mean() - curve(3.25)
    assert naive_error > 4 * smooth.std_error[k]


def test_bands_are_wider_than_intervals(smooth: DoseResponse, stepped: DoseResponse) -> None:
    for found in (smooth, stepped):
        assert (found.band_lower < found.ci_lower).all()
        assert (found.ci_upper < found.band_upper).all()
        assert found.p_constant < 0.01
        np.testing.assert_allclose(found.influence.mean(axis=0), 0, atol=0.05)


def test_intervals_bands_and_slopes_cover() -> None:
    points, bands, slopes, plan = [], [], [], None
    for seed in range(30):
        log = cr.read_log(draw(2500, seed=200 + seed), **ROLES)
        plan = plan or cr.identify(log)
        found = dose_response(log, plan, grid=GRID, folds=FEW, random_state=seed)
        truth = curve(GRID)
        points.append((found.ci_lower <= truth) & (truth <= found.ci_upper))
        bands.append(((found.band_lower <= truth) & (truth <= found.band_upper)).all())
        assert found.slope is not None
        slopes.append(found.slope.ci_lower <= SLOPE <= found.slope.ci_upper)
    assert 0.88 <= np.mean(points) <= 0.99
    assert np.mean(bands) >= 0.82
    assert np.mean(slopes) >= 0.85


@pytest.mark.parametrize("wrong", ["outcome", "dose"])
def test_one_right_model_is_enough(wrong: str) -> None:
    options: dict[str, Any] = {"outcome_model" if wrong == "outcome" else "dose_model": DummyRegressor()}
    found = dose_response(*read(draw(12_000, seed=5)), grid=GRID[1:-1], folds=FEW, random_state=0, **options)
    assert np.abs((found.effect - curve(found.grid)) / found.std_error).max() < 3.5


def test_both_models_wrong_is_not() -> None:
    options: dict[str, Any] = {"outcome_model": DummyRegressor(), "dose_model": DummyRegressor()}
    found = dose_response(*read(draw(12_000, seed=5)), grid=GRID[1:-1], folds=FEW, random_state=0, **options)
    assert np.abs((found.effect - curve(found.grid)) / found.std_error).max() > 6


def test_levels_are_arms(stepped: DoseResponse) -> None:
    assert stepped.bandwidth is None
    np.testing.assert_array_equal(stepped.grid, [0, 1, 2, 3, 4])
    assert np.abs((stepped.effect - curve(stepped.grid)) / stepped.std_error).max() < 3.5
    assert stepped.slope is not None
    share = np.bincount(stepped.log.treatment.astype(int)) / len(stepped.log)
    line = np.polyfit(stepped.grid, stepped.effect, 1, w=np.sqrt(share))
    assert stepped.slope.value == pytest.approx(line[0])


def test_contrasts_of_two_doses(stepped: DoseResponse) -> None:
    found = stepped.contrast(3, 1)
    assert found.value == pytest.approx(stepped.effect[3] - stepped.effect[1])
    assert abs(found.value - (curve(3) - curve(1))) < 3.5 * found.std_error
    assert found.std_error < stepped.std_error[3] + stepped.std_error[1]
    with pytest.raises(ArgumentError, match=r"dose 2.5 is not in the grid \[0.0, 1.0, 2.0, 3.0, 4.0\]"):
        stepped.contrast(2.5, 1)


def test_rare_levels_are_left_out_by_name_or_refused() -> None:
    frame = levels(draw())
    frame.loc[frame.index[:20], "dose"] = 9.0
    log, plan = read(frame)
    found = dose_response(log, plan, folds=FEW, random_state=0)
    ((dose, reason),) = found.unsupported
    assert dose == 9
    assert "20 rows" in reason
    assert found.slope is None
    assert "Dose 9 is left out" in found.summary()
    with pytest.raises(
        OverlapError, match=r"at 1 of 2 doses would be an extrapolation \(dose 9: it was given in 20 rows"
    ):
        dose_response(log, plan, grid=[1, 9], folds=FEW)


def test_doses_without_support_are_left_out_by_name_or_refused() -> None:
    frame = draw(spread=0.35)
    log, plan = read(frame)
    found = dose_response(log, plan, folds=FEW, random_state=0)
    assert found.unsupported
    assert len(found.grid) + len(found.unsupported) == 21
    low = found.unsupported[0][0]
    with pytest.raises(
        OverlapError,
        match=rf"of 2 doses would be an extrapolation \(dose {low:.2g}.*Take these doses out of grid=",
    ):
        dose_response(log, plan, grid=[low, 2.0], folds=FEW)


def test_a_dose_that_the_covariates_decide_is_refused() -> None:
    frame = draw(spread=0.02)
    with pytest.raises(OverlapError, match="all but decides the dose"):
        dose_response(*read(frame), folds=FEW)


def test_rearranging_sorts_the_band_and_keeps_its_width(smooth: DoseResponse) -> None:
    for increasing in (True, False):
        found = smooth.rearranged(increasing)
        sign = 1 if increasing else -1
        for v in (found.effect, found.band_lower, found.band_upper):
            assert (sign * np.diff(v) >= 0).all()
        width = (found.band_upper - found.band_lower).sum()
        assert width == pytest.approx((smooth.band_upper - smooth.band_lower).sum())


def test_no_effect_is_a_constant_curve() -> None:
    p_values, plan = [], None
    for seed in range(16):
        frame = draw(1500, seed=300 + seed)
        log = cr.read_log(
            frame.assign(minutes=frame["x"] + np.random.default_rng(seed).standard_normal(1500)), **ROLES
        )
        plan = plan or cr.identify(log)
        p_values.append(dose_response(log, plan, grid=[1.2, 2, 2.8], folds=FEW, random_state=0).p_constant)
    assert np.mean(np.array(p_values) < 0.05) <= 0.2
    assert np.median(p_values) > 0.2


def test_shuffling_and_shifting_the_dose(smooth: DoseResponse) -> None:
    frame = draw().sample(frac=1, random_state=1)
    moved = dose_response(
        *read(frame.assign(dose=frame["dose"] * 10 + 100)),
        grid=smooth.grid * 10 + 100,
        folds=FEW,
        random_state=0,
    )
    np.testing.assert_allclose(moved.effect, smooth.effect, atol=0.05)
    assert moved.bandwidth == pytest.approx(10 * smooth.bandwidth, rel=0.01)


def test_rows_and_figure_say_the_same(smooth: DoseResponse, stepped: DoseResponse) -> None:
    table = smooth.to_frame()
    np.testing.assert_allclose(table["mean"], smooth.effect)
    np.testing.assert_allclose(table["band_upper"], smooth.band_upper)
    np.testing.assert_allclose(plot_dose_response(smooth).lines[-1].get_ydata(), smooth.effect)
    assert len(plot_dose_response(stepped).collections) == 2
    assert "A constant curve: p < .001." in smooth.summary()


BAD: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("grid of one", {"grid": [1.0]}, ArgumentError, r"grid is \[1.0\], must hold at least two"),
    ("grid of words", {"grid": ["a", "b"]}, ArgumentError, r"must be a list of doses"),
    ("grid with a hole", {"grid": [1.0, np.nan]}, ArgumentError, r"two different finite doses"),
    ("grid outside", {"grid": [1.0, 99.0]}, ArgumentError, r"grid holds \[99.0\], outside the doses that were given"),
    ("bandwidth", {"bandwidth": 0.0}, ArgumentError, r"bandwidth is 0.0, must be > 0"),
    ("clip", {"clip": 0.1}, ArgumentError, r"clip is 0.1; must be Clip"),
    ("a classifier", {"outcome_model": LogisticRegression()}, EstimationError, r"LogisticRegression is a classifier"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "error", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    log, plan = read(draw(800))
    with pytest.raises(error, match=message):
        dose_response(log, plan, **{"folds": FEW, **options})


def test_options_that_levels_do_not_take() -> None:
    log, plan = read(levels(draw(800)))
    with pytest.raises(ArgumentError, match=r"the dose has 5 values and is taken level by level"):
        dose_response(log, plan, bandwidth=1.0)
    with pytest.raises(OverlapError, match=r"grid holds \[1.5\], but the dose has the values \[0.0, 1.0"):
        dose_response(log, plan, grid=[1.5, 2])


def test_other_treatments_are_refused(log: cr.ImpressionLog, plan: cr.Plan) -> None:
    with pytest.raises(LogError, match=r"dose_response needs a dose; .*use estimate\(log, plan\)"):
        dose_response(log, plan)


def test_a_local_parabola_is_exact_for_a_parabola() -> None:
    rng = np.random.default_rng(0)
    d = rng.uniform(0, 3, 500)
    value, phi, weights = local_parabola(d, 1 + 2 * d - d**2, rng.uniform(0.5, 2, 500), 1.5, 0.4)
    assert value == pytest.approx(1 + 3 - 2.25)
    np.testing.assert_allclose(phi, 0, atol=1e-8)
    assert ((weights > 0) == (np.abs(d - 1.5) < 0.4)).all()


def test_the_influence_is_that_of_a_left_out_row() -> None:
    rng = np.random.default_rng(0)
    d, r, w = rng.uniform(0, 3, 800), rng.standard_normal(800), np.ones(800)
    value, phi, _ = local_parabola(d, r, w, 1.5, 0.8)
    for i in np.flatnonzero(np.abs(d - 1.5) < 0.5)[:5]:
        w_without = w.copy()
        w_without[i] = 0
        without = local_parabola(d, r, w_without, 1.5, 0.8)[0]
        assert phi[i] / 800 == pytest.approx(value - without, rel=1e-6)


def test_wiggles_ask_for_a_narrow_bandwidth() -> None:
    rng = np.random.default_rng(0)
    d, fold, ones = rng.uniform(0, 3, 4000), rng.integers(0, 5, 4000), np.ones(4000)
    flat = choose_width(d, rng.standard_normal(4000), ones, fold)
    wiggly = choose_width(d, np.sin(8 * d) + 0.3 * rng.standard_normal(4000), ones, fold)
    assert wiggly < 0.5 * flat


def test_the_density_is_a_density_and_its_slope_represents_the_derivative() -> None:
    log, plan = read(draw(6000))
    adjusted = adjust(
        log, (plan.propensity_nodes, plan.outcome_nodes), log.strata, FEW, np.random.default_rng(0)
    )
    models = DoseModels.fit(adjusted, log.treatment, log.outcome)
    mean = 2 + 0.6 * log.frame["x"] + 0.4 * log.frame["z"]
    truth = np.exp(-((log.treatment - mean) ** 2) / 2) / np.sqrt(2 * np.pi)
    assert np.corrcoef(models.density(log.treatment), truth)[0, 1] > 0.98
    at, marginal = models.marginal(adjusted.weights)
    assert np.trapezoid(marginal, at) == pytest.approx(1, abs=0.02)
    alpha = models.representer(adjusted.weights)
    assert np.corrcoef(alpha, log.treatment - mean)[0, 1] > 0.95
    assert isinstance(models.models[0], DoseRidge)


def test_an_outcome_without_variance_near_a_dose_is_refused() -> None:
    frame = levels(draw(1500))
    frame = frame.assign(minutes=np.where(frame["dose"] > 1, 2.0, 1.0))
    with pytest.raises(EstimationError, match="the outcome does not vary near a dose of the grid"):
        dose_response(*read(frame), folds=FEW, random_state=0)


def test_a_bandwidth_that_is_given_is_kept() -> None:
    log, plan = read(draw(1500))
    found = dose_response(log, plan, grid=[1.5, 2, 2.5], bandwidth=0.6, folds=FEW, random_state=0)
    assert found.bandwidth == 0.6
    with pytest.raises(OverlapError, match=r"lie near it, \d+ effective \(must be >= 50"):
        dose_response(log, plan, grid=[1.5, 2, 2.5], bandwidth=0.02, folds=FEW, random_state=0)
