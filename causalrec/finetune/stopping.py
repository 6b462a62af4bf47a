"""When to stop: the latest state whose held-out loss is not shown to be above the lowest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
STATE = "stopping.npz"
BAR = 2.0


@dataclass
class Latest:
    """The latest good state of a run, as a standard-error rule takes the simplest good tree (Breiman et al. 1984, §3.4.3).

    With weights in them held-out losses are noisy: the lowest is often an early state that was lucky, while the step size was still large.
    A state counts as good unless its loss is above the lowest by more than `BAR` standard errors of the paired difference, by user.

    Attributes
    ----------
    lowest : (g,) loss sums by user of the state with the lowest loss so far, or None
    good : int
        Evaluations so far that were good.
    """

    lowest: F64 | None = None
    good: int = 0
    METRIC: ClassVar[str] = "eval_order"

    def order(self, loss: F64, units: npt.NDArray[np.int64]) -> float:
        """Less than ever before if this state, of held-out losses (m,), is good; 1 if it is not."""
        mine: F64 = np.bincount(units, loss).astype(np.float64)
        if not np.isfinite(mine).all():
            return 1.0
        if self.lowest is not None:
            difference = mine - self.lowest
            doubt = BAR * difference.std(ddof=1) / len(difference) ** 0.5 if len(difference) > 1 else 0.0
            if difference.mean() > doubt:
                return 1.0
        if self.lowest is None or mine.sum() < self.lowest.sum():
            self.lowest = mine
        self.good += 1
        return -float(self.good)

    def save(self, folder: Path) -> None:
        """Write to a checkpoint."""
        if self.lowest is not None:
            np.savez(folder / STATE, lowest=self.lowest, good=self.good)

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint."""
        if (folder / STATE).is_file():
            with np.load(folder / STATE) as held:
                self.lowest, self.good = held["lowest"], int(held["good"])
