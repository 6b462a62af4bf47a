"""Is it an instrument, what must be adjusted for beside it, and what a weak one still allows to say."""

from __future__ import annotations

import networkx as nx
import numpy as np
import numpy.typing as npt

from causalrec import dag
from causalrec.errors import IdentificationError, LogError
from causalrec.identify import Plan
from causalrec.log import MIN_ARM, ImpressionLog

F64 = npt.NDArray[np.float64]


def encouragement(log: ImpressionLog) -> F64:
    """(n,) 0/1, 1 = encouraged: the larger value of the instrument.

    Raises
    ------
    LogError
        There is no instrument, it has not two values, is the treatment itself, or an arm of it has too few rows.
    """
    if not log.roles.instrument:
        raise LogError("the log declares no instrument; name its column with instrument= in read_log.")
    name, t = log.roles.instrument[0], log.treatment
    values = log.frame[name].to_numpy(dtype=np.float64)
    levels = np.unique(values)
    if len(levels) != 2:
        raise LogError(
            f"column {name!r} (instrument) has {len(levels):,} value{'s' if len(levels) > 1 else ''}; must have two. "
            "Declare one encouragement against the rest."
        )
    z = (values == levels[1]).astype(np.float64)
    if np.array_equal(z, t) or np.array_equal(z, 1 - t):
        raise LogError(
            f"column {name!r} (instrument) is the treatment {log.roles.treatment[0]!r} itself; an instrument moves it and is not it. "
            "If it was drawn at random, estimate(log, plan) gives its effect."
        )
    for arm, word in ((1.0, "encouraged"), (0.0, "other")):
        count = int((z == arm).sum())
        if count < MIN_ARM:
            raise LogError(
                f"column {name!r} (instrument) has {count} {word} rows, must have >= {MIN_ARM}; an effect from fewer has no usable interval."
            )
    return z


def nodes_between(log: ImpressionLog, plan: Plan) -> tuple[str, ...]:
    """What to adjust for between instrument and outcome, by d-separation in the graph without the treatment's effects.

    Raises
    ------
    IdentificationError
        It is no instrument in the plan's graph.
    """
    name, graph = log.roles.instrument[0], plan.graph
    if name not in graph:
        raise IdentificationError(
            f"the plan's graph has no node {name!r} (instrument); add it, or call identify(log) without a graph."
        )
    observed = [n for n, seen in graph.nodes(data="observed") if seen]
    nodes = dag.candidates(graph, name, plan.outcome, observed)
    bare = dag.without_effects(graph, plan.treatment)
    if not nx.is_d_separator(bare, {name}, {plan.outcome}, set(nodes)):
        raise IdentificationError(
            f"{name!r} is no instrument in this graph: given {list(nodes)}, a path joins it to {plan.outcome!r} that does not run through "
            f"{plan.treatment!r}. Measure what lies on it, or use another instrument."
        )
    if plan.treatment not in nx.descendants(graph, name):
        raise IdentificationError(
            f"{name!r} is no instrument in this graph: it does not act on {plan.treatment!r}."
        )
    return nodes


def anderson_rubin(
    on_y: float, on_t: float, covariance: F64, df: int, alpha: float = 0.05
) -> tuple[float, float]:
    """The β that are not rejected: (on_y − β on_t)² ≤ c² (V_yy − 2 β V_yt + β² V_tt), c the t quantile.

    Anderson & Rubin (1949). Where the set is not an interval (a weak first stage) its ends are infinite.
    """
    from scipy.stats import t as student

    c2 = float(student.ppf(1 - alpha / 2, df)) ** 2
    a = on_t**2 - c2 * covariance[1, 1]
    b = on_y * on_t - c2 * covariance[0, 1]
    c = on_y**2 - c2 * covariance[0, 0]
    if a <= 0:
        return -np.inf, np.inf
    root = float(np.sqrt(max(b * b - a * c, 0.0)))
    return (b - root) / a, (b + root) / a
