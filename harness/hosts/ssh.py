# SPDX-License-Identifier: GPL-2.0-or-later
"""A host of a lab over ssh: host keys pinned, keys and agents only, made again when it was lost."""

import getpass
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from harness.errors import ConfigError, HarnessError, HostError
from harness.hosts.config import Host
from harness.pump import end_of_writing, pump
from harness.remote import MOST_BYTES, Answer, LocalRemote, Remote, quoted
from harness.sshchannel import ended_after, read_both
from harness.text import printable
from harness.timeouts import Deadline

if TYPE_CHECKING:
    import paramiko

_CONNECT_TIMEOUT_S = 20.0
_KEEP_ALIVE_S = 15
# A command that was given up here ends there too, this much later.
_REMOTE_GRACE_S = 5


class SshRemote:
    """A Remote over one connection, which is made when it is needed; commands may overlap."""

    def __init__(self, host: Host, *, connect_timeout_s: float = _CONNECT_TIMEOUT_S) -> None:
        self._host = host
        self._timeout_s = connect_timeout_s
        self._lock = threading.Lock()
        self._client: paramiko.SSHClient | None = None

    def __enter__(self) -> "SshRemote":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; safe to call twice, and the next command makes another."""
        with self._lock:
            if self._client:
                self._client.close()
            self._client = None

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        stdin: bytes = b"",
        max_bytes: int = MOST_BYTES,
    ) -> Answer:
        """As Remote.run(). A command whose connection is lost is not run again: it may have run.

        The host needs coreutils' timeout, which ends there what was given up here.
        """
        import paramiko

        deadline = Deadline(timeout_s)
        words = ["timeout", "--kill-after=5", str(int(timeout_s) + _REMOTE_GRACE_S), *argv]
        channel = self._channel(argv, deadline)
        try:
            with channel:
                channel.settimeout(timeout_s)
                channel.exec_command(quoted(words))
                feeder = threading.Thread(target=_feed, args=(channel, stdin), daemon=True)
                feeder.start()
                out, err = read_both(channel, deadline, max_bytes + 1)
                code = channel.recv_exit_status()
        except TimeoutError as error:
            raise self._failed(argv, deadline, "it did not end in time") from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._lost(argv, deadline, error) from error
        if code < 0:
            raise self._lost(argv, deadline, EOFError("it ended without an exit status"))
        truncated = max(len(out), len(err)) > max_bytes
        return Answer(code, out[:max_bytes], err[:max_bytes], truncated)

    def stream(self, argv: Sequence[str]) -> socket.socket:
        """As StreamingRemote.stream(); its end is also that of a connection that was lost."""
        import paramiko

        deadline = Deadline(self._timeout_s)
        channel = self._channel(argv, deadline)
        try:
            channel.settimeout(None)
            channel.exec_command(quoted(argv))
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._lost(argv, deadline, error) from error
        ours, theirs = socket.socketpair()
        pump(theirs.recv, channel.sendall, channel.shutdown_write)
        pump(channel.recv, theirs.sendall, lambda: end_of_writing(theirs))
        return ours

    def _channel(self, argv: Sequence[str], deadline: Deadline) -> "paramiko.Channel":
        import paramiko

        transport = self._transport(deadline)
        try:
            return transport.open_session(timeout=deadline.left_s())
        except (paramiko.SSHException, OSError, EOFError) as error:
            self.close()
            raise self._failed(argv, deadline, f"it was not begun: {_words(error)}") from error

    def _transport(self, deadline: Deadline) -> "paramiko.Transport":
        with self._lock:
            found = self._client.get_transport() if self._client else None
            if found and found.is_active():
                return found
            if self._client:
                self._client.close()
            self._client = _connected(self._host, min(self._timeout_s, deadline.left_s()))
            transport = self._client.get_transport()
            if transport is None:
                raise HostError(f"the connection to {self._host.name} ended as it was made")
            transport.set_keepalive(_KEEP_ALIVE_S)
            return transport

    def _lost(self, argv: Sequence[str], deadline: Deadline, error: Exception) -> HostError:
        self.close()
        return self._failed(
            argv,
            deadline,
            f"the connection was lost ({_words(error)}), and it is not known how far it got",
        )

    def _failed(self, argv: Sequence[str], deadline: Deadline, why: str) -> HostError:
        what = printable(quoted(argv), 120)
        return HostError(f"{self._host.name}: {what}: after {deadline.elapsed_s():.1f} s {why}")


def host_of(uri: str) -> Host | None:
    """The host that a URI of libvirt reaches over ssh; None for any other URI.

    libvirt's own parameters `keyfile` and `known_hosts` hold here too; left out, they are the
    agent's keys and ~/.ssh/known_hosts. Raises ConfigError.
    """
    try:
        parts = urlsplit(uri)
        asked = dict(parse_qsl(parts.query))
        port = parts.port or 22
    except ValueError as error:
        raise ConfigError(f"{printable(uri, 120)!r} is no URI: {error}") from error
    if parts.scheme not in ("qemu+ssh", "qemu+libssh", "qemu+libssh2") or not parts.hostname:
        return None
    pinned = asked.get("known_hosts")
    return Host(
        name=parts.hostname,
        address=parts.hostname,
        port=port,
        user=parts.username or getpass.getuser(),
        key=Path(asked["keyfile"]) if "keyfile" in asked else None,
        known_hosts=Path(pinned) if pinned else Path.home() / ".ssh" / "known_hosts",
        libvirt=uri,
    )


def _words(error: Exception) -> str:
    return printable(str(error), 200) or type(error).__name__


def _feed(channel: "paramiko.Channel", data: bytes) -> None:
    # A command need not read what it is given.
    try:
        channel.sendall(data)
        channel.shutdown_write()
    except OSError:
        pass


def _connected(host: Host, timeout_s: float) -> "paramiko.SSHClient":
    """Raises HostError, and ConfigError for keys: those a person has to look at."""
    import paramiko
    from paramiko.hostkeys import InvalidHostKey

    deadline = Deadline(timeout_s)
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(_refusing(host))
    try:
        client.load_host_keys(str(host.known_hosts))
    except InvalidHostKey:
        # Its words are the file's line, which is anything, a private key's too.
        raise ConfigError(
            f"{host.name}: {host.known_hosts} is no file of pinned host keys",
            hint="each line has a host, a type and a key: what ssh-keyscan prints",
        ) from None
    except (OSError, paramiko.SSHException) as error:
        raise ConfigError(
            f"{host.name}: cannot read the pinned host keys {host.known_hosts}: {error}",
            hint=f"ssh-keyscan -t ed25519 {host.address}, compare it with what the host's own "
            "console shows (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), and keep it there",
        ) from error
    try:
        with ended_after(client, timeout_s + 2.0):
            client.connect(
                host.address,
                host.port,
                host.user,
                key_filename=str(host.key) if host.key else None,
                allow_agent=host.key is None,
                look_for_keys=False,
                timeout=timeout_s,
                banner_timeout=timeout_s,
                auth_timeout=timeout_s,
            )
    except (paramiko.SSHException, OSError, EOFError) as error:
        client.close()
        raise _refusal(host, error, deadline) from error
    return client


def _refusal(host: Host, error: Exception, deadline: Deadline) -> HarnessError:
    import paramiko

    if isinstance(error, paramiko.BadHostKeyException):
        shown, pinned = error.key.fingerprint, error.expected_key.fingerprint
        return ConfigError(
            f"{host.name} shows another host key than the pinned one: {shown}, not {pinned}",
            hint="it was installed anew, or it is another machine: find out which before you pin "
            f"the new key in {host.known_hosts}",
        )
    if isinstance(error, paramiko.AuthenticationException):
        return ConfigError(
            f"{host.name} lets {host.user} in with none of {host.key or 'the keys of the agent'}",
            hint="put the public half into ~/.ssh/authorized_keys there",
        )
    return HostError(
        f"no ssh to {host.name} ({host.address}, port {host.port}) after "
        f"{deadline.elapsed_s():.1f} s: {_words(error)}",
        hint="is the machine on, and its ssh server?",
    )


def _refusing(host: Host) -> "paramiko.MissingHostKeyPolicy":
    import paramiko

    class Refuse(paramiko.MissingHostKeyPolicy):
        def missing_host_key(
            self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey
        ) -> None:
            raise ConfigError(
                f"{host.name} shows a host key that is not pinned: {key.fingerprint}",
                hint=f"compare it with what the host's own console shows, and put it into "
                f"{host.known_hosts}",
            )

    return Refuse()


@contextmanager
def reached(host: Host) -> Iterator[Remote]:
    """How commands run on a host: connected when the first one does, and ended behind."""
    if host.local:
        yield LocalRemote()
        return
    with SshRemote(host) as remote:
        yield remote
