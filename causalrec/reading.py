"""From a table to a log: the verb ``read_log``, which checks every column for its role."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from causalrec import _treatment, _values
from causalrec._checks import as_names
from causalrec._treatment import TreatmentKind
from causalrec.errors import ArgumentError, LogError
from causalrec.log import MIN_ARM, ImpressionLog, Roles
from causalrec.table import Source, as_frame, require_columns


def read_log(
    source: Source,
    *,
    treatment: str,
    outcome: str,
    text: str | Iterable[str] | None = None,
    history: str | None = None,
    unit: str | None = None,
    item: str | None = None,
    modifiers: str | Iterable[str] = (),
    confounders: str | Iterable[str] = (),
    propensity: str | Mapping[Any, str] | None = None,
    score: str | None = None,
    position: str | None = None,
    time: str | Iterable[str] | None = None,
    weight: str | None = None,
    treated: Any = None,
    instrument: str | None = None,
    negative_controls: str | Iterable[str] = (),
    treatment_kind: TreatmentKind | None = None,
    control: Any = None,
) -> ImpressionLog:
    """Read a click log and declare, once, what each of its columns is.

    Parameters
    ----------
    source : pandas, polars or pyarrow table, or path to .csv / .tsv / .parquet
        One row an impression. Never modified.
    treatment : str
        Was it recommended? bool, 0/1, or two levels of which `treated` names the treated one; with
        `treatment_kind`, which of several arms, or how much.
    outcome : str
        Was it clicked? 0/1, or a finite number.
    text : str or list of str
        Item text known before the exposure; each column becomes one block.
    history : str
        Column of lists: the texts that the user clicked before this impression (JSON lists in a CSV).
    unit, item : str
        Whose impression, and of what. Folds, splits and standard errors go by `unit`.
        Without `unit` each row is its own unit, and the summaries say so.
    modifiers : str or list of str
        Columns by which the effect may differ. They are adjusted for as well.
    confounders : str or list of str
        Further columns that act on both exposure and click.
    propensity : str
        The *logged* probability, known by design, that this impression is **treated**: P(treatment = treated),
        also in the rows that were not. Not P(item | slot), and not the probability of the arm that was drawn:
        either is refused when its mean contradicts the share of treated rows. With several arms a mapping
        {arm: column}, one for each arm; together they must be 1 in every row. A dose takes none.
    score : str
        The recommender's own ranking score: a balancing score as far as exposure depends on the words through it.
    position : str
        The slot; set by the recommender after its decision, a mediator, not adjusted for.
    time : str or list of str
        Time of the exposure; or several columns in the order in which they are declared to happen, the
        exposure last, for instance ``["written_at", "shown_at"]``. A row that breaks the order is an error.
    weight : str
        Non-negative row weight.
    treated : object
        The level of `treatment` that counts as treated.
    instrument : str
        A column that moves exposure and acts on the click only through it.
    negative_controls : str or list of str
        Outcomes that the exposure cannot have moved, for instance the clicks of the day before.
    treatment_kind : "binary", "arms" or "dose", optional
        ``"arms"``: several labels (mail A, mail B, none), for ``estimate_arms``; ``"dose"``: an amount (number
        of recommendations shown, boost weight), for ``dose_response``. By default binary.
    control : object
        The arm that the others are compared with; needed for labels, 0 by default where 0 is an arm.

    Returns
    -------
    ImpressionLog

    Raises
    ------
    LogError, ColumnError, ArgumentError
        The table cannot be analysed as declared; the message names the column, the rows and the next step.
    """
    frame = as_frame(source)
    kind = _treatment.check_kind(treatment_kind, treated, control, propensity)
    per_arm = dict(propensity) if isinstance(propensity, Mapping) else None
    if isinstance(propensity, Mapping):
        propensity = None
    roles = Roles(
        **{
            name: as_names(value, name)
            for name, value in dict(
                treatment=treatment, outcome=outcome, text=text, history=history, unit=unit, item=item,
                modifiers=modifiers, confounders=confounders, propensity=propensity, score=score, position=position,
                time=time, weight=weight, instrument=instrument, negative_controls=negative_controls,
            ).items()
        }
    )  # fmt: skip
    for single in (
        "treatment",
        "outcome",
        "history",
        "unit",
        "item",
        "propensity",
        "score",
        "position",
        "weight",
        "instrument",
    ):
        if len(getattr(roles, single)) > 1:
            raise ArgumentError(f"{single} is {getattr(roles, single)!r}, must be one column name.")
    for needed in ("treatment", "outcome"):
        if not getattr(roles, needed):
            raise ArgumentError(
                f"{needed} is None, must be a column name; the table has {list(map(str, frame.columns))[:40]}."
            )
    require_columns(frame, roles.as_dict())
    if len(frame) == 0:
        raise LogError("the table has no rows.")
    arms = _treatment.arm_labels(frame[roles.treatment[0]], control) if kind == "arms" else ()
    if per_arm is not None:
        roles = replace(roles, propensity=_treatment.propensity_columns(per_arm, arms))
        require_columns(frame, roles.as_dict())
    numeric = (
        *(("treatment",) if kind == "dose" else ()),
        "outcome",
        "modifiers",
        "confounders",
        "propensity",
        "score",
        "weight",
        "instrument",
        "negative_controls",
    )
    frame = _values.infer_numbers(frame, tuple(n for role in numeric for n in getattr(roles, role)))
    level = _treatment.treated_level(frame[roles.treatment[0]], treated) if kind == "binary" else None
    if kind == "dose":
        _treatment.check_dose(frame[roles.treatment[0]])
    _values.check_columns(frame, roles.as_dict())
    log = ImpressionLog(
        frame=frame,
        roles=roles,
        treated_level=level,
        origin=(object(), np.arange(len(frame))),
        treatment_kind=kind,
        arms=arms,
    )
    _check_arms(log)
    _check_propensities(log)
    return log


def _check_propensities(log: ImpressionLog) -> None:
    """Logged propensities, of the treated or of each arm, follow the treatment that was drawn."""
    names = log.roles.propensity
    if not names:
        return
    if log.treatment_kind == "binary" and log.logged_propensity is not None:
        known = (log.logged_propensity, log.treatment, log.units, names[0])
        _values.check_logged_propensity(*known)
        _values.check_propensity_slope(*known)
        return
    _treatment.check_sum_to_one(log.frame[list(names)])
    for k, name in enumerate(names):
        of_arm = (log.frame[name].to_numpy(dtype=np.float64), (log.treatment == k).astype(np.float64))
        _values.check_logged_propensity(*of_arm, log.units, name)
        _values.check_propensity_slope(*of_arm, log.units, name)


def _check_arms(log: ImpressionLog) -> None:
    """Enough rows, units and clicks in each arm to say anything."""
    name, outcome = log.roles.treatment[0], log.roles.outcome[0]
    if log.roles.unit and log.n_units < 2:
        raise LogError(
            f"column {log.roles.unit[0]!r} (unit) has one value; at least two units are needed, and one for each fold."
        )
    if np.ptp(log.outcome) == 0:
        raise LogError(
            f"column {outcome!r} (outcome) is {log.outcome[0]:g} in every row: there is nothing to explain."
        )
    arms = [(1.0, "treated"), (0.0, "control")]
    if log.treatment_kind == "dose":
        return
    if log.treatment_kind == "arms":
        arms = [(float(k), repr(label)) for k, label in enumerate(log.arms)]
    for arm, word in arms:
        here = (log.treatment == arm) & (True if log.weights is None else log.weights > 0)
        count = int(here.sum())
        if count < MIN_ARM:
            raise LogError(
                f"the {word} arm ({name!r}) has {count} rows, must have >= {MIN_ARM}; an effect from fewer has no usable interval."
            )
        if log.binary_outcome and np.ptp(log.outcome[here]) == 0:
            clicks = "no" if log.outcome[here][0] == 0 else "only"
            if word == "control" and clicks == "no":
                continue  # nobody clicks what he was not shown: no effect to estimate (``estimate`` says so), but a ranker to train
            raise LogError(
                f"the {word} arm ({count:,} rows) has {clicks} positive {outcome!r}; its rate cannot be modelled. Use a longer period."
            )
