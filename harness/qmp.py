# SPDX-License-Identifier: GPL-2.0-or-later
"""QMP: QEMU's own asynchronous client, used from synchronous code.

The client runs in an event loop on a thread of its own. Events are kept in a log, one JSON object
a line, from the moment of the connection.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from qemu.qmp import EventListener, QMPClient, QMPError

from harness.errors import MachineError
from harness.qmplog import EventLog
from harness.text import printable
from harness.timeouts import Deadline

T = TypeVar("T")
_CLOSE_TIMEOUT_S = 2.0


class Qmp:
    """One connection to one QEMU, over one end of a socket pair."""

    def __init__(self, end: socket.socket, log_path: Path, *, timeout_s: float) -> None:
        """Connect and negotiate; `end` is closed with the connection.

        Raises MachineError when QEMU does not answer in time, or ends.
        """
        self._end = end
        self._log = EventLog(log_path)
        self._client = QMPClient("tdharness")
        self._follower: asyncio.Task[None] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="qmp", daemon=True)
        self._thread.start()
        try:
            self._call(self._open(), timeout_s, "connection")
        except BaseException:
            self.close()
            raise

    async def _open(self) -> None:
        listener = EventListener()
        self._client.register_listener(listener)
        await self._client.connect(self._end)
        self._follower = asyncio.create_task(self._follow(listener))

    async def _follow(self, listener: EventListener) -> None:
        async for event in listener:
            self._log.note(event)

    def _call(self, work: Coroutine[Any, Any, T], timeout_s: float, what: str) -> T:
        if self._loop.is_closed():
            work.close()
            raise MachineError(f"no QMP {what}: the connection is closed")
        deadline = Deadline(timeout_s)
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout_s)
        except TimeoutError as error:
            future.cancel()
            raise MachineError(
                f"QEMU gave no answer to QMP {what} within {deadline.elapsed_s():.1f} s"
            ) from error
        except (QMPError, OSError, EOFError, AssertionError) as error:
            # AssertionError: the client finds a QEMU that dies just now impossible.
            cause = printable(str(error)) or "the connection was lost"
            raise MachineError(
                f"QMP {what} failed after {deadline.elapsed_s():.1f} s: {cause}"
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

    def shutdown_reason(self, timeout_s: float) -> str | None:
        """As EventLog.shutdown_reason()."""
        return self._log.shutdown_reason(timeout_s)

    def close(self) -> None:
        """End the connection and its thread; safe to call twice, or when QEMU is gone."""
        if self._loop.is_closed():
            return
        with contextlib.suppress(MachineError):
            self._call(self._shut(), _CLOSE_TIMEOUT_S, "end of the connection")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_TIMEOUT_S)
        if not self._thread.is_alive():
            self._loop.close()
        self._end.close()

    async def _shut(self) -> None:
        # What ended the connection is raised anew here, protocol errors of any kind.
        with contextlib.suppress(Exception):
            await self._client.disconnect()
        # The last events may still be queued for the follower.
        await asyncio.sleep(0)
        if self._follower:
            self._follower.cancel()
            await asyncio.wait([self._follower])
