"""The loop: learn from a new log, look at users who were held out of it, promote or not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from causalrec import scores
from causalrec._checks import as_generator, check_path, check_scalar
from causalrec._display import Displayable
from causalrec.errors import ArgumentError, CausalRecError
from causalrec.finetune.evaluation import RISKS, evaluate
from causalrec.finetune.feed import Feed, joined, part_of
from causalrec.finetune.guard_rails import check_support
from causalrec.finetune.labels import Labels
from causalrec.finetune.parting import ROLES, Met, roles_of
from causalrec.finetune.policy_value import chosen
from causalrec.finetune.preparation import Job, Prepared
from causalrec.finetune.processes import check_shared
from causalrec.finetune.ranking import quantity
from causalrec.finetune.risk import UNITS, Ratio, risk_difference
from causalrec.finetune.weighing import RandomData, Weighing
from causalrec.identify import Plan
from causalrec.log import ImpressionLog
from causalrec.scores import Estimate

if TYPE_CHECKING:
    from causalrec.finetune.ranker import Ranker

Ints = npt.NDArray[np.int64]
LEAST_USERS = 100
"""Held-out users whom no round has trained on, below whom the effect is not estimated anew."""
FEW_UNSEEN = (
    " Of the users whom no round has trained on the log has too few to judge by, so that some of those who judged were learnt from in earlier rounds, which favours the old weights."
)


@dataclass(frozen=True, eq=False)
class Round(Displayable):
    """One new log.

    Attributes
    ----------
    number : int
    n, n_held_out : rows of the new log, and of its held-out users
    n_replayed : rows of earlier logs that were mixed in
    promoted : bool
    risk : Estimate
        Held-out doubly robust risk of the new weights less that of the old ones, nats per impression (or as `risk_of` says).
    value : Estimate
        Clicks per impression shown of the new weights' choice less that of the old ones'.
    effect : Estimate or None
        Of the treatment among held-out users whom no round has trained on, adjusted with the encoder that was kept.
    effect_moved : Estimate or None
        Effect adjusted with the new encoder less that adjusted with the last round's, of the same users (paired); None where the encoder does
        not learn or either is missing.
    reason : str
        Why it was promoted or not; who judged, where weights had learnt from them; and why the effect is missing, where it is.
    """

    number: int
    n: int
    n_held_out: int
    n_replayed: int
    promoted: bool
    risk: Estimate
    value: Estimate
    effect: Estimate | None
    reason: str
    effect_moved: Estimate | None = None
    risk_of: str = "clicks"

    def _title(self) -> str:
        return f"Round {self.number}: {'promoted' if self.promoted else 'not promoted'}. {self.reason}"

    def _rows(self) -> list[dict[str, Any]]:
        named = [(f"held-out {RISKS[self.risk_of].format('DR')}, new less old", self.risk), ("clicks per impression shown, new less old", self.value)]
        if self.effect is not None:
            named.append(("effect of showing, adjusted with the encoder that was kept", self.effect))
        if self.effect_moved is not None:
            named.append(("effect of showing, by the new encoder less by the old one", self.effect_moved))
        return [quantity(name, e) for name, e in named]


def update(
    ranker: Ranker,
    log: ImpressionLog,
    *,
    epochs: int,
    replay: float,
    standard_errors: float,
    weighing: Weighing | None,
    output: str | Path | None,
    random_state: int | np.random.Generator | None,
) -> Ranker:
    """See ``Ranker.update``."""
    replay = check_scalar(replay, "replay", ge=0, le=100)
    bar = check_scalar(standard_errors, "standard_errors", ge=0)
    epochs = check_scalar(epochs, "epochs", ge=1, le=1000, integer=True)
    if not isinstance(log, ImpressionLog):
        raise ArgumentError(f"update takes an ImpressionLog, got a {type(log).__name__}.")
    _check_roles(ranker, log)
    how = ranker.weighing if weighing is None else weighing
    if how is None:
        raise ArgumentError(
            "this ranker was loaded, and rows were weighed in a way that is not saved (a plan, nuisances, a clip or an examination curve): pass update(..., "
            "weighing=Weighing(...)) with the same."
        )
    if not isinstance(how, Weighing):
        raise ArgumentError(f"weighing is {how!r}; must be Weighing(...), or None for the ranker's own.")
    _check_labels(ranker, how)
    check_path(output, "output")
    check_shared(output)
    rng = as_generator(random_state)
    job = Job(
        log, ranker.objective, ranker.adapter, ranker.head, epochs, ranker.training, how, RandomData(),
        ranker.base, int(rng.integers(2**31)),
    )  # fmt: skip
    new = job.prepared(ranker.known_items, Met(ranker.seen_units, ranker.held_units))
    check_support(new.labels, "the new log, whose doubly robust risk decides the promotion")
    mixed, replayed = _with_replay(new, ranker, replay, rng)
    made = mixed.ranker(output, ranker.trained.network.learned())
    held_units = np.union1d(ranker.held_units, made.held_units)
    trained = replace(made, seen_units=np.union1d(ranker.seen_units, made.seen_units), held_units=held_units)  # its encoder was theirs before
    old_f, new_f = ranker.score_log(new.valid), trained.trained.valid_scores
    risk = risk_difference(new_f, old_f, new.held, ranker.objective.aims_at, job.pairwise)
    promoted = risk.value < -bar * risk.std_error
    kept = trained if promoted else ranker
    effect, moved, missing = _effects(kept, (ranker, trained), new, how.plan, job.seed)
    record = Round(
        len(ranker.rounds) + 1, len(log), len(new.valid), replayed, promoted, risk, _value_difference(new_f, old_f, new.held), effect,
        _reason(promoted, risk, bar, ranker.evaluation.risk_of) + ("" if new.unseen else FEW_UNSEEN) + missing, moved, ranker.evaluation.risk_of,
    )  # fmt: skip
    if not promoted:
        return replace(ranker, rounds=(*ranker.rounds, record), held_units=held_units)
    notes = ("The held-out users of the new log are those who chose when to stop and decided the promotion.", *new.doubts)
    judged = evaluate(new_f, new.held, None, notes, ranker.objective.aims_at, job.pairwise, new.unseen)
    return replace(
        trained, rounds=(*ranker.rounds, record), choice=ranker.choice, histories=ranker.histories | trained.histories, evaluation=judged,
    )  # fmt: skip


def _check_roles(ranker: Ranker, log: ImpressionLog) -> None:
    mine = roles_of(log)
    odd = [role for role in ROLES if (role in mine) != (role in ranker.roles)]
    if odd:
        raise ArgumentError(
            f"the ranker was trained on a log that declares {', '.join(ranker.roles)}; this one declares {', '.join(mine)}: read it with the same roles ({odd[0]}= "
            f"{'is missing' if odd[0] in ranker.roles else 'is too much'})."
        )


def _check_labels(ranker: Ranker, how: Weighing) -> None:
    """What is learnt, replayed and compared has to be one thing: clicks, or clicks over P(examined)."""
    before, now = ranker.evaluation.if_examined, how.examination is not None
    if before != now:
        words = {True: "clicks divided by P(examined)", False: "clicks as they are"}
        raise ArgumentError(
            f"the ranker has learnt {words[before]}, and this update would learn {words[now]}: neither their rows nor their risks can stand side by side. "
            f"{'Pass the curve' if before else 'Leave examination= out'} (weighing=Weighing(...)), or train a new ranker with finetune."
        )


def _with_replay(new: Prepared, ranker: Ranker, share: float, rng: np.random.Generator) -> tuple[Prepared, int]:
    """The new rows and a sample of earlier users' rows, and how many these are; none is of a user who is held out now."""
    if ranker.replay is None or share == 0:
        return new, 0
    units, users = ranker.replay.labels.units, ranker.replay.labels.users
    free = np.ones(len(units), dtype=bool) if users is None else ~np.isin(users, new.valid.unit_hashes)
    order = rng.permutation(int(units.max()) + 1)
    taken = np.cumsum(np.bincount(units, free)[order]) <= share * len(new.train)
    rows = np.flatnonzero(np.isin(units, order[taken]) & free)
    if not len(rows):
        return new, 0
    feed: Feed = joined(new.train_feed, part_of(ranker.replay.feed, rows))
    labels: Labels = new.labels.joined(ranker.replay.labels.take(rows))
    return replace(new, train_feed=feed, labels=labels), len(rows)


def _value_difference(new_f: Any, old_f: Any, held: Labels) -> Estimate:
    """Off-policy value of one choice less that of another on the same rows, clicks per impression shown."""

    def value(f: Any) -> Ratio:
        pi = chosen(f, held)
        return Ratio.of(lambda q: (pi * q.psi1, pi), held)

    return value(new_f).less(value(old_f)).estimate(held)


def _effects(kept: Ranker, rivals: tuple[Ranker, Ranker], new: Prepared, plan: Plan | None, seed: int) -> tuple[Estimate | None, Estimate | None, str]:
    """Effect of the treatment among held-out users whom no round has trained on, by the encoder kept; by the new one less by the old one; what is missing, in words."""
    from causalrec.estimate import estimate
    from causalrec.identify import identify
    from causalrec.represent import embed

    old, trained = rivals

    def none(why: str) -> tuple[None, None, str]:
        return None, None, f" The effect of showing is missing: {why.rstrip('.')}."

    if not new.held.control_seen:
        return none("what happens when an item is not shown was not seen")
    if not kept.adapter.mergeable:
        return none(f"{kept.adapter.name} tuning leaves no encoder to adjust with")
    fresh = new.valid.take(~new.valid.rows_of(np.union1d(old.seen_units, new.train.unit_hashes)))
    users = fresh.n_units if len(fresh) else 0
    if users < LEAST_USERS:
        return none(f"{users} held-out users were in no round's training, must be >= {LEAST_USERS}")

    def by(one: Ranker) -> Estimate:
        embedded = embed(fresh, one.encoder)
        return estimate(embedded, plan or identify(embedded), random_state=seed).analysis.effect

    try:
        if not kept.adapter.tunes:
            return by(kept), None, ""
        before, after = by(old), by(trained)
    except CausalRecError as error:
        return none(str(error))
    moved = scores.estimate_of(after.value - before.value, after.influence - before.influence, fresh.units, fresh.items)
    return (after if kept is trained else before), moved, ""


def _reason(promoted: bool, risk: Estimate, bar: float, risk_of: str) -> str:
    size = f"its held-out risk is {abs(risk.value):.5f} {UNITS[risk_of]} {'below' if risk.value < 0 else 'above'} that of the last round (standard error {risk.std_error:.5f})"
    if promoted:
        return f"New weights: {size}."
    return f"The old weights stay: {size}, and must be below it by more than {bar:g} standard error."
