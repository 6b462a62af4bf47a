"""What do the fitted models leave in the words? Residuals of exposure and clicks, probed on held-out rows.

With e and m fitted on other users, T − e and Y − m_T have mean zero given the words if e and m have taken all that the
words say. What is left shows in *pairs*: for two impressions of different users, of one item or with like words,
E[r_i r_j] is the product of what was left in either. The statistic is the score of a further linear representation
of the words, or of the item, which the fit was not given (``pairs``): Q(r, r) has mean zero if nothing is left, and a
positive one otherwise. Rows of one fold share their models and have trained neither. The folds are drawn anew, by user
alone: those of the fit are balanced by exposure and clicks, so that impressions that share a fold tell of each other.

The words bias the effect only if they are left in both. The same pairs, one row for the exposure and another for the
clicks, estimate that product in clicks per impression: Robins, Li, Tchetgen & van der Vaart (2008); as omitted-variable
bias, Chernozhukov et al. (2022), "Long story short".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from causalrec._display import Displayable
from causalrec.check.balance import adjusts_for_ngrams
from causalrec.check.pairs import Kernel, Residuals, count_pairs, product, score_test
from causalrec.check.refuters import CheckRecord
from causalrec.check.topics import find_topics
from causalrec.errors import EstimationError, RepresentationError
from causalrec.estimate import Fit
from causalrec.log import ImpressionLog
from causalrec.nuisance import SuperLearner, fit_nuisances
from causalrec.represent.ngrams import ngram_blocks

NAME = "words_left"
LEVEL = 0.05
NOISE = 1.5
"""Standard errors of the effect up to which that of the items' bias is worth a verdict; else the words' bias is taken."""
LEAST_PAIRS = 50
"""Pairs of impressions of one item, by different users in one fold, from which they are looked at."""


@dataclass(frozen=True)
class Probe(Displayable):
    """What one further representation finds.

    Attributes
    ----------
    name : str
    z_exposure, z_outcome : float
        Q over its standard deviation without anything left.
    bias, bias_se : float
        What the effect would lose if this were adjusted for as well, and its standard error; clicks per impression.
    """

    name: str
    z_exposure: float
    z_outcome: float
    bias: float
    bias_se: float


@dataclass(frozen=True)
class Probes(Displayable):
    """All probes of one fit.

    Attributes
    ----------
    p_exposure, p_outcome : float
        P-values of nothing left, over all probes.
    bias, bias_se, p_bias : float
        Of the probe by which the verdict goes: that of the items unless it is too noisy (``NOISE``).
    probes : tuple of Probe
    """

    p_exposure: float
    p_outcome: float
    bias: float
    bias_se: float
    p_bias: float
    probes: tuple[Probe, ...]

    def _rows(self) -> list[dict[str, Any]]:
        return [vars(p) for p in self.probes]


def words_left(fit: Fit, rng: np.random.Generator) -> tuple[CheckRecord, ...]:
    """The record of ``probe``, or none where there are neither words nor items to look at."""
    kernels = further_representations(fit)
    if not kernels:
        return ()
    if isinstance(fit.nuisances.recipe, SuperLearner):
        said = "Not probed: a super learner is not refitted for it; probe a fit with the default nuisances."
        return (CheckRecord(NAME, None, float("nan"), None, said),)
    try:
        return (_record(probe(fit, kernels, rng), fit),)
    except EstimationError as error:
        return (CheckRecord(NAME, None, float("nan"), None, f"The residuals could not be probed: {error}"),)


def further_representations(fit: Fit) -> tuple[Kernel, ...]:
    """Word n-grams of each text column (topics, if the plan adjusts for n-grams), and the item (or else the text)."""
    log = fit.log
    kernels = _topics(log) if adjusts_for_ngrams(fit) else _ngrams(log)
    groups = [("the item", log.items)] if log.items is not None else []
    if not groups and log.roles.text:
        groups = [("the text", log.texts(log.roles.text[0])[1])]
    return (*kernels, *(Kernel(name, codes) for name, codes in groups if codes is not None))


def _ngrams(log: ImpressionLog) -> list[Kernel]:
    try:
        blocks = ngram_blocks(log)
    except RepresentationError:  # no text has a word
        return []
    return [_whitened(f"the words of {b.columns[0]}", b.values, b.codes) for b in blocks]


def _topics(log: ImpressionLog) -> list[Kernel]:
    found = ((name, find_topics(*log.texts(name))) for name in log.roles.text)
    return [_whitened(f"the topics of {name}", t.shares, t.codes) for name, t in found if t is not None]


def _whitened(name: str, values: npt.NDArray[Any], codes: npt.NDArray[np.int64]) -> Kernel:
    """Mean 0 and covariance I over the rows, directions without variance left out."""
    x = values.astype(np.float64)
    share = np.bincount(codes, minlength=len(x)) / len(codes)
    x = x - share @ x
    variance, directions = np.linalg.eigh((x * share[:, None]).T @ x)
    kept = variance > 1e-6 * max(float(variance.max()), 1e-12)
    return Kernel(name, codes, x @ (directions[:, kept] / np.sqrt(variance[kept])))


def probe(fit: Fit, kernels: tuple[Kernel, ...], rng: np.random.Generator) -> Probes:
    """Refit on folds of their own, and look for what is left.

    Raises
    ------
    EstimationError
        The nuisances cannot be fitted on these folds, or no probe has enough pairs.
    """
    r = residuals(fit, rng)
    kernels = tuple(k for k in kernels if k.values is not None or count_pairs(k, r) >= LEAST_PAIRS)
    if not kernels:
        raise EstimationError(f"fewer than {LEAST_PAIRS} pairs of impressions share an item.")
    z_exposure, p_exposure = score_test(r.exposure, kernels, r, rng)
    z_outcome, p_outcome = score_test(r.outcome, kernels, r, rng)
    biases = [product(k, r, rng) for k in kernels]
    probes = tuple(
        Probe(k.name, float(a), float(b), *bias)
        for k, a, b, bias in zip(kernels, z_exposure, z_outcome, biases, strict=True)
    )
    chosen = probes[-1] if probes[-1].bias_se <= NOISE * fit.std_error else probes[0]
    p_bias = float(2 * stats.norm.sf(abs(chosen.bias) / chosen.bias_se)) if chosen.bias_se > 0 else 1.0
    return Probes(p_exposure, p_outcome, chosen.bias, chosen.bias_se, p_bias, probes)


def residuals(fit: Fit, rng: np.random.Generator) -> Residuals:
    """Residuals of the fit's models on folds that were drawn by user, without a look at exposure or clicks."""
    a, log = fit.analysis, fit.log
    n_folds = int(a.nuisances.fold.max()) + 1
    hand = np.empty(log.n_units, dtype=np.int64)
    hand[log.unit_order] = rng.permutation(log.n_units) % n_folds
    problem = replace(a.nuisances.problem, fold=hand[log.units], in_pairs=False, sub=None)
    nu = fit_nuisances(problem, a.nuisances.recipe)
    t, y, w = problem.t, problem.y, problem.w
    e = a.settings.clip.apply(nu.propensity)
    s = y - np.where(t == 1, nu.outcome_1, nu.outcome_0)
    if a.settings.estimand == "att":
        influence = (1 - t) * s / (1 - e) ** 2 / float(np.average(t, weights=w))
    elif a.settings.estimand == "ato":
        l_hat = nu.propensity * nu.outcome_1 + (1 - nu.propensity) * nu.outcome_0
        influence = (y - l_hat) / float(np.average((t - nu.propensity) ** 2, weights=w))
    else:
        influence = t * s / e**2 + (1 - t) * s / (1 - e) ** 2
    return Residuals(w * (t - nu.propensity), w * s, w * influence, w, problem.fold, log.units)


def verdict(found: Probes) -> bool | None:
    """Passed if nothing shows in one of the two; failed if something shows in both and in their product; else None."""
    if max(found.p_exposure, found.p_outcome) > LEVEL:
        return True
    return None if found.p_bias > LEVEL else False


def _record(found: Probes, fit: Fit) -> CheckRecord:
    """The verdict in words; a remark only where the effect is corrected for what the models leave."""
    where = " and ".join(p.name for p in found.probes)
    said = (
        f"What the fit leaves in {where} {_moves(found.p_exposure)} exposure (p = {found.p_exposure:.3f}) and "
        f"{_moves(found.p_outcome)} clicks (p = {found.p_outcome:.3f})"
    )
    size = f"{found.bias:+.4f} ± {1.96 * found.bias_se:.4f} clicks per impression (p = {found.p_bias:.3f})"
    ok = verdict(found)
    corrected = "same_item" in fit.analysis.correction.kernels
    if ok:
        tail = f". Bias takes both; together they come to {size}."
    elif ok is None:
        tail = f". Together they come to a bias of {size}, which cannot be told from none."
    elif fit.analysis.correction.kernels == ("similar",):
        tail = f". Together they bias a first-order estimate by about {size}; rows with like texts have taken out what they show of it, and half of that is allowed for: {_advice(fit)}"
    elif "cells" in fit.analysis.correction.kernels:
        tail = f". Together they bias a first-order estimate by about {size}; pairs of rows have taken out what differs between cells of the embedding, not the rest: {_advice(fit)}"
    elif "basis" in fit.analysis.correction.kernels:
        tail = f". Together they bias a first-order estimate by about {size}; pairs of rows have taken out what goes with the columns that were adjusted for, not the rest: {_advice(fit)}"
    elif corrected:
        tail = f". Together they bias a first-order estimate by about {size}; pairs of rows have taken that out of this one."
    else:
        tail = f". Together they bias the effect by about {size}: {_advice(fit)}"
    ok = None if corrected and ok is False else ok
    return CheckRecord(NAME, ok, found.bias, max(found.p_exposure, found.p_outcome), said + tail)


def _moves(p: float) -> str:
    return "does not move" if p > LEVEL else "moves"


def _advice(fit: Fit) -> str:
    """What to do about words, or items, that bias the effect."""
    if not fit.log.roles.text:
        return "something that goes with the item was not adjusted for; declare it as a confounder."
    said = "what is adjusted for does not hold all that the words say"
    if adjusts_for_ngrams(fit):
        return f"{said}. Compare another encoder in embed, or a longer log."
    return f"{said}. Add a representation of them (ngrams=True in embed)."
