# SPDX-License-Identifier: GPL-2.0-or-later
"""The QMP events of one machine: kept in a file, one JSON object a line, however they came."""

import contextlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path

from harness.text import printable

MOST_EVENTS_LOGGED = 10_000


class EventLog:
    """The log, and what its events say of the machine's end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._logged = 0
        self._reason: str | None = None
        self._reason_known = threading.Event()

    def note(self, event: Mapping[str, object]) -> None:
        """Keep an event in QMP's form: {"event": NAME, "data": {...}, "timestamp": {...}}."""
        data = event.get("data")
        if event.get("event") == "SHUTDOWN" and isinstance(data, Mapping):
            self._reason = printable(str(data.get("reason")), 40)
            self._reason_known.set()
        if self._logged < MOST_EVENTS_LOGGED:
            self._logged += 1
            # A full disk costs the log, not the connection.
            with contextlib.suppress(OSError), self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(dict(event)) + "\n")

    def shutdown_reason(self, timeout_s: float) -> str | None:
        """Why QEMU ends or ended, in QMP's words: "guest-panic", "host-qmp-quit".

        The event may still be on its way when QEMU has ended; None when it does not come in time.
        """
        self._reason_known.wait(timeout_s)
        return self._reason
