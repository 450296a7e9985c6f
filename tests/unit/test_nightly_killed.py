# SPDX-License-Identifier: GPL-2.0-or-later
"""A night that is killed at any moment goes on without repeating or losing a cell."""

import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import proc
from harness.history.records import CellState, Night
from harness.history.store import History
from harness.nightly import night as nightly
from harness.nightly.config import read_config
from harness.nightly.sources import Sources, read_sources
from harness.testing.fakenight import CLEAN, FakeWorld, Kernels, bad, write_series
from harness.verdict import Outcome

PATIENCE_S = 60.0
KERNELS: Kernels = {1: (bad("f"), CLEAN), 2: (bad("f", "g"),)}
TOML = """
name = "dma"
[[series]]
source = "one"
[[series]]
source = "two"
"""


class Killed(BaseException):
    """What a kill is inside of one process: nothing below may catch it."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_series(tmp_path / "one", "x86/mm: Rename", "x86/mm: Flush less")
    write_series(tmp_path / "two", "x86/mm: Rename")
    (tmp_path / "nightly.toml").write_text(TOML)
    return tmp_path / "nightly.toml"


class Killer:
    """Counts the moments of a night, and strikes at one of them."""

    def __init__(self, at: int | None) -> None:
        self.at = at
        self.moments = 0

    def __call__(self, *_: object) -> None:
        self.moments += 1
        if self.moments == self.at:
            raise Killed

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with a moment before and one after it."""

        def guarded(*words: Any, **named: Any) -> Any:
            self()
            found = function(*words, **named)
            self()
            return found

        return guarded


def run(
    file: Path, world: FakeWorld, at: int | None, patch: pytest.MonkeyPatch, read: Sources
) -> int:
    """One start of the night; how many moments it had."""
    killer = Killer(at)
    with world.instead(), patch.context() as inner:
        # Pages, and git that reads the series, would take longer than all the rest.
        inner.setattr(nightly, "publish", killer)
        inner.setattr(nightly, "read_sources", lambda *_: read)
        for name in ("build", "in_child", "judge"):
            inner.setattr(nightly, name, killer.around(getattr(world, name)))
        for name in ("begin", "finish", "plan", "start_night", "end_night"):
            inner.setattr(History, name, killer.around(getattr(History, name)))
        nightly.run_night(read_config(file), file.parent / "runs", lambda _: None)
    return killer.moments


@pytest.fixture
def read(file: Path) -> Sources:
    with FakeWorld(KERNELS).instead():
        return read_sources(read_config(file), file.parent, lambda _: None)


def nights(file: Path) -> tuple[Night, ...]:
    with History(file.parent / "runs/history.sqlite") as history:
        return history.nights()


def summary(night: Night) -> list[tuple[object, ...]]:
    return sorted(
        (c.key, c.state, c.outcome, [(s.place, s.seen, s.looked) for s in c.sightings])
        for c in night.cells
    )


def test_a_kill_at_any_moment_repeats_nothing_and_loses_nothing(
    file: Path, read: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = FakeWorld(KERNELS)
    moments = run(file, world, None, monkeypatch, read)
    (whole,) = nights(file)
    # Both series have patch 1, and share its run; what patches 1 and 2 bring is tried again.
    assert Counter(number for number, _ in world.guests) == {0: 1, 1: 2, 2: 2}
    assert moments > 40
    resumed = 0
    for at in range(1, moments + 1):
        (file.parent / "runs/history.sqlite").unlink()
        world = FakeWorld(KERNELS)
        with pytest.raises(Killed):
            run(file, world, at, monkeypatch, read)
        before = nights(file)
        if before and before[0].ended_s:
            # It was over, and only its page is not the last.
            continue
        kept = {c.key.patch_number for n in before for c in n.cells if c.state is CellState.DONE}
        world.guests.clear()
        run(file, world, None, monkeypatch, read)
        (after,) = nights(file)
        assert [row[:3] for row in summary(after)] == [row[:3] for row in summary(whole)], at
        again = {number for number, _ in world.guests}
        # What was kept is not run again, and what was not kept is.
        assert not again & kept, at
        assert again | kept == {0, 1, 2}, at
        resumed += 1
    assert resumed > 40


def test_an_undisturbed_night_is_not_resumed(
    file: Path, read: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(file, FakeWorld(KERNELS), None, monkeypatch, read)
    world = FakeWorld(KERNELS)
    run(file, world, None, monkeypatch, read)
    assert [night.number for night in nights(file)] == [2, 1]
    assert {number for number, _ in world.guests} == {0, 1, 2}


class Child:
    """A night in a process of its own."""

    def __init__(self, file: Path, hang: str) -> None:
        self.output = file.parent / f"output-{time.monotonic_ns()}"
        words = (str(file), str(file.parent / "runs"), hang)
        argv = [sys.executable, "-m", "harness.testing.fakenight", *words]
        with self.output.open("wb") as output:
            self.process = proc.spawn(argv, stdout=output)

    def wait_for(self, words: str) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while words not in self.output.read_text():
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < end_s, self.output.read_text()
            time.sleep(0.01)


@pytest.fixture
def start(file: Path) -> Iterator[Callable[[str], Child]]:
    children: list[Child] = []

    def started(hang: str) -> Child:
        children.append(Child(file, hang))
        return children[-1]

    yield started
    for child in children:
        proc.kill_group(child.process)


@pytest.mark.parametrize(
    ("number", "moment", "code"),
    [
        (signal.SIGKILL, "build 0", -signal.SIGKILL),
        (signal.SIGKILL, "guest 2", -signal.SIGKILL),
        (signal.SIGTERM, "guest 2", 130),
        (signal.SIGTERM, "build 2", 130),
    ],
)
def test_a_signal(
    number: int, moment: str, code: int, file: Path, start: Callable[[str], Child]
) -> None:
    child = start(moment)
    child.wait_for(moment)
    child.process.send_signal(number)
    assert child.process.wait(PATIENCE_S) == code
    (before,) = nights(file)
    assert any(c.state is not CellState.DONE for c in before.cells)
    # What was interrupted is not taken for a failure of the host.
    assert not any(c.outcome is Outcome.ERROR for c in before.cells)
    assert not before.ended_s
    second = start(moment)
    assert second.process.wait(PATIENCE_S) == 1, second.output.read_text()
    assert "going on with night 1" in second.output.read_text()
    (night,) = nights(file)
    assert all(c.state is CellState.DONE for c in night.cells)
    assert night.ended_s
    # Each kernel's guest was begun once, what is new twice, and once more what was running.
    said = (child.output.read_text() + second.output.read_text()).split("\n")
    counts = {number: said.count(f"guest {number}") for number in range(3)}
    expected = {0: 1, 1: 1, 2: 2}
    expected[int(moment[-1])] += moment.startswith("guest")
    assert counts == expected
    assert (file.parent / "runs/nights/0001/index.html").is_file()
