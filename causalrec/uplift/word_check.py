"""Do the words of an item tell its effect? A process fitted to the training items, checked on items held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from causalrec.errors import EstimationError
from causalrec.estimate import Fit
from causalrec.uplift.bench import training_scores
from causalrec.uplift.text_effects import Items, TextEffects, fit_text_effects, item_means
from causalrec.uplift.topics import text_block

F64 = npt.NDArray[np.float64]
MIN_ITEMS = 30
FOLDS = 5
CONFIDENT = 1.645
"""Standard errors by which predictions from words have to beat the average effect (one-sided 5 %)."""


@dataclass(frozen=True)
class WordCheck:
    """How well the effects of items were predicted that the prediction had not seen.

    Attributes
    ----------
    n_items : int
        Items held out, each once.
    share_explained, share_lower, share_upper : float
        Share of the items' spread beyond noise that their words predict; negative if they mislead. 95 % interval over items.
    explains : bool
        Whether words beat the average effect, one-sided at 5 %.
    coverage, coverage_lower, coverage_upper : float
        Share of the held-out items' mean scores inside their interval (noise of the mean allowed for), and its own 95 % interval.
    share_noise : float
        Share of that interval's variance that is noise of the mean: near 1, coverage says little of the effects themselves.
    scale : float
        Factor ≥ 1 by which intervals are widened so that held-out items are covered (conformal).
    """

    n_items: int
    share_explained: float
    share_lower: float
    share_upper: float
    explains: bool
    coverage: float
    coverage_lower: float
    coverage_upper: float
    share_noise: float
    scale: float


def learn_from_words(fit: Fit, alpha: float, rng: np.random.Generator) -> tuple[TextEffects, WordCheck]:
    """The process fitted to the training items (without words if they explain nothing), and its check on held-out items."""
    items = training_items(fit)
    check = _check(items, alpha, rng)
    return fit_text_effects(items, words=check.explains), check


def training_items(fit: Fit) -> Items:
    """Mean scores and embeddings of the distinct texts of the training log.

    Raises
    ------
    EstimationError
        No text block, or fewer than 30 distinct texts.
    """
    block = text_block(fit.log)
    if block is None:
        raise EstimationError(
            "the fit's log has no text block, so that unseen items cannot be told apart: declare text= in read_log and embed the log."
        )
    w = np.ones(len(fit.log)) if fit.log.weights is None else fit.log.weights
    used = w > 0
    shown, codes = np.unique(block.codes[used], return_inverse=True)
    if len(shown) < MIN_ITEMS:
        raise EstimationError(
            f"the training log has {len(shown)} distinct texts, must have >= {MIN_ITEMS} to learn how effects go with words; use a longer log."
        )
    return item_means(training_scores(fit)[used], w[used], codes.astype(np.int64), block.values[shown])


def _check(items: Items, alpha: float, rng: np.random.Generator) -> WordCheck:
    """Whether the process predicts items that it has not seen, and whether its interval holds them; five folds of items."""
    u = len(items.y)
    fold = rng.permutation(np.arange(u) % FOLDS)
    plain, worded = np.zeros((2, u)), np.zeros((2, u))
    for f in range(FOLDS):
        out = fold == f
        for words, found in ((False, plain), (True, worded)):
            found[:, out] = fit_text_effects(items.take(~out), words).predict(items.z[out])
    weight = 1 / items.noise
    gain = (items.y - plain[0]) ** 2 - (items.y - worded[0]) ** 2
    mean = float(np.average(gain, weights=weight))
    se = float(np.sqrt(np.sum((weight * (gain - mean)) ** 2)) / weight.sum())
    explains = bool(mean > CONFIDENT * se)
    chosen = worded if explains else plain
    noise = u / weight.sum()
    beyond = float(np.average((items.y - plain[0]) ** 2, weights=weight)) - noise
    spread = max(beyond, noise * np.sqrt(2 / u))  # noise alone spreads by so much
    allowed = chosen[1] + items.noise
    residual = np.abs(items.y - chosen[0]) / np.sqrt(allowed)
    factor = np.array([_scale(residual[fold != f], alpha) for f in range(FOLDS)])
    share, lower, upper = (float((mean + k * se) / spread) for k in (0, -1.96, 1.96))
    coverage = share_true(residual <= quantile(alpha) * factor[fold])
    share_noise = float(items.noise.mean() / allowed.mean())
    return WordCheck(u, share, lower, upper, explains, *coverage, share_noise, _scale(residual, alpha))


def _scale(residual: F64, alpha: float) -> float:
    """The factor, no less than 1, with which normal intervals hold ⌈(1 − α)(n + 1)⌉ of n held-out residuals."""
    rank = min(int(np.ceil((1 - alpha) * (len(residual) + 1))), len(residual))
    return max(float(np.sort(residual)[rank - 1]) / quantile(alpha), 1.0)


def quantile(alpha: float) -> float:
    """Half the width, in standard deviations, of a normal interval that misses with probability α."""
    from scipy.stats import norm

    return float(norm.ppf(1 - alpha / 2))


def share_true(covered: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
    """Share that is true with its exact 95 % interval. Clopper & Pearson (1934)."""
    from scipy.stats import binomtest

    found = binomtest(int(covered.sum()), len(covered))
    interval = found.proportion_ci(0.95)
    return float(covered.mean()), float(interval.low), float(interval.high)
