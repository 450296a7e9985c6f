# SPDX-License-Identifier: GPL-2.0-or-later
"""A domain's console: a stream of libvirt's, offered on a unix socket as QEMU itself would."""

import contextlib
import socket
import threading
from pathlib import Path
from typing import Any

from harness.errors import MachineError
from harness.machine.libvirtlink import Link, library

_PIECE_BYTES = 4096


class ConsoleServer:
    """Listens until close(); one client at a time, each with a stream of its own."""

    def __init__(self, link: Link, domain: str, path: Path) -> None:
        self._link = link
        self._domain = domain
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        threading.Thread(target=self._serve, name="console", daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError, library().libvirtError):
                try:
                    stream = self._link.call(self._open, "the console")
                except MachineError as error:
                    client.sendall(f"tdharness: {error.message}\r\n".encode())
                else:
                    self._join(client, stream)

    def _open(self, connection: Any) -> Any:
        libvirt = library()
        stream = connection.newStream()
        # Whoever had it before has gone: this is its only way in.
        flags = libvirt.VIR_DOMAIN_CONSOLE_FORCE
        connection.lookupByName(self._domain).openConsole(None, stream, flags)
        return stream

    def _join(self, client: socket.socket, stream: Any) -> None:
        reader = threading.Thread(target=_show, args=(client, stream), daemon=True)
        reader.start()
        while data := client.recv(_PIECE_BYTES):
            stream.send(data)
        stream.abort()
        reader.join()

    def close(self) -> None:
        """End it, a client's session with it; safe to call twice."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _show(client: socket.socket, stream: Any) -> None:
    with contextlib.suppress(OSError, library().libvirtError):
        while data := stream.recv(_PIECE_BYTES):
            client.sendall(data)
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)
