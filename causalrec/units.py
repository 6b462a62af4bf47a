"""Which rows belong together, and an order of the units that depends on nothing but what they did.

Folds and splits are drawn by unit. The draw must not change when rows are shuffled, when users are
renamed, or when the index is: so units are first put into an order given by the content of their rows
(ties are units with the same content, and exchangeable), and the seeded draw is made along that order.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def content_order(
    units: Ints, row_hash: npt.NDArray[np.uint64], strata: npt.NDArray[np.float64] | None = None
) -> Ints:
    """Unit codes in an order that depends on the units' rows only.

    Parameters
    ----------
    units : (n,) codes 0 … G−1
    row_hash : (n,) uint64, a hash of each row's content without its unit or position
    strata : (n,) optional, the order's first key is the unit's mean of it

    Returns
    -------
    (G,) unit codes, sorted by (mean of strata, sum of hashes modulo 2⁶⁴).
    """
    n_units = int(units.max()) + 1
    key = np.zeros(n_units, dtype=np.uint64)
    np.add.at(key, units, row_hash)
    size = np.bincount(units, minlength=n_units)
    first = np.zeros(n_units) if strata is None else np.round(np.bincount(units, strata, n_units) / size, 9)
    return np.lexsort((key, first)).astype(np.int64)


def shuffled_order(
    units: Ints, row_hash: npt.NDArray[np.uint64], strata: npt.NDArray[np.float64], rng: np.random.Generator
) -> Ints:
    """Unit codes in random order along the mean of `strata`, (G,): what folds, halves and parts are dealt along.

    The draw depends on `rng` and on what units did, not on their names or their order. Units of like rows must not stand beside each
    other: dealt along the content of their rows, two rows of one text with the same exposure and outcome would never share a fold, and
    each would be trained on its twin.
    """
    n_units = int(units.max()) + 1
    order = content_order(units, row_hash)[rng.permutation(n_units)]
    mean = np.round(np.bincount(units, strata, n_units) / np.bincount(units, minlength=n_units), 9)
    return order[np.argsort(mean[order], kind="stable")]


def deal(order: Ints, n_hands: int, rng: np.random.Generator) -> Ints:
    """Deal units to `n_hands` hands: within each run of `n_hands` neighbours in `order`, one to each hand, at random.

    Returns
    -------
    (G,) the hand of each unit code. Neighbours being alike, the hands are stratified along the order.
    """
    n_units = len(order)
    rounds = -(-n_units // n_hands)
    hands = rng.permuted(np.tile(np.arange(n_hands), (rounds, 1)), axis=1).ravel()[:n_units]
    if n_units % n_hands:  # the last, short round must not leave a hand systematically short
        hands[-(n_units % n_hands) :] = rng.permutation(n_hands)[: n_units % n_hands]
    dealt = np.empty(n_units, dtype=np.int64)
    dealt[order] = hands
    return dealt
