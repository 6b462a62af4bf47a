"""Options that travel together: how folds are drawn, how propensities are clipped, which learners are used."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from causalrec._checks import check_choice, check_scalar
from causalrec.errors import ArgumentError, EstimationError
from causalrec.units import deal, shuffled_order

F64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Clip:
    """Keep propensities within [bound, 1 − bound]; what was clipped is counted and shown.

    Parameters
    ----------
    bound : float
        In [0, 0.5). 0 clips nothing.
    """

    bound: float = 0.01

    def __post_init__(self) -> None:
        check_scalar(self.bound, "bound", ge=0, lt=0.5)

    def apply(self, e: F64) -> F64:
        """The clipped propensities, (n,)."""
        return np.clip(e, self.bound, 1 - self.bound)

    def apply_above(self, e: F64) -> F64:
        """Clipped from above only: the ATT divides by 1 − e, and never by e."""
        return np.minimum(e, 1 - self.bound)

    def share(self, e: F64) -> float:
        """Share of rows that are clipped."""
        return float(((e < self.bound) | (e > 1 - self.bound)).mean())


@dataclass(frozen=True)
class Folds:
    """How rows are dealt to folds: whole units, stratified by what the units did.

    Parameters
    ----------
    n_splits : int
        At least 3, since penalties are chosen in folds of the folds.
    by : "user"
        Rows of one unit share a fold. (Every row is its own unit where the log declares none.)
    """

    n_splits: int = 5
    by: Literal["user"] = "user"

    def __post_init__(self) -> None:
        check_scalar(self.n_splits, "n_splits", ge=3, le=50, integer=True)
        check_choice(self.by, "by", ("user",))

    def assign(
        self,
        units: Ints,
        row_hash: npt.NDArray[np.uint64],
        strata: F64,
        rng: np.random.Generator,
        divisions: int = 1,
    ) -> Ints:
        """(n,) fold of each row, 0 … n_splits − 1; with `divisions` D, sub-fold 0 … D · n_splits − 1.

        The fold of a sub-fold is its remainder by n_splits.

        Units are dealt along the mean of `strata`, in an order that ``shuffled_order`` draws.
        """
        n_units = int(units.max()) + 1
        if n_units < self.n_splits:
            raise EstimationError(
                f"the log has {n_units} units, fewer than the {self.n_splits} folds; pass folds=Folds({max(3, n_units)}) or a longer log."
            )
        order = shuffled_order(units, row_hash, strata, rng)
        return deal(order, divisions * self.n_splits, rng)[units]


@dataclass(frozen=True)
class RidgeLogistic:
    """Ridge-penalised logistic regression (least squares for a continuous outcome).

    Representations are shrunk by a penalty that is chosen on held-out users by log-loss: each candidate says how
    much of the log-odds' variance the words may carry before they have shown that they do. A few plain
    columns are shrunk lightly, as if their standardised coefficients were N(0, 1/light).

    Parameters
    ----------
    variances : tuple of float
        Candidates: prior variance of a block's contribution to the log-odds.
    light : float
        Penalty of a standardised plain column.
    """

    variances: tuple[float, ...] = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.001)
    light: float = 1.0

    def __post_init__(self) -> None:
        if not self.variances:
            raise ArgumentError("variances is empty; must hold at least one positive number.")
        for v in self.variances:
            check_scalar(v, "variances", gt=0)
        check_scalar(self.light, "light", gt=0)


@dataclass(frozen=True)
class NuisanceRecipe:
    """Which learners model exposure and outcome.

    Parameters
    ----------
    propensity : RidgeLogistic or scikit-learn classifier with ``predict_proba``
    outcome : RidgeLogistic or scikit-learn classifier (binary outcome) or regressor
        Fitted once in each arm.
    calibrate : bool
        Platt-scale the propensities on held-out rows of the training folds (RidgeLogistic only).
    """

    propensity: Any = field(default_factory=RidgeLogistic)
    outcome: Any = field(default_factory=RidgeLogistic)
    calibrate: bool = True

    def __post_init__(self) -> None:
        for name, learner in (("propensity", self.propensity), ("outcome", self.outcome)):
            if isinstance(learner, RidgeLogistic):
                continue
            if not callable(getattr(learner, "fit", None)) or isinstance(learner, type):
                raise ArgumentError(
                    f"{name} is {learner!r}; must be RidgeLogistic(...) or a scikit-learn estimator instance."
                )
            if name == "propensity" and not hasattr(learner, "predict_proba"):
                raise ArgumentError(
                    f"{name} is a {type(learner).__name__} without predict_proba; must be a classifier that gives probabilities."
                )
