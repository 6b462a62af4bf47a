from __future__ import annotations

from itertools import pairwise

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import causalrec as cr
from causalrec import dag
from causalrec.blocks import Block
from causalrec.errors import ArgumentError, GraphError, IdentificationError
from causalrec.identify import Plan, _largest_valid, _without_instruments, identify

N = 240
COLUMNS = ("tenure", "hour", "score", "slot", "lottery", "before", "mediator", "x", "w", "spare")


def make_frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({c: rng.random(N) for c in COLUMNS})
    frame["recommended"] = np.arange(N) % 2
    frame["clicked"] = (np.arange(N) // 2) % 2
    frame["title"] = ["a b", "c d", "e f"] * (N // 3)
    frame["review"] = ["good", "bad"] * (N // 2)
    frame["read"] = [["x"], ["y", "z"]] * (N // 2)
    frame["user_id"] = np.arange(N) // 4
    frame["item_id"] = np.arange(N) % 6
    frame["p"] = 0.5
    return frame


def make_block(name: str, kind: str, columns: tuple[str, ...], width: int = 3) -> Block:
    values = np.random.default_rng(1).normal(size=(2, width)).astype(np.float32)
    return Block(name, kind, values, np.arange(N) % 2, columns, "test")


def make_log(width: int = 3, **roles) -> cr.ImpressionLog:
    log = cr.read_log(make_frame(), treatment="recommended", outcome="clicked", unit="user_id", **roles)
    blocks = [make_block(f"text:{c}", "text", (c,), width) for c in log.roles.text]
    for c in log.roles.history:
        blocks.append(make_block(f"history:{c}", "history", (c,), width))
        blocks += [make_block(f"match:{c}~{t}", "match", (c, t), width) for t in log.roles.text]
    return log.with_blocks(blocks)


def digraph(edges: str) -> nx.DiGraph:
    """'A>B B>C' as a graph; T is the exposure, Y the click."""
    short = {"T": "recommended", "Y": "clicked"}
    pairs = (edge.split(">") for edge in edges.split())
    return nx.DiGraph((short.get(a, a), short.get(b, b)) for a, b in pairs)


# roles → (propensity nodes, outcome nodes, strategy)
FROM_ROLES = {
    "words only": (dict(text="title"), ("text:title",), ("text:title",), "backdoor"),
    "words, history, columns": (
        dict(text="title", history="read", modifiers=["tenure"], confounders=["hour"]),
        ("text:title", "history:read", "match:read~title", "tenure", "hour"),
        ("text:title", "history:read", "match:read~title", "tenure", "hour"),
        "backdoor",
    ),
    "a ranking score balances the words": (
        dict(text="title", score="score", confounders=["hour"]),
        ("score", "hour"),
        ("text:title", "score", "hour"),
        "backdoor",
    ),
    "a ranking score without words": (dict(score="score"), ("score",), ("score",), "backdoor"),
    "position is a mediator": (
        dict(position="slot", confounders=["hour"]), ("hour",), ("hour",), "backdoor",
    ),
    "instrument and negative control stay out": (
        dict(confounders=["hour"], instrument="lottery", negative_controls=["before"]),
        ("hour",), ("hour",), "backdoor",
    ),
    "logged propensity": (
        dict(text="title", confounders=["hour"], propensity="p"),
        ("text:title", "hour"), ("text:title", "hour"), "randomised",
    ),
    "nothing declared": ({}, (), (), "randomised"),
}  # fmt: skip


@pytest.mark.parametrize("case", FROM_ROLES, ids=str)
def test_default_graph_from_roles(case: str) -> None:
    roles, propensity, outcome, strategy = FROM_ROLES[case]
    plan = identify(make_log(**roles))
    assert plan.propensity_nodes == propensity
    assert plan.outcome_nodes == outcome
    assert plan.strategy == strategy
    assert plan.modifiers == tuple(roles.get("modifiers", ()))
    assert plan.obstacle is None


ALL = dict(
    text=["title", "review"], confounders=["hour", "x", "w"], modifiers=["tenure"], instrument="lottery",
    position="slot",
)  # fmt: skip

# edges, unobserved → (strategy, propensity nodes, outcome nodes, through)
FROM_GRAPHS = {
    "fork": ("hour>T hour>Y T>Y", (), "backdoor", ("hour",), ("hour",), ()),
    "column stands for block": ("title>T title>Y T>Y", (), "backdoor", ("text:title",), ("text:title",), ()),
    "block by its own name": (
        "text:title>T text:title>Y T>Y", (), "backdoor", ("text:title",), ("text:title",), (),
    ),
    "post-treatment text": (
        "title>T title>Y T>review review>Y T>Y", (), "backdoor", ("text:title",), ("text:title",), (),
    ),
    "chain behind a hidden cause": ("U>hour hour>T U>Y T>Y", ("U",), "backdoor", ("hour",), ("hour",), ()),
    "a cause of the click alone": (
        "hour>T hour>Y x>Y T>Y", (), "backdoor", ("hour",), ("hour", "x"), (),
    ),
    "M-bias": ("U1>T U1>x U2>x U2>Y T>Y hour>T hour>Y", ("U1", "U2"), "backdoor", ("hour",), ("hour",), ()),
    "M-bias alone": ("U1>T U1>x U2>x U2>Y T>Y", ("U1", "U2"), "randomised", (), (), ()),
    "butterfly with a measured wing": (
        "w>T w>x U2>x U2>Y x>T x>Y T>Y", ("U2",), "backdoor", ("x", "w"), ("x", "w"), (),
    ),
    "randomised with a precise covariate": ("hour>Y T>Y", (), "randomised", (), ("hour",), ()),
    "instrument beside a measured fork": (
        "lottery>T hour>T hour>Y T>Y", (), "backdoor", ("hour",), ("hour",), (),
    ),
    "instrument": ("lottery>T U>T U>Y T>Y", ("U",), "instrument", (), (), ("lottery",)),
    "front door": ("T>slot slot>Y U>T U>Y", ("U",), "frontdoor", (), (), ("slot",)),
    "selection after the click": ("T>Y Y>x T>x hour>T hour>Y", (), "backdoor", ("hour",), ("hour",), ()),
}  # fmt: skip


@pytest.mark.parametrize("case", FROM_GRAPHS, ids=str)
def test_user_graph(case: str) -> None:
    edges, hidden, strategy, propensity, outcome, through = FROM_GRAPHS[case]
    plan = identify(make_log(**ALL), graph=digraph(edges), unobserved=hidden)
    found = (plan.strategy, plan.propensity_nodes, plan.outcome_nodes, plan.through)
    assert found == (strategy, propensity, outcome, through)
    assert (plan.obstacle is None) == (strategy in ("backdoor", "randomised"))


# node of FROM_GRAPHS' cases → part of the reason
REFUSALS = {
    "post-treatment text": ("text:review", "post-treatment text, a mediator"),
    "M-bias": ("x", "collider: adjusting for it would open recommended <- U1 -> x <- U2 -> clicked"),
    "instrument beside a measured fork": ("lottery", "it acts on 'clicked' through 'recommended' only"),
    "selection after the click": ("x", "caused by 'clicked'"),
    "instrument": ("tenure", "not in the graph"),
    "fork": ("text:title", "not in the graph that was given"),
}


@pytest.mark.parametrize("case", REFUSALS, ids=str)
def test_refused_says_why(case: str) -> None:
    edges, hidden, *_ = FROM_GRAPHS[case]
    node, reason = REFUSALS[case]
    plan = identify(make_log(**ALL), graph=digraph(edges), unobserved=hidden)
    assert reason in dict(plan.refused)[node]
    assert reason in plan.summary()
    assert node not in (*plan.propensity_nodes, *plan.outcome_nodes, *plan.modifiers)


UNIDENTIFIED = {
    "hidden fork": ("U>T U>Y T>Y", ("U",), "recommended <- U -> clicked", "Measuring 'U'"),
    "butterfly": (
        "U1>T U1>x U2>x U2>Y x>T x>Y T>Y", ("U1", "U2"),
        "recommended <- U1 -> x <- U2 -> clicked", "Measuring 'U1' or 'U2'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNIDENTIFIED, ids=str)
def test_unidentified_names_the_open_back_door(case: str) -> None:
    edges, hidden, path, remedy = UNIDENTIFIED[case]
    with pytest.raises(IdentificationError) as caught:
        identify(make_log(**ALL), graph=digraph(edges), unobserved=hidden)
    assert path in str(caught.value)
    assert remedy in str(caught.value)


def test_hidden_cause_in_the_default_graph() -> None:
    with pytest.raises(IdentificationError, match="recommended <- taste -> clicked"):
        identify(make_log(text="title"), unobserved="taste")
    plan = identify(make_log(text="title", instrument="lottery"), unobserved=["taste"])
    assert (plan.strategy, plan.through) == ("instrument", ("lottery",))
    assert "recommended <- taste -> clicked" in str(plan.obstacle)
    assert dict(plan.refused)["text:title"] == "does not close recommended <- taste -> clicked"


def test_design_closes_what_the_graph_leaves_open() -> None:
    plan = identify(make_log(text="title", propensity="p"), unobserved="taste")
    assert plan.strategy == "randomised"
    assert any("known by design" in n for n in plan.notes)
    assert any("recommended <- taste -> clicked" in n for n in plan.notes)


def test_words_without_a_block() -> None:
    log = cr.read_log(make_frame(), treatment="recommended", outcome="clicked", text="title", history="read")
    for graph in (None, digraph("title>T title>Y T>Y")):
        with pytest.raises(IdentificationError, match=r"\['title', 'read'\].*call log = embed"):
            identify(log, graph=graph)


def test_match_stands_where_its_columns_stand() -> None:
    log = make_log(text=["title", "review"], history="read")
    plan = identify(log, graph=digraph("title>T title>Y read>T read>Y T>review review>Y T>Y"))
    assert plan.outcome_nodes == ("text:title", "history:read", "match:read~title")
    assert "post-treatment" in dict(plan.refused)["match:read~review"]
    half = identify(log, graph=digraph("title>T title>Y read>Y T>Y"))
    assert half.propensity_nodes == ("text:title",)
    assert dict(half.refused)["match:read~review"] == "not in the graph that was given"


BAD_GRAPHS = {
    "cycle": (digraph("T>Y Y>hour hour>T"), (), "the cycle .*hour -> recommended.*nothing can cause itself"),
    "self-loop": (digraph("T>Y hour>hour"), (), "cycle hour -> hour"),
    "unknown node": (digraph("T>Y huor>T huor>Y"), (), "'huor'.*Did you mean 'hour'.*unobserved="),
    "unit as node": (digraph("T>Y user_id>T"), (), "'user_id', the unit of the log"),
    "column without a role": (digraph("T>Y spare>T"), (), "'spare', a column without a role; declare it"),
    "no treatment": (digraph("hour>Y recomended>Y"), ("recomended",), "'recommended', the treatment.*mean"),
    "no outcome": (digraph("hour>T"), (), "'clicked', the outcome of the log"),
    "no effect": (digraph("hour>T hour>Y"), (), "no directed path from 'recommended' to 'clicked'"),
    "hidden node that is not there": (digraph("T>Y U>T"), ("V",), "unobserved names 'V'.*not in the graph"),
    "two names for one block": (digraph("T>Y title>Y text:title>T"), (), "both 'title' and 'text:title'"),
    "undirected": (nx.Graph([("recommended", "clicked")]), (), "undirected; a causal graph needs arrows"),
    "no names": (nx.DiGraph([(1, 2)]), (), "the node 1 .int.; nodes are named by text"),
    "no graph": ([("recommended", "clicked")], (), "graph is a list, must be a networkx DiGraph"),
    "no file": ("missing.dot", (), "'missing.dot' is neither .* nor a readable file .FileNotFound"),
    "undirected DOT": ("graph { recommended -- clicked }", (), "undirected"),
    "undirected GML": ('graph [ node [ id 0 label "clicked" ] ]', (), "undirected"),
    "empty text": ("digraph { }", (), "no observed node 'recommended'"),
    "broken DOT": ("digraph { recommended -> ", (), "cannot be read as DOT"),
    "broken GML": ("graph [ directed 1 node [ id 0 ]", (), "cannot be read as GML"),
}


@pytest.mark.parametrize("case", BAD_GRAPHS, ids=str)
def test_bad_graph(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    graph, hidden, message = BAD_GRAPHS[case]
    with pytest.raises(GraphError, match=message):
        identify(make_log(**ALL), graph=graph, unobserved=hidden)
    assert capsys.readouterr().out == ""


def test_bad_unobserved() -> None:
    with pytest.raises(GraphError, match="unobserved names 'hour', which the log observes"):
        identify(make_log(confounders=["hour"]), unobserved=["hour"])
    with pytest.raises(ArgumentError, match="unobserved is"):
        identify(make_log(confounders=["hour"]), unobserved=[3])


DOT = """digraph {
  "text:title" -> recommended; "text:title" -> clicked;
  recommended -> clicked;
  U [observed="no"]; U -> hour; U -> clicked; hour -> recommended;
}"""
GML = """graph [ directed 1
  node [ id 0 label "text:title" ] node [ id 1 label "recommended" ] node [ id 2 label "clicked" ]
  node [ id 3 label "U" observed "no" ] node [ id 4 label "hour" ]
  edge [ source 0 target 1 ] edge [ source 0 target 2 ] edge [ source 1 target 2 ]
  edge [ source 3 target 4 ] edge [ source 3 target 2 ] edge [ source 4 target 1 ]
]"""


@pytest.mark.parametrize(("text", "ending"), [(DOT, "dot"), (GML, "gml")])
def test_graph_as_text_and_as_file(text: str, ending: str, tmp_path) -> None:
    log = make_log(**ALL)
    graph = digraph("text:title>T text:title>Y T>Y U>hour U>Y hour>T")
    expected = identify(log, graph=graph, unobserved="U")
    path = tmp_path / f"plan.{ending}"
    path.write_text(text, encoding="utf-8")
    for source in (text, path, str(path)):
        plan = identify(log, graph=source)
        assert plan == expected
        assert plan.to_dot() == expected.to_dot()
    assert expected.outcome_nodes == ("text:title", "hour")


def test_dot_with_styles_groups_and_comments() -> None:
    text = """digraph plan { // drawn by hand
      rankdir=LR; node [shape=box]; edge [color=grey];
      hour -> {recommended clicked};
      recommended -> clicked [label="?"];
    }
    """
    plan = identify(make_log(**ALL), graph=text)
    assert set(plan.graph) == {"recommended", "clicked", "hour"}
    assert plan.outcome_nodes == ("hour",)


def test_plan_drawn_as_dot_is_read_back() -> None:
    log = make_log(**{**ALL, "text": "title"})
    plan = identify(log)
    assert identify(log, graph=plan.to_dot()) == plan


def test_node_count_does_not_depend_on_the_width() -> None:
    small, wide = (identify(make_log(width=w, text="title", confounders=["hour", "x"])) for w in (2, 384))
    assert len(small.graph) == len(wide.graph) == 5
    assert small == wide


def test_order_of_edges_does_not_matter() -> None:
    log = make_log(**ALL)
    graph = digraph("U>hour hour>T U>Y T>Y x>T x>Y title>T title>Y T>slot slot>Y")
    expected = identify(log, graph=graph, unobserved="U")
    rng = np.random.default_rng(3)
    for _ in range(3):
        edges = list(graph.edges)
        rng.shuffle(edges)
        plan = identify(log, graph=nx.DiGraph([tuple(e) for e in edges]), unobserved="U")
        assert plan == expected
        assert plan.to_dot() == expected.to_dot()
    assert expected.outcome_nodes == ("text:title", "hour", "x")


def test_user_graph_is_not_modified_and_the_plan_is_frozen() -> None:
    graph = digraph("title>T title>Y T>Y")
    before = nx.DiGraph(graph)
    plan = identify(make_log(**ALL), graph=graph)
    assert list(graph.edges) == list(before.edges)
    with pytest.raises(nx.NetworkXError):
        plan.graph.add_edge("recommended", "hour")
    with pytest.raises(AttributeError):
        plan.strategy = "randomised"


def test_plan_shows_itself() -> None:
    plan = identify(make_log(text="title", confounders=["hour"], position="slot"))
    frame = plan.to_frame().set_index("node")
    assert frame.loc["text:title", "use"] == "propensity and outcome model"
    assert frame.loc["slot", "use"] == "not used"
    said = "no hidden common cause of 'recommended' and 'clicked' beyond 'text:title' and 'hour'"
    assert said in plan.assumptions
    for words in ("assumed, not tested: overlap", "before the exposure", "consistency", "no interference"):
        assert words in plan.summary()
    assert "<table>" in plan._repr_html_()
    assert any("by moving 'slot'" in n for n in plan.notes)


def test_score_is_said_to_balance() -> None:
    plan = identify(make_log(text="title", score="score"))
    assert any("'score' is a balancing score: the propensity needs 'score' only" in n for n in plan.notes)
    assert "exposure depends on the words through 'score' only" in plan.assumptions


def test_names_that_dot_must_escape() -> None:
    frame = make_frame().rename(columns={"hour": 'ho"ur\\<b>'})
    log = cr.read_log(frame, treatment="recommended", outcome="clicked", confounders=['ho"ur\\<b>'])
    plan = identify(log)
    assert '"ho\\"ur\\\\<b>" -> "recommended"' in plan.to_dot()
    assert identify(log, graph=plan.to_dot()) == plan
    assert "<b>" not in plan._repr_html_()


def test_an_empty_or_wrong_proposal_is_not_trusted() -> None:
    graph = digraph("hour>T hour>Y x>T x>Y T>Y")
    assert _largest_valid(graph, "recommended", "clicked", [(), ("hour",), ("hour", "x")]) == ("hour", "x")
    with pytest.raises(IdentificationError, match=r"leaves a back door open .recommended <- "):
        _largest_valid(graph, "recommended", "clicked", [(), ("x",)])


def test_an_instrument_that_is_needed_is_kept() -> None:
    graph = digraph("U>w w>T U>Y T>Y lottery>T")
    nx.set_node_attributes(graph, "instrument", "role")
    assert _without_instruments(graph, "recommended", "clicked", ("w", "lottery")) == ("w",)


@st.composite
def dags(draw: st.DrawFn) -> tuple[nx.DiGraph, list[str]]:
    """A random DAG over T, Y and six more with T → Y, and which of the six are observed."""
    names = [*draw(st.permutations(["A", "B", "C", "D", "E", "F"]))]
    at = draw(st.integers(0, 6))
    order = [*names[:at], "T", *names[at:], "Y"]
    if draw(st.booleans()):
        order[-1], order[-2] = (order[-2], order[-1]) if order[-2] != "T" else (order[-1], order[-2])
    pairs = [(a, b) for i, a in enumerate(order) for b in order[i + 1 :]]
    kept = draw(st.lists(st.sampled_from(pairs), max_size=14, unique=True))
    graph = nx.DiGraph()
    graph.add_nodes_from(order)
    graph.add_edges_from([*kept, ("T", "Y")])
    return graph, draw(st.lists(st.sampled_from(names), unique=True))


@settings(max_examples=200, deadline=None)
@given(dags())
def test_open_path_agrees_with_d_separation(case: tuple[nx.DiGraph, list[str]]) -> None:
    graph, given_nodes = case
    given_nodes = [n for n in given_nodes if n not in nx.descendants(graph, "T")]
    path = dag.open_path(graph, "T", "Y", given_nodes)
    assert (path is None) == dag.is_closed(graph, "T", "Y", given_nodes)
    if path is not None:
        assert path[0] == "T"
        assert path[-1] == "Y"
        assert graph.has_edge(path[1], "T")
        assert all(graph.has_edge(a, b) or graph.has_edge(b, a) for a, b in pairwise(path))


@settings(max_examples=100, deadline=None)
@given(dags())
def test_candidates_close_if_any_observed_set_does(case: tuple[nx.DiGraph, list[str]]) -> None:
    graph, observed = case
    allowed = [n for n in observed if n not in nx.descendants(graph, "T")]
    subsets = ([n for i, n in enumerate(allowed) if mask >> i & 1] for mask in range(2 ** len(allowed)))
    exists = any(dag.is_closed(graph, "T", "Y", s) for s in subsets)
    assert dag.is_closed(graph, "T", "Y", dag.candidates(graph, "T", "Y", observed)) == exists


def test_plan_is_importable_from_the_top() -> None:
    assert cr.Plan is Plan
    assert cr.identify is identify
