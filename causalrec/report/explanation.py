"""What goes with a large effect, what is foreseen of unseen items and users, and which model foresees it."""

from __future__ import annotations

from typing import Any

from causalrec.report import parts, uplift_plots, words
from causalrec.report.parts import Part
from causalrec.report.results import Results, records
from causalrec.report.targeting import short
from causalrec.report.uplift_plots import MILLIONTHS
from causalrec.report.words import Question
from causalrec.uplift import ColdStart, Explanation, ModelChoice

TITLES = {
    "modifiers": "Which modifiers carry the differences",
    "tree": "Effects by a tree of the modifiers",
    "topics": "Effects by topic of the text",
}
DESCRIPTIONS = {
    "modifiers": "How much worse the model foresees held-out effects if one modifier is shuffled, with 95 % intervals.",
    "tree": "The tree was grown on the training users; its leaves are measured on others. Joint 95 % intervals.",
    "topics": "Topics are clusters of texts, named by their words, found without exposure or click. Joint 95 % intervals.",
}
MOST_ITEMS = 400


def explanation(r: Results) -> list[Part]:
    """Modifiers, tree, topics by their words, and items as examples."""
    e, q = r.explanation, r.question
    assert e is not None
    out = [parts.text(f"On {e.n:,} held-out impressions of {e.n_units:,} users.")]
    for table in TITLES:
        frame = getattr(e, table)
        if not frame.empty:
            out.append(_explained(e, table, q))
    out += [parts.bullets(e._notes()), *([_examples(e, q)] if len(e.examples) else [])]
    return out


def _explained(e: Explanation, table: str, q: Question) -> Part:
    frame = records(getattr(e, table))
    rows = [_modifier(m) for m in frame] if table == "modifiers" else [_group(g, q) for g in frame]
    return parts.figure(
        uplift_plots.plot_explanation(e, table, question=q),
        f"explained-{table}",
        title=TITLES[table],
        description=DESCRIPTIONS[table],
        data=parts.table(TITLES[table], rows, name=f"explained-{table}", raw=frame),
    )


def _modifier(m: dict[str, Any]) -> dict[str, Any]:
    return {
        "modifier": m["modifier"],
        "loss if shuffled, millionths": short(MILLIONTHS, m["loss"], m["loss_lower"], m["loss_upper"]),
        "p_holm": m["p_value"],
        "mean |SHAP|, per 1,000 impressions": _shap(m),
    }


def _shap(m: dict[str, Any]) -> str:
    if m["shap"] is None or m["shap"] != m["shap"]:
        return "–"
    return short(Question(factor=1000.0), m["shap"], m["shap_lower"], m["shap_upper"])


def _group(g: dict[str, Any], q: Question) -> dict[str, Any]:
    """A leaf or a topic."""
    first = next(iter(g))
    row = {
        first if first == "topic" else "users whose": g[first],
        **({"texts": g["texts"]} if "texts" in g else {}),
        "n": g["n"],
        "users": g["n_units"],
        f"effect, {q.label}": short(q, g["effect"], g["ci_lower"], g["ci_upper"]),
    }
    if "shrunken" in g:
        row["shrunken"] = short(q, g["shrunken"], g["shrunken_lower"], g["shrunken_upper"])
    return row


def _examples(e: Explanation, q: Question) -> Part:
    rows = [
        {
            "text": words.shown(x["text"], 120),
            f"by its words, {q.label}": short(q, x["effect"], x["ci_lower"], x["ci_upper"]),
            "measured": short(q, x["observed"], x["observed_lower"], x["observed_upper"]),
            "n": x["n"],
        }
        for x in records(e.examples)
    ]
    caption = (
        "Items of the highest (above) and the lowest effect, chosen by what their words foresee; 95 % each"
    )
    return parts.table(caption, rows, name="example-items", raw=records(e.examples))


def cold_start(r: Results) -> list[Part]:
    """Effects of items and users that were not seen, and how well they were foreseen."""
    c, q = r.cold_start, r.question
    assert c is not None
    return [
        parts.bullets(c._notes()),
        parts.table("How well words foresee", _foreseen(c, q), name="cold-start", raw=c._rows()),
        *_items(c, q),
        parts.table(
            "Held-out users by quarter of the foreseen effect",
            [_quarter(u, q) for u in records(c.users)],
            name="cold-start-users",
            raw=records(c.users),
        ),
    ]


def _items(c: ColdStart, q: Question) -> list[Part]:
    """Items against their distance; a sentence where training has seen all of them."""
    if c.items["seen_in_training"].all():
        return [
            parts.text(
                "Every item of the held-out users was shown in training, so that none is drawn by its distance."
            )
        ]
    return [
        parts.figure(
            uplift_plots.plot_cold_start(c, question=q),
            "cold-start-items",
            title="Items, by how far they are from the texts seen",
            description="Effects foreseen from words, with 95 % intervals, which widen with the distance.",
            data=parts.table(
                "Items of the held-out users", _item_rows(c, q), name="cold-start-items", raw=records(c.items)
            ),
        )
    ]


def _foreseen(c: ColdStart, q: Question) -> list[dict[str, Any]]:
    units = (q, uplift_plots.AS_PERCENT, uplift_plots.AS_PERCENT)
    rows = []
    for row, unit in zip(c._rows(), units, strict=True):
        what = row["quantity"] + (f", {q.label}" if unit is q else ", %")
        rows.append(
            {
                "quantity": what,
                "95 % interval": short(unit, row["estimate"], row["ci_lower"], row["ci_upper"]),
            }
        )
    return rows


def _item_rows(c: ColdStart, q: Question) -> list[dict[str, Any]]:
    return [
        {
            "text": words.shown(x["text"], 100),
            "seen in training": bool(x["seen_in_training"]),
            "distance": words.number(x["distance"], 2),
            f"foreseen, {q.label}": short(q, x["effect"], x["ci_lower"], x["ci_upper"]),
            "measured": short(q, x["observed"], x["observed_lower"], x["observed_upper"]),
        }
        for x in records(c.items.head(MOST_ITEMS))
    ]


def _quarter(u: dict[str, Any], q: Question) -> dict[str, Any]:
    foreseen = [None if v != v else v for v in (u["predicted"], u["predicted_lower"], u["predicted_upper"])]
    return {
        "quarter": u["quarter"],
        "n": u["n"],
        f"foreseen, {q.label}": short(q, *foreseen),
        "measured": short(q, u["observed"], u["observed_lower"], u["observed_upper"]),
    }


def models(r: Results) -> list[Part]:
    """Which model of the effect was chosen, against one effect for everyone."""
    c = r.choice
    assert c is not None
    return [
        parts.bullets(c._notes()),
        parts.figure(
            uplift_plots.plot_models(c),
            "models",
            title="Models of the effect against one effect for everyone",
            description="Doubly robust loss on users that a model has not seen, with 95 % intervals; filled: chosen.",
            data=parts.table("Models", [_model(c, m) for m in c.records], name="models", raw=c.records),
        ),
    ]


def _model(c: ModelChoice, m: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": m["model"] + (" (chosen)" if m["model"] == c.best else ""),
        "loss below the constant’s, millionths": short(MILLIONTHS, m["gain"], m["ci_lower"], m["ci_upper"]),
        "slope on held-out users": m["slope"],
        "at least, over all models": m["joint_lower"],
        "R-score, %": short(uplift_plots.AS_PERCENT, m["r_score"], m["r_lower"], m["r_upper"]),
        "share_in_stack": m["share_in_stack"],
    }
