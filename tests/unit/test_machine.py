# SPDX-License-Identifier: GPL-2.0-or-later
"""The launcher: QEMU's command line, its start and end, and what is left of both."""

import os
import platform
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness import agent, proc
from harness.errors import ConfigError, GuestError, HostError, MachineError
from harness.machine import private, tries, tsc, watchdog
from harness.machine.arguments import MIB, Wiring, arguments, plugin_argument
from harness.machine.base import MachineSpec, slowness
from harness.machine.qemu import Patience, QemuMachine
from harness.machine.tdx import Td
from harness.provision.qemu import Qemu
from harness.rundir import RunDir
from harness.testing.fake_qemu import option
from harness.testing.guests import fake_plan

TD = Td(firmware=Path("/fw/tdvf.fd"))
SPEC = MachineSpec(kernel=Path("/k/bzImage"), initrd=Path("/k/initrd"), plugin=Path("/p/stub.so"))
WIRING = Wiring(
    qmp_fd=5,
    agent_fd=6,
    transcript=Path("/r/transcript"),
    ssh_port=2222,
    console_socket=Path("/t/console"),
    console_log=Path("/r/console.log"),
    events=Path("/r/events"),
    disk=Path("/t/disk"),
    sandbox=True,
)


def after(words: list[str], name: str) -> list[str]:
    """What stands behind each option of that name."""
    return [words[at + 1] for at, word in enumerate(words) if word == name]


def test_command_line_of_a_td() -> None:
    words = arguments(SPEC, WIRING)
    assert after(words, "-cpu") == ["max,vendor=GenuineIntel,level=0x21"]
    assert after(words, "-append") == ["console=ttyS0 earlyprintk=ttyS0 panic=-1 pti=off"]
    assert after(words, "-netdev") == ["user,id=net,hostfwd=tcp:127.0.0.1:2222-:22"]
    assert option(words, "-chardev", "id=qmp")["fd"] == "5"
    assert option(words, "-chardev", "id=agent")["fd"] == "6"
    assert {"-no-reboot", "-sandbox", "-S"} < set(words)
    virtio = [device for device in after(words, "-device") if device.startswith("virtio-")]
    assert len(virtio) == 3
    assert all(device.endswith("iommu_platform=on,disable-legacy=on") for device in virtio)


def test_what_a_plain_vm_lacks() -> None:
    plain = arguments(replace(SPEC, td_mode="none", plugin=None), replace(WIRING, sandbox=False))
    stub = arguments(SPEC, WIRING)
    assert [word for word in stub if word not in plain] == [
        *("-sandbox", after(stub, "-sandbox")[0]),
        *("-plugin", after(stub, "-plugin")[0]),
    ]


@pytest.mark.parametrize(
    ("mib", "below", "above"), [(512, 512, 0), (2048, 2048, 0), (2050, 2048, 2), (8192, 2048, 6144)]
)
def test_memory_is_told_to_qemu_and_to_the_plugin(mib: int, below: int, above: int) -> None:
    spec = replace(SPEC, memory_mib=mib, smp=3)
    words = arguments(spec, WIRING)
    told = option(words, "-plugin")
    assert after(words, "-m") == [str(mib)] and after(words, "-smp") == ["3"]
    assert (told["below4g"], told["above4g"]) == (str(below * MIB), str(above * MIB))
    assert told["vcpus"] == "3"
    assert f"max-ram-below-4g={2048 * MIB}" in after(words, "-machine")[0]


def test_switches() -> None:
    usual, other = SPEC, replace(SPEC, track=False, seed=7, extra_cmdline="quiet a=b,c")
    assert plugin_argument(usual, Path("/e")).endswith("track=on,single=off")
    assert plugin_argument(other, Path("/e")).endswith("track=off,single=on")
    faulty = replace(SPEC, fault="cache/index=1+accept")
    assert plugin_argument(faulty, Path("/e")).endswith(",fault=cache/index=1+accept")
    assert after(arguments(other, WIRING), "-accel") == ["tcg,thread=single"]
    untimed = after(arguments(replace(other, seed=None), WIRING), "-append")[0]
    assert untimed.endswith(" pti=off quiet a=b,c")
    virtual = after(arguments(replace(other, tsc_khz=2596150), WIRING), "-append")[0]
    assert "tsc_early_khz=1000000" in virtual
    # What the user says comes last, and wins.
    timed = replace(other, tsc_khz=2596150, seed=None)
    assert after(arguments(timed, WIRING), "-append")[0].endswith(
        " tsc_early_khz=2596150 quiet a=b,c"
    )


def test_a_seed_leaves_nothing_to_the_host() -> None:
    words = arguments(replace(SPEC, seed=7), WIRING)
    assert after(words, "-seed") == ["7"]
    assert after(words, "-icount")[0].startswith("shift=4,")
    assert after(words, "-rtc")[0].endswith(",clock=vm")
    assert after(words, "-device") == after(words, "-drive") == after(words, "-netdev") == []
    assert after(words, "-machine")[0].endswith(",sata=off,smbus=off")
    assert "sata" not in after(arguments(SPEC, WIRING), "-machine")[0]
    assert option(words, "-chardev", "id=transcript")["path"] == "/r/transcript"
    assert after(words, "-serial") == ["chardev:con", "chardev:transcript"]
    assert "-seed" not in arguments(SPEC, WIRING) and "-icount" not in arguments(SPEC, WIRING)


def test_commas_in_paths() -> None:
    odd = Path("/a,b=c, d/x")
    spec = replace(SPEC, plugin=odd)
    words = arguments(
        spec, replace(WIRING, console_socket=odd, console_log=odd, events=odd, disk=odd)
    )
    plugin = words[words.index("-plugin") + 1]
    assert plugin.startswith("/a,,b=c,, d/x,out=/a,,b=c,, d/x,vcpus=")
    assert option(words, "-chardev", "id=con")["path"] == str(odd)
    assert option(words, "-chardev", "id=con")["logfile"] == str(odd)
    assert option(words, "-drive")["file"] == str(odd)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"td_mode": "sev"}, "no TD mode 'sev'"),
        ({"td_mode": "tdx"}, "has a firmware of its own"),
        ({"td": TD}, "has a firmware of its own"),
        ({"smp": 0}, "0 vCPUs"),
        ({"smp": 9}, "9 vCPUs"),
        ({"memory_mib": 511}, "511 MiB"),
        ({"memory_mib": 513}, "513 MiB"),
        ({"memory_mib": 8194}, "8194 MiB"),
        ({"plugin": None}, "needs its plugin"),
        ({"seed": -1}, "-1 is no seed"),
        ({"seed": 1 << 64}, "is no seed"),
    ],
)
def test_what_cannot_be_started(change: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        replace(SPEC, **change)  # type: ignore[arg-type]


def test_slow_guests_get_more_time() -> None:
    assert slowness(SPEC) == slowness(replace(SPEC, smp=1)) == 1.0
    assert slowness(replace(SPEC, smp=8)) == 4.0
    assert slowness(replace(SPEC, seed=7)) == 4.0


def test_a_kernel_of_many_vcpus_gives_them_more_time_before_it_calls_them_stuck() -> None:
    assert "watchdog" not in SPEC.cmdline
    many = replace(SPEC, smp=8, extra_cmdline="watchdog_thresh=5").cmdline
    assert many.endswith(
        "watchdog_thresh=40 rcupdate.rcu_cpu_stall_timeout=84 watchdog_thresh=5"
    ), "what a user says comes last, and counts"


def test_rate_of_a_counter() -> None:
    now = {"ns": 0}

    def clock_ns() -> int:
        # Every third look is late, as when another program ran in between.
        now["ns"] += 5_000_000 if now["ns"] % 3 == 0 else 100
        return now["ns"]

    def counter() -> int:
        return now["ns"] * 5 // 2

    started_s = time.monotonic()
    assert tsc.measure(counter, clock_ns, 0.01) == pytest.approx(2_500_000, rel=0.001)
    assert time.monotonic() - started_s >= 0.01


def test_rate_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    if platform.machine() == "x86_64":
        first, second = tsc.host_tsc_khz(), tsc.host_tsc_khz()
        assert first and 100_000 < first < 10_000_000
        assert second == pytest.approx(first, rel=0.001)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert tsc.host_tsc_khz() is None


def test_rate_where_no_code_may_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("no such page")

    monkeypatch.setattr("mmap.mmap", refuse)
    assert tsc.host_tsc_khz() is None


def test_port_is_free() -> None:
    with socket.create_server(("127.0.0.1", tries.free_port())) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The temporary directory of the machines; empty again at the end."""
    path = tmp_path_factory.mktemp("t")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(path))
        yield path
    assert [left.name for left in path.iterdir()] == []


def machine_of(tmp_path: Path, faults: str = "", qemu: Qemu | None = None) -> QemuMachine:
    plan = fake_plan(tmp_path / "fake", faults)
    run = RunDir.create(tmp_path / "runs", "machine")
    return QemuMachine(plan.spec, qemu or plan.qemu, run, Patience(start_s=5.0, quit_s=2.0))


def script(tmp_path: Path, words: str) -> Qemu:
    """A QEMU that is a shell script; $@ are its options, and it may go on as the fake."""
    path = tmp_path / "qemu"
    path.write_text(f'{words}\nexec {sys.executable} -m harness.testing.fake_qemu "$@"\n')
    return Qemu(("sh", str(path)), {}, "11.1.0", "a script")


def test_start_and_end(tmp_path: Path, place: Path) -> None:
    machine = machine_of(tmp_path)
    assert machine.ending() is None and not machine.alive() and machine.wait(0.0)
    try:
        machine.start()
        assert machine.agent.wait_ready(5.0)
        assert machine.alive() and machine.ending() is None and not machine.wait(0.0)
        assert machine.qmp.execute("query-status")["status"] == "running"
        assert oct(machine.private.stat().st_mode)[-3:] == "700"
        assert "RIP=" in machine.diagnose()
    finally:
        machine.stop()
    assert not machine.alive() and not machine.private.exists()
    machine.stop()
    ending = machine.ending()
    assert ending and ending.orderly
    assert "the machine ended: no reason given" in machine.diagnose()
    for gone in ("qmp", "agent"):
        with pytest.raises(MachineError, match="not running"):
            getattr(machine, gone)


@pytest.mark.parametrize(
    ("last", "words"),
    [("", "hangs in a panic"), ("[    0.3] going on\r\n", "no answer from the guest's agent")],
)
def test_panic_without_a_restart_is_told_at_once(
    last: str, words: str, tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "_PANIC_SILENCE_S", 0.2)
    monkeypatch.setattr(agent, "_WATCH_S", 0.05)
    machine = machine_of(tmp_path, "boot=hang")
    try:
        machine.start()
        machine.console.wait_for("Intel TDX", "boot", 5.0, machine.alive)
        with machine.console.log_path.open("a") as log:
            log.write(f"[    0.2] ---[ end Kernel panic - not syncing: Oh ]---\r\n{last}")
        with pytest.raises(GuestError, match=words):
            machine.agent.wait_ready(1.0)
    finally:
        machine.stop()


def test_qemu_without_a_sandbox(tmp_path: Path, place: Path) -> None:
    refuse = 'case " $* " in *" -sandbox "*) echo "qemu: -sandbox: invalid option"; exit 1; esac'
    machine = machine_of(tmp_path, qemu=script(tmp_path, refuse))
    try:
        machine.start()
        assert machine.agent.wait_ready(5.0)
        assert "-sandbox" not in (machine.console.log_path.parent / "argv").read_text()
    finally:
        machine.stop()


@pytest.mark.parametrize(
    ("words", "starts"),
    [("Could not set up host forwarding rule", 5), ("seccomp: no", 2), ("no such device", 1)],
)
def test_start_is_tried_again_where_that_may_help(
    words: str, starts: int, tmp_path: Path, place: Path
) -> None:
    log = tmp_path / "starts"
    fail = f"echo start >> '{log}'; echo 'qemu: {words}'; exit 1"
    machine = machine_of(tmp_path, qemu=script(tmp_path, fail))
    try:
        with pytest.raises(MachineError, match=f"did not start: .* status 1: qemu: {words}"):
            machine.start()
    finally:
        machine.stop()
    assert log.read_text().count("start") == starts


def test_port_that_is_taken_by_someone(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bind = (
        'port=$(printf "%s" "$*" | sed "s/.*127.0.0.1:\\([0-9]*\\)-:22.*/\\1/"); '
        f'{sys.executable} -c "import socket, sys; '
        "socket.create_server(('127.0.0.1', int(sys.argv[1])))\" $port 2>/dev/null || "
        '{ echo "Could not set up host forwarding rule"; exit 1; }'
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [taken.getsockname()[1], tries.free_port()]
        monkeypatch.setattr(tries, "free_port", iter(ports).__next__)
        machine = machine_of(tmp_path, qemu=script(tmp_path, bind))
        try:
            machine.start()
            assert machine.ssh_port == ports[1]
        finally:
            machine.stop()


def test_qemu_that_is_not_there(tmp_path: Path, place: Path) -> None:
    machine = machine_of(tmp_path, qemu=Qemu(("/nonexistent/qemu",), {}, "11.1.0", "nowhere"))
    with pytest.raises(HostError, match="cannot start /nonexistent/qemu: No such file"):
        machine.start()
    machine.stop()


def test_interrupt_while_stopping(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    machine = machine_of(tmp_path)
    machine.start()
    monkeypatch.setattr(machine.qmp, "execute", interrupt)
    with pytest.raises(KeyboardInterrupt):
        machine.stop()
    assert not machine.alive()


def test_guest_outlives_the_thread_that_started_it(tmp_path: Path, place: Path) -> None:
    machine = machine_of(tmp_path)
    thread = threading.Thread(target=machine.start)
    try:
        thread.start()
        thread.join()
        assert machine.agent.wait_ready(5.0)
        assert not machine.wait(0.2)
    finally:
        machine.stop()


def left_by_another_process(parent: Path) -> Path:
    """The private directory of a process that has ended."""
    code = (
        "import pathlib, sys; from harness.machine import private; "
        "print(private.make(pathlib.Path(sys.argv[1])))"
    )
    result = proc.run([sys.executable, "-c", code, parent], timeout_s=20.0)
    return Path(result.stdout.strip())


@pytest.fixture
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose path leaves room for a socket's."""
    return tmp_path_factory.mktemp("t")


def test_leftovers_are_removed_and_nothing_else(parent: Path) -> None:
    left = left_by_another_process(parent)
    (left / "console").touch()
    mine = private.make(parent)
    other_namespace = parent / left.name.replace("tdharness-", "tdharness-1")
    link = parent / f"{left.name}x"
    link.symlink_to(mine)
    no_directory = parent / f"{left.name}y"
    no_directory.touch()
    strangers = [other_namespace, parent / "tdharness-", parent / "tdharness-1-2-x"]
    for path in strangers:
        path.mkdir()
    assert private.remove_leftovers(parent) == 1
    assert not left.exists()
    assert sorted(parent.iterdir()) == sorted([mine, link, no_directory, *strangers])


def test_leftovers_of_others_stay(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = left_by_another_process(parent)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert private.remove_leftovers(parent) == 0
    assert left.exists()


def test_no_place_for_sockets(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    with pytest.raises(HostError, match="too long for a unix socket") as caught:
        private.make(deep)
    assert "TMPDIR" in str(caught.value)
    assert list(deep.iterdir()) == []
    with pytest.raises(HostError, match="cannot make a temporary directory"):
        private.make(tmp_path / "missing")
