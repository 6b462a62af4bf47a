"""A result in a folder, and back: ``save`` and ``load``."""

from __future__ import annotations

import json
import pickle
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from causalrec._display import Displayable
from causalrec._manifest import FORMAT, MANIFEST, check_files, check_versions, read_manifest, sha256, versions
from causalrec._stored import Reader, References, Store, pickled
from causalrec.errors import ArgumentError, OutputError, SavedError
from causalrec.estimate import Fit
from causalrec.estimate.fit import covariates, words_of
from causalrec.log import ImpressionLog, Ints
from causalrec.nuisance import Nuisances

KEPT_ROLES = ("treatment", "outcome", "unit", "item", "modifiers", "propensity", "weight")
"""Roles whose columns are saved without the log: effects of groups and judging a ranking on other users need no more."""


def save(result: Any, folder: str | Path, *, with_log: bool = True, overwrite: bool = False) -> Path:
    """Write a fit, or another result, to a folder of its own.

    ``manifest.json`` (format, versions, summary, sha256 of each file), ``arrays.npz``, the log as Parquet, and pickles of the
    estimator and of what ties the parts together. The folder appears when it is complete, or not at all. The text
    encoder is not saved, only the name of what made each block.

    Parameters
    ----------
    result : Fit, UpliftCurve or another result of the package
    folder : path
        Must not exist, or be empty, unless `overwrite`.
    with_log : bool
        False leaves out the texts, blocks and covariates of a fit's log and keeps the columns of exposure, outcome, unit, item,
        modifiers, weight and logged propensity. Such a fit predicts and is judged on other users; it cannot be refuted.
    overwrite : bool
        Replace what ``save`` wrote there before. Any other folder is left alone.

    Returns
    -------
    Path

    Raises
    ------
    OutputError
        The folder is not empty, is a file, or cannot be written to.
    SavedError
        Something in the result cannot be pickled.
    ArgumentError
        No result, or `with_log` is False for a result that has no log.
    """
    _check_result(result, with_log)
    with_log = with_log and isinstance(result, Fit) and not isinstance(result.log, SlimLog)
    target = Path(folder)
    _check_target(target, overwrite)
    store = Store()
    parts = _parts(result, store, with_log)
    place = target.absolute()
    half = place.parent / f".{place.name}.{secrets.token_hex(4)}"
    try:
        half.mkdir(parents=True)
        store.write(half)
        for name, content in parts.items():
            (half / name).write_bytes(content)
        manifest = json.dumps(_manifest(result, store, half, with_log), indent=1, ensure_ascii=False)
        (half / MANIFEST).write_text(manifest, encoding="utf-8")
        _put_in_place(half, place)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error}. Nothing was left there.") from error
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return target


def load(folder: str | Path, *, trusted: bool = False, trust_versions: bool = False) -> Any:
    """Read what ``save`` wrote.

    Parameters
    ----------
    folder : path
    trusted : bool
        You know who made this folder. It holds pickles, and reading a pickle can run any code; its hashes find damage, not
        malice, as whoever changes a file can change the manifest too. ``manifest.json`` is plain text and safe to read.
    trust_versions : bool
        Read it though other versions of causalrec, Python or a package wrote it.

    Returns
    -------
    Fit, or the type that was saved

    Raises
    ------
    SavedError
        The folder is not there, damaged, of another version, or not said to be trusted.
    """
    home = Path(folder)
    manifest = read_manifest(home)
    if not trusted:
        raise SavedError(
            f"{home} holds pickles, and reading a pickle can run any code. Read its {MANIFEST} if in doubt; if you know who "
            f"made it, load({str(folder)!r}, trusted=True)."
        )
    if not trust_versions:
        check_versions(home, manifest["versions"])
    check_files(home, manifest["files"])
    try:
        reader = Reader(home)
        if manifest["what"] != "Fit":
            return reader.read("result.pkl.gz")
        return reader.read("result.pkl.gz", _resolver(*reader.read("log.pkl.gz")))
    except (AttributeError, ImportError, TypeError, KeyError, pickle.UnpicklingError) as error:
        raise SavedError(
            f"{home} cannot be rebuilt with this causalrec ({type(error).__name__}: {error}); load it with the versions that its "
            f"{MANIFEST} names, or fit and save again."
        ) from error


@dataclass(frozen=True, eq=False)
class SlimLog(ImpressionLog):
    """What is left of a log that was not saved: the columns of ``KEPT_ROLES``.

    Attributes
    ----------
    hashes : (n,) uint64
        ``row_hash`` of the whole log, by which rows are known again.
    """

    hashes: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, dtype=np.uint64), repr=False)

    @property
    def row_hash(self) -> npt.NDArray[np.uint64]:  # type: ignore[override]
        """``(n,)`` that of the whole log."""
        return self.hashes

    def texts(self, column: str) -> tuple[list[str], Ints]:
        """Raises ``SavedError``."""
        _left_out(column)

    def histories(self) -> tuple[list[tuple[str, ...]], Ints]:
        """Raises ``SavedError``."""
        _left_out("history")


class LeftOut:
    """Stands where a design or a covariate was; it knows its names, and whatever else is asked of it raises ``SavedError``."""

    def __init__(self, owners: tuple[str, ...]) -> None:
        self.owners, self.name = owners, owners[0] if owners else ""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        _left_out(", ".join(self.owners))

    def __iter__(self) -> NoReturn:
        """Raises ``SavedError``."""
        _left_out(", ".join(self.owners))


def _left_out(what: str) -> NoReturn:
    raise SavedError(
        f"this fit was saved with with_log=False, without {what or 'its covariates'}; save it with its log, or fit again."
    )


def _check_result(result: Any, with_log: bool) -> None:
    if not (isinstance(result, Displayable) and is_dataclass(result)):
        raise ArgumentError(
            f"save takes a Fit or another result of causalrec; got a {type(result).__name__}."
        )
    if not with_log and not isinstance(result, Fit):
        raise ArgumentError(f"with_log is False, but a {type(result).__name__} has no log; leave it out.")


def _check_target(target: Path, overwrite: bool) -> None:
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target} is a file; name a folder that does not exist yet.")
    if not target.is_dir() or not any(target.iterdir()):
        return
    if not overwrite:
        raise OutputError(
            f"{target} exists and is not empty; name another folder, or pass overwrite=True to replace a saved result."
        )
    if not (target / MANIFEST).is_file():
        raise OutputError(
            f"{target} holds files but no {MANIFEST}, so save did not write it and does not replace it."
        )


def _put_in_place(half: Path, target: Path) -> None:
    """Rename the complete folder to its place; what stood there goes only then."""
    old = half.with_name(half.name + ".old")
    if target.exists():
        target.rename(old)
    try:
        half.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _parts(result: Any, store: Store, with_log: bool) -> dict[str, bytes]:
    """The pickles, by file name; a fit's log and how its design was made go first, and the rest refers to them."""
    if not isinstance(result, Fit):
        return {"result.pkl.gz": pickled(result, store, {})}
    log = result.log if with_log else _slim(result.log)
    first = pickled((log, result.nuisances.design_recipe), store, {})
    return {"log.pkl.gz": first, "result.pkl.gz": pickled(result, store, _references(result, with_log))}


def _references(fit: Fit, with_log: bool) -> References:
    """What the pickle of a fit names only: its log, its covariates (columns and blocks of the log), and the designs made of them."""
    inputs, nu = fit.analysis.inputs, fit.nuisances
    how = "" if with_log else "left out "
    names = tuple(str(c.name) for c in inputs.covariates)
    out: References = {id(fit.log): ("log",)}
    if inputs.covariates:
        out[id(inputs.covariates)] = (how + "covariates", *names)
    if inputs.texts:
        out[id(inputs.texts)] = (how + "texts", *(t.name if isinstance(t, LeftOut) else t[0] for t in inputs.texts))
    if nu.design_recipe is not None:
        out[id(nu.design_recipe)] = ("recipe",)
        if type(nu) is Nuisances or not with_log:
            designs = (nu.problem.propensity_design, nu.problem.outcome_design)
            out |= {id(d): (how + "design", *d.owners) for d in designs}
    return out


def _resolver(log: ImpressionLog, recipe: Any) -> Callable[..., Any]:
    def resolve(what: str, *names: str) -> Any:
        if what == "log":
            return log
        if what == "recipe":
            return recipe
        if what == "covariates":
            return covariates(log, names)
        if what == "texts":
            return words_of(log, tuple(f"text:{n}" for n in names))
        if what == "design":
            return recipe.apply(covariates(log, recipe.names), len(log)).keep(names)
        return LeftOut(names) if what == "left out design" else [LeftOut((n,)) for n in names]

    return resolve


def _slim(log: ImpressionLog) -> SlimLog:
    columns = [n for role in KEPT_ROLES for n in getattr(log.roles, role)]
    frame = log.frame[list(dict.fromkeys(columns))]
    return SlimLog(
        frame, log.roles, log.treated_level, blocks=MappingProxyType({}), origin=None, hashes=log.row_hash
    )


def _manifest(result: Any, store: Store, folder: Path, with_log: bool) -> dict[str, Any]:
    blocks = result.log.blocks.values() if isinstance(result, Fit) else ()
    return {
        "format": FORMAT,
        "what": type(result).__name__,
        "versions": versions(),
        "with_log": with_log,
        "summary": result.summary().splitlines(),
        "blocks": {b.name: b.made_by for b in blocks},
        "files": {p.name: {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in sorted(folder.iterdir())},
        "arrays": {name: {"shape": list(a.shape), "dtype": str(a.dtype)} for name, a in store.arrays.items()},
    }
