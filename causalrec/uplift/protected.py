"""Protected groups of a log: read off the training users, and found again on others."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec._checks import as_names, did_you_mean
from causalrec.errors import ArgumentError, EstimationError
from causalrec.log import ImpressionLog

Ints = npt.NDArray[np.int64]
MIN_USERS = 30
"""Users that a protected group must have on either side of the split."""
MOST_GROUPS = 50
BINS = 4
"""Quantile bins of a protected number."""


@dataclass(frozen=True)
class Groups:
    """The protected groups, as learnt on the training log: combinations of columns, numbers in quantile bins.

    Attributes
    ----------
    columns : tuple of (name, edges)
        ``edges`` are the inner bin edges of a number with more than four values, None for anything else.
    names : tuple of str
        The combinations that occur in the training log, for instance ``"phone, new"``.
    """

    columns: tuple[tuple[str, tuple[float, ...] | None], ...]
    names: tuple[str, ...]

    @classmethod
    def learn(cls, log: ImpressionLog, protected: Any) -> Groups:
        """Read the groups off the training log.

        Raises
        ------
        ArgumentError
            A column is no declared modifier or confounder.
        EstimationError
            A group has fewer than 30 users, or there is one group only.
        """
        declared = (*log.roles.modifiers, *log.roles.confounders)
        wanted = as_names(protected, "protected")
        for name in wanted:
            if name not in declared:
                raise ArgumentError(
                    f"protected is {name!r}, must be a declared modifier or confounder: {list(declared)}.{did_you_mean(name, declared)} Declare it in read_log."
                )
        columns = tuple((name, _edges(log.frame[name])) for name in wanted)
        names, count = np.unique(_labels(log.frame, columns), return_counts=True)
        if len(names) < 2:
            raise EstimationError(
                f"protected {list(wanted)} has one group, {str(names[0])!r}; there is no gap to look at."
            )
        if len(count) > MOST_GROUPS:
            raise EstimationError(
                f"protected {list(wanted)} has {len(count):,} groups; name columns with fewer levels."
            )
        groups = cls(columns, tuple(str(v) for v in names))
        groups.codes(log, "training")
        return groups

    def codes(self, log: ImpressionLog, which: str, least: int = MIN_USERS) -> Ints:
        """(n,) index into ``names``; each group has at least so many users.

        Raises
        ------
        EstimationError
            A group is new, or has too few users here.
        """
        labels = _labels(log.frame, self.columns)
        new = sorted(set(labels.tolist()) - set(self.names))
        if new:
            raise EstimationError(
                f"the {which} log has the protected groups {new[:5]}, which the training log has not; it has {list(self.names)}."
            )
        codes = np.searchsorted(np.array(self.names), labels).astype(np.int64)
        for k, name in enumerate(self.names):
            users = len(np.unique(log.units[codes == k]))
            if users < least:
                raise EstimationError(
                    f"the protected group {name!r} has {users} users in the {which} log, must have >= {least}; "
                    "nothing reliable can be said of so few: merge it with another group, or use a longer log."
                )
        return codes


def _edges(values: pd.Series) -> tuple[float, ...] | None:
    number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    if not number or values.nunique() <= BINS:
        return None
    inner = np.unique(np.quantile(values.astype(float), np.linspace(0, 1, BINS + 1)[1:-1]))
    return tuple(float(x) for x in inner)


def _labels(
    frame: pd.DataFrame, columns: tuple[tuple[str, tuple[float, ...] | None], ...]
) -> npt.NDArray[np.str_]:
    parts = []
    for name, edges in columns:
        if edges is None:
            parts.append(frame[name].astype(str).to_numpy(dtype=str))
            continue
        ends = [f"{x:g}" for x in edges]
        said = [f"{name} up to {ends[0]}", *(f"{name} {a} to {b}" for a, b in pairwise(ends))]
        said.append(f"{name} above {ends[-1]}")
        parts.append(np.array(said)[np.searchsorted(np.array(edges), frame[name].to_numpy(float))])
    out = parts[0]
    for more in parts[1:]:
        out = np.char.add(np.char.add(out, ", "), more)
    return out
