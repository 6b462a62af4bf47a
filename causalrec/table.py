"""Any table a user has, as a pandas frame that is theirs no longer to be changed by us."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from causalrec.errors import ColumnError, LogError

Source = Any  # a pandas, polars or pyarrow table, or a path to CSV or Parquet


def as_frame(source: Source) -> pd.DataFrame:
    """Read `source` into a pandas frame; a frame is taken as a shallow (copy-on-write) copy.

    Raises
    ------
    LogError
        The file is missing or unreadable, or the object is no table.
    """
    if isinstance(source, (str, PathLike)):
        return _from_path(Path(source))
    if isinstance(source, pd.DataFrame):
        frame = source.copy(deep=False)
    elif callable(getattr(source, "collect", None)) and type(source).__module__.startswith("polars"):
        frame = source.collect().to_pandas()
    elif callable(getattr(source, "to_pandas", None)):
        frame = source.to_pandas()
    else:
        raise LogError(
            f"source is a {type(source).__name__}; must be a pandas, polars or pyarrow table, or a path to a .csv or .parquet file."
        )
    if not isinstance(frame, pd.DataFrame):
        raise LogError(
            f"source is a {type(source).__name__} that converts to {type(frame).__name__}, not to a table; pass the whole table."
        )
    return frame


def _from_path(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise LogError(f"file {str(path)!r} does not exist; the working directory is {str(Path.cwd())!r}.")
    if path.is_dir():
        raise LogError(f"{str(path)!r} is a folder; pass one .csv or .parquet file.")
    if path.stat().st_size == 0:
        raise LogError(f"file {str(path)!r} is empty (0 bytes).")
    suffixes = [s.lower() for s in path.suffixes]
    try:
        if ".parquet" in suffixes or ".pq" in suffixes:
            return pd.read_parquet(path)
        if ".csv" in suffixes or ".tsv" in suffixes:
            frame = pd.read_csv(path, sep="\t" if ".tsv" in suffixes else ",", low_memory=False)
        else:
            raise LogError(
                f"file {str(path)!r} ends in {path.suffix!r}; must be .csv, .tsv or .parquet. Read it yourself and pass the table."
            )
    except LogError:
        raise
    except Exception as error:
        raise LogError(
            f"file {str(path)!r} cannot be read ({type(error).__name__}: {str(error)[:200].partition(chr(10))[0]}); "
            "is it complete, and is its ending right?"
        ) from error
    if frame.shape[1] == 1 and any(mark in str(frame.columns[0]) for mark in ";\t|"):
        raise LogError(
            f"file {str(path)!r} has one column, {str(frame.columns[0])[:80]!r}: its delimiter is not ','. "
            "Read it with pandas.read_csv(path, sep=...) and pass the table."
        )
    return frame


def require_columns(frame: pd.DataFrame, wanted: dict[str, tuple[str, ...]]) -> None:
    """Raise ``ColumnError`` unless each wanted column is there once and has one role."""
    from causalrec._checks import did_you_mean

    have = list(frame.columns)
    seen: dict[str, str] = {}
    for role, names in wanted.items():
        for name in names:
            if name in seen:
                where = f"twice as {role}" if seen[name] == role else f"as {seen[name]} and as {role}"
                hint = (
                    " (a modifier is adjusted for as well; declare it as a modifier only)"
                    if {seen[name], role} == {"modifiers", "confounders"}
                    else ""
                )
                raise ColumnError(f"column {name!r} is declared {where}; each column has one role{hint}.")
            seen[name] = role
            count = have.count(name)
            if count == 0:
                raise ColumnError(
                    f"column {name!r} ({role}) is not in the table.{did_you_mean(name, have)} It has {_list(have)}."
                )
            if count > 1:
                raise ColumnError(
                    f"column {name!r} ({role}) is in the table {count} times; rename or drop the others."
                )


def _list(names: list[Any], most: int = 40) -> str:
    return f"{names[:most]}" + (f" and {len(names) - most} more" if len(names) > most else "")
