"""Could either arm have happened to each row? Measured, and refused where an estimate would be an extrapolation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from causalrec import scores
from causalrec.blocks import Block
from causalrec.errors import OverlapError
from causalrec.nuisance import Clip, auc

if TYPE_CHECKING:
    from causalrec.estimate.analysis import Inputs

F64 = npt.NDArray[np.float64]
MAX_AUC = 0.97
MIN_ESS = 50.0
MIN_ESS_SHARE = 0.01
MAX_CLIPPED = 0.25
EDGE_SHARE, EDGE_ROWS, EDGE_EXPECTED = 0.02, 100, 5.0
"""The edge: this share of the rows with the lowest (highest) propensities, at least so many, of which the models expect so many
in the rarer arm or more; with fewer expected nothing can be told."""
EDGE_LEVEL = 1e-3
"""Chance, if the models are right, of so few rows below which the edge is named. And they must be fewer than half of what is
expected: rows of one item are alike, and chance is wider than for single rows."""


@dataclass(frozen=True)
class Overlap:
    """How much the arms overlap, at the clip that is used.

    Attributes
    ----------
    quantiles : tuple of float
        1, 5, 25, 50, 75, 95 and 99 % quantile of the propensity before clipping.
    auc : float
        Of the treatment by its out-of-fold propensity; .5 = as if randomised, 1 = no overlap.
    ess_treated, ess_control : float
        Kish's effective sample size of the weights 1/e and 1/(1−e), rows.
    n_treated, n_control : int
    max_weight_share : float
        Largest weight's share in its arm.
    share_clipped : float
    share_outside_05 : float
        Share of rows with a propensity outside [.05, .95].
    edges : tuple of (arm, rows, seen, expected)
        Ends of the propensity at which far fewer rows are in an arm than the models say: one of the two, or both, or none.
    """

    quantiles: tuple[float, ...]
    auc: float
    ess_treated: float
    ess_control: float
    n_treated: int
    n_control: int
    max_weight_share: float
    share_clipped: float
    share_outside_05: float
    edges: tuple[tuple[str, int, int, float], ...] = ()

    @property
    def ess(self) -> float:
        """Both arms together, rows."""
        return self.ess_treated + self.ess_control


QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def measure_overlap(
    t: F64, propensity: F64, clip: Clip, weights: F64 | None = None, estimand: str = "ate"
) -> Overlap:
    """Measure overlap from out-of-fold propensities, (n,), by the weights of the estimand."""
    w = np.ones_like(t) if weights is None else weights
    balancing = w * balancing_weights(t, propensity, clip, estimand)
    arms = [balancing[t == arm] for arm in (1, 0)]
    counted = (w > 0) & ((propensity > 1 - clip.bound) | ((propensity < clip.bound) & (estimand == "ate")))
    return Overlap(
        tuple(float(q) for q in np.quantile(propensity, QUANTILES)),
        auc(propensity, t),
        scores.ess(arms[0]),
        scores.ess(arms[1]),
        int((arms[0] > 0).sum()),
        int((arms[1] > 0).sum()),
        float(max(a.max() / a.sum() for a in arms)),
        0.0 if estimand == "ato" else float(counted.sum() / (w > 0).sum()),
        float(((propensity < 0.05) | (propensity > 0.95)).mean()),
        _thin_edges(t[w > 0], propensity[w > 0], estimand),
    )


def _thin_edges(t: F64, e: F64, estimand: str) -> tuple[tuple[str, int, int, float], ...]:
    """Where hardly any row was in an arm although the models expect some: (arm, rows, seen, expected).

    A regression on what the words say smooths over a few texts that are never shown. Its out-of-fold propensities stay clear of
    the clip, and the outcome models extrapolate; but at the end of the propensity where these texts stand the arm is missing.
    """
    rows = max(EDGE_ROWS, int(EDGE_SHARE * len(t)))
    if estimand == "ato" or len(t) < 4 * rows:
        return ()
    order = np.argsort(e, kind="stable")
    ends = {"control": (order[-rows:], 1 - t, 1 - e)}
    if estimand == "ate":
        ends["treated"] = (order[:rows], t, e)
    out = []
    for arm, (here, in_arm, chance) in ends.items():
        seen, expected = int(in_arm[here].sum()), float(chance[here].sum())
        few = seen < expected / 2 and expected >= EDGE_EXPECTED
        if few and binom.cdf(seen, rows, expected / rows) < EDGE_LEVEL:
            out.append((arm, rows, seen, expected))
    return tuple(out)


def balancing_weights(t: F64, propensity: F64, clip: Clip, estimand: str) -> F64:
    """(n,) weights under which both arms stand for the estimand's population.

    ATE: 1/e and 1/(1 − e); ATT: 1 and e/(1 − e); ATO: 1 − e and e. Li, Morgan & Zaslavsky (2018), table 1.
    """
    if estimand == "ato":
        return np.where(t == 1, 1 - propensity, propensity)
    if estimand == "att":
        e = clip.apply_above(propensity)
        return np.where(t == 1, 1.0, e / (1 - e))
    e = clip.apply(propensity)
    return np.where(t == 1, 1 / e, 1 / (1 - e))


def refuse_if_hopeless(overlap: Overlap, inputs: Inputs, estimand: str, logged: bool) -> tuple[str, ...]:
    """Raise ``OverlapError`` for an ATE or ATT without support; return what a reader has to know otherwise."""
    reason = _why_hopeless(overlap, inputs, estimand, logged)
    if reason and estimand != "ato":
        raise OverlapError(
            f"the {estimand.upper()} cannot be estimated: {reason} Its value would be an extrapolation. "
            f"estimand='ato' gives the effect where either arm could have happened; {_by_projection(inputs, logged)}a randomised slice of the log would give the rest."
        )
    caveats = (
        [f"Little overlap: {reason} The ATO speaks of the few rows where either arm could have happened."]
        if reason
        else []
    )
    if overlap.share_clipped > 0.01 and estimand != "ato":
        caveats.append(
            f"{100 * overlap.share_clipped:.1f} % of the propensities were clipped: the interval does not cover the bias of clipping; compare estimand='ato'."
        )
    caveats += [
        f"Of the {rows:,} rows with the {'lowest' if arm == 'treated' else 'highest'} propensities {seen:,} are in the {arm} arm where {expected:.0f} are expected: "
        "there the effect is extrapolated from other texts, and the interval does not say so; compare estimand='ato'."
        for arm, rows, seen, expected in overlap.edges
    ]
    low = min(overlap.ess_treated / overlap.n_treated, overlap.ess_control / overlap.n_control)
    if low < 0.2 and estimand != "ato":
        caveats.append(
            f"The weights leave {100 * low:.0f} % of an arm as effective sample size; a few rows carry the estimate."
        )
    return tuple(caveats)


def _by_projection(inputs: Inputs, logged: bool) -> str:
    """What can be done where words give the treatment away and do not act on the outcome."""
    if logged or not any(isinstance(c, Block) and c.kind == "text" for c in inputs.covariates):
        return ""
    return "project_propensity(fit.analysis) of that fit adds the ATE if the words that give the treatment away do not act on the outcome; "


def _why_hopeless(overlap: Overlap, inputs: Inputs, estimand: str, logged: bool) -> str:
    texts = [c for c in inputs.covariates if isinstance(c, Block) and c.kind == "text"]
    if texts and not logged and _decide(texts, inputs.t):
        names = " and ".join(t.name for t in texts)
        return f"the treatment is a function of the text ({names}): no text that was shown repeatedly was ever in both arms."
    if overlap.auc > MAX_AUC:
        return f"what is adjusted for predicts the treatment almost perfectly (held-out AUC {overlap.auc:.3f} > {MAX_AUC}), as when the treatment is a function of the text."
    if overlap.share_clipped > MAX_CLIPPED:
        return f"{100 * overlap.share_clipped:.0f} % of the propensities are beyond the clip (more than {100 * MAX_CLIPPED:.0f} %)."
    arms = {
        "control": (overlap.ess_control, overlap.n_control),
        "treated": (overlap.ess_treated, overlap.n_treated),
    }
    for arm, (effective, rows) in arms.items():
        if estimand == "att" and arm == "treated":
            continue
        if effective < max(MIN_ESS * min(1, rows / 100), MIN_ESS_SHARE * rows):
            return f"the {arm} arm's {rows:,} rows have an effective sample size of {effective:.0f}."
    return ""


def _decide(texts: list[Block], t: F64) -> bool:
    """True if texts (alone, or all columns of a row together) repeat and hardly any is ever in both arms."""
    together = np.zeros(len(t), dtype=np.int64)
    for block in texts:
        together = np.unique(together * (int(block.codes.max()) + 1) + block.codes, return_inverse=True)[1]
    return any(_decides(codes, t) for codes in (*(b.codes for b in texts), together))


def _decides(codes: npt.NDArray[np.int64], t: F64) -> bool:
    count = np.bincount(codes)
    treated = np.bincount(codes, t)
    again = count >= 2
    rows = count[again].sum()
    if rows < 100 or again.sum() < 20:
        return False
    pairs = count[again] * (count[again] - 1.0)
    discordant = 2 * treated[again] * (count[again] - treated[again]) / pairs
    share = t.mean()
    return float((discordant * count[again]).sum() / rows) < 0.02 * 2 * share * (1 - share)
