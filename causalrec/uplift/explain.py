"""What goes with a large effect? The verb ``explain`` and its result: modifiers, a tree, topics, and items as examples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec._checks import as_generator, check_scalar
from causalrec._display import Displayable
from causalrec.errors import EstimationError
from causalrec.estimate import Fit
from causalrec.log import ImpressionLog
from causalrec.uplift.bench import Bench, bench, training_scores
from causalrec.uplift.cold_start import observed_items
from causalrec.uplift.importance import modifiers_that_count
from causalrec.uplift.policy_tree import Features, holds, read_tree, words
from causalrec.uplift.shrinkage import shrink
from causalrec.uplift.topics import find_text_topics, text_block, texts_of
from causalrec.uplift.word_check import learn_from_words

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
DEPTH = 2
LEAF_SHARE = 0.05
MIN_LEAF = 100
MIN_ARM = 30
"""Rows in each arm that a topic or leaf needs for an effect of its own."""
EXAMPLES = 5


@dataclass(frozen=True, eq=False)
class Explanation(Displayable):
    """What goes with a large effect, on held-out users.

    Attributes
    ----------
    modifiers : DataFrame
        modifier; shap, the mean absolute SHAP value with interval (how far the model lets it move an effect); loss, what the
        doubly robust loss rises by if the modifier is shuffled, with interval and Holm-adjusted p-value (whether that helps).
    tree : DataFrame
        Leaves of a tree grown on the training scores: who, n, n_units, effect on held-out users with joint interval.
    tree_p_value : float
        Of all leaves having one effect (Wald).
    topics : DataFrame
        topic, texts, n, n_units, effect with joint interval (max-t), shrunken effect with its own.
    topics_p_value : float
        Of all topics having one effect (Wald).
    examples : DataFrame
        Items of highest and lowest predicted effect: side, text, effect predicted from words with interval, n, observed with interval.
    skipped : tuple of str
        What could not be said, and why.
    n, n_units : int
    """

    modifiers: pd.DataFrame = field(repr=False)
    tree: pd.DataFrame = field(repr=False)
    tree_p_value: float
    topics: pd.DataFrame = field(repr=False)
    topics_p_value: float
    examples: pd.DataFrame = field(repr=False)
    skipped: tuple[str, ...]
    n: int
    n_units: int

    def _title(self) -> str:
        return f"What goes with the effect, on {self.n:,} held-out impressions of {self.n_units:,} units; clicks per impression"

    def _rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for kind, frame, name, columns in (
            ("modifier (loss if shuffled)", self.modifiers, "modifier", ("loss", "loss_lower", "loss_upper")),
            ("leaf (effect)", self.tree, "who", ("effect", "ci_lower", "ci_upper")),
            ("topic (effect)", self.topics, "topic", ("effect", "ci_lower", "ci_upper")),
        ):
            for record in frame.to_dict("records"):
                estimate, lower, upper = (record[c] for c in columns)
                rows.append(
                    {
                        "what": kind,
                        "name": str(record[name]),
                        "estimate": estimate,
                        "ci_lower": lower,
                        "ci_upper": upper,
                    }
                )
        return rows

    def _notes(self) -> list[str]:
        notes = [
            _verdict("tree's leaves", self.tree, self.tree_p_value),
            _verdict("topics", self.topics, self.topics_p_value),
        ]
        if len(self.examples):
            best, worst = self.examples.iloc[0], self.examples.iloc[-1]
            notes.append(
                f"Predicted from words: highest {best['text']!r} ({best['effect']:+.3g}), lowest {worst['text']!r} ({worst['effect']:+.3g})."
            )
        return [
            *(n for n in notes if n),
            *self.skipped,
            "Topics and words go with effects: rewriting a title need not change what recommending it does. Intervals of leaves and of "
            "topics hold jointly within their table, at 95 %.",
        ]


def _verdict(what: str, table: pd.DataFrame, p: float) -> str:
    if len(table) < 2 or not np.isfinite(p):
        return ""
    said = "differ" if p < 0.05 else "cannot be told apart"
    return f"Effects of the {what} {said} (Wald test, p {'< .001' if p < 0.001 else f'= {p:.3f}'})."


def explain(
    fit: Fit,
    test: ImpressionLog,
    *,
    n_topics: int | None = None,
    random_state: int | np.random.Generator | None = None,
) -> Explanation:
    """Say which modifiers, which users, which topics and which items go with a large effect.

    Everything is chosen on the training users (the tree's splits, the topics, the items' predictions) and measured on
    held-out users, so that no effect is reported because it came out large. Topics are clusters of the text embedding that
    have seen neither exposure nor click.

    Parameters
    ----------
    fit : Fit
        On the training users.
    test : ImpressionLog
        Other users, embedded alike.
    n_topics : int or None
        At least 2; None chooses by silhouette.
    random_state : int, Generator or None

    Raises
    ------
    HonestyError
        Users of `test` were in the fit.
    EstimationError
        An arm has too few held-out rows.
    """
    judged = bench(fit, test, "explain")
    if n_topics is not None:
        n_topics = check_scalar(n_topics, "n_topics", ge=2, le=50, integer=True)
    rng = as_generator(random_state)
    skipped: list[str] = []
    modifiers = modifiers_that_count(fit, test, judged, rng, skipped)
    tree, tree_p = _tree(fit, test, judged, int(rng.integers(2**31)), skipped)
    topics, topics_p = _topics(fit, test, judged, n_topics, int(rng.integers(2**31)), skipped)
    examples = _examples(fit, test, judged, rng, skipped)
    return Explanation(
        modifiers, tree, tree_p, topics, topics_p, examples, tuple(skipped), len(test), test.n_units
    )


def _tree(
    fit: Fit, test: ImpressionLog, judged: Bench, seed: int, skipped: list[str]
) -> tuple[pd.DataFrame, float]:
    """Leaves of a regression tree of the training scores on the modifiers, with held-out effects. Athey & Imbens (2016)."""
    from sklearn.tree import DecisionTreeRegressor

    columns = ["who", "n", "n_units", "effect", "ci_lower", "ci_upper"]
    features = Features.learn(fit.log.frame, fit.plan.modifiers)
    x = features.matrix(fit.log.frame)
    if x.shape[1] == 0 or not np.ptp(x, axis=0).any():
        skipped.append("Tree of effects: no declared modifier varies.")
        return pd.DataFrame(columns=columns), float("nan")
    least = max(MIN_LEAF, int(LEAF_SHARE * len(x)))
    model = DecisionTreeRegressor(max_depth=DEPTH, min_samples_leaf=least, random_state=seed)
    model.fit(x, training_scores(fit), sample_weight=fit.log.weights)
    leaves = list(read_tree(model.tree_, features, fit.log.frame).leaves())
    labels = np.full(len(test), -1)
    for k, box in enumerate(leaves):
        labels[holds(box, test.frame)] = k
    table, p = _effects(judged, labels, [words(box) for box in leaves], "who", skipped)
    return table[columns], p


def _effects(
    judged: Bench, labels: Ints, names: list[str], column: str, skipped: list[str]
) -> tuple[pd.DataFrame, float]:
    """Effects of groups with joint and shrunken intervals; groups with too few rows in an arm are left out, and named."""
    h = judged.held
    least = [min(int((h.t[labels == k] == arm).sum()) for arm in (0.0, 1.0)) for k in range(len(names))]
    kept = [k for k, rows in enumerate(least) if rows >= MIN_ARM]
    for k in sorted(set(range(len(names))) - set(kept)):
        skipped.append(
            f"{column} {names[k]!r}: {least[k]} held-out rows in the smaller arm, fewer than {MIN_ARM}."
        )
    place = np.full(len(names) + 1, -1)
    place[kept] = np.arange(len(kept))
    groups = judged.effects(place[labels], len(kept))
    lower, upper = groups.joint()
    shrunken, shrunken_lower, shrunken_upper = shrink(groups.values, groups.covariance)
    counts = {
        column: [names[k] for k in kept],
        "n": [int((labels == k).sum()) for k in kept],
        "n_units": [len(np.unique(h.units[labels == k])) for k in kept],
    }
    frame = pd.DataFrame(counts).assign(
        effect=groups.values, ci_lower=lower, ci_upper=upper,
        shrunken=shrunken, shrunken_lower=shrunken_lower, shrunken_upper=shrunken_upper,
    )  # fmt: skip
    return frame, groups.test_equal()[1]


def _topics(
    fit: Fit, test: ImpressionLog, judged: Bench, n_topics: int | None, seed: int, skipped: list[str]
) -> tuple[pd.DataFrame, float]:
    columns = [
        "topic",
        "texts",
        "n",
        "n_units",
        "effect",
        "ci_lower",
        "ci_upper",
        "shrunken",
        "shrunken_lower",
        "shrunken_upper",
    ]
    trained, block = text_block(fit.log), text_block(test)
    nothing = pd.DataFrame(columns=columns), float("nan")
    if trained is None or block is None:
        skipped.append(
            "Topics and example items: the log has no text block; declare text= in read_log and embed the log."
        )
        return nothing
    shown = np.unique(trained.codes)
    texts = texts_of(trained, fit.log)
    found = find_text_topics(trained.values[shown], [texts[c] for c in shown], n_topics, seed)
    if found is None:
        skipped.append(f"Topics: {len(shown)} distinct texts are too few to tell topics apart.")
        return nothing
    labels = found.of(block.values)[block.codes]
    table, p = _effects(judged, labels, list(found.names), "topic", skipped)
    sizes = dict(zip(found.names, found.sizes.tolist(), strict=True))
    table = table.assign(texts=[sizes[name] for name in table["topic"]])
    return table[columns].sort_values("effect", ascending=False, ignore_index=True), p


def _examples(
    fit: Fit, test: ImpressionLog, judged: Bench, rng: np.random.Generator, skipped: list[str]
) -> pd.DataFrame:
    """Held-out users' items of highest and lowest effect by words."""
    columns = [
        "side",
        "text",
        "effect",
        "ci_lower",
        "ci_upper",
        "n",
        "observed",
        "observed_lower",
        "observed_upper",
    ]
    nothing = pd.DataFrame(columns=columns)
    if text_block(fit.log) is None or text_block(test) is None:
        return nothing
    try:
        process, check = learn_from_words(fit, 0.05, rng)
    except EstimationError as error:
        skipped.append(f"Example items: {error}")
        return nothing
    if not check.explains:
        skipped.append(
            "Example items: words were not shown to predict items' effects better than one effect for all."
        )
        return nothing
    items = observed_items(fit, test, judged, process, check.scale, 0.05).sort_values(
        "effect", ascending=False
    )
    few = min(EXAMPLES, len(items) // 2)
    ends = pd.concat([items.head(few).assign(side="high"), items.tail(few).assign(side="low")])
    return ends[columns].reset_index(drop=True)
