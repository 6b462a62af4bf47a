"""Several models for each nuisance, mixed by how well they predict rows that they have not seen.

A super learner (van der Laan, Polley & Hubbard 2007) for P(T=1|X) and P(Y=1|T=t,X), cross-fitted: for the rows of
outer fold k the members, their penalties, what they learnt from the words, and the weights that mix them all come
from the other folds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from causalrec._checks import check_choice, check_scalar
from causalrec.blocks import Block
from causalrec.errors import ArgumentError, EstimationError
from causalrec.nuisance import members
from causalrec.nuisance.columns import DesignRecipe
from causalrec.nuisance.members import MemberFit, Outer
from causalrec.nuisance.nuisances import Problem
from causalrec.nuisance.options import Folds, NuisanceRecipe
from causalrec.nuisance.stacked import StackedNuisances, mix
from causalrec.represent.weights import DEFAULT_MODEL
from causalrec.units import deal, shuffled_order

Ints = npt.NDArray[np.int64]
MENU = ("ridge", "ngrams", "bottleneck", "tuned")


@dataclass(frozen=True)
class SuperLearner(NuisanceRecipe):
    """Which members are mixed, and how they are cross-fitted. The outcome must be binary.

    Parameters
    ----------
    propensity, outcome, calibrate
        Those of the ridge regressions: the member ``"ridge"``, and what the text members' logits enter.
    members : tuple of str or scikit-learn classifier
        ``"ridge"`` (everything but word n-grams), ``"ngrams"`` (everything and word n-grams), ``"bottleneck"`` (a
        small network on the frozen vectors), ``"tuned"`` (the encoder itself, trained on), or any classifier with
        ``predict_proba`` on the dense design.
    folds : Folds
        Outer folds; those of the problem that is fitted decide.
    inner_folds : int
        Folds of the training rows for penalties and weights, at least 3.
    parts : int
        Parts of the training rows that learnt representations hold out in turn, at least 2.
    rounds : int or None
        Of these, how many the tuned encoder does hold out, one run each; None is all. With ``parts=5, rounds=1`` it is
        tuned once an outer fold, on four fifths of the training rows, and weighed on the fifth.
    encoder, method, epochs, lr
        As in ``tune_encoder``.
    width : int
        Units of the bottleneck.
    random_state : int
    progress : bool
        Show what is being fitted, and the remaining time of each tuned encoder.
    """

    members: tuple[Any, ...] = ("ridge", "ngrams", "bottleneck")
    folds: Folds = field(default_factory=lambda: Folds(3))
    inner_folds: int = 3
    parts: int = 2
    rounds: int | None = None
    encoder: str = DEFAULT_MODEL
    method: str = "full"
    epochs: int = 2
    lr: float | None = None
    width: int = 16
    random_state: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.members, str) or not self.members:
            raise ArgumentError(
                f"members is {self.members!r}, must be a tuple of at least one of {list(MENU)}."
            )
        for member in self.members:
            if isinstance(member, str):
                check_choice(member, "members", MENU)
            elif isinstance(member, type) or not hasattr(member, "predict_proba"):
                raise ArgumentError(
                    f"member {member!r} is neither one of {list(MENU)} nor a classifier instance with predict_proba."
                )
        check_scalar(self.inner_folds, "inner_folds", ge=3, le=20, integer=True)
        check_scalar(self.parts, "parts", ge=2, le=20, integer=True)
        if self.rounds is not None:
            check_scalar(self.rounds, "rounds", ge=1, le=self.parts, integer=True)
        check_choice(self.method, "method", ("full", "lora"))
        check_scalar(self.epochs, "epochs", ge=1, le=50, integer=True)
        check_scalar(self.width, "width", ge=1, le=512, integer=True)
        check_scalar(self.random_state, "random_state", ge=0, integer=True)

    @classmethod
    def quick(cls, **changed: Any) -> SuperLearner:
        """Ridge, n-grams and bottleneck: seconds to a minute."""
        return cls(**changed)

    @classmethod
    def thorough(cls, **changed: Any) -> SuperLearner:
        """All four, with the encoder tuned once a part of each outer fold: minutes."""
        return cls(**{"members": MENU, **changed})

    @property
    def names(self) -> tuple[str, ...]:
        """Members in order; a classifier by its class, numbered if it comes twice."""
        plain = [m if isinstance(m, str) else type(m).__name__ for m in self.members]
        return tuple(
            f"{name} {plain[: i + 1].count(name)}" if plain.count(name) > 1 else name
            for i, name in enumerate(plain)
        )


def fit_super_learner(
    problem: Problem,
    recipe: SuperLearner,
    blocks: Sequence[Block],
    design_recipe: DesignRecipe | None = None,
    units: Ints | None = None,
) -> StackedNuisances:
    """Cross-fit every member and mix them.

    For outer fold k each member gives logits of the training rows from fits without the row's inner fold, and logits
    of the rows of k. On the former, the weights of each nuisance minimise

        Σ_i w_i ℓ(y_i, b + Σ_m a_m z_im) + ½ · 4 (Σ_m a_m − 1)²,   a_m ≥ 0,   ℓ(y, z) = log(1 + exp z) − y z.

    Parameters
    ----------
    problem : Problem
        Its ``fold`` are the outer folds.
    recipe : SuperLearner
    blocks : sequence of Block
        Of the log that the problem was made of; text blocks carry their texts.
    design_recipe : DesignRecipe or None
        Kept with the result.
    units : (n,) codes or None
        Whose rows share an inner fold; None takes every row for its own.

    Raises
    ------
    EstimationError
        The outcome is not binary, pairs of folds are left out, or a member lacks what it needs.
    """
    _check(problem, blocks)
    bar = _Announcer(recipe, int(problem.fold.max()) + 1)
    outers = [_outer(problem, recipe, k, units) for k in range(bar.folds)]
    regress = {
        name: _regressor(m, recipe, blocks, bar) for name, m in zip(recipe.names, recipe.members, strict=True)
    }
    fits = []
    with bar:
        for outer in outers:
            fits.append(tuple(bar.run(outer.k, name, fit, outer) for name, fit in regress.items()))
    readers = tuple(m for m in recipe.members if isinstance(m, str) and m != "ridge")
    return mix(problem, recipe, (recipe.names, readers), design_recipe, outers, fits)


def _check(problem: Problem, blocks: Sequence[Block]) -> None:
    if not problem.binary:
        raise EstimationError(
            "a super learner mixes models by log-loss and the outcome is not 0/1; use NuisanceRecipe() (ridge)."
        )
    if getattr(problem, "in_pairs", False):
        raise EstimationError(
            "a super learner leaves out single folds, not pairs; use NuisanceRecipe() (ridge) for pairs."
        )
    n = len(problem.t)
    for block in blocks:
        if block.n_rows != n:
            raise EstimationError(
                f"block {block.name!r} has {block.n_rows:,} rows, the problem has {n:,}; pass its own blocks."
            )


def _outer(problem: Problem, recipe: SuperLearner, k: int, units: Ints | None) -> Outer:
    """Training rows of outer fold k with inner folds, and the designs of its own rows."""
    rows, scored = np.flatnonzero(problem.fold != k), np.flatnonzero(problem.fold == k)
    inner = _deal(problem, rows, units, recipe.inner_folds, [recipe.random_state, k, 0])
    training = members.subset(problem, rows, inner)
    outcome = members.take(problem.outcome_design, scored)
    same = problem.propensity_design is problem.outcome_design
    propensity = outcome if same else members.take(problem.propensity_design, scored)
    halves = _deal(problem, rows, units, recipe.parts, [recipe.random_state, k, 1])
    return Outer(k, training, rows, scored, propensity, outcome, halves)


def _deal(problem: Problem, rows: Ints, units: Ints | None, hands: int, seed: list[int]) -> Ints:
    """A hand for each of these rows: whole units, alike in what they did."""
    own = np.arange(len(rows)) if units is None else np.unique(units[rows], return_inverse=True)[1]
    if int(own.max()) + 1 < hands:
        raise EstimationError(
            f"{int(own.max()) + 1} units train beside an outer fold, must be >= {hands}; use fewer folds or a longer log."
        )
    strata = 2 * problem.t[rows] + problem.y[rows]
    content = problem.outcome_design.row_hash[rows] * np.uint64(7) + strata.astype(np.uint64)
    rng = np.random.default_rng(seed)
    return deal(shuffled_order(own, content, strata, rng), hands, rng)[own]


Fitter = Callable[[Outer], MemberFit]


def _regressor(member: Any, recipe: SuperLearner, blocks: Sequence[Block], bar: _Announcer) -> Fitter:
    """How one member is fitted outside an outer fold."""
    plain = NuisanceRecipe(recipe.propensity, recipe.outcome, recipe.calibrate)
    grams = [b.name for b in blocks if b.kind == "ngrams"]
    if member == "ridge":
        return lambda outer: members.fit_regression(members.drop_blocks(outer, grams), plain)
    if member == "ngrams":
        parts = members.ngram_parts(blocks)
        return lambda outer: members.fit_regression(
            members.add_parts(members.drop_blocks(outer, grams), parts), plain
        )
    if member == "bottleneck":
        learn = members.bottleneck_model(blocks, recipe.width, recipe.random_state)
        return lambda outer: members.fit_text_member(outer, blocks, learn, plain, recipe.parts)
    if member == "tuned":
        settings = {
            "encoder": recipe.encoder,
            "method": recipe.method,
            "epochs": recipe.epochs,
            "lr": recipe.lr,
        }
        learn = members.tuned_model(settings, recipe.random_state, bar.tuning if recipe.progress else None)
        return lambda outer: members.fit_text_member(
            outer, blocks, learn, plain, recipe.rounds or recipe.parts
        )
    return lambda outer: members.fit_regression(outer, replace(plain, propensity=member, outcome=member))


class _Announcer:
    """A bar over members and outer folds, and the labels of the bars below it."""

    def __init__(self, recipe: SuperLearner, folds: int) -> None:
        self.recipe, self.folds, self.tuned = recipe, folds, 0
        self.bar: Any = None

    def __enter__(self) -> _Announcer:
        from tqdm import tqdm

        total = self.folds * len(self.recipe.members)
        self.bar = tqdm(
            total=total, desc="super learner", unit="fit", delay=2, disable=not self.recipe.progress
        )
        return self

    def __exit__(self, *raised: object) -> None:
        self.bar.close()

    def run(self, k: int, name: str, fit: Fitter, outer: Outer) -> MemberFit:
        """Fit one member outside outer fold k, said aloud."""
        self.bar.set_description(f"super learner: {name}, fold {k + 1} of {self.folds}")
        done = fit(outer)
        self.bar.update()
        return done

    def tuning(self) -> str:
        """Label of the next tuned encoder."""
        self.tuned += 1
        return f"tuning encoder {self.tuned} of {self.folds * (self.recipe.rounds or self.recipe.parts)}"
