from __future__ import annotations

import re

import numpy as np
import pytest

from causalrec._checks import as_generator, as_names, check_choice, check_scalar, did_you_mean
from causalrec.errors import ArgumentError


@pytest.mark.parametrize(
    ("value", "bounds", "says"),
    [
        (0, {"gt": 0}, r"reps is 0, must be > 0"),
        (-0.1, {"ge": 0}, r"reps is -0.1, must be >= 0"),
        (1, {"lt": 1}, r"reps is 1, must be < 1"),
        (51, {"le": 50}, r"reps is 51, must be <= 50"),
        (2.0, {"integer": True}, r"reps is 2.0, must be a whole number"),
        (True, {}, r"reps is True, must be a finite number"),
        (True, {"integer": True}, r"reps is True, must be a whole number"),
        ("3", {}, r"reps is '3', must be a finite number"),
        (None, {}, r"reps is None, must be a finite number"),
        (float("nan"), {}, r"reps is nan, must be a finite number"),
        (float("inf"), {"gt": 0}, r"reps is inf, must be a finite number"),
        (np.array([1.0]), {}, r"must be a finite number"),
        (1j, {}, r"must be a finite number"),
    ],
)
def test_a_wrong_scalar_says_name_value_and_bound(value: object, bounds: dict, says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        check_scalar(value, "reps", **bounds)


@pytest.mark.parametrize(
    ("value", "integer", "kind"),
    [
        (3, True, int),
        (np.int32(3), True, int),
        (0.3, False, float),
        (np.float32(0.5), False, float),
        (3, False, float),
    ],
)
def test_a_right_scalar_comes_back_as_a_plain_number(value: float, integer: bool, kind: type) -> None:
    checked = check_scalar(value, "reps", ge=0, le=10, integer=integer)
    assert type(checked) is kind
    assert checked == value


def test_a_choice_names_the_choices_and_the_nearest() -> None:
    assert check_choice("ate", "estimand", ("ate", "att")) == "ate"
    with pytest.raises(
        ArgumentError, match=r"estimand is 'atee', must be one of \['ate', 'att'\]. Did you mean 'ate'\?"
    ):
        check_choice("atee", "estimand", ("ate", "att"))


@pytest.mark.parametrize(
    ("value", "near"), [("clickd", " Did you mean 'clicked'?"), ("xyz", ""), (12, " Did you mean '123'?")]
)
def test_did_you_mean(value: object, near: str) -> None:
    assert did_you_mean(value, ["clicked", "shown", 123]) == near


@pytest.mark.parametrize(
    ("given", "names"),
    [(None, ()), ("a", ("a",)), (["a", "b"], ("a", "b")), (iter("ab"), ("a", "b")), ((), ())],
)
def test_names(given: object, names: tuple[str, ...]) -> None:
    assert as_names(given, "text") == names  # type: ignore[arg-type]


def test_names_must_be_strings() -> None:
    with pytest.raises(ArgumentError, match=r"text is \['a', 3\], must be a column name or a list"):
        as_names(["a", 3], "text")  # type: ignore[list-item]


def test_the_same_seed_draws_the_same_and_a_generator_is_used_as_it_is() -> None:
    rng = np.random.default_rng(1)
    assert as_generator(rng) is rng
    assert as_generator(5).random() == as_generator(np.int64(5)).random()
    assert as_generator(None).random() != as_generator(None).random()


@pytest.mark.parametrize(
    "seed", [-1, 1.5, "0", True, np.random.RandomState(0)], ids=lambda v: type(v).__name__ + str(v)[:12]
)
def test_a_wrong_seed(seed: object) -> None:
    with pytest.raises(ArgumentError, match=r"random_state is .*" + re.escape("must be a whole number >= 0")):
        as_generator(seed)  # type: ignore[arg-type]
