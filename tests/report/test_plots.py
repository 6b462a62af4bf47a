from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pytest
from matplotlib.figure import Figure

from causalrec.errors import ArgumentError
from causalrec.estimate import GroupEffects
from causalrec.report import (
    plot_balance,
    plot_deciles,
    plot_effect,
    plot_graph,
    plot_groups,
    plot_overlap,
    plot_placebo,
    plot_uplift,
    question_of,
)
from causalrec.report.graph import boxes


def texts(ax) -> list[str]:
    return [t.get_text() for t in ax.texts]


def lines_at(ax, x: float) -> int:
    """How many drawn lines are vertical at x."""
    return sum(np.allclose(line.get_xdata(), x) for line in ax.lines if len(line.get_xdata()) == 2)


def test_effect_shows_both_answers_in_clicks_per_thousand(case) -> None:
    fit = case.fit
    ax = plot_effect(fit)
    points = [line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 1]
    assert np.allclose(points, [1000 * v for v in (fit.naive_effect, fit.effect, fit.first_order.value)])
    spans = [line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 2][1:]
    assert np.allclose(spans[1], [1000 * fit.ci_lower, 1000 * fit.ci_upper])
    assert [t.get_text() for t in ax.get_yticklabels()] == [
        "naive comparison",
        "effect (ATE)",
        "first order, before pairs",
    ]
    assert ax.get_xlabel() == "clicks per 1,000 impressions"
    assert lines_at(ax, 0) == 1


def test_continuous_outcome_keeps_its_own_unit(fit_plain) -> None:
    fit = fit_plain(binary=False)
    ax = plot_effect(fit)
    assert ax.get_xlabel() == "‘y’ per impression"
    assert [line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 1][1] == pytest.approx(
        fit.effect
    )


def test_overlap_draws_each_arm_on_its_side(case) -> None:
    ax = plot_overlap(case.checks)
    treated, control = (patch.get_data().values for patch in ax.patches[::2])
    assert treated.sum() == pytest.approx(100)
    assert control.sum() == pytest.approx(-100)
    assert texts(ax) == ["treated", "control"]


def test_balance_sorts_by_the_largest_difference(case) -> None:
    rows = tuple({"column": f"c{i}", "before": 0.01 * i, "after": 0.0} for i in range(40))
    ax = plot_balance(replace(case.checks, balance=rows))
    labels = [t.get_text() for t in ax.get_yticklabels()]
    assert labels[:2] == ["c39", "c38"]
    assert len(labels) == 30
    with pytest.raises(ArgumentError, match=r"checks.balance is empty.*uses every column"):
        plot_balance(replace(case.checks, balance=()))


def test_uplift_starts_at_nothing_and_ends_where_random_ends(case) -> None:
    ax = plot_uplift(case.curve, question=question_of(case.fit))
    curve, random = ax.lines[0].get_xydata(), ax.lines[1].get_xydata()
    assert tuple(curve[0]) == tuple(random[0]) == (0, 0)
    assert np.allclose(curve[-1], random[-1])
    assert curve[-1][1] == pytest.approx(1000 * case.curve.gain[-1])
    assert texts(ax) == ["best-ranked first", "random"]
    assert ax.get_ylabel().split() == ["extra", "clicks", "per", "1,000", "impressions"]
    assert plot_uplift(case.curve).get_ylabel() == "extra outcome per impression"


def test_deciles_say_which_end_is_best(case) -> None:
    assert "1 = ranked highest" in plot_deciles(case.curve).get_xlabel()
    turned = case.curve.table.iloc[::-1].assign(decile=range(1, 11))
    assert "10 = ranked highest" in plot_deciles(replace(case.curve, table=turned)).get_xlabel()


def test_groups_without_enough_rows_say_so() -> None:
    record = {
        "group": "a",
        "n": 900,
        "n_units": 90,
        "effect": 0.05,
        "std_error": 0.01,
        "ci_lower": 0.03,
        "ci_upper": 0.07,
        "p_value": 0.0,
    }
    none = dict.fromkeys(("effect", "std_error", "ci_lower", "ci_upper", "p_value"))
    ax = plot_groups(
        GroupEffects("device", "ATE", (record, record | {"group": "$b$", "n": 3} | none)), overall=0.04
    )
    assert texts(ax) == ["0.050 (0.030 to 0.070)", "too few rows", "all"]
    assert lines_at(ax, 0.04) == 1
    many = GroupEffects("device", "ATE", tuple(record | {"group": f"g{i}", "n": i} for i in range(80)))
    assert [t.get_text() for t in plot_groups(many).get_yticklabels()] == [f"g{i}" for i in range(50, 80)]


def test_placebo_puts_the_estimate_beside_them(case) -> None:
    ax = plot_placebo(case.checks, case.fit)
    assert sum(p.get_height() for p in ax.patches) == len(case.checks.placebo_effects)
    assert lines_at(ax, 1000 * case.fit.effect) == 1
    with pytest.raises(ArgumentError, match="placebo_effects is empty"):
        plot_placebo(replace(case.checks, placebo_effects=()), case.fit)


def test_graph_puts_like_nodes_into_one_box(case) -> None:
    merged, content = boxes(case.plan)
    found = {box.kind: set(box.names) for box in content.values()}
    assert found == {
        "treatment": {"recommended"},
        "outcome": {"clicked"},
        "words": {"text:title", "lexical:title", "history:history", "match:history~title"},
        "columns": {"tenure", "device", "past_ctr", "hour"},
        "unused": {"position"},
    }
    assert nx.is_directed_acyclic_graph(merged)
    shown = texts(plot_graph(case.plan))
    assert "not adjusted for" in shown
    assert {"recommended", "clicked", "text:title", "hour"} <= set(shown)


def test_graph_of_many_columns_counts_the_rest(case) -> None:
    graph = nx.DiGraph(case.plan.graph)
    extra = [f"x{i}" for i in range(30)]
    for name in extra:
        graph.add_node(name, role="confounders", observed=True)
        graph.add_edges_from([(name, "recommended"), (name, "clicked")])
    graph.add_node("mood", role="unobserved", observed=False)
    graph.add_edges_from([("mood", "recommended"), ("mood", "clicked")])
    plan = replace(case.plan, graph=graph, outcome_nodes=(*case.plan.outcome_nodes, *extra))
    shown = texts(plot_graph(plan))
    assert "+ 26 more" in shown
    assert {"not observed", "mood"} <= set(shown)


def test_figures_draw_on_given_axes(case) -> None:
    axes = Figure().subplots(1, 2)
    assert plot_effect(case.fit, axes[0]) is axes[0]
    assert plot_uplift(case.curve, axes[1]) is axes[1]
    assert plot_graph(case.plan, Figure().subplots()).figure is not None


def test_a_dollar_sign_is_no_formula() -> None:
    record = {
        "group": "$x^$",
        "n": 90,
        "n_units": 9,
        "effect": 1.0,
        "std_error": 1.0,
        "ci_lower": 0.0,
        "ci_upper": 2.0,
        "p_value": 0.5,
    }
    ax = plot_groups(GroupEffects("price $", "ATE", (record,)))
    ax.figure.draw_without_rendering()
    empty = SimpleNamespace(balance=({"column": "a $ b $", "before": 0.1, "after": 0.0},))
    plot_balance(empty).figure.draw_without_rendering()


def test_no_pyplot_and_nothing_heavy_before_the_first_figure() -> None:
    code = "import sys, causalrec.report as r; assert 'matplotlib' not in sys.modules and 'jinja2' not in sys.modules; print('ok')"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "ok\n"
    )
