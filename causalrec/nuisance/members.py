"""The models that a super learner may mix, each fitted on the rows outside one outer fold.

A member gives, for each nuisance, logits of the training rows that come from fits without the row's inner fold, and
logits of the outer fold's rows. Representations that learn from outcomes see counts of training rows only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import logit

from causalrec.blocks import Block
from causalrec.errors import EstimationError
from causalrec.nuisance.batch import TARGETS, Target
from causalrec.nuisance.design import Design, Part
from causalrec.nuisance.nuisances import Nuisances, Problem, fit_nuisances
from causalrec.nuisance.options import NuisanceRecipe
from causalrec.represent.bottleneck import fit_bottleneck
from causalrec.represent.counts import TextCounts
from causalrec.represent.ngrams import WordNgrams

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Logits = dict[Target, F64]
TextModel = Callable[[Block, TextCounts, TextCounts, int], F64]
"""(block, training counts, held-out counts, round) → logits (u, 3) of every distinct text."""
EDGE = 1e-6


@dataclass(frozen=True, eq=False)
class Outer:
    """One outer fold: what may train, and what is to be predicted.

    Attributes
    ----------
    k : int
    problem : Problem
        The rows outside fold k; its ``fold`` are inner folds.
    rows, scored : (n − n_k,), (n_k,) positions of the training rows, and of the rows of fold k, in the log
    propensity, outcome : Design of the scored rows
    halves : (n − n_k,) 0 … H − 1
        Parts of the training rows that learnt representations hold out in turn.
    """

    k: int
    problem: Problem
    rows: Ints
    scored: Ints
    propensity: Design
    outcome: Design
    halves: Ints

    @property
    def targets(self) -> tuple[Target, ...]:
        """Nuisances that are estimated: all, or the outcomes alone where the propensity was logged."""
        return TARGETS if self.problem.logged is None else TARGETS[1:]

    def map(self, change: Callable[[Design, Ints], Design]) -> Outer:
        """The same with other designs; `change` gets each design and the log's positions of its rows."""
        p, same = self.problem, self.problem.propensity_design is self.problem.outcome_design
        outcome = change(p.outcome_design, self.rows)
        propensity = outcome if same else change(p.propensity_design, self.rows)
        scored = change(self.outcome, self.scored)
        return replace(
            self,
            problem=replace(p, propensity_design=propensity, outcome_design=outcome),
            propensity=scored if same else change(self.propensity, self.scored),
            outcome=scored,
        )

    def only(self, here: npt.NDArray[np.bool_]) -> Outer:
        """The same with some of the training rows."""
        return replace(
            self,
            problem=subset(self.problem, np.flatnonzero(here), self.problem.fold[here]),
            rows=self.rows[here],
            halves=self.halves[here],
        )


@dataclass(frozen=True, eq=False)
class MemberFit:
    """What a member says outside one outer fold.

    Attributes
    ----------
    inner : per target, (n − n_k,) logits of the training rows, NaN where no honest one was made
    outer : per target, (n_k,) logits of the scored rows
    nuisances : Nuisances
        The fitted regressions, of the designs that the member made.
    """

    inner: Logits
    outer: Logits
    nuisances: Nuisances


def subset(problem: Problem, rows: Ints, fold: Ints) -> Problem:
    """Some rows of a problem, with folds of their own."""
    same = problem.propensity_design is problem.outcome_design
    outcome = take(problem.outcome_design, rows)
    return replace(
        problem,
        t=problem.t[rows],
        y=problem.y[rows],
        w=problem.w[rows],
        propensity_design=outcome if same else take(problem.propensity_design, rows),
        outcome_design=outcome,
        fold=fold,
        logged=None if problem.logged is None else problem.logged[rows],
        sub=None,
    )


def take(design: Design, rows: Ints) -> Design:
    """Some rows of a design; distinct vectors are shared, not copied."""
    parts = tuple(
        replace(p, values=p.values[rows]) if p.codes is None else replace(p, codes=p.codes[rows])
        for p in design.parts
    )
    return replace(design, parts=parts, n=len(rows), row_hash=design.row_hash[rows])


def fit_regression(outer: Outer, recipe: NuisanceRecipe) -> MemberFit:
    """Cross-fit a recipe over the inner folds; the scored rows get the mean of the inner models."""
    fitted = fit_nuisances(outer.problem, recipe)
    inner = {t: safe_logit(getattr(fitted, t)) for t in outer.targets}
    return MemberFit(
        inner, predict_regression(fitted, outer.propensity, outer.outcome, outer.targets), fitted
    )


def predict_regression(
    fitted: Nuisances, propensity: Design, outcome: Design, targets: Sequence[Target]
) -> Logits:
    """Logits of new rows, per target (n',)."""
    found = dict(zip(TARGETS, fitted.predict(propensity, outcome), strict=True))
    return {t: safe_logit(found[t]) for t in targets}


def safe_logit(p: F64) -> F64:
    """Log odds, of chances held within [1e-6, 1 − 1e-6]."""
    return np.asarray(logit(np.clip(p, EDGE, 1 - EDGE)), dtype=np.float64)


def drop_blocks(outer: Outer, names: Sequence[str]) -> Outer:
    """The same without some blocks."""
    gone = set(names)
    return outer.map(lambda design, _: design.keep([o for o in design.owners if o not in gone]))


def ngram_parts(blocks: Sequence[Block]) -> dict[str, Part]:
    """For each text block its word n-grams, as a part of all rows: the log's own block of them, or one made here."""
    made = {b.columns: b for b in blocks if b.kind == "ngrams"}
    out = {}
    for block in blocks:
        if block.kind != "text":
            continue
        if block.columns in made:
            values, codes = made[block.columns].values, made[block.columns].codes
        else:
            values, codes = WordNgrams().fit_transform(texts_of(block, "ngrams")), block.codes
        counts = np.bincount(codes, minlength=len(values)).astype(np.float64)
        centred = (values - counts @ values / counts.sum()).astype(np.float32)
        out[block.name] = Part((block.name,) * centred.shape[1], centred, codes, "chosen")
    return out


def add_parts(outer: Outer, parts: dict[str, Part]) -> Outer:
    """The designs with further parts of all rows, each where the design has the node that it belongs to."""

    def widened(design: Design, rows: Ints) -> Design:
        extra = [
            replace(part, codes=None if part.codes is None else part.codes[rows])
            for name, part in parts.items()
            if name in design.owners
        ]
        return replace(design, parts=(*design.parts, *extra))

    return outer.map(widened)


def fit_text_member(
    outer: Outer, blocks: Sequence[Block], learn: TextModel, recipe: NuisanceRecipe, rounds: int
) -> MemberFit:
    """Learn each text's logits from counts of training rows, and regress on them and on what is not text.

    The first `rounds` parts h of the training rows are held out in turn: a representation is learnt on the others (h
    says when to stop), and its logits stand for the rows of h, and, averaged over the h, for the rows of the outer
    fold. The regression on these logits and the plain covariates is cross-fitted over the inner folds of the rows that
    were held out.
    """
    owners = set(outer.outcome.owners) | set(outer.propensity.owners)
    mine = [b for b in blocks if b.kind == "text" and b.name in owners]
    if not mine:
        raise EstimationError(
            "no text block is adjusted for, so no representation can be learnt; leave this member out."
        )
    here = outer.halves < rounds
    columns = {b.name: _learnt(outer, b, learn, rounds) for b in mine}
    columns = {name: (inner[here], scored) for name, (inner, scored) in columns.items()}
    found = fit_regression(_with_logits(outer.only(here), blocks, columns), recipe)
    inner = {t: np.full(len(here), np.nan) for t in found.inner}
    for target, logits in found.inner.items():
        inner[target][here] = logits
    return replace(found, inner=inner)


def _learnt(outer: Outer, block: Block, learn: TextModel, rounds: int) -> tuple[F64, F64]:
    """Logits of a block's texts for the training rows, NaN in parts that were not held out, and for the scored rows."""
    p, codes, u = outer.problem, block.codes[outer.rows], len(block.values)
    inner, scored = np.full((len(codes), 3), np.nan), np.zeros((len(outer.scored), 3))
    for h in range(rounds):
        held = outer.halves == h
        seen, tested = (TextCounts.of(codes[i], p.t[i], p.y[i], p.w[i], u) for i in (~held, held))
        z = learn(block, seen, tested, h)
        inner[held] = z[codes[held]]
        scored += z[block.codes[outer.scored]] / rounds
    return inner, scored


def _with_logits(outer: Outer, blocks: Sequence[Block], columns: dict[str, tuple[F64, F64]]) -> Outer:
    """The designs with three logits in place of each text block and of what else was made of the same column."""
    read = {c for b in blocks if b.name in columns for c in b.columns}
    gone = {b.name for b in blocks if set(b.columns) <= read}

    def changed(design: Design, rows: Ints) -> Design:
        training = rows is outer.rows
        kept = design.keep([o for o in design.owners if o not in gone])
        extra = []
        for name, (inner, scored) in columns.items():
            if name in design.owners:
                values = (inner if training else scored) - inner.mean(axis=0)
                extra.append(Part((name,) * 3, values.astype(np.float32), None, "light"))
        return replace(kept, parts=(*kept.parts, *extra))

    return outer.map(changed)


def bottleneck_model(blocks: Sequence[Block], width: int, seed: int) -> TextModel:
    """The network on a text's frozen vector and, beside it, what else was made of the same column."""

    def learn(block: Block, seen: TextCounts, held: TextCounts, h: int) -> F64:
        beside = [b for b in blocks if b.columns == block.columns and np.array_equal(b.codes, block.codes)]
        x = np.hstack([standardised(b.values, seen.shown) for b in beside])
        keys = None if block.keys is None else block.keys.tolist()
        return fit_bottleneck(x, seen, width=width, holdout=held, keys=keys, random_state=seed + h).predict(x)

    return learn


def standardised(values: F32, shown: F64) -> F32:
    """A wide block (u, d) over its root mean variance, a narrow one over each column's own, in the rows shown."""
    share = shown / shown.sum()
    centred = values - (share @ values).astype(np.float32)
    variance = share @ centred.astype(np.float64) ** 2
    if values.shape[1] > 30:
        variance = np.full(values.shape[1], variance.mean())
    return np.asarray(centred / np.sqrt(np.where(variance > 0, variance, 1.0)), dtype=np.float32)


def tuned_model(settings: dict[str, Any], seed: int, label: Callable[[], str] | None) -> TextModel:
    """The encoder tuned on a block's texts."""

    def learn(block: Block, seen: TextCounts, held: TextCounts, h: int) -> F64:
        from causalrec.represent.tuned import tune_encoder

        texts = texts_of(block, "tuned")
        progress = label() if label else False
        tuned = tune_encoder(texts, seen, holdout=held, random_state=seed + h, progress=progress, **settings)
        return tuned.predict(texts)

    return learn


def texts_of(block: Block, member: str) -> list[str]:
    """The distinct texts of a block, or ``EstimationError``."""
    if block.texts is None or len(block.texts) != len(block.values):
        have = "none" if block.texts is None else f"{len(block.texts):,}"
        raise EstimationError(
            f"block {block.name!r} has {len(block.values):,} distinct vectors and {have} of their texts, which the member "
            f"{member!r} needs; make it with embed(log), or leave {member!r} out."
        )
    return list(block.texts)
