# SPDX-License-Identifier: GPL-2.0-or-later
"""Work in two stages, side by side: what is made for an item, and what is done with it then.

Kernels are built one after the other, and run as soon as they are there, as many at once as the
machine has room for.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from pathlib import Path
from typing import Any, TypeVar

from harness import proc
from harness.errors import HarnessError

Item = TypeVar("Item")
Made = TypeVar("Made")
Done = TypeVar("Done")
# What QEMU and the harness need beside the guest's own memory.
_BESIDE_MIB = 512
_AGAIN_S = 0.2
_MIB = 1 << 20


def pipelined(
    items: Sequence[Item],
    make: Callable[[Item], Made],
    use: Callable[[Item, Made], Done],
    at_once: int = 1,
    *,
    in_order: bool = True,
) -> Iterator[tuple[Item, Done | HarnessError]]:
    """Each item with what `use` makes of what `make` made, or why there is nothing.

    In order, or each as soon as it is done.

    When the caller stops early, or is interrupted, the commands that still run are ended.
    """
    with ThreadPoolExecutor(1, "make") as makers, ThreadPoolExecutor(at_once, "use") as users:

        def second(item: Item, first: "Future[Made]") -> Done:
            return use(item, first.result())

        made = [makers.submit(make, item) for item in items]
        done = [users.submit(second, *pair) for pair in zip(items, made, strict=True)]
        item_of = dict(zip(done, items, strict=True))
        try:
            for future in done if in_order else as_completed(done):
                item = item_of[future]
                try:
                    yield item, future.result()
                except HarnessError as error:
                    yield item, error
        finally:
            _end([*made, *done])


def _end(futures: "Sequence[Future[Any]]") -> None:
    pending = {future for future in futures if not future.cancel() and not future.done()}
    while pending:
        # Again and again: a thread may have been between two commands.
        proc.end_children()
        pending = wait(pending, timeout=_AGAIN_S).not_done


def guests_at_once(smp: int, memory_mib: int) -> int:
    """How many such guests this machine has cores and memory for, at least one."""
    cores = len(os.sched_getaffinity(0)) // smp
    return max(1, min(cores, _available_mib() // (memory_mib + _BESIDE_MIB)))


def _available_mib() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024 // _MIB
    return 0
