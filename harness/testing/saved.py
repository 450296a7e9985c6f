# SPDX-License-Identifier: GPL-2.0-or-later
"""Run directories as the stub leaves them, for tests of what reads them."""

from pathlib import Path
from typing import Any

from harness.events import Kind
from harness.rundir import RunDir
from harness.testing.events import StreamBuilder

GPA, PAGE = 0x1234000, 4096
BOOT = b"[    0.000000] tdx: Guest detected\n"
TD_LOG = BOOT + b"[    0.040000] Memory Encryption Features active: Intel TDX\n"


def good() -> StreamBuilder:
    """A conversion to and fro that breaks no rule."""
    s = StreamBuilder()
    s.convert(GPA, PAGE, to_shared=True)
    s.convert(GPA, PAGE, to_shared=False)
    s.accept(GPA)
    s.add(Kind.COUNTER, 2, 77)
    return s


def bad() -> StreamBuilder:
    """The same, and a page that became shared with all its lines dirty."""
    s = good()
    s.convert(GPA, PAGE, to_shared=True, dirty=64, flushed=0)
    return s


class Saved:
    """A run directory with a stub run in it."""

    def __init__(self, path: Path, stream: bytes | None = None, log: bytes = TD_LOG) -> None:
        path.mkdir(exist_ok=True)
        self.run = RunDir(path)
        self.facts({"schema": 1, "td_mode": "stub", "planned_stop": True, "kernel": {}})
        self.run.events.write_bytes(good().encode() if stream is None else stream)
        self.run.console_log.write_bytes(log)

    def facts(self, facts: dict[str, Any]) -> None:
        """What run.json says."""
        self.run.write_json(self.run.run_json, facts)

    def step(self, **fields: Any) -> None:
        """One line more of steps.jsonl."""
        self.run.append_step({"name": "step", "ok": True, "rc": 0, "mark": None, **fields})
