"""Impressions that were drawn at random: checked before anything is fitted, and made ready to be scored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec._values import check_present
from causalrec.errors import LogError
from causalrec.finetune.feed import Feed, feed_of_log
from causalrec.finetune.options import Kind
from causalrec.finetune.weighing import RandomData
from causalrec.log import ImpressionLog

F64 = npt.NDArray[np.float64]
LEAST_USERS = 2
MOST_OF_LOG, MOST_OF_OTHER = 0.5, 0.05
"""Share of random rows that may say what a row of the log says, or of the other random data: two draws of one user and item can be alike."""


def check_random(log: ImpressionLog, given: RandomData) -> None:
    """Raise ``LogError`` unless both frames, where they are given, are impressions that were shown, of both outcomes, and of rows of their own."""
    test, valid = (_checked(log, name, frame) for name, frame in (("test", given.test), ("validation", given.validation)))
    for name, rows in (("test", test), ("validation", valid)):
        if rows is not None:
            _check_apart(log.take(log.treatment == 1), name, rows)
    if test is not None and valid is not None:
        columns = [c for c in test.frame.columns if c in valid.frame.columns]
        n = int(np.isin(_says(test, columns), _says(valid, columns)).sum())
        if n > MOST_OF_OTHER * min(len(test), len(valid)) and _told_apart(test, columns):
            raise LogError(
                f"{n:,} of the {len(test):,} rows of RandomData(test=...) are rows of its validation as well, and what chose must not judge: give each row to one of them."
            )


def random_part(log: ImpressionLog, kind: Kind, known: dict[str, int], frame: pd.DataFrame | None) -> tuple[Feed, F64, Any] | None:
    """The feed, outcome (n,) and user codes (n,) of randomly drawn impressions."""
    if frame is None:
        return None
    part = _as_log(log, frame)
    return feed_of_log(part, kind, known), part.outcome, part.units


def _as_log(log: ImpressionLog, frame: pd.DataFrame) -> ImpressionLog:
    return replace(log, frame=frame, blocks={}, origin=None)


def _needed(log: ImpressionLog) -> list[str]:
    return [n for role in ("text", "history", "unit", "item", "outcome") for n in getattr(log.roles, role)]


def _checked(log: ImpressionLog, name: str, frame: pd.DataFrame | None) -> ImpressionLog | None:
    if frame is None:
        return None
    missing = [n for n in _needed(log) if n not in frame.columns]
    if missing:
        raise LogError(f"the random data lack the columns {missing} ({name}); they need those of the log: {_needed(log)}.")
    if not len(frame):
        raise LogError(f"RandomData({name}=...) has no rows; leave it out, or give impressions whose items were drawn at random.")
    for role in ("unit", "item"):
        for label in getattr(log.roles, role):
            _check_labels(frame[label], role, name)
    part, outcome = _as_log(log, frame), log.roles.outcome[0]
    column = frame[outcome]
    if not (column.isin([0, 1]) & column.notna()).all():
        raise LogError(f"the outcome {outcome!r} of the random data ({name}) holds other values than 0 and 1.")
    if column.nunique() < 2:
        raise LogError(f"all {len(frame):,} outcomes of the random data ({name}) are {column.iloc[0]:g}: nothing can be ranked well or badly.")
    if part.n_units < LEAST_USERS:
        raise LogError(f"the random data ({name}) have one user, must have >= {LEAST_USERS}.")
    if log.roles.treatment[0] in frame.columns:
        unseen = int((part.treatment != 1).sum())
        if unseen:
            raise LogError(
                f"{unseen:,} of the {len(frame):,} rows of RandomData({name}=...) were not shown ({log.roles.treatment[0]!r}), so that nobody could click: keep the rows shown."
            )
    return part


def _check_labels(column: pd.Series, role: str, name: str) -> None:
    """Every row of random data has a user and an item, where the log declares them."""
    try:
        check_present(column, role)
    except LogError as error:
        raise LogError(f"RandomData({name}=...): {error}") from None


def _check_apart(shown: ImpressionLog, name: str, rows: ImpressionLog) -> None:
    columns = _needed(rows)
    n = int(np.isin(_says(rows, columns), _says(shown, columns)).sum())
    if n > MOST_OF_LOG * len(rows) and _told_apart(rows, columns):
        raise LogError(
            f"{n:,} of the {len(rows):,} rows of RandomData({name}=...) are rows of the log, which the old recommender chose and the ranker may be trained on: give impressions whose "
            "items were drawn at random, beside the log."
        )


def _told_apart(rows: ImpressionLog, columns: list[str]) -> bool:
    """Whether rows that say the same are one row: where users are declared, or most rows are distinct."""
    return bool(rows.roles.unit) or len(np.unique(_says(rows, columns))) > len(rows) / 2


def _says(rows: ImpressionLog, columns: list[str]) -> npt.NDArray[np.uint64]:
    """(n,) hash of what each row says in these columns."""
    total: npt.NDArray[np.uint64] = np.zeros(len(rows), dtype=np.uint64)
    for name in columns:
        column = rows.frame[name]
        plain = pd.Series(column.to_numpy(dtype=np.float64) if name == rows.roles.outcome[0] else column.map(str).to_numpy())
        total = np.asarray(total * np.uint64(1_000_003) + pd.util.hash_pandas_object(plain, index=False).to_numpy(dtype=np.uint64))
    return total
