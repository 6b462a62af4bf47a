from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causalrec.units import content_order, deal


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2**64 - 1)), min_size=1, max_size=40))
def test_the_order_knows_units_by_their_rows_only(rows: list[tuple[int, int]]) -> None:
    units = np.unique([u for u, _ in rows], return_inverse=True)[1].astype(np.int64)
    content = np.array([h for _, h in rows], dtype=np.uint64)
    rng = np.random.default_rng(len(rows))
    names, places = rng.permutation(units.max() + 1), rng.permutation(len(units))
    sums = [content[units == u].sum() for u in content_order(units, content)]
    renamed = names[units][places]
    again = [content[places][renamed == u].sum() for u in content_order(renamed, content[places])]
    assert sums == again == sorted(sums)


def test_strata_come_first() -> None:
    units, content = np.array([0, 0, 1, 2]), np.array([9, 9, 1, 5], dtype=np.uint64)
    order = content_order(units, content, np.array([0.0, 1.0, 1.0, 0.0]))
    assert order.tolist() == [2, 0, 1]


@pytest.mark.parametrize(("n_units", "hands"), [(3, 3), (10, 3), (11, 5), (1000, 7)])
def test_hands_are_of_equal_size_and_stratified(n_units: int, hands: int) -> None:
    order = np.random.default_rng(0).permutation(n_units)
    dealt = deal(order, hands, np.random.default_rng(1))
    counts = np.bincount(dealt, minlength=hands)
    assert counts.max() - counts.min() <= 1
    for start in range(0, n_units - hands + 1, hands):
        assert len(set(dealt[order[start : start + hands]])) == hands


def test_the_short_round_goes_to_every_hand() -> None:
    extra = np.zeros(3)
    for seed in range(300):
        extra += np.bincount(deal(np.arange(4), 3, np.random.default_rng(seed)), minlength=3) == 2
    assert extra.min() > 60
