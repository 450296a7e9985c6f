# SPDX-License-Identifier: GPL-2.0-or-later
"""A connection to libvirtd that outlives a restart of the daemon, and its one event loop."""

import contextlib
import functools
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from harness.errors import HostError, MachineError
from harness.text import printable
from harness.timeouts import Deadline

T = TypeVar("T")
_RECONNECT_TIMEOUT_S = 15.0
_RECONNECT_PAUSE_S = 0.25
_ALIVE_EVERY_S, _ALIVE_TRIES = 5, 3


def library() -> Any:
    """libvirt-python. Raises HostError where it is not installed."""
    try:
        import libvirt
    except ImportError as error:
        from harness.provision.doctor import LIBVIRT_MEND

        raise HostError("the libvirt launcher needs libvirt-python", hint=LIBVIRT_MEND) from error
    return libvirt


@functools.cache
def _events() -> None:
    """Start the event loop, once in a process, before the first connection."""
    libvirt = library()
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    libvirt.virEventRegisterDefaultImpl()

    def run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=run, name="libvirt", daemon=True).start()


class Link:
    """One connection, made anew when the daemon went away and came back."""

    def __init__(self, uri: str) -> None:
        """Raises HostError when there is no libvirtd at `uri`."""
        self.uri = uri
        self._lock = threading.RLock()
        self._renewed: list[Callable[[Any], None]] = []
        _events()
        deadline = Deadline(_RECONNECT_TIMEOUT_S)
        try:
            self._connection = self._open()
        except library().libvirtError as error:
            raise HostError(
                f"no libvirt at {printable(uri, 120)} after {deadline.elapsed_s():.1f} s: "
                f"{printable(str(error))}",
                hint="is libvirtd running, and may you use it? virsh -c URI version",
            ) from error

    def _open(self) -> Any:
        connection = library().open(self.uri)
        with contextlib.suppress(library().libvirtError):
            connection.setKeepAlive(_ALIVE_EVERY_S, _ALIVE_TRIES)
        return connection

    def on_connection(self, follow: Callable[[Any], None]) -> None:
        """Call `follow` with this connection, and with each that is made after it."""
        with self._lock:
            self._renewed.append(follow)
            follow(self._connection)

    def call(self, work: Callable[[Any], T], what: str) -> T:
        """work(connection), once more where the daemon went away in the middle.

        Raises MachineError with libvirt's words, and libvirtError as its cause.
        """
        deadline = Deadline(_RECONNECT_TIMEOUT_S)
        error: Exception
        try:
            return work(self._connection)
        except library().libvirtError as failed:
            error = failed
        if not self._alive():
            try:
                self._reconnect(deadline)
                return work(self._connection)
            except library().libvirtError as failed:
                error = failed
        raise MachineError(
            f"libvirt: {what} failed after {deadline.elapsed_s():.1f} s: {printable(str(error))}"
        ) from error

    def _alive(self) -> bool:
        try:
            # Asked, not remembered: a daemon that has just gone is noticed by asking.
            self._connection.getLibVersion()
        except library().libvirtError:
            return False
        return True

    def _reconnect(self, deadline: Deadline) -> None:
        with self._lock:
            if self._alive():
                return
            while True:
                try:
                    self._connection = self._open()
                    break
                except library().libvirtError:
                    if deadline.expired():
                        raise
                    time.sleep(_RECONNECT_PAUSE_S)
            for follow in self._renewed:
                follow(self._connection)

    def close(self) -> None:
        """End the connection; safe to call twice."""
        with self._lock, contextlib.suppress(library().libvirtError):
            self._renewed.clear()
            self._connection.close()
