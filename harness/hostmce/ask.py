# SPDX-License-Identifier: GPL-2.0-or-later
"""What else a host is asked: its trace buffer, rasdaemon's files, EDAC, its clock, its CPU."""

import re
import time
from collections.abc import Mapping

from harness.errors import EvidenceError
from harness.hostmce import edac, rasdaemon
from harness.hostmce.record import PHYS_BITS, MceRecord
from harness.hostmce.trace import read_trace
from harness.remote import Remote

_TIMEOUT_S = 30.0
_TRACE_BYTES = 16 << 20
_DATABASE_BYTES = 64 << 20
_TRIES = 3
# A buffer of our own: others' tracing is left alone, and the records in it are of this test.
INSTANCE = "/sys/kernel/tracing/instances/tdharness"
_SIZES = re.compile(rb"address sizes\s*: (\d{2}) bits physical")


def phys_bits(remote: Remote) -> int:
    """How many bits of an address are no KeyID."""
    shown = remote.run(["grep", "-m1", "address sizes", "/proc/cpuinfo"], timeout_s=_TIMEOUT_S)
    sizes = _SIZES.search(shown.stdout)
    return int(sizes[1]) if sizes else PHYS_BITS


def skew_s(remote: Remote) -> float:
    """The host's clock less ours, to the time that the question took."""
    word = remote.run(["date", "+%s"], timeout_s=_TIMEOUT_S).stdout.strip()
    return int(word) - time.time() if word.isdigit() else 0.0


def edac_counters(remote: Remote) -> dict[str, int]:
    """EDAC's counters; none on a host without EDAC."""
    asked = ["find", "-L", edac.ROOT, "-maxdepth", "2", "-name", "*_count"]
    shown = remote.run([*asked, "-exec", "grep", "-H", ".", "{}", "+"], timeout_s=_TIMEOUT_S)
    return edac.read_counters(shown.stdout.decode("ascii", "replace"))


def begin_trace(remote: Remote) -> bool:
    """Have the trace event written to a buffer of our own; False where that may not be."""
    if remote.run(["mkdir", "-p", INSTANCE], timeout_s=_TIMEOUT_S).exit_code:
        return False
    remote.run(["tee", f"{INSTANCE}/trace"], timeout_s=_TIMEOUT_S)
    enable = f"{INSTANCE}/events/mce/mce_record/enable"
    return not remote.run(["tee", enable], timeout_s=_TIMEOUT_S, stdin=b"1").exit_code


def read_trace_of(remote: Remote, boot_id: str) -> tuple[list[MceRecord] | None, int, str]:
    """The buffer's records, how many it lost, and what was not read."""
    shown = remote.run(["cat", f"{INSTANCE}/trace"], timeout_s=_TIMEOUT_S, max_bytes=_TRACE_BYTES)
    if shown.exit_code:
        return None, 0, "trace event: its buffer is gone"
    records, lost = read_trace(shown.stdout.decode("ascii", "replace").splitlines(), boot_id)
    return records, lost, "trace event: the end of the buffer" if shown.truncated else ""


def end_trace(remote: Remote) -> None:
    """Take the buffer away again."""
    enable = f"{INSTANCE}/events/mce/mce_record/enable"
    remote.run(["tee", enable], timeout_s=_TIMEOUT_S, stdin=b"0")
    remote.run(["rmdir", INSTANCE], timeout_s=_TIMEOUT_S)


def read_rasdaemon(
    remote: Remote, after: Mapping[str, int], boot_id: str
) -> tuple[rasdaemon.RasdaemonTold | None, str]:
    """What rasdaemon stored beyond these ids, and why not, as a sentence or "".

    The files are copied: a lock on them, of rasdaemon or anyone, does not matter. A copy is taken
    again when they changed meanwhile.
    """
    why = "rasdaemon: it has no database: not installed, or never started"
    for path in rasdaemon.DATABASES:
        for _ in range(_TRIES):
            before = _state(remote, path)
            if path not in before:
                break
            if int(before[path].split()[0]) > _DATABASE_BYTES:
                return None, f"rasdaemon: a database of more than {_DATABASE_BYTES >> 20} MiB"
            files = _copy(remote, path, before)
            if _state(remote, path) != before:
                why = "rasdaemon: its database is written to without a pause"
                continue
            if files is None:
                return None, "rasdaemon: its database may not be read"
            try:
                return rasdaemon.read_database(files, after, boot_id), ""
            except EvidenceError as error:
                why = f"rasdaemon: {error.message}"
    return None, why


def _state(remote: Remote, path: str) -> dict[str, str]:
    """Size and time of change of the files that are there, by name."""
    names = [path + suffix for suffix in rasdaemon.SUFFIXES]
    shown = remote.run(["stat", "--format=%n %s %.9Y", "--", *names], timeout_s=_TIMEOUT_S)
    lines = (line.split(" ", 1) for line in shown.stdout.decode("ascii", "replace").splitlines())
    return {words[0]: words[1] for words in lines if len(words) == 2}


def _copy(remote: Remote, path: str, there: Mapping[str, str]) -> dict[str, bytes] | None:
    files: dict[str, bytes] = {}
    for suffix in rasdaemon.SUFFIXES:
        if path + suffix in there:
            shown = remote.run(
                ["cat", path + suffix], timeout_s=_TIMEOUT_S, max_bytes=_DATABASE_BYTES
            )
            if shown.exit_code or shown.truncated:
                return None
            files[suffix] = shown.stdout
    return files
