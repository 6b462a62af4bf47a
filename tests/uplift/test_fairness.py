from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from small_logs import ROLES, make_world

import causalrec as cr
from causalrec.errors import ArgumentError, EstimationError
from causalrec.uplift.fairness import STEPS, GroupCurve, choose_shares
from causalrec.uplift.protected import Groups

F64 = npt.NDArray[np.float64]
DEVICES = ("phone", "tv", "web")


def curves_of(seed: int, shift: float = 0.0, n: int = 300) -> list[GroupCurve]:
    rng = np.random.default_rng(seed)
    effects = [0.05 + 0.1 * rng.standard_normal(n), shift + 0.1 * rng.standard_normal(2 * n)]
    return [GroupCurve.of(e - 0.02, e, np.ones(len(e)), 3.0 * n) for e in effects]


def net_of(curves: list[GroupCurve], shares: F64) -> float:
    return sum(c.mass * float(np.interp(q, c.shares, c.net)) for c, q in zip(curves, shares, strict=True))


def test_a_curve_by_hand() -> None:
    curve = GroupCurve.of(np.array([1.0, -1.0, 3.0, 0.0]), np.array([2.0, 0.0, 4.0, 1.0]), np.ones(4), 8.0)
    assert curve.mass == 0.5
    np.testing.assert_allclose(
        np.interp([0, 0.25, 0.5, 0.75, 1], curve.shares, curve.net), [0, 0.75, 1, 1, 0.75]
    )
    assert curve.benefit[25] == pytest.approx(4)
    assert curve.benefit[-1] == pytest.approx(7 / 4)
    assert np.isnan(curve.benefit[0])


def test_without_constraints_all_who_gain_are_served() -> None:
    curves = curves_of(0)
    shares = choose_shares(curves, 1.0, 0.0, None)
    np.testing.assert_allclose(shares, [c.shares[np.argmax(c.net)] for c in curves])


@pytest.mark.parametrize(
    ("budget", "least", "gap"), [(0.3, 0.0, None), (0.3, 0.2, None), (1.0, 0.1, 0.02), (0.4, 0.1, 0.05)]
)
def test_shares_are_nearly_those_of_brute_force(budget: float, least: float, gap: float | None) -> None:
    curves = curves_of(1, shift=-0.05)
    shares = choose_shares(curves, budget, least, gap)
    places = [round(q * (STEPS - 1)) for q in shares]
    benefits = [c.benefit[j] for c, j in zip(curves, places, strict=True)]
    assert (shares >= least - 1e-9).all()
    assert sum(c.mass * q for c, q in zip(curves, shares, strict=True)) <= budget + 1e-9
    assert gap is None or max(benefits) - min(benefits) <= gap + 1e-6
    best = -np.inf
    for i, j in product(range(STEPS), repeat=2):
        q = np.array([i, j]) / (STEPS - 1)
        b = [curves[0].benefit[i], curves[1].benefit[j]]
        if (q < least - 1e-9).any() or curves[0].mass * q[0] + curves[1].mass * q[1] > budget + 1e-9:
            continue
        if gap is not None and not max(b) - min(b) <= gap:
            continue
        best = max(best, net_of(curves, q))
    assert best - 0.002 <= net_of(curves, shares) <= best + 1e-6


def test_constraints_that_nothing_meets() -> None:
    with pytest.raises(EstimationError, match=r"max_gap is 0\.001: .* the smallest gap that they reach is"):
        choose_shares(curves_of(0, shift=5.0), 1.0, 0.9, 0.001)


def log_of(n_users: int = 300, **roles: object) -> cr.ImpressionLog:
    return cr.read_log(make_world(1200, n_users, by_user=True).frame, **{**ROLES, **roles})


def test_groups_of_labels_numbers_and_both() -> None:
    log = log_of()
    assert Groups.learn(log, "device").names == DEVICES
    quarters = Groups.learn(log, "age")
    assert len(quarters.names) == 4
    assert all(name.startswith("age ") for name in quarters.names)
    size = np.bincount(quarters.codes(log, "training"))
    assert size.min() > 0.2 * len(log)
    both = Groups.learn(log_of(600, modifiers=["age", "device"], confounders=["rate"]), ["device", "age"])
    assert len(both.names) == 12


@pytest.mark.parametrize(
    ("protected", "error", "says"),
    [
        (
            "devices",
            ArgumentError,
            r"protected is 'devices', must be a declared modifier or confounder.*Did you mean 'device'",
        ),
        ("clicked", ArgumentError, r"protected is 'clicked', must be a declared"),
        (3, ArgumentError, r"protected is 3, must be a column name or a list"),
    ],
)
def test_columns_that_are_no_groups(protected: object, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Groups.learn(log_of(), protected)


def test_groups_that_are_too_small_one_or_new() -> None:
    frame = make_world(1200, 300, by_user=True).frame
    few = frame["user"].isin(frame.loc[frame["device"] == "tv", "user"].unique()[10:])
    thin = cr.read_log(frame[~(few & (frame["device"] == "tv"))], **ROLES)
    with pytest.raises(
        EstimationError, match=r"group 'tv' has 10 users in the training log, must have >= 30"
    ):
        Groups.learn(thin, "device")
    with pytest.raises(EstimationError, match=r"protected \['device'\] has one group, 'phone'"):
        Groups.learn(cr.read_log(frame.assign(device="phone"), **ROLES), "device")
    groups = Groups.learn(cr.read_log(frame[frame["device"] != "tv"], **ROLES), "device")
    with pytest.raises(EstimationError, match=r"the test log has the protected groups \['tv'\]"):
        groups.codes(cr.read_log(frame, **ROLES), "test")
    with pytest.raises(
        EstimationError, match=r"has 1[,\d]* groups; name columns with fewer levels|has 300 groups"
    ):
        Groups.learn(cr.read_log(frame.assign(device="d" + frame["user"].astype(str)), **ROLES), "device")
