from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax
from scipy.stats import t as student

import causalrec as cr
from causalrec import scores
from causalrec.errors import ArgumentError, EstimationError, IdentificationError, LogError, OverlapError
from causalrec.estimate.arms import ArmsFit, estimate_arms
from causalrec.joint import DRAWS, covariance_of, holm, max_t
from causalrec.report import plot_arms

ROLES: dict[str, Any] = {
    "treatment": "mail",
    "outcome": "clicked",
    "unit": "user",
    "modifiers": ["age"],
    "confounders": ["rate"],
    "treatment_kind": "arms",
    "control": "none",
}
LABELS = np.array(["none", "a", "b"])
FEW = cr.Folds(3)


def draw(
    n: int = 1500, seed: int = 0, confounding: float = 1.0, best: float = 0.9
) -> tuple[pd.DataFrame, np.ndarray]:
    """A log of three mails whose choice follows `rate`, and the (n, 3) probabilities of a click under each."""
    rng = np.random.default_rng(seed)
    user = np.concatenate([np.arange(n // 5), rng.integers(0, n // 5, n - n // 5)])
    age, rate = rng.standard_normal(n), rng.standard_normal(n)
    e = softmax(confounding * np.column_stack([np.zeros(n), 0.9 * rate, -0.6 * rate]), axis=1)
    arm = (rng.random(n)[:, None] > e.cumsum(axis=1)).sum(axis=1)
    own = 0.7 * rng.standard_normal(n // 5)[user]
    base = -0.5 + 1.1 * rate + own
    p = expit(np.column_stack([base, base + 0.2 + 0.5 * age, base + best]))
    clicked = (rng.random(n) < p[np.arange(n), arm]).astype(int)
    frame = pd.DataFrame({"user": user, "age": age, "rate": rate, "mail": LABELS[arm], "clicked": clicked})
    return frame.assign(e0=e[:, 0], e1=e[:, 1], e2=e[:, 2]), p


@pytest.fixture(scope="module")
def three() -> tuple[ArmsFit, np.ndarray]:
    frame, p = draw(4000)
    log = cr.read_log(frame, **ROLES)
    return estimate_arms(log, cr.identify(log), folds=FEW, random_state=0), p


def test_effects_are_recovered_where_the_naive_ones_are_wrong(three: tuple[ArmsFit, np.ndarray]) -> None:
    fit, p = three
    y, arm = fit.log.outcome, fit.log.treatment
    for k, contrast in enumerate(fit.contrasts, start=1):
        truth = float((p[:, k] - p[:, 0]).mean())
        naive = float(y[arm == k].mean() - y[arm == 0].mean())
        assert abs(contrast.effect - truth) < 3 * contrast.estimate.std_error
        assert abs(naive - truth) > 3 * contrast.estimate.std_error


def test_scores_are_those_of_each_arm(three: tuple[ArmsFit, np.ndarray]) -> None:
    fit, _ = three
    given = fit.log.treatment == 2
    expected = fit.outcomes[:, 2] + given * (fit.log.outcome - fit.outcomes[:, 2]) / np.maximum(
        fit.propensities[:, 2], fit.clip.bound
    )
    np.testing.assert_allclose(fit.scores[:, 2], expected)
    np.testing.assert_allclose(fit.propensities.sum(axis=1), 1)
    assert fit.means[2].value == pytest.approx(expected.mean())


def test_two_arms_are_the_doubly_robust_effect() -> None:
    frame, _ = draw(1500)
    log = cr.read_log(frame[frame["mail"] != "b"], **ROLES)
    fit = estimate_arms(log, cr.identify(log), folds=FEW, random_state=0)
    pair = scores.aipw_ate(log.treatment, log.outcome, fit.propensities[:, 1], *fit.outcomes.T)
    expected = scores.clustered_ratio(pair, log.units)
    (contrast,) = fit.contrasts
    assert contrast.effect == pytest.approx(expected.value, abs=1e-9)
    assert contrast.estimate.std_error == pytest.approx(expected.std_error, rel=1e-9)
    half = contrast.estimate.value - contrast.estimate.ci_lower
    assert contrast.estimate.value - contrast.joint_lower == pytest.approx(half, rel=0.04)
    assert contrast.p_holm == pytest.approx(contrast.estimate.p_value)


def test_pairs_hang_together(three: tuple[ArmsFit, np.ndarray]) -> None:
    fit, _ = three
    found = {(c.arm, c.against): c.effect for c in fit.pairs}
    assert set(found) == {("a", "none"), ("b", "none"), ("b", "a")}
    assert found["b", "a"] == pytest.approx(found["b", "none"] - found["a", "none"])
    for c in (*fit.contrasts, *fit.pairs):
        assert c.joint_lower < c.estimate.ci_lower < c.effect < c.estimate.ci_upper < c.joint_upper
        assert c.p_holm >= c.estimate.p_value


def test_the_best_arm_is_named_only_where_it_is_separated(three: tuple[ArmsFit, np.ndarray]) -> None:
    fit, _ = three
    assert fit.best_arm == "b"
    assert "'b' is above every other arm" in fit.summary()
    close = tuple(replace(c, joint_lower=-0.01) if (c.arm, c.against) == ("b", "a") else c for c in fit.pairs)
    assert replace(fit, pairs=close).best_arm is None
    assert "No arm is separated" in replace(fit, pairs=close).summary()


def test_known_propensities_are_taken_as_they_are() -> None:
    frame, p = draw(1500)
    roles = {**ROLES, "propensity": {"none": "e0", "a": "e1", "b": "e2"}}
    log = cr.read_log(frame, **roles)
    fit = estimate_arms(log, cr.identify(log), folds=FEW, random_state=0)
    np.testing.assert_allclose(fit.propensities, frame[["e0", "e1", "e2"]], atol=1e-12)
    for k, contrast in enumerate(fit.contrasts, start=1):
        assert abs(contrast.effect - (p[:, k] - p[:, 0]).mean()) < 3.5 * contrast.estimate.std_error


def test_continuous_outcomes_and_row_weights() -> None:
    frame, _ = draw(1500)
    rng = np.random.default_rng(1)
    effect = frame["mail"].map({"none": 0.0, "a": 1.0, "b": -2.0}).to_numpy()
    frame = frame.assign(
        clicked=3 * frame["rate"] + effect + rng.standard_normal(len(frame)),
        w=rng.uniform(0.5, 2, len(frame)),
    )
    log = cr.read_log(frame, **ROLES, weight="w")
    fit = estimate_arms(log, cr.identify(log), folds=FEW, random_state=0)
    for contrast, truth in zip(fit.contrasts, (1.0, -2.0), strict=True):
        assert abs(contrast.effect - truth) < 4 * contrast.estimate.std_error
        assert contrast.estimate.std_error < 0.2
    assert fit.best_arm == "a"
    assert fit.means[0].value == pytest.approx(np.average(fit.scores[:, 0], weights=log.weights))


@pytest.mark.skipif(not os.environ.get("CAUSALREC_DATA"), reason="CAUSALREC_DATA names no data folder")
def test_a_randomised_experiment_gives_its_differences_of_means() -> None:
    frame = cr.datasets.load_hillstrom()
    log = cr.read_log(
        frame,
        treatment="segment",
        outcome="visit",
        modifiers=["recency"],
        confounders=["mens", "womens"],
        treatment_kind="arms",
        control="No E-Mail",
    )
    fit = estimate_arms(log, cr.identify(log), folds=FEW, random_state=0)
    rate = frame.groupby("segment")["visit"].mean()
    for contrast in fit.contrasts:
        plain = rate[contrast.arm] - rate["No E-Mail"]
        assert abs(contrast.effect - plain) < 0.5 * contrast.estimate.std_error
    assert fit.best_arm == "Mens E-Mail"


def test_items_that_repeat_are_clusters_too() -> None:
    frame, _ = draw(1500)
    log = cr.read_log(frame.assign(item=np.arange(1500) % 40), **ROLES, item="item")
    fit = estimate_arms(log, cr.identify(log), folds=FEW, random_state=0)
    assert fit.contrasts[0].estimate.n_clusters == 40
    assert "clustered by user and item" in fit.summary()


def test_joint_intervals_cover_all_contrasts() -> None:
    covered, plan = [], None
    for seed in range(30):
        frame, p = draw(900, seed=100 + seed)
        log = cr.read_log(frame, **ROLES)
        plan = plan or cr.identify(log)
        fit = estimate_arms(log, plan, folds=FEW, random_state=seed)
        truth = {LABELS[k]: p[:, k].mean() for k in range(3)}
        covered.append(
            all(c.joint_lower <= truth[c.arm] - truth[c.against] <= c.joint_upper for c in fit.pairs)
        )
    assert sum(covered) >= 25


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**31))
def test_the_order_of_rows_and_the_names_of_users_change_nothing(seed: int) -> None:
    frame, _ = draw(600)
    rng = np.random.default_rng(seed)
    moved = frame.iloc[rng.permutation(len(frame))]
    moved = moved.assign(user=[f"u{v}" for v in rng.permutation(10_000)[moved["user"]]])
    fits = []
    for one in (frame, moved):
        log = cr.read_log(one, **ROLES)
        fits.append(estimate_arms(log, cr.identify(log), folds=FEW, random_state=0))
    for a, b in zip(fits[0].contrasts, fits[1].contrasts, strict=True):
        assert a.effect == pytest.approx(b.effect, abs=1e-5)
        assert a.joint_lower == pytest.approx(b.joint_lower, abs=1e-5)


def test_the_table_and_the_figure_say_the_same(three: tuple[ArmsFit, np.ndarray]) -> None:
    fit, _ = three
    table = fit.to_frame().set_index("quantity")
    assert list(table.index)[:3] == ["mean under none", "mean under a", "mean under b"]
    assert table.loc["a − none", "joint_lower"] == fit.contrasts[0].joint_lower
    assert list(fit.overlap_frame()["arm"]) == ["none", "a", "b"]
    ax = plot_arms(fit)
    drawn = [line.get_xdata() for line in ax.lines]
    assert [fit.contrasts[1].joint_lower, fit.contrasts[1].joint_upper] in [list(x) for x in drawn]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]


@pytest.mark.slow
def test_conditional_effects_come_from_the_shared_scores(three: tuple[ArmsFit, np.ndarray]) -> None:
    from econml.dml import LinearDML
    from sklearn.linear_model import LinearRegression

    fit, p = three
    cate = fit.cate(fit.log)
    assert cate.shape == (4000, 2)
    for k in (1, 2):
        x = fit.log.frame[["age"]].to_numpy()
        line = LinearRegression().fit(x, fit.scores[:, k] - fit.scores[:, 0])
        np.testing.assert_allclose(cate[:, k - 1], line.predict(x), atol=1e-8)
    assert np.corrcoef(cate[:, 0], p[:, 1] - p[:, 0])[0, 1] > 0.8
    with pytest.raises(EstimationError, match="lacks the modifiers"):
        fit.cate(replace(fit.log, frame=fit.log.frame.drop(columns="age")))
    with pytest.raises(EstimationError, match=r"LinearDML; with several arms it must be .* DR family"):
        replace(fit, model=LinearDML()).cate(fit.log)


def no_overlap() -> pd.DataFrame:
    frame, _ = draw(1500)
    order = np.argsort(np.argsort(frame["rate"]))
    return frame.assign(mail=LABELS[order * 3 // 1500])


def rare_in_half() -> pd.DataFrame:
    frame, _ = draw(3000, confounding=0.3)
    rng = np.random.default_rng(0)
    low = (frame["rate"] < 0.3) & (frame["mail"] == "b") & (rng.random(3000) < 0.999)
    return frame.assign(mail=np.where(low, "none", frame["mail"]))


BAD: list[tuple[str, Any, dict[str, Any], type[Exception], str]] = [
    ("the arm follows a covariate", no_overlap, {}, OverlapError, r"the mean under arm 'none' cannot be estimated: .*AUC"),
    ("an arm that half the rows cannot have", rare_in_half, {"clip": cr.Clip(0.02)}, OverlapError, r"arm 'b' cannot be estimated.*below the clip \(0.02\) in \d+ % of the rows"),
    ("folds", lambda: draw(600)[0], {"folds": 5}, ArgumentError, r"folds is 5; must be Folds"),
    ("clip", lambda: draw(600)[0], {"clip": 0.1}, ArgumentError, r"clip is 0.1; must be Clip"),
    ("nuisances", lambda: draw(600)[0], {"nuisances": "ridge"}, ArgumentError, r"nuisances is 'ridge'; must be a NuisanceRecipe"),
    ("an arm of one user", lambda: draw(600)[0].assign(user=lambda f: np.where(f["mail"] == "b", 0, 1 + f["user"])), {}, EstimationError, r"arm 'b' .*against the rest.* cannot be modelled: without fold \d there is no treated row"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("frame", "options", "error", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD]
)
def test_bad_input(frame: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    log = cr.read_log(frame(), **ROLES)
    with pytest.raises(error, match=message):
        estimate_arms(log, cr.identify(log), **{"folds": FEW, "random_state": 0, **options})


def test_wrong_logs_and_plans_are_refused(three: tuple[ArmsFit, np.ndarray]) -> None:
    fit, _ = three
    with pytest.raises(ArgumentError, match=r"estimate_arms takes \(log, plan\)"):
        estimate_arms(fit.plan, fit.log)  # type: ignore[arg-type]
    frame, _ = draw(600)
    two = cr.read_log(
        frame[frame["mail"] != "b"], **{**ROLES, "treatment_kind": None, "control": None}, treated="a"
    )
    with pytest.raises(
        LogError, match=r"estimate_arms needs a treatment of several arms.*use estimate\(log, plan\)"
    ):
        estimate_arms(two, cr.identify(two))
    other = cr.read_log(frame.rename(columns={"clicked": "bought"}), **{**ROLES, "outcome": "bought"})
    with pytest.raises(ArgumentError, match="the plan is for the effect of 'mail' on 'clicked'"):
        estimate_arms(other, fit.plan)
    with_nudge = cr.read_log(frame.assign(z=frame["user"] % 2), **ROLES, instrument="z")
    with pytest.raises(IdentificationError, match="estimate_instrument"):
        estimate_arms(with_nudge, cr.identify(with_nudge, unobserved="need"))


def test_holm_is_the_step_down_procedure() -> None:
    p = np.array([0.01, 0.04, 0.03, np.nan, 0.5])
    np.testing.assert_allclose(holm(p), [0.04, 0.09, 0.09, np.nan, 0.5])


@pytest.mark.parametrize(("copies", "df"), [(1, 7), (1, 500), (4, 30)])
def test_the_joint_quantile_of_one_estimate_is_that_of_t(copies: int, df: int) -> None:
    draws = max_t(np.full((copies, copies), 2.0), df, DRAWS, np.random.default_rng(0))
    assert np.quantile(draws, 0.95) == pytest.approx(student.ppf(0.975, df), rel=0.03)


def test_the_joint_quantile_of_independent_estimates_is_sidaks() -> None:
    draws = max_t(np.diag([1.0, 4.0, 9.0, 0.0]), 10_000, DRAWS, np.random.default_rng(0))
    assert np.quantile(draws, 0.95) == pytest.approx(student.ppf((1 + 0.95 ** (1 / 3)) / 2, 10_000), rel=0.02)
    assert max_t(np.zeros((2, 2)), 5, DRAWS, np.random.default_rng(0)).max() == 0


def test_the_covariance_agrees_with_the_variances() -> None:
    rng = np.random.default_rng(0)
    phi, units, items = rng.standard_normal((300, 3)), rng.integers(0, 40, 300), rng.integers(0, 30, 300)
    one, both = covariance_of(phi, units)[0], covariance_of(phi, units, items)[0]
    for j in range(3):
        assert one[j, j] == pytest.approx(scores.cluster_variance(phi[:, j], units)[0])
    assert np.linalg.eigvalsh(both).min() >= 0
    sums = phi @ np.ones(3)
    assert np.ones(3) @ one @ np.ones(3) == pytest.approx(scores.cluster_variance(sums, units)[0])
