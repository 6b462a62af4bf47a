"""For whom does it work? The verb ``uplift`` and its result: a ranking judged on users that it has not seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec import scores
from causalrec._checks import as_generator, check_scalar
from causalrec._display import Displayable
from causalrec.errors import ArgumentError, EstimationError, HonestyError
from causalrec.estimate import Fit
from causalrec.estimate.fit import covariates
from causalrec.log import MIN_ARM, ImpressionLog
from causalrec.uplift import ranking

F64 = npt.NDArray[np.float64]
Pair = tuple[float, float]
GRID = np.linspace(0.01, 1.0, 100)


@dataclass(frozen=True, eq=False)
class UpliftCurve(Displayable):
    """How much better it is to recommend by predicted effect than at random.

    Attributes
    ----------
    qini, autoc : float
        Areas, clicks per impression; 0 = no better than random. See ``ranking``.
    qini_ci, autoc_ci : (lower, upper)
        95 %, clustered by unit, for the ranking as it was fitted on the training users.
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

    def _title(self) -> str:
        return f"Uplift on {self.n:,} held-out impressions of {self.n_units:,} units, doubly robust scores ({self.estimand})"

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {
                "quantity": "Qini",
                "estimate": self.qini,
                "ci_lower": self.qini_ci[0],
                "ci_upper": self.qini_ci[1],
            },
            {
                "quantity": "AUTOC",
                "estimate": self.autoc,
                "ci_lower": self.autoc_ci[0],
                "ci_upper": self.autoc_ci[1],
            },
        ]

    def _notes(self) -> list[str]:
        if self.constant:
            return [
                "The model predicts one effect for everyone: declare modifiers= in read_log to rank by them."
            ]
        if self.qini_ci[0] > 0:
            return ["Ranking by predicted effect beats recommending at random."]
        return ["The interval includes 0: on these users the ranking cannot be told from a random one."]


def uplift(
    fit: Fit,
    test: ImpressionLog,
    *,
    n_bootstrap: int = 300,
    random_state: int | np.random.Generator | None = 0,
) -> UpliftCurve:
    """Judge a fit's ranking by predicted effect on users that it has not seen.

    The scores of the held-out rows come from the training users' nuisances (or the logged propensities); the
    intervals from a bootstrap over users.

    Parameters
    ----------
    fit : Fit
        On the training users.
    test : ImpressionLog
        Other users, embedded alike.
    n_bootstrap : int
        Draws, at least 100.
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
    _check_unseen(fit.log, test)
    psi = held_out_scores(fit, test)
    cate = fit.cate(test)
    w = np.ones(len(test)) if test.weights is None else test.weights
    tie = ranking.ties(np.round(cate, 12))
    constant = int(tie.max()) == 0
    curve = ranking.gains(tie, psi, w)
    drawn = ranking.resample(tie, psi, w, test.units, GRID, draws, as_generator(random_state))
    gain = curve.at(GRID)
    toc = gain / GRID - curve.ate
    return UpliftCurve(
        curve.qini(), _interval(curve.qini(), drawn.qini), curve.autoc(), _interval(curve.autoc(), drawn.autoc),
        GRID, gain, *ranking.joint_band(gain, drawn.gain), toc, *ranking.joint_band(toc, drawn.toc),
        _deciles(tie, cate, psi, test.units, w), len(test), test.n_units, "ATE", constant,
    )  # fmt: skip


def _interval(estimate: float, draws: F64) -> Pair:
    sd = float(draws.std(ddof=1))
    return estimate - 1.96 * sd, estimate + 1.96 * sd


def held_out_scores(fit: Fit, test: ImpressionLog) -> F64:
    """(n,) AIPW scores of rows that the fit has not seen, with the fit's nuisances."""
    nodes = tuple(str(c.name) for c in fit.analysis.inputs.covariates)
    recipe = fit.nuisances.design_recipe
    if recipe is None:
        raise EstimationError(
            "these nuisances do not say how their design was made; fit them with estimate(log, plan)."
        )
    design, problem = recipe.apply(covariates(test, nodes), len(test)), fit.nuisances.problem
    e, m0, m1 = fit.nuisances.predict(
        design.keep(problem.propensity_design.owners), design.keep(problem.outcome_design.owners)
    )
    logged = test.logged_propensity
    if logged is None and fit.nuisances.logged:
        raise EstimationError(
            "the fit's propensities were logged, so there is no model of them, and the test log declares no propensity=; read both logs alike."
        )
    e = e if logged is None else logged
    return scores.aipw_ate(test.treatment, test.outcome, fit.analysis.settings.clip.apply(e), m0, m1)[0]


def _check_unseen(train: ImpressionLog, test: ImpressionLog) -> None:
    shared = train.shared_units(test)
    if shared:
        raise HonestyError(
            f"{shared:,} of {test.n_units:,} units of the test log were in the fit; a ranking is judged on users that it has not seen: train, test = log.split(…)."
        )
    for arm, word in ((1.0, "treated"), (0.0, "control")):
        count = int((test.treatment == arm).sum())
        if count < MIN_ARM:
            raise EstimationError(
                f"the test log has {count} {word} rows, must have >= {MIN_ARM}; split off more users."
            )


def _deciles(
    tie: npt.NDArray[np.int64], cate: F64, psi: F64, units: npt.NDArray[np.int64], w: F64
) -> pd.DataFrame:
    """Tenths of the ranking (ties stay together), best first, with intervals clustered by unit."""
    mass = np.cumsum(np.bincount(tie, w))
    middle = (mass - 0.5 * np.bincount(tie, w)) / mass[-1]
    decile = np.minimum((10 * middle).astype(int), 9)[tie]
    rows = []
    for d in np.unique(decile):
        here = decile == d
        local = np.unique(units[here], return_inverse=True)[1]
        e = scores.clustered_ratio((psi[here], np.ones(int(here.sum()))), local, None, w[here])
        rows.append(
            {
                "decile": int(d) + 1,
                "n": int(here.sum()),
                "n_units": int(local.max()) + 1,
                "mean_cate": float(np.average(cate[here], weights=w[here])),
                "effect": e.value,
                "ci_lower": e.ci_lower,
                "ci_upper": e.ci_upper,
            }
        )
    return pd.DataFrame(rows)
