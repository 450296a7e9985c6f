# SPDX-License-Identifier: GPL-2.0-or-later
"""QMP: QEMU's own asynchronous client, used from synchronous code.

The client runs in an event loop on a thread of its own. Events are kept in a log, one JSON object
a line, from the moment of the connection.
"""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from qemu.qmp import EventListener, QMPClient, QMPError

from harness.errors import MachineError
from harness.timeouts import Deadline

T = TypeVar("T")
MOST_EVENTS_LOGGED = 10_000


class Qmp:
    """One connection to one QEMU, over one end of a socket pair."""

    def __init__(self, end: socket.socket, log_path: Path, *, timeout_s: float) -> None:
        """Connect and negotiate. Raises MachineError when QEMU does not answer in time."""
        self._log_path = log_path
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="qmp", daemon=True)
        self._thread.start()
        self._client = QMPClient("tdharness")
        self._logged = 0
        self._follower: asyncio.Task[None] | None = None
        try:
            self._call(self._open(end), timeout_s, "connect")
        except BaseException:
            self.close()
            raise

    async def _open(self, end: socket.socket) -> None:
        listener = EventListener()
        self._client.register_listener(listener)
        await self._client.connect(end)
        self._follower = asyncio.create_task(self._follow(listener))

    async def _follow(self, listener: EventListener) -> None:
        async for event in listener:
            if self._logged < MOST_EVENTS_LOGGED:
                self._logged += 1
                with self._log_path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(dict(event)) + "\n")

    def _call(self, work: Coroutine[Any, Any, T], timeout_s: float, what: str) -> T:
        deadline = Deadline(timeout_s)
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout_s)
        except TimeoutError as error:
            future.cancel()
            raise MachineError(
                f"QEMU did not answer QMP {what} within {deadline.elapsed_s():.1f} s"
            ) from error
        except (QMPError, OSError, EOFError) as error:
            raise MachineError(
                f"QMP {what} failed after {deadline.elapsed_s():.1f} s: {error}"
            ) from error

    def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, *, timeout_s: float = 5.0
    ) -> Any:
        """The command's return value. Raises MachineError when it fails or QEMU is gone."""
        return self._call(self._client.execute(command, arguments), timeout_s, command)

    def human(self, command: str, *, timeout_s: float = 5.0) -> str:
        """Output of a command of QEMU's human monitor, which has some that QMP lacks."""
        return str(
            self.execute("human-monitor-command", {"command-line": command}, timeout_s=timeout_s)
        )

    def close(self) -> None:
        """End the connection and its thread; safe to call twice, or when QEMU is gone."""
        if self._loop.is_closed():
            return
        with contextlib.suppress(MachineError):
            self._call(self._shut(), 2.0, "disconnect")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(2.0)
        if not self._thread.is_alive():
            self._loop.close()

    async def _shut(self) -> None:
        with contextlib.suppress(QMPError, OSError, EOFError):
            await self._client.disconnect()
        if self._follower:
            self._follower.cancel()
