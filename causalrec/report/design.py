"""What was analysed and how: the data and the design, what is assumed, how to reproduce it."""

from __future__ import annotations

import re
from importlib import metadata
from typing import Any

from causalrec.estimate import Fit
from causalrec.report import parts, words
from causalrec.report.graph import plot_graph
from causalrec.report.parts import Part
from causalrec.report.results import Results, records

PACKAGES = ("causalrec", "numpy", "pandas", "scikit-learn", "econml", "dowhy", "transformers", "torch")
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def data(r: Results) -> list[Part]:
    """Section 2: rows, users, arms, roles, the graph, what is adjusted for and what was refused."""
    roles = r.log.roles.as_dict()
    refused = [f"{words.quoted(node)}: {why}" for node, why in r.plan.refused]
    graph = parts.figure(
        plot_graph(r.plan),
        "graph",
        title="The causal graph that the analysis assumes",
        description="Arrows run from cause to effect. Solid boxes are adjusted for, dotted ones are not, "
        f"dashed ones were not observed; blue arrows carry the effect. {' '.join(r.plan.notes)}",
        data=parts.table(
            "Nodes of the graph, and what was done with each", records(r.plan.to_frame()), name="graph"
        ),
    )
    return [
        parts.facts(_size(r)),
        *([parts.table("The arms", _arms(r), name="treated-and-control")] if r.has_fit else []),
        parts.table(
            "Roles of the columns",
            [{"role": role, "columns": words.listed(names, 20)} for role, names in roles.items()],
            name="roles",
        ),
        graph,
        *([parts.text("Not adjusted for, and why:"), parts.bullets(refused)] if refused else []),
    ]


def _size(r: Results) -> list[tuple[str, str]]:
    log, roles = r.log, r.log.roles
    who = "no unit declared: each row counts as its own"
    if r.unit is not None:
        who = f"{log.n_units:,} (column {words.quoted(r.unit)})"
    rows = [("impressions", f"{len(log):,}"), ("users", who)]
    if log.items is not None:
        rows.append(("items", f"{int(log.items.max()) + 1:,} (column {words.quoted(roles.item[0])})"))
    named = words.quoted(roles.treatment[0])
    if log.treatment_kind == "arms":
        return [*rows, ("arms", f"{named}: {words.listed(log.arms)}")]
    if log.treatment_kind == "dose":
        return [*rows, ("dose", f"{named}, {log.treatment.min():g} to {log.treatment.max():g}")]
    return [*rows, ("treated", f"{named} = {words.shown(repr(log.treated_level))}")]


def _arms(r: Results) -> list[dict[str, Any]]:
    """Size and plain mean of each arm; their difference is the naive comparison."""
    log, o, q = r.fit.log, r.fit.overlap, r.question
    digits = 1 if log.binary_outcome else 3
    sizes = (("treated", 1, o.n_treated, o.ess_treated), ("control", 0, o.n_control, o.ess_control))
    return [
        {
            "arm": arm,
            "impressions": n,
            "share": words.percent(n / len(log), 1),
            f"mean, {q.label}": q.number(float(log.outcome[log.treatment == value].mean()), digits),
            "effective sample size": round(ess),
        }
        for arm, value, n, ess in sizes
    ]


def assumptions(r: Results) -> list[Part]:
    """Section 7: what is assumed, and what would overturn the result."""
    overturn = [f"The check “{name}” failed." for name in r.failed]
    overturn += list(r.fit.analysis.caveats) if r.has_fit else []
    if r.checks is not None:
        s = r.checks.sensitivity
        overturn.append(
            f"A hidden common cause that explains {words.percent(s.robustness_value, 1)} or more of what is "
            "left unexplained of both exposure and outcome."
        )
    if not r.log.roles.unit:
        overturn.append(
            "Rows that depend on each other, such as several of one user: no unit is declared, so the "
            "interval takes each row for independent."
        )
    overturn.append(
        "A randomised slice of the traffic with another answer: an experiment outranks this page."
    )
    return [
        parts.text("The data cannot test the following; whoever doubts one of them doubts the result:"),
        parts.bullets(_sentence(a) for a in r.plan.assumptions),
        parts.heading("What would overturn the result"),
        parts.bullets(overturn),
    ]


def _sentence(clause: str) -> str:
    return clause[:1].upper() + clause[1:] + ("" if clause.endswith(".") else ".")


def reproducibility(r: Results) -> list[Part]:
    """Section 8: versions, seed, fingerprint of the data, settings."""
    chosen = [
        ("data (sha256, declared columns)", r.log.fingerprint),
        *(_settings(r.fit) if r.has_fit else []),
    ]
    blocks = [
        {"block": b.name, "distinct": len(b.values), "width": b.width, "made by": b.made_by}
        for b in r.log.blocks.values()
    ]
    gains = list(r.fit.nuisances.gains) if r.has_fit else []
    return [
        parts.facts(chosen),
        *([parts.table("Nuisance models on held-out users", gains, name="nuisances")] if gains else []),
        *([parts.table("Representation blocks", blocks, name="blocks")] if blocks else []),
        parts.facts((name, version(name)) for name in PACKAGES),
    ]


def _settings(fit: Fit) -> list[tuple[str, str]]:
    """Seed, folds, models of a fit."""
    settings, recipe = fit.analysis.settings, fit.nuisances.recipe
    return [
        ("seed", str(fit.seed)),
        ("estimand", fit.estimand),
        ("folds", f"{settings.folds.n_splits}, by {settings.folds.by}"),
        ("clip", f"{settings.clip.bound:g}"),
        ("propensity model", "logged" if fit.nuisances.logged else _stable(recipe.propensity)),
        ("outcome model", _stable(recipe.outcome)),
        ("effect model (EconML)", type(fit.model).__name__),
        ("calibrated propensities", "yes" if recipe.calibrate else "no"),
    ]


def _stable(learner: object) -> str:
    """A learner in words that do not change from run to run."""
    return ADDRESS.sub("", repr(learner))


def version(package: str) -> str:
    """The installed version of a package, or that there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
