"""From the rows shown to theta by harvesting or EM, and to what a reader has to know about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from causalrec.errors import ArgumentError, EstimationError
from causalrec.finetune.click_model import fit_click_model
from causalrec.finetune.harvesting import (
    HEAVIEST,
    Curve,
    context_test,
    estimated_weights,
    harvest,
    item_r2,
)
from causalrec.finetune.shown import Shown, describe, leading_axes
from causalrec.log import ImpressionLog
from causalrec.scores import ess

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Adjust = Literal["regression", "both", "none"]
BESIDE = ("history", "match")
"""Kinds of blocks that say something of a row beside its item."""
LITTLE = 0.05
"""Share of the information on theta below which position counts as a function of the item."""
EXPLAINED = 0.95
"""Held-out R² of position on the text, from which it counts as a function of the text."""
FEW_ITEMS = 10
FEW_ROWS = 20
"""Rows an item below which effects of items bend theta: at 8 rows it was off by .02, at 2.7 by .26 (true theta .8)."""
CONTEXT = 0.01


@dataclass(frozen=True, eq=False)
class Found:
    """log theta of K groups of positions and what goes with it; see ``Examination``."""

    log_theta: F64
    influence: F64
    information: float = float("nan")
    n_items: int = 0
    r2_item: float = float("nan")
    r2_text: float = float("nan")
    context_p_value: float = float("nan")
    log_likelihood: tuple[float, ...] = ()
    converged: bool = True
    alarms: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def by_harvest(log: ImpressionLog, shown: Shown, group: Ints, chances: F64 | None, adjust: Adjust) -> Found:
    """Harvesting: relevance within an item by regression, and each row weighted by the chance of the position that it got."""
    if shown.strata is None:
        raise ArgumentError(
            "the log declares neither item nor text, so nothing is known to be the same at two positions; declare item= in read_log, or use method='em'."
        )
    k = int(group.max()) + 1
    x = describe(log, shown.rows, BESIDE) if adjust != "none" else np.zeros((len(group), 0))
    notes = [
        f"within an item, relevance may go with {x.shape[1]} features of the row (score, modifiers, confounders, history blocks)"
        if x.shape[1]
        else "an item's rows are taken to be equally relevant at all its positions: no score, modifiers or confounders enter"
    ]
    w = shown.w
    if chances is not None or (adjust == "both" and x.shape[1]):
        weights, note = _position_weights(shown.strata, shown.position, group, chances, x)
        w, notes = w * weights, [*notes, note]
    curve = harvest(shown.strata, group, shown.y, w, k, x)
    p = context_test(shown.strata, group, shown.y, w, k, shown.units, x)
    alarms: tuple[str, ...] = ()
    if p < CONTEXT:
        alarms = (
            f"theta differs between items that mostly stand high and those that mostly stand low (p = {p:.2g}): it depends on more than the position, "
            "or relevance goes with the position within an item; declare score= or what the ranker acted on, or estimate by context on log.take(...)",
        )
    found = Found(curve.log_theta, curve.influence, curve.information, curve.n_strata, context_p_value=p, alarms=alarms, notes=tuple(notes))
    return _with_alarms(found, curve, shown, group)


def by_em(log: ImpressionLog, shown: Shown, group: Ints, relevance: str, adjust: Adjust) -> Found:
    """Regression EM, with effects of items or with features."""
    if not np.isin(shown.y, (0.0, 1.0)).all():
        worst = shown.y[~np.isin(shown.y, (0.0, 1.0))][0]
        raise EstimationError(f"the outcome holds {worst:g}; method='em' models clicks, 0 or 1. Use method='harvest', which needs outcomes >= 0 only.")
    of_items = relevance == "items" or (relevance == "auto" and not log.blocks)
    if of_items and shown.strata is None:
        raise ArgumentError("the log declares neither item nor text and has no blocks: relevance has nothing to be modelled by. Declare item=, or embed the log.")
    plain = of_items and adjust == "none"
    x = np.zeros((len(group), 0)) if plain else describe(log, shown.rows, BESIDE if of_items else ("text", *BESIDE))
    if not of_items and not x.shape[1]:
        raise ArgumentError("relevance='features' needs blocks (embed the log), a score, modifiers or confounders; the log has none.")
    curve = _compared(shown, group, needed=of_items)
    k = int(group.max()) + 1
    known = np.bincount(group, shown.w * shown.y, k) > 0
    if of_items and curve is not None:
        known &= np.isfinite(curve.log_theta)
    if not known[0]:
        raise EstimationError("the first position has no click, so that nothing can be relative to it; pool it with the next by a larger min_clicks, or use a longer period.")
    rows = known[group]
    model = fit_click_model(
        (np.cumsum(known) - 1)[group[rows]], shown.y[rows], shown.w[rows], x[rows],
        np.unique(shown.strata[rows], return_inverse=True)[1] if of_items and shown.strata is not None else None, int(known.sum()),
    )  # fmt: skip
    log_theta, influence = np.full(k, np.nan), np.full((len(group), k), np.nan)
    log_theta[known] = model.log_theta
    influence[:, known] = 0.0
    influence[np.ix_(rows, known)] = model.influence
    what = "an effect of each item" if of_items else f"{x.shape[1]} features, no effects of items: what they do not say of relevance goes into theta"
    found = Found(
        log_theta, influence, 0.0 if curve is None else curve.information, 0 if curve is None else curve.n_strata,
        log_likelihood=model.log_likelihood, converged=model.converged, notes=(f"relevance is modelled by {what}",),
    )  # fmt: skip
    if not model.converged:
        found = replace(found, alarms=(f"the log-likelihood had not converged after {len(model.log_likelihood) - 1} steps; its theta is not to be used",))
    items = len(np.unique(shown.strata)) if of_items and shown.strata is not None else 1
    if len(group) < FEW_ROWS * items:
        thin = (
            f"there are {len(group) / items:.1f} rows an item: an effect of each item from fewer than {FEW_ROWS} bends theta upwards; "
            "use method='harvest', which conditions the items out"
        )
        found = replace(found, alarms=(*found.alarms, thin))
    return _with_alarms(found, curve, shown, group)


def _compared(shown: Shown, group: Ints, needed: bool) -> Curve | None:
    """Harvesting beside EM, for what items compared with themselves can tell; None where nothing can be compared."""
    if shown.strata is None:
        return None
    try:
        return harvest(shown.strata, group, shown.y, shown.w, int(group.max()) + 1)
    except EstimationError:
        if needed:
            raise
        return None


def _position_weights(strata: Ints, position: Ints, group: Ints, chances: F64 | None, x: F64) -> tuple[F64, str]:
    """(m,) weights by the logged or estimated chance of the position, and what to say of them."""
    if chances is not None:
        code = np.unique(strata * (int(position.max()) + 1) + position, return_inverse=True)[1]
        weights = (np.bincount(code)[code] / np.bincount(strata)[strata]) / chances
    else:
        weights = estimated_weights(strata, group, x, int(group.max()) + 1)
    clipped = float((weights > HEAVIEST).mean())
    weights = np.minimum(weights, HEAVIEST)
    how = "estimated" if chances is None else "logged"
    note = f"rows are weighted by the {how} chance of their position within the item: effective sample {ess(weights):,.0f} of {len(weights):,} rows"
    return weights, note + (f", {100 * clipped:.1f} % held at {HEAVIEST:g}" if clipped else "")


def text_r2(log: ImpressionLog, shown: Shown, group: Ints, rng: np.random.Generator) -> float:
    """Share of the variance of position that the text blocks explain for texts left out, five folds, ridge; NaN without blocks."""
    from sklearn.linear_model import Ridge

    best = float("nan")
    total = float(((group - group.mean()) ** 2).sum())
    for block in log.blocks.values():
        used, codes = np.unique(block.codes[shown.rows], return_inverse=True)
        if block.kind != "text" or len(used) < 20 or total == 0:
            continue
        x = leading_axes(block.values[used], codes)
        x = x / np.maximum(x.std(axis=0), 1e-12)
        rows = np.bincount(codes).astype(np.float64)
        mean = np.bincount(codes, group) / rows
        fold = rng.permutation(len(used)) % 5
        predicted = np.empty(len(used))
        for f in range(5):
            out = fold == f
            predicted[out] = Ridge(alpha=10.0).fit(x[~out], mean[~out], rows[~out]).predict(x[out])
        best = np.fmax(best, 1 - float(((group - predicted[codes]) ** 2).sum()) / total)
    return float(best)


def _with_alarms(found: Found, curve: Curve | None, shown: Shown, group: Ints) -> Found:
    """What speaks against theta being identified by comparing items with themselves."""
    if shown.strata is None:
        return found
    r2, alarms = item_r2(shown.strata, group.astype(np.float64)), list(found.alarms)
    if curve is None:
        alarms.append("no item was clicked that stood at two positions: theta rests on the model of relevance alone")
    elif found.information < LITTLE:
        alarms.append(
            f"position is nearly a function of the item: {100 * found.information:.1f} % of the information on theta is left when items are compared with themselves"
            + ("" if np.isnan(r2) else f" (the item explains {100 * r2:.0f} % of the position's variance)")
            + "; swap some slots at random for a while"
        )
    elif found.n_items < FEW_ITEMS:
        alarms.append(f"theta rests on {found.n_items} items that were seen at several positions; the interval is of users, as if other items were like these")
    return replace(found, r2_item=r2, alarms=tuple(alarms))


def with_text(found: Found, r2: float) -> Found:
    """Adds the text's R² of position, and an alarm where it leaves next to nothing."""
    if not r2 > EXPLAINED:
        return replace(found, r2_text=r2)
    alarm = f"position is nearly a function of the text: it explains {100 * r2:.0f} % of the variance of position for texts left out; theta is then not told apart from relevance"
    return replace(found, r2_text=r2, alarms=(*found.alarms, alarm))
