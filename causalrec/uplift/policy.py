"""Policies: a priority for every impression, learnt on the training users, and the cut-offs above which it is served."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec.errors import ArgumentError, EstimationError
from causalrec.estimate import Fit
from causalrec.log import ImpressionLog
from causalrec.uplift.policy_tree import Box, Features, Node, holds, read_tree, words

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
TREES = 100
MIN_LEAF = 50
LEAF_SHARE = 0.02
"""Rows in a leaf of the tree, at least, as a share of the training rows; a quarter of it in the forest."""
EQUAL = 12
"""Decimals to which priorities are compared."""


@dataclass(frozen=True)
class Prices:
    """What a click is worth and what a recommendation costs, in one currency."""

    value: float
    cost: float

    def net(self, effect: F64) -> F64:
        """Value · effect − cost, per recommendation."""
        return self.value * effect - self.cost


@dataclass(frozen=True, eq=False)
class TreePolicy:
    """The leaves of a policy tree, each with the mean score of its training rows.

    Attributes
    ----------
    root : Node
    effects : mapping of box to clicks per impression
    """

    root: Node
    effects: dict[Box, float] = field(repr=False)

    def effect(self, fit: Fit, log: ImpressionLog) -> F64:
        """(n,) predicted effect: that of the leaf."""
        out = np.full(len(log), np.nan)
        for box, value in self.effects.items():
            out[holds(box, log.frame)] = value
        if np.isnan(out).any():
            raise EstimationError(
                f"{int(np.isnan(out).sum()):,} rows have a level of a modifier that the rule has not seen, so that it says nothing of them; "
                "leave these rows out, or learn the rule on a log that has them."
            )
        return out


@dataclass(frozen=True, eq=False)
class ForestPolicy:
    """A policy forest; its predicted effect is the difference of its predicted values of the two actions, undone by the prices."""

    model: Any
    features: Features
    prices: Prices

    def effect(self, fit: Fit, log: ImpressionLog) -> F64:
        """(n,) predicted effect."""
        values = self.model.predict_value(self.features.matrix(log.frame))
        return (values[:, 1] - values[:, 0] + self.prices.cost) / self.prices.value


@dataclass(frozen=True)
class CatePolicy:
    """Best first by the fit's own conditional effect."""

    def effect(self, fit: Fit, log: ImpressionLog) -> F64:
        """(n,) predicted effect."""
        return fit.cate(log)


Predictor = TreePolicy | ForestPolicy | CatePolicy


def learn_policies(
    fit: Fit, psi: F64, w: F64, prices: Prices, depth: int, model: Any, seed: int
) -> dict[str, Predictor]:
    """Tree, forest and ranking by CATE, learnt from the training scores ψ (n,) under weights w (n,).

    Without modifiers that vary there is the ranking only, which is then one tie.
    """
    features = Features.learn(fit.log.frame, fit.plan.modifiers)
    x = features.matrix(fit.log.frame)
    if x.shape[1] == 0 or not np.ptp(x, axis=0).any():
        return {"cate": CatePolicy()}
    rewards = np.column_stack([np.zeros(len(psi)), prices.net(psi)])
    least = max(MIN_LEAF, int(LEAF_SHARE * len(psi)))
    tree = _tree(model, depth, least, seed).fit(x, rewards, sample_weight=w)
    found: dict[str, Predictor] = {}
    if hasattr(tree, "tree_"):
        root = read_tree(tree.tree_, features, fit.log.frame[w > 0])
        found["tree"] = TreePolicy(root, _leaf_effects(root, fit.log.frame, psi, w))
        found["forest"] = ForestPolicy(
            _forest(least, seed).fit(x, rewards, sample_weight=w), features, prices
        )
    else:
        found["forest"] = ForestPolicy(tree, features, prices)
    return found | {"cate": CatePolicy()}


def _leaf_effects(root: Node, frame: pd.DataFrame, psi: F64, w: F64) -> dict[Box, float]:
    out = {}
    for box in root.leaves():
        here = holds(box, frame)
        out[box] = float(np.average(psi[here], weights=w[here]))
    return out


def _tree(model: Any, depth: int, least: int, seed: int) -> Any:
    """The caller's policy tree or forest, or a tree of this depth; not honest, for it is judged on other users."""
    from econml.policy import PolicyForest, PolicyTree

    if model is None:
        return PolicyTree(max_depth=depth, min_samples_leaf=least, honest=False, random_state=seed)
    if not isinstance(model, (PolicyTree, PolicyForest)):
        raise ArgumentError(
            f"model is {model!r}; must be an unfitted econml.policy.PolicyTree(...) or PolicyForest(...), or None."
        )
    own = copy.deepcopy(model)
    if own.random_state is None:
        own.random_state = seed
    return own


def _forest(least: int, seed: int) -> Any:
    from econml.policy import PolicyForest

    return PolicyForest(
        n_estimators=TREES, max_depth=6, min_samples_leaf=max(10, least // 4), n_jobs=1, random_state=seed
    )


@dataclass(frozen=True)
class CutOffs:
    """Serve where the priority is above the group's cut-off, and a share of those at it.

    Attributes
    ----------
    above : tuple of float, one a group
    at : tuple of float in [0, 1], one a group
        Probability of being served with a priority equal to the cut-off.
    """

    above: tuple[float, ...]
    at: tuple[float, ...]

    def served(self, priority: F64, codes: Ints) -> F64:
        """(n,) probability of being served."""
        rounded = np.round(priority, EQUAL)
        cut, share = np.array(self.above)[codes], np.array(self.at)[codes]
        return np.where(rounded > cut, 1.0, np.where(rounded == cut, share, 0.0))


def cut_offs(priority: F64, w: F64, codes: Ints, shares: F64) -> CutOffs:
    """The cut-offs by which these shares (G,) of the groups are served, best first; ties are served at random."""
    above, at = [], []
    for k, share in enumerate(shares):
        here = codes == k
        levels, level = np.unique(-np.round(priority[here], EQUAL), return_inverse=True)
        mass = np.bincount(level, w[here]) / w[here].sum()
        before = np.concatenate([[0.0], np.cumsum(mass)])
        j = min(int(np.searchsorted(before[1:], share - 1e-12)), len(levels) - 1)
        above.append(float(-levels[j]))
        at.append(float(np.clip((share - before[j]) / mass[j], 0.0, 1.0)) if mass[j] > 0 else 0.0)
    return CutOffs(tuple(above), tuple(at))


def rule_in_words(policy: TreePolicy, prices: Prices, cut: CutOffs) -> str:
    """A tree with one cut-off as a person says it: "Recommend to users whose tenure > 3.5 and device is phone."."""

    def served(box: Box) -> float:
        return float(cut.served(prices.net(np.array([policy.effects[box]])), np.zeros(1, dtype=np.int64))[0])

    surely = policy.root.union(lambda box: served(box) == 1)
    partly = [box for box in policy.root.leaves() if 0 < served(box) < 1]
    if surely == [()]:
        return "Recommend to everyone."
    if not surely and not partly:
        return "Recommend to no one."
    said = [f"Recommend to users whose {', or whose '.join(map(words, surely))}."] if surely else []
    for box in partly:
        who = f"users whose {words(box)}" if box else "all users"
        said.append(
            f"{'Also recommend' if said else 'Recommend'} to a random {100 * served(box):.0f} % of {who}."
        )
    return " ".join(said)
