"""The plan in plain words: what is assumed, what was refused and why, what a reader should know."""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx

from causalrec import dag
from causalrec.log import ImpressionLog

WORDS = ("text", "history", "match", "lexical", "ngrams")
BESIDE = {"lexical": "its lexical features", "ngrams": "its n-grams"}
COLUMNS = ("score", "modifiers", "confounders", "instrument", "position", "negative_controls")


def listed(names: Sequence[str]) -> str:
    """``'a', 'b' and 'c'``."""
    shown = [repr(n) for n in names]
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def in_words(log: ImpressionLog, names: Sequence[str]) -> str:
    """As ``listed``, a text's further representations beside it: ``'text:title' and its lexical features``."""
    beside: dict[str, list[str]] = {}
    for name in names:
        block = log.blocks.get(name)
        if block is not None and block.kind in BESIDE and f"text:{block.columns[0]}" in names:
            beside.setdefault(f"text:{block.columns[0]}", []).append(name)
    hidden = {name for group in beside.values() for name in group}
    kept = [name for name in names if name not in hidden]
    link = "and" if len(kept) == 1 else "with"
    shown = [
        f"{n!r} {link} {' and '.join(BESIDE[log.blocks[b].kind] for b in beside[n])}"
        if n in beside
        else repr(n)
        for n in kept
    ]
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def quoted(name: str) -> str:
    """A name as a DOT string."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def assumptions(
    log: ImpressionLog, graph: nx.DiGraph, needed: Sequence[str], pool: Sequence[str], *, free: bool
) -> tuple[str, ...]:
    """What the data cannot test when the propensity uses `needed` and the outcome model `pool`."""
    treatment, outcome = log.roles.treatment[0], log.roles.outcome[0]
    words = [n for n in pool if n in log.blocks]
    score = [n for n in log.roles.score if n in pool]
    said = []
    if log.roles.propensity:
        said.append(f"{log.roles.propensity[0]!r} is the probability by which each exposure was drawn")
    elif free:
        said.append(f"{treatment!r} was drawn at random: nothing hidden moves both it and {outcome!r}")
    else:
        said.append(f"no hidden common cause of {treatment!r} and {outcome!r} beyond {in_words(log, pool)}")
    if words and not log.roles.propensity and not free:
        said.append(
            f"{in_words(log, words)} keep all that the words say about both exposure and {outcome!r}: "
            "a frozen encoder may lose some of it"
        )
    if score and words and not any(graph.has_edge(n, treatment) for n in words):
        said.append(f"exposure depends on the words through {score[0]!r} only")
    if words:
        said.append("the words and the histories were fixed before the exposure")
    return (*said, *_always(treatment, by=in_words(log, needed)))


def _always(treatment: str, by: str) -> tuple[str, ...]:
    alike = f", whatever its {by}" if by else ""
    return (
        f"overlap: each impression could have had {treatment!r} and could have gone without{alike}",
        f"consistency: {treatment!r} means the same thing in every row",
        "no interference: one impression's exposure does not change the outcome of another",
    )


def other_assumptions(log: ImpressionLog, strategy: str, through: Sequence[str]) -> tuple[str, ...]:
    """What an instrument or a front door rests on."""
    treatment, outcome = log.roles.treatment[0], log.roles.outcome[0]
    if strategy == "instrument":
        first = (
            f"exclusion: {listed(through)} acts on {outcome!r} through {treatment!r} only",
            f"monotonicity: {listed(through)} moves {treatment!r} in one direction for everybody",
        )
    else:
        first = (
            f"all of the effect of {treatment!r} runs through {listed(through)}",
            f"no hidden common cause of {listed(through)} and either {treatment!r} or {outcome!r}",
        )
    return (*first, *_always(treatment, by=""))


def refusals(log: ImpressionLog, graph: nx.DiGraph, pool: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Each observed node outside `pool` with the reason why it is not adjusted for, in log order."""
    treatment, outcome = log.roles.treatment[0], log.roles.outcome[0]
    out = [
        (node, _reason(graph, treatment, outcome, pool, node))
        for node, seen in graph.nodes(data="observed")
        if seen and node not in (treatment, outcome, *pool)
    ]
    everything = [*log.blocks, *(c for role in COLUMNS for c in getattr(log.roles, role))]
    return (*out, *((n, "not in the graph that was given") for n in everything if n not in graph))


def _reason(graph: nx.DiGraph, treatment: str, outcome: str, pool: Sequence[str], node: str) -> str:
    role = graph.nodes[node]["role"]
    if node in nx.descendants(graph, outcome):
        return f"caused by {outcome!r}: adjusting for it would compare impressions by their result"
    if node in nx.descendants(graph, treatment):
        what = "post-treatment text" if role in WORDS else "post-treatment"
        if node in nx.ancestors(graph, outcome):
            return f"{what}, a mediator: a part of the effect of {treatment!r} runs through it"
        return f"{what}: caused by {treatment!r}"
    if role == "negative_controls":
        return "negative control: an outcome that the exposure cannot have moved, kept for the checks"
    path = dag.open_path(graph, treatment, outcome, (*pool, node))
    if path is not None and node in path and dag.is_closed(graph, treatment, outcome, pool):
        return f"collider: adjusting for it would open {dag.in_words(graph, path)}"
    if role == "instrument" or dag.is_instrument_like(graph, node, treatment, outcome):
        return (
            f"instrument: it acts on {outcome!r} through {treatment!r} only; "
            "adjusting for it costs precision and amplifies hidden bias"
        )
    return f"no cause of {treatment!r} or {outcome!r}"


def notes(
    log: ImpressionLog,
    graph: nx.DiGraph,
    needed: Sequence[str],
    pool: Sequence[str],
    *,
    path: Sequence[str] | None,
    free: bool,
) -> tuple[str, ...]:
    """What a reader of the effect should know beside assumptions and refusals."""
    treatment, outcome = log.roles.treatment[0], log.roles.outcome[0]
    said = []
    if log.roles.propensity:
        said.append(
            f"The exposure probabilities are known by design (column {log.roles.propensity[0]!r}): "
            "adjustment only adds precision."
        )
        if path is not None:
            said.append(f"The graph leaves {dag.in_words(graph, path)} open; the design closes it.")
    elif free:
        said.append(
            f"Nothing in the graph moves both {treatment!r} and {outcome!r}: if exposure was indeed drawn at "
            "random, the difference in means is the effect, and adjustment only adds precision."
        )
    else:
        said.append(
            f"Adjusting for {in_words(log, pool)} closes every back door (DoWhy, confirmed by a d-separation test)."
        )
    score = [n for n in log.roles.score if n in needed]
    if score and set(needed) < set(pool):
        said.append(
            f"{score[0]!r} is a balancing score: the propensity needs {in_words(log, needed)} only; "
            "the outcome model may use everything."
        )
    slots = [n for n in log.roles.position if n in nx.descendants(graph, treatment)]
    if slots:
        said.append(
            f"The effect is the total one: it includes what {treatment!r} does by moving {listed(slots)}."
        )
    return tuple(said)


def detour(graph: nx.DiGraph, path: Sequence[str], strategy: str, through: Sequence[str]) -> str:
    """The sentence of a plan that cannot adjust."""
    way = "the instrument" if strategy == "instrument" else "the front door"
    return (
        f"The back door {dag.in_words(graph, path)} is open and no observed set closes it; "
        f"the effect is identified by {way} {listed(through)} only."
    )


def unidentified(
    graph: nx.DiGraph, treatment: str, outcome: str, pool: Sequence[str], path: Sequence[str]
) -> str:
    """The message when nothing identifies: the open path, and what measuring would close it."""
    hidden = [n for n in path[1:-1] if not graph.nodes[n]["observed"]]
    tried = f"adjusting for {listed(pool)}" if pool else "having nothing observed to adjust for"
    return (
        f"the effect of {treatment!r} on {outcome!r} is not identified: {tried} leaves the back door "
        f"{dag.in_words(graph, path)} open, and there is neither an instrument nor a front door. "
        f"Measuring {' or '.join(map(repr, hidden))} would close this path; "
        "so would logging the probability of exposure (propensity=)."
    )
