"""Which rows a step of the training takes. Needs torch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader, Dataset, Sampler

from causalrec.finetune.processes import batches_of

Ints = npt.NDArray[np.int64]


class RowNumbers(Dataset[int]):
    """0 … n − 1: the collator knows the rows."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> int:
        return i


class WholeUsers(Sampler[int]):
    """Rows in random order of their users, so that a user's rows share a batch and his history is read once.

    The order of epoch k depends on the seed and k only: a run that was cut off goes on in the same order.
    """

    def __init__(self, units: Ints, seed: int) -> None:
        self.units, self.seed, self.epoch = units, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.units)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        place = rng.permutation(int(self.units.max()) + 1)[self.units]
        return iter(np.lexsort((rng.random(len(self.units)), place)).tolist())


class Shares(Sampler[list[int]]):
    """Batches of one process: of each `size` × `processes` rows in order, the process's own run of them.

    The runs are as even as they go between two users, so that a user's rows are compared where one process would compare them; where there are fewer
    users than processes, they are even. No row is left out and none comes twice: the last rows of an epoch are shared out as evenly as they go, joined to the batch before
    where they are fewer than processes. So several processes take the steps that one would with batches as large as theirs together.
    """

    def __init__(self, rows: WholeUsers, size: int, process: int = 0, processes: int = 1) -> None:
        self.rows, self.size, self.process, self.processes = rows, size, process, processes

    def set_epoch(self, epoch: int) -> None:
        """Which epoch comes next."""
        self.rows.set_epoch(epoch)

    def __len__(self) -> int:
        return batches_of(len(self.rows), self.size, self.processes)

    def __iter__(self) -> Iterator[list[int]]:
        order, step, last = np.fromiter(self.rows, dtype=np.int64), self.size * self.processes, len(self) - 1
        for k in range(len(self)):
            together = order[k * step : None if k == last else (k + 1) * step]
            cuts = shared_out(self.rows.units[together], self.processes)
            yield together[cuts[self.process] : cuts[self.process + 1]].tolist()


def shared_out(units: Ints, processes: int) -> list[int]:
    """Where rows, of users in a row, are cut into as many runs as processes: (processes + 1,) places from 0 to their number.

    Each cut is the place between two users that is nearest to an even one and leaves a user to every run.
    """
    n, borders = len(units), np.flatnonzero(np.diff(units)) + 1
    if len(borders) + 1 < processes:
        return [n * p // processes for p in range(processes + 1)]
    cuts, taken = [0], 0
    for p in range(1, processes):
        open_to = borders[taken : len(borders) - (processes - 1 - p)]
        taken += int(np.argmin(np.abs(open_to - n * p / processes)))
        cuts.append(int(borders[taken]))
        taken += 1
    return [*cuts, n]


class Loader(DataLoader[int]):
    """A loader that tells its batches which epoch comes, as ``transformers.Trainer`` tells it."""

    batch_sampler: Shares

    def set_epoch(self, epoch: int) -> None:
        """Which epoch comes next."""
        self.batch_sampler.set_epoch(epoch)
