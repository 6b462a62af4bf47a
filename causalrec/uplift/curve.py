"""For whom does it work? The verb ``uplift`` and its result: a ranking judged on users that it has not seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec._checks import as_generator, check_scalar
from causalrec._display import Displayable
from causalrec.errors import ArgumentError
from causalrec.estimate import Fit
from causalrec.joint import largest
from causalrec.log import ImpressionLog
from causalrec.uplift import ranking
from causalrec.uplift.calibration import Calibration, calibrate, group_table
from causalrec.uplift.held_out import HeldOut, held_out
from causalrec.uplift.held_out import held_out_scores as held_out_scores

F64 = npt.NDArray[np.float64]
Pair = tuple[float, float]
GRID = np.linspace(0.01, 1.0, 100)
MANY_TIES = 0.05


@dataclass(frozen=True, eq=False)
class UpliftCurve(Displayable):
    """How much better it is to recommend by predicted effect than at random.

    Attributes
    ----------
    qini, autoc : float
        Areas, clicks per impression; 0 = no better than random. See ``ranking``.
    qini_ci, autoc_ci : (lower, upper)
        95 %, clustered by unit (and item), for the ranking as it was fitted on the training users.
    grid : (100,)
        Share of the impressions that is treated.
    gain, gain_lower, gain_upper : (100,)
        Clicks gained per impression when the best-ranked share is treated; joint 95 % band.
    toc, toc_lower, toc_upper : (100,)
        Effect among the best-ranked share, minus the ATE; joint 95 % band.
    table : DataFrame
        Tenths of the ranking: decile, n, n_units, mean_cate, effect, ci_lower, ci_upper.
    n, n_units : int
        Held-out impressions and units.
    estimand : str
    constant : bool
        The model predicts the same effect for everyone: there is no ranking.
    auuc, auuc_ci : float, (lower, upper)
        Area under the gain curve, Qini + ATE/2.
    p_value : float
        One-sided test of Qini ≤ 0: small if the ranking beats a random one.
    half_width : (100,)
        Of the pointwise 95 % interval of ``gain``.
    calibration : Calibration
    share_tied : float
        Share of the rows in the largest tie of the ranking.
    order : 1 or 2
        Of the held-out scores; ``note`` says why.
    clusters : str
        What the errors are clustered by.
    """

    qini: float
    qini_ci: Pair
    autoc: float
    autoc_ci: Pair
    grid: F64 = field(repr=False)
    gain: F64 = field(repr=False)
    gain_lower: F64 = field(repr=False)
    gain_upper: F64 = field(repr=False)
    toc: F64 = field(repr=False)
    toc_lower: F64 = field(repr=False)
    toc_upper: F64 = field(repr=False)
    table: pd.DataFrame = field(repr=False)
    n: int
    n_units: int
    estimand: str
    constant: bool
    auuc: float
    auuc_ci: Pair
    p_value: float
    half_width: F64 = field(repr=False)
    calibration: Calibration = field(repr=False)
    share_tied: float
    order: int
    note: str
    clusters: str

    def at_k(self, share: float) -> tuple[float, float, float]:
        """(effect, lower, upper) among the best-ranked `share` (uplift@k), a multiple of .01; pointwise 95 %."""
        k = check_scalar(share, "share", gt=0, le=1)
        where = int(np.argmin(np.abs(self.grid - k)))
        if abs(self.grid[where] - k) > 1e-9:
            raise ArgumentError(
                f"share is {share!r}, must be a multiple of .01, for instance {self.grid[where]:g}."
            )
        gain, half = self.gain[where] / k, self.half_width[where] / k
        return float(gain), float(gain - half), float(gain + half)

    def _title(self) -> str:
        return f"Uplift on {self.n:,} held-out impressions of {self.n_units:,} units, doubly robust scores ({self.estimand})"

    def _rows(self) -> list[dict[str, Any]]:
        named = [("Qini", self.qini, *self.qini_ci), ("AUTOC", self.autoc, *self.autoc_ci)]
        named.append(("AUUC", self.auuc, *self.auuc_ci))
        named += [(f"uplift@{100 * k:.0f} %", *self.at_k(k)) for k in (0.1, 0.3)]
        return [{"quantity": q, "estimate": v, "ci_lower": a, "ci_upper": b} for q, v, a, b in named]

    def _notes(self) -> list[str]:
        if self.constant:
            return [
                "The model predicts one effect for everyone, so that there is nothing to rank by (modifiers= in read_log are what a model can rank by).",
                self.note,
            ]
        notes = [
            self._verdict(),
            *self.calibration._notes(),
            f"{self.note} Errors are clustered by {self.clusters}.",
        ]
        if self.share_tied > MANY_TIES:
            notes.append(
                f"{100 * self.share_tied:.0f} % of the rows share one predicted effect; within a tie the order is taken as random."
            )
        return notes

    def _verdict(self) -> str:
        if self.qini_ci[0] > 0:
            return "Ranking by predicted effect beats recommending at random."
        if self.qini_ci[1] < 0:
            return "Ranking by predicted effect is worse than recommending at random: do not use it."
        return "The interval includes 0: on these users the ranking cannot be told from a random one."


def uplift(
    fit: Fit,
    test: ImpressionLog,
    *,
    n_bootstrap: int = 2000,
    random_state: int | np.random.Generator | None = 0,
) -> UpliftCurve:
    """Judge a fit's ranking by predicted effect on users that it has not seen.

    The scores of the held-out rows come from the training users' nuisances (or the logged propensities) and are corrected
    by pairs where the fit is; intervals are clustered by unit, and by item where items repeat.

    Parameters
    ----------
    fit : Fit
        On the training users.
    test : ImpressionLog
        Other users, embedded alike.
    n_bootstrap : int
        Draws of the multiplier bootstrap for the joint bands, at least 100.
    random_state : int, Generator or None

    Raises
    ------
    HonestyError
        Users of `test` were in the fit.
    EstimationError
        An arm has too few held-out rows.
    """
    if not isinstance(fit, Fit) or not isinstance(test, ImpressionLog):
        raise ArgumentError(
            f"uplift takes (fit, test), a Fit and an ImpressionLog; got ({type(fit).__name__}, {type(test).__name__})."
        )
    draws = check_scalar(n_bootstrap, "n_bootstrap", ge=100, le=100_000, integer=True)
    held = held_out(fit, test)
    unit = test.roles.unit[0] if test.roles.unit else "row"
    item = (test.roles.item or test.roles.text or ("item",))[0]
    clusters = unit if held.items is None else f"{unit} and {item}"
    return judge(held, fit.cate(test), draws, as_generator(random_state), clusters)


def judge(
    held: HeldOut, cate: F64, draws: int, rng: np.random.Generator, clusters: str = "unit"
) -> UpliftCurve:
    """The curve of any ranking of held-out rows: `cate` (n,) has not seen them."""
    from scipy.stats import t as student

    w, tie = held.weights, ranking.ties(np.round(cate, 12))
    found = ranking.rank(tie, held.psi, w, held.units, held.items, GRID)
    df = max(held.n_clusters - 1, 1)
    c = float(student.ppf(0.975, df))
    (qini, autoc, auuc), gain = found.std_errors, np.sqrt(np.diag(found.of_gain))
    bands = [
        _band(value, covariance, largest(covariance, df, 0.95, draws, rng))
        for value, covariance in ((found.gain, found.of_gain), (found.toc, found.of_toc))
    ]
    constant = int(tie.max()) == 0
    return UpliftCurve(
        found.qini, _interval(found.qini, c * qini), found.autoc, _interval(found.autoc, c * autoc),
        GRID, found.gain, *bands[0], found.toc, *bands[1],
        group_table(held, cate, ranking.bands_of(tie, w, 10), "decile"), len(held), int(held.units.max()) + 1, "ATE",
        constant, found.auuc, _interval(found.auuc, c * auuc),
        float("nan") if constant or qini == 0 else float(student.sf(found.qini / qini, df)), c * gain,
        calibrate(held, cate), float(np.bincount(tie, w).max() / w.sum()), held.order, held.note, clusters,
    )  # fmt: skip


def _interval(estimate: float, half: float) -> Pair:
    return estimate - half, estimate + half


def _band(estimate: F64, covariance: F64, width: float) -> tuple[F64, F64]:
    half = width * np.sqrt(np.diag(covariance))
    return estimate - half, estimate + half
