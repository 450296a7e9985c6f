# SPDX-License-Identifier: GPL-2.0-or-later
"""The libvirt of a machine in the lab, reached over ssh: guests there, and what is left of them."""

import contextlib
import json
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
from harness.machine.away import HOME, PARENT
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

# Over 20 times slower than here, and the tests run beside others.
PATIENCE = "60"


@pytest.fixture
def uri(lab_host: LabHost, tmp_path: Path) -> str:
    """Of the lab host's own libvirtd, by the machine's ssh with the host's key pinned."""
    ssh = tmp_path / "ssh"
    ssh.write_text(
        "#!/bin/sh\nexec ssh -F none -o StrictHostKeyChecking=yes "
        f"-o UserKnownHostsFile='{lab_host.known_hosts}' \"$@\"\n"
    )
    ssh.chmod(0o755)
    words = [f"command={quote(str(ssh))}", f"keyfile={quote(str(lab_host.key_path))}", "no_tty=1"]
    words.append(f"known_hosts={quote(str(lab_host.known_hosts))}")
    return f"qemu+ssh://root@127.0.0.1:{lab_host.ssh_port}/system?{'&'.join(words)}"


@pytest.fixture
def link(uri: str) -> Iterator[Link]:
    with contextlib.closing(Link(uri)) as made:
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


def test_a_guest_there_is_judged_here(
    uri: str, lab_host: LabHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fault planted in an emulated machine's emulated machine."""
    size = ["--smp", "1", "--memory", "512", "--patience", PATIENCE]
    asked = ["--libvirt", uri, "--workload", "conversion", "--fault", "cache-large"]

    code = cli.main(["run", "--json", "--runs", str(tmp_path / "runs"), *size, *asked])

    verdict = json.loads(capsys.readouterr().out)
    assert code == ExitCode.FINDINGS, verdict
    failing = {f["rule"] for f in verdict["findings"] if f["severity"] == "fail"}
    assert failing == {"guest-cache-flush"}
    facts = json.loads((Path(verdict["run"]) / "run.json").read_text())
    assert facts["qemu"]["argv_prefix"] == ["/usr/bin/qemu-system-x86_64"]
    assert lab_host.run("sh", "-c", f"ls -d {PARENT / HOME}*").rc


def end_all(link: Link) -> set[str]:
    """End what runs there; its names."""

    def end(connection: Any) -> set[str]:
        domains = connection.listAllDomains()
        for domain in domains:
            domain.destroy()
        return {domain.name() for domain in domains}

    return link.call(end, "the end")
