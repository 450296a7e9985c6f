# SPDX-License-Identifier: GPL-2.0-or-later
"""One line that says what is being done: moving on a terminal, a line a step elsewhere."""

import contextlib
import sys
import time
from collections.abc import Iterator
from types import TracebackType

from rich.console import Console
from rich.status import Status

from harness.text import harmless

# The line that moves on the terminal now, if one does.
_moving: list[Status] = []


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Take the moving line away for a while: a terminal can show one thing that moves."""
    for status in _moving:
        status.stop()
    try:
        yield
    finally:
        for status in _moving:
            status.start()


class Progress:
    """A context in which `say` tells people what happens, on standard error."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr, highlight=False, markup=False)
        self._status: Status | None = None
        self._start_s = time.monotonic()

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._status = self._console.status("")
            self._status.start()
            _moving.append(self._status)
        return self

    def say(self, words: str) -> None:
        """What is being done now."""
        words, elapsed_s = harmless(words), time.monotonic() - self._start_s
        if self._status:
            self._status.update(f"{elapsed_s:4.0f} s  {words}")
        else:
            print(f"{elapsed_s:6.1f} s  {words}", file=sys.stderr, flush=True)

    def complain(self, error: Exception) -> None:
        """What went wrong, in lines that stay."""
        with paused():
            print(f"tdharness: {harmless(str(error))}", file=sys.stderr, flush=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._status:
            _moving.remove(self._status)
            self._status.stop()
