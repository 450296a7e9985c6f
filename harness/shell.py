# SPDX-License-Identifier: GPL-2.0-or-later
"""ssh into a guest: a key made for the run, the guest's host key pinned, argument lists only."""

import base64
import binascii
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import GuestError
from harness.remote import quoted
from harness.sshchannel import ended_after, read_both
from harness.text import printable
from harness.timeouts import Deadline

if TYPE_CHECKING:
    import paramiko

MOST_OUTPUT_BYTES = 16 << 20
_USER = "root"
# More than a deadline, for a protocol that stands still where paramiko waits without one.
_GRACE_S = 2.0


@dataclass(frozen=True, slots=True)
class ShellResult:
    """Exit status and output of a command over ssh."""

    rc: int
    stdout: str
    stderr: str


def make_key(path: Path) -> str:
    """Make a client key at `path`, readable by its owner only; the public half, one line."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    path.touch(mode=0o600, exist_ok=False)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return public.decode()


def parse_host_key(line: str) -> "paramiko.PKey":
    """A public key in OpenSSH's one-line form. Raises GuestError when it is none."""
    import paramiko

    words = line.split()
    try:
        if words[0] != "ssh-ed25519":
            raise ValueError(words[0])
        return paramiko.Ed25519Key(data=base64.b64decode(words[1], validate=True))
    except (IndexError, ValueError, binascii.Error, paramiko.SSHException) as error:
        raise GuestError(f"the guest's host key is not one: {printable(line, 80)!r}") from error


class Shell:
    """An ssh connection to one guest."""

    def __init__(
        self, port: int, key_path: Path, host_key: "paramiko.PKey", *, timeout_s: float
    ) -> None:
        """Connect to 127.0.0.1. Raises GuestError when the guest is silent, refuses the key, or
        shows another host key than the pinned one."""
        import paramiko

        deadline = Deadline(timeout_s)
        self._client = paramiko.SSHClient()
        self._client.set_missing_host_key_policy(paramiko.RejectPolicy())
        self._client.get_host_keys().add(f"[127.0.0.1]:{port}", host_key.get_name(), host_key)
        try:
            with ended_after(self._client, timeout_s + _GRACE_S):
                self._client.connect(
                    "127.0.0.1",
                    port,
                    _USER,
                    key_filename=str(key_path),
                    allow_agent=False,
                    look_for_keys=False,
                    timeout=timeout_s,
                    banner_timeout=timeout_s,
                    auth_timeout=timeout_s,
                )
        except (paramiko.SSHException, OSError, EOFError) as error:
            self._client.close()
            raise GuestError(
                f"no ssh to the guest on port {port} after {deadline.elapsed_s():.1f} s: "
                f"{_cause(error)}",
                hint=_hint(error),
            ) from error

    def run(self, argv: Sequence[str], *, timeout_s: float) -> ShellResult:
        """Run a command; its words reach the guest as they are.

        Of each output MOST_OUTPUT_BYTES are kept. Raises GuestError when it does not end in time,
        or ends without an exit status.
        """
        import paramiko

        deadline = Deadline(timeout_s)
        try:
            with (
                ended_after(self._client, timeout_s + _GRACE_S),
                self._open_channel(timeout_s) as channel,
            ):
                channel.exec_command(quoted(argv))
                out, err = read_both(channel, deadline, MOST_OUTPUT_BYTES)
                rc = channel.recv_exit_status()
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise GuestError(
                f"{printable(argv[0], 80)} over ssh failed after {deadline.elapsed_s():.1f} s: "
                f"{_cause(error)}"
            ) from error
        if rc < 0:
            raise GuestError(f"{printable(argv[0], 80)} over ssh ended without an exit status")
        return ShellResult(rc, out.decode(errors="replace"), err.decode(errors="replace"))

    def _open_channel(self, timeout_s: float) -> "paramiko.Channel":
        transport = self._client.get_transport()
        if transport is None:
            raise EOFError("the connection is closed")
        return transport.open_session(timeout=timeout_s)

    def interactive(self) -> "paramiko.Channel":
        """A shell on a terminal as large as ours, for a person."""
        size = shutil.get_terminal_size()
        return self._client.invoke_shell("vt100", size.columns, size.lines)

    def close(self) -> None:
        """End the connection; safe to call twice."""
        self._client.close()


def _cause(error: Exception) -> str:
    import paramiko

    if isinstance(error, paramiko.BadHostKeyException):
        return "it showed another host key than the one that the guest's agent told"
    if isinstance(error, paramiko.AuthenticationException):
        return "it refused the key of this run"
    return printable(str(error)) or type(error).__name__


def _hint(error: Exception) -> str:
    import paramiko

    if isinstance(error, paramiko.BadHostKeyException):
        return "another program may listen on that port"
    return "read the console: the ssh server may not have started"
