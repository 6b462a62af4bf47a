"""Scores of rows that a fit has not seen: nuisances of the training users, pairs of the held-out rows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np
import numpy.typing as npt

from causalrec import scores
from causalrec import second_order as so
from causalrec.blocks import Block
from causalrec.errors import EstimationError, HonestyError
from causalrec.estimate import Fit
from causalrec.estimate.analysis import Analysis, Inputs
from causalrec.estimate.fit import covariates, words_of
from causalrec.estimate.partners import (
    MIN_SERVED,
    basis_columns,
    cells_of,
    most_axes,
    repeated_items,
    wide_parts,
)
from causalrec.estimate.rule import varies
from causalrec.estimate.same_pairs import clusters
from causalrec.estimate.similar import Observed, Texts
from causalrec.kernels import (
    BlockOfPairs,
    ClusterKernel,
    Kernel,
    Rows,
    Values,
    basis_kernel,
    cluster_kernel,
    serve_both,
)
from causalrec.log import MIN_ARM, ImpressionLog
from causalrec.nuisance.design import Design, Part

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
F32 = npt.NDArray[np.float32]
LEAST_ROWS, LEAST_UNITS = 10, 2
"""Rows and users that either arm of a group must have for the group's effect to be given."""
_KNOWN: WeakKeyDictionary[ImpressionLog, tuple[ref[Analysis], HeldOut]] = WeakKeyDictionary()
"""The scores of each log under the last analysis that was asked for, as long as both are in use: verbs share them."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Doubly robust scores of held-out rows and what their means need; clicks per impression.

    Attributes
    ----------
    psi : (n,)
        Scores of the ATE; E[psi | X] is the conditional effect. Corrected by pairs where ``pairs`` is given.
    t, y : (n,) treatment 0/1 and outcome
    e, m0, m1 : (n,)
        Nuisances fitted to the training users alone, e clipped.
    units : (n,) codes
    items : (n,) codes or None
        For errors clustered both ways; None where nothing repeats.
    weights : (n,) row weights, ones where none are declared
    pairs : HeldOutPairs, HeldOutTexts or None
        Partners among the held-out rows; none of their users trained, so that all of them may meet.
    note : str
        Of which order the scores are, and why.
    """

    psi: F64 = field(repr=False)
    t: F64 = field(repr=False)
    y: F64 = field(repr=False)
    e: F64 = field(repr=False)
    m0: F64 = field(repr=False)
    m1: F64 = field(repr=False)
    units: Ints = field(repr=False)
    items: Ints | None = field(repr=False)
    weights: F64 = field(repr=False)
    pairs: HeldOutPairs | HeldOutTexts | None = field(repr=False)
    note: str

    def __len__(self) -> int:
        return len(self.psi)

    @property
    def order(self) -> int:
        """2 if the scores are corrected by pairs of rows, else 1."""
        return 1 if self.pairs is None else 2

    @property
    def n_clusters(self) -> int:
        """Clusters on which degrees of freedom rest: the fewest of users, items, and users in either arm."""
        return _fewest(self.t, self.units, self.items)

    def has_both_arms(self, here: Mask) -> bool:
        """Whether the rows `here` have at least 10 of positive weight, of 2 users, in either arm: else their effect is extrapolation."""
        arms = [here & (self.weights > 0) & (self.t == arm) for arm in (0.0, 1.0)]
        return all(int(a.sum()) >= LEAST_ROWS and len(np.unique(self.units[a])) >= LEAST_UNITS for a in arms)

    def effect(self, here: Mask | None = None, alpha: float = 0.05) -> scores.Estimate:
        """Mean effect of all rows, or of the rows `here`, with a clustered t interval.

        Pairs inside the group correct a group's mean where the scores are of second order and enough rows of the
        group have partners in it; otherwise it is the group's mean of ``psi``.
        """
        rows = np.ones(len(self), dtype=bool) if here is None else here
        if not (self.weights[rows] > 0).any():
            raise EstimationError("the group has no held-out rows of positive weight.")
        best = None if self.pairs is None else self.pairs.estimate(rows)
        units = np.unique(self.units[rows], return_inverse=True)[1]
        items = None if self.items is None else np.unique(self.items[rows], return_inverse=True)[1]
        few = _fewest(self.t[rows], units, None)
        if isinstance(best, so.PairEstimate):
            return scores.estimate_of(best.value, best.influence, units, items, alpha, few, best.may_remain)
        pair = (self.psi[rows], np.ones(int(rows.sum())))
        return scores.clustered_ratio(pair, units, items, self.weights[rows], alpha, few)


@dataclass(frozen=True, eq=False)
class HeldOutPairs:
    """The held-out rows as one set in which every pair may meet.

    Attributes
    ----------
    rows : Rows
        Items are cells of the embedding where the fit's are.
    values : Values
        Nuisances at every row, those of the training users.
    kernels : tuple of "same_item", "same_user", "basis"
    centre : (mean of e, mean of m0, standard deviation of the outcome)
    wide : tuple of Part
        Of the design, for the basis kernel.
    """

    rows: Rows = field(repr=False)
    values: Values = field(repr=False)
    kernels: tuple[str, ...]
    centre: so.Centre
    wide: tuple[Part, ...] = field(default=(), repr=False)

    def estimate(self, here: Mask) -> so.PairEstimate | str:
        """The second-order ATE of the rows `here`, from the pairs among them; or why pairs say nothing of it."""
        where = np.flatnonzero(here)
        rows, block = self._among(where)
        kernels = [self._kernel(k, rows, where) for k in self.kernels]
        if len(kernels) == 2 and isinstance(kernels[1], ClusterKernel):
            kernels = serve_both(kernels[0], kernels[1], rows)
        served = float(kernels[0].served.mean())
        if served < MIN_SERVED:
            return (
                f"only {100 * served:.0f} % have a partner among them, fewer than {100 * MIN_SERVED:.0f} %."
            )
        found = so.all_totals(rows, kernels, lambda: [block], "ate", self.centre)
        if not varies(found):
            return "exposure hardly varies between partners."
        return so.pair_estimate(rows, kernels, lambda: [block], "ate", self.centre, found)

    def _kernel(self, name: str, rows: Rows, where: npt.NDArray[np.intp]) -> Kernel:
        one_set = np.zeros(len(where), dtype=np.int64)
        if name == "basis":
            most = most_axes(rows, one_set, True)
            return basis_kernel(basis_columns(self.wide, where), rows, one_set, True, most)
        return cluster_kernel(name, rows, one_set, True)

    def _among(self, where: npt.NDArray[np.intp]) -> tuple[Rows, BlockOfPairs]:
        """Some rows by themselves, numbered anew."""
        r, v = self.rows, self.values
        items = None if r.items is None else r.items[where]
        parts = (v.e, v.m0, v.m1, v.e_words, v.m0_words, v.m1_words)
        at = Values(np.arange(len(where)), *(p[where] for p in parts))
        return Rows(r.t[where], r.y[where], r.w[where], r.units[where], items), BlockOfPairs(at, None)


@dataclass(frozen=True, eq=False)
class HeldOutTexts:
    """The held-out rows and their texts, where likeness of texts corrects the fit."""

    observed: Observed = field(repr=False)

    def estimate(self, here: Mask) -> so.PairEstimate | str:
        """The second-order ATE of the rows `here`, from pairs of like texts among them; or why they say nothing of it."""
        try:
            return self.observed.take(np.flatnonzero(here)).estimate("ate")[0]
        except EstimationError as error:
            return str(error)


def held_out(fit: Fit, test: ImpressionLog) -> HeldOut:
    """Score the rows of users that the fit has not seen.

    Nuisances are those of the training users (the mean over the fold models), or the logged propensities. Where the
    fit is of second order and items (or users' rows) repeat in `test`, pairs of held-out rows correct the scores.

    Raises
    ------
    HonestyError
        Users of `test` were in the fit.
    EstimationError
        An arm has too few held-out rows, or the logs were read differently.

    Scores depend on the fit's nuisances and not on its model of the effect; they are kept while fit and log are in use, so that
    ``uplift``, ``target``, ``explain`` and ``cold_start`` score a log once.
    """
    known = _KNOWN.get(test)
    if known is not None and known[0]() is fit.analysis:
        return known[1]
    found = _scored(fit, test)
    _KNOWN[test] = (ref(fit.analysis), found)
    return found


def _scored(fit: Fit, test: ImpressionLog) -> HeldOut:
    check_unseen(fit.log, test)
    covered = _covered(fit, test)
    inputs = Inputs(
        test.treatment, test.outcome, covered, test.units, test.items, test.weights, test.logged_propensity,
        texts=words_of(test, tuple(str(c.name) for c in covered)),
    )  # fmt: skip
    design, (e, m0, m1) = _nuisances(fit, test, inputs)
    by_cells = "cells" in fit.correction.kernels
    repeated = (
        cells_of(inputs, fit.analysis.settings.correction.rows_a_cell) if by_cells else repeated_items(inputs)
    )
    items = clusters(inputs, replace(fit.correction, items=repeated))
    weights = np.ones(len(test)) if test.weights is None else test.weights
    psi = scores.aipw_ate(inputs.t, inputs.y, e, m0, m1)[0]
    plain = HeldOut(
        psi, inputs.t, inputs.y, e, m0, m1, inputs.units, items, weights, None, "First-order (AIPW) scores."
    )
    if fit.correction.kernels == ("similar",):
        return _by_likeness(fit, plain, covered, list(inputs.texts))
    return _corrected(fit, plain, repeated, design) if fit.correction.order == 2 else plain


def held_out_scores(fit: Fit, test: ImpressionLog) -> F64:
    """(n,) scores of rows that the fit has not seen; see ``held_out``."""
    return held_out(fit, test).psi


def _corrected(fit: Fit, plain: HeldOut, repeated: Ints | None, design: Design) -> HeldOut:
    """The same rows with pair-corrected scores, or with the reason why they stay of first order."""
    wide = wide_parts(design) if "basis" in fit.correction.kernels else ()
    there = {"same_user": True, "same_item": repeated is not None, "basis": bool(wide)}
    names = tuple("same_item" if k == "cells" else k for k in fit.correction.kernels)
    kernels = tuple(k for k in names if there[k])
    if not kernels:
        why = (
            f"the held-out rows have no pairs of the kind by which the fit is corrected ({', '.join(names)})."
        )
        return replace(plain, note=f"First-order (AIPW) scores: {why}")
    rows = Rows(plain.t, plain.y, plain.weights / plain.weights.mean(), plain.units, repeated)
    at = Values(np.arange(len(plain)), plain.e, plain.m0, plain.m1, plain.e, plain.m0, plain.m1)
    centre = (float(plain.e.mean()), float(plain.m0.mean()), float(np.std(plain.y)))
    pairs = HeldOutPairs(rows, at, kernels, centre, wide)
    best = pairs.estimate(np.ones(len(plain), dtype=bool))
    if isinstance(best, str):
        return replace(plain, note=f"First-order (AIPW) scores: of the held-out rows {best}")
    said = "Scores corrected by pairs of held-out rows, as the fit is."
    return replace(plain, psi=best.scores, pairs=pairs, note=said)


def _by_likeness(fit: Fit, plain: HeldOut, covered: list[Any], texts: list[Texts]) -> HeldOut:
    """The same rows with scores corrected by held-out rows whose texts are alike."""
    blocks = [c for c in covered if isinstance(c, Block)]
    clip = fit.analysis.settings.clip
    w = plain.weights / plain.weights.mean()
    pairs = HeldOutTexts(Observed(plain.t, plain.y, plain.e, plain.m0, plain.m1, w, plain.units, clip, blocks, texts))
    best = pairs.estimate(np.ones(len(plain), dtype=bool))
    if isinstance(best, str):
        return replace(plain, note=f"First-order (AIPW) scores: {best}")
    said = "Scores corrected by held-out rows whose texts are alike, as the fit is; intervals of groups allow for half of it more or less, those of curves do not."
    return replace(plain, psi=best.scores, pairs=pairs, note=said)


def _covered(fit: Fit, test: ImpressionLog) -> list[Any]:
    """The fit's covariates, as the test log has them."""
    return list(covariates(test, tuple(str(c.name) for c in fit.analysis.inputs.covariates)))


def _nuisances(fit: Fit, test: ImpressionLog, inputs: Inputs) -> tuple[Design, tuple[F64, F64, F64]]:
    """The design of the test rows, and (e, m0, m1), (n,) each, e clipped as in the fit."""
    recipe = fit.nuisances.design_recipe
    if recipe is None:
        raise EstimationError(
            "these nuisances do not say how their design was made; fit them with estimate(log, plan)."
        )
    design, problem = recipe.apply(inputs.covariates, len(test)), fit.nuisances.problem
    e, m0, m1 = fit.nuisances.predict(
        design.keep(problem.propensity_design.owners), design.keep(problem.outcome_design.owners)
    )
    if inputs.logged is None and fit.nuisances.logged:
        raise EstimationError(
            "the fit's propensities were logged, so there is no model of them, and the test log declares no propensity=; read both logs alike."
        )
    return design, (fit.analysis.settings.clip.apply(e if inputs.logged is None else inputs.logged), m0, m1)


def check_unseen(train: ImpressionLog, test: ImpressionLog) -> None:
    """Raise unless no unit of `test` is in `train` and both arms have rows enough."""
    shared = train.shared_units(test)
    if shared:
        raise HonestyError(
            f"{shared:,} of {test.n_units:,} units of the test log were in the fit; a ranking is judged on users that it has not seen: train, test = log.split(…)."
        )
    for arm, word in ((1.0, "treated"), (0.0, "control")):
        count = int((test.treatment == arm).sum())
        if count < MIN_ARM:
            raise EstimationError(
                f"the test log has {count} {word} rows, must have >= {MIN_ARM}; split off more users."
            )


def _fewest(t: F64, units: Ints, items: Ints | None) -> int:
    arms = [len(np.unique(units[t == arm])) for arm in (0.0, 1.0)]
    return min(*arms, *([] if items is None else [len(np.unique(items))]))
