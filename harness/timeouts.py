# SPDX-License-Identifier: GPL-2.0-or-later
"""Deadlines, scaled by the speed of the backend."""

import time
from collections.abc import Callable


class Deadline:
    """A moment on the monotonic clock; `Deadline(5)` is five seconds from now."""

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start_s = clock()
        self.timeout_s = timeout_s

    def elapsed_s(self) -> float:
        """Seconds since the deadline was set."""
        return self._clock() - self._start_s

    def left_s(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self.timeout_s - self.elapsed_s())

    def expired(self) -> bool:
        """True when no time is left."""
        return self.left_s() <= 0.0
