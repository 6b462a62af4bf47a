"""How often is a position looked at? ``position_curve`` estimates P(examined | position) from a log; ``Examination`` holds it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from causalrec._checks import as_generator, check_choice, check_scalar
from causalrec._display import Displayable
from causalrec.errors import ArgumentError, CausalRecWarning, EstimationError
from causalrec.finetune.curves import Adjust, Found, by_em, by_harvest, text_r2, with_text
from causalrec.finetune.harvesting import summed_covariance
from causalrec.finetune.shown import (
    Shown,
    Which,
    check_chances,
    position_groups,
    shown_rows,
    whole_positions,
)
from causalrec.joint import holm
from causalrec.log import ImpressionLog

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Method = Literal["harvest", "em"]
Relevance = Literal["auto", "items", "features"]
FEW_USERS = 30


@dataclass(frozen=True, eq=False)
class Examination(Displayable):
    """P(examined | position) relative to the first position, with intervals clustered by user.

    Attributes
    ----------
    positions : (P,) distinct positions in order
    theta : (P,) relative to the first; NaN where no item links a position with it
    std_error, ci_lower, ci_upper : (P,) the interval is a t interval of log theta
    rows, clicks : (P,) of the rows shown
    pooled : (P,) bool; too rare to have a theta of its own, so it shares one with its neighbours
    naive : (P,) click rate relative to the first position, which the old recommender's order is part of
    covariance : (P, P) of log theta
    method : "harvest", "em" or "given"
    n, n_units, n_items : rows shown, their users, and the items (or texts) that were seen at several positions and clicked
    information : share of the information that is left when items are compared with themselves only
    r2_item, r2_text : share of the variance of position that items, and text blocks for held-out items, explain; NaN if not known
    context_p_value : of theta being the same among items that mostly stand high and low; NaN if not known
    rises : pairs of positions (k, k') between which theta rises, Holm-corrected p < .05; monotone is not assumed
    log_likelihood, converged : the path of "em", penalised, and whether it ended; empty and True for "harvest"
    alarms, notes : what speaks against the curve (warned of as well), and what else a reader has to know
    """

    positions: Ints
    theta: F64
    std_error: F64
    ci_lower: F64
    ci_upper: F64
    rows: Ints
    clicks: F64
    pooled: npt.NDArray[np.bool_]
    naive: F64
    covariance: F64 = field(repr=False)
    method: Method | Literal["given"] = "given"
    n: int = 0
    n_units: int = 0
    n_items: int = 0
    information: float = float("nan")
    r2_item: float = float("nan")
    r2_text: float = float("nan")
    context_p_value: float = float("nan")
    rises: tuple[tuple[int, int], ...] = ()
    log_likelihood: tuple[float, ...] = field(default=(), repr=False)
    converged: bool = True
    alarms: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, theta: Mapping[int, float]) -> Examination:
        """A known curve, for instance from randomised slots: position → P(examined), taken relative to the first position given.

        Raises
        ------
        ArgumentError
            Empty, a position that is no whole number >= 1, or a probability outside (0, 1].
        """
        if not isinstance(theta, Mapping) or not theta:
            raise ArgumentError(f"theta is {theta!r}, must be a mapping of position to P(examined), such as {{1: 1.0, 2: 0.7}}.")
        for k, value in theta.items():
            check_scalar(k, "a position of theta", ge=1, integer=True)
            check_scalar(value, f"theta at position {k}", gt=0, le=1)
        positions = np.array(sorted(theta), dtype=np.int64)
        given = np.array([theta[k] for k in sorted(theta)], dtype=np.float64)
        ratio, none = given / given[0], np.zeros(len(given))
        unknown = np.full(len(given), np.nan)
        notes = ["theta is given, not estimated: its intervals have no width"]
        if given[0] != 1:
            notes.append(f"divided by P(examined | position {positions[0]}) = {given[0]:g}")
        return cls(
            positions, ratio, none, ratio, ratio, np.zeros(len(given), dtype=np.int64), none, none.astype(bool), unknown,
            np.zeros((len(given), len(given))), notes=tuple(notes),
        )  # fmt: skip

    @property
    def monotone(self) -> bool:
        """True if no rise between neighbouring positions is beyond chance."""
        return not self.rises

    def theta_at(self, positions: npt.ArrayLike) -> F64:
        """P(examined | position) relative to the first, (n,), of these positions.

        Raises
        ------
        LogError
            A position is missing, no whole number or below 1.
        EstimationError
            A position is not on the curve, or its theta is not identified.
        """
        wanted = whole_positions(np.atleast_1d(np.asarray(positions)), "position")
        where = np.minimum(np.searchsorted(self.positions, wanted), len(self.positions) - 1)
        strange = self.positions[where] != wanted
        if strange.any():
            raise EstimationError(
                f"position {wanted[strange][0]} (and {int(strange.sum()) - 1:,} more rows) is not on the curve, which has {_span(self.positions)}; "
                "estimate it from a log with these positions, or give it: Examination.of({...})."
            )
        theta = np.asarray(self.theta[where])
        if np.isnan(theta).any():
            raise EstimationError(
                f"theta at position {wanted[np.isnan(theta)][0]} is not identified: no item that was clicked links it with position {self.positions[0]}. "
                "Swap it with another slot for a while, leave its rows out, or give a curve: Examination.of({...})."
            )
        return theta

    def _title(self) -> str:
        how = {
            "harvest": "the same item at several positions",
            "em": "position-based model, regression EM",
            "given": "given",
        }
        return f"P(examined | position) relative to position {self.positions[0]} ({how[self.method]})"

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {
                "position": int(k), "theta": float(self.theta[i]), "std_error": float(self.std_error[i]), "ci_lower": float(self.ci_lower[i]),
                "ci_upper": float(self.ci_upper[i]), "naive": float(self.naive[i]), "rows": int(self.rows[i]), "clicks": float(self.clicks[i]),
                "pooled": bool(self.pooled[i]),
            }
            for i, k in enumerate(self.positions)
        ]  # fmt: skip

    def _notes(self) -> list[str]:
        if self.method == "given":
            return list(self.notes)
        known = [f"{self.n:,} rows shown, {self.n_units:,} users; {self.n_items:,} items were seen at several positions and clicked"]
        if np.isfinite(self.information):
            known.append(f"{100 * self.information:.0f} % of the information on theta is left when items are compared with themselves only")
        if self.method == "em":
            known.append(f"log-likelihood {self.log_likelihood[-1]:.1f} after {len(self.log_likelihood) - 1} steps, {'' if self.converged else 'not '}converged")
        return [*known, *(f"CAUTION: {a}" for a in self.alarms), *self.notes]


def position_curve(
    log: ImpressionLog,
    *,
    method: Method = "harvest",
    relevance: Relevance = "auto",
    rows: Which = "treated",
    propensities: npt.ArrayLike | None = None,
    adjust: Adjust = "regression",
    min_clicks: float = 10,
    alpha: float = 0.05,
    random_state: int | np.random.Generator | None = None,
) -> Examination:
    """P(examined | position) relative to the first position, from clicks.

    Position-based model: P(click) = P(examined | position) · P(click | examined, item, user). Rows that were shown count: the
    treated rows, where exposure is the treatment (several arms or a dose: all but the control). Control rows have no position
    of the recommender's, even where the column holds something in them; a log in which every row was displayed, whatever its
    treatment, is read with ``rows="all"``: all rows whose position is not missing.

    Parameters
    ----------
    log : ImpressionLog
        With ``position=``, and for "harvest" with ``item=`` or ``text=``. Where both are declared, the same item under another
        text is another item.
    method : "harvest" or "em"
        "harvest" compares each item with itself at several positions and needs nothing else (see ``harvesting.harvest``). "em" models
        relevance; it also learns from items at one position, as far as the model of relevance is right.
    relevance : "auto", "items" or "features"
        For "em": an effect of each item, or a ridge-logistic regression on the blocks of the log; "auto" is features where
        there are blocks.
    rows : "treated" or "all"
    propensities : (n,), optional
        For "harvest": the logged P(the position that the row got | item, user), where slots were randomised unequally.
    adjust : "regression", "both" or "none"
        An old ranker puts an item on top for users who like it. Score, modifiers, confounders and history blocks therefore
        enter the relevance of a row beside its item; with "both", "harvest" also weighs rows by an estimated chance of their
        position given these, and is then right if either is, at the price of wider intervals and a slower fit.
    min_clicks : float
        A position that expects fewer clicks is pooled with its neighbours.
    alpha : float
    random_state : int, Generator or None
        Deals items to folds for ``r2_text``; theta draws nothing.

    Raises
    ------
    LogError
        No position, or one that is missing, broken or below 1 in a row that was shown.
    EstimationError
        One position, no clicks, or no item that was shown at two positions.

    Notes
    -----
    Agarwal, Zaitsev, Wang, Li, Najork & Joachims (2019), WSDM; Fang, Agarwal & Joachims (2019), SIGIR; Wang et al. (2018), WSDM.
    """
    check_choice(method, "method", ("harvest", "em"))
    check_choice(relevance, "relevance", ("auto", "items", "features"))
    check_choice(rows, "rows", ("treated", "all"))
    check_choice(adjust, "adjust", ("regression", "both", "none"))
    alpha = check_scalar(alpha, "alpha", gt=0, lt=1)
    min_clicks = check_scalar(min_clicks, "min_clicks", gt=0)
    rng = as_generator(random_state)
    if method == "em" and propensities is not None:
        raise ArgumentError("propensities were given, which method='em' has no use for; use method='harvest'.")
    shown = shown_rows(log, rows)
    positions, groups = position_groups(shown.position, shown.y, shown.w, min_clicks)
    group = groups[np.searchsorted(positions, shown.position)]
    if groups[-1] == 0:
        raise EstimationError(
            f"{shown.y.sum():g} clicks in {len(group):,} rows shown at {_span(positions)} are too few for two groups of {min_clicks:g} expected clicks; "
            "use a longer period, a smaller min_clicks, or Examination.of({...})."
        )
    chances = None if propensities is None else check_chances(propensities, len(log), shown.rows)
    found = (
        by_harvest(log, shown, group, chances, adjust) if method == "harvest" else by_em(log, shown, group, relevance, adjust)
    )
    found = with_text(found, text_r2(log, shown, group, rng))
    result = _assemble(log, shown, positions, groups, found, method, alpha)
    for alarm in result.alarms:
        warnings.warn(f"{alarm}.", CausalRecWarning, stacklevel=2)
    return result


def _assemble(
    log: ImpressionLog, shown: Shown, positions: Ints, groups: Ints, found: Found, method: Method, alpha: float
) -> Examination:  # fmt: skip
    """From log theta of groups to the curve of positions."""
    from scipy.stats import t as student

    covariance, g = summed_covariance(np.nan_to_num(found.influence), shown.units)
    error, df = np.sqrt(np.diag(covariance)), max(g - 1, 1)
    reach = float(student.ppf(1 - alpha / 2, df)) * error
    theta = np.exp(found.log_theta)
    unknown = np.where(np.isnan(theta), np.nan, 0.0)
    where = np.searchsorted(positions, shown.position)
    rate = np.bincount(groups[where], shown.w * shown.y) / np.bincount(groups[where], shown.w)
    pooled = np.bincount(groups)[groups] > 1
    alarms, notes = _said(log, shown, positions, groups, theta, found, g)
    rises = _rises(found.log_theta, covariance, df, positions, groups)
    if rises:
        notes += ("theta rises from position " + ", ".join(f"{a} to {b}" for a, b in rises) + " (Holm p < .05): the curve is not monotone",)
    return Examination(
        positions, theta[groups], (theta * error + unknown)[groups], np.exp(found.log_theta - reach)[groups], np.exp(found.log_theta + reach)[groups],
        np.bincount(where).astype(np.int64), np.bincount(where, shown.w * shown.y).astype(np.float64), pooled, (rate / rate[0] if rate[0] > 0 else rate * np.nan)[groups],
        (covariance + unknown[:, None] + unknown)[np.ix_(groups, groups)], method, len(where), len(np.unique(shown.units)), found.n_items, found.information,
        found.r2_item, found.r2_text, found.context_p_value, rises, found.log_likelihood, found.converged, alarms, notes,
    )  # fmt: skip


def _rises(lam: F64, covariance: F64, df: int, positions: Ints, groups: Ints) -> tuple[tuple[int, int], ...]:
    """Neighbouring groups between which theta rises beyond chance; positions are the last of the one and the first of the other."""
    from scipy.stats import t as student

    pairs = list(pairwise(np.flatnonzero(np.isfinite(lam))))
    if not pairs:
        return ()
    a, b = (np.array(c) for c in zip(*pairs, strict=True))
    variance = covariance[a, a] + covariance[b, b] - 2 * covariance[a, b]
    p = holm(student.sf((lam[b] - lam[a]) / np.sqrt(np.maximum(variance, 1e-300)), df))
    return tuple((int(positions[groups == i][-1]), int(positions[groups == j][0])) for i, j, q in zip(a, b, p, strict=True) if q < 0.05)


def _said(
    log: ImpressionLog, shown: Shown, positions: Ints, groups: Ints, theta: F64, found: Found, g: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:  # fmt: skip
    """Alarms and notes: which rows, which positions, how many users."""
    alarms, notes = list(found.alarms), list(found.notes)
    if g < FEW_USERS:
        alarms.append(f"the intervals rest on {g} {'users' if log.roles.unit else 'rows'} and are rough below {FEW_USERS}")
    if np.isnan(theta).any():
        lost = positions[np.isnan(theta)[groups]]
        alarms.append(f"theta at {_span(lost)} is not identified: no item that was clicked links it with position {positions[0]}")
    if positions[0] != 1:
        notes.append(f"no row stands at position 1: theta is relative to position {positions[0]}")
    for i in np.flatnonzero(np.bincount(groups) > 1):
        notes.append(f"{_span(positions[groups == i])} were too rare apart and share one theta")
    if shown.left_out:
        notes.append(f"{shown.left_out:,} rows that were not treated have a position and are left out; rows='all' takes them in if they were displayed as well")
    if not log.roles.unit:
        notes.append("no user is declared: rows are taken to be independent")
    return tuple(alarms), tuple(notes)


def _span(positions: Ints) -> str:
    """'position 3', 'positions 3 to 9', or 'positions 3, 5, 9'."""
    if len(positions) == 1:
        return f"position {positions[0]}"
    if len(positions) > 4 or (np.diff(positions) == 1).all():
        return f"positions {positions[0]} to {positions[-1]}"
    return "positions " + ", ".join(map(str, positions))
