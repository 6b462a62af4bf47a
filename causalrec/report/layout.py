"""Where the boxes of a layered graph go: columns from cause to effect, lanes for arrows that skip one.

Pure geometry on a networkx ``DiGraph``. Source: Sugiyama, Tagawa and Toda, "Methods for visual understanding
of hierarchical system structures", IEEE Trans. SMC 1981 (longest-path layers, barycentre ordering).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import networkx as nx

Point = tuple[float, float]
Slot = tuple[str, ...]  # a box (its name), or a lane (cause, effect, column)
SWEEPS = 8


@dataclass(frozen=True)
class Layout:
    """Centres and routes, in the unit of the sizes that were given; y points up.

    Attributes
    ----------
    centre : dict of node → (x, y)
    route : dict of (cause, effect) → points from the cause's right side to the effect's left side
        In pairs: from the first to the second lies a gap between columns, from there to the third a lane.
    width, height : float
    """

    centre: dict[str, Point]
    route: dict[tuple[str, str], tuple[Point, ...]]
    width: float
    height: float


def lay_out(graph: nx.DiGraph, size: Mapping[str, Point], *, gap: Point, lane: float) -> Layout:
    """Place boxes of the given (width, height), `gap` apart, with lanes of height `lane` for long arrows."""
    columns, column_of = _columns(graph)
    lanes = {
        edge: [(*edge, str(c)) for c in range(column_of[edge[0]] + 1, column_of[edge[1]])]
        for edge in graph.edges
    }
    for edge, slots in lanes.items():
        for offset, slot in enumerate(slots, column_of[edge[0]] + 1):
            columns[offset].append(slot)
    chains = {edge: [(edge[0],), *slots, (edge[1],)] for edge, slots in lanes.items()}
    _order(columns, [pair for chain in chains.values() for pair in pairwise(chain)])
    heights = {slot: size[slot[0]][1] if len(slot) == 1 else lane for column in columns for slot in column}
    spans = [sum(heights[s] for s in column) + gap[1] * (len(column) - 1) for column in columns]
    total, x = max(spans), 0.0
    middle: dict[Slot, Point] = {}
    wide: dict[Slot, float] = {}
    for column, span in zip(columns, spans, strict=True):
        width = max(size[s[0]][0] for s in column if len(s) == 1)
        y = (total + span) / 2
        for slot in column:
            middle[slot] = (x + width / 2, y - heights[slot] / 2)
            wide[slot] = width if len(slot) > 1 else size[slot[0]][0]
            y -= heights[slot] + gap[1]
        x += width + gap[0]
    route = {edge: _route(chain, middle, wide) for edge, chain in chains.items()}
    return Layout({node: middle[(node,)] for node in graph}, route, x - gap[0], total)


def _columns(graph: nx.DiGraph) -> tuple[list[list[Slot]], dict[str, int]]:
    """Longest-path columns; a cause without causes stands just left of its first effect."""
    column_of: dict[str, int] = {}
    for node in nx.topological_sort(graph):
        column_of[node] = max((column_of[p] + 1 for p in graph.predecessors(node)), default=0)
    for node in graph:
        effects = [column_of[s] for s in graph.successors(node)]
        if effects and not graph.in_degree(node):
            column_of[node] = min(effects) - 1
    columns: list[list[Slot]] = [[] for _ in range(max(column_of.values()) + 1)]
    for node in graph:
        columns[column_of[node]].append((node,))
    return columns, column_of


def _order(columns: list[list[Slot]], links: list[tuple[Slot, Slot]]) -> None:
    """Order each column, in place, by the mean place of its neighbours, forwards and backwards by turns."""
    for sweep in range(SWEEPS):
        forwards = sweep % 2 == 0
        neighbours: dict[Slot, list[Slot]] = {}
        for cause, effect in links:
            here, there = (effect, cause) if forwards else (cause, effect)
            neighbours.setdefault(here, []).append(there)
        for column in columns if forwards else columns[::-1]:
            place = {slot: (i + 0.5) / len(c) for c in columns for i, slot in enumerate(c)}
            means = {
                s: sum(place[n] for n in neighbours[s]) / len(neighbours[s]) if s in neighbours else place[s]
                for s in column
            }
            column.sort(key=means.__getitem__)


def _route(chain: list[Slot], middle: Mapping[Slot, Point], wide: Mapping[Slot, float]) -> tuple[Point, ...]:
    """Out of the cause's right side, straight through each lane, into the effect's left side."""
    points = [
        (middle[slot][0] + side * wide[slot] / 2, middle[slot][1]) for slot in chain for side in (-1, 1)
    ]
    return tuple(points[1:-1])
