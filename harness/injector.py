# SPDX-License-Identifier: GPL-2.0-or-later
"""Machine checks for a guest that reads poison: the stub asks for them, only QEMU can raise them.

The stub records the read and holds the vCPU for a moment; this follows the stream and injects the
machine check by the monitor, so that the guest's kernel takes it next to the instruction that read.
"""

import threading
from collections.abc import Callable
from pathlib import Path

from harness.errors import MachineError
from harness.events import HEADER, RECORD, Kind, PoisonAction
from harness.hostlog import STATUS

# RIPV, EIPV and MCIP, and the bank that QEMU itself uses for what a host hands down.
_MCG_STATUS = 0x7
_BANK = 9
_MISC = 0x86
_POLL_S = 0.02
_END_TIMEOUT_S = 10.0


class Injector:
    """Follows one stream in a thread of its own until it is closed."""

    def __init__(self, events: Path, monitor: Callable[[str], str]) -> None:
        """`monitor` runs a command of QEMU's human monitor; it may raise MachineError."""
        self._events = events
        self._monitor = monitor
        self._offset = HEADER.size
        self._over = threading.Event()
        # why a machine check could not be injected, one sentence each
        self.failures: list[str] = []
        self._thread = threading.Thread(target=self._follow, name="injector", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while not self._over.wait(_POLL_S):
            for command in self._commands():
                try:
                    self._monitor(command)
                except MachineError as error:
                    self.failures.append(f"no machine check was injected: {error.message}")

    def _commands(self) -> list[str]:
        """What the records that are new ask for."""
        try:
            with self._events.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return []
        whole = len(data) // RECORD.size * RECORD.size
        self._offset += whole
        return [
            mce_command(vcpu, args[1])
            for _, kind, vcpu, _, _, *args in RECORD.iter_unpack(data[:whole])
            if kind == Kind.POISON_READ and args[2] == PoisonAction.GUEST_MCE
        ]

    def close(self) -> None:
        """End the thread; safe to call twice."""
        self._over.set()
        self._thread.join(_END_TIMEOUT_S)


def mce_command(vcpu: int, gpa: int) -> str:
    """The monitor's command for a read of the line that holds `gpa`."""
    line = gpa // 64 * 64
    return f"mce {vcpu} {_BANK} {STATUS:#x} {_MCG_STATUS:#x} {line:#x} {_MISC:#x}"
