from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from small_logs import ROLES, World, make_world

import causalrec as cr
from causalrec.errors import (
    ArgumentError,
    EstimationError,
    HonestyError,
    IdentificationError,
    LogError,
    OverlapError,
)
from causalrec.estimate.fit import Fit

Analysed = Callable[..., Fit]
SMALL = make_world(400, 100, seed=7).frame
SLOW = settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def same(one: Fit, two: Fit, rel: float = 1e-4) -> None:
    """Equal to a ten-thousandth of a standard error, which is the solver's tolerance."""
    near = rel * one.std_error
    for name in ("effect", "std_error", "ci_lower", "ci_upper", "naive_effect"):
        assert getattr(two, name) == pytest.approx(getattr(one, name), abs=near), name


@pytest.fixture(scope="module")
def small() -> Fit:
    log = cr.read_log(SMALL, **ROLES)
    return cr.estimate(log, cr.identify(log), folds=cr.Folds(3), random_state=0)


@SLOW
@given(seed=st.integers(0, 10_000))
def test_order_index_and_names_of_users_have_no_say(small: Fit, analysed: Analysed, seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = {u: f"user {c}" for u, c in enumerate(rng.permutation(100))}
    shuffled = SMALL.assign(user=SMALL["user"].map(names)).sample(frac=1, random_state=seed)
    same(small, analysed(shuffled.set_index(np.zeros(400, int))))


def test_a_multiindex_changes_nothing_to_the_last_bit(small: Fit, analysed: Analysed) -> None:
    indexed = SMALL.set_index(["user", "device"], drop=False).rename_axis(["a", "b"])
    other = analysed(indexed)
    assert (other.effect, other.std_error) == (small.effect, small.std_error)
    assert other.log.frame.index.equals(indexed.index)


@SLOW
@given(scale=st.sampled_from([7.0, 0.01, 1000.0]), seed=st.integers(0, 100))
def test_the_scale_of_weights_has_no_say(analysed: Analysed, scale: float, seed: int) -> None:
    w = np.random.default_rng(seed).uniform(0.5, 2, 400)
    one, two = (analysed(SMALL.assign(w=v), weight="w") for v in (w, scale * w))
    same(one, two)
    assert one.ess == pytest.approx(two.ess)


def test_equal_weights_are_none(small: Fit, analysed: Analysed) -> None:
    same(small, analysed(SMALL.assign(w=7), weight="w"))


DTYPES: dict[str, tuple[Callable[[pd.Series], pd.Series], Any]] = {
    "bool": (lambda t: t == 1, None),
    "float": (lambda t: t.astype(float), None),
    "two strings": (lambda t: t.map({0: "no", 1: "yes"}), "yes"),
    "categorical": (lambda t: t.map({0: "no", 1: "yes"}).astype("category"), "yes"),
    "Int64": (lambda t: t.astype("Int64"), None),
    "boolean": (lambda t: t.astype("boolean"), None),
}


@pytest.mark.parametrize("name", DTYPES)
def test_the_dtype_of_the_treatment_has_no_say(small: Fit, analysed: Analysed, name: str) -> None:
    change, treated = DTYPES[name]
    other = analysed(SMALL.assign(shown=change(SMALL["shown"])), treated=treated)
    assert (other.effect, other.std_error) == (small.effect, small.std_error)


def test_the_dtype_of_anything_else_has_no_say(small: Fit, analysed: Analysed) -> None:
    changed = SMALL.assign(
        clicked=SMALL["clicked"].astype("boolean"),
        device=SMALL["device"].astype("category"),
        rate=SMALL["rate"].astype("Float64"),
        user=SMALL["user"].astype("string"),
    )
    other = analysed(changed)
    assert (other.effect, other.std_error) == (small.effect, small.std_error)


@pytest.mark.parametrize("kind", ["polars", "pyarrow", "csv", "parquet"])
def test_the_source_has_no_say(small: Fit, analysed: Analysed, kind: str, tmp_path: Any) -> None:
    path = str(tmp_path / f"log.{kind}")
    if kind == "polars":
        source = pytest.importorskip("polars").from_pandas(SMALL)
    elif kind == "pyarrow":
        source = pytest.importorskip("pyarrow").Table.from_pandas(SMALL)
    else:
        SMALL.to_csv(path, index=False) if kind == "csv" else SMALL.to_parquet(path)
        source = path
    other = analysed(source)
    assert (other.effect, other.std_error) == (small.effect, small.std_error)


def test_duplicate_rows_are_rows(analysed: Analysed) -> None:
    twice = analysed(pd.concat([SMALL, SMALL]))
    assert twice.n == 800
    assert twice.n_units == 100


def test_the_seed_decides_and_nothing_is_changed(small: Fit, analysed: Analysed) -> None:
    frame = SMALL.copy()
    before = copy.deepcopy(frame)
    fit = analysed(frame)
    assert fit.effect == small.effect
    other = cr.estimate(small.log, small.plan, folds=cr.Folds(3), random_state=1)
    assert other.effect != small.effect
    train, test = fit.log.split(0.4, random_state=0)
    part = cr.estimate(train, fit.plan, folds=cr.Folds(3), random_state=0)
    cr.refute(part, n_simulations=20, random_state=0, progress=False)
    cr.uplift(part, test, n_bootstrap=100)
    part.by("age"), part.cate_interval(test), part.under("ato")
    pd.testing.assert_frame_equal(frame, before)


def test_group_effects_average_to_the_effect(fit: Fit) -> None:
    table = fit.by("age", bins=4).to_frame()
    assert len(table) == 4
    assert np.average(table["effect"], weights=table["n"]) == pytest.approx(fit.effect, abs=1e-12)
    assert table["n"].sum() == fit.n
    assert table["effect"].iloc[-1] > table["effect"].iloc[0]


def test_group_effects_by_labels_and_what_is_too_small(analysed: Analysed) -> None:
    frame = make_world(600, 150, seed=2).frame
    frame.loc[:20, "device"] = "fridge"
    fit = analysed(frame, modifiers=["device"], confounders=["rate", "age"])
    table = fit.by("device").to_frame().set_index("group")
    assert set(table.index) == {"phone", "web", "tv", "fridge"}
    assert np.isnan(table.loc["fridge", "effect"])
    assert table.drop("fridge")["effect"].notna().all()
    with pytest.raises(
        EstimationError, match=r"'rate' is not a declared modifier; declared are \['device'\]"
    ):
        fit.by("rate")
    with pytest.raises(ArgumentError, match="bins is 1, must be >= 2"):
        fit.by("device", bins=1)


def test_nuisances_are_shared_and_belong_to_one_log(fit: Fit, analysed: Analysed) -> None:
    again = cr.estimate(fit.log, fit.plan, nuisances=fit.nuisances, estimand="att")
    assert again.effect == fit.under("att").effect
    assert again.nuisances is fit.nuisances
    part = fit.log.take(np.arange(1000))
    with pytest.raises(HonestyError, match=r"fitted on 1,200 rows, the log has 1,000"):
        cr.estimate(part, fit.plan, nuisances=fit.nuisances)
    with pytest.raises(HonestyError, match=r"fitted on another log: .* of 1,200 rows"):
        cr.estimate(fit.log.take(np.arange(1200)[::-1]), fit.plan, nuisances=fit.nuisances)


def test_each_result_shows_itself_with_what_it_assumes(fit: Fit) -> None:
    text = fit.summary()
    for part in (
        "ATE of shown → clicked",
        "95 %, clustered by user",
        "Population: all impressions",
        "Effective sample size",
        "Untested:",
    ):
        assert part in text
    assert "naive difference (not an effect)" in fit.to_frame()["quantity"].tolist()
    assert fit._repr_html_().startswith("<div>")
    with pytest.raises(AttributeError):
        fit.seed = 3  # type: ignore[misc]


def test_rows_as_units_are_said(analysed: Analysed) -> None:
    fit = analysed(SMALL, unit=None)
    assert fit.n_units == 400
    assert "clustered by row (no unit declared)" in fit.summary()


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"estimand": "late"}, ArgumentError, r"estimand is 'late', must be one of \['ate', 'att', 'ato'\]"),
    ({"clip": 0.1}, ArgumentError, r"clip is 0.1; must be Clip"),
    ({"folds": 5}, ArgumentError, r"folds is 5; must be Folds"),
    (
        {"folds": cr.Folds(50)},
        EstimationError,
        r"the log has 20 units, fewer than the 50 folds; pass folds=Folds\(20\)",
    ),
    ({"nuisances": object()}, ArgumentError, r"must be a NuisanceRecipe"),
    ({"random_state": "0"}, ArgumentError, r"random_state is '0'"),
    ({"model": "forest"}, ArgumentError, r"model is a str"),
]


@pytest.mark.parametrize(("options", "error", "says"), WRONG)
def test_wrong_options(options: dict[str, Any], error: type[Exception], says: str) -> None:
    log = cr.read_log(make_world(400, 20, seed=1).frame, **ROLES)
    with pytest.raises(error, match=says):
        cr.estimate(log, cr.identify(log), **options)


def test_what_is_no_log_or_no_plan(fit: Fit) -> None:
    with pytest.raises(ArgumentError, match=r"got \(DataFrame, Plan\)"):
        cr.estimate(fit.log.frame, fit.plan)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"got \(ImpressionLog, NoneType\)"):
        cr.estimate(fit.log, None)  # type: ignore[arg-type]


def test_a_plan_by_instrument_is_not_adjusted(analysed: Analysed) -> None:
    frame = SMALL.assign(lottery=np.random.default_rng(0).integers(0, 2, 400))
    log = cr.read_log(frame, **ROLES, instrument="lottery")
    plan = cr.identify(log, unobserved="mood")
    with pytest.raises(IdentificationError, match="by the instrument 'lottery' only"):
        cr.estimate(log, plan)


def words(width: int = 12) -> Any:
    return make_pipeline(TfidfVectorizer(), TruncatedSVD(width, random_state=0))


def test_a_plan_of_another_log_names_the_missing_block(
    embedded: tuple[cr.datasets.Simulation, cr.ImpressionLog],
) -> None:
    sim, log = embedded
    plan = cr.identify(log)
    with pytest.raises(
        EstimationError,
        match=r"adjusts for 'text:title', which the log does not have.*Was this log embedded\?",
    ):
        cr.estimate(sim.log(), plan)


def test_the_real_encoder_end_to_end(embedded: tuple[cr.datasets.Simulation, cr.ImpressionLog]) -> None:
    sim, log = embedded
    fit = cr.estimate(log, cr.identify(log), random_state=0)
    assert abs(fit.effect - sim.ate) < 3.5 * fit.std_error
    assert fit.naive_effect - sim.ate > 0.02
    assert abs(fit.effect - sim.ate) < abs(fit.naive_effect - sim.ate)
    assert fit.by_item is not None
    assert fit.by_item.std_error >= fit.std_error
    assert log.blocks["text:title"].width == 384


def test_a_balancing_score_replaces_the_words_in_the_propensity() -> None:
    sim = cr.simulate(1500, n_users=300, n_items=60, random_state=1)
    log = cr.embed(sim.log(score=True, history=False), words())
    fit = cr.estimate(log, cr.identify(log), folds=cr.Folds(3), random_state=0)
    problem = fit.nuisances.problem
    assert "score" in problem.propensity_design.owners
    assert "text:title" not in problem.propensity_design.owners
    assert "text:title" in problem.outcome_design.owners
    assert np.corrcoef(fit.nuisances.propensity, sim.propensity)[0, 1] > 0.8
    assert abs(fit.effect - sim.ate) < 4 * fit.std_error


def test_the_logged_propensity_is_used_and_a_wrong_one_refused() -> None:
    sim = cr.simulate(1500, n_users=300, n_items=60, random_state=2)
    log = sim.log(text=False, history=False, propensity=True)
    fit = cr.estimate(log, cr.identify(log), folds=cr.Folds(3), random_state=0)
    np.testing.assert_array_equal(fit.nuisances.propensity, sim.propensity)
    assert fit.nuisances.logged
    assert abs(fit.effect - sim.ate) < 4 * fit.std_error
    frame = log.frame
    t = frame["recommended"].to_numpy()
    wrong = {
        "of the item given the slot": sim.propensity / 20,
        "of the arm that was drawn": np.where(t == 1, sim.propensity, 1 - sim.propensity),
    }
    for values in wrong.values():
        with pytest.raises(LogError, match=r"it is not P\(treated\)"):
            cr.read_log(
                frame.assign(logged_propensity=values),
                treatment="recommended",
                outcome="clicked",
                unit="user_id",
                propensity="logged_propensity",
            )


def titled(treated: Callable[[pd.Series], Any], n_texts: int, n: int = 900) -> cr.ImpressionLog:
    rng = np.random.default_rng(0)
    topics = ["war peace treaty", "cup goal league", "star film stage", "bank loan rate"]
    code = rng.integers(0, n_texts, n)
    title = pd.Series([f"{topics[c % 4]} number{c}" for c in code])
    t = np.asarray(treated(title)).astype(int)
    y = rng.random(n) < 0.2 + 0.1 * t + 0.1 * (code % 4 == 1)
    frame = pd.DataFrame({"title": title, "shown": t, "clicked": y.astype(int), "user": np.arange(n) // 3})
    log = cr.read_log(frame, treatment="shown", outcome="clicked", text="title", unit="user")
    return cr.embed(log, words(40))


@pytest.mark.parametrize("n_texts", [40, 900], ids=["repeated texts", "texts once each"])
@pytest.mark.parametrize("estimand", ["ate", "att"])
def test_a_treatment_that_is_a_function_of_the_text(n_texts: int, estimand: str) -> None:
    log = titled(lambda title: title.str.contains("cup|star"), n_texts)
    with pytest.raises(
        OverlapError,
        match=rf"the {estimand.upper()} cannot be estimated: .*function of the text.*estimand='ato'",
    ):
        cr.estimate(log, cr.identify(log), estimand=estimand, folds=cr.Folds(3), random_state=0)
    fit = cr.estimate(log, cr.identify(log), estimand="ato", folds=cr.Folds(3), random_state=0)
    assert "Little overlap" in fit.summary()
    assert np.isfinite(fit.effect)


def test_many_clipped_propensities_are_refused_not_trimmed(fit: Fit, world: World) -> None:
    with pytest.raises(OverlapError, match=r"% of the propensities are beyond the clip \(more than 25 %\)"):
        cr.estimate(fit.log, fit.plan, clip=cr.Clip(0.4), nuisances=fit.nuisances)
    assert np.isfinite(
        cr.estimate(fit.log, fit.plan, clip=cr.Clip(0.4), estimand="ato", nuisances=fit.nuisances).effect
    )
    clipped = cr.estimate(fit.log, fit.plan, clip=cr.Clip(0.2), nuisances=fit.nuisances)
    assert clipped.share_clipped == pytest.approx(
        ((fit.nuisances.propensity < 0.2) | (fit.nuisances.propensity > 0.8)).mean()
    )
    assert "% of the propensities were clipped" in clipped.summary()


def test_a_randomised_log_without_any_covariate(analysed: Analysed) -> None:
    rng = np.random.default_rng(0)
    frame = SMALL.assign(shown=rng.integers(0, 2, 400), p=0.5)
    fit = analysed(frame, modifiers=[], confounders=[], propensity="p")
    assert fit.effect == pytest.approx(fit.naive_effect, abs=0.3 * fit.std_error)
    assert fit.cate(fit.log).shape == (400,)


def test_a_log_without_clicks_in_the_control_arm_is_read_but_has_no_effect(log: cr.ImpressionLog, plan: cr.Plan) -> None:
    frame = log.frame.assign(clicked=np.where(log.treatment == 1, log.outcome, 0.0))
    read = cr.read_log(frame, **ROLES)
    with pytest.raises(EstimationError, match=r"the control arm .* has no positive 'clicked'.*finetune can learn"):
        cr.estimate(read, plan)
