# SPDX-License-Identifier: GPL-2.0-or-later
"""The private directory of a running guest: sockets, disk, key; nothing in it outlives the guest.

Its name says which process owns it, so the next harness can tell what a killed one left behind.
"""

import os
import re
import shutil
import stat
import tempfile
from pathlib import Path

from harness.errors import HostError
from harness.live import Process, process

# Of a unix socket, without the zero byte at its end.
MOST_SOCKET_PATH_BYTES = 107
CONSOLE_SOCKET = "console"
# The owner, a live.Process: containers may share a /tmp.
_NAME = re.compile(r"tdharness-(?P<namespace>\d+)-(?P<pid>\d+)-(?P<start>\d+)-.+")


def make(parent: Path | None = None) -> Path:
    """A new directory that only this user can enter, in `parent` or the machine's temporary one.

    Raises HostError when it cannot be made, or its name is too long for a socket.
    """
    mine = process()
    owner = f"{mine.namespace}-{mine.pid}-{mine.start}"
    try:
        path = Path(tempfile.mkdtemp(prefix=f"tdharness-{owner}-", dir=parent))
    except OSError as error:
        raise HostError(
            f"cannot make a temporary directory: {error.strerror or error}",
            hint="set TMPDIR to a directory with space that you may write to",
        ) from error
    if len(os.fsencode(path / CONSOLE_SOCKET)) > MOST_SOCKET_PATH_BYTES:
        path.rmdir()
        raise HostError(
            f"the path of the temporary directory is too long for a unix socket: {path}",
            hint="set TMPDIR to a shorter one, /tmp for example",
        )
    return path


def remove_leftovers(parent: Path | None = None) -> int:
    """Remove this user's directories of harnesses that were killed; how many there were."""
    removed = 0
    for path in (parent or Path(tempfile.gettempdir())).glob("tdharness-*"):
        if _is_left_over(path):
            shutil.rmtree(path, ignore_errors=True)
            removed += 1
    return removed


def _is_left_over(path: Path) -> bool:
    match = _NAME.fullmatch(path.name)
    if not match:
        return False
    owner = Process(**{name: int(word) for name, word in match.groupdict().items()})
    if not owner.known() or owner.runs():
        return False
    try:
        facts = path.lstat()
    except OSError:
        # Someone else was faster.
        return False
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid()
