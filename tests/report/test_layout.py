from __future__ import annotations

from itertools import combinations, pairwise

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causalrec.report.layout import lay_out

SIZE = (1.5, 0.6)


@st.composite
def dags(draw) -> nx.DiGraph:
    n = draw(st.integers(1, 9))
    graph = nx.DiGraph()
    graph.add_nodes_from(f"n{i}" for i in range(n))
    graph.add_edges_from((f"n{i}", f"n{j}") for i in range(n) for j in range(i + 1, n) if draw(st.booleans()))
    return graph


@settings(deadline=None, max_examples=60)
@given(dags())
def test_boxes_are_apart_and_arrows_point_right_through_free_lanes(graph: nx.DiGraph) -> None:
    layout = lay_out(graph, dict.fromkeys(graph, SIZE), gap=(0.5, 0.2), lane=0.1)
    assert set(layout.centre) == set(graph)
    for (xa, ya), (xb, yb) in combinations(layout.centre.values(), 2):
        assert abs(xa - xb) >= SIZE[0] or abs(ya - yb) >= SIZE[1]
    for x, y in layout.centre.values():
        assert SIZE[0] / 2 - 1e-9 <= x <= layout.width - SIZE[0] / 2 + 1e-9
        assert SIZE[1] / 2 - 1e-9 <= y <= layout.height - SIZE[1] / 2 + 1e-9
    for edge in graph.edges:
        route = layout.route[edge]
        assert all(a[0] <= b[0] for a, b in pairwise(route))
        for x, y in route[1:-1]:
            near = [c for c in layout.centre.values() if abs(c[0] - x) <= SIZE[0] / 2 + 1e-9]
            assert all(abs(c[1] - y) > SIZE[1] / 2 for c in near)


@pytest.mark.parametrize(
    ("edges", "columns"),
    [
        ("X>T X>Y T>Y", {"X": 0, "T": 1, "Y": 2}),
        ("X>T X>Y T>M M>Y", {"X": 0, "T": 1, "M": 2, "Y": 3}),
        ("X>S S>T X>Y T>Y U>T U>Y", {"X": 0, "S": 1, "U": 1, "T": 2, "Y": 3}),
    ],
)
def test_columns_go_from_cause_to_effect(edges: str, columns: dict[str, int]) -> None:
    graph = nx.DiGraph(e.split(">") for e in edges.split())
    layout = lay_out(graph, dict.fromkeys(graph, SIZE), gap=(0.5, 0.2), lane=0.1)
    places = sorted({x for x, _ in layout.centre.values()})
    assert {n: places.index(x) for n, (x, _) in layout.centre.items()} == columns
