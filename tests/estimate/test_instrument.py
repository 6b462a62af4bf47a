from __future__ import annotations

from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

import causalrec as cr
from causalrec import scores
from causalrec.errors import ArgumentError, EstimationError, IdentificationError, LogError, OverlapError
from causalrec.estimate.encouragement import anderson_rubin
from causalrec.estimate.instrument import InstrumentFit, estimate_instrument
from causalrec.estimate.several import adjust

ROLES: dict[str, Any] = {
    "treatment": "opened",
    "outcome": "spent",
    "unit": "user",
    "modifiers": ["x"],
    "instrument": "mail",
}
FEW = cr.Folds(3)


def draw(
    n: int = 3000, seed: int = 0, strength: float = 1.5, one_sided: bool = False
) -> tuple[pd.DataFrame, np.ndarray]:
    """Users whose hidden interest moves opening and spending; `x` moves both and the mail. Also who complies."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, n // 4, n)
    x, interest = rng.standard_normal(n), rng.standard_normal(n // 4)[user]
    mail = (rng.random(n) < expit(0.5 * x)).astype(int)
    would = -0.5 + 0.6 * x + 1.2 * interest - rng.logistic(size=n)
    with_mail, without = would + strength > 0, (would > 0) & (not one_sided)
    opened = np.where(mail == 1, with_mail, without).astype(int)
    spent = (1 + 0.5 * x) * opened + 0.7 * x + 1.5 * interest + 0.5 * rng.standard_normal(n)
    frame = pd.DataFrame({"user": user, "x": x, "mail": mail, "opened": opened, "spent": spent})
    return frame, with_mail & ~without


def read(frame: pd.DataFrame, **changed: Any) -> tuple[cr.ImpressionLog, cr.Plan]:
    log = cr.read_log(frame, **{**ROLES, **changed})
    return log, cr.identify(log, unobserved="interest")


def run(frame: pd.DataFrame, **options: Any) -> InstrumentFit:
    return estimate_instrument(*read(frame), **{"folds": FEW, "random_state": 0, **options})


def truth(frame: pd.DataFrame, complies: np.ndarray) -> float:
    return float((1 + 0.5 * frame["x"])[complies].mean())


@pytest.fixture(scope="module")
def nudged() -> InstrumentFit:
    return run(draw()[0])


def test_a_hidden_confounder_fools_all_but_the_instrument(nudged: InstrumentFit) -> None:
    frame, complies = draw()
    right = truth(frame, complies)
    assert abs(nudged.effect - right) < 3 * nudged.late.std_error
    assert nudged.naive.value > right + 1
    adjusted = adjust(nudged.log, (("x",), ("x",)), nudged.log.strata, FEW, np.random.default_rng(0))
    fitted = adjusted.cross_fit(nudged.log.treatment, nudged.log.outcome, None)
    pair = scores.aipw_ate(
        nudged.log.treatment, nudged.log.outcome, fitted.propensity, fitted.outcome_0, fitted.outcome_1
    )
    aipw = scores.clustered_ratio(pair, nudged.log.units)
    assert aipw.ci_lower > right + 0.5


def test_both_intervals_cover() -> None:
    wald, robust, plan = [], [], None
    for seed in range(30):
        frame, complies = draw(1500, seed=50 + seed)
        log = cr.read_log(frame, **ROLES)
        plan = plan or cr.identify(log, unobserved="interest")
        fit = estimate_instrument(log, plan, folds=FEW, random_state=seed)
        right = truth(frame, complies)
        wald.append(fit.ci_lower <= right <= fit.ci_upper)
        robust.append(fit.anderson_rubin[0] <= right <= fit.anderson_rubin[1])
    assert np.mean(wald) >= 0.85
    assert np.mean(robust) >= 0.85


def test_the_effect_is_the_ratio_of_the_two_effects_of_the_mail(nudged: InstrumentFit) -> None:
    ratio = nudged.itt_outcome.value / nudged.itt_treatment.value
    assert nudged.effect == pytest.approx(ratio)
    assert nudged.effect == pytest.approx(nudged.scores[:, 0].mean() / nudged.scores[:, 1].mean())
    t = nudged.itt_treatment.value / nudged.itt_treatment.std_error
    assert nudged.first_stage_f == pytest.approx(t**2)
    low, high = nudged.anderson_rubin
    assert low < nudged.effect < high


def test_nobody_opens_a_mail_that_was_not_sent() -> None:
    frame, complies = draw(one_sided=True)
    fit = run(frame)
    assert abs(fit.effect - truth(frame, complies)) < 3 * fit.late.std_error
    np.testing.assert_allclose(fit.of_treatment.outcome_0, 0, atol=1e-6)


def test_an_instrument_that_lowers_the_treatment(nudged: InstrumentFit) -> None:
    frame, _ = draw()
    fit = run(frame.assign(mail=1 - frame["mail"]))
    assert fit.itt_treatment.value < 0
    assert fit.effect == pytest.approx(nudged.effect, abs=0.1)
    assert "'mail' lowers 'opened'" in fit.summary()


def test_clicks_as_the_outcome() -> None:
    frame, _ = draw(4000)
    fit = run(frame.assign(spent=(frame["spent"] > 1).astype(int)))
    assert 0 < fit.effect < 1
    assert fit.of_outcome.outcome_1.max() <= 1


def test_the_effect_given_the_modifiers_and_its_interval() -> None:
    frame, _ = draw(12_000, seed=3)
    fit = run(frame)
    at = replace(fit.log, frame=pd.DataFrame({"x": [-1.0, 0.0, 1.0]}))
    right = 1 + 0.5 * np.array([-1.0, 0.0, 1.0])
    lower, upper = fit.cate_interval(at, alpha=0.01)
    assert ((lower < right) & (right < upper)).all()
    np.testing.assert_allclose((lower + upper) / 2, fit.cate(at))
    assert (upper - lower < 2.5).all()
    with pytest.raises(EstimationError, match="lacks the modifiers"):
        fit.cate(replace(fit.log, frame=frame.drop(columns="x")))


def test_the_summary_says_whom_it_speaks_of(nudged: InstrumentFit) -> None:
    text = nudged.summary()
    assert "LATE of opened → spent, by the instrument mail" in text
    assert f"compliers, {100 * nudged.itt_treatment.value:.1f} % of the impressions" in text
    assert "'mail' is as good as drawn at random given 'x'" in text
    table = nudged.to_frame().set_index("quantity")
    assert table.loc["LATE, Anderson–Rubin interval", "ci_lower"] == nudged.anderson_rubin[0]


def test_the_robust_interval_inverts_its_test() -> None:
    v = np.array([[0.04, 0.01], [0.01, 0.02]])
    for end in anderson_rubin(1.0, 0.8, v, 50):
        a = np.array([1.0, -end])
        t = (1.0 - 0.8 * end) / np.sqrt(a @ v @ a)
        assert abs(t) == pytest.approx(2.0086, abs=1e-3)
    assert anderson_rubin(1.0, 0.1, v, 50) == (-np.inf, np.inf)


def test_a_plan_by_adjustment_serves_as_well(nudged: InstrumentFit) -> None:
    log = nudged.log
    fit = estimate_instrument(log, cr.identify(log), folds=FEW, random_state=0)
    assert fit.effect == pytest.approx(nudged.effect)


def weak() -> pd.DataFrame:
    return draw(strength=0.05)[0]


BAD: list[tuple[str, Any, dict[str, Any], dict[str, Any], type[Exception], str]] = [
    ("weak", weak, {}, {}, EstimationError, r"'mail' is too weak: first-stage F \d\.\d, must be >= 10 .*stronger encouragement.*its own effect on 'spent'"),
    ("none declared", lambda: draw()[0], {"instrument": None}, {}, LogError, r"the log declares no instrument"),
    ("the treatment itself", lambda: draw()[0].assign(mail=lambda f: f["opened"]), {}, {}, LogError, r"'mail' \(instrument\) is the treatment 'opened' itself"),
    ("the treatment turned", lambda: draw()[0].assign(mail=lambda f: 1 - f["opened"]), {}, {}, LogError, r"is the treatment 'opened' itself"),
    ("constant", lambda: draw()[0].assign(mail=1), {}, {}, LogError, r"'mail' \(instrument\) has 1 value; must have two"),
    ("many values", lambda: draw()[0].assign(mail=lambda f: f["x"]), {}, {}, LogError, r"has 3,000 values; must have two. Declare one encouragement"),
    ("few encouraged", lambda: draw()[0].assign(mail=(np.arange(3000) < 20).astype(int)), {}, {}, LogError, r"has 20 encouraged rows, must have >= 50"),
    ("decided by x", lambda: draw()[0].assign(mail=lambda f: (f["x"] > 0).astype(int)), {}, {}, OverlapError, r"the arm 'encouraged' has no overlap: .*AUC"),
    ("clip", lambda: draw()[0], {}, {"clip": 0.1}, ArgumentError, r"clip is 0.1; must be Clip"),
    ("nuisances", lambda: draw()[0], {}, {"nuisances": 1}, ArgumentError, r"nuisances is 1; must be a NuisanceRecipe"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("frame", "roles", "options", "error", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD]
)
def test_bad_instruments(
    frame: Any, roles: dict[str, Any], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    log = cr.read_log(frame(), **{**ROLES, **roles})
    with pytest.raises(error, match=message):
        estimate_instrument(log, cr.identify(log), **{"folds": FEW, "random_state": 0, **options})


GRAPHS: list[tuple[str, list[tuple[str, str]], str]] = [
    ("it acts on the outcome itself", [("mail", "opened"), ("mail", "spent")], r"no instrument in this graph: given \['x'\], a path joins it to 'spent'"),
    ("a hidden cause of it and the outcome", [("mail", "opened"), ("season", "mail"), ("season", "spent")], r"a path joins it to 'spent'"),
    ("it does not act on the treatment", [("x", "mail")], r"it does not act on 'opened'"),
    ("it is not in the graph", [], r"the plan's graph has no node 'mail'"),
]  # fmt: skip


@pytest.mark.parametrize(("edges", "message"), [g[1:] for g in GRAPHS], ids=[g[0] for g in GRAPHS])
def test_graphs_in_which_it_is_no_instrument(edges: list[tuple[str, str]], message: str) -> None:
    always = [("x", "opened"), ("x", "spent"), ("opened", "spent")]
    log = cr.read_log(draw(600)[0], **ROLES)
    names = {n for edge in edges for n in edge}
    plan = cr.identify(
        log, graph=nx.DiGraph(always + edges), unobserved=["season"] if "season" in names else []
    )
    with pytest.raises(IdentificationError, match=message):
        estimate_instrument(log, plan, folds=FEW)


def test_arms_have_no_single_compliers() -> None:
    frame, _ = draw(600)
    log = cr.read_log(frame.assign(opened=np.arange(600) % 3), **ROLES, treatment_kind="arms")
    with pytest.raises(LogError, match=r"estimate_instrument needs a treatment of two levels"):
        estimate_instrument(log, cr.identify(log))
