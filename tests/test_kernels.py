"""Sums over partners against the definition written out: pairs by a basis of the words, and what no kernel may do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from causalrec import second_order as so
from causalrec.kernels import BlockOfPairs, Rows, Values, basis_kernel, cluster_kernel, serve_both
from causalrec.scores import estimate_of

CENTRE = (0.4, 0.3, 0.45)


def log(seed=0, n=120, users=50, d=4, weighted=False, shift=0.0):
    """Rows of users with several rows each; `shift` times the first column moves exposure and outcome beyond e and m."""
    rng = np.random.default_rng(seed)
    x, user = rng.normal(size=(n, d)), rng.integers(0, users, n)
    e, m0 = rng.uniform(0.3, 0.6, n), rng.uniform(0.2, 0.4, n)
    moved = shift * np.tanh(x[:, 0])
    t = (rng.random(n) < np.clip(e + moved, 0.02, 0.98)).astype(float)
    y = (rng.random(n) < np.clip(m0 + 0.1 * t + moved, 0, 1)).astype(float)
    w = rng.uniform(0.5, 2, n) if weighted else np.ones(n)
    at = Values(np.arange(n), e, m0, m0 + 0.05, e, m0, m0 + 0.05)
    return Rows(t, y, w, user, None), at, x.astype(np.float32)


def whole(at):
    return lambda: [BlockOfPairs(at, None)]


def run(rows, at, x, estimand="ate", blocks=None, sets=None):
    sets = np.zeros(len(rows.t), dtype=np.int64) if sets is None else sets
    kernel = basis_kernel(x, rows, sets, across=True, most=100)
    blocks = blocks or whole(at)
    found = so.totals(rows, kernel, blocks, estimand, CENTRE)
    return so.pair_estimate(rows, [kernel], blocks, estimand, CENTRE, [found]), found


def written_out(rows, at, x, estimand):
    """θ by two loops: all rows of other users, weighed by z_i'z_j with z whitened."""
    n, w = len(rows.t), rows.w
    centred = x - np.average(x, axis=0, weights=w)
    root = np.linalg.inv(np.linalg.cholesky((centred * w[:, None]).T @ centred / w.sum()))
    z = np.column_stack([np.ones(n), centred @ root.T])
    v = {"ate": 1 / (at.e * (1 - at.e)), "att": 1 / (1 - at.e), "ato": np.ones(n)}[estimand]
    s = rows.t - at.e
    mean = at.e * at.m1 + (1 - at.e) * at.m0 if estimand == "ato" else np.where(rows.t == 1, at.m1, at.m0)
    r, phi = rows.y - mean, so.basis(estimand, at.e, at.m0, CENTRE)
    q = phi.shape[1]
    num, den = np.zeros(q), np.zeros((q, q))
    for i in range(n):
        mates = np.flatnonzero(rows.units != rows.units[i])
        k = w[mates] * (z[mates] @ z[i]) / w[mates].sum()
        num += w[i] * v[i] * s[i] * phi[i] * (r[i] - k @ r[mates])
        den += w[i] * v[i] * s[i] * np.outer(phi[i], s[i] * phi[i] - k @ (s[mates, None] * phi[mates]))
    gamma = np.linalg.solve(den + np.diag([0.0] + [so.RIDGE_ROWS * w.mean()] * (q - 1)), num)
    if estimand == "ato":
        return gamma[0]
    pi = w * (rows.t if estimand == "att" else 1)
    return float((pi * (at.m1 - at.m0 + phi @ gamma)).sum() / pi.sum())


@pytest.mark.parametrize("estimand", ["ate", "att", "ato"])
@pytest.mark.parametrize(("weighted", "users"), [(False, 50), (True, 50), (True, 100_000)])
def test_pairs_by_a_basis_are_those_of_the_definition(estimand, weighted, users):
    rows, at, x = log(3, users=users, weighted=weighted, shift=0.1)
    assert run(rows, at, x, estimand)[0].value == pytest.approx(written_out(rows, at, x, estimand), abs=1e-6)


def test_blocks_add_up_to_all_pairs():
    rows, at, x = log(5, weighted=True, shift=0.1)
    sets = rows.units % 3

    def part(k):
        here = np.flatnonzero(sets == k)
        return Values(here, *(v[here] for v in (at.e, at.m0, at.m1, at.e_words, at.m0_words, at.m1_words)))

    def blocks():
        return [BlockOfPairs(part(j), None if j == k else part(k)) for j in range(3) for k in range(j, 3)]

    divided, whole_log = run(rows, at, x, blocks=blocks, sets=sets)[0], run(rows, at, x)[0]
    assert divided.value == pytest.approx(whole_log.value, abs=1e-6)
    np.testing.assert_allclose(divided.influence, whole_log.influence, atol=1e-3)


@given(st.integers(0, 10_000), st.sampled_from(["ate", "ato"]))
@settings(max_examples=12, deadline=None)
def test_turning_the_basis_naming_users_and_scaling_weights_change_nothing(seed, estimand):
    rows, at, x = log(seed, weighted=True, shift=0.1)
    rng = np.random.default_rng(seed)
    p, names = rng.permutation(len(rows.t)), rng.permutation(rows.units.max() + 1)
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0] * (0.5, 1, 2, 3)  # condition 6: one of 1,000 costs float32 the small axes
    turned = (x @ turn + rng.normal(size=4)).astype(np.float32)
    other = Rows(rows.t[p], rows.y[p], 7 * rows.w[p], names[rows.units[p]], None)
    moved = Values(
        np.arange(len(p)), *(v[p] for v in (at.e, at.m0, at.m1, at.e_words, at.m0_words, at.m1_words))
    )
    a, b = run(rows, at, x, estimand)[0], run(other, moved, turned[p], estimand)[0]
    assert a.value == pytest.approx(b.value, abs=1e-6)


def test_what_the_basis_spans_is_taken_out_and_errors_cover():
    """The models know nothing of x; the naive bias is large, the pairs remove what tanh shares with its linear part."""
    errors, first, covered = [], [], []
    for seed in range(60):
        rows, at, x = log(seed, n=1500, users=10**6, shift=0.15)
        found = run(rows, at, x)[0]
        e = estimate_of(found.value, found.influence, rows.units)
        errors.append(found.value - 0.1)
        plain = (
            at.m1
            - at.m0
            + (rows.t - at.e) / (at.e * (1 - at.e)) * (rows.y - np.where(rows.t == 1, at.m1, at.m0))
        )
        first.append(plain.mean() - 0.1)
        covered.append(e.ci_lower <= 0.1 <= e.ci_upper)
    assert np.mean(first) > 0.03
    assert abs(np.mean(errors)) < 0.2 * np.mean(first)
    assert np.mean(covered) > 0.85


def test_likeness_is_seen_where_there_is_some_and_not_where_there_is_none():
    none, some = [], []
    for seed in range(30):
        for shift, out in ((0.0, none), (0.2, some)):
            found = run(*log(seed, n=800, users=10**6, shift=shift))[1]
            out.append(found.left_t[0] / found.left_t[1])
    assert np.mean(np.array(none) > 1) < 0.35
    assert np.mean(np.array(some) > 1) > 0.95


def test_rounding_axes_and_too_many_axes_are_dropped():
    rows, _, x = log(1)
    doubled = np.hstack([x, x * np.float32(2), np.zeros((len(x), 1), dtype=np.float32)])
    sets = np.zeros(len(x), dtype=np.int64)
    assert basis_kernel(doubled, rows, sets, True, most=100).z.shape[1] == 1 + 4
    assert basis_kernel(doubled, rows, sets, True, most=2).z.shape[1] == 1 + 2


def test_a_user_alone_in_the_log_has_no_partner():
    rows, _, x = log(1)
    alone = Rows(rows.t, rows.y, rows.w, np.zeros_like(rows.units), None)
    assert not basis_kernel(x, alone, np.zeros(len(x), dtype=np.int64), True, 100).served.any()


def personalised(seed, per_item, users=150, rows_each=10, taste=0.8, trait=0.0):
    """Users see items that suit their taste; the item's character moves exposure and clicks, and the models know nothing of it."""
    rng = np.random.default_rng(seed)
    n = users * rows_each
    user = np.repeat(np.arange(users), rows_each)
    liked, hidden = rng.normal(size=users)[user], trait * rng.normal(size=users)[user]
    wanted = taste * liked + np.sqrt(1 - taste**2) * rng.normal(size=n)
    item = np.argsort(np.argsort(wanted)) // per_item  # neighbours in character are one item
    x = np.bincount(item, wanted)[item] / np.bincount(item)[item]
    moved = 0.2 * np.tanh(x) + hidden
    t = (rng.random(n) < np.clip(0.45 + moved, 0.02, 0.98)).astype(float)
    y = (rng.random(n) < np.clip(0.35 + 0.1 * t + moved, 0, 1)).astype(float)
    flat = np.full(n, 0.45), np.full(n, 0.35), np.full(n, 0.45)
    return (
        Rows(t, y, np.ones(n), user, item),
        Values(np.arange(n), *flat, *flat),
        x[:, None].astype(np.float32),
    )


@pytest.mark.parametrize("trait", [0.0, 0.1])
@pytest.mark.parametrize("name", ["basis", "same_item"])
def test_what_users_share_because_their_items_are_alike_goes_once(name, trait):
    errors, covered, first = [], [], []
    for seed in range(40):
        rows, at, x = personalised(seed, per_item=6, trait=trait)
        one = np.zeros(len(rows.t), dtype=np.int64)
        by = (
            basis_kernel(np.hstack([x, x**3]), rows, one, True, 100)
            if name == "basis"
            else cluster_kernel(name, rows, one, True)
        )
        kernels = serve_both(by, cluster_kernel("same_user", rows, one, True), rows)
        found = so.all_totals(rows, kernels, whole(at), "ate", CENTRE)
        best = so.pair_estimate(rows, kernels, whole(at), "ate", CENTRE, found)
        e = estimate_of(best.value, best.influence, rows.units, rows.items)
        errors.append(best.value - 0.1)
        covered.append(e.ci_lower <= 0.1 <= e.ci_upper)
        residual = rows.y - np.where(rows.t == 1, 0.45, 0.35)
        first.append(((rows.t - 0.45) / (0.45 * 0.55) * residual).mean())
        assert best.influence.mean() == pytest.approx(0, abs=1e-10)
    spread = np.std(errors) / np.sqrt(len(errors))
    assert np.mean(first) > 0.03
    assert abs(np.mean(errors)) < 3 * spread + 0.004
    assert np.mean(covered) > 0.82
