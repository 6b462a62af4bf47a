"""Levels of a treatment: on and off, several arms, or a dose; and the propensities that were logged for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec._checks import check_choice, did_you_mean
from causalrec._values import check_number, check_present
from causalrec.errors import ArgumentError, LogError

TreatmentKind = Literal["binary", "arms", "dose"]
KINDS: dict[TreatmentKind, str] = {
    "binary": "treatment of two levels",
    "arms": "treatment of several arms",
    "dose": "dose",
}
VERBS = {
    "binary": "estimate(log, plan)",
    "arms": "estimate_arms(log, plan)",
    "dose": "dose_response(log, plan)",
}
MAX_ARMS = 30


def treated_level(column: pd.Series, treated: Any) -> Any:
    """The level of a two-level treatment column that counts as treated."""
    name = column.name
    missing = int(column.isna().sum())
    if missing:
        raise LogError(
            f"column {name!r} (treatment) is missing in {missing:,} of {len(column):,} rows; drop them or say what they were."
        )
    try:
        levels = [v.item() if isinstance(v, np.generic) else v for v in pd.unique(column)]
    except TypeError:
        raise LogError(
            f"column {name!r} (treatment) holds {type(column.iloc[0]).__name__} values; must hold two levels."
        ) from None
    shown = ", ".join(repr(v) for v in levels[:6]) + (" …" if len(levels) > 6 else "")
    if len(levels) == 1:
        raise LogError(
            f"column {name!r} (treatment) is constant ({shown}); an effect needs both treated and untreated rows."
        )
    if len(levels) > 2:
        raise LogError(
            f"column {name!r} (treatment) has {len(levels):,} levels ({shown}); must have two. Keep two arms, declare one against the rest, or read all with treatment_kind='arms' (labels) or 'dose' (amounts)."
        )
    if treated is not None:
        match = [v for v in levels if v == treated and isinstance(v, str) == isinstance(treated, str)]
        if not match:
            raise ArgumentError(f"treated is {treated!r}, must be one of the levels of {name!r}: {shown}.")
        return match[0]
    if all(not isinstance(v, str) and v in (0, 1) for v in levels):
        return next(v for v in levels if v == 1)
    raise ArgumentError(
        f"column {name!r} (treatment) has the levels {shown}; say which one is treated with treated=…."
    )


def arm_labels(column: pd.Series, control: Any) -> tuple[Any, ...]:
    """The arms of a treatment column, the control first, the others in order."""
    name = column.name
    check_present(column, "treatment")
    labels = sorted(
        (v.item() if isinstance(v, np.generic) else v for v in pd.unique(column)),
        key=lambda v: (0, float(v), "") if isinstance(v, (bool, int, float)) else (1, 0.0, str(v)),
    )
    shown = ", ".join(repr(v) for v in labels[:6]) + (" …" if len(labels) > 6 else "")
    if not 2 <= len(labels) <= MAX_ARMS:
        raise LogError(
            f"column {name!r} (treatment) has {len(labels):,} arms ({shown}); must have 2 to {MAX_ARMS}. An amount is treatment_kind='dose'; join small arms."
        )
    wanted = 0 if control is None else control
    found = [v for v in labels if v == wanted and isinstance(v, str) == isinstance(wanted, str)]
    if not found:
        raise ArgumentError(
            f"control is {control!r}, must be one of the arms of {name!r}: {shown}."
            + ("" if control is None else did_you_mean(control, labels))
        )
    return (found[0], *(v for v in labels if v is not found[0]))


def arm_codes(column: pd.Series, arms: tuple[Any, ...]) -> npt.NDArray[np.float64]:
    """(n,) place of each row's arm in `arms`."""
    place = {label: float(k) for k, label in enumerate(arms)}
    return column.astype(object).map(place).to_numpy(dtype=np.float64)


def check_dose(column: pd.Series) -> None:
    """Raise ``LogError`` for a column that is no dose: not a number, constant, or of two values."""
    values = check_number(column, "treatment")
    distinct = len(np.unique(values))
    if distinct < 3:
        what = "is constant" if distinct == 1 else "has two values"
        raise LogError(
            f"column {column.name!r} (treatment, a dose) {what} ({', '.join(f'{v:g}' for v in np.unique(values))}); "
            + (
                "an effect needs rows with more and with less."
                if distinct == 1
                else "read it as binary: leave treatment_kind out."
            )
        )


def propensity_columns(per_arm: Mapping[Any, str], arms: tuple[Any, ...]) -> tuple[str, ...]:
    """Columns of logged propensities in the order of `arms`."""
    missing = [a for a in arms if a not in per_arm]
    unknown = [a for a in per_arm if a not in arms]
    if missing or unknown:
        raise ArgumentError(
            f"propensity names the arms {list(per_arm)}, must name {list(arms)}: "
            + (f"{missing} missing" if missing else f"{unknown} unknown")
            + "."
        )
    wrong = [v for v in per_arm.values() if not isinstance(v, str)]
    if wrong:
        raise ArgumentError(f"propensity maps an arm to {wrong[0]!r}, must map each arm to a column name.")
    return tuple(per_arm[a] for a in arms)


def check_sum_to_one(propensities: pd.DataFrame) -> None:
    """Raise ``LogError`` unless the arms' logged propensities sum to 1 (within .001) in every row."""
    total = propensities.to_numpy(dtype=np.float64).sum(axis=1)
    bad = np.abs(total - 1) > 1e-3
    if bad.any():
        raise LogError(
            f"columns {list(propensities.columns)} (propensity) do not sum to 1 in {int(bad.sum()):,} of {len(total):,} rows "
            f"(from {total.min():.4g} to {total.max():.4g}); each must be P(arm), all arms named, none left out."
        )


def check_kind(kind: Any, treated: Any, control: Any, propensity: Any) -> TreatmentKind:
    """The kind, if the options that come with it go together."""
    chosen: TreatmentKind = check_choice("binary" if kind is None else kind, "treatment_kind", tuple(KINDS))
    if treated is not None and chosen != "binary":
        raise ArgumentError(
            f"treated is {treated!r}, but treatment_kind is {chosen!r}; "
            + (
                "name the arm of comparison with control=…."
                if chosen == "arms"
                else "a dose has no treated level."
            )
        )
    if control is not None and chosen != "arms":
        raise ArgumentError(
            f"control is {control!r}, but treatment_kind is {chosen!r}; control= belongs to treatment_kind='arms'."
        )
    if propensity is not None and (chosen == "dose" or isinstance(propensity, Mapping) != (chosen == "arms")):
        wanted = {
            "binary": "one column name",
            "arms": "a mapping {arm: column}, one for each arm",
            "dose": "None: the density of a dose is estimated",
        }
        raise ArgumentError(
            f"propensity is {propensity!r}, but treatment_kind is {chosen!r}; must be {wanted[chosen]}."
        )
    return chosen
