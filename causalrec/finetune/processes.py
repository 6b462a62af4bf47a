"""One run on several processes (``torchrun``): how many there are, who writes, who waits.

Every process reads the log, weighs its rows and judges the ranker for itself, which comes out alike; gradients alone are shared.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from causalrec.errors import ArgumentError


def count() -> int:
    """Processes that train together; 1 where nothing launched several."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def number() -> int:
    """Of this process, from 0."""
    return int(os.environ.get("RANK", "0")) if "LOCAL_RANK" in os.environ else 0


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return number() == 0


def wait() -> None:
    """For all others."""
    if count() > 1:
        import torch.distributed as dist

        dist.barrier()


def check_shared(output: object) -> None:
    """Raise ``ArgumentError`` where processes that train together would each have a temporary folder."""
    if output is None and count() > 1:
        raise ArgumentError(
            f"{count()} processes train together, but each would have checkpoints of its own: name output=, a folder that all of them see."
        )


@contextmanager
def first_goes_first() -> Iterator[None]:
    """The first process does it; then the others, who find it done, or meet the refusal that the first met."""
    if not is_first():
        wait()
    try:
        yield
    finally:
        if is_first():
            wait()


def batches_of(n: int, size: int, processes: int) -> int:
    """Batches of each process in an epoch of n rows."""
    step = size * processes
    whole, rest = divmod(n, step)
    return max(whole + (rest >= processes), 1)
