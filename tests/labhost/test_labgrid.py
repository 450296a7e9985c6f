# SPDX-License-Identifier: GPL-2.0-or-later
"""Leases by labgrid, with a coordinator of its own on this machine."""

import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import cli, proc
from harness.errors import HostError
from harness.hosts import labgrid
from harness.hosts.config import Host, read_hosts
from harness.hosts.labgrid import PlaceLease, lease_of
from harness.hosts.lease import Lease, leased
from harness.machine.tries import free_port
from harness.remote import LocalRemote
from harness.timeouts import Deadline

pytestmark = pytest.mark.integration

START_TIMEOUT_S = 30.0


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address; it knows the place tdx1."""
    home, address = tmp_path_factory.mktemp("labgrid"), f"127.0.0.1:{free_port()}"
    program = Path(sys.executable).with_name("labgrid-coordinator")
    with pytest.MonkeyPatch.context() as patch:
        # gRPC would ask a proxy for it
        patch.setenv("no_proxy", "127.0.0.1")
        with (home / "log").open("wb") as log:
            child = proc.spawn([program, "--listen", address], stdout=log, cwd=home)
        try:
            _wait_for(address)
            client(address, "create")
            yield address
        finally:
            proc.kill_group(child)


def _wait_for(address: str) -> None:
    deadline, (host, port) = Deadline(START_TIMEOUT_S), address.split(":")
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1.0).close()
            return
        except OSError:
            assert not deadline.expired()


def client(address: str, *words: str, user: str = "") -> None:
    program = Path(sys.executable).with_name("labgrid-client")
    env = ["env", f"LG_USERNAME={user}"] if user else []
    proc.run([*env, program, "-x", address, "-p", "tdx1", *words], timeout_s=START_TIMEOUT_S)


def place(address: str, **more: float) -> PlaceLease:
    found = lease_of(Host(name="a", labgrid="tdx1", coordinator=address), LocalRemote())
    assert isinstance(found, PlaceLease)
    found.lease_s = more.get("lease_s", found.lease_s)
    return found


@pytest.fixture(autouse=True)
def freed(coordinator: str) -> Iterator[None]:
    """Whatever a test leaves, the next finds the place free."""
    yield
    place(coordinator).ask("clear")


def test_a_place_is_acquired_for_as_long_as_it_is_needed(coordinator: str) -> None:
    lease, other = place(coordinator), place(coordinator)
    assert not lease.ask("show").held
    with leased(lease, 1.0):
        assert lease.ask("show").owner == lease.us
        # It is one user's, and still one harness's.
        assert not other.ask("take").held
        assert lease.ask("keep").held
    assert not lease.ask("show").held
    # Given back twice, as by a person meanwhile.
    assert not lease.ask("drop").held


def test_another_s_place_is_waited_for_and_named(coordinator: str) -> None:
    client(coordinator, "acquire", user="ada")
    said: list[str] = []
    with pytest.raises(HostError, match=r"not free after .*/ada has it"):
        place(coordinator).take(4.0, said.append)
    assert said[0].startswith("waiting for the host: ") and said[0].endswith("/ada has it")
    later = threading.Timer(0.5, client, (coordinator, "release"), {"user": "ada"})
    later.start()
    with leased(place(coordinator), 20.0) as lease:
        assert lease.ask("show").held
    later.join()


def test_who_is_kicked_out_is_told(coordinator: str) -> None:
    with leased(place(coordinator, lease_s=0.4), 5.0) as lease:
        place(coordinator).ask("clear")
        assert lease.ended.wait(20)


def test_the_commands(coordinator: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "hosts.toml"
    words = f"labgrid = 'tdx1'\ncoordinator = '{coordinator}'\n"
    file.write_text(f"[[host]]\nname = 'lab'\naddress = '127.0.0.1'\n{words}")
    hosts = ["--hosts", str(file)]
    inside = [sys.executable, "-m", "harness.cli", "hosts", "list", *hosts]
    assert cli.main(["hosts", "lease", *hosts, "--wait", "20", "lab", "--", *inside]) == 0
    held = capfd.readouterr().out.splitlines()[-1].split()
    assert held[:3] == ["lab", "127.0.0.1", "stub"] and "/" in held[3]
    client(coordinator, "acquire", user="ada")
    assert cli.main(["hosts", "release", *hosts, "lab"]) == 0
    assert cli.main(["hosts", "list", *hosts]) == 0
    assert capfd.readouterr().out.split()[-1] == "free"


def test_what_is_missing_is_said(
    coordinator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = PlaceLease(LocalRemote(), place="other", coordinator=coordinator)
    with pytest.raises(HostError, match=r"did not acquire other: .*matches nothing"):
        nowhere.ask("take")
    monkeypatch.setattr(labgrid, "_program", lambda: str(tmp_path / "none"))
    with pytest.raises(HostError, match="cannot start"):
        nowhere.ask("take")


def test_a_host_without_a_place_has_its_own_lease(tmp_path: Path) -> None:
    file = tmp_path / "hosts.toml"
    file.write_text("[[host]]\nname = 'a'\naddress = 'a'\nlabgrid = 'p'\ncoordinator = 'c:1'\n")
    host = read_hosts(file)["a"]
    assert (host.labgrid, host.coordinator) == ("p", "c:1")
    assert type(lease_of(Host(name="a"), LocalRemote())) is Lease
