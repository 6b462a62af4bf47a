"""Argument checks that return the value, so that a check is an assignment."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Any, TypeVar

import numpy as np

from causalrec.errors import ArgumentError

T = TypeVar("T")


def check_scalar(
    value: Any,
    name: str,
    *,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    integer: bool = False,
) -> Any:
    """Return `value` if it is a finite number within the bounds, else raise ``ArgumentError``."""
    kinds = (int, np.integer) if integer else (int, float, np.integer, np.floating)
    if isinstance(value, bool) or not isinstance(value, kinds) or not np.isfinite(value):
        raise ArgumentError(
            f"{name} is {value!r}, must be {'a whole number' if integer else 'a finite number'}."
        )
    for bound, holds, sign in (
        (gt, lambda b: value > b, ">"),
        (ge, lambda b: value >= b, ">="),
        (lt, lambda b: value < b, "<"),
        (le, lambda b: value <= b, "<="),
    ):
        if bound is not None and not holds(bound):
            raise ArgumentError(f"{name} is {value!r}, must be {sign} {bound}.")
    return int(value) if integer else float(value)


def check_flag(value: Any, name: str) -> bool:
    """Return `value` if it is True or False, else raise ``ArgumentError``."""
    if not isinstance(value, (bool, np.bool_)):
        raise ArgumentError(f"{name} is {value!r}, must be True or False.")
    return bool(value)


def check_path(value: Any, name: str) -> None:
    """Raise ``ArgumentError`` unless `value` is a path, or None."""
    if value is not None and (not isinstance(value, (str, PathLike)) or not str(value)):
        raise ArgumentError(f"{name} is {value!r}, must be the path of a folder, or None.")


def check_choice(value: T, name: str, choices: Sequence[T]) -> T:
    """Return `value` if it is one of `choices`, else raise with the list and the nearest one."""
    if value not in choices:
        raise ArgumentError(
            f"{name} is {value!r}, must be one of {list(choices)}.{did_you_mean(value, choices)}"
        )
    return value


def did_you_mean(value: object, choices: Iterable[object]) -> str:
    """' Did you mean …?' when a choice is near, else an empty string."""
    near = difflib.get_close_matches(str(value), [str(c) for c in choices], n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def as_names(value: str | Iterable[str] | None, role: str) -> tuple[str, ...]:
    """A role given as None, one column name or several, as a tuple of names."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Iterable):
        raise ArgumentError(f"{role} is {value!r}, must be a column name or a list of column names.")
    names = tuple(value)
    if not all(isinstance(n, str) for n in names):
        raise ArgumentError(f"{role} is {value!r}, must be a column name or a list of column names.")
    return names


def as_generator(random_state: int | np.random.Generator | None) -> np.random.Generator:
    """A numpy ``Generator`` from a seed, a generator (used as it is) or None (fresh entropy)."""
    if random_state is None or isinstance(random_state, np.random.Generator):
        return np.random.default_rng(random_state)
    if (
        isinstance(random_state, (int, np.integer))
        and not isinstance(random_state, bool)
        and random_state >= 0
    ):
        return np.random.default_rng(int(random_state))
    raise ArgumentError(
        f"random_state is {random_state!r}, must be a whole number >= 0, a Generator or None."
    )
