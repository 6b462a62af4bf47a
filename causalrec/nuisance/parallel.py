"""One thread a core, each with a single-threaded BLAS.

Products of tall, narrow matrices gain little from a multi-threaded BLAS and lose everything when its threads wait for
cores that others hold. Whole regressions on threads of our own keep every core busy, element-wise work included.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

A = TypeVar("A")
B = TypeVar("B")


def workers() -> int:
    """Cores that this process may use, or fewer if OMP_NUM_THREADS says so."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores, int(asked))) if asked.isdigit() else cores


def in_threads(function: Callable[[A], B], items: Iterable[A]) -> list[B]:
    """``[function(item) for item in items]``, several at a time; the results do not depend on how many."""
    listed = list(items)
    count = min(workers(), len(listed))
    with one_blas_thread():
        if count <= 1:
            return [function(item) for item in listed]
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(function, listed))


def one_blas_thread() -> threadpool_limits:
    """A context in which BLAS does not start threads."""
    return threadpool_limits(limits=1, user_api="blas")
