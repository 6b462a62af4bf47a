from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from causalrec import _treatment, _values
from causalrec.errors import LogError


@pytest.mark.parametrize(
    ("levels", "treated", "expected"),
    [
        ([0, 1], None, 1),
        ([0.0, 1.0], None, 1),
        ([False, True], None, True),
        (["a", "b"], "a", "a"),
        ([1, 2], 2, 2),
        ([-1, 1], 1, 1),
        ([0, 1], True, 1),
        (["1", 1], "1", "1"),
        (["1", 1], 1, 1),
    ],
)
def test_the_treated_level(levels: list, treated: object, expected: object) -> None:
    level = _treatment.treated_level(pd.Series(levels * 2, name="t"), treated)
    assert level == expected
    assert isinstance(level, str) == isinstance(expected, str)


def test_distinct_texts_read_missing_as_empty_and_keep_the_order() -> None:
    column = pd.Series(["b", None, "a", float("nan"), "b", "", pd.NA], dtype=object)
    found, codes = _values.distinct_texts(column)
    assert found == ["b", "", "a"]
    assert codes.tolist() == [0, 1, 2, 1, 0, 1, 1]


@pytest.mark.parametrize("dtype", ["category", "string", "str", "string[pyarrow]"])
def test_distinct_texts_of_every_dtype(dtype: str) -> None:
    found, codes = _values.distinct_texts(pd.Series(["b", "a", None, "b"], dtype=dtype))
    assert (found, codes.tolist()) == (["b", "a", ""], [0, 1, 2, 0])


def test_equal_times_are_in_order_and_zones_are_respected() -> None:
    early = pd.to_datetime(pd.Series(["2024-01-01 10:00+02:00"] * 2)).rename("early")
    late = pd.to_datetime(pd.Series(["2024-01-01 08:00+00:00", "2024-01-01 09:00+00:00"])).rename("late")
    frame = pd.concat([early, late], axis=1)
    _values.check_time_order(frame, ("early", "late"))
    with pytest.raises(LogError, match=r"1 of 2 rows have 'early' before 'late'"):
        _values.check_time_order(frame, ("late", "early"))


def test_times_may_be_numbers_or_text() -> None:
    frame = pd.DataFrame(
        {"a": [1, 2], "b": [1.5, 2.0], "c": ["2024-01-01", "2024-01-02"], "d": ["2024-01-02"] * 2}
    )
    _values.check_time_order(frame, ("a", "b"))
    _values.check_time_order(frame, ("c", "d"))
    with pytest.raises(LogError, match=r"1 of 2 rows have 'c' before 'd'"):
        _values.check_time_order(frame, ("d", "c"))


def test_a_right_propensity_is_hardly_ever_refused_and_a_wrong_one_is() -> None:
    rng = np.random.default_rng(0)
    units = np.arange(2000) // 4
    for _ in range(200):
        e = rng.uniform(0.05, 0.9, 2000)
        _values.check_logged_propensity(e, (rng.random(2000) < e).astype(float), units, "p")
    with pytest.raises(
        LogError, match=r"column 'p' \(propensity\) has mean .* of the rows are treated \(z = "
    ):
        _values.check_logged_propensity(e * 0.6, (rng.random(2000) < e).astype(float), units, "p")


def test_a_propensity_is_judged_by_units_not_rows() -> None:
    """26 of 40 users by chance is no contradiction, whatever their rows."""
    units = np.repeat(np.arange(40), 100)
    t = (units < 26).astype(float)
    _values.check_logged_propensity(np.full(4000, 0.5), t, units, "p")
    with pytest.raises(LogError, match="is not P"):
        _values.check_logged_propensity(np.full(4000, 0.5), t, np.arange(4000), "p")
