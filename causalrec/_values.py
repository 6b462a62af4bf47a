"""What may stand in a column of each role: checks that name the column, the rows and the next step."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec.errors import ColumnError, LogError

TO_DO = {
    "outcome": "drop these rows. Where they were not shown and nobody saw what would have happened, put 0 there instead: finetune needs them as candidates, and learns from rows shown.",
    "instrument": "drop these rows.",
    "treatment": "drop these rows.",
}
"""What to do about numbers that are missing, by role."""


def check_columns(frame: pd.DataFrame, roles: Mapping[str, tuple[str, ...]]) -> None:
    """Raise ``LogError`` for the first column whose values its role cannot have."""
    for role, names in roles.items():
        for name in names:
            column = frame[name]
            if role == "outcome":
                check_number(column, role)
            elif role in ("confounders", "modifiers"):
                _check_covariate(column, role)
            elif role == "text":
                _check_text(column)
            elif role == "history":
                _check_history(column)
            elif role in ("unit", "item"):
                check_present(column, role)
            elif role in ("score", "weight", "propensity", "instrument", "negative_controls"):
                values = check_number(column, role)
                if role == "weight" and ((values < 0).any() or values.sum() == 0):
                    raise LogError(
                        f"column {name!r} (weight) has {int((values < 0).sum()):,} negative rows and sum {values.sum():g}; weights must be >= 0 and not all 0."
                    )
                if role == "propensity" and ((values <= 0) | (values >= 1)).any():
                    bad = int(((values <= 0) | (values >= 1)).sum())
                    raise LogError(
                        f"column {name!r} (propensity) is outside (0, 1) in {bad:,} of {len(values):,} rows "
                        f"(min {values.min():g}, max {values.max():g}); rows whose treatment was certain carry no comparison: leave them out of the log."
                    )
    check_time_order(frame, roles.get("time", ()))


def check_present(column: pd.Series, role: str) -> None:
    missing = int(column.isna().sum())
    if missing:
        raise LogError(
            f"column {column.name!r} ({role}) is missing in {missing:,} of {len(column):,} rows; drop these rows or give them a {role} of their own."
        )
    if not isinstance(column.iloc[0], Hashable):
        raise LogError(
            f"column {column.name!r} ({role}) holds {type(column.iloc[0]).__name__} values; must hold numbers or labels."
        )


def check_number(column: pd.Series, role: str) -> npt.NDArray[np.float64]:
    name = column.name
    if pd.api.types.is_complex_dtype(column):
        raise LogError(
            f"column {name!r} ({role}) holds complex numbers; must be real. Declare its real part or its size."
        )
    if not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)):
        raise LogError(
            f"column {name!r} ({role}) has dtype {column.dtype}; must be numeric or bool. For instance it holds {column.iloc[0]!r}."
        )
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    bad = ~np.isfinite(values)
    if bad.any():
        raise LogError(
            f"column {name!r} ({role}) is NaN or infinite in {int(bad.sum()):,} of {len(values):,} rows (first at row {int(np.flatnonzero(bad)[0])}); "
            + TO_DO.get(role, "impute it and add an indicator column, or drop these rows.")
        )
    return values


def _check_covariate(column: pd.Series, role: str) -> None:
    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        raise LogError(
            f"column {column.name!r} ({role}) is a date; derive what acts (hour, weekday, days since …) and declare that."
        )
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        check_number(column, role)
        return
    check_present(column, role)
    levels = column.nunique()
    if levels > max(50, len(column) // 2):
        raise LogError(
            f"column {column.name!r} ({role}) has {levels:,} labels in {len(column):,} rows: it reads like text or an identifier; declare it as text=, unit= or item=."
        )


def _check_text(column: pd.Series) -> None:
    name = column.name
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        raise LogError(
            f"column {name!r} (text) has dtype {column.dtype}; must hold strings. Declare a number as confounders= instead."
        )
    wrong = next((v for v in column if not isinstance(v, str) and not _is_missing(v)), None)
    if wrong is not None:
        raise LogError(
            f"column {name!r} (text) holds {type(wrong).__name__} values; must hold strings or missing values."
        )
    texts = [v for v in pd.unique(column) if isinstance(v, str)]
    if not any(v.strip() for v in texts):
        raise LogError(
            f"column {name!r} (text) is empty in all {len(column):,} rows; there are no words to adjust for."
        )
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise LogError(
            f"column {name!r} (text) holds half a character ({error.object[error.start]!r}, {error.reason}), as when an emoji is cut in two; "
            "mend it with .str.encode('utf-8', 'replace').str.decode('utf-8')."
        ) from None


def _check_history(column: pd.Series) -> None:
    if not any(len(parse_history(v, str(column.name))) for v in column.iloc[: min(len(column), 100_000)]):
        raise LogError(f"column {column.name!r} (history) has no history in any row; leave history= out.")


def check_time_order(frame: pd.DataFrame, names: tuple[str, ...]) -> None:
    """Raise ``LogError`` when a row breaks the declared order of its times."""
    times = []
    for name in names:
        column = frame[name]
        if not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column)):
            try:
                column = pd.to_datetime(column, utc=True)
            except (ValueError, TypeError) as error:
                raise LogError(
                    f"column {name!r} (time) cannot be read as a time ({str(error).splitlines()[0][:120]})."
                ) from None
        check_present(column, "time")
        times.append(column)
    for earlier, later in pairwise(times):
        try:
            broken = (earlier.to_numpy() > later.to_numpy()).sum()
        except TypeError:
            raise LogError(
                f"columns {earlier.name!r} and {later.name!r} (time) are of different kinds; make both dates or both numbers."
            ) from None
        if broken:
            raise LogError(
                f"{int(broken):,} of {len(frame):,} rows have {later.name!r} before {earlier.name!r}: what was written after the exposure may be caused by it "
                "and must not be adjusted for. Drop these rows, use the text as it was, or mend the order of time=[…, exposure]."
            )


def check_logged_propensity(
    e: npt.NDArray[np.float64], t: npt.NDArray[np.float64], units: npt.NDArray[np.int64], name: str
) -> None:
    """Refuse a logged propensity whose mean contradicts the share of treated rows.

    Under P(T=1 | log) = e the sum of (T − e) over a unit has mean zero; refused when the clustered z is
    beyond 5 and the gap beyond a tenth of the rarer arm's share.
    """
    gap = np.bincount(units, t - e)
    z = gap.sum() / max(np.sqrt((gap**2).sum()), 1e-12)
    share = t.mean()
    if abs(z) > 5 and abs(share - e.mean()) > 0.1 * min(share, 1 - share):
        drawn = np.where(t == 1, e, 1 - e).mean()
        own = np.bincount(units, t - np.where(t == 1, e, 1 - e))
        arm = abs(own.sum()) / max(np.sqrt((own**2).sum()), 1e-12) < 5
        hint = (
            "it may be the probability of the arm that was drawn: use p for treated and 1 − p for the other rows"
            if arm
            else "it may be P(item | slot), or the probability of something else"
        )
        raise LogError(
            f"column {name!r} (propensity) has mean {e.mean():.4f} but {share:.4f} of the rows are treated (z = {z:.0f}); "
            f"it is not P(treated): {hint}. Leave propensity= out to have it estimated. (Mean probability of the drawn arm, read as P(treated): {drawn:.4f}.)"
        )


def check_propensity_slope(
    e: npt.NDArray[np.float64], t: npt.NDArray[np.float64], units: npt.NDArray[np.int64], name: str
) -> None:
    """Refuse a logged propensity that the treatment does not follow.

    Under P(T=1 | log) = e the logistic regression of T on logit(e) has slope 1; refused when it is below ½ by more than
    5 standard errors (clustered by unit) of its distance from 1.
    """
    x = np.log(e / (1 - e))
    if x.std() < 0.05:
        return
    a, b = 0.0, 1.0
    for _ in range(50):
        mu = 1 / (1 + np.exp(-np.clip(a + b * x, -30, 30)))
        v = mu * (1 - mu)
        bread = np.linalg.pinv(np.array([[v.sum(), (v * x).sum()], [(v * x).sum(), (v * x * x).sum()]]))
        step = bread @ np.array([(t - mu).sum(), ((t - mu) * x).sum()])
        step *= min(1.0, 1.0 / max(np.abs(step).max(), 1e-12))
        a, b = a + step[0], b + step[1]
        if np.abs(step).max() < 1e-8:
            break
    sums = np.column_stack([np.bincount(units, t - mu), np.bincount(units, (t - mu) * x)])
    se = float(np.sqrt((bread @ (sums.T @ sums) @ bread)[1, 1]))
    if b < 0.5 and 1 - b > 5 * se:
        hint = (
            "it falls as exposure rises: is it P(control)? Then declare 1 − p."
            if b < -0.5
            else "is it the probability of the arm that was drawn (use p for treated rows, 1 − p for the others), or was it joined to the wrong rows?"
        )
        raise LogError(
            f"column {name!r} (propensity) does not predict the treatment: the slope of exposure on its log-odds is {b:.2f} ± {se:.2f}, must be 1 for P(treated); {hint} "
            "Leave propensity= out to have it estimated."
        )


def infer_numbers(frame: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """The frame with object columns that hold nothing but numbers (Decimal, mixed, 0/1 objects) as numbers."""
    found = {}
    for name in names:
        kind = pd.api.types.infer_dtype(frame[name], skipna=True) if frame[name].dtype == object else ""
        if kind in ("integer", "floating", "decimal", "boolean", "mixed-integer-float"):
            found[name] = frame[name].map(float, na_action="ignore").astype(np.float64)
    return frame.assign(**found) if found else frame


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and value != value)


def distinct_texts(column: pd.Series) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Distinct strings (missing reads as '') in order of first appearance, and each row's index."""
    values = column.astype(object)
    codes, found = pd.factorize(values.where(values.notna(), ""))
    return [str(v) for v in found], codes.astype(np.int64)


def parse_history(value: Any, name: str) -> tuple[str, ...]:
    """One cell of a history column as a tuple of texts; a string is a JSON list or one text."""
    if _is_missing(value):
        return ()
    if isinstance(value, str):
        if not value.strip():
            return ()
        if value.lstrip().startswith("["):
            try:
                value = json.loads(value)
            except json.JSONDecodeError:
                raise ColumnError(
                    f"column {name!r} (history) holds {value[:60]!r}, which is no JSON list of texts."
                ) from None
        else:
            return (value,)
    if not isinstance(value, (list, tuple, np.ndarray)):
        raise ColumnError(
            f"column {name!r} (history) holds a {type(value).__name__}; must hold lists of texts."
        )
    texts = tuple(v for v in value if not _is_missing(v))
    wrong = next((v for v in texts if not isinstance(v, str)), None)
    if wrong is not None:
        raise ColumnError(
            f"column {name!r} (history) holds lists of {type(wrong).__name__}; must hold lists of texts."
        )
    return tuple(t for t in texts if t.strip())


def distinct_histories(column: pd.Series) -> tuple[list[tuple[str, ...]], npt.NDArray[np.int64]]:
    """Distinct histories in order of first appearance, and each row's index."""
    index: dict[tuple[str, ...], int] = {}
    seen: dict[Any, int] = {}  # cells as they stand, so that each distinct one is parsed once
    codes = np.empty(len(column), dtype=np.int64)
    name = str(column.name)
    for i, value in enumerate(column.to_numpy(dtype=object)):
        cell = tuple(value) if isinstance(value, (list, np.ndarray)) else value
        code = seen.get(cell)
        if code is None:
            code = seen[cell] = index.setdefault(parse_history(value, name), len(index))
        codes[i] = code
    return list(index), codes


def label_of(value: object) -> str:
    """A unit's or an item's label in words; 7.0 is "7", as pandas makes floats of whole numbers where one is missing."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)
