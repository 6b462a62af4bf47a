"""Scores of pairs of rows, against the definition written out, and against truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causalrec import kernels as kernels_of
from causalrec import second_order as so
from causalrec.scores import estimate_of

CENTRE = (0.4, 0.3, 0.45)


def log(seed=0, n=160, items=20, users=60, weighted=False, hidden=0.0):
    rng = np.random.default_rng(seed)
    item, user = rng.integers(0, items, n), rng.integers(0, users, n)
    trait = rng.normal(size=items)[item] * hidden
    e, m0 = rng.uniform(0.3, 0.6, n), rng.uniform(0.2, 0.4, n)
    t = (rng.random(n) < np.clip(e + trait, 0.02, 0.98)).astype(float)
    y = (rng.random(n) < np.clip(m0 + 0.1 * t + trait, 0, 1)).astype(float)
    w = rng.uniform(0.5, 2, n) if weighted else np.ones(n)
    counts = np.bincount(item, minlength=items)
    codes = np.where(counts[item] > 1, item, -1)
    return kernels_of.Rows(t, y, w, user, codes), kernels_of.Values(
        np.arange(n), e, m0, m0 + 0.05, e, m0, m0 + 0.05
    )


def run(rows, at, names=("same_item",), estimand="ate"):
    def blocks():
        return [kernels_of.BlockOfPairs(at, None)]

    kernels = [
        kernels_of.cluster_kernel(k, rows, np.zeros(len(rows.t), dtype=np.int64), across=False) for k in names
    ]
    if len(kernels) == 2:
        kernels = kernels_of.serve_both(kernels[0], kernels[1], rows)
    found = so.all_totals(rows, kernels, blocks, estimand, CENTRE)
    return so.pair_estimate(rows, kernels, blocks, estimand, CENTRE, found), found, kernels


def written_out(rows, at, estimand):
    """θ by two loops over rows: same item, other user."""
    n = len(rows.t)
    v = {"ate": 1 / (at.e * (1 - at.e)), "att": 1 / (1 - at.e), "ato": np.ones(n)}[estimand]
    s = rows.t - at.e
    mean = at.e * at.m1 + (1 - at.e) * at.m0 if estimand == "ato" else np.where(rows.t == 1, at.m1, at.m0)
    r, phi = rows.y - mean, so.basis(estimand, at.e, at.m0, CENTRE)
    q = phi.shape[1]
    num, den = np.zeros(q), np.zeros((q, q))
    for i in range(n):
        mates = [
            j
            for j in range(n)
            if rows.items[i] >= 0 and rows.items[j] == rows.items[i] and rows.units[j] != rows.units[i]
        ]
        if not mates:
            continue
        wj = rows.w[mates] / rows.w[mates].sum()
        num += rows.w[i] * v[i] * s[i] * phi[i] * (r[i] - wj @ r[mates])
        den += rows.w[i] * v[i] * s[i] * np.outer(phi[i], s[i] * phi[i] - wj @ (s[mates, None] * phi[mates]))
    gamma = np.linalg.solve(den + np.diag([0.0] + [so.RIDGE_ROWS * rows.w.mean()] * (q - 1)), num)
    if estimand == "ato":
        return gamma[0]
    pi = rows.w * (rows.t if estimand == "att" else 1)
    return float((pi * (at.m1 - at.m0 + phi @ gamma)).sum() / pi.sum())


@pytest.mark.parametrize("estimand", ["ate", "att", "ato"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_sums_are_those_of_the_definition(estimand, weighted):
    rows, at = log(3, weighted=weighted, hidden=0.1)
    assert run(rows, at, estimand=estimand)[0].value == pytest.approx(
        written_out(rows, at, estimand), abs=1e-12
    )


def test_blocks_of_pairs_add_up_to_all_pairs():
    rows, at = log(5, hidden=0.1)
    sets = rows.units % 3

    def part(k):
        here = np.flatnonzero(sets == k)
        return kernels_of.Values(
            here, *(x[here] for x in (at.e, at.m0, at.m1, at.e_words, at.m0_words, at.m1_words))
        )

    def blocks():
        return [
            kernels_of.BlockOfPairs(part(j), None if j == k else part(k))
            for j in range(3)
            for k in range(j, 3)
        ]

    kernel = kernels_of.cluster_kernel("same_item", rows, sets, across=True)
    found = [so.totals(rows, kernel, blocks, "ate", CENTRE)]
    divided = so.pair_estimate(rows, [kernel], blocks, "ate", CENTRE, found)
    whole = run(rows, at)[0]
    assert divided.value == pytest.approx(whole.value, abs=1e-12)
    np.testing.assert_allclose(divided.influence, whole.influence, atol=1e-9)


@given(st.integers(0, 10_000), st.sampled_from(["ate", "att", "ato"]))
@settings(max_examples=15, deadline=None)
def test_order_names_and_scale_of_weights_do_not_matter(seed, estimand):
    rows, at = log(seed, weighted=True, hidden=0.1)
    rng = np.random.default_rng(seed)
    p, names = rng.permutation(len(rows.t)), rng.permutation(rows.units.max() + 1)
    other = kernels_of.Rows(rows.t[p], rows.y[p], 7 * rows.w[p], names[rows.units[p]], rows.items[p])
    moved = kernels_of.Values(
        np.arange(len(p)), *(x[p] for x in (at.e, at.m0, at.m1, at.e_words, at.m0_words, at.m1_words))
    )
    a, b = run(rows, at, estimand=estimand)[0], run(other, moved, estimand=estimand)[0]
    assert a.value == pytest.approx(b.value, abs=1e-9)
    np.testing.assert_allclose(b.influence, a.influence[p], atol=1e-6)


@pytest.mark.parametrize("names", [("same_item",), ("same_user",), ("same_item", "same_user")])
def test_influence_has_mean_zero_and_scores_average_to_the_effect(names):
    rows, at = log(7, n=600, weighted=True, hidden=0.1)
    found = run(rows, at, names)[0]
    assert found.influence.mean() == pytest.approx(0, abs=1e-12)
    assert np.average(found.scores, weights=rows.w) == pytest.approx(found.value, abs=1e-12)


def errors(names, item_trait, user_trait, reps=120, n=1500):
    out = []
    for seed in range(reps):
        rng = np.random.default_rng([seed, 77])
        item, user = rng.integers(0, 150, n), rng.integers(0, 150, n)
        trait = item_trait * rng.choice([-1, 1], 150)[item] + user_trait * rng.choice([-1, 1], 150)[user]
        t = (rng.random(n) < 0.5 + trait).astype(float)
        y = (rng.random(n) < 0.4 + 0.1 * t + trait).astype(float)
        half, rows = np.full(n, 0.5), kernels_of.Rows(t, y, np.ones(n), user, item)
        at = kernels_of.Values(np.arange(n), half, np.full(n, 0.4), half, half, np.full(n, 0.4), half)
        found = run(rows, at, names)[0]
        e = estimate_of(found.value, found.influence, user, item)
        first = (0.1 + 2 * (t - 0.5) * (y - np.where(t == 1, 0.5, 0.4)) / 0.5).mean()
        out.append((found.value - 0.1, e.ci_lower <= 0.1 <= e.ci_upper, first - 0.1))
    return np.array(out, dtype=float)


def test_what_an_item_hides_is_taken_out_and_covered():
    found = errors(("same_item",), 0.15, 0.0)
    assert found[:, 2].mean() > 0.05  # first order is wrong
    assert abs(found[:, 0].mean()) < 3 * found[:, 0].std() / np.sqrt(len(found))
    assert found[:, 1].mean() > 0.9


def test_items_and_users_together_and_not_one_of_them():
    both = errors(("same_item", "same_user"), 0.12, 0.12)
    assert abs(both[:, 0].mean()) < 3 * both[:, 0].std() / np.sqrt(len(both))
    assert both[:, 1].mean() > 0.9
    alone = errors(("same_item",), 0.12, 0.12, reps=40)
    assert alone[:, 0].mean() > 0.03  # the user's trait is still there
