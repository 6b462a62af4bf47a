"""The uplift report: what it opens with, its sections, tables and figures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_logs import ROLES, make_world

import causalrec as cr
from causalrec import scores
from causalrec.errors import ArgumentError, OutputError
from causalrec.estimate.segments import segments
from causalrec.report import Report, report
from causalrec.report.decision import decided, decision_sentence, worth_sentences
from causalrec.report.results import question_of

BOTH = {**ROLES, "modifiers": ["age", "device"], "confounders": ["rate"]}
ORDER = [
    "policies", "for-whom", "fairness", "explanation", "models", "effect", "checks", "sensitivity", "group-sensitivity", "data",
    "assumptions", "skipped", "reproducibility",
]  # fmt: skip


@dataclass(frozen=True)
class Whom:
    """The results of one analysis of whom to target."""

    fit: cr.Fit
    trained: cr.Fit
    test: cr.ImpressionLog
    curve: cr.UpliftCurve
    targeting: cr.Targeting
    explanation: cr.Explanation
    choice: cr.ModelChoice
    sensitivity: cr.GroupSensitivity

    def __iter__(self) -> Iterator[Any]:
        return iter((self.fit, self.curve, self.targeting, self.explanation, self.choice, self.sensitivity))


@pytest.fixture(scope="module")
def whom() -> Whom:
    """Effects that are positive for some ages and negative for others; prices and a protected group."""
    from econml.dr import LinearDRLearner

    log = cr.read_log(make_world(4000, 1000, seed=4, heterogeneity=1.5, effect=0.2).frame, **BOTH)
    train, test = log.split(0.5, random_state=0)
    plan = cr.identify(log)
    fit, trained = (cr.estimate(some, plan, folds=cr.Folds(3), random_state=0) for some in (log, train))
    return Whom(
        fit,
        trained,
        test,
        cr.uplift(trained, test, n_bootstrap=100),
        cr.target(trained, test, value=2.0, cost=0.1, protected="device", random_state=0),
        cr.explain(trained, test, random_state=0),
        cr.choose_model(trained, {"linear DR": LinearDRLearner()}, stack=False),
        cr.group_sensitivity(fit, by=["device"]),
    )


@pytest.fixture(scope="module")
def page(whom: Whom) -> Report:
    return report(*whom, skipped=["Unseen items: the log has no text."])


def answer(page: Report) -> dict[str, Any]:
    return page.context["answer"]


def test_the_decision_stands_first_and_every_result_has_its_section(page: Report, whom: Whom) -> None:
    assert list(page.context["sections"]) == ORDER
    assert answer(page)["headline"] == decision_sentence(whom.targeting)
    assert answer(page)["headline"].startswith("Recommend ")
    assert answer(page)["level"] == "clear"
    assert page.context["title"] == "For whom treatment (‘shown’) works, and whom to target"
    effect = next(s for s in answer(page)["sentences"] if s.startswith("Treatment (‘shown’) "))
    assert "clustered by user" in effect


def test_what_a_rule_is_worth_follows_from_the_table(page: Report, whom: Whom) -> None:
    t, said = whom.targeting, " ".join(answer(page)["sentences"])
    row = t.table.set_index("policy").loc[t.recommended]
    each = 1000 * row["clicks"] / row["share_served"]
    assert f"brings {each:.0f} clicks per 1,000 recommendations (95 % interval" in said
    money = 1000 * row["net"] / row["share_served"]
    assert (
        f"At 2 a unit of clicks and 0.1 a recommendation that is worth {money:.0f} per 1,000 recommendations"
        in said
    )
    assert row["net"] == pytest.approx(2 * row["clicks"] - 0.1 * row["share_served"])
    assert "Today’s policy, which serves" in said
    assert all("95 % interval" in s for s in worth_sentences(t, question_of(whom.fit))[1:])


def test_nobody_is_singled_out_where_no_rule_wins(whom: Whom) -> None:
    log = cr.read_log(make_world(1500, 500, seed=2, heterogeneity=0.0).frame, **BOTH)
    train, test = log.split(0.5, random_state=0)
    trained = cr.estimate(train, cr.identify(log), folds=cr.Folds(3), random_state=0)
    t = cr.target(trained, test, random_state=0)
    assert t.recommended is None
    page = report(trained, t)
    assert answer(page)["headline"].startswith(
        "No group is shown to be worth singling out. No rule is recommended"
    )
    row = t.table.set_index("policy").loc["all"]
    assert decided(t) == (not row["clicks_lower"] <= 0 <= row["clicks_upper"])
    assert answer(page)["level"] == ("clear" if decided(t) else "unclear")
    assert "Recommending to everyone brings" in " ".join(answer(page)["sentences"])
    assert "fairness" not in page.context["sections"]


def test_failed_checks_speak_before_the_decision(whom: Whom, case: Any) -> None:
    failing = replace(
        case.checks,
        records=(SimpleNamespace(name="placebo", passed=False, statistic=1.0, p_value=0.0, message="no"),),
    )
    found = answer(report(whom.fit, whom.targeting, failing))
    assert found["level"] == "failed"
    assert found["headline"].startswith(
        "The data do not support a conclusion yet: 1 of 1 checks failed (placebo)."
    )
    assert found["headline"].endswith(decision_sentence(whom.targeting))


def test_tables_are_whole_and_unrounded(page: Report, whom: Whom) -> None:
    tables = page.tables
    pd.testing.assert_frame_equal(tables["policies"], whom.targeting.table)
    pd.testing.assert_frame_equal(tables["policy-differences"], whom.targeting.differences)
    pd.testing.assert_frame_equal(tables["deciles"], whom.curve.table)
    assert tables["uplift"]["gain"].tolist() == whom.curve.gain.tolist()
    assert tables["fairness"]["benefit"].tolist() == [r["benefit"] for r in whom.targeting.fairness.records]
    assert tables["group-sensitivity"]["breakdown"].tolist() == [g.breakdown for g in whom.sensitivity.groups]
    assert tables["models"]["gain"].tolist() == [r["gain"] for r in whom.choice.records]
    assert len(tables["explained-tree"]) == len(whom.explanation.tree)
    captions = page.html().count("<caption>")
    assert captions == len(tables)
    assert json.loads(json.dumps(page.context)) == page.context


def test_every_figure_is_written_twice_and_alike(page: Report, tmp_path: Path) -> None:
    assert set(page.figures) >= {
        "policies",
        "uplift",
        "calibration",
        "fairness-served",
        "models",
        "breakdown",
        "graph",
    }
    few = Report(page.context, {k: page.figures[k] for k in ("policies", "breakdown")}, {})
    first, again = few.save_figures(tmp_path / "a" / "b"), few.save_figures(tmp_path / "again")
    assert [p.name for p in first] == ["policies.png", "policies.svg", "breakdown.png", "breakdown.svg"]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in again]
    assert first[0].read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in first[1].read_bytes()
    with pytest.raises(ArgumentError, match="formats is 'jpg', must be one of"):
        few.save_figures(tmp_path, ["jpg"])
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match="cannot be written to"):
        few.save_figures(tmp_path / "file")


def test_what_was_skipped_is_said_with_its_reason(page: Report, whom: Whom) -> None:
    said = page.context["sections"]["skipped"]["parts"][0]["items"]
    assert "Unseen items: the log has no text." in said
    assert not any("cr.cold_start" in s for s in said)
    assert "Checks that refit were not run: cr.refute(fit)." in said
    assert any("no text block" in s for s in said)
    assert "skipped" not in report(whom.fit).context["sections"]


def test_order_of_results_does_not_matter_and_bytes_repeat(page: Report, whom: Whom) -> None:
    again = report(*reversed(list(whom)), skipped=["Unseen items: the log has no text."])
    assert again.html() == page.html()


def test_group_effects_take_the_place_of_the_default_ones(whom: Whom) -> None:
    finer = whom.fit.by("age", bins=6)
    tables = report(whom.fit, finer).tables
    assert tables["groups-0"]["group"].tolist() == [r["group"] for r in finer.records]
    assert len(tables["groups-1"]) == 3


def test_bad_companions_are_refused(whom: Whom, case: Any) -> None:
    age = whom.fit.by("age")
    table = {
        r"two GroupEffects by one modifier; they are by \['age', 'age'\]": (whom.fit, age, age),
        r"the Targeting is about 'shown' → 'clicked', the Fit about 'recommended'": (
            case.fit,
            whom.targeting,
        ),
        r"GroupEffects are by \['age'\], which the Fit does not have": (case.fit, age),
        r"report got Targeting; it needs the Fit": (whom.targeting,),
        r"two of the kind Targeting": (whom.fit, whom.targeting, whom.targeting),
    }
    for message, results in table.items():
        with pytest.raises(ArgumentError, match=message):
            report(*results)
    with pytest.raises(ArgumentError, match="skipped is 3, must be"):
        report(whom.fit, skipped=3)


def test_segments_are_those_of_the_fit_and_corrected_for_their_number(whom: Whom) -> None:
    found = segments(whom.fit, ("age", "device"))
    for group in found.groups:
        assert group == whom.fit.by(group.by)
    assert len(found.records) == 7
    for r in found.records:
        assert r["joint_lower"] < r["ci_lower"] < r["effect"] < r["ci_upper"] < r["joint_upper"]
        assert r["p_holm"] >= r["p_value"]
    assert 2.3 < found.width < 2.9  # between one interval's 1.96 and Bonferroni's 2.7 with few clusters
    one = segments(whom.fit, ("device",))
    assert one.width < found.width


def test_segments_of_a_corrected_fit_are_those_of_its_pairs(fit_plain: Any) -> None:
    fit = fit_plain(item="item", modifiers="group")
    assert fit.correction.order == 2
    found = segments(fit, ("group",))
    assert found.groups[0] == fit.by("group")
    assert 2.0 < found.width < 3.5


def test_max_t_covers_all_groups_at_once() -> None:
    """Eight groups without any effect, 200 logs: all joint intervals hold 0 together in about 95 %."""
    held = 0
    rng = np.random.default_rng(0)
    psi_units = np.arange(400)
    groups = np.arange(400) % 8
    from causalrec.joint import largest, two_way

    for _ in range(200):
        psi = rng.standard_normal(400)
        columns, found = [], []
        for k in range(8):
            here = groups == k
            value, influence = scores.ratio_influence(psi[here], np.ones(here.sum()))
            full = np.zeros(400)
            full[here] = influence * 8
            columns.append(full)
            found.append((value, scores.estimate_of(value, influence, psi_units[here]).std_error))
        table = np.column_stack(columns)
        covariance, g = two_way(lambda rows, table=table: table[rows], psi_units, None)
        width = largest(covariance, g - 1, 0.95, 2000, np.random.default_rng(0))
        held += all(abs(value) <= width * error for value, error in found)
    assert 176 <= held <= 199  # 190 expected, 5 sd


def test_a_failing_section_raises(whom: Whom) -> None:
    broken = replace(whom.targeting, leaves=whom.targeting.leaves.drop(columns="who"))
    with pytest.raises(KeyError, match="who"):
        report(whom.fit, broken)


def test_a_group_that_is_not_served_has_no_number(whom: Whom) -> None:
    fair = whom.targeting.fairness
    unserved = {"benefit": None, "benefit_lower": None, "benefit_upper": None, "gap": None, "p_value": None}
    records = (fair.records[0] | {"share_served": 0.0} | unserved, *fair.records[1:])
    html = report(whom.fit, replace(whom.targeting, fairness=replace(fair, records=records))).html()
    assert "too few rows" in html
