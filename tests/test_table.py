from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_logs import ROLES, make_world

import causalrec as cr
from causalrec.errors import LogError
from causalrec.table import as_frame

FRAME = make_world(300, 60, seed=2).frame


def as_polars(lazy: bool = False) -> Any:
    polars = pytest.importorskip("polars")
    made = polars.from_pandas(FRAME)
    return made.lazy() if lazy else made


def as_arrow() -> Any:
    import pyarrow as pa

    return pa.Table.from_pandas(FRAME)


def on_disk(folder: Path, ending: str) -> Path:
    path = folder / f"log{ending}"
    if "parquet" in ending or ".pq" in ending:
        FRAME.to_parquet(path)
    else:
        FRAME.to_csv(path, index=False, sep="\t" if "tsv" in ending else ",")
    return path


@pytest.mark.parametrize(
    "source",
    [as_polars, lambda: as_polars(lazy=True), as_arrow, ".csv", ".CSV", ".csv.gz", ".tsv", ".parquet", ".pq"],
    ids=["polars", "polars lazy", "pyarrow", "csv", "CSV", "csv.gz", "tsv", "parquet", "pq"],
)
def test_one_log_from_every_source(source: Any, tmp_path: Path) -> None:
    table = on_disk(tmp_path, source) if isinstance(source, str) else source()
    log, mine = cr.read_log(table, **ROLES), cr.read_log(FRAME, **ROLES)
    np.testing.assert_array_equal(log.treatment, mine.treatment)
    np.testing.assert_array_equal(log.outcome, mine.outcome)
    np.testing.assert_array_equal(log.units, mine.units)
    np.testing.assert_array_equal(log.row_hash, mine.row_hash)
    np.testing.assert_array_equal(log.split(0.3, 1)[1].units, mine.split(0.3, 1)[1].units)
    assert log.fingerprint == mine.fingerprint


def test_a_path_may_be_a_string(tmp_path: Path) -> None:
    assert len(as_frame(str(on_disk(tmp_path, ".parquet")))) == 300


def truncated(folder: Path) -> Path:
    path = on_disk(folder, ".parquet")
    path.write_bytes(path.read_bytes()[:-200])
    return path


def semicolons(folder: Path) -> Path:
    path = folder / "log.csv"
    FRAME.to_csv(path, index=False, sep=";")
    return path


def written(name: str, content: bytes) -> Any:
    def write(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: folder / "none.csv", r"none.csv' does not exist; the working directory is"),
        (lambda folder: folder, r"is a folder; pass one .csv or .parquet file"),
        (written("log.csv", b""), r"is empty \(0 bytes\)"),
        (written("log.xlsx", b"PK"), r"ends in '.xlsx'; must be .csv, .tsv or .parquet"),
        (written("log", b"a,b\n1,2\n"), r"ends in ''; must be"),
        (truncated, r"log.parquet' cannot be read \(.*is it complete"),
        (written("log.parquet", b"a,b\n1,2\n"), r"cannot be read .* is its ending right\?"),
        (written("log.csv", b"\xff\xfe\x00\x01\x80"), r"log.csv' cannot be read"),
        (written("log.csv", b"a,b\n1,2\n1,2,3\n"), r"log.csv' cannot be read \(ParserError"),
        (written("log.csv.gz", b"a,b\n1,2\n"), r"log.csv.gz' cannot be read"),
        (semicolons, r"has one column, 'user;age;.*its delimiter is not ','"),
    ],
    ids=["missing", "folder", "empty", "xlsx", "no ending", "truncated", "csv named parquet", "binary", "ragged", "no gzip", "semicolons"],
)  # fmt: skip
def test_a_file_that_cannot_be_read_says_why_and_stays(make: Any, says: str, tmp_path: Path) -> None:
    path = make(tmp_path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(LogError, match=says):
        as_frame(path)
    assert (path.read_bytes() if path.is_file() else None) == before


@pytest.mark.parametrize(
    "source", [None, 3, {"a": [1]}, [[1, 2]], np.zeros((3, 2))], ids=lambda s: type(s).__name__
)
def test_what_is_no_table(source: Any) -> None:
    with pytest.raises(
        LogError, match=rf"source is a {type(source).__name__}; must be a pandas, polars or pyarrow table"
    ):
        as_frame(source)


def test_a_column_is_no_table() -> None:
    with pytest.raises(LogError, match="source is a Series"):
        as_frame(as_polars()["age"])


def test_changing_what_was_read_leaves_the_callers_frame_alone() -> None:
    mine = FRAME.copy()
    read = as_frame(mine)
    read.loc[:, "age"] = 0.0
    read["new"] = 1
    pd.testing.assert_frame_equal(mine, FRAME)
