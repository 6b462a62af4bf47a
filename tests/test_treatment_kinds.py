"""Treatments of several arms and doses, as ``read_log`` takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import causalrec as cr
from causalrec.errors import ArgumentError, ColumnError, LogError

N = 600
RNG = np.random.default_rng(0)
ARM = RNG.integers(0, 3, N)
BASE = pd.DataFrame(
    {
        "user": np.arange(N) % 150,
        "x": RNG.standard_normal(N),
        "mail": np.array(["none", "a", "b"])[ARM],
        "amount": RNG.gamma(2.0, 1.0, N),
        "clicked": (RNG.random(N) < 0.3 + 0.1 * (ARM == 2)).astype(int),
        "p0": 0.4,
        "p1": 0.3,
        "p2": 0.3,
        "nudge": RNG.integers(0, 2, N),
        "shown": RNG.integers(0, 2, N),
    }
)
ROLES: dict[str, Any] = {"outcome": "clicked", "unit": "user", "confounders": ["x"]}
ARMS: dict[str, Any] = {**ROLES, "treatment": "mail", "treatment_kind": "arms", "control": "none"}
DOSE: dict[str, Any] = {**ROLES, "treatment": "amount", "treatment_kind": "dose"}
PER_ARM = {"none": "p0", "a": "p1", "b": "p2"}


def test_arms_are_coded_with_the_control_first() -> None:
    log = cr.read_log(BASE, **ARMS)
    assert log.arms == ("none", "a", "b")
    assert log.treatment_kind == "arms"
    np.testing.assert_array_equal(log.treatment, ARM)
    assert "'none'" in log.summary()


@pytest.mark.parametrize("dtype", ["object", "category", "string"])
def test_arms_of_every_dtype(dtype: str) -> None:
    log = cr.read_log(BASE.assign(mail=BASE["mail"].astype(dtype)), **ARMS)
    np.testing.assert_array_equal(log.treatment, ARM)


def test_zero_is_the_control_of_numbered_arms() -> None:
    log = cr.read_log(BASE.assign(mail=ARM * 10), **{**ARMS, "control": None})
    assert log.arms == (0, 10, 20)
    assert log.treatment.max() == 2


def test_a_dose_is_its_number() -> None:
    log = cr.read_log(BASE.assign(amount=BASE["amount"].astype(object)), **DOSE)
    np.testing.assert_array_equal(log.treatment, BASE["amount"])
    assert "dose amount: median" in log.summary()


@pytest.mark.parametrize("roles", [ARMS, DOSE], ids=["arms", "dose"])
def test_splits_keep_the_kind_and_go_by_user(roles: dict[str, Any]) -> None:
    log = cr.read_log(BASE, **roles)
    train, test = log.split(0.3, random_state=0)
    assert train.treatment_kind == test.treatment_kind == log.treatment_kind
    assert train.arms == test.arms == log.arms
    assert not set(train.unit_labels) & set(test.unit_labels)
    assert len(train) + len(test) == N


def test_identify_takes_arms() -> None:
    plan = cr.identify(cr.read_log(BASE, **ARMS))
    assert plan.strategy == "backdoor"
    assert plan.outcome_nodes == ("x",)


def test_known_propensities_per_arm_come_in_the_order_of_the_arms() -> None:
    even = BASE.assign(p0=1 / 3, p1=1 / 3, p2=0.3335)
    log = cr.read_log(even, **ARMS, propensity=dict(reversed(PER_ARM.items())))
    assert log.roles.propensity == ("p0", "p1", "p2")
    assert log.arm_propensities is not None
    np.testing.assert_allclose(log.arm_propensities.sum(axis=1), 1)
    assert cr.identify(log).strategy == "randomised"


def test_no_propensities_per_arm_unless_declared() -> None:
    assert cr.read_log(BASE, **ARMS).arm_propensities is None


@pytest.mark.parametrize(("roles", "verb"), [(ARMS, "estimate_arms"), (DOSE, "dose_response")])
def test_estimate_names_the_right_verb(roles: dict[str, Any], verb: str) -> None:
    log = cr.read_log(BASE, **roles)
    with pytest.raises(LogError, match=rf"use {verb}\(log, plan\)"):
        cr.estimate(log, cr.identify(log))


def test_the_error_of_many_levels_names_the_kinds() -> None:
    with pytest.raises(
        LogError, match=r"3 levels .*must have two.*treatment_kind='arms' \(labels\) or 'dose'"
    ):
        cr.read_log(BASE, treatment="mail", **ROLES)


def few(arm: str, rows: int) -> pd.DataFrame:
    labels = np.where(BASE["mail"] == arm, "none", BASE["mail"])
    labels[:rows] = arm
    return BASE.assign(mail=labels)


BAD: list[tuple[str, pd.DataFrame, dict[str, Any], type[Exception], str]] = [
    ("no kind", BASE, {**ARMS, "treatment_kind": "arm"}, ArgumentError, r"treatment_kind is 'arm'.*Did you mean 'arms'"),
    ("no such control", BASE, {**ARMS, "control": "non"}, ArgumentError, r"control is 'non', must be one of the arms of 'mail'.*Did you mean 'none'"),
    ("control not said", BASE, {**ARMS, "control": None}, ArgumentError, r"control is None, must be one of the arms of 'mail': 'a', 'b', 'none'"),
    ("few rows in an arm", few("b", 20), ARMS, LogError, r"the 'b' arm \('mail'\) has 20 rows, must have >= 50"),
    ("no click in an arm", BASE.assign(clicked=np.where(ARM == 1, 0, BASE["clicked"])), ARMS, LogError, r"the 'a' arm .* has no positive 'clicked'"),
    ("one arm", BASE.assign(mail="none"), ARMS, LogError, r"'mail' \(treatment\) has 1 arms \('none'\); must have 2 to 30"),
    ("an identifier", BASE.assign(mail=[f"m{i}" for i in range(N)]), ARMS, LogError, r"has 600 arms .*An amount is treatment_kind='dose'"),
    ("missing arm", BASE.assign(mail=BASE["mail"].where(BASE["user"] > 3)), ARMS, LogError, r"'mail' \(treatment\) is missing in 16 of 600 rows"),
    ("treated with arms", BASE, {**ARMS, "treated": "a"}, ArgumentError, r"treated is 'a', but treatment_kind is 'arms'; name the arm of comparison with control="),
    ("treated with a dose", BASE, {**DOSE, "treated": 1}, ArgumentError, r"a dose has no treated level"),
    ("control with a dose", BASE, {**DOSE, "control": 0}, ArgumentError, r"control is 0, but treatment_kind is 'dose'"),
    ("one propensity for arms", BASE, {**ARMS, "propensity": "p0"}, ArgumentError, r"must be a mapping \{arm: column\}"),
    ("propensities for two levels", BASE, {**ROLES, "treatment": "shown", "propensity": PER_ARM}, ArgumentError, r"must be one column name"),
    ("propensity of a dose", BASE, {**DOSE, "propensity": "p0"}, ArgumentError, r"the density of a dose is estimated"),
    ("an arm left out", BASE, {**ARMS, "propensity": {"none": "p0", "a": "p1"}}, ArgumentError, r"must name \['none', 'a', 'b'\]: \['b'\] missing"),
    ("an arm too many", BASE, {**ARMS, "propensity": {**PER_ARM, "c": "p2"}}, ArgumentError, r"\['c'\] unknown"),
    ("a column that is a number", BASE, {**ARMS, "propensity": {**PER_ARM, "b": 3}}, ArgumentError, r"maps an arm to 3"),
    ("no such column", BASE, {**ARMS, "propensity": {**PER_ARM, "b": "p3"}}, ColumnError, r"'p3' \(propensity\) is not in the table"),
    ("they do not sum to one", BASE.assign(p2=0.2), {**ARMS, "propensity": PER_ARM}, LogError, r"do not sum to 1 in 600 of 600 rows \(from 0.9 to 0.9\)"),
    ("arms are mixed up", BASE.assign(p0=0.1, p1=0.1, p2=0.8), {**ARMS, "propensity": PER_ARM}, LogError, r"'p0' \(propensity\) has mean 0.1000"),
    ("constant dose", BASE.assign(amount=2.0), DOSE, LogError, r"'amount' \(treatment, a dose\) is constant \(2\)"),
    ("dose of two values", BASE.assign(amount=BASE["shown"]), DOSE, LogError, r"has two values \(0, 1\); read it as binary"),
    ("dose of labels", BASE, {**DOSE, "treatment": "mail"}, LogError, r"'mail' \(treatment\) has dtype .* must be numeric"),
    ("dose with a hole", BASE.assign(amount=BASE["amount"].where(BASE["user"] > 0)), DOSE, LogError, r"NaN or infinite in 4 of 600 rows .*drop these rows"),
    ("instrument with a hole", BASE.assign(nudge=BASE["nudge"].where(BASE["user"] > 0)), {**ROLES, "treatment": "shown", "instrument": "nudge"}, LogError, r"'nudge' \(instrument\) is NaN or infinite in 4 of 600 rows .*; drop these rows"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("frame", "roles", "error", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD]
)
def test_bad_treatments(
    frame: pd.DataFrame, roles: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        cr.read_log(frame, **roles)
