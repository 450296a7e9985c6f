# SPDX-License-Identifier: GPL-2.0-or-later
"""The run directory: where everything about one run is kept, so that it can be judged again."""

import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from harness.errors import ConfigError, HostError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the file system refuses into a HostError that names `path`."""
    try:
        yield
    except OSError as error:
        raise HostError(
            f"cannot write {path}: {error.strerror or error}",
            hint="free some space, or name another place for the runs",
        ) from error


def put(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Write a file so that a reader sees the old one or the new one, never a half.

    `mode`: its permissions; None: as the umask has them.

    Raises HostError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path):
        temporary.write_bytes(data)
        if mode is not None:
            temporary.chmod(mode)
        temporary.replace(path)


def check_space(path: Path, needed_bytes: int) -> None:
    """Raises HostError when the file system of `path`, made or not, has less than that left."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed_bytes:
        raise HostError(
            f"{place} has {free >> 20} MiB left and a run needs {needed_bytes >> 20} MiB",
            hint="remove old run directories, or name another place with --runs",
        )


class RunDir:
    """Paths and small writes of one run; `runs/<utc>-<scenario>-<id>/`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, base: Path, scenario: str) -> "RunDir":
        """Make a new directory below `base`; never reuses one. Raises HostError."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        path = base / f"{stamp}-{scenario}-{secrets.token_hex(3)}"
        with writing(path):
            path.mkdir(parents=True)
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "RunDir":
        """Open an existing run; ConfigError if this is none."""
        run = cls(path)
        if not run.run_json.is_file():
            raise ConfigError(
                f"{path} is no run directory: it holds no run.json",
                hint="name a directory below runs/",
            )
        return run

    @property
    def run_json(self) -> Path:
        """Everything needed to repeat the run."""
        return self.path / "run.json"

    @property
    def argv(self) -> Path:
        """QEMU's command line, pasteable."""
        return self.path / "argv"

    @property
    def domain_xml(self) -> Path:
        """The guest as libvirt was told it, where libvirt started it."""
        return self.path / "domain.xml"

    @property
    def console_log(self) -> Path:
        """The serial console, written by QEMU itself."""
        return self.path / "console.log"

    @property
    def host_log(self) -> Path:
        """Machine checks in the host's kernel log; only there when it took one."""
        return self.path / "host.log"

    @property
    def host_console(self) -> Path:
        """What the console of a lab's host said."""
        return self.path / "host-console.log"

    @property
    def host_json(self) -> Path:
        """What the sources of a host told (harness.hostmce); only there when they were asked."""
        return self.path / "host.json"

    @property
    def qemu_log(self) -> Path:
        """QEMU's own output."""
        return self.path / "qemu.log"

    @property
    def qmp_log(self) -> Path:
        """QMP events, one JSON object a line."""
        return self.path / "qmp.jsonl"

    @property
    def events(self) -> Path:
        """The stub's event stream (harness.events)."""
        return self.path / "events"

    @property
    def trace(self) -> Path:
        """The guest's own trace of its conversions (harness.guesttrace); only there with one."""
        return self.path / "trace"

    @property
    def transcript(self) -> Path:
        """What a guest with a script answered (harness.workload.script)."""
        return self.path / "transcript"

    @property
    def symbols_json(self) -> Path:
        """What the guest said of its addresses: KASLR offset, modules (harness.symbols)."""
        return self.path / "symbols.json"

    @property
    def steps(self) -> Path:
        """Workload steps, one JSON object a line (harness.workload)."""
        return self.path / "steps.jsonl"

    @property
    def verdict_json(self) -> Path:
        """The verdict, as `tdharness judge` writes it."""
        return self.path / "verdict.json"

    @property
    def report_html(self) -> Path:
        """The report for people."""
        return self.path / "report.html"

    @property
    def diagnosis(self) -> Path:
        """What QEMU told of a guest that failed; only there when one did."""
        return self.path / "diagnosis"

    @property
    def reproduce(self) -> Path:
        """An executable script that repeats the run."""
        return self.path / "reproduce"

    def write_json(self, path: Path, data: Any) -> None:
        """Write JSON so that a reader sees the old file or the new one, never a half.

        Raises HostError, as all that writes does.
        """
        put(path, (json.dumps(data, indent=2, sort_keys=True) + "\n").encode())

    def write_text(self, path: Path, text: str) -> None:
        """Write a text that only people read."""
        with writing(path):
            # File names may hold anything.
            path.write_text(text, encoding="utf-8", errors="surrogateescape")

    def open_log(self, path: Path) -> IO[bytes]:
        """A new file for the output of a program."""
        with writing(path):
            return path.open("wb")

    def append_step(self, step: dict[str, Any]) -> None:
        """Add one line to steps.jsonl."""
        with writing(self.steps), self.steps.open("a", encoding="utf-8") as file:
            file.write(json.dumps(step, sort_keys=True) + "\n")
