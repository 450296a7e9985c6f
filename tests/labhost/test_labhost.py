# SPDX-License-Identifier: GPL-2.0-or-later
"""The virtual lab host: a machine as labs have them, which takes machine checks as those do."""

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from harness.errors import GuestError, MachineError
from harness.labhost import checks
from harness.labhost.host import LabHost
from harness.labhost.launch import lab_host as launched
from harness.shell import Shell, make_key, parse_host_key

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("labhost")]

PAGE = 0x2345_6000
RECORDS = "select bank, addr, mcistatus_msg from mce_record order by id"
DATABASE = "/var/lib/rasdaemon/ras-mc_event.db"
EVENT_TIMEOUT_S = 60.0


def shell(host: LabHost, command: str) -> str:
    return host.run("sh", "-c", command).stdout


def waited_for(host: LabHost, command: str, wanted: str) -> str:
    """What the command says once `wanted` is in it."""
    end = time.monotonic() + EVENT_TIMEOUT_S
    while wanted not in (said := shell(host, command)):
        assert time.monotonic() < end, f"{command} never said {wanted!r}, but {said!r}"
        time.sleep(0.5)
    return said


def test_it_is_a_machine_of_a_lab(lab_host: LabHost) -> None:
    said = shell(lab_host, "systemctl is-system-running; cat /proc/sys/kernel/random/boot_id")
    assert said.split() == ["running", lab_host.boot_ids[-1]]
    assert "QEMU emulator version 11.1" in shell(lab_host, "qemu-system-x86_64 --version")
    guests = shell(lab_host, "virsh -c qemu:///system list --all")
    assert guests.split()[:3] == ["Id", "Name", "State"]
    assert lab_host.known_hosts.read_text().startswith(f"[127.0.0.1]:{lab_host.ssh_port} ssh-")


def test_another_host_key_is_refused(lab_host: LabHost, tmp_path: Path) -> None:
    other = parse_host_key(make_key(tmp_path / "other"))
    with pytest.raises(GuestError, match="another host key"):
        Shell(lab_host.ssh_port, lab_host.key_path, other, timeout_s=30)


def test_another_client_key_is_refused(lab_host: LabHost, tmp_path: Path) -> None:
    make_key(tmp_path / "key")
    pinned = parse_host_key(lab_host.image.host_key)
    with pytest.raises(GuestError, match="refused the key"):
        Shell(lab_host.ssh_port, tmp_path / "key", pinned, timeout_s=30)


def test_it_reaches_nothing_outside(lab_host: LabHost) -> None:
    with socket.create_server(("127.0.0.1", 0)) as here:
        # 10.0.2.2 is this machine, to a guest of QEMU's user network that is not shut in.
        word = f"</dev/tcp/10.0.2.2/{here.getsockname()[1]}"
        assert lab_host.run("timeout", "3", "bash", "-c", word).rc


def test_a_corrected_error_is_logged(own_lab_host: LabHost) -> None:
    assert not shell(own_lab_host, f"sqlite3 {DATABASE} '{RECORDS}'")
    own_lab_host.inject(checks.corrected(PAGE))
    waited_for(own_lab_host, "dmesg", "Machine check events logged")
    said = waited_for(own_lab_host, f"sqlite3 {DATABASE} '{RECORDS}'", "|")
    assert said.strip() == f"9|{PAGE}|Corrected_error"


def test_a_recoverable_error_costs_the_page(own_lab_host: LabHost) -> None:
    own_lab_host.inject(checks.recoverable(PAGE))
    waited_for(own_lab_host, "dmesg", f"Memory failure: {PAGE >> 12:#x}: recovery action")
    said = waited_for(own_lab_host, f"sqlite3 {DATABASE} '{RECORDS}'", f"9|{PAGE}|")
    assert "Uncorrected" in said
    assert shell(own_lab_host, "systemctl is-system-running").strip() == "running"


def test_a_fatal_error_kills_it(own_lab_host: LabHost) -> None:
    own_lab_host.inject(checks.fatal(PAGE))
    own_lab_host.console.wait_for("Kernel panic - not syncing", "panic", 60, own_lab_host.alive)
    words = own_lab_host.console.log_path.read_text(errors="replace")
    assert "Machine Check Exception: 5 Bank 1: bf80000000000134" in words
    assert f"ADDR {PAGE:x}" in words
    # Its kernel restarts the machine, as that of a server does.
    own_lab_host.console.wait_for("Linux version", "restart", 120, own_lab_host.alive)


@pytest.mark.nightly
def test_it_comes_back_from_a_fatal_error(own_lab_host: LabHost) -> None:
    before = own_lab_host.boot_ids[-1]
    own_lab_host.inject(checks.fatal(PAGE))
    after = own_lab_host.wait_ready()
    assert after != before
    assert shell(own_lab_host, "cat /proc/sys/kernel/random/boot_id").strip() == after


def test_nothing_is_left_behind(built: None, tmp_path: Path) -> None:
    with launched(tmp_path) as host:
        pid, image = host.pid, host.image
        before = image.overlay.stat().st_mtime_ns, image.disk.stat().st_mtime_ns
        shell(host, "echo word >/root/left && sync")
        os.kill(pid, signal.SIGKILL)
        with pytest.raises((GuestError, MachineError)):
            host.wait_ready(10)
    assert not Path(f"/proc/{pid}").exists()
    assert before == (image.overlay.stat().st_mtime_ns, image.disk.stat().st_mtime_ns)
    with launched(tmp_path) as host:
        assert host.run("test", "-e", "/root/left").rc == 1
