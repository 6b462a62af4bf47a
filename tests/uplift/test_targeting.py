from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from small_logs import ROLES, make_world

import causalrec as cr
from causalrec.errors import ArgumentError, EstimationError, HonestyError
from causalrec.estimate.fit import Fit
from causalrec.joint import holm
from causalrec.log import ImpressionLog
from causalrec.report import plot_targeting
from causalrec.report.uplift_plots import plot_fairness
from causalrec.uplift.bench import Bench, bench
from causalrec.uplift.fairness import fairness_of
from causalrec.uplift.policy import Prices
from causalrec.uplift.policy_value import Contest
from causalrec.uplift.targeting import Targeting, target

F64 = npt.NDArray[np.float64]
BOTH = {**ROLES, "modifiers": ["age", "device"], "confounders": ["rate"]}
Halves = tuple[Fit, ImpressionLog, F64]


def halves_of(frame: pd.DataFrame, seed: int = 0, **roles: Any) -> tuple[Fit, ImpressionLog]:
    train, test = cr.read_log(frame, **{**BOTH, **roles}).split(0.5, random_state=seed)
    return cr.estimate(train, cr.identify(train), folds=cr.Folds(3), random_state=0), test


@pytest.fixture(scope="module")
def halves() -> Halves:
    """Effects that are positive for some ages and negative for others."""
    world = make_world(5000, 1000, seed=4, heterogeneity=1.5, effect=0.2)
    fit, test = halves_of(world.frame.assign(tau=world.tau), seed=1)
    return fit, test, test.frame["tau"].to_numpy()


@pytest.fixture(scope="module")
def plain(halves: Halves) -> Targeting:
    return target(*halves[:2], random_state=0)


def row(table: pd.DataFrame, policy: str) -> pd.Series:
    return table.set_index("policy").loc[policy]


def test_rules_gain_what_they_are_said_to(halves: Halves, plain: Targeting) -> None:
    fit, test, tau = halves
    for policy in ("tree", "forest", "cate"):
        found, served = row(plain.table, policy), plain.assign(test, policy)
        assert found["clicks_lower"] < (served * tau).mean() < found["clicks_upper"]
        assert found["share_served"] == pytest.approx(served.mean())
        assert (served * tau).mean() > 0.85 * np.maximum(tau, 0).mean()
    treated, today = test.treatment == 1, row(plain.table, "today")
    assert today["clicks_lower"] < (tau * treated).mean() < today["clicks_upper"]
    assert today["share_served"] == pytest.approx(treated.mean())
    everyone = row(plain.table, "all")
    assert everyone["clicks"] == pytest.approx(bench(fit, test, "target").psi.mean())
    assert everyone["clicks_lower"] < tau.mean() < everyone["clicks_upper"]
    assert (row(plain.table, "none")[["clicks", "clicks_lower", "clicks_upper"]] == 0).all()


def test_a_rule_that_beats_both_simple_policies_is_recommended_in_words(
    halves: Halves, plain: Targeting
) -> None:
    assert plain.recommended == "tree"
    assert plain.rule is not None
    assert plain.rule.startswith("Recommend to users whose age > ")
    assert plain.sentence.startswith(plain.rule)
    assert "more than recommending to everyone" in plain.sentence
    assert plain.rule in plain.summary()
    leaves = plain.leaves
    assert leaves["n"].sum() == len(halves[1])
    assert set(leaves["share_served"]) == {0.0, 1.0}
    judged = leaves.dropna(subset="effect")
    assert len(judged) >= 2
    assert (judged["ci_lower"] < judged["effect"]).all()
    np.testing.assert_array_equal(plain.assign(halves[1]), plain.assign(halves[1], "tree"))


def test_differences_are_paired(halves: Halves, plain: Targeting) -> None:
    d = plain.differences.set_index(["policy", "against"])
    gain = row(plain.table, "tree")["clicks"] - row(plain.table, "all")["clicks"]
    assert d.loc[("tree", "all"), "difference"] == pytest.approx(gain)
    tree, everyone = row(plain.table, "tree"), row(plain.table, "all")
    apart = np.hypot(tree["clicks_upper"] - tree["clicks"], everyone["clicks_upper"] - everyone["clicks"])
    assert d.loc[("tree", "all"), "ci_upper"] - gain < apart
    assert d["p_value"].between(0, 1).all()
    assert len(d) == 9


def test_what_a_rule_is_worth_allows_for_its_having_been_chosen(halves: Halves, plain: Targeting) -> None:
    judged = bench(*halves[:2], "target")
    for policy in ("tree", "all"):
        served = np.ones(len(judged.psi)) if policy == "all" else plain.assign(halves[1], policy)
        alone, found = judged.mean(served * judged.psi), row(plain.table, policy)
        wider = (found["clicks_upper"] - found["clicks_lower"]) / (alone.ci_upper - alone.ci_lower)
        assert found["clicks"] == pytest.approx(alone.value)
        assert 1.03 < wider < 1.4 if policy == "tree" else wider == pytest.approx(1)
    assert "those of the learnt rules for all of them at once" in plain.summary()


def test_a_rule_that_is_everyone_takes_nothing_from_the_others(halves: Halves) -> None:
    judged = bench(*halves[:2], "target")
    old, one = (halves[1].frame["age"] > 0).to_numpy(dtype=float), np.ones(len(judged.psi))
    prices = Prices(1.0, 0.05)
    alone = Contest(judged, prices, {"cate": old}, None)
    beside = Contest(judged, prices, {"tree": one, "cate": old}, None)
    assert beside.against("all")["tree"] == (0.0, 0.0)
    assert beside.against("all")["cate"][1] == pytest.approx(alone.against("all")["cate"][1], rel=0.02)
    assert beside.winner() == alone.winner() == "cate"


def test_gains_are_said_without_exponents_and_rules_by_name(halves: Halves) -> None:
    dear = target(*halves[:2], value=3000, cost=100, budget=0.4, random_state=0)
    assert "e+0" not in dear.sentence
    assert re.search(r"[+-]\d{1,3},\d{3} \[", dear.sentence)
    assert "at random to as many as the budget allows" in dear.sentence
    assert "by the cate rule" not in dear.summary()


def test_rules_are_held_to_an_interval_for_all_of_them_and_twins_count_as_one(halves: Halves) -> None:
    judged = bench(*halves[:2], "target")
    old, phone = (
        np.asarray(v, float) for v in (halves[1].frame["age"] > 0, halves[1].frame["device"] == "phone")
    )
    twins = Contest(judged, Prices(1.0, 0.0), {"a": old, "b": old}, None)
    e = twins.difference("a", "all")
    assert twins.against("all")["a"] == pytest.approx((e.value, (e.ci_upper - e.ci_lower) / 2), rel=0.03)
    apart = Contest(judged, Prices(1.0, 0.0), {"a": old, "b": phone}, None)
    assert apart.against("all")["a"][1] > 1.04 * twins.against("all")["a"][1]


def test_same_seed_same_result_and_order_of_rows_has_no_say(halves: Halves, plain: Targeting) -> None:
    fit, test, _ = halves
    pd.testing.assert_frame_equal(target(fit, test, random_state=0).table, plain.table)
    shuffled = test.take(np.random.default_rng(0).permutation(len(test)))
    pd.testing.assert_frame_equal(target(fit, shuffled, random_state=0).table, plain.table)


def test_prices_move_the_rule_and_the_money(halves: Halves, plain: Targeting) -> None:
    fit, test, tau = halves
    dear = target(fit, test, value=2.0, cost=0.4, random_state=0)
    for policy in ("tree", "cate"):
        assert row(dear.table, policy)["share_served"] < row(plain.table, policy)["share_served"]
        served, found = dear.assign(test, policy), row(dear.table, policy)
        assert found["net_lower"] < (served * (2 * tau - 0.4)).mean() < found["net_upper"]
        assert found["net"] == pytest.approx(2 * found["clicks"] - 0.4 * found["share_served"])
    assert row(dear.table, "all")["net_upper"] < 0
    assert "more than recommending to no one" in dear.sentence
    scaled = target(fit, test, value=20.0, cost=4.0, random_state=0)
    assert row(scaled.table, "tree")["net"] == pytest.approx(10 * row(dear.table, "tree")["net"])


@pytest.mark.parametrize("budget", [0.1, 0.4])
def test_a_budget_is_kept_and_compared_with_random_serving(halves: Halves, budget: float) -> None:
    fit, test, tau = halves
    found = target(fit, test, budget=budget, random_state=0)
    for policy in ("tree", "forest", "cate"):
        assert found.assign(fit.log, policy).mean() <= budget + 1e-9
        assert row(found.table, policy)["share_served"] == pytest.approx(budget, abs=0.04)
    served = found.assign(test, "cate")
    d = found.differences.set_index(["policy", "against"]).loc[("cate", "random")]
    assert d["ci_lower"] < ((served - served.mean()) * tau).mean() < d["ci_upper"]
    assert d["ci_lower"] > 0
    assert row(found.table, "random")["share_served"] == pytest.approx(budget)
    assert f"at most {100 * budget:g} % of the impressions" in found.summary()


def test_everyone_gains_alike_and_no_rule_is_recommended() -> None:
    world = make_world(3000, 600, seed=5, heterogeneity=0.0, effect=1.0)
    found = target(*halves_of(world.frame), random_state=0)
    assert found.recommended is None
    assert "No rule is recommended" in found.sentence
    assert "Recommending to everyone gains" in found.sentence
    with pytest.raises(
        ArgumentError, match=r"policy is None and no rule is recommended; name one of \['tree'"
    ):
        found.assign(found.fit.log)


def test_rules_of_noise_are_hardly_ever_recommended() -> None:
    """No effect for anyone: a rule would have to beat both recommending to no one and to everyone."""
    claims = 0
    for seed in range(12):
        world = make_world(800, 200, seed=seed, heterogeneity=0.0, effect=0.0)
        claims += target(*halves_of(world.frame), random_state=0).recommended is not None
    assert claims <= 2


def test_constant_modifiers_and_none() -> None:
    frame = make_world(1500, 400, seed=1).frame
    for roles in (
        {"modifiers": ["flat"], "confounders": ["rate"]},
        {"modifiers": [], "confounders": ["age", "rate"]},
    ):
        found = target(*halves_of(frame.assign(flat=1.0), **roles), budget=0.3, random_state=0)
        assert list(found.policies) == ["cate"]
        assert found.rule is None
        assert found.leaves.empty
        assert row(found.table, "cate")["share_served"] == pytest.approx(0.3)
        assert "no rule can tell impressions apart" in found.summary()


def test_a_policy_forest_or_tree_of_the_callers(halves: Halves) -> None:
    from econml.policy import PolicyForest, PolicyTree

    fit, test, _ = halves
    stump = PolicyTree(max_depth=1, min_samples_leaf=200, honest=False)
    found = target(fit, test, model=stump, random_state=0)
    assert len(found.leaves) == 2
    assert not hasattr(stump, "tree_")
    grove = target(fit, test, model=PolicyForest(n_estimators=8, n_jobs=1), random_state=0)
    assert list(grove.policies) == ["forest", "cate"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cost": -1.0}, r"cost is -1\.0, must be >= 0: what one recommendation costs"),
        ({"value": 0.0}, r"value is 0\.0, must be > 0"),
        ({"budget": 0}, r"budget is 0: no one is recommended anything, and every policy gains exactly 0"),
        ({"budget": 1.1}, r"budget is 1\.1, must be <= 1"),
        ({"budget": -0.1}, r"budget is -0\.1, must be > 0"),
        ({"depth": 5}, r"depth is 5, must be <= 4"),
        ({"min_share": 0.1}, r"protected is None; name a declared column"),
        ({"max_gap": 0.1}, r"protected is None; name a declared column"),
        ({"protected": "device", "min_share": 0.5, "budget": 0.2}, r"min_share is 0\.5 and budget 0\.2"),
        ({"protected": "device", "max_gap": 0.0}, r"max_gap is 0\.0, must be > 0"),
        ({"protected": "user"}, r"protected is 'user', must be a declared modifier or confounder"),
        ({"model": "tree"}, r"model is 'tree'; must be an unfitted econml"),
        ({"random_state": -1}, r"random_state is -1"),
    ],
)
def test_arguments_that_are_refused(halves: Halves, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        target(*halves[:2], **options)


def test_logs_that_are_refused(halves: Halves) -> None:
    fit, test, _ = halves
    with pytest.raises(HonestyError, match="were in the fit"):
        target(fit, fit.log)
    with pytest.raises(EstimationError, match="has 0 control rows"):
        target(fit, test.take(test.treatment == 1))
    with pytest.raises(ArgumentError, match=r"target takes \(fit, test\).*got \(Fit, DataFrame\)"):
        target(fit, test.frame)  # type: ignore[arg-type]
    users = np.unique(test.units[test.frame["device"] == "tv"])[10:]
    thin = test.take(~((test.frame["device"] == "tv") & np.isin(test.units, users)).to_numpy())
    with pytest.raises(EstimationError, match=r"'tv' has 10 users in the test log, must have >= 30"):
        target(fit, thin, protected="device")


@pytest.fixture(scope="module")
def uneven() -> Halves:
    """Phones gain much, television sets little."""
    world = make_world(6000, 1200, seed=7, heterogeneity=0.8, effect=0.1)
    rng = np.random.default_rng(0)
    frame, bonus = world.frame, 0.6 * (world.frame["device"] == "phone").to_numpy()
    clicked = np.where((rng.random(len(frame)) < bonus) & (frame["shown"] == 1), 1, frame["clicked"])
    tau = world.tau + bonus * (1 - world.p1)
    fit, test = halves_of(frame.assign(clicked=clicked, tau=tau))
    return fit, test, test.frame["tau"].to_numpy()


def test_fairness_says_who_is_served_and_gains(uneven: Halves) -> None:
    fit, test, tau = uneven
    found = target(fit, test, cost=0.05, protected="device", random_state=0)
    assert found.fairness is not None
    assert found.price is None
    served = found.assign(test, found.fairness.policy)
    frame = found.fairness.to_frame().set_index("group")
    for group, r in frame.iterrows():
        here = (test.frame["device"] == group).to_numpy()
        assert r["share_served"] == pytest.approx(served[here].mean())
        assert r["effect_lower"] - 0.02 < tau[here].mean() < r["effect_upper"] + 0.02
        assert (
            r["benefit_lower"] - 0.02
            < np.average(tau[here], weights=served[here])
            < r["benefit_upper"] + 0.02
        )
    assert frame["share_served"].idxmax() == "phone"
    tests = {t["what"]: t for t in found.fairness.tests}
    assert tests["Shares served"]["p_adjusted"] < 1e-6
    assert tests["Effects in the whole groups"]["p_adjusted"] < 0.01
    assert "Shares served differ between the groups" in found.summary()


def test_a_group_that_one_arm_never_reached_has_no_effect_to_compare(uneven: Halves) -> None:
    fit, test, _ = uneven
    judged = bench(fit, test, "target")
    groups = ("phone", "tv", "web")
    codes = np.searchsorted(np.array(groups), test.frame["device"].to_numpy(dtype=str)).astype(np.int64)
    one_sided = Bench(replace(judged.held, t=np.where(codes == 1, 1.0, judged.held.t)))
    found = fairness_of("all", one_sided, np.ones(len(test)), codes, groups)
    records = {r["group"]: r for r in found.records}
    for key in ("effect", "effect_lower", "benefit", "benefit_upper", "gap", "p_value"):
        assert records["tv"][key] is None
        assert records["phone"][key] is not None
    assert records["tv"]["share_served"] == 1.0
    assert all(np.isfinite(t["p_value"]) for t in found.tests if t["what"] != "Shares served")
    assert plot_fairness(found, "benefit") is not None


def test_no_group_is_served_below_the_share(uneven: Halves) -> None:
    fit, test, _ = uneven
    free = target(fit, test, cost=0.15, protected="device", random_state=0)
    fair = target(fit, test, cost=0.15, protected="device", min_share=0.95, random_state=0)
    codes = fit.log.frame["device"].to_numpy()
    for policy in fair.policies:
        shares = {g: fair.assign(fit.log, policy)[codes == g].mean() for g in np.unique(codes)}
        assert min(shares.values()) >= 0.95 - 1e-9
    assert min(free.assign(fit.log, "cate")[codes == g].mean() for g in np.unique(codes)) < 0.4
    assert fair.price is not None
    priced = fair.price.set_index("policy").loc["cate"]
    lost = row(free.table, "cate")["net"] - row(fair.table, "cate")["net"]
    assert priced["price"] == pytest.approx(lost)
    assert priced["ci_lower"] > 0
    assert "Price of the constraints" in fair.summary()


def test_the_gap_of_predicted_benefits_is_bounded(uneven: Halves) -> None:
    fit, test, _ = uneven
    codes = fit.log.frame["device"].to_numpy()
    effect = fit.cate(fit.log)

    def gap(found: Targeting) -> float:
        served = found.assign(fit.log, "cate")
        means = [np.average(effect[codes == g], weights=served[codes == g]) for g in np.unique(codes)]
        return float(max(means) - min(means))

    free = target(fit, test, protected="device", random_state=0)
    fair = target(fit, test, protected="device", max_gap=0.18, random_state=0)
    print(gap(free))
    assert gap(free) > 0.06
    assert gap(fair) <= 0.18 + 0.005
    with pytest.raises(ArgumentError, match="policy is 'oracle', must be one of"):
        fair.assign(test, "oracle")


def test_holm_by_hand() -> None:
    found = holm(np.array([0.01, np.nan, 0.04, 0.03]))
    np.testing.assert_allclose(found, [0.03, np.nan, 0.06, 0.06])


def test_the_figure_shows_every_policy(halves: Halves, plain: Targeting) -> None:
    ax = plot_targeting(plain)
    labels = [t.get_text() for t in ax.get_yticklabels()]
    assert len(labels) == 5
    assert labels[0].startswith("tree (")
    assert "clicks gained" in ax.get_xlabel()
    priced = plot_targeting(target(*halves[:2], cost=0.1, random_state=0), ax)
    assert priced is ax
    assert "net value" in ax.get_xlabel()


def test_how_a_result_shows_itself(plain: Targeting) -> None:
    assert len(plain.to_frame()) == len(plain.table)
    assert "<table>" in plain._repr_html_()
