"""A log made ready: split by user, rows weighed, texts looked up; then trained on with each objective, and judged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from causalrec._values import label_of
from causalrec.errors import ArgumentError, EstimationError
from causalrec.finetune import processes
from causalrec.finetune.adapters import Adapter
from causalrec.finetune.choice import Auto, ObjectiveChoice, choose
from causalrec.finetune.evaluation import Evaluation, evaluate
from causalrec.finetune.feed import Feed, effects_of, feed_of_log, numbered
from causalrec.finetune.fitting import (
    Judged,
    Task,
    Trained,
    need_loggers,
    need_trainer,
    run,
    unit_vectors,
)
from causalrec.finetune.folder import passing_folder
from causalrec.finetune.guard_rails import GuardRails, check_held_out, check_support, guard_rails
from causalrec.finetune.labelling import labels_of, unseen_control
from causalrec.finetune.labels import Labels
from causalrec.finetune.objectives import Objective
from causalrec.finetune.options import Head, Training
from causalrec.finetune.parting import Met, parted, roles_of
from causalrec.finetune.random_rows import check_random, random_part
from causalrec.finetune.ranker import Ranker, Replay
from causalrec.finetune.ranking import Ranking, ranking_of
from causalrec.finetune.risk import (
    held_out_loss,
    judges_clicks,
    policy_share,
    risk_difference,
    risks,
    row_loss,
)
from causalrec.finetune.run_folder import check_runs
from causalrec.finetune.weighing import RandomData, Weighing
from causalrec.log import ImpressionLog
from causalrec.nuisance import Clip
from causalrec.represent.embed import embed, refuse_seen
from causalrec.represent.text import TextEmbedder
from causalrec.scores import Estimate, clustered_ratio

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Job:
    """What was asked for, defaults filled in."""

    log: ImpressionLog
    objective: Objective | Auto
    adapter: Adapter
    head: Head
    epochs: int
    training: Training
    weighing: Weighing
    random_data: RandomData
    encoder: TextEmbedder
    seed: int

    def prepared(self, known: dict[str, int] | None = None, met: Met | None = None) -> Prepared:
        """Split by user, weigh the rows, look the texts up; `known` are the items with an effect, those of the log if None; `met` the users of earlier rounds."""
        refuse_seen(self.log, self.encoder)
        self._check()
        log = self.log if self.log.blocks else embed(self.log, self.encoder)
        rng = np.random.default_rng(self.seed)
        train, valid, unseen = parted(log, self.training.validation, rng, met)
        check_held_out(valid)
        how = self.weighing
        labels, held = labels_of(
            train, valid, plan=how.plan, recipe=how.nuisances, examination=how.examination, clip=how.clip, policy_aware=how.policy_aware, rng=rng
        )
        if known is None:
            known = numbered(train) if self.head.item_effects else {}
        rails = {one.name: _supported(one, labels, unseen_control(train, valid)) for one in self.objectives}
        feeds = [feed_of_log(part, self.head.kind, known) for part in (train, valid)]
        return Prepared(self, train, valid, labels, held, known, feeds[0], feeds[1], rails, unseen)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What competes."""
        return self.objective.all if isinstance(self.objective, Auto) else (self.objective,)

    @property
    def pairwise(self) -> bool:
        """Whether rows of a user are compared."""
        return self.training.loss == "pairwise"

    def _check(self) -> None:
        """What is known to fail before anything is fitted."""
        need_trainer()
        need_loggers(self.training.report_to)
        for one in self.objectives:
            if one.needs_control and self.weighing.examination is not None:
                raise ArgumentError(
                    f"{one.name} compares rows shown with rows not shown, but only the former can be divided by P(examined): leave examination= out."
                )
            if self.pairwise and not one.pairs:
                raise ArgumentError(f"{one.name} has no pairwise form; take Training(loss='pointwise').")
            if one.aims_at != "clicks" and self.random_data.validation is not None:
                raise ArgumentError(
                    f"RandomData(validation=...) stops the training by clicks if shown, which the score of {one.name} is not the log odds of: leave validation= out, and the "
                    "held-out users stop it."
                )
        check_random(self.log, self.random_data)


@dataclass(frozen=True, eq=False)
class Prepared:
    """Rows, weights and texts, ready to train."""

    job: Job
    train: ImpressionLog
    valid: ImpressionLog
    labels: Labels
    held: Labels
    known: dict[str, int]
    train_feed: Feed
    valid_feed: Feed
    rails: dict[str, GuardRails]
    unseen: bool

    def ranker(self, output: str | Path | None, start: dict[str, Any] | None = None) -> Ranker:
        """Train with each objective, and keep one."""
        job = self.job
        folder = passing_folder() if output is None else Path(output)
        objectives = job.objectives
        many = len(objectives) > 1
        check_runs(folder, {one.name: self._identity(one, start) for one in objectives})
        runs: dict[str, tuple[Objective, Trained]] = {}
        for one in objectives:
            here = folder / "runs" / one.name.lower() if many else folder / "run"
            runs[one.name] = one, self._train(one, here, start)
        choice = self._choice(runs) if many else None
        kept, trained = runs[choice.chosen if choice else objectives[0].name]
        seen = self.train.unit_hashes
        if job.encoder.seen_units is not None:
            seen = np.union1d(seen, job.encoder.seen_units)
        return Ranker(
            kept, job.adapter, job.head, job.training, self._evaluate(kept, trained, self._notes(many)), self.rails[kept.name], choice, folder, job.encoder,
            self.known, _last_histories(job.log), bool(job.log.roles.history), seen, trained, job.epochs,
            job.seed, job.weighing, Replay(self.train_feed, self.labels), (), self.train, self.valid, self.held,
            held_units=self.valid.unit_hashes, roles=roles_of(job.log),
        )  # fmt: skip

    def _notes(self, several: bool) -> tuple[str, ...]:
        """Who stopped the training, and chose among several objectives; and the doubts."""
        random = self.job.random_data.validation is not None
        who = "Randomly drawn impressions" if random else "The held-out users are those who"
        return f"{who} chose {'the objective and ' if several else ''}when to stop.", *self.doubts

    @property
    def doubts(self) -> tuple[str, ...]:
        """What speaks against the curve that clicks were divided by."""
        alarms = getattr(self.job.weighing.examination, "alarms", ())
        return tuple(f"P(examined | position) is in doubt: {alarm.rstrip('.')}." for alarm in alarms)

    def _train(self, objective: Objective, folder: Path, start: dict[str, Any] | None) -> Trained:
        job = self.job
        task = Task(
            self.train_feed, self.valid_feed, self.labels, job.encoder, effects_of(self.known), self._judge(objective), start
        )
        return run(
            task, objective, job.adapter, job.head, job.training, job.epochs, folder, job.seed, self._identity(objective, start)
        )

    def _identity(self, objective: Objective, start: dict[str, Any] | None) -> dict[str, Any]:
        """By what a folder knows its run again."""
        job = self.job
        quiet = {f.name: getattr(job.training, f.name) for f in fields(Training) if f.name not in ("progress", "report_to", "device")}
        return {
            "log": self.train.fingerprint, "objective": repr(objective), "adapter": repr(job.adapter), "head": repr(job.head),
            "training": repr(quiet), "epochs": job.epochs, "encoder": job.encoder.fingerprint, "seed": job.seed,
            "processes": processes.count(), "rows": self._digest(start),
        }  # fmt: skip

    def _digest(self, start: dict[str, Any] | None) -> str:
        """Of all else that the weights depend on: rows, histories, how rows are weighed, what stops the training, where it starts."""
        how, digest = self.job.weighing, hashlib.sha256()
        nodes = None if how.plan is None else (how.plan.propensity_nodes, how.plan.outcome_nodes)
        made = sorted((b.name, b.made_by) for b in self.train.blocks.values())
        digest.update(repr((how.clip, how.policy_aware, how.nuisances, nodes, made, sorted(self.known))).encode())
        for part, feed in ((self.labels, self.train_feed), (self.held, self.valid_feed)):
            arrays = [part.t, part.y, part.units, part.half, feed.item, feed.starts, feed.members, feed.item_effect]
            arrays += [a for a in (feed.history, part.e if part.logged else None, part.examined) if a is not None]
            for a in arrays:
                digest.update(np.ascontiguousarray(a).tobytes())
            digest.update("\x1f".join(feed.texts).encode("utf-8", "replace"))
        random = random_part(self.job.log, self.job.head.kind, self.known, self.job.random_data.validation)
        if random is not None:
            digest.update("\x1f".join(random[0].texts).encode("utf-8", "replace"))
            digest.update(random[0].item.tobytes() + random[1].tobytes() + np.asarray(random[2]).tobytes())
        for name, value in sorted((start or {}).items()):
            digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def _judge(self, objective: Objective) -> Callable[[F64, Callable[[Feed], F64]], Judged]:
        held, random = self.held, random_part(self.job.log, self.job.head.kind, self.known, self.job.random_data.validation)
        pairwise, rails = self.job.pairwise, self.rails[objective.name]
        fixed = {
            "eval_ess_share": rails.ess / rails.n_shown, "eval_largest_weight": rails.largest_weight, "eval_share_clipped": rails.share_clipped,
        }  # fmt: skip

        def judge(f: F64, score: Callable[[Feed], F64]) -> Judged:
            if random is None:
                loss, units = held_out_loss(f, held, objective.aims_at, pairwise), held.units
            else:
                loss, units = row_loss(score(random[0]), random[1], random[2], pairwise), random[2]
            by = {f"eval_risk_{name.lower()}": e.value for name, e in risks(f, held).items()} if judges_clicks(objective.aims_at, pairwise) else {}
            return {"eval_risk": float(loss.mean()), **by, "eval_policy_share": policy_share(f, held), **fixed}, loss, units

        return judge

    def _choice(self, runs: dict[str, tuple[Objective, Trained]]) -> ObjectiveChoice:
        auto, naive = self.job.objective, runs["naive"][1]
        bar = auto.standard_errors if isinstance(auto, Auto) else 1.0
        random = random_part(self.job.log, self.job.head.kind, self.known, self.job.random_data.validation)
        found: dict[str, Estimate] = {}
        for name, (_, trained) in runs.items():
            if name == "naive":
                continue
            if random is None:
                found[name] = risk_difference(trained.valid_scores, naive.valid_scores, self.held, pairwise=self.job.pairwise)
            else:
                mine, theirs = (row_loss(self._scores(t, random[0]), random[1], random[2], self.job.pairwise) for t in (trained, naive))
                found[name] = clustered_ratio((mine - theirs, np.ones(len(mine))), random[2])
        where = f"{self.valid.n_units:,} held-out users" if random is None else f"{len(random[1]):,} randomly drawn impressions"
        where += ", by pairs of a user's rows" if self.job.pairwise else ""
        return ObjectiveChoice(choose(found, bar), found, bar, where, "pairs" if self.job.pairwise else "clicks")

    def _scores(self, trained: Trained, feed: Feed) -> F64:
        """(n,) scores of any feed by a trained network."""
        from causalrec.finetune import towers

        job = self.job
        return towers.score_feed(trained.network, feed, unit_vectors(trained, feed.texts, job.encoder, job.adapter, job.training.max_length))

    def _evaluate(self, kept: Objective, trained: Trained, notes: tuple[str, ...]) -> Evaluation:
        test = random_part(self.job.log, self.job.head.kind, self.known, self.job.random_data.test)
        mar: Ranking | None = None
        if test is not None:
            mar = ranking_of(self._scores(trained, test[0]), test[1], test[2], self.job.random_data.k, seed=self.job.seed)
        return evaluate(trained.valid_scores, self.held, mar, notes, kept.aims_at, self.job.pairwise, self.unseen, self.job.random_data.validation is not None)


def _supported(objective: Objective, labels: Labels, unseen: str | None) -> GuardRails:
    """The guard rails of the weights that an objective trains with; raises where rows support nothing, or lack what it learns from."""
    if objective.needs_control and unseen is not None:
        raise EstimationError(f"{objective.name} learns from rows that were not shown as well, but {unseen}. Take DR(), which learns from rows shown.")
    clip: Clip | None = getattr(objective, "clip", None)
    mine = labels.under(clip)
    if not objective.needs_propensity:
        return guard_rails(mine)
    return check_support(mine, f"the training log, {objective.name}", "Weighing" if clip is None else type(objective).__name__)


def _last_histories(log: ImpressionLog) -> dict[str, tuple[str, ...]]:
    """The history in each user's last row (by time, where it is declared)."""
    if not (log.roles.history and log.roles.unit):
        return {}
    found, codes = log.histories()
    order = np.arange(len(log))
    if log.roles.time:
        order = np.argsort(log.frame[log.roles.time[-1]].to_numpy(), kind="stable")
    return {label_of(log.unit_labels[i]): found[codes[i]] for i in order}
