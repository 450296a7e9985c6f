# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding running guests, and no others."""

import json
import os
from pathlib import Path

import pytest

from harness import live
from harness.errors import ConfigError
from harness.rundir import RunDir


def announced(runs: Path, scenario: str) -> RunDir:
    run = RunDir.create(runs, scenario)
    live.announce(
        run,
        console_socket=Path("/t/console"),
        ssh_port=2222,
        key_path=Path("/t/key"),
        host_key="ssh-ed25519 AAAA",
    )
    return run


def change(run: RunDir, **fields: object) -> None:
    path = run.path / "live.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_newest_and_named(tmp_path: Path) -> None:
    older, newer = (RunDir(tmp_path / name) for name in ("20260101-a", "20260102-b"))
    for run in (older, newer):
        announced(tmp_path, "x").path.rename(run.path)
    assert live.find(tmp_path).run != str(older.path)
    found = live.find(tmp_path, str(older.path))
    assert (found.ssh_port, found.pid) == (2222, os.getpid())
    assert found.console_socket == "/t/console" and found.host_key.startswith("ssh-")


def test_withdrawn(tmp_path: Path) -> None:
    run = announced(tmp_path, "x")
    live.withdraw(run)
    live.withdraw(run)
    with pytest.raises(ConfigError, match="no guest runs in") as caught:
        live.find(tmp_path)
    assert "--keep" in str(caught.value)


@pytest.mark.parametrize("fields", [{"pid": 2**22 + 1}, {"start_time": 1}, {"pid": "x"}, {"z": 1}])
def test_stale_ones_are_passed_over(tmp_path: Path, fields: dict[str, object]) -> None:
    running, stale = announced(tmp_path, "a"), announced(tmp_path, "z")
    change(stale, **fields)
    assert live.find(tmp_path).run == str(running.path)
    with pytest.raises(ConfigError):
        live.find(tmp_path, str(stale.path))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"'])
def test_broken_ones_are_passed_over(tmp_path: Path, text: str) -> None:
    run = announced(tmp_path, "a")
    (run.path / "live.json").write_text(text)
    with pytest.raises(ConfigError):
        live.find(tmp_path)


def test_start_time_belongs_to_one_process() -> None:
    mine = live.start_time(os.getpid())
    assert mine and mine == live.start_time(os.getpid())
    # The machine's first process is older than any that runs tests.
    assert 0 <= (live.start_time(1) or 0) < mine
    assert live.start_time(2**22 + 1) is None
