# SPDX-License-Identifier: GPL-2.0-or-later
"""The libvirt of a machine in the lab, reached over ssh: what dead harnesses left there."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from harness import cli
from harness.errors import ExitCode
from harness.labhost.host import LabHost
from harness.live import process, start_time
from harness.machine.domain import PREFIX, Owner
from harness.machine.libvirt import this_owner
from harness.machine.libvirtlink import Link
from harness.testing.libvirtd import idle_domain

pytestmark = [
    pytest.mark.integration,
    pytest.mark.xdist_group("labhost"),
    pytest.mark.usefixtures("libvirt_python"),
    # libvirt asks each QEMU what it can, and these run in an emulated machine
    pytest.mark.nightly,
]


@pytest.fixture
def link(lab_host: LabHost, tmp_path: Path) -> Iterator[Link]:
    """To the lab host's own libvirtd, by the machine's ssh with the host's key pinned."""
    ssh = tmp_path / "ssh"
    ssh.write_text(
        "#!/bin/sh\nexec ssh -F none -o StrictHostKeyChecking=yes "
        f"-o UserKnownHostsFile='{lab_host.known_hosts}' \"$@\"\n"
    )
    ssh.chmod(0o755)
    words = f"command={quote(str(ssh))}&keyfile={quote(str(lab_host.key_path))}&no_tty=1"
    made = Link(f"qemu+ssh://root@127.0.0.1:{lab_host.ssh_port}/system?{words}")
    with contextlib.closing(made):
        yield made


def dead_owner() -> Owner:
    """A harness of this machine that has ended."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = replace(this_owner(Path("/runs/1")), process=process(child.pid))
    child.communicate(b"\n")
    assert start_time(child.pid) is None
    return owner


def create(link: Link, name: str, owner: Owner | None) -> None:
    idle_domain(link, name, Path("/usr/bin/qemu-system-x86_64"), owner)


def test_what_a_dead_harness_left_on_a_host(link: Link, capsys: pytest.CaptureFixture[str]) -> None:
    create(link, f"{PREFIX}left", dead_owner())
    create(link, f"{PREFIX}live", this_owner(Path("/runs/2")))
    create(link, f"{PREFIX}nameless", None)
    create(link, "someone-elses", dead_owner())

    code = cli.main(["hosts", "clean", "lab-host", "--libvirt", link.uri])

    assert code == ExitCode.PASS
    said = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[1:]}
    assert set(said) == {f"{PREFIX}left", f"{PREFIX}live", f"{PREFIX}nameless"}
    assert "/runs/1  its harness has ended: removed" in said[f"{PREFIX}left"]
    assert "left alone" in said[f"{PREFIX}live"]
    assert "left alone" in said[f"{PREFIX}nameless"]
    assert end_all(link) == {f"{PREFIX}live", f"{PREFIX}nameless", "someone-elses"}


def end_all(link: Link) -> set[str]:
    """End what runs there; its names."""

    def end(connection: Any) -> set[str]:
        domains = connection.listAllDomains()
        for domain in domains:
            domain.destroy()
        return {domain.name() for domain in domains}

    return link.call(end, "the end")
