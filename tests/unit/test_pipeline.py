# SPDX-License-Identifier: GPL-2.0-or-later
"""Two stages side by side, and what happens to them when the caller has enough."""

import threading
import time
from collections.abc import Iterator

import pytest

from harness import proc
from harness.errors import BuildError, HostError
from harness.pipeline import guests_at_once, pipelined


def test_results_come_in_order_and_failures_keep_their_place() -> None:
    def make(item: int) -> int:
        if item == 2:
            raise BuildError("does not build")
        return item * 10

    found = list(pipelined([1, 2, 3], make, lambda item, made: (item, made), 2))
    assert [item for item, _ in found] == [1, 2, 3]
    assert found[0][1] == (1, 10)
    assert isinstance(found[1][1], BuildError)
    assert found[2][1] == (3, 30)


def test_the_next_is_made_while_one_is_used() -> None:
    making = threading.Event()

    def make(item: int) -> int:
        if item == 2:
            making.set()
        return item

    def use(item: int, made: int) -> bool:
        return making.wait(30.0)

    assert [done for _, done in pipelined([1, 2], make, use)] == [True, True]


def test_what_is_wrong_with_the_harness_is_raised() -> None:
    def use(item: int, made: int) -> int:
        raise AssertionError("a bug")

    with pytest.raises(AssertionError, match="a bug"):
        list(pipelined([1], lambda item: item, use))


def test_an_interruption_ends_the_commands_of_both_stages() -> None:
    started: list[str] = []

    def sleep(what: str) -> None:
        started.append(what)
        proc.run(["sleep", "600"], timeout_s=700, check=False)

    def make(item: int) -> int:
        if item == 2:
            sleep("make")
        return item

    def use(item: int, made: int) -> int:
        if item == 1:
            sleep("use")
        return made

    results = pipelined([0, 1, 2], make, use)
    assert next(results) == (0, 0)
    begin_s = time.monotonic()
    while len(started) < 2:
        time.sleep(0.01)
    results.close()
    assert time.monotonic() - begin_s < 60.0
    assert not proc._running


def test_an_interruption_while_work_is_handed_out_ends_it_all() -> None:
    started = threading.Event()

    class Items(list[int]):
        """The interruption comes when the first item is being made and the second is due."""

        def __iter__(self) -> Iterator[int]:
            yield 1
            assert started.wait(30.0)
            raise KeyboardInterrupt

    def make(item: int) -> int:
        started.set()
        proc.run(["sleep", "600"], timeout_s=700, check=False)
        return item

    with pytest.raises(KeyboardInterrupt):
        next(pipelined(Items([1, 2]), make, lambda item, made: made))
    assert not proc._running


def test_what_is_done_first_comes_first_when_asked() -> None:
    slow = threading.Event()

    def use(item: int, made: int) -> int:
        if item == 1:
            assert slow.wait(30.0)
        return item

    results = pipelined([1, 2], lambda item: item, use, 2, in_order=False)
    assert next(results) == (2, 2)
    slow.set()
    assert list(results) == [(1, 1)]


def test_a_command_that_takes_no_notice_is_killed() -> None:
    stubborn = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    ended: list[object] = []

    def work() -> None:
        try:
            ended.append(proc.run(["sh", "-c", stubborn], timeout_s=60.0, check=False))
        except HostError as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not proc._running:
        time.sleep(0.01)
    time.sleep(0.2)
    proc.end_children(grace_s=0.3)
    thread.join(30.0)
    assert isinstance(ended[0], proc.Result)
    assert ended[0].returncode == -9


def test_there_is_always_room_for_one_guest() -> None:
    assert guests_at_once(64, 1 << 30) == 1
    assert guests_at_once(1, 1) >= 1
