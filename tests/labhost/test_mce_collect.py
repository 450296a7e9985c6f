# SPDX-License-Identifier: GPL-2.0-or-later
"""The collector on a host with a real kernel, journal, rasdaemon and end: the virtual lab host."""

import time
from collections.abc import Callable

import pytest

from harness.hostmce.collect import Collector, Snapshot
from harness.hostmce.console import ConsoleFile
from harness.hostmce.record import Source
from harness.hostmce.told import HostState
from harness.hostmce.watch import FOUND_OUT_S, Down, Watch
from harness.hosts.ssh import SshRemote
from harness.labhost import checks
from harness.labhost.checks import MachineCheck
from harness.labhost.host import LabHost

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("labhost")]

DATABASE = "/var/lib/rasdaemon/ras-mc_event.db"
# Of an address of this machine: QEMU's processor has 40 bits.
KEY_ID, PAGE = 16, 0x12349000
SRAO_PAGE = 0x12347000
IN_TD = MachineCheck(
    status=0xBD80000000100134,
    address=KEY_ID << 40 | PAGE,
    bank=1,
    # RIPV, EIPV, MCIP, SEAM_NR: the CPU ran a TD. The kernel kills that, and goes on.
    global_status=0x1007,
    broadcast=True,
)
_SETTLE_S = 4.0


def inject(host: LabHost, check: MachineCheck) -> None:
    """Raise a machine check, and leave the kernel the time to find it."""
    host.inject(check)
    time.sleep(_SETTLE_S)


def test_a_living_host_tells_each_check_once_from_all_its_sources(own_lab_host: LabHost) -> None:
    collector = Collector(SshRemote(own_lab_host.entry), ConsoleFile(own_lab_host.console.log_path))
    before = collector.before()
    for check in (checks.corrected(0x12345000), checks.recoverable(SRAO_PAGE), IN_TD):
        inject(own_lab_host, check)
    told = collector.after(before)
    assert (told.state, told.gaps, told.merged.disagreements) == (HostState.ALIVE, (), ())
    assert before.rows is not None and before.tracing
    injected = {(r.bank, r.status): r for r in told.merged.records if r.status & 0xFFFF}
    assert {r.grade.value for r in injected.values()} == {"corrected", "SRAO", "SRAR"}
    for record in injected.values():
        assert {Source.TRACE, Source.RASDAEMON} <= set(record.sources), record
    (in_td,) = [r for r in injected.values() if r.of_tdx()]
    assert in_td.address(told.phys_bits) == (KEY_ID, PAGE)
    assert in_td.sources == (Source.KERNEL_LOG, Source.TRACE, Source.RASDAEMON, Source.CONSOLE)
    # What the kernel makes of the page hangs on what it holds, which no test chooses; that its log
    # and its trace event say the same of it does not.
    said = [note for note in told.notes if f"{SRAO_PAGE >> 12:#x}" in note]
    (by_log,) = [note for note in said if "recovery action" in note]
    (by_event,) = [note for note in said if note.startswith("memory_failure_event")]
    assert by_log.split()[-1] == by_event.split()[-1]
    assert by_log.split()[-1] in ("Recovered", "Ignored", "Delayed", "Failed")


def test_a_locked_database_and_a_stopped_rasdaemon(own_lab_host: LabHost) -> None:
    remote = SshRemote(own_lab_host.entry)
    collector = Collector(remote)
    held = f"sqlite3 {DATABASE} 'BEGIN EXCLUSIVE; SELECT 1;' '.shell sleep 30'"
    lock = f"systemctl stop rasdaemon; ({held}) </dev/null >/dev/null 2>&1 & sleep 3"
    assert remote.run(["sh", "-c", lock], timeout_s=60).exit_code == 0
    asked = ["sqlite3", DATABASE, "SELECT count(*) FROM mce_record"]
    assert b"locked" in remote.run(asked, timeout_s=60).stderr
    before = collector.before()
    assert before.rows is not None
    inject(own_lab_host, checks.corrected(0x12345000))
    told = collector.after(before)
    assert told.gaps == ()
    assert told.merged.total == 1
    assert told.merged.disagreements == ("rasdaemon has none of 1 of 1 machine checks",)


def watched(host: LabHost, go_down: Callable[[], None]) -> tuple[Collector, Snapshot, Down]:
    """Have it go down under a watch, which has to find that out in time."""
    remote = SshRemote(host.entry)
    collector = Collector(remote, ConsoleFile(host.console.log_path))
    before = collector.before()
    found_s: list[float] = []
    watch = Watch(remote, before.boot_id, lambda _: found_s.append(time.monotonic()))
    began_s = time.monotonic()
    go_down()
    while not found_s and time.monotonic() < began_s + 2 * FOUND_OUT_S:
        time.sleep(0.2)
    down = watch.close()
    assert down and found_s[0] - began_s < FOUND_OUT_S
    return collector, before, down


def test_a_host_that_hangs_is_found_out_in_time(own_lab_host: LabHost) -> None:
    collector, before, down = watched(own_lab_host, lambda: own_lab_host.qmp.execute("stop"))
    told = collector.after(before, down)
    assert (told.state, told.merged.total) == (HostState.UNREACHABLE, 0)


def test_a_host_that_dies_is_found_out_and_after_its_reboot_still_known(
    own_lab_host: LabHost,
) -> None:
    check = checks.fatal(0x1234B000)
    collector, before, down = watched(own_lab_host, lambda: own_lab_host.inject(check))
    told = collector.after(before, down)
    assert told.state is down.state
    assert told.panic.startswith("Fatal")
    assert any("Kernel panic - not syncing: Fatal" in line for line in told.last_words)
    (record,) = [r for r in told.merged.records if r.status == check.status]
    assert (record.grade.value, record.sources) == ("fatal", (Source.CONSOLE,))
    # The kernel resets the machine half a minute after such a panic.
    own_lab_host.wait_ready()
    later = collector.after(before)
    assert later.state is HostState.REBOOTED
    assert later.last_words == told.last_words
    assert "kernel log: the host keeps no journal of the boot that ended" in later.gaps
