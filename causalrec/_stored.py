"""How results become files: large arrays and tables stand on their own, and a pickle holds what ties them together.

Only what was fitted is written. Dataclasses of the package are written field by field, without what they have cached, and are
made anew from their fields when they are read. Arrays are narrowed where nothing is lost, and written once each.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec.errors import SavedError
from causalrec.nuisance.crossfit import Inner

SMALL = 4096
"""Bytes up to which an array stays in the pickle."""
FEW_ROWS = 1000
NARROW = {
    "f": ("uint8", "float32"),
    "i": ("uint8", "int8", "uint16", "int16", "uint32", "int32"),
    "u": ("uint8", "uint16", "uint32"),
}
Array = npt.NDArray[Any]
References = dict[int, tuple[str, ...]]


@dataclass(eq=False)
class Store:
    """Arrays and tables on their way to a folder, each once.

    Attributes
    ----------
    arrays : dict of str to array
        Narrowed, by name.
    tables : dict of str to bytes
        Parquet files, by name.
    """

    arrays: dict[str, Array] = field(default_factory=dict)
    tables: dict[str, bytes] = field(default_factory=dict)
    _coarse: set[int] = field(default_factory=set)
    _names: dict[tuple[str, ...], str] = field(default_factory=dict)
    _seen: dict[int, tuple[Any, tuple[str, ...]]] = field(default_factory=dict)

    def allow_float32(self, array: Array) -> None:
        """Single precision will do for this array."""
        self._coarse.add(id(array))

    def put_array(self, array: Array) -> tuple[str, ...]:
        """("array", name, dtype) of an array; equal arrays have one name."""
        if id(array) not in self._seen:
            kept = array.astype(np.float32) if id(array) in self._coarse else _narrowed(array)
            content = hashlib.sha256(np.ascontiguousarray(kept).tobytes()).hexdigest()
            key = (content, str(kept.dtype), str(kept.shape), str(kept.flags.f_contiguous))
            name = self._names.setdefault(key, f"a{len(self._names)}")
            self.arrays[name] = kept
            self._seen[id(array)] = (
                array,
                ("array", name, str(array.dtype)),
            )  # kept alive: its id is the key
        return self._seen[id(array)][1]

    def put_table(self, frame: pd.DataFrame) -> tuple[str, ...] | None:
        """("table", name) of a frame; None, and it is pickled, where Parquet would not give the same frame back."""
        if id(frame) not in self._seen:
            content = _as_parquet(frame)
            if content is None:
                return None
            name = f"table{len(self.tables)}.parquet"
            self.tables[name] = content
            self._seen[id(frame)] = (frame, ("table", name))
        return self._seen[id(frame)][1]

    def write(self, folder: Path) -> None:
        """Write arrays.npz and the tables."""
        with (folder / "arrays.npz").open("wb") as file:
            np.savez_compressed(file, **self.arrays)  # type: ignore[arg-type]
        for name, content in self.tables.items():
            (folder / name).write_bytes(content)


def _narrowed(array: Array) -> Array:
    """The same numbers, to the last bit, in the first smaller type that holds them."""
    for name in NARROW.get(array.dtype.kind, ()):
        if np.dtype(name).itemsize >= array.dtype.itemsize:
            continue
        with np.errstate(invalid="ignore", over="ignore"):
            smaller = array.astype(name)
            back = smaller.astype(array.dtype)
        if back.tobytes() == array.tobytes():
            return smaller
    return array


def _as_parquet(frame: pd.DataFrame) -> bytes | None:
    import pyarrow as pa

    if len(frame) < FEW_ROWS:
        return None
    file = io.BytesIO()
    try:
        frame.to_parquet(file, compression="zstd")
        back = pd.read_parquet(io.BytesIO(file.getvalue()))
        same = frame.equals(back) and frame.index.equals(back.index) and frame.dtypes.equals(back.dtypes)
    except (pa.ArrowException, ValueError, TypeError):  # columns of lists or of mixed kinds
        return None
    return file.getvalue() if same else None


class _Writer(pickle.Pickler):
    def __init__(self, file: io.BytesIO, store: Store, references: References) -> None:
        super().__init__(file, protocol=5)
        self.store, self.references = store, references

    def persistent_id(self, obj: Any) -> tuple[str, ...] | None:
        if id(obj) in self.references:
            return self.references[id(obj)]
        if type(obj) is np.ndarray and obj.dtype.kind in "fiub" and obj.nbytes > SMALL:
            return self.store.put_array(obj)
        return self.store.put_table(obj) if type(obj) is pd.DataFrame else None

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, MappingProxyType):
            return _read_only, (dict(obj),)
        if isinstance(obj, type):
            return NotImplemented
        module = type(obj).__module__
        if module.startswith("econml."):
            return _without_training_rows(obj)
        if not module.startswith("causalrec."):
            return NotImplemented
        if not is_dataclass(obj):
            return _without_training_rows(obj)
        values = {f.name: getattr(obj, f.name) for f in fields(obj) if f.init}
        influence = values.get("influence")
        if isinstance(influence, np.ndarray):  # only standard errors come from it
            self.store.allow_float32(influence)
        if isinstance(obj, Inner):
            values["eta"] = {}  # held-out predictors: of use while the nuisances are being fitted
        return _make, (type(obj), values)


def _read_only(values: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(values)


def _make(kind: type, values: dict[str, Any]) -> Any:
    return kind(**values)


def _without_training_rows(obj: Any) -> Any:
    """How pickle would take an estimator apart, without the rows of its folds and the cached nuisances of its training rows."""
    reduced = obj.__reduce_ex__(4)
    if isinstance(reduced, str) or len(reduced) < 3 or not isinstance(reduced[2], dict):
        return NotImplemented
    state = dict(reduced[2])
    if isinstance(state.get("cv"), list):
        state["cv"] = len(state["cv"])
    if type(obj).__module__.startswith("causalrec.") and isinstance(state.get("table"), np.ndarray):
        state["table"] = state["table"][:0]
    return (*reduced[:2], state, *reduced[3:])


def pickled(obj: Any, store: Store, references: References) -> bytes:
    """`obj` as a compressed pickle; its large arrays go to `store`, what is in `references` (by id) is named only.

    Raises
    ------
    SavedError
        Something in it cannot be pickled.
    """
    file = io.BytesIO()
    try:
        _Writer(file, store, references).dump(obj)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise SavedError(
            f"this {type(obj).__name__} holds something that cannot be saved: {error}. Models and learners must be "
            "importable classes, without lambdas or local functions."
        ) from error
    return gzip.compress(file.getvalue(), 6, mtime=0)


class Reader:
    """Unpickles what ``pickled`` wrote, with the arrays and tables of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
            self.arrays = dict(arrays)
        self._found: dict[tuple[str, ...], Any] = {}

    def read(self, name: str, resolve: Callable[..., Any] | None = None) -> Any:
        """The object of one pickle; `resolve(*reference)` gives what was named only."""
        with gzip.open(self.folder / name, "rb") as file:
            loader = pickle.Unpickler(file)

            def load(reference: tuple[str, ...]) -> Any:
                if reference not in self._found:
                    self._found[reference] = self._load(reference, resolve)
                return self._found[reference]

            loader.persistent_load = load  # type: ignore[method-assign]
            return loader.load()

    def _load(self, reference: tuple[str, ...], resolve: Callable[..., Any] | None) -> Any:
        if reference[0] == "array":
            return self.arrays[reference[1]].astype(reference[2], copy=False)
        if reference[0] == "table":
            return pd.read_parquet(self.folder / reference[1])
        if resolve is None:
            raise SavedError(f"{self.folder} names {reference[0]!r}, which it does not hold; save it again.")
        return resolve(*reference)
