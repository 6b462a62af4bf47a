"""The causal graph of a plan, drawn: boxes of blocks and columns, arrows from cause to effect."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import networkx as nx

from causalrec.identify import Plan
from causalrec.report.layout import Point, lay_out
from causalrec.report.look import picture
from causalrec.report.palette import BLUE, INK, MUTED, PAPER, VERMILLION, WASH
from causalrec.report.words import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WORDS = ("text", "history", "match", "lexical", "ngrams")
HEADINGS = {
    "treatment": "exposure",
    "outcome": "outcome",
    "score": "ranking score",
    "position": "slot",
    "instrument": "instrument",
    "negative_controls": "negative control",
    "unobserved": "not observed",
}
MOST_NAMES = 8
LINE_HEIGHT, LETTER = 0.2, 0.088  # inches at 10.5 points
PAD = 0.13


@dataclass(frozen=True)
class Box:
    """Nodes with the same causes, the same effects and the same use, drawn as one."""

    heading: str
    names: tuple[str, ...]
    note: str
    kind: str  # "treatment", "outcome", "words", "columns", "unused" or "unobserved"

    @property
    def lines(self) -> tuple[str, ...]:
        """The names that are shown, and how many are not."""
        kept = tuple(shown(n, 26) for n in self.names[:MOST_NAMES])
        return kept if len(self.names) <= MOST_NAMES else (*kept, f"+ {len(self.names) - MOST_NAMES:,} more")

    @property
    def size(self) -> Point:
        """(width, height) in inches."""
        scale = 1.28 if self.kind in ("words", "treatment", "outcome") else 1.0
        longest = max(max(len(n) for n in self.lines) * scale, 0.88 * max(len(self.heading), len(self.note)))
        rows = len(self.lines) + 1 + bool(self.note)
        return longest * LETTER + 2 * PAD, rows * LINE_HEIGHT + 2 * PAD


def boxes(plan: Plan) -> tuple[nx.DiGraph, dict[str, Box]]:
    """The graph with like nodes put together, and what each of its nodes stands for."""
    used = {*plan.propensity_nodes, *plan.outcome_nodes, *plan.through}
    graph = plan.graph
    alike: dict[tuple[object, ...], list[str]] = {}
    for node, data in graph.nodes(data=True):
        kind = _kind(data["role"], data["observed"], node in used)
        single = node if kind in ("treatment", "outcome") or data["role"] in HEADINGS else kind
        key = (single, frozenset(graph.predecessors(node)), frozenset(graph.successors(node)))
        alike.setdefault(key, []).append(node)
    home = {node: names[0] for names in alike.values() for node in names}
    merged = nx.DiGraph()
    merged.add_nodes_from(home[node] for node in graph)
    merged.add_edges_from((home[a], home[b]) for a, b in graph.edges)
    return merged, {names[0]: _box(graph, names, used) for names in alike.values()}


def _kind(role: str, observed: bool, is_used: bool) -> str:
    if role in ("treatment", "outcome"):
        return role
    if not observed:
        return "unobserved"
    if not is_used:
        return "unused"
    return "words" if role in WORDS else "columns"


def _box(graph: nx.DiGraph, names: list[str], used: set[str]) -> Box:
    data = graph.nodes[names[0]]
    role = data["role"]
    kind = _kind(role, data["observed"], names[0] in used)
    heading = "the words" if role in WORDS else HEADINGS.get(role, "columns")
    note = "not adjusted for" if kind == "unused" else ""
    return Box(heading, tuple(names), note, kind)


def plot_graph(plan: Plan, ax: Axes | None = None) -> Axes:
    """The causal graph on blocks, causes at the left.

    Nodes with the same arrows share a box. Solid boxes are adjusted for, dotted ones are not, dashed ones were
    not observed; the arrows in colour carry the effect.
    """
    merged, content = boxes(plan)
    layout = lay_out(merged, {n: b.size for n, b in content.items()}, gap=(0.62, 0.24), lane=0.16)
    margin = 0.06
    width, height = layout.width + 2 * margin, layout.height + 2 * margin
    if ax is None:
        ax = picture()(figsize=(width, height)).add_axes((0, 0, 1, 1))
    ax.set(xlim=(-margin, layout.width + margin), ylim=(-margin, layout.height + margin), aspect="equal")
    ax.axis("off")
    after = nx.descendants(merged, plan.treatment)
    causal = {
        plan.treatment,
        *(n for n in after if n == plan.outcome or nx.has_path(merged, n, plan.outcome)),
    }
    for edge in merged.edges:
        carries = edge[0] in causal and edge[1] in causal
        _draw_arrow(ax, layout.route[edge], carries=carries, hidden=content[edge[0]].kind == "unobserved")
    for node, box in content.items():
        _draw_box(ax, box, layout.centre[node])
    return ax


def _draw_arrow(ax: Axes, route: tuple[Point, ...], *, carries: bool, hidden: bool) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    points, codes = [route[0]], [int(Path.MOVETO)]
    for (x0, y0), (x1, y1) in pairwise(route):
        middle = (x0 + x1) / 2
        points += [(middle, y0), (middle, y1), (x1, y1)]
        codes += [int(Path.CURVE4)] * 3
    colour = BLUE if carries else VERMILLION if hidden else MUTED
    ax.add_patch(
        FancyArrowPatch(
            path=Path(points, codes), arrowstyle="-|>", mutation_scale=13, color=colour,
            lw=2.2 if carries else 1.2, ls="--" if hidden else "-", joinstyle="miter", capstyle="butt",
        )
    )  # fmt: skip


def _draw_box(ax: Axes, box: Box, centre: Point) -> None:
    from matplotlib.patches import FancyBboxPatch

    (x, y), (width, height) = centre, box.size
    edge = {"treatment": BLUE, "outcome": BLUE, "unobserved": VERMILLION, "unused": MUTED}.get(box.kind, INK)
    style = {"unobserved": "--", "unused": ":"}.get(box.kind, "-")
    fill = WASH if box.kind in ("words", "treatment", "outcome") else PAPER
    ax.add_patch(
        FancyBboxPatch(
            (x - width / 2 + 0.05, y - height / 2 + 0.05), width - 0.1, height - 0.1,
            boxstyle="round,pad=0.05,rounding_size=0.08", facecolor=fill, edgecolor=edge, ls=style, lw=1.5, zorder=3,
        )
    )  # fmt: skip
    large = box.kind in ("words", "treatment", "outcome")
    top = y + height / 2 - PAD - LINE_HEIGHT / 2
    rows = [(box.heading, 9.0, MUTED, "normal")]
    rows += [(line, 11.5 if large else 10.5, INK, "bold" if large else "normal") for line in box.lines]
    rows += [(box.note, 9.0, MUTED, "normal")] if box.note else []
    for i, (text, points, colour, weight) in enumerate(rows):
        ax.text(
            x,
            top - i * LINE_HEIGHT,
            text.replace("$", r"\$"),
            ha="center",
            va="center",
            fontsize=points,
            color=colour,
            weight=weight,
            zorder=4,
        )
