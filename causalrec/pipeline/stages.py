"""What every run on the command line shares: a file that can be written, progress, warnings, lines for a terminal."""

from __future__ import annotations

import math
import tempfile
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from causalrec.errors import CausalRecWarning, OutputError

WIDTH = 110
Say = Callable[[str], None]


def check_writable(path: Path) -> Path:
    """Return `path` if a file can be written there, else raise ``OutputError``; leaves nothing behind."""
    folder = path.parent
    if path.is_dir():
        raise OutputError(f"output is {str(path)!r}, a folder; name a file in it.")
    if not folder.is_dir():
        raise OutputError(f"output is {str(path)!r}, but there is no folder {str(folder)!r}; make it first.")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
        if path.exists():
            path.open("ab").close()
    except OSError as error:
        raise OutputError(
            f"output is {str(path)!r}, which cannot be written ({error.strerror}); name another file."
        ) from error
    return path


class Clock:
    """A context manager for each stage: says what begins, then how long it took."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self.seconds: list[tuple[str, float]] = []

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time what is inside, under this name."""
        self.say(f"{stage} …")
        start = time.perf_counter()
        yield
        took = time.perf_counter() - start
        self.seconds.append((stage, took))
        self.say(f"    {took:.1f} s")


@contextmanager
def listening(say: Say) -> Iterator[list[str]]:
    """Collect warnings, each once, and say them; those about future versions of others are left out."""
    heard: list[str] = []

    def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
        text = str(message) if issubclass(category, CausalRecWarning) else f"{category.__name__}: {message}"
        if text not in heard:
            heard.append(text)
            say(f"warning: {text}")

    with warnings.catch_warnings():
        for about_others in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", about_others)
        warnings.showwarning = show  # type: ignore[assignment]
        yield heard


def plain(value: Any) -> Any:
    """Dictionaries, lists, str, bool, int, finite float and None only."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def in_lines(lines: Sequence[tuple[str, str]]) -> str:
    """Names and values, one a line, as a terminal shows them."""
    width = max(len(name) for name, _ in lines)
    rows = ((f"{name:<{width}}  ", value) for name, value in lines)
    return "\n".join(
        textwrap.fill(value, WIDTH, initial_indent=name, subsequent_indent=" " * len(name))
        for name, value in rows
    )
