# SPDX-License-Identifier: GPL-2.0-or-later
"""Work in two stages, side by side: what is made for an item, and what is done with it then.

Kernels are built one after the other, and run as soon as they are there, as many at once as the
machine has room for.
"""

import os
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

from harness import proc
from harness.errors import HarnessError

Item = TypeVar("Item")
Made = TypeVar("Made")
Done = TypeVar("Done")
# What QEMU and the harness need beside the guest's own memory.
BESIDE_MIB = 512
_AGAIN_S = 0.05
_MIB = 1 << 20


def pipelined(
    items: Sequence[Item],
    make: Callable[[Item], Made],
    use: Callable[[Item, Made], Done],
    at_once: int = 1,
    *,
    in_order: bool = True,
) -> Generator[tuple[Item, Done | HarnessError], None, None]:
    """Each item with what `use` makes of what `make` made, or why there is nothing.

    In order, or each as soon as it is done.

    When the caller stops early, or is interrupted, the commands that still run are ended.
    """
    work = _Work()

    def second(item: Item, first: "Future[Made]") -> Done:
        return use(item, first.result())

    with ThreadPoolExecutor(1, "make") as makers, ThreadPoolExecutor(at_once, "use") as users:
        # An interruption may come at any line: whatever has begun by then is ended.
        try:
            item_of = {}
            for item in items:
                first = makers.submit(work.do, make, item)
                item_of[users.submit(work.do, second, item, first)] = item
            for future in item_of if in_order else as_completed(item_of):
                try:
                    yield item_of[future], future.result()
                except HarnessError as error:
                    yield item_of[future], error
        except BaseException:
            work.end(makers, users)
            raise


class _Work:
    """What the threads do now, whether or not the caller has come to know of it."""

    def __init__(self) -> None:
        self._running: set[object] = set()
        self._ended = threading.Event()

    def do(self, function: Callable[..., Done], *words: Any) -> Done:
        """Call the function, unless all has been ended."""
        token = object()
        self._running.add(token)
        try:
            if self._ended.is_set():
                raise CancelledError
            return function(*words)
        finally:
            self._running.discard(token)

    def end(self, *pools: ThreadPoolExecutor) -> None:
        """Begin nothing more, and end the commands that are waited for."""
        self._ended.set()
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
        while self._running:
            # Again and again: a thread may have been between two commands.
            proc.end_children()
            time.sleep(_AGAIN_S)


def guests_at_once(smp: int, memory_mib: int) -> int:
    """How many such guests this machine has cores and memory for, at least one."""
    cores = len(os.sched_getaffinity(0)) // smp
    return max(1, min(cores, _available_mib() // (memory_mib + BESIDE_MIB)))


def _available_mib() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024 // _MIB
    return 0
