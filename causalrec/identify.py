"""What must be adjusted for? A causal graph over blocks, DoWhy's identification, and the plan in words."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import networkx as nx

from causalrec import _plan_wording as wording
from causalrec import dag
from causalrec._checks import as_names
from causalrec._display import Displayable
from causalrec.errors import IdentificationError
from causalrec.graph import default_graph, user_graph
from causalrec.log import ImpressionLog

Strategy = Literal["backdoor", "instrument", "frontdoor", "randomised"]
Nodes = tuple[str, ...]


@dataclass(frozen=True)
class Plan(Displayable):
    """What is adjusted for, what is assumed and what was refused.

    Attributes
    ----------
    graph : networkx.DiGraph
        The graph, frozen; node attributes ``role`` and ``observed``.
    treatment, outcome : str
        Column names.
    strategy : {"backdoor", "instrument", "frontdoor", "randomised"}
        ``"randomised"``: the exposure probabilities are logged, or no back door is in the graph.
    propensity_nodes : tuple of str
        Blocks and columns that the propensity needs, in log order; empty if exposure depends on none.
    outcome_nodes : tuple of str
        Blocks and columns that the outcome model may use, in log order.
    modifiers : tuple of str
        Columns by which the effect may differ.
    assumptions : tuple of str
        What the data cannot test, in words.
    refused : tuple of (node, reason)
        Observed nodes that are not adjusted for.
    notes : tuple of str
        What a reader of the effect should know beside that.
    through : tuple of str
        The instrument or the front door by which the effect is identified; empty for the other strategies.
    """

    graph: nx.DiGraph = field(repr=False, compare=False)
    treatment: str
    outcome: str
    strategy: Strategy
    propensity_nodes: tuple[str, ...]
    outcome_nodes: tuple[str, ...]
    modifiers: tuple[str, ...]
    assumptions: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    through: tuple[str, ...] = ()

    @property
    def obstacle(self) -> str | None:
        """Why adjustment alone does not identify the effect, in a sentence; None where it does."""
        if self.strategy in ("backdoor", "randomised"):
            return None
        return f"{self.notes[0]} Adjustment alone would leave hidden bias in the estimate."

    def to_dot(self) -> str:
        """The graph as DOT; nodes that nobody observed are dashed."""
        lines = ["digraph plan {"]
        for node, data in self.graph.nodes(data=True):
            style = "" if data["observed"] else ', observed="no", style="dashed"'
            lines.append(f'  {wording.quoted(node)} [role="{data["role"]}"{style}];')
        lines += [f"  {wording.quoted(a)} -> {wording.quoted(b)};" for a, b in self.graph.edges]
        return "\n".join([*lines, "}"])

    def _title(self) -> str:
        how = {
            "backdoor": "identified by adjustment (back door)",
            "randomised": "identified by design (randomised)",
            "instrument": f"identified by the instrument {wording.listed(self.through)} only",
            "frontdoor": f"identified by the front door {wording.listed(self.through)} only",
        }
        return f"Effect of {self.treatment} on {self.outcome}: {how[self.strategy]}"

    def _rows(self) -> list[dict[str, Any]]:
        why = dict(self.refused)
        models = {"propensity": self.propensity_nodes, "outcome model": self.outcome_nodes}
        rows = []
        for node, data in self.graph.nodes(data=True):
            uses = [name for name, nodes in models.items() if node in nodes]
            if node in (self.treatment, self.outcome, *self.through):
                uses = [self.strategy if node in self.through else data["role"]]
            use = " and ".join(uses) or "not used"
            role = data["role"].removesuffix("s").replace("_", " ")
            rows.append({"node": node, "role": role, "use": use, "why": why.get(node, "")})
        absent = [(n, reason) for n, reason in self.refused if n not in self.graph]
        return rows + [{"node": n, "role": "–", "use": "not used", "why": reason} for n, reason in absent]

    def _notes(self) -> list[str]:
        return [*self.notes, *(f"assumed, not tested: {a}" for a in self.assumptions)]


def identify(log: ImpressionLog, *, graph: Any = None, unobserved: str | Iterable[str] = ()) -> Plan:
    """Find what has to be adjusted for, with DoWhy on a graph of one node per block.

    Parameters
    ----------
    log : ImpressionLog
        With its representation blocks (call ``embed`` first) if it declares text.
    graph : networkx.DiGraph, GML or DOT text, or a path to either, optional
        Nodes are blocks (``"text:title"``) or columns; the name of a text column stands for its blocks.
        A node that nobody measured has the attribute ``observed="no"`` or is named in `unobserved`.
        Without a graph, the roles of the log imply one.
    unobserved : str or list of str
        Causes that nobody measured: nodes of the graph; without a graph, causes of exposure and outcome.

    Returns
    -------
    Plan

    Raises
    ------
    GraphError
        The graph cannot be read, has a cycle, or names what the log does not have.
    IdentificationError
        Text without a block; or a back door is open and there is neither an instrument nor a front door.
        The message names the path and what measuring would close it.
    """
    hidden = as_names(unobserved, "unobserved")
    drawn = default_graph(log, hidden) if graph is None else user_graph(graph, log, hidden)
    treatment, outcome = log.roles.treatment[0], log.roles.outcome[0]
    observed = [n for n, seen in drawn.nodes(data="observed") if seen]
    pool = dag.candidates(drawn, treatment, outcome, observed)
    path = dag.open_path(drawn, treatment, outcome, pool)
    if path is not None and not log.roles.propensity:
        return _another_way(log, drawn, pool, path)
    if path is None:
        proposed = _ask_dowhy(drawn, treatment, outcome, pool).adjustment_sets
        pool = _largest_valid(drawn, treatment, outcome, proposed)
        pool = _without_instruments(drawn, treatment, outcome, pool)
    return _by_adjustment(log, drawn, pool, path)


def _by_adjustment(log: ImpressionLog, graph: nx.DiGraph, pool: Nodes, path: Sequence[str] | None) -> Plan:
    """The plan whose outcome model uses `pool`; `path` is what that leaves open, if the design closes it."""
    treatment, outcome = log.roles.treatment[0], log.roles.outcome[0]
    parents = tuple(n for n in pool if graph.has_edge(n, treatment))
    needed = parents if dag.is_closed(graph, treatment, outcome, parents) else pool
    free = dag.is_closed(graph, treatment, outcome, ())
    if free and not log.roles.propensity:
        needed = ()
    return Plan(
        graph=nx.freeze(graph),
        treatment=treatment,
        outcome=outcome,
        strategy="randomised" if free or log.roles.propensity else "backdoor",
        propensity_nodes=needed,
        outcome_nodes=pool,
        modifiers=tuple(m for m in log.roles.modifiers if m in pool),
        assumptions=wording.assumptions(log, graph, needed, pool, free=free),
        refused=wording.refusals(log, graph, pool),
        notes=wording.notes(log, graph, needed, pool, path=path, free=free),
    )


def _another_way(log: ImpressionLog, graph: nx.DiGraph, pool: Nodes, path: Sequence[str]) -> Plan:
    """A plan by the instrument or the front door that DoWhy found while the back door `path` is open."""
    treatment, outcome = log.roles.treatment[0], log.roles.outcome[0]
    between = nx.descendants(graph, treatment) & nx.ancestors(graph, outcome)
    found = _ask_dowhy(graph, treatment, outcome, between)
    strategy: Strategy = "instrument" if found.instruments else "frontdoor"
    through = found.instruments or found.frontdoor
    if not through:
        raise IdentificationError(wording.unidentified(graph, treatment, outcome, pool, path))
    return Plan(
        graph=nx.freeze(graph),
        treatment=treatment,
        outcome=outcome,
        strategy=strategy,
        propensity_nodes=(),
        outcome_nodes=(),
        modifiers=(),
        assumptions=wording.other_assumptions(log, strategy, through),
        refused=tuple(
            (n, f"does not close {dag.in_words(graph, path)}") if n in pool else (n, why)
            for n, why in wording.refusals(log, graph, ())
            if n not in through
        ),
        notes=(wording.detour(graph, path, strategy, through),),
        through=through,
    )


def _largest_valid(graph: nx.DiGraph, treatment: str, outcome: str, proposed: Sequence[Nodes]) -> Nodes:
    """The largest proposed set that closes every back door by our own d-separation test."""
    valid = [names for names in proposed if dag.is_closed(graph, treatment, outcome, names)]
    if not valid:
        path = dag.open_path(graph, treatment, outcome, ())
        raise IdentificationError(
            f"DoWhy proposes to adjust for {list(proposed)}, which leaves a back door open "
            f"({dag.in_words(graph, path or [])}); please report this graph."
        )
    return max(valid, key=len)


def _without_instruments(graph: nx.DiGraph, treatment: str, outcome: str, pool: Nodes) -> Nodes:
    """Drop what acts on the outcome through the treatment only, as far as the back doors stay closed."""
    for node in pool:
        rest = tuple(n for n in pool if n != node)
        declared = graph.nodes[node]["role"] == "instrument"
        useless = declared or dag.is_instrument_like(graph, node, treatment, outcome)
        if useless and dag.is_closed(graph, treatment, outcome, rest):
            pool = rest
    return pool


class _Found(NamedTuple):
    """What DoWhy found, in our names."""

    adjustment_sets: tuple[Nodes, ...]
    instruments: Nodes
    frontdoor: Nodes


def _ask_dowhy(graph: nx.DiGraph, treatment: str, outcome: str, offered: Collection[str]) -> _Found:
    """DoWhy's identification, on nodes with names that its symbols can bear.

    Of the observed nodes it is shown only those in `offered`: the candidates for adjustment, of which all
    are a valid set or none is (see ``dag.candidates``), so that it searches no subsets; or, once they have
    failed, those between exposure and outcome, for a front door. Its instruments come from the whole graph.
    """
    from dowhy.causal_identifier import BackdoorAdjustment, EstimandType, identify_effect_auto

    safe = {node: f"n{i}" for i, node in enumerate(graph)}
    seen = [node for node, observed in graph.nodes(data="observed") if observed]
    bare = nx.relabel_nodes(nx.DiGraph(graph.edges), safe)
    with _quiet("dowhy"):
        found = identify_effect_auto(
            bare,
            [safe[treatment]],
            [safe[outcome]],
            [safe[n] for n in seen if n in (treatment, outcome) or n in offered],
            EstimandType.NONPARAMETRIC_ATE,
            backdoor_adjustment=BackdoorAdjustment.BACKDOOR_MAX,
        )

    def ours(names: Iterable[str] | None) -> Nodes:
        kept = set(names or ())
        return tuple(n for n in seen if safe[n] in kept)

    sets = tuple(ours(names) for names in found.backdoor_variables.values())
    return _Found(sets, ours(found.instrumental_variables), ours(found.frontdoor_variables))


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """A logger and its children say errors only."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
