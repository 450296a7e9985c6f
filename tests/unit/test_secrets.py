# SPDX-License-Identifier: GPL-2.0-or-later
"""What is secret of a lab: in no command line, no log, no error and no run directory."""

import contextlib
import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import cli, hostguard, prepare
from harness.errors import HarnessError
from harness.hosts.config import Host, host_named
from harness.hosts.ssh import SshRemote
from harness.shell import make_key
from harness.testing.fakehost import FakeHost
from harness.testing.guests import use_fakes

SECRET = "hunter2-a5d9"
HOSTS = """
[[host]]
name = "tdx1"
address = "127.0.0.1"
port = {port}
key = "key"
known_hosts = "known_hosts"
console = ["./sol", "-f", "bmc.pass"]
power_cycle = ["./power", "-f", "bmc.pass"]
"""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words of every command that is started."""
    words: list[str] = []
    real = subprocess.Popen.__init__

    def spy(self: Any, args: Any, *rest: Any, **more: Any) -> None:
        words.extend(map(os.fspath, args))
        real(self, args, *rest, **more)

    monkeypatch.setattr(subprocess.Popen, "__init__", spy)
    return words


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lab whose secrets are where they may be: in files, and in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IPMI_PASSWORD", SECRET)
    use = tmp_path / "sol"
    # It has the secret; what it prints is the console's.
    use.write_text("#!/bin/sh\ngrep -q hunter2 $2 && echo connected\nexec sleep 60\n")
    use.chmod(0o755)
    (tmp_path / "bmc.pass").write_text(SECRET)
    make_key(tmp_path / "key")
    (tmp_path / "known_hosts").touch()
    file = tmp_path / "hosts.toml"
    file.write_text(HOSTS.format(port=1))
    return file


def where(root: Path) -> list[str]:
    """Files below that have the secret."""
    found = [path for path in root.rglob("*") if path.is_file()]
    return [path.name for path in found if SECRET.encode() in path.read_bytes()]


def test_a_run_tells_no_secret(
    lab: Path,
    started: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    @contextlib.contextmanager
    def reached(_: Host) -> Iterator[FakeHost]:
        yield FakeHost()

    monkeypatch.setattr(hostguard, "reached", reached)
    # as it was, when the test ends
    monkeypatch.setattr(prepare, "prepare", prepare.prepare)
    use_fakes(lab.parent / "fake")
    argv = ["run", "--json", "--runs", "runs", "--hosts", str(lab), "--host", "tdx1"]
    with caplog.at_level(logging.DEBUG):
        assert cli.main(argv) == 0
    (run,) = (lab.parent / "runs").iterdir()
    assert "connected" in (run / "host-console.log").read_text()
    assert "./sol" in started and "spawn: ./sol" in caplog.text
    assert not any(SECRET in word for word in started)
    assert SECRET not in caplog.text + "".join(capfd.readouterr())
    assert where(run) == []
    # The search finds what there is.
    assert where(lab.parent) == ["bmc.pass"]


@pytest.mark.parametrize("broken", ["key", "known_hosts"])
def test_errors_of_a_connection_tell_no_secret(
    lab: Path, broken: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (lab.parent / broken).write_text(f"-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRET}\n")
    with pytest.raises(HarnessError) as error:
        SshRemote(host_named("tdx1", lab), connect_timeout_s=1.0).run(["true"], timeout_s=5)
    assert broken != "known_hosts" or "no file of pinned host keys" in error.value.message
    assert SECRET not in f"{error.value} {error.value.__cause__!r}" + "".join(capfd.readouterr())
