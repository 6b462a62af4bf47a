"""The training report: what it opens with, its sections and figures, and that it says what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_logs import ROLES, make_world

import causalrec as cr
from causalrec.errors import ArgumentError
from causalrec.finetune.choice import ObjectiveChoice
from causalrec.finetune.ranking import ranking_of
from causalrec.finetune.rounds import Round
from causalrec.report import Report, plot_epochs, plot_objectives, report
from causalrec.report.training import holds, warnings_of
from causalrec.report.training_plots import kept_epoch, lines_of
from causalrec.report.training_words import debiasing, decision
from causalrec.scores import Estimate

ORDER = [
    "ranker-value", "ranker-risk", "ranker-choice", "ranker-guard-rails", "ranker-training", "ranker-assumptions", "ranker-reproducibility",
]  # fmt: skip


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> cr.Ranker:
    log = cr.simulate(1_800, n_users=180, n_items=40, random_state=990_060).log()
    return cr.finetune(
        log, objective=cr.Auto(candidates=(cr.SNIPS(),)), training=cr.Training(progress=False), epochs=2, encoder=cr.TextEmbedder(progress=False),
        output=tmp_path_factory.mktemp("ranker") / "out", random_state=0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(ranker: cr.Ranker) -> Report:
    return report(ranker)


def estimate(value: float, half: float) -> Estimate:
    return Estimate(value, half / 1.96, value - half, value + half, float("nan"), 100, np.empty(0))


def with_gain(ranker: cr.Ranker, value: float, half: float) -> cr.Ranker:
    values = ranker.evaluation.values | {"gain": estimate(value, half)}
    return replace(ranker, evaluation=replace(ranker.evaluation, values=values))


def test_a_page_of_a_ranker_alone(page: Report, ranker: cr.Ranker) -> None:
    assert list(page.context["sections"]) == ORDER
    assert page.context["answer"]["headline"] == decision(ranker)[1]
    assert set(page.figures) == {"ranker-value", "ranker-risk", "ranker-choice", "ranker-policy-share", "ranker-epochs"}
    json.dumps(page.context, allow_nan=False)
    risks = page.tables["ranker-risk"]
    mine = risks[(risks["scores"] == "ranker") & (risks["estimator"] == "DR")].iloc[0]
    assert mine["estimate"] == ranker.evaluation.risks["DR"].value
    assert len(page.tables["ranker-epochs"]) == len(ranker.history)
    assert report(ranker).html() == page.html()


DECISIONS = [
    (0.02, 0.01, "clear", "The ranker’s choice is worth +20 clicks per 1,000 impressions shown over today’s (95 % interval 10 to 30)."),
    (0.02, 0.05, "unclear", "No gain is shown: "),
    (-0.02, 0.01, "clear", "Keep today’s choice: the ranker’s is worth −20 clicks"),
]


@pytest.mark.parametrize(("value", "half", "level", "said"), DECISIONS)
def test_the_decision(ranker: cr.Ranker, value: float, half: float, level: str, said: str) -> None:
    found = decision(with_gain(ranker, value, half))
    assert found[0] == level
    assert found[1].startswith(said)


def test_weights_out_of_bounds_stand_before_the_decision(ranker: cr.Ranker) -> None:
    rails = replace(ranker.guard_rails, ess=0.02 * ranker.guard_rails.n_shown, mean_weight=0.7)
    bad = with_gain(replace(ranker, guard_rails=rails), 0.02, 0.01)
    answer = report(bad).context["answer"]
    assert answer["level"] == "unclear"
    assert answer["headline"].startswith("The weights cannot be trusted as they are: 2 guard rails are out of bounds. At face value: the ranker’s choice is worth")
    assert sum("ean(T / e) is 0.700" in c for c in answer["caveats"]) == 1
    rows = report(bad).context["sections"]["ranker-guard-rails"]["parts"][1]["rows"]
    assert sum("✗ out of bounds" in row for row in rows) == 2


def test_each_guard_rail_is_judged_as_the_core_warns(ranker: cr.Ranker) -> None:
    """The verdict in the table comes from the bound in words, the warning from the core; they must agree."""
    good = replace(ranker.guard_rails, ess=0.5 * ranker.guard_rails.n_shown, largest_weight=0.001, mean_weight=1.0, share_clipped=0.0)
    assert good.warnings == ()
    worse = (good, replace(good, ess=1.0), replace(good, largest_weight=0.5), replace(good, mean_weight=1.2), replace(good, share_clipped=0.2))
    for rails in worse:
        verdicts = [holds(r["value"], r["should be"]) for r in rails.to_frame().to_dict("records")]
        assert verdicts.count(False) == len(rails.warnings)
        assert verdicts.count(None) == 1  # the calibration error has no bound


def test_s_that_drifts_away_is_said(ranker: cr.Ranker) -> None:
    history = tuple(r | {"policy_share": 1.4} for r in ranker.history)
    drifted = replace(ranker, trained=replace(ranker.trained, history=history))
    assert "S is 1.40" in warnings_of(drifted)[-1]
    assert len(warnings_of(drifted)) == len(warnings_of(ranker)) + 1


def test_who_stopped_the_training_is_said(ranker: cr.Ranker) -> None:
    random = replace(ranker, evaluation=replace(ranker.evaluation, random_judged=True))
    for one, word in ((ranker, "The held-out users also stopped the training"), (random, "Randomly drawn impressions stopped the training")):
        assert word in str(report(one).context["sections"]["ranker-assumptions"])
    assert "risk: held-out, doubly robust" in ranker.summary()
    assert "risk: of randomly drawn impressions" in random.summary()


def test_whether_debiasing_paid(ranker: cr.Ranker) -> None:
    def chose(name: str, value: float) -> cr.Ranker:
        return replace(ranker, choice=ObjectiveChoice(name, {"SNIPS": estimate(value, 0.002), "DR": estimate(0.01, 0.002)}, 1.0, "36 held-out users"))

    assert "of SNIPS and DR, none beats the naive loss" in debiasing(chose("naive", 0.0))
    assert "SNIPS was kept: its held-out risk is 5.0 nats per 1,000 impressions below that of the naive loss" in debiasing(chose("SNIPS", -0.005))
    assert "kept by the rule, not proven" in debiasing(chose("SNIPS", -0.0015))
    assert "not compared with the naive loss" in debiasing(replace(ranker, choice=None, objective=cr.DR()))
    assert report(replace(ranker, choice=None)).context["sections"].keys() == set(ORDER) - {"ranker-choice"}


def test_the_epoch_that_was_kept_is_marked(ranker: cr.Ranker) -> None:
    kept = kept_epoch(ranker)
    assert kept["risk"] == min(r["risk"] for r in ranker.history)
    ring = plot_epochs(ranker).lines[-1]
    assert ring.get_xdata()[0] == kept["epoch"]
    assert {line.key for line in lines_of(replace(ranker, objective=cr.Naive()))} >= {"risk_dr", "loss"}
    assert "loss" not in {line.key for line in lines_of(replace(ranker, objective=cr.DRJL()))}, "its loss has the imputation's in it"
    assert [line.key for line in lines_of(replace(ranker, objective=cr.BanditNet()))] == ["risk"]
    with pytest.raises(ArgumentError, match="no history"):
        plot_epochs(replace(ranker, trained=replace(ranker.trained, history=())))


def test_kept_objective_is_filled(ranker: cr.Ranker) -> None:
    choice = ObjectiveChoice("DR", {"SNIPS": estimate(0.0, 0.1), "DR": estimate(-0.2, 0.1)}, 1.0, "there")
    marks = [line for line in plot_objectives(choice).lines if line.get_marker() == "D"]
    assert [m.get_markerfacecolor() == m.get_markeredgecolor() for m in marks] == [False, True]
    assert "nats per 1,000 impressions" in plot_objectives(choice).get_xlabel()
    assert "nats per 1,000 pairs" in plot_objectives(replace(choice, risk_of="pairs")).get_xlabel()
    assert "risk less that of naive, nats a pair" in replace(choice, risk_of="pairs").to_frame().columns


def test_random_data_and_rounds_have_their_sections(ranker: cr.Ranker) -> None:
    rng = np.random.default_rng(0)
    mar = ranking_of(rng.normal(size=200), rng.integers(0, 2, 200).astype(float), np.arange(200) // 10, draws=50)
    made = Round(1, 500, 100, 250, True, estimate(-0.01, 0.005), estimate(0.002, 0.01), None, "New weights: better.")
    more = replace(ranker, evaluation=replace(ranker.evaluation, mar=mar), rounds=(made,))
    found = report(more)
    assert {"ranker-random", "ranker-rounds"} <= set(found.context["sections"])
    assert "On 200 impressions drawn at random: AUC" in " ".join(found.context["answer"]["sentences"])
    assert found.tables["ranker-rounds"]["promoted"].tolist() == [True]


def test_a_loaded_ranker_makes_the_same_page_but_for_its_log(ranker: cr.Ranker, page: Report, tmp_path: Path) -> None:
    ranker.save(tmp_path / "saved")
    again = report(cr.Ranker.load(tmp_path / "saved"))
    assert again.context["answer"] == page.context["answer"]
    assert list(again.context["sections"]) == list(page.context["sections"])
    assert "not kept with the ranker" in again.html()


def test_beside_a_fit_and_what_cannot_stand_together(ranker: cr.Ranker) -> None:
    log = cr.read_log(make_world(600, 200, seed=4).frame, **ROLES)
    fit = cr.estimate(log, cr.identify(log), folds=cr.Folds(3), random_state=0)
    with pytest.raises(ArgumentError, match="a page is about one question"):
        report(fit, ranker)
    loaded = replace(ranker, train=None, held_out=None)  # knows no columns, so that it can stand beside any
    found = report(fit, loaded)
    assert next(iter(found.context["sections"])) == "data"
    assert set(ORDER) <= set(found.context["sections"])
    assert found.context["answer"]["sentences"][-1] == decision(loaded)[1]
    with pytest.raises(ArgumentError, match="or a Ranker by itself"):
        report(cr.identify(log), ranker)
    with pytest.raises(ArgumentError, match="two of the kind Ranker"):
        report(ranker, ranker)
