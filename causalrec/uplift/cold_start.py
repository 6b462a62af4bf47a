"""What would recommending an item do that was never shown? The verb ``cold_start`` and its result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec._checks import as_generator, check_scalar
from causalrec._display import Displayable
from causalrec.errors import ArgumentError, EstimationError
from causalrec.estimate import Fit
from causalrec.log import ImpressionLog
from causalrec.uplift.bench import Bench, bench
from causalrec.uplift.text_effects import TextEffects, item_means
from causalrec.uplift.topics import text_block, texts_of
from causalrec.uplift.word_check import WordCheck, learn_from_words, quantile, share_true

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
QUARTERS = 4


@dataclass(frozen=True, eq=False)
class ColdStart(Displayable):
    """Effects of items (and users) that the fit has not seen.

    Attributes
    ----------
    check : WordCheck
        On held-out items of the training users.
    items : DataFrame
        Items of the test log: text, seen_in_training, distance, predicted effect and interval, n, observed effect and interval.
    users : DataFrame
        Quarters of the held-out users' rows by predicted effect: n, predicted and its mean interval, observed and its interval.
    new_items_covered : (share, lower, upper, n) or None
        Of the test log's items that training never showed; None if fewer than 20.
    alpha : float
    """

    check: WordCheck
    items: pd.DataFrame = field(repr=False)
    users: pd.DataFrame = field(repr=False)
    new_items_covered: tuple[float, float, float, int] | None
    alpha: float
    process: TextEffects = field(repr=False)
    fit: Fit = field(repr=False)

    @property
    def explains(self) -> bool:
        """Whether words tell items apart; if not, every unseen item is given the average effect over items."""
        return self.check.explains

    def for_texts(self, vectors: npt.ArrayLike) -> pd.DataFrame:
        """Predicted effects of items with these embeddings, (k, d), made by the transformer that embedded the log.

        Returns
        -------
        DataFrame with effect, ci_lower, ci_upper (clicks per impression, averaged over the users of the log) and distance.

        Raises
        ------
        ArgumentError
            The vectors have another width, or are not finite.
        """
        return _predictions(self.process, _vectors(vectors, self.process), self.check.scale, self.alpha)

    def for_users(self, log: ImpressionLog) -> pd.DataFrame:
        """Predicted effects of users from their modifiers: effect, ci_lower, ci_upper, one row an impression."""
        lower, upper = self.fit.cate_interval(log, self.alpha)
        return pd.DataFrame({"effect": self.fit.cate(log), "ci_lower": lower, "ci_upper": upper})

    def _title(self) -> str:
        c = self.check
        return f"Effects of unseen items from their words, checked on {c.n_items:,} held-out items"

    def _rows(self) -> list[dict[str, Any]]:
        c, p = self.check, self.process
        half = quantile(self.alpha) * c.scale * np.sqrt(p.nugget + p.signal + p.mean_variance)
        return [
            {"quantity": "effect of an item of which nothing is known", "estimate": p.mean, "ci_lower": p.mean - half, "ci_upper": p.mean + half},
            {"quantity": "share of the items' spread that words predict", "estimate": c.share_explained, "ci_lower": c.share_lower, "ci_upper": c.share_upper},
            {"quantity": f"coverage of {100 * (1 - self.alpha):g} % intervals, held-out items", "estimate": c.coverage, "ci_lower": c.coverage_lower, "ci_upper": c.coverage_upper},
        ]  # fmt: skip

    def _notes(self) -> list[str]:
        c = self.check
        verdict = (
            "Words predict which items gain more; the interval widens with the distance from the texts seen."
            if c.explains
            else "Words were not shown to predict items' effects better than one effect for all: unseen items are given the average effect over items."
        )
        notes = [
            verdict,
            f"{100 * c.share_noise:.0f} % of what the coverage check allows for is noise of the items' mean scores, the rest uncertainty of their effects"
            + ("; so it can hardly see whether the latter is right." if c.share_noise > 0.8 else "."),
        ]
        if c.scale > 1:
            notes.append(f"Intervals were widened {c.scale:.2f}-fold to cover held-out items.")
        if self.new_items_covered is not None:
            share, lower, upper, n = self.new_items_covered
            notes.append(
                f"Of {n:,} items that only held-out users were shown, {100 * share:.0f} % [{100 * lower:.0f}, {100 * upper:.0f}] lie inside their interval."
            )
        return [
            *notes,
            "An item's effect is its average over the users to whom it was a candidate; it is a prediction from words that go with effects, "
            "not an effect of the words.",
        ]


def cold_start(
    fit: Fit,
    test: ImpressionLog,
    *,
    alpha: float = 0.05,
    random_state: int | np.random.Generator | None = None,
) -> ColdStart:
    """Predict the effects of unseen items from their text, and of unseen users from their modifiers, and check both.

    Mean doubly robust scores of the training items are regressed on their embedding by a Gaussian process with what items
    have beyond their words as a variance of its own (``text_effects``). Five folds *of items* say whether words predict
    anything, whether intervals cover, and by how much they have to be widened (split conformal, the factor for each fold
    from the other four; Lei et al. 2018, §5.2). Where words predict nothing, every unseen item is given the average.

    Parameters
    ----------
    fit : Fit
        On the training users, whose log is embedded.
    test : ImpressionLog
        Other users, embedded alike; its items may be new.
    alpha : float
    random_state : int, Generator or None
        Draws the folds of items.

    Raises
    ------
    EstimationError
        No text block, or fewer than 30 distinct texts in training.
    HonestyError
        Users of `test` were in the fit.
    """
    judged = bench(fit, test, "cold_start")
    alpha = check_scalar(alpha, "alpha", gt=0, lt=1)
    if text_block(test) is None and text_block(fit.log) is not None:
        raise EstimationError(
            "the test log has no text block; embed it with the transformer of the training log."
        )
    process, check = learn_from_words(fit, alpha, as_generator(random_state))
    items = observed_items(fit, test, judged, process, check.scale, alpha)
    return ColdStart(check, items, _users(fit, test, judged, alpha), _new_items(items), alpha, process, fit)


def _predictions(process: TextEffects, z: F64, scale: float, alpha: float) -> pd.DataFrame:
    mean, variance = process.predict(z)
    half = quantile(alpha) * scale * np.sqrt(variance)
    return pd.DataFrame(
        {"effect": mean, "ci_lower": mean - half, "ci_upper": mean + half, "distance": process.distance(z)}
    )


def _vectors(vectors: npt.ArrayLike, process: TextEffects) -> F64:
    try:
        z = np.asarray(vectors, dtype=np.float64)
    except (TypeError, ValueError):
        raise ArgumentError(
            "vectors holds values that are no numbers; pass the embeddings of the texts, not the texts."
        ) from None
    width = process.texts.shape[1]
    if z.ndim != 2 or z.shape[1] != width or not np.isfinite(z).all():
        raise ArgumentError(
            f"vectors has shape {z.shape}; must be finite and (k, {width}), made by the transformer that embedded the log."
        )
    return z


def observed_items(
    fit: Fit, test: ImpressionLog, judged: Bench, process: TextEffects, scale: float, alpha: float
) -> pd.DataFrame:
    """The test log's items: predicted from words, and observed on held-out users with pooled noise."""
    block, trained = text_block(test), text_block(fit.log)
    if block is None or trained is None:
        raise EstimationError("the logs have no text block; embed both alike.")
    if block.width != trained.width:
        raise EstimationError(
            f"the test log's text block has {block.width} columns, the fit's {trained.width}; embed both with one transformer."
        )
    w, known = judged.held.weights, texts_of(trained, fit.log)
    used = w > 0
    shown, codes = np.unique(block.codes[used], return_inverse=True)
    found = item_means(judged.psi[used], w[used], codes.astype(np.int64), block.values[shown])
    texts = texts_of(block, test)
    names = [texts[c] for c in shown]
    half = quantile(alpha) * np.sqrt(found.noise)
    seen = {known[c] for c in np.unique(trained.codes)}
    frame = pd.DataFrame({"text": names, "seen_in_training": [t in seen for t in names]})
    frame = frame.join(_predictions(process, found.z, scale, alpha))
    rows = np.bincount(codes, minlength=len(shown))
    return frame.assign(
        n=rows, observed=found.y, observed_lower=found.y - half, observed_upper=found.y + half
    )


def _new_items(items: pd.DataFrame) -> tuple[float, float, float, int] | None:
    new = items.loc[~items["seen_in_training"]]
    if len(new) < 20:
        return None
    columns = ("effect", "ci_upper", "observed", "observed_upper")
    effect, upper, observed, observed_upper = (new[c].to_numpy(dtype=np.float64) for c in columns)
    half = np.sqrt((upper - effect) ** 2 + (observed_upper - observed) ** 2)
    return (*share_true(np.abs(observed - effect) <= half), len(new))


def _users(fit: Fit, test: ImpressionLog, judged: Bench, alpha: float) -> pd.DataFrame:
    """Held-out rows by quarter of the predicted effect; predicted beside observed."""
    cate = fit.cate(test)
    try:
        lower, upper = fit.cate_interval(test, alpha)
    except EstimationError:  # the model was made without inference
        lower = upper = np.full(len(test), np.nan)
    edges = np.unique(np.quantile(cate, np.linspace(0, 1, QUARTERS + 1)[1:-1]))
    quarter = (
        np.searchsorted(edges, cate, side="left") if np.ptp(cate) > 0 else np.zeros(len(cate), dtype=int)
    )
    rows = []
    for k in np.unique(quarter):
        here = quarter == k
        w, e = judged.held.weights[here], judged.held.effect(here, alpha)
        low, mean, high = (float(np.average(v[here], weights=w)) for v in (lower, cate, upper))
        rows.append(
            {
                "quarter": int(k) + 1, "n": int(here.sum()), "predicted": mean, "predicted_lower": low, "predicted_upper": high,
                "observed": e.value, "observed_lower": e.ci_lower, "observed_upper": e.ci_upper,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)
