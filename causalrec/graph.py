"""The causal graph over blocks and columns: drawn from the roles of a log, or read from the user.

One node a representation block, never one a column of it: DoWhy's searches are exponential in the number
of nodes, and a 384-dimensional embedding is one cause. Nodes have the attributes ``role`` and ``observed``.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import networkx as nx

from causalrec._checks import did_you_mean
from causalrec.blocks import Block
from causalrec.errors import GraphError, IdentificationError
from causalrec.log import ImpressionLog

COLUMN_ROLES = ("score", "modifiers", "confounders", "instrument", "position", "negative_controls")
BESIDE = ("lexical", "ngrams")
NO_NODE = ("unit", "item", "time", "weight", "propensity")


def node_roles(log: ImpressionLog) -> dict[str, str]:
    """Every node that the log observes → its role (for a block, its kind), in the order of the log.

    Raises
    ------
    IdentificationError
        A text or history column has no block yet.
    """
    read = {column for block in log.blocks.values() for column in block.columns}
    bare = [c for c in (*log.roles.text, *log.roles.history) if c not in read]
    if bare:
        raise IdentificationError(
            f"the words in {bare} are not numbers yet, so they cannot be adjusted for; "
            "call log = embed(log, …) before identify."
        )
    roles = {log.roles.treatment[0]: "treatment", log.roles.outcome[0]: "outcome"}
    roles |= {name: block.kind for name, block in log.blocks.items()}
    for role in COLUMN_ROLES:
        roles |= {column: role for column in getattr(log.roles, role)}
    return roles


def default_graph(log: ImpressionLog, hidden: Iterable[str] = ()) -> nx.DiGraph:
    """The graph that the roles imply; each name in `hidden` is an unobserved cause of exposure and outcome.

    Blocks, modifiers and confounders act on both; with a declared ranking score the words act on the
    exposure through it alone; the position carries a part of the effect; an instrument acts on the exposure
    only; a negative control is an outcome of the confounders that the exposure does not move.

    Raises
    ------
    IdentificationError
        A text or history column has no block yet.
    GraphError
        A name in `hidden` is one that the log observes.
    """
    roles = node_roles(log)
    treatment, outcome = log.roles.treatment[0], log.roles.outcome[0]
    graph = nx.DiGraph()
    graph.add_nodes_from((name, {"role": role, "observed": True}) for name, role in roles.items())
    graph.add_edge(treatment, outcome)
    blocks = list(log.blocks)
    score = log.roles.score
    common = [*log.roles.modifiers, *log.roles.confounders]
    graph.add_edges_from((node, outcome) for node in [*blocks, *common])
    graph.add_edges_from((node, treatment) for node in [*common, *score, *log.roles.instrument])
    graph.add_edges_from((block, node) for block in blocks for node in (score or (treatment,)))
    if score and not blocks:
        graph.add_edge(score[0], outcome)
    for slot in log.roles.position:
        graph.add_edges_from([(treatment, slot), (slot, outcome)])
    for control in log.roles.negative_controls:
        graph.add_edges_from((node, control) for node in [*blocks, *common])
    for name in hidden:
        if name in roles:
            raise GraphError(
                f"unobserved names {name!r}, which the log observes ({roles[name]}); "
                "take it out of unobserved=, or out of its role in read_log."
            )
        graph.add_node(name, role="unobserved", observed=False)
        graph.add_edges_from([(name, treatment), (name, outcome)])
    return graph


def read_graph(source: Any) -> nx.DiGraph:
    """A networkx graph, GML or DOT text, or a path to either, as a ``DiGraph``.

    Raises
    ------
    GraphError
        The file or the text cannot be read, or the graph is undirected or has a cycle.
    """
    graph = _parse(source) if isinstance(source, (str, PathLike)) else source
    if not isinstance(graph, nx.Graph):
        raise GraphError(
            f"graph is a {type(graph).__name__}, must be a networkx DiGraph, GML or DOT text, "
            "or a path to a .gml or .dot file."
        )
    if not graph.is_directed():
        raise GraphError(
            "graph is undirected; a causal graph needs arrows. "
            "Use a networkx DiGraph, 'directed 1' in GML or 'digraph' in DOT."
        )
    graph = nx.DiGraph(graph)
    wrong = [n for n in graph if not isinstance(n, str)]
    if wrong:
        raise GraphError(
            f"graph has the node {wrong[0]!r} ({type(wrong[0]).__name__}); "
            "nodes are named by text: blocks or columns of the log."
        )
    if not nx.is_directed_acyclic_graph(graph):
        ring = [edge[0] for edge in nx.find_cycle(graph)]
        raise GraphError(
            f"graph has the cycle {' -> '.join([*ring, ring[0]])}; nothing can cause itself. "
            "Remove or turn one of these arrows."
        )
    return graph


def _parse(source: str | PathLike[str]) -> nx.DiGraph:
    is_text = isinstance(source, str) and ("{" in source or "[" in source)
    text = str(source) if is_text else _read(Path(source))
    form = "DOT" if "{" in text.partition("[")[0] else "GML"
    try:
        return _from_dot(text) if form == "DOT" else nx.parse_gml(text)
    except (nx.NetworkXError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise GraphError(
            f"graph cannot be read as {form} ({reason}); GML begins with 'graph [', DOT with 'digraph {{'."
        ) from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise GraphError(
            f"graph {str(path)[:200]!r} is neither GML or DOT text nor a readable file "
            f"({type(error).__name__})."
        ) from error


def _from_dot(text: str) -> nx.DiGraph:
    import pydot

    said = io.StringIO()  # pydot prints where it stumbled
    with contextlib.redirect_stdout(said):
        parsed = pydot.graph_from_dot_data(text)
    if not parsed:
        raise ValueError(" ".join(said.getvalue().split()) or "no graph in the text")
    graph = nx.nx_pydot.from_pydot(parsed[0])
    return nx.relabel_nodes(graph, {n: n.replace('\\"', '"').replace("\\\\", "\\") for n in graph})


def user_graph(source: Any, log: ImpressionLog, hidden: Iterable[str] = ()) -> nx.DiGraph:
    """The user's graph in the log's names: a column of text stands for the blocks read from it.

    Raises
    ------
    IdentificationError
        A text or history column has no block yet.
    GraphError
        See ``read_graph``; or the graph names something that the log does not observe, or lacks the
        treatment, the outcome or a directed path between them.
    """
    graph, roles = read_graph(source), node_roles(log)
    for name in hidden:
        if name not in graph:
            raise GraphError(
                f"unobserved names {name!r}, which is not in the graph."
                f"{did_you_mean(name, graph)} It has {list(graph)}."
            )
    unseen = {n for n, data in graph.nodes(data=True) if _says_no(data)} | set(hidden)
    graph = _expand_columns(graph, log, unseen)
    _check_nodes(graph, log, roles, unseen)
    order = [n for n in roles if n in graph and n not in unseen] + sorted(n for n in graph if n in unseen)
    place = {n: i for i, n in enumerate(order)}
    ordered = nx.DiGraph()
    for n in order:
        ordered.add_node(n, role="unobserved" if n in unseen else roles[n], observed=n not in unseen)
    ordered.add_edges_from(sorted(graph.edges, key=lambda edge: (place[edge[0]], place[edge[1]])))
    return ordered


def _says_no(data: Mapping[str, Any]) -> bool:
    return str(data.get("observed", "yes")).strip("\"'").lower() in ("no", "false", "0")


def _expand_columns(graph: nx.DiGraph, log: ImpressionLog, unseen: set[str]) -> nx.DiGraph:
    """Replace each text column by its blocks.

    A block read from several columns (the match of a history and a title) is a function of them: it is
    their child, and acts on what they all act on.
    """
    blocks = list(log.blocks.values())
    words = [c for c in (*log.roles.text, *log.roles.history) if c in graph and c not in unseen]
    own = {c: names for c in words if (names := [b.name for b in blocks if b.columns == (c,)])}
    for column, names in own.items():
        if twice := [n for n in names if n in graph]:
            raise GraphError(
                f"graph names both {column!r} and {twice[0]!r}, the block read from it; keep one of them."
            )
    for block in blocks:
        if block.kind == "text" and block.name in graph and block.name not in unseen:
            own[block.name] = [block.name, *_beside(block, graph, blocks)]
    expanded = nx.DiGraph()
    for node, data in graph.nodes(data=True):
        expanded.add_nodes_from(own.get(node, [node]), **data)
    for cause, effect in graph.edges:
        expanded.add_edges_from((a, b) for a in own.get(cause, [cause]) for b in own.get(effect, [effect]))
    for block in blocks:
        if len(block.columns) > 1 and block.name not in graph and set(block.columns) <= set(own):
            shared = set.intersection(*(set(graph.successors(c)) for c in block.columns))
            expanded.add_edges_from(
                (part, block.name)
                for c in block.columns
                for part in own[c]
                if log.blocks[part].kind not in BESIDE
            )
            expanded.add_edges_from((block.name, b) for effect in shared for b in own.get(effect, [effect]))
    return expanded


def _beside(text: Block, graph: nx.DiGraph, blocks: list[Block]) -> list[str]:
    """Further representations of a text block's words that the graph does not name itself."""
    return [b.name for b in blocks if b.kind in BESIDE and b.columns == text.columns and b.name not in graph]


def _check_nodes(graph: nx.DiGraph, log: ImpressionLog, roles: Mapping[str, str], unseen: set[str]) -> None:
    for node in graph:
        if node not in roles and node not in unseen:
            raise GraphError(_unknown(node, log, roles))
    treatment, outcome = log.roles.treatment[0], log.roles.outcome[0]
    for role, node in (("treatment", treatment), ("outcome", outcome)):
        if node not in graph or node in unseen:
            raise GraphError(
                f"graph has no observed node {node!r}, the {role} of the log."
                f"{did_you_mean(node, graph)} It has {list(graph)}."
            )
    if not nx.has_path(graph, treatment, outcome):
        raise GraphError(
            f"graph has no directed path from {treatment!r} to {outcome!r}: it says that the effect is zero. "
            f"Add the edge {treatment} -> {outcome} if that is the question."
        )


def _unknown(node: str, log: ImpressionLog, roles: Mapping[str, str]) -> str:
    for role in NO_NODE:
        if node in getattr(log.roles, role):
            return (
                f"graph has the node {node!r}, the {role} of the log: it says who, what, when or how likely "
                "and is no cause. Leave it out of the graph."
            )
    if node in (*log.roles.text, *log.roles.history):
        return (
            f"graph has the node {node!r}, but no block is read from that column alone; "
            f"name the blocks instead: {list(log.blocks)}."
        )
    if node in map(str, log.frame.columns):
        return (
            f"graph has the node {node!r}, a column without a role; declare it in read_log (for instance "
            "as confounders=), or name it in unobserved=."
        )
    known = [*roles, *log.roles.text, *log.roles.history]
    return (
        f"graph has the node {node!r}, which the log does not observe.{did_you_mean(node, known)} "
        f"The log has {known}. A cause that nobody measured goes into unobserved=[{node!r}]."
    )
