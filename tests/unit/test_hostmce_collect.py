# SPDX-License-Identifier: GPL-2.0-or-later
"""What is collected from a host around a test, whatever the host does meanwhile."""

import json
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.hostmce import told as host_told
from harness.hostmce.collect import Collector
from harness.hostmce.console import ConsoleFile, HostConsole
from harness.hostmce.journal import MOST_BYTES
from harness.hostmce.record import Source
from harness.hostmce.told import HostState, HostTold
from harness.hostmce.watch import ANSWER_TIMEOUT_S, EVERY_S, FOUND_OUT_S, Down, Pulse, Watch
from harness.rundir import RunDir
from harness.testing.fakehost import FIRST_BOOT, NEXT_BOOT, FakeHost, printed, traced

CORRECTED = 0x9C00004000010092


def database(path: Path, rows: int = 1, **fields: int) -> sqlite3.Connection:
    """A database as rasdaemon makes it, with one machine check in each row."""
    connection = sqlite3.connect(path)
    names = [
        "mcgcap",
        "mcgstatus",
        "status",
        "addr",
        "misc",
        "ip",
        "tsc",
        "walltime",
        "ppin",
        "cpu",
        "cpuid",
        "apicid",
        "socketid",
        "cs",
        "bank",
        "cpuvendor",
        "microcode",
    ]
    columns = ", ".join(f"{name} INTEGER" for name in names)
    connection.execute(
        f"CREATE TABLE mce_record (id INTEGER PRIMARY KEY, timestamp TEXT, {columns}, error TEXT)"
    )
    # status and addr are kept as signed numbers
    values = {
        "mcgcap": 0x7000C16, "mcgstatus": 7, "status": 0xBD80000000100134 - (1 << 64),
        "addr": 0x1234B000, "misc": 0x8C, "tsc": 100, "walltime": 1700000000, "cpu": 0,
        "cpuid": 0x806F8, "apicid": 0, "socketid": 0, "bank": 1, **fields,
    }  # fmt: skip
    marks = ", ".join("?" for _ in values)
    insert = f"INSERT INTO mce_record ({', '.join(values)}) VALUES ({marks})"
    connection.executemany(insert, [list(values.values())] * rows)
    connection.commit()
    return connection


def stored(path: Path, rows: int = 1, **fields: int) -> bytes:
    database(path, rows, **fields).close()
    return path.read_bytes()


def collect(
    host: FakeHost, during: Callable[[], None] = lambda: None, console: HostConsole | None = None
) -> HostTold:
    collector = Collector(host, console, sleep=host.sleep, clock=host.clock)
    before = collector.before()
    during()
    told = collector.after(before)
    assert host_told.read(json.loads(json.dumps(told.to_json()))) == told
    return told


def test_a_quiet_host_tells_nothing_and_nothing_is_missing(tmp_path: Path) -> None:
    host = FakeHost(database=stored(tmp_path / "db"))
    host.say("mce: [Hardware Error]: CPU 3: Machine Check: 0 Bank 3: 9000000000000005")
    told = collect(host)
    assert (told.merged.total, told.gaps, told.state) == (0, (), HostState.ALIVE)
    assert told.merged.disagreements == ()
    assert told.heard == ("kernel log", "trace event", "rasdaemon")
    # Nothing is left on the host.
    assert any(argv[0] == "rmdir" for argv in host.asked)


def test_one_check_is_told_once_by_all(tmp_path: Path) -> None:
    host = FakeHost(database=stored(tmp_path / "old"), counters={"mc0/ue_count": 1})

    def during() -> None:
        host.say(*printed())
        host.trace = [traced()]
        host.database = stored(tmp_path / "new", rows=2)
        host.counters = {"mc0/ue_count": 3, "mc0/ce_count": 0}

    told = collect(host, during)
    (record,) = told.merged.records
    assert record.sources == (Source.KERNEL_LOG, Source.TRACE, Source.RASDAEMON)
    assert (record.boot_id, told.merged.disagreements) == (FIRST_BOOT, ())
    assert told.notes == ("EDAC mc0/ue_count went up by 2",)


def test_disagreement_is_told_as_such(tmp_path: Path) -> None:
    host = FakeHost(database=stored(tmp_path / "old"))

    def during() -> None:
        host.say(*printed())
        host.trace = []
        host.database = stored(tmp_path / "new", rows=2, addr=0x5000)

    said = collect(host, during).merged.disagreements
    assert said[0] == "CPU 0, bank 1: addr is 0x5000 by rasdaemon, 0x1234b000 by kernel log"
    assert said[1] == "trace event has none of 1 of 1 machine checks"
    host = FakeHost()
    logged = "mce: [Hardware Error]: Machine check events logged"
    assert "no source has one" in collect(host, lambda: host.say(logged)).merged.disagreements[0]


def test_an_absent_rasdaemon_is_a_gap_and_no_disagreement() -> None:
    host = FakeHost()
    told = collect(host, lambda: host.say(*printed()))
    assert told.merged.total == 1
    assert told.gaps == ("rasdaemon: it has no database: not installed, or never started",)
    assert any("rasdaemon" in sentence for sentence in told.sentences)


def test_a_database_that_is_no_database_is_a_gap() -> None:
    told = collect(FakeHost(database=b"SQLite format 3\0 and no more"))
    assert told.gaps[0].startswith("rasdaemon: rasdaemon's database cannot be read")


class LocalFiles(FakeHost):
    """The files of a database at a real path, so that real locks and journals are met."""

    path: Path

    def _file(self, argv: list[str]) -> tuple[int, bytes, bytes]:
        if not argv[-1].startswith("/var/lib/rasdaemon"):
            return super()._file(argv)
        names = {
            f"/var/lib/rasdaemon/ras-mc_event.db{suffix}": Path(f"{self.path}{suffix}")
            for suffix in ("", "-journal", "-wal")
        }
        if argv[0] == "cat":
            return 0, names[argv[1]].read_bytes(), b""
        there = {name: path.stat() for name, path in names.items() if path.exists()}
        lines = "".join(f"{n} {s.st_size} {s.st_mtime_ns}\n" for n, s in there.items())
        return 0, lines.encode(), b""


def test_a_database_that_is_locked_is_read_without_the_half_done(tmp_path: Path) -> None:
    host = LocalFiles()
    host.path = tmp_path / "ras.db"
    connection = database(host.path, rows=3)
    connection.isolation_level = None
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN EXCLUSIVE")
    # More than fits the cache is written to the file before it is committed.
    for _ in range(2000):
        insert = "INSERT INTO mce_record (status, bank, error) VALUES (1, 1, ?)"
        connection.execute(insert, ["x" * 500])
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        sqlite3.connect(host.path, timeout=0).execute("SELECT count(*) FROM mce_record").fetchall()
    assert Path(f"{host.path}-journal").stat().st_size
    host.journal = []
    collector = Collector(host, sleep=host.sleep, clock=host.clock)
    assert collector.before().rows == {"mce_record": 3}
    connection.execute("COMMIT")
    assert collector.before().rows == {"mce_record": 2003}
    connection.close()


def test_a_write_ahead_log_is_read_too(tmp_path: Path) -> None:
    host = LocalFiles()
    host.path = tmp_path / "ras.db"
    connection = sqlite3.connect(host.path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE mce_record (id INTEGER PRIMARY KEY, status INTEGER)")
    connection.execute("INSERT INTO mce_record (status) VALUES (1)")
    connection.commit()
    rows = Collector(host, sleep=host.sleep, clock=host.clock).before().rows
    assert rows == {"mce_record": 1}
    connection.close()


@pytest.mark.parametrize("hours", [-7, 0, 7])
def test_clocks_that_are_hours_off_change_nothing(tmp_path: Path, hours: int) -> None:
    host = FakeHost(wall_s=1_700_000_000 + hours * 3600, database=stored(tmp_path / "old"))
    host.say(*printed(tsc=1))

    def during() -> None:
        # Somebody sets the clock while the test runs.
        host.wall_s -= 3 * 3600
        host.say(*printed(tsc=2), uptime_s=60.0)
        host.trace = [traced(tsc=2)]
        host.database = stored(tmp_path / "new", rows=2, tsc=2)

    told = collect(host, during)
    assert [record.tsc for record in told.merged.records] == [2]
    assert told.merged.disagreements == ()


def test_without_a_journal_the_ring_buffer_is_read_from_the_time_since_boot() -> None:
    host = FakeHost(journal=None)
    host.say("Linux version 6.12", uptime_s=0.0)
    host.say(*printed(tsc=1), uptime_s=39.0)
    told = collect(host, lambda: host.say(*printed(tsc=2), uptime_s=41.0))
    assert [record.tsc for record in told.merged.records] == [2]
    host.ring = b""
    host.say("usb 1-1: new device", uptime_s=45.0)
    assert "dropped the beginning" in collect(host).gaps[0]
    host.ring = b""
    assert "neither journalctl nor dmesg" in collect(host).gaps[0]


def test_a_journalctl_without_patterns_is_asked_for_everything() -> None:
    host = FakeHost(pcre=False)
    told = collect(host, lambda: host.say("noise", *printed(), "noise"))
    assert told.merged.total == 1


def test_a_kernel_log_of_200_mib_is_read_as_far_as_it_goes() -> None:
    class Noisy(FakeHost):
        def _journalctl(self, argv: list[str]) -> tuple[int, bytes, bytes]:
            if "--show-cursor" in argv:
                return super()._journalctl(argv)
            line = json.dumps({"MESSAGE": "mce: " + "x" * 9_980}).encode() + b"\n"
            first = b"".join(json.dumps({"MESSAGE": text}).encode() + b"\n" for text in printed())
            return 0, first + line * 3_500, b""

    told = collect(Noisy())
    assert told.merged.total == 1
    assert told.gaps[0] == f"kernel log: the journal beyond {MOST_BYTES >> 20} MiB"


def test_a_storm_is_counted_and_bounded() -> None:
    host = FakeHost()

    def during() -> None:
        for tsc in range(1, 12_001):
            host.say(*printed(cpu=tsc % 4, tsc=tsc))

    told = collect(host, during)
    assert told.merged.total == 12_000
    assert sum(record.count for record in told.merged.records) == 10_000
    assert len(told.merged.records) == 4


def test_what_is_not_the_kernel_s_is_no_record() -> None:
    host = FakeHost()

    def forged(argv: list[str]) -> tuple[int, bytes, bytes]:
        if "--show-cursor" in argv:
            return 0, b"-- cursor: 0\n", b""
        entries: list[dict[str, Any]] = [
            {"MESSAGE": text, "SYSLOG_FACILITY": "1"} for text in printed()
        ]
        entries += [{"MESSAGE": [104, 105, 300]}, {"MESSAGE": None}, {"MESSAGE": [1 << 70]}]
        lines = [json.dumps(entry) for entry in entries]
        return 0, "\n".join([*lines, "[1, 2]", "{", "\x1b[2J"]).encode(), b""

    host._journalctl = forged  # type: ignore[method-assign]
    assert collect(host).merged.total == 0


CONSOLE = b"""[   41.000000] usb 1-1: new device
[   50.000000] mce: [Hardware Error]: CPU 0: Machine Check Exception: 4 Bank 4: be00000000800400
[   50.000001] mce: [Hardware Error]: TSC 9c1254326 ADDR 1234b000 MISC 8c \r
[   50.000002] Kernel panic - not syncing: Fatal machine check on current CPU\x1b[31m
"""
NEXT = b"SeaBIOS (version 1.17.0)\n[    0.000000] Linux version 6.12\n[    1.000000] fine\n"


def test_a_host_that_dies_leaves_its_last_words(tmp_path: Path) -> None:
    console = ConsoleFile(tmp_path / "console")
    console.path.write_bytes(b"[    9.000000] Kernel panic - not syncing: of yesterday\n")
    host = FakeHost()

    def during() -> None:
        host.gone = True
        with console.path.open("ab") as file:
            file.write(CONSOLE)

    began_s = host.now_s
    told = collect(host, during, console)
    assert told.state is HostState.UNREACHABLE
    assert host.now_s - began_s <= FOUND_OUT_S
    assert "after a kernel panic: Fatal machine check on current CPU" in told.down
    assert told.last_words[-1].startswith("[   50.000002] Kernel panic")
    assert not any("yesterday" in line for line in told.last_words)
    (record,) = told.merged.records
    assert (record.grade.value, record.sources) == ("fatal", (Source.CONSOLE,))
    assert told.merged.disagreements == ()


def test_a_host_that_reboots_is_told_from_one_that_lives(tmp_path: Path) -> None:
    console = ConsoleFile(tmp_path / "console")
    host = FakeHost()

    def during() -> None:
        host.say(*printed(tsc=5))
        host.reboot()
        host.say(*printed(tsc=6))
        console.path.write_bytes(CONSOLE + NEXT)

    told = collect(host, during, console)
    assert told.state is HostState.REBOOTED
    assert FIRST_BOOT[:8] in told.down and NEXT_BOOT[:8] in told.down
    # Of the boot that ended, and not of the next.
    assert [record.tsc for record in told.merged.records] == [5, 0x9C1254326]
    assert "Kernel panic" in told.last_words[-1]
    assert told.panic


def test_a_reboot_without_a_journal_leaves_the_console(tmp_path: Path) -> None:
    host = FakeHost(journal=None, ring=b"[    1.000000] x\n")
    told = collect(host, host.reboot, ConsoleFile(tmp_path / "none"))
    assert told.gaps[0] == "kernel log: the host keeps no journal of the boot that ended"
    assert "stayed silent" in told.gaps[-1]


def test_a_short_silence_is_no_death() -> None:
    host = FakeHost()
    collector = Collector(host, sleep=lambda _: setattr(host, "gone", False), clock=host.clock)
    before = collector.before()
    host.gone = True
    assert collector.after(before).state is HostState.ALIVE


def test_a_silent_host_is_found_out_in_time_whenever_it_goes() -> None:
    for offset in range(int(EVERY_S) + 1):
        pulse, now_s, down = Pulse(FIRST_BOOT, 0.0), 0.0, None
        while down is None:
            now_s += EVERY_S
            now_s += ANSWER_TIMEOUT_S
            down = pulse.silent("timed out", now_s)
        assert now_s + offset <= FOUND_OUT_S + EVERY_S
        assert now_s <= FOUND_OUT_S
    assert Pulse(FIRST_BOOT, 0.0).silent("once", ANSWER_TIMEOUT_S) is None


def test_a_watch_tells_at_once_and_once() -> None:
    host = FakeHost()
    heard = threading.Event()
    told: list[Down] = []

    def on_down(down: Down) -> None:
        told.append(down)
        heard.set()

    watch = Watch(host, FIRST_BOOT, on_down, every_s=0.001)
    assert not heard.wait(0.02)
    host.reboot()
    assert heard.wait(5)
    assert watch.close() is told[0]
    assert told[0].state is HostState.REBOOTED
    assert Watch(FakeHost(), FIRST_BOOT, every_s=0.001).close() is None


def test_around_a_test_the_run_gets_what_was_told_whatever_it_raises(tmp_path: Path) -> None:
    run, host = RunDir(tmp_path), FakeHost()
    event = {"event": "MEMORY_FAILURE", "data": {"recipient": "hypervisor", "action": "fatal"}}
    run.qmp_log.write_text(json.dumps(event) + "\n")
    said = "Guest MCE Memory Error at QEMU addr 0x7f0000 and GUEST addr 0x12345000"
    run.qemu_log.write_text(f"qemu-system-x86_64: warning: {said} of type BUS_MCEERR_AR injected\n")
    collector = Collector(host, sleep=host.sleep, clock=host.clock)
    with pytest.raises(KeyError), collector.around(run, lambda _: None):
        host.say(*printed())
        raise KeyError
    told = host_told.read(json.loads(run.host_json.read_text()))
    assert told.merged.total == 1
    assert told.notes == (
        "QEMU: MEMORY_FAILURE of the hypervisor, action fatal",
        f"QEMU: {said}",
    )
    assert told.guest_addresses == (0x12345000,)
