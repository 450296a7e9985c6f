# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that floods its console, hangs in a panic or has fallen silent, seen by its console."""

import time

from harness.console import Console
from harness.errors import GuestError
from harness.machine.arguments import MIB

MOST_CONSOLE_BYTES = 16 * MIB
# A panic that is too early to restart the machine: these are the kernel's last words.
_END_OF_PANIC = "---[ end Kernel panic"
_PANIC_SILENCE_S = 3.0


class Watchdog:
    """Looks at the console's log while someone waits for the guest."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._grown_s = time.monotonic()
        self._size = 0

    def restart(self) -> None:
        """The guest starts now."""
        self._grown_s, self._size = time.monotonic(), 0

    def look(self, most_silence_s: float | None) -> None:
        """Raises GuestError; a silence of `most_silence_s` is too long, None: no one is."""
        log = self._console.log_path
        size = self._console.size()
        if size > MOST_CONSOLE_BYTES:
            raise GuestError(
                f"the guest flooded its console: {size // MIB} MiB were printed",
                hint="what it repeats is in the log",
                log=log,
            )
        if size != self._size:
            self._grown_s, self._size = time.monotonic(), size
            return
        silent_s = time.monotonic() - self._grown_s
        if silent_s > _PANIC_SILENCE_S and _END_OF_PANIC in self._console.tail(1):
            raise GuestError("the guest hangs in a panic", log=log)
        if most_silence_s is not None and silent_s > most_silence_s:
            raise GuestError(
                f"the guest hangs: its console has been silent for {silent_s:.0f} s",
                hint="what its CPUs did is in the run's file diagnosis",
                log=log,
            )
