"""What a causal graph implies: which nodes may be adjusted for, and which back doors stay open.

Pure graph theory on a networkx ``DiGraph``: no log, no frame, no DoWhy. A back-door path from treatment
to outcome starts with an edge *into* the treatment; a set closes the back doors when it d-separates the
two in the graph without the treatment's outgoing edges (Pearl, Causality, 2009, section 3.3.1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise

import networkx as nx

State = tuple[str, bool]  # a node, and whether it was entered against the arrow


def candidates(graph: nx.DiGraph, treatment: str, outcome: str, observed: Iterable[str]) -> tuple[str, ...]:
    """The one set that closes every back door if any observed set does, in the order of `observed`.

    Z = observed ∩ An({treatment, outcome}) − De(treatment) − {treatment, outcome}.

    Neither descendants of the treatment nor colliders beside the paths are in it. Source: van der Zander,
    Liśkiewicz and Textor, "Constructing separators and adjustment sets in ancestral graphs", UAI 2014.
    """
    causes = nx.ancestors(graph, treatment) | nx.ancestors(graph, outcome)
    after = nx.descendants(graph, treatment)
    return tuple(n for n in observed if n in causes and n not in after and n not in (treatment, outcome))


def without_effects(graph: nx.DiGraph, treatment: str) -> nx.DiGraph:
    """The graph without the edges that leave the treatment: what still joins it to others is a back door."""
    cut = nx.DiGraph(graph)
    cut.remove_edges_from(list(graph.out_edges(treatment)))
    return cut


def is_closed(graph: nx.DiGraph, treatment: str, outcome: str, given: Iterable[str]) -> bool:
    """True if `given` blocks every back-door path (d-separation in ``without_effects``)."""
    return bool(nx.is_d_separator(without_effects(graph, treatment), {treatment}, {outcome}, set(given)))


def is_instrument_like(graph: nx.DiGraph, node: str, treatment: str, outcome: str) -> bool:
    """True if `node` has to do with the outcome through the treatment only."""
    return bool(nx.is_d_separator(without_effects(graph, treatment), {node}, {outcome}, set()))


def open_path(graph: nx.DiGraph, treatment: str, outcome: str, given: Collection[str]) -> list[str] | None:
    """The shortest back-door path that `given` leaves open, from treatment to outcome, or None.

    A breadth-first walk over (node, entered against the arrow?): a chain or fork passes unless it is in
    `given`, a collider passes if it or a descendant of it is. Source: Koller and Friedman, Probabilistic
    Graphical Models, 2009, algorithm 3.1.
    """
    opened = set(given).union(*(nx.ancestors(graph, n) for n in given))
    queue = deque((parent, True) for parent in graph.predecessors(treatment))
    came_from: dict[State, State | None] = {state: None for state in queue}
    while queue:
        state = queue.popleft()
        node, against = state
        if node == outcome:
            return [treatment, *_trace(state, came_from)]
        onwards: list[State] = []
        if node not in given:
            onwards += [(child, False) for child in graph.successors(node)]
        if (node not in given) if against else (node in opened):
            onwards += [(parent, True) for parent in graph.predecessors(node)]
        for step in onwards:
            if step not in came_from and step[0] != treatment:
                came_from[step] = state
                queue.append(step)
    return None


def _trace(state: State | None, came_from: Mapping[State, State | None]) -> list[str]:
    path = []
    while state is not None:
        path.append(state[0])
        state = came_from[state]
    return path[::-1]


def in_words(graph: nx.DiGraph, path: Sequence[str]) -> str:
    """A path as ``recommended <- U -> clicked``."""
    words = [path[0]]
    for here, there in pairwise(path):
        words += ["->" if graph.has_edge(here, there) else "<-", there]
    return " ".join(words)
