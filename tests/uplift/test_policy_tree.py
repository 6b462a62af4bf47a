from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.tree import DecisionTreeRegressor

from causalrec.uplift.policy import CutOffs, Prices, TreePolicy, cut_offs, rule_in_words
from causalrec.uplift.policy_tree import Column, Condition, Features, Node, holds, read_tree, words

AGE, COUNT, FLAG = Column("age", None), Column("visits", None, True), Column("new", None, True, True)
DEVICE = Column("device", ("phone", "tablet", "tv", "watch", "web"))


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        (Condition(AGE, 3.5), "age > 3.5"),
        (Condition(AGE, upper=3.5), "age ≤ 3.5"),
        (Condition(AGE, -1.0, 2.25), "-1 < age ≤ 2.25"),
        (Condition(COUNT, 3), "visits ≥ 4"),
        (Condition(COUNT, upper=3), "visits ≤ 3"),
        (Condition(COUNT, 3, 4), "visits is 4"),
        (Condition(COUNT, 3, 12_000), "visits is 4 to 12,000"),
        (Condition(FLAG, 0), "new is 1"),
        (Condition(FLAG, upper=0), "new is 0"),
        (Condition(DEVICE, allowed=("phone", "web")), "device is phone or web"),
        (Condition(DEVICE, allowed=("phone", "tablet", "tv", "watch")), "device is not web"),
    ],
)
def test_a_condition_in_words(condition: Condition, said: str) -> None:
    assert condition.words() == said


def frame_of(seed: int, n: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": rng.standard_normal(n),
            "visits": rng.integers(0, 9, n),
            "new": rng.integers(0, 2, n),
            "device": rng.choice(DEVICE.levels, n),
            "member": rng.random(n) < 0.5,
        }
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_leaves_part_the_rows_as_the_tree_does(seed: int, depth: int) -> None:
    frame = frame_of(seed)
    features = Features.learn(frame, tuple(frame.columns))
    x = features.matrix(frame)
    tree = DecisionTreeRegressor(max_depth=depth, random_state=seed).fit(
        x, np.random.default_rng(seed).standard_normal(len(x))
    )
    leaves = list(read_tree(tree.tree_, features, frame).leaves())
    inside = np.column_stack([holds(box, frame) for box in leaves])
    assert (inside.sum(axis=1) == 1).all()
    own, theirs = inside.argmax(axis=1), tree.apply(x)
    pairs = pd.crosstab(own, theirs).to_numpy()
    assert pairs.max(axis=1).sum() >= 0.99 * len(frame)
    new = np.column_stack([holds(box, frame_of(seed + 1, 500)) for box in leaves])
    assert (new.sum(axis=1) == 1).all()


def test_the_threshold_that_is_said_is_the_one_that_is_applied() -> None:
    frame = pd.DataFrame({"age": np.linspace(0, 1, 1001)})
    features = Features.learn(frame, ("age",))
    tree = DecisionTreeRegressor(max_depth=1).fit(frame[["age"]], frame["age"] > 0.33333)
    above = list(read_tree(tree.tree_, features, frame).leaves())[1]
    assert words(above) == "age > 0.333"
    assert holds(above, pd.DataFrame({"age": [0.333, 0.3331]})).tolist() == [False, True]


def small_tree(effects: tuple[float, float, float]) -> TreePolicy:
    phone, other = (Condition(DEVICE, allowed=a) for a in (("phone",), DEVICE.levels[1:]))  # type: ignore[index]
    old, young = Condition(AGE, 3.5), Condition(AGE, upper=3.5)
    boxes = ((phone,), (other, old), (other, young))
    root = Node((), (Node(boxes[0]), Node((other,), (Node(boxes[1]), Node(boxes[2])))))
    return TreePolicy(root, dict(zip(boxes, effects, strict=True)))


@pytest.mark.parametrize(
    ("effects", "cut", "said"),
    [
        ((1, 1, 1), CutOffs((0.0,), (0.0,)), "Recommend to everyone."),
        ((-1, -1, 0), CutOffs((0.0,), (0.0,)), "Recommend to no one."),
        ((1, -1, -1), CutOffs((0.0,), (0.0,)), "Recommend to users whose device is phone."),
        ((-1, 1, 2), CutOffs((0.0,), (0.0,)), "Recommend to users whose device is not phone."),
        (
            (1, 1, -2),
            CutOffs((0.0,), (0.0,)),
            "Recommend to users whose device is phone, or whose device is not phone and age > 3.5.",
        ),
        (
            (3, 2, 1),
            CutOffs((2.0,), (0.25,)),
            "Recommend to users whose device is phone. Also recommend to a random 25 % of users whose device is not phone and age > 3.5.",
        ),
    ],
)
def test_a_rule_in_words(effects: tuple[float, float, float], cut: CutOffs, said: str) -> None:
    assert rule_in_words(small_tree(effects), Prices(1.0, 0.0), cut) == said


def test_a_cost_moves_the_rule() -> None:
    said = rule_in_words(small_tree((0.3, 0.1, 0.1)), Prices(10.0, 2.0), CutOffs((0.0,), (0.0,)))
    assert said == "Recommend to users whose device is phone."


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([2, 1000]), st.floats(0, 1))
def test_cut_offs_serve_the_share_that_was_asked_for(seed: int, levels: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    priority, w = rng.integers(0, levels, 60) / 7, rng.exponential(size=60) + 0.1
    codes = rng.integers(0, 2, 60)
    served = cut_offs(priority, w, codes, np.array([share, 0.5])).served(priority, codes)
    for k, asked in enumerate((share, 0.5)):
        here = codes == k
        assert np.average(served[here], weights=w[here]) == pytest.approx(asked, abs=1e-9)
        order = np.argsort(-priority[here], kind="stable")
        assert (np.diff(served[here][order]) <= 0).all()
