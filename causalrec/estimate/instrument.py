"""What does the recommendation cause in those whom a nudge moves? The verb ``estimate_instrument`` and its result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from causalrec import scores
from causalrec._checks import as_generator, check_scalar
from causalrec._display import Displayable, fmt
from causalrec.errors import EstimationError, OverlapError
from causalrec.estimate.arm_overlap import measure_arm, why_no_overlap
from causalrec.estimate.encouragement import anderson_rubin, encouragement, nodes_between
from causalrec.estimate.modifiers import ModifierRecipe
from causalrec.estimate.several import Adjusted, adjust, check_call, check_options
from causalrec.identify import Plan
from causalrec.joint import covariance_of
from causalrec.log import ImpressionLog
from causalrec.nuisance import Clip, Folds, NuisanceRecipe, Nuisances

F64 = npt.NDArray[np.float64]
MIN_F = 10.0
"""First-stage F below which the effect is refused: Staiger & Stock (1997)."""
STRONG_F = 104.7
"""First-stage F from which on ratio ± 1.96 standard errors has its 5 %: Lee, McCrary, Moreira & Porter (2022), *American Economic Review* 112."""


@dataclass(frozen=True, eq=False)
class InstrumentFit(Displayable):
    """The effect in the compliers, those who are treated because they were encouraged.

    Attributes
    ----------
    log, plan : what was analysed, and what it rests on
    instrument : str
    late : Estimate
        LATE, E[Y(1) − Y(0) | complier], clicks per impression, with the usual (delta-method) interval.
    anderson_rubin : (lower, upper)
        95 % interval that holds however weak the instrument is; infinite ends where it is not bounded.
    itt_outcome, itt_treatment : Estimate
        Effect of the encouragement on the outcome, and on the treatment (the first stage; under monotonicity the
        share of compliers).
    first_stage_f : float
        Squared t of the first stage, clustered as all else.
    naive : Estimate
        Difference of means between treated and untreated; not an effect.
    of_outcome, of_treatment : Nuisances
        Of the instrument, with the outcome, and with the treatment in the outcome's place.
    scores : (n, 2)
        Doubly robust scores of the encouragement on the outcome and on the treatment; ``late`` is the ratio of their means.
    """

    log: ImpressionLog = field(repr=False)
    plan: Plan = field(repr=False)
    instrument: str
    late: scores.Estimate = field(repr=False)
    anderson_rubin: tuple[float, float]
    itt_outcome: scores.Estimate = field(repr=False)
    itt_treatment: scores.Estimate = field(repr=False)
    first_stage_f: float
    naive: scores.Estimate = field(repr=False)
    of_outcome: Nuisances = field(repr=False)
    of_treatment: Nuisances = field(repr=False)
    scores: F64 = field(repr=False)
    adjusted: Adjusted = field(repr=False)
    clip: Clip = field(repr=False)

    @property
    def effect(self) -> float:
        """The LATE."""
        return self.late.value

    @property
    def interval(self) -> tuple[float, float]:
        """95 %: Anderson–Rubin's below a first-stage F of 104.7, the delta method's from there on."""
        strong = self.first_stage_f >= STRONG_F
        return (self.late.ci_lower, self.late.ci_upper) if strong else self.anderson_rubin

    @property
    def ci_lower(self) -> float:
        """Lower end of ``interval``."""
        return self.interval[0]

    @property
    def ci_upper(self) -> float:
        """Upper end of ``interval``."""
        return self.interval[1]

    def cate(self, log: ImpressionLog) -> F64:
        """(n,) effect in compliers given the modifiers, by the line that fits it best; see ``cate_interval``."""
        return self._basis(log) @ self._line()[0]

    def cate_interval(self, log: ImpressionLog, alpha: float = 0.05) -> tuple[F64, F64]:
        """(lower, upper), (n,) each, pointwise, clustered.

        β solves Σ w B (ψ_Y − ψ_T B'β) = 0 with B = (1, modifiers): the linear projection of the compliers' effect, each
        value of the modifiers counting as much as it has compliers. Ogburn, Rotnitzky & Robins (2015), J. R. Stat. Soc. B 77.
        """
        from scipy.stats import t as student

        check_scalar(alpha, "alpha", gt=0, lt=1)
        at = self._basis(log)
        beta, covariance = self._line()
        centre = at @ beta
        quantile = student.ppf(1 - alpha / 2, max(self.late.n_clusters - 1, 1))
        half = quantile * np.sqrt(np.einsum("ij,jk,ik->i", at, covariance, at))
        return centre - half, centre + half

    def _basis(self, log: ImpressionLog) -> F64:
        names = self.log.roles.modifiers
        missing = [n for n in names if n not in log.frame.columns]
        if missing:
            raise EstimationError(f"the log lacks the modifiers {missing}, by which this effect varies.")
        x = ModifierRecipe.learn(self.log.frame, names).apply(log.frame)
        return np.ones((len(log), 1)) if x is None else np.column_stack([np.ones(len(log)), x])

    def _line(self) -> tuple[F64, F64]:
        """(β (q,), its clustered covariance (q, q))."""
        basis, (on_y, on_t) = self._basis(self.log), self.scores.T
        w = self.adjusted.weights
        bread = np.linalg.pinv((basis * (w * on_t)[:, None]).T @ basis)
        beta = bread @ (basis.T @ (w * on_y))
        influence = basis * (w * (on_y - on_t * (basis @ beta)))[:, None] @ bread.T * len(w)
        return beta, covariance_of(influence, self.adjusted.units, self.adjusted.items)[0]

    def _title(self) -> str:
        what = f"{self.log.roles.treatment[0]} → {self.log.roles.outcome[0]}"
        return (
            f"LATE of {what}, by the instrument {self.instrument}: {self.late.value:+.4f} "
            f"[{self.ci_lower:+.4f}, {self.ci_upper:+.4f}], 95 %; first-stage F {self.first_stage_f:,.1f}"
        )

    def _rows(self) -> list[dict[str, Any]]:
        t, y = self.log.roles.treatment[0], self.log.roles.outcome[0]
        rows = [
            {
                "quantity": name,
                "estimate": e.value,
                "std_error": e.std_error,
                "ci_lower": e.ci_lower,
                "ci_upper": e.ci_upper,
                "p_value": e.p_value,
            }
            for name, e in (
                ("effect in compliers (LATE)", self.late),
                (f"{self.instrument} on {y}", self.itt_outcome),
                (f"{self.instrument} on {t} (first stage)", self.itt_treatment),
                ("naive difference (not an effect)", self.naive),
            )
        ]
        weak = {
            "quantity": "LATE, Anderson–Rubin interval",
            "estimate": None,
            "std_error": None,
            "ci_lower": self.anderson_rubin[0],
            "ci_upper": self.anderson_rubin[1],
            "p_value": self.itt_outcome.p_value,
        }
        return [rows[0], weak, *rows[1:]]

    def _notes(self) -> list[str]:
        share = abs(self.itt_treatment.value)
        way = "raises" if self.itt_treatment.value > 0 else "lowers"
        t = self.log.roles.treatment[0]
        return [
            f"Population: compliers, {100 * share:.1f} % of the impressions ({self.instrument!r} {way} {t!r}); nothing is said of those who are "
            f"always or never treated. {len(self.log):,} impressions, {self.log.n_units:,} units.",
            f"First-stage F {fmt(self.first_stage_f)} (refused below {MIN_F:g}); the Anderson–Rubin interval holds whatever F is, and is the headline's below {STRONG_F:g}.",
            f"Untested: {self.instrument!r} is as good as drawn at random given {_listed(self.adjusted)}",
            f"Untested: exclusion: {self.instrument!r} acts on {self.log.roles.outcome[0]!r} through {t!r} only",
            f"Untested: monotonicity: {self.instrument!r} moves {t!r} in one direction for everybody",
            "Untested: no interference: one impression's encouragement does not change the outcome of another",
        ]


def _listed(adjusted: Adjusted) -> str:
    names = [repr(str(c.name)) for c in adjusted.covariates]
    return ", ".join(names) if names else "nothing"


def estimate_instrument(
    log: ImpressionLog,
    plan: Plan,
    *,
    folds: Folds | None = None,
    nuisances: NuisanceRecipe | None = None,
    clip: Clip | None = None,
    random_state: int | np.random.Generator | None = None,
) -> InstrumentFit:
    r"""Estimate the effect in those whom a 0/1 instrument moves: an e-mail, a nudge, a lottery of slots.

    With ψ_Y and ψ_T the doubly robust scores of the instrument's effect on the outcome and on the treatment,

    .. math:: LATE = E[\psi_Y] / E[\psi_T]

    whose error is that of a ratio, clustered by unit, and by item where items repeat. A hidden common cause of treatment
    and outcome does no harm. Imbens & Angrist (1994); Frölich (2007), "Nonparametric IV estimation of local average
    treatment effects with covariates"; Chernozhukov et al. (2018), eq. 5.5.

    Parameters
    ----------
    log : ImpressionLog
        With ``instrument=`` declared, of two values; the larger is the encouragement.
    plan : Plan
        Its graph says what is adjusted for between instrument and outcome, whatever its strategy is.
    folds : Folds
    nuisances : NuisanceRecipe
        Its ``propensity`` models the instrument, its ``outcome`` both the outcome and the treatment.
    clip : Clip
    random_state : int, Generator or None

    Returns
    -------
    InstrumentFit

    Raises
    ------
    EstimationError
        The instrument is weak (first-stage F below 10).
    IdentificationError
        The graph has a path from instrument to outcome other than through the treatment.
    OverlapError, LogError, ArgumentError
    """
    log, plan = check_call("estimate_instrument", log, plan)
    log.require_kind("binary", "estimate_instrument")
    folds = check_options(folds, clip, nuisances)
    z = encouragement(log)
    nodes = nodes_between(log, plan)
    rng = as_generator(random_state)
    adjusted = adjust(log, (nodes, nodes), 2 * z + (log.outcome > log.outcome.mean()), folds, rng)
    clip = clip or Clip(min(Clip().bound, float(min(z.mean(), 1 - z.mean())) / 10))
    of_outcome = _modelled("outcome", adjusted, z, log.outcome, nuisances)
    of_treatment = _modelled("treatment", adjusted, z, log.treatment, nuisances, of_outcome.propensity)
    _check_overlap(adjusted, z, of_outcome.propensity, clip)
    return _wald(log, plan, adjusted, z, of_outcome, of_treatment, clip)


def _modelled(
    what: str,
    adjusted: Adjusted,
    z: F64,
    y: F64,
    recipe: NuisanceRecipe | None,
    known: F64 | None = None,
) -> Nuisances:
    """Nuisances of the instrument; an arm in which y is constant (nobody is treated without a nudge) is modelled by a line."""
    binary = bool(np.isin(y, (0.0, 1.0)).all())
    varies = all(np.ptp(y[z == arm]) > 0 for arm in (0.0, 1.0))
    try:
        return adjusted.cross_fit(z, y, recipe, known, binary and varies)
    except EstimationError as error:
        raise EstimationError(
            f"the {what} in the encouraged (as 'treated') and the other rows (as 'control') cannot be modelled: {error}"
        ) from error


def _check_overlap(adjusted: Adjusted, z: F64, e: F64, clip: Clip) -> None:
    for label, given, of_arm in (("encouraged", z == 1, e), ("not encouraged", z == 0, 1 - e)):
        reason = why_no_overlap(measure_arm(label, given, of_arm, adjusted, clip), clip, known=False)
        if reason:
            raise OverlapError(
                f"the effect of the instrument cannot be estimated: the arm {label!r} has no overlap: {reason}. "
                "Keep to the rows where either could have happened."
            )


def _wald(
    log: ImpressionLog,
    plan: Plan,
    adjusted: Adjusted,
    z: F64,
    of_outcome: Nuisances,
    of_treatment: Nuisances,
    clip: Clip,
) -> InstrumentFit:
    e, ones, w = clip.apply(of_outcome.propensity), np.ones_like(z), adjusted.weights
    units, items = adjusted.units, adjusted.items
    on_y, on_t = (
        scores.aipw_ate(z, y, e, fitted.outcome_0, fitted.outcome_1)[0]
        for y, fitted in ((log.outcome, of_outcome), (log.treatment, of_treatment))
    )
    few = min(adjusted.units_with(z == 1), adjusted.units_with(z == 0))
    itt_y, itt_t = (scores.clustered_ratio((psi, ones), units, items, w, at_most=few) for psi in (on_y, on_t))
    f = (itt_t.value / itt_t.std_error) ** 2 if itt_t.std_error > 0 else 0.0
    if f < MIN_F:
        _refuse_weak(log, f, itt_y, itt_t)
    late = scores.clustered_ratio((on_y, on_t), units, items, w, at_most=few)
    influences = np.column_stack([itt_y.influence, itt_t.influence])
    df = max(min(late.n_clusters, few) - 1, 1)
    covariance, _ = covariance_of(influences, units, items)
    interval = anderson_rubin(itt_y.value, itt_t.value, covariance, df)
    naive = scores.clustered_ratio(
        scores.difference_in_means(log.treatment, log.outcome, log.weights), units, items, log.weights
    )
    return InstrumentFit(
        log, plan, log.roles.instrument[0], late, interval, itt_y, itt_t, float(f), naive, of_outcome, of_treatment,
        np.column_stack([on_y, on_t]), adjusted, clip,
    )  # fmt: skip


def _refuse_weak(log: ImpressionLog, f: float, itt_y: scores.Estimate, itt_t: scores.Estimate) -> None:
    name, t, y = log.roles.instrument[0], log.roles.treatment[0], log.roles.outcome[0]
    more = f"about {MIN_F / f:,.0f} times the rows, or " if f > 0.1 else ""
    raise EstimationError(
        f"the instrument {name!r} is too weak: first-stage F {f:.1f}, must be >= {MIN_F:g} (it moves {t!r} by {itt_t.value:+.4f} ± {itt_t.std_error:.4f}). "
        f"The ratio would be biased and its interval wrong. Take {more}a stronger encouragement; what can be said is its own effect on {y!r}: "
        f"{itt_y.value:+.4f} [{itt_y.ci_lower:+.4f}, {itt_y.ci_upper:+.4f}]."
    )
