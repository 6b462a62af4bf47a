"""Who is held out: the same users in every round, so that no weight learns from those who judge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from causalrec.finetune.guard_rails import LEAST_HELD_OUT, users_shown
from causalrec.log import ImpressionLog

Hashes = npt.NDArray[np.uint64]
ROLES = ("unit", "item", "history", "text")
"""What a ranker reads of a log beside what was shown and clicked."""


@dataclass(frozen=True, eq=False)
class Met:
    """Users of earlier rounds, by hash.

    Attributes
    ----------
    seen : (s,) uint64, users from whose clicks weights have learnt
    held : (h,) uint64, users who were held out
    """

    seen: Hashes
    held: Hashes


def roles_of(log: ImpressionLog) -> tuple[str, ...]:
    """Which of the roles that a ranker reads a log declares."""
    return tuple(role for role in ROLES if getattr(log.roles, role))


def parted(log: ImpressionLog, share: float, rng: np.random.Generator, met: Met | None) -> tuple[ImpressionLog, ImpressionLog, bool]:
    """(training rows, held-out rows, whether no weight has learnt from a held-out user).

    Whoever was held out once is held out again, and whoever was learnt from is not; a `share` of the users who are new is held out.
    Where that leaves too few, a share of the others is held out as well, for this once.
    """
    if met is None:
        return *log.split(share, rng), True
    held = log.rows_of(np.setdiff1d(met.held, met.seen)) | _drawn(log, ~log.rows_of(np.union1d(met.seen, met.held)), share, rng)
    unseen = users_shown(log.take(held)) >= LEAST_HELD_OUT
    if not unseen:
        held |= _drawn(log, ~held, share, rng)
    return log.take(~held), log.take(held), unseen


def _drawn(log: ImpressionLog, among: npt.NDArray[np.bool_], share: float, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """(n,) rows of a share of the users of some rows; none where these have no two users."""
    some = log.take(among)
    if len(some) == 0 or some.n_units < 2:
        return np.zeros(len(log), dtype=bool)
    return log.rows_of(some.split(share, rng)[1].unit_hashes) & among
