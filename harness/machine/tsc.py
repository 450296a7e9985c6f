# SPDX-License-Identifier: GPL-2.0-or-later
"""The rate of this machine's time stamp counter, which a guest under TCG reads as its own.

A guest measures it against an emulated timer; on a busy host it has been off by a factor of 40,
and then its clock runs away and its watchdogs report lockups that there are not.
"""

import ctypes
import mmap
import platform
import time
from collections.abc import Callable

# rdtsc; shl rdx, 32; or rax, rdx; ret
_RDTSC = bytes.fromhex("0f31 48c1e220 4809d0 c3")
_INTERVAL_S = 0.01
_TRIES = 10
Counter = Callable[[], int]


def host_tsc_khz() -> int | None:
    """The rate in kHz, measured in a few milliseconds; None where there is no such counter."""
    if platform.machine() != "x86_64":
        return None
    try:
        with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
            page.write(_RDTSC)
            anchor = ctypes.c_char.from_buffer(page)
            read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(anchor))
            try:
                return measure(read, time.monotonic_ns)
            finally:
                # The page cannot be unmapped while something refers to it.
                del anchor, read
    except OSError:
        # A hardened host allows no page that is written and executed.
        return None


def measure(counter: Counter, clock_ns: Counter, interval_s: float = _INTERVAL_S) -> int:
    """The counter's rate against the clock, in kHz."""
    count, time_ns = _sample(counter, clock_ns)
    time.sleep(interval_s)
    later, later_ns = _sample(counter, clock_ns)
    return round((later - count) * 1_000_000 / (later_ns - time_ns))


def _sample(counter: Counter, clock_ns: Counter) -> tuple[int, int]:
    """Both at one moment: of several tries the one that nothing came in between of."""
    best: tuple[int, int, int] | None = None
    for _ in range(_TRIES):
        before, count, after = clock_ns(), counter(), clock_ns()
        if best is None or after - before < best[0]:
            best = after - before, count, (before + after) // 2
    assert best
    return best[1], best[2]
