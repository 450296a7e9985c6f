# SPDX-License-Identifier: GPL-2.0-or-later
"""A host that answers what the collector asks, out of memory, and goes down when told to."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.errors import HostError
from harness.hostmce.ask import INSTANCE
from harness.hostmce.rasdaemon import DATABASES
from harness.remote import MOST_BYTES, Answer

FIRST_BOOT = "11111111-2222-3333-4444-555555555555"
NEXT_BOOT = "99999999-2222-3333-4444-555555555555"
HEAD = "mce: [Hardware Error]: "


def printed(cpu: int = 0, tsc: int = 100, status: int = 0xBD80000000100134) -> list[str]:
    """A kernel's lines of one machine check."""
    return [
        f"{HEAD}CPU {cpu}: Machine Check Exception: 7 Bank 1: {status:016x}",
        f"{HEAD}TSC {tsc:x} ADDR 1234b000 MISC 8c ",
        f"{HEAD}PROCESSOR 0:806f8 TIME 1700000000 SOCKET 0 APIC 0 microcode 1",
    ]


def traced(cpu: int = 0, tsc: int = 100, status: int = 0xBD80000000100134) -> str:
    """The trace event of the same."""
    return (
        f" x [000] ..... 9.574125: mce_record: CPU: {cpu}, MCGc/s: 7000c16/7, MC1: {status:016x}, "
        f"IPID: 0, ADDR: 1234b000, MISC: 8c, SYND: 0, RIP: 33:<42edaa>, TSC: {tsc:x}, PPIN: 0, "
        "vendor: 0, CPUID: 806f8, time: 1700000000, socket: 0, APIC: 0, microcode: 1"
    )


@dataclass
class FakeHost:
    """A host. What is set to None or left empty is absent on it."""

    boot_id: str = FIRST_BOOT
    # (boot, message, seconds since boot); None without journald
    journal: list[tuple[str, str, float]] | None = field(default_factory=list)
    ring: bytes = b""
    trace: list[str] | None = field(default_factory=list)
    database: bytes | None = None
    counters: dict[str, int] = field(default_factory=dict)
    wall_s: float = 1_700_000_000.0
    # of the harness's clock: what a question costs that nobody answers
    now_s: float = 0.0
    gone: bool = False
    pcre: bool = True
    asked: list[list[str]] = field(default_factory=list)

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        stdin: bytes = b"",
        max_bytes: int = MOST_BYTES,
    ) -> Answer:
        """Answer as the programs do; HostError when gone."""
        self.asked.append(list(argv))
        if self.gone:
            self.now_s += timeout_s
            raise HostError("no answer from the host: timed out")
        code, out, err = self._answer(list(argv))
        return Answer(code, out[:max_bytes], err, len(out) > max_bytes)

    def clock(self) -> float:
        """The harness's clock."""
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Time that passes without anybody waiting for it."""
        self.now_s += seconds

    def say(self, *lines: str, uptime_s: float = 50.0) -> None:
        """Have the kernel log these lines."""
        if self.journal is not None:
            self.journal += [(self.boot_id, line, uptime_s) for line in lines]
            return
        self.ring += b"".join(b"[%12.6f] %s\n" % (uptime_s, line.encode()) for line in lines)

    def reboot(self) -> None:
        """Begin another boot."""
        self.boot_id, self.ring, self.trace = NEXT_BOOT, b"", []

    def _answer(self, argv: list[str]) -> tuple[int, bytes, bytes]:
        match argv[0]:
            case "cat" | "stat":
                return self._file(argv)
            case "journalctl":
                return self._journalctl(argv)
            case "dmesg":
                return (0, self.ring, b"") if self.ring else (1, b"", b"not permitted\n")
            case "date":
                return 0, b"%d\n" % self.wall_s, b""
            case "grep":
                return 0, b"address sizes\t: 46 bits physical, 57 bits virtual\n", b""
            case "find":
                shown = "".join(f"/x/{name}:{value}\n" for name, value in self.counters.items())
                return 0, shown.encode(), b""
            case "mkdir" | "tee" | "rmdir":
                return (1 if self.trace is None else 0), b"", b""
        return 127, b"", b"not found\n"

    def _file(self, argv: list[str]) -> tuple[int, bytes, bytes]:
        if argv[0] == "stat":
            if self.database is None:
                return 1, b"", b"no such file\n"
            return 1, f"{DATABASES[0]} {len(self.database)} 1.5\n".encode(), b"no such file\n"
        files = {
            "/proc/sys/kernel/random/boot_id": f"{self.boot_id}\n".encode(),
            "/proc/uptime": b"40.00 70.00\n",
            DATABASES[0]: self.database,
            f"{INSTANCE}/trace": None if self.trace is None else "\n".join(self.trace).encode(),
        }
        data = files.get(argv[1])
        return (1, b"", b"no such file\n") if data is None else (0, data, b"")

    def _journalctl(self, argv: list[str]) -> tuple[int, bytes, bytes]:
        if self.journal is None:
            return 127, b"", b"not found\n"
        if "--show-cursor" in argv:
            return 0, b"-- cursor: %d\n" % len(self.journal), b""
        if not self.pcre and any(word.startswith("--grep") for word in argv):
            return 1, b"", b"Compiled without pattern matching support\n"
        words = dict(word.partition("=")[::2] for word in argv)
        boot, since = words["--boot"], int(words["--after-cursor"])
        entries = [
            {
                "MESSAGE": message,
                "__MONOTONIC_TIMESTAMP": str(int(uptime_s * 1e6)),
                "SYSLOG_FACILITY": "0",
            }
            for of, message, uptime_s in self.journal[since:]
            if of.replace("-", "") == boot
        ]
        shown = "".join(json.dumps(entry) + "\n" for entry in entries)
        return (0 if entries else 1), shown.encode(), b""
