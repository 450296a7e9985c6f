# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a host is still there: one that crashed, rebooted or hung is found out within 60 s."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from harness.errors import HarnessError
from harness.hostmce.told import HostState
from harness.remote import Remote
from harness.text import printable

FOUND_OUT_S = 60.0
EVERY_S = 5.0
ANSWER_TIMEOUT_S = 10.0
# The last question may be asked just before, and not be answered.
MOST_SILENCE_S = FOUND_OUT_S - EVERY_S - ANSWER_TIMEOUT_S - 5.0
_END_TIMEOUT_S = ANSWER_TIMEOUT_S + 5.0
_BOOT_ID = ["cat", "/proc/sys/kernel/random/boot_id"]


@dataclass(frozen=True, slots=True)
class Down:
    """That a host went down, and how that was found out: one sentence."""

    state: HostState
    how: str


def ask_boot_id(remote: Remote, timeout_s: float = ANSWER_TIMEOUT_S) -> str:
    """The host's boot id. Raises HarnessError."""
    answer = remote.run(_BOOT_ID, timeout_s=timeout_s)
    boot_id = answer.stdout.decode("ascii", "replace").strip()
    if answer.exit_code or not boot_id:
        raise HarnessError("the host does not say its boot id: it has no /proc, or is going down")
    return printable(boot_id, 64)


class Pulse:
    """What to make of answers and silences; the times are of one clock of the harness's."""

    def __init__(self, boot_id: str, now_s: float) -> None:
        self._boot_id = boot_id
        self._heard_s = now_s
        # how many there were
        self.answers = 0

    def answered(self, boot_id: str, now_s: float) -> Down | None:
        """The host answered with this boot id."""
        self._heard_s = now_s
        self.answers += 1
        if boot_id == self._boot_id:
            return None
        return Down(
            HostState.REBOOTED, f"it rebooted (boot id {self._boot_id[:8]} became {boot_id[:8]})"
        )

    def silent(self, cause: str, now_s: float) -> Down | None:
        """The host did not answer."""
        silence_s = now_s - self._heard_s
        if silence_s < MOST_SILENCE_S:
            return None
        return Down(
            HostState.UNREACHABLE, f"it gave no answer for {silence_s:.0f} s ({printable(cause)})"
        )


def ask(remote: Remote, pulse: Pulse, clock: Callable[[], float] = time.monotonic) -> Down | None:
    """Ask once, and what to make of it."""
    try:
        boot_id = ask_boot_id(remote)
    except HarnessError as error:
        return pulse.silent(error.message, clock())
    return pulse.answered(boot_id, clock())


class Watch:
    """Asks in a thread of its own from now on; `on_down` is called there, at most once."""

    def __init__(
        self,
        remote: Remote,
        boot_id: str,
        on_down: Callable[[Down], None] = lambda _: None,
        *,
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.down: Down | None = None
        self._over = threading.Event()
        self._remote, self._on_down = remote, on_down
        self._every_s, self._clock = every_s, clock
        self._pulse = Pulse(boot_id, clock())
        self._thread = threading.Thread(target=self._follow, name="host watch", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while not self._over.wait(self._every_s):
            self.down = ask(self._remote, self._pulse, self._clock)
            if self.down:
                self._on_down(self.down)
                return

    def close(self) -> Down | None:
        """End the thread; returns what it found out."""
        self._over.set()
        self._thread.join(_END_TIMEOUT_S)
        return self.down
