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

    No row is left out and none comes twice: the last rows of an epoch are shared out as evenly as they go, joined to the batch before
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
        order, step, last = list(self.rows), self.size * self.processes, len(self) - 1
        for k in range(len(self)):
            together = order[k * step : None if k == last else (k + 1) * step]
            low, high = (len(together) * p // self.processes for p in (self.process, self.process + 1))
            yield together[low:high]


class Loader(DataLoader[int]):
    """A loader that tells its batches which epoch comes, as ``transformers.Trainer`` tells it."""

    batch_sampler: Shares

    def set_epoch(self, epoch: int) -> None:
        """Which epoch comes next."""
        self.batch_sampler.set_epoch(epoch)
