# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain's monitor: QMP handed on by libvirt, its events, and how the domain ended."""

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import MachineError
from harness.machine.base import Ending
from harness.machine.libvirtlink import Link, library
from harness.qmplog import EventLog
from harness.text import printable

_REASON_TIMEOUT_S = 0.5
_LATE_EVENT_S = 0.5
# virDomainEventStoppedDetailType
_SHUTDOWN, _DESTROYED, _CRASHED = 0, 1, 2


class Monitor:
    """Of one domain, which need not have been started yet."""

    def __init__(self, link: Link, name: str, log_path: Path) -> None:
        self._link = link
        self._name = name
        self._log = EventLog(log_path)
        self._stopped = threading.Event()
        self._detail: int | None = None
        link.on_connection(self._follow)

    def _follow(self, connection: Any) -> None:
        """Listen, on a connection that was just made."""
        import libvirt_qemu

        libvirt = library()
        lifecycle = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
        connection.domainEventRegisterAny(None, lifecycle, self._on_lifecycle, None)
        libvirt_qemu.qemuMonitorEventRegister(connection, None, None, self._on_event, None)

    def _on_lifecycle(self, _c: Any, domain: Any, event: int, detail: int, _o: object) -> None:
        if domain.name() == self._name and event == library().VIR_DOMAIN_EVENT_STOPPED:
            self._detail = detail
            self._stopped.set()

    def _on_event(
        self, _c: Any, domain: Any, event: str, seconds: int, micros: int, data: str | None, _o: Any
    ) -> None:
        if domain.name() == self._name:
            stamp = {"seconds": seconds, "microseconds": micros}
            given = {"data": json.loads(data)} if data else {}
            self._log.note({"event": event, **given, "timestamp": stamp})

    def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, *, timeout_s: float = 5.0
    ) -> Any:
        """As Qmp.execute(); libvirt has a time limit of its own."""
        given = {"arguments": dict(arguments)} if arguments else {}
        answer = json.loads(self._ask(json.dumps({"execute": command, **given}), 0))
        if "error" in answer:
            raise MachineError(f"QMP {command} failed: {printable(str(answer['error']))}")
        return answer["return"]

    def human(self, command: str, *, timeout_s: float = 5.0) -> str:
        """As Qmp.human()."""
        import libvirt_qemu

        return self._ask(command, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)

    def _ask(self, words: str, flags: int) -> str:
        import libvirt_qemu

        def ask(connection: Any) -> str:
            domain = connection.lookupByName(self._name)
            return str(libvirt_qemu.qemuMonitorCommand(domain, words, flags))

        return self._link.call(ask, "a monitor command")

    def alive(self) -> bool:
        """Whether the domain runs. Raises MachineError when libvirt does not say."""
        if self._stopped.is_set():
            return False
        try:
            self._link.call(lambda c: c.lookupByName(self._name), "a look at the guest")
        except MachineError as error:
            cause = error.__cause__
            if not isinstance(cause, library().libvirtError):
                raise
            if cause.get_error_code() != library().VIR_ERR_NO_DOMAIN:
                raise
            # A transient domain that has ended is not there any more.
            self._stopped.wait(_LATE_EVENT_S)
            self._stopped.set()
            return False
        return True

    def wait(self, timeout_s: float) -> bool:
        """Whether the domain ends in time, as its event says."""
        return self._stopped.wait(timeout_s)

    def ending(self) -> Ending:
        """How the domain, which has ended, did so."""
        if self._detail is None:
            return Ending(orderly=False, words="the guest ended while libvirt was away")
        if self._detail in (_SHUTDOWN, _DESTROYED, _CRASHED):
            reason = self._log.shutdown_reason(_REASON_TIMEOUT_S)
            return Ending(orderly=True, words=reason or "no reason given")
        return Ending(
            orderly=False, words=f"QEMU failed under libvirt (stopped, detail {self._detail})"
        )
