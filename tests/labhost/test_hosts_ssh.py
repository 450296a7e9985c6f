# SPDX-License-Identifier: GPL-2.0-or-later
"""A host over ssh, with a real ssh server and a real machine behind it: the virtual lab host."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from harness import cli
from harness.errors import ConfigError, HarnessError, HostError
from harness.hostmce.watch import ask_boot_id
from harness.hosts.facts import facts_of
from harness.hosts.lease import Lease, leased
from harness.hosts.preflight import fit, preflight
from harness.hosts.ssh import SshRemote
from harness.labhost.host import LabHost
from harness.shell import make_key

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("labhost")]

HOSTILE = [
    "a b",
    "$(reboot)",
    "`id`",
    "'",
    '"',
    "\n",
    "-n",
    "",
    "*",
    "~",
    "\\",
    "é",
    ";",
    "&&",
    "\x1b",
]


@pytest.fixture
def remote(lab_host: LabHost) -> Iterator[SshRemote]:
    with SshRemote(lab_host.entry) as made:
        yield made


def test_words_output_input_and_exit_codes_arrive_as_they_are(remote: SshRemote) -> None:
    answer = remote.run(["printf", "%s\\0", *HOSTILE], timeout_s=60)
    assert answer.stdout.decode().split("\0")[:-1] == HOSTILE
    answer = remote.run(["sh", "-c", "cat; echo no >&2; exit 3"], timeout_s=60, stdin=b"\0\xffin")
    assert (answer.exit_code, answer.stdout, answer.stderr) == (3, b"\0\xffin", b"no\n")
    assert remote.run(["no-such-program"], timeout_s=60).exit_code == 127
    # input that is not read, more than fits into any buffer
    assert remote.run(["true"], timeout_s=60, stdin=bytes(8 << 20)).exit_code == 0


def test_output_is_bounded(remote: SshRemote) -> None:
    argv = ["head", "-c", "3000000", "/dev/zero"]
    answer = remote.run(argv, timeout_s=60, max_bytes=1000)
    assert (answer.exit_code, answer.stdout, answer.truncated) == (0, bytes(1000), True)


def test_a_command_that_takes_too_long_ends_there_as_well(remote: SshRemote) -> None:
    with pytest.raises(HostError, match=r"sleep 6\d\d: after .* it did not end in time"):
        remote.run(["sleep", "612"], timeout_s=8)
    end_s = time.monotonic() + 60
    while remote.run(["pgrep", "-f", "^sleep 612"], timeout_s=60).exit_code == 0:
        assert time.monotonic() < end_s
        time.sleep(0.5)


def test_commands_of_two_threads_share_the_connection(remote: SshRemote) -> None:
    said: list[bytes] = []
    long = threading.Thread(
        target=lambda: said.append(remote.run(["sh", "-c", "sleep 2; echo 1"], timeout_s=60).stdout)
    )
    long.start()
    assert remote.run(["echo", "2"], timeout_s=60).stdout == b"2\n"
    long.join(60)
    assert said == [b"1\n"]


def test_a_connection_that_is_lost_in_a_command_is_told_and_made_again(remote: SshRemote) -> None:
    # its own session's server process, as a network that went away would have it end
    cut = 'kill -9 $(ps -o ppid= -p $PPID | tr -d " ") $PPID; sleep 60'
    with pytest.raises(HostError, match=r"connection was lost .* not known how far it got"):
        remote.run(["sh", "-c", cut], timeout_s=60)
    assert remote.run(["echo", "again"], timeout_s=60).stdout == b"again\n"


def test_a_host_key_that_changed_is_refused(lab_host: LabHost, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other")
    pinned = tmp_path / "known_hosts"
    pinned.write_text(f"[127.0.0.1]:{lab_host.ssh_port} {other}\n")
    with pytest.raises(ConfigError, match=r"another host key than the .*SHA256:.*SHA256:"):
        SshRemote(replace(lab_host.entry, known_hosts=pinned)).run(["true"], timeout_s=60)
    # and one that nobody pinned
    pinned.write_text("")
    with pytest.raises(ConfigError, match="not pinned: SHA256:"):
        SshRemote(replace(lab_host.entry, known_hosts=pinned)).run(["true"], timeout_s=60)
    assert pinned.read_text() == ""
    pinned.unlink()
    with pytest.raises(ConfigError, match="cannot read the pinned host keys"):
        SshRemote(replace(lab_host.entry, known_hosts=pinned)).run(["true"], timeout_s=60)


def test_a_key_that_the_host_does_not_know(lab_host: LabHost, tmp_path: Path) -> None:
    make_key(tmp_path / "key")
    with pytest.raises(ConfigError, match="lets root in with none of"):
        SshRemote(replace(lab_host.entry, key=tmp_path / "key")).run(["true"], timeout_s=60)


def test_a_host_that_is_not_there_and_one_that_says_nothing(lab_host: LabHost) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = replace(lab_host.entry, port=silent.getsockname()[1])
        with pytest.raises(HostError, match="no ssh to lab-host"):
            SshRemote(host, connect_timeout_s=1.0).run(["true"], timeout_s=60)
    with pytest.raises(HostError, match="no ssh to lab-host"):
        SshRemote(host).run(["true"], timeout_s=60)


def test_two_harnesses_want_one_host(lab_host: LabHost, remote: SshRemote) -> None:
    with SshRemote(lab_host.entry) as other:
        mine, theirs = Lease(remote, "mine"), Lease(other, "theirs")
        with leased(mine, 10):
            found = theirs.ask("take")
            assert (found.held, found.owner, found.position) == (False, "mine", 1)
        theirs.take(10, print)
        assert mine.ask("show").owner == "theirs"
        theirs.ask("drop")


def test_preflight_and_the_commands(
    lab_host: LabHost, remote: SshRemote, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    facts = facts_of(remote)
    lines = {line.name: line for line in preflight(lab_host.entry, facts)}
    assert lines["rasdaemon"].found == "active"
    tdx = preflight(replace(lab_host.entry, mode="tdx"), facts)
    assert not fit(tdx)
    assert {line.name for line in tdx if line.grade == "fail"} >= {"kvm_intel", "kernel"}
    assert facts.msrs.keys() <= {"tme", "seamrr", "key_ids", "refused"}

    file = tmp_path / "hosts.toml"
    file.write_text(
        f"[[host]]\nname = 'lab'\naddress = '127.0.0.1'\nport = {lab_host.ssh_port}\n"
        f"key = '{lab_host.key_path}'\nknown_hosts = '{lab_host.known_hosts}'\nmemory_mib = 64\n"
    )
    assert cli.main(["hosts", "check", "--hosts", str(file), "lab"]) == 0
    assert "lab: fit for mode stub" in capfd.readouterr().out
    seen = tmp_path / "seen"
    argv = ["hosts", "lease", "--hosts", str(file), "lab", "--"]
    assert cli.main([*argv, "sh", "-c", f"echo > {seen}; exit 7"]) == 1
    assert seen.exists()
    assert cli.main(["hosts", "list", "--hosts", str(file)]) == 0
    assert capfd.readouterr().out.splitlines()[-1].split() == ["lab", "127.0.0.1", "stub", "free"]


def test_a_host_that_restarts_is_another_boot(own_lab_host: LabHost) -> None:
    with SshRemote(own_lab_host.entry) as remote:
        boot = ask_boot_id(remote)
        own_lab_host.power_cycle()
        # The old connection went with the old boot; whichever call finds out says so.
        after, end_s = boot, time.monotonic() + 120
        while after == boot and time.monotonic() < end_s:
            with suppress(HarnessError):
                after = ask_boot_id(remote)
        assert after == own_lab_host.boot_ids[-1]
