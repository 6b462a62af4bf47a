"""A ranker trained without the old recommender's bias: it scores, it has an encoder, and it says how good it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from causalrec._checks import check_scalar
from causalrec._display import Displayable
from causalrec._values import label_of
from causalrec.errors import ArgumentError, LogError
from causalrec.finetune import processes
from causalrec.finetune.adapters import Adapter
from causalrec.finetune.choice import ObjectiveChoice
from causalrec.finetune.evaluation import Evaluation
from causalrec.finetune.feed import Feed, check_texts, feed_of, feed_of_log, labels_by_words
from causalrec.finetune.fitting import Trained, unit_vectors
from causalrec.finetune.folder import as_folder
from causalrec.finetune.guard_rails import GuardRails
from causalrec.finetune.labels import Labels
from causalrec.finetune.objectives import Objective
from causalrec.finetune.options import Head, Training
from causalrec.finetune.risk import UNITS
from causalrec.log import ImpressionLog
from causalrec.represent.text import TextEmbedder

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Replay:
    """Rows that a ranker was trained on."""

    feed: Feed
    labels: Labels


@dataclass(frozen=True, eq=False)
class Ranker(Displayable):
    """Scores of (history, item) pairs: log odds of a click if shown (or what the objective aims at).

    Attributes
    ----------
    objective, adapter, head, training : what it was trained with
    evaluation : Evaluation
        On users whose clicks it has not seen.
    guard_rails : GuardRails
        Of the weights that it was trained with.
    history : tuple of dict
        One record an epoch.
    choice : ObjectiveChoice or None
        Where several objectives competed.
    folder : Path
        Where its checkpoints and its encoder are; of a ranker that was loaded, or trained without ``output=``, a temporary one that is gone when
        Python ends.
    base : TextEmbedder
        The encoder that it started from.
    known_items : mapping of label to number
        The items that have an effect, by id and (after a mark, ``feed.BY_WORDS``) by words that one item alone has.
    histories : mapping of user label to texts
        The last history of each user of the log, by which ``score`` knows users.
    seen_units : (m,) uint64
        Hashes of the users whose clicks it has seen.
    trained : Trained
    epochs, weighing : what was asked for
    seed : int
        From which every draw followed.
    replay : Replay or None
        Rows that ``update`` mixes with those of a new log.
    rounds : tuple of Round
        What each ``update`` found.
    train, held_out : ImpressionLog or None
        The two parts of the log that it was trained and judged on; None after ``load``.
    held_labels : Labels or None
        Of the held-out rows.
    held_units : (h,) uint64
        Hashes of the users who were held out, which later rounds hold out again.
    roles : tuple of str
        Which of unit, item, history and text the log declared.
    """

    objective: Objective
    adapter: Adapter
    head: Head
    training: Training
    evaluation: Evaluation = field(repr=False)
    guard_rails: GuardRails = field(repr=False)
    choice: ObjectiveChoice | None
    folder: Path
    base: TextEmbedder = field(repr=False)
    known_items: dict[str, int] = field(repr=False)
    histories: dict[str, tuple[str, ...]] = field(repr=False)
    has_history: bool
    seen_units: npt.NDArray[np.uint64] = field(repr=False)
    trained: Trained = field(repr=False)
    epochs: int = 3
    seed: int = 0
    weighing: Any = field(default=None, repr=False)
    replay: Replay | None = field(default=None, repr=False)
    rounds: tuple[Any, ...] = ()
    train: ImpressionLog | None = field(default=None, repr=False)
    held_out: ImpressionLog | None = field(default=None, repr=False)
    held_labels: Labels | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()
    held_units: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, dtype=np.uint64), repr=False)
    roles: tuple[str, ...] = ()

    @property
    def history(self) -> tuple[dict[str, float], ...]:
        """One record an epoch: training loss, held-out risks, guard rails."""
        return self.trained.history

    @cached_property
    def encoder(self) -> TextEmbedder:
        """The tuned encoder, as a ``TextEmbedder`` that remembers whose clicks it saw; the pretrained one if it was frozen.

        It is written to ``folder / "encoder"``; ``cr.TextEmbedder`` of that folder, or of a copy of it, is the same.

        Raises
        ------
        TrainingError
            A prefix or a prompt cannot be folded into an encoder's weights.
        """
        if not self.adapter.tunes:
            return self.base
        from causalrec.finetune.handover import write_encoder

        return write_encoder(self, self.folder / ("encoder" if processes.is_first() else f"encoder-{processes.number()}"))

    def score(self, users_or_histories: Sequence[Any] | None, items: Sequence[str]) -> F64:
        """(U, I) scores of every item for every user.

        Parameters
        ----------
        users_or_histories : sequence of U user labels of the log, or histories (lists of texts); None is one unknown user
        items : sequence of I item texts
            With item effects, a text that one item of the log alone had brings that item's.

        Raises
        ------
        ArgumentError
            A user is not known, or a text is none.
        """
        histories = self._histories(users_or_histories)
        texts = check_texts(items, "items")
        if not texts:
            return np.empty((len(histories), 0))
        pairs = [t for _ in histories for t in texts]
        codes = np.repeat(np.arange(len(histories)), len(texts))
        labels = labels_by_words(pairs) if self.known_items else None
        feed = feed_of(pairs, (histories, codes) if self.has_history else None, self.head.kind, labels, self.known_items)
        return self._score(feed).reshape(len(histories), len(texts))

    def rank(self, user_or_history: Any, items: Sequence[str], k: int = 10) -> pd.DataFrame:
        """The k best items for one user: item, score (log odds), place."""
        k = check_scalar(k, "k", ge=1, integer=True)
        texts = check_texts(items, "items")
        f = self.score(None if user_or_history is None else [user_or_history], texts)[0]
        best = np.argsort(-f, kind="stable")[:k]
        return pd.DataFrame({"item": [texts[i] for i in best], "score": f[best], "place": np.arange(1, len(best) + 1)})

    def score_log(self, log: ImpressionLog) -> F64:
        """(n,) scores of the rows of a log with the same roles."""
        if bool(log.roles.history) != self.has_history:
            raise LogError(
                f"the ranker was trained {'with' if self.has_history else 'without'} a history, the log declares {'one' if log.roles.history else 'none'}."
            )
        return self._score(feed_of_log(log, self.head.kind, self.known_items))

    def _score(self, feed: Feed) -> F64:
        from causalrec.finetune import towers

        return towers.score_feed(self.trained.network, feed, self._vectors(feed.texts))

    def _vectors(self, texts: Sequence[str]) -> F32:
        return unit_vectors(self.trained, texts, self.base, self.adapter, self.training.max_length)

    def _histories(self, given: Sequence[Any] | None) -> list[tuple[str, ...]]:
        if given is not None and (isinstance(given, (str, bytes)) or not hasattr(given, "__len__")):
            raise ArgumentError(f"users_or_histories is {given!r} ({type(given).__name__}); must be a list of users, or of histories: for one user [{given!r}].")
        if given is None or not self.has_history:
            return [()] * (1 if given is None else len(given))
        out = []
        for g in given:
            if isinstance(g, (list, tuple, np.ndarray)):
                out.append(tuple(check_texts(g, "a history")))
            elif label_of(g) in self.histories:
                out.append(self.histories[label_of(g)])
            else:
                raise ArgumentError(
                    f"user {g!r} was not in the log; give a history instead, a list of texts ([] for none)."
                )
        return out

    def update(
        self,
        log: ImpressionLog,
        *,
        epochs: int = 1,
        replay: float = 0.5,
        standard_errors: float = 1.0,
        weighing: Any = None,
        output: str | Path | None = None,
        random_state: int | np.random.Generator | None = None,
    ) -> Ranker:
        """Go on learning from a new log, and keep what was learnt if held-out users of the new log are the better for it.

        Parameters
        ----------
        log : ImpressionLog
            With the same roles. Users who were held out before are held out again, beside a share of those who are new; none of them is replayed.
        epochs : int
        replay : float
            Rows of earlier logs that are mixed in, as a share of the new log's.
        standard_errors : float
            By how many of the paired difference the new weights must be better to be promoted.
        weighing : Weighing or None
            How rows are weighed; None is as before.
        output : path or None
        random_state : int, Generator or None

        Returns
        -------
        Ranker
            The promoted one, or this one; ``rounds`` says which, and why.

        Raises
        ------
        OverlapError
            The new log's propensities support nothing; the ranker stays as it is.
        """
        from causalrec.finetune.rounds import update

        return update(
            self, log, epochs=epochs, replay=replay, standard_errors=standard_errors, weighing=weighing, output=output, random_state=random_state
        )

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the ranker to a folder of its own: weights, options, evaluation, rows to replay; no pickles.

        Of several processes that trained together the first writes.
        """
        from causalrec.finetune.stored import save_ranker

        path = as_folder(folder)
        return save_ranker(self, path, overwrite) if processes.is_first() else path

    @staticmethod
    def load(folder: str | Path, *, device: str | None = None) -> Ranker:
        """Read what ``save`` wrote. The pretrained encoder must be where it was, with the same weights.

        Parameters
        ----------
        folder : path
        device : str or None
            Where it scores and goes on learning, wherever it was trained; None takes the fastest there is.

        Raises
        ------
        SavedError
            Nothing was saved there, it is damaged or of another version, or the encoder's weights are others now.
        """
        from causalrec.finetune.stored import load_ranker

        return load_ranker(as_folder(folder), device)

    def _title(self) -> str:
        t = self.trained
        of = f" of {t.n_weights:,}" if self.adapter.tunes else ""
        return (
            f"Ranker: {self.head.kind}, {self.adapter.name}, {self.objective.name}; {t.n_trained:,}{of} weights learnt ({t.memory / 2**20:,.1f} MiB with gradients and moments), "
            f"{len(self.history)} epochs in {self.trained.seconds:.0f} s"
        )

    def _rows(self) -> list[dict[str, Any]]:
        wanted = ("epoch", "loss", "risk", "risk_naive", "risk_snips", "policy_share")
        return [{k: r.get(k) for k in wanted if k in self.history[0]} for r in self.history]

    def _notes(self) -> list[str]:
        e = self.evaluation
        risk = "held-out, " + ("doubly robust, nats per impression" if e.risk_of == "clicks" else e.risk_name("DR"))
        if e.random_judged:
            risk = f"of randomly drawn impressions, {UNITS[e.risk_of]}"
        return [
            f"loss: of the objective on training rows; risk: {risk}.",
            *self.guard_rails.warnings,
            *([] if self.choice is None else [self.choice._title() + "."]),
            self.evaluation._title() + ".",
            *(one._title() for one in self.rounds[-1:]),
            *self.notes,
        ]
