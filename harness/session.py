# SPDX-License-Identifier: GPL-2.0-or-later
"""One guest from start to evidence: boot, slices, workload, stop."""

import base64
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import kernellog, live, shell
from harness.errors import GuestError, HarnessError, MachineError
from harness.events import Event, decode, slice_between
from harness.image import offsets_of
from harness.kernel.base import Kernel
from harness.machine.base import MachineSpec
from harness.machine.qemu import QemuMachine, check_space, remove_leftovers
from harness.provision.qemu import Qemu
from harness.rundir import RunDir
from harness.timeouts import Deadline
from harness.workload import Record, Step, read_symbols, run_step

RUN_BYTES = 256 << 20
_SSH_TIMEOUT_S = 60.0
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a run is made of."""

    spec: MachineSpec
    kernel: Kernel
    qemu: Qemu
    scenario: str = "conversion"
    # words behind `tdharness` that repeat the run
    repeat: tuple[str, ...] = ("run",)
    boot_timeout_s: float = 180.0


@dataclass(slots=True)
class Slice:
    """What happened between two marks; filled in when the slice ends."""

    mark: int
    events: tuple[Event, ...] = ()
    log: bytes = b""
    records: list[Record] = field(default_factory=list)


class Guest:
    """A running guest and its run directory; end it with stop(), whatever happened."""

    def __init__(self, plan: Plan, runs: Path, progress: Progress) -> None:
        check_space(_existing(runs), RUN_BYTES)
        remove_leftovers()
        self.plan = plan
        self.run = RunDir.create(runs, plan.scenario)
        self.machine = QemuMachine(plan.spec, plan.qemu, self.run)
        self._progress = progress
        self._next_mark = 1
        self._host_key = ""
        self.facts: dict[str, Any] = {
            "schema": 1,
            "scenario": plan.scenario,
            "td_mode": plan.spec.td_mode,
            "kernel": plan.kernel.to_json(),
            "smp": plan.spec.smp,
            "memory_mib": plan.spec.memory_mib,
            "cmdline": plan.spec.cmdline,
            "qemu": {
                "argv_prefix": list(plan.qemu.argv_prefix),
                "version": plan.qemu.version,
            },
            "plugin": str(plan.spec.plugin) if plan.spec.plugin else None,
            "planned_stop": False,
            "guest_failures": [],
            "harness_errors": [],
            "timings": {},
        }

    def boot(self) -> None:
        """Start the guest and wait until its agent answers.

        Raises GuestError when it panics, hangs, floods or never reports, MachineError when QEMU
        fails, HostError.
        """
        self._write_facts()
        self._write_reproduce()
        self._progress("starting QEMU")
        deadline = Deadline(self.plan.boot_timeout_s)
        self.facts["timings"]["exec_unix_s"] = time.time()
        self.machine.start()
        self._progress(f"booting {self.plan.kernel.release}")
        with self._blame("boot"):
            self.machine.agent.wait_ready(deadline.left_s())
        self.facts["timings"]["boot_s"] = round(deadline.elapsed_s(), 3)
        self._progress("reading the guest's symbols")
        symbols = read_symbols(self.machine.agent, offsets_of(self.plan.spec.initrd))
        self.run.write_json(self.run.symbols_json, symbols)
        self._open_ssh()
        self._write_facts()

    def _open_ssh(self) -> None:
        """Put the run's key into the guest, and pin the guest's."""
        key_path = self.machine.private / "key"
        public = shell.make_key(key_path)
        encoded = base64.b64encode(public.encode()).decode()
        put = (
            f"echo {shlex.quote(encoded)} | base64 -d > /root/.ssh/authorized_keys"
            " && chmod 600 /root/.ssh/authorized_keys && cat /etc/dropbear/host_key.pub"
        )
        rc, output = self.machine.agent.run(put, _SSH_TIMEOUT_S)
        if rc:
            raise GuestError(f"the guest did not take the ssh key: {output.strip()[-200:]}")
        self._host_key = output.strip()
        live.announce(
            self.run,
            console_socket=self.machine.console.socket_path,
            ssh_port=self.machine.ssh_port,
            key_path=key_path,
            host_key=self._host_key,
        )

    def shell(self) -> shell.Shell:
        """A new ssh connection. Raises GuestError."""
        return shell.Shell(
            self.machine.ssh_port,
            self.machine.private / "key",
            shell.parse_host_key(self._host_key),
            timeout_s=_SSH_TIMEOUT_S,
        )

    def alive(self) -> bool:
        """Whether the guest still answers."""
        if not self.machine.alive():
            return False
        try:
            return self.machine.agent.run("true", 10.0).rc == 0
        except HarnessError:
            return False

    def next_mark(self) -> int:
        """An id for the marks around something, used once per run."""
        self._next_mark += 1
        return self._next_mark - 1

    def run_step(self, step: Step) -> Record:
        """Run one step between marks. Raises GuestError, MachineError."""
        self._progress(step.name)
        with self._blame(step.name):
            return run_step(self.machine.agent, step, self.run, mark=self.next_mark())

    def run_steps(self, steps: Sequence[Step]) -> None:
        """Run steps in order; raises as run_step()."""
        start_s = time.monotonic()
        for step in steps:
            self.run_step(step)
        self.facts["timings"]["workload_s"] = round(time.monotonic() - start_s, 3)

    @contextmanager
    def slice(self) -> Iterator[Slice]:
        """Mark what happens inside, and collect its events and kernel log behind it.

        Steps run inside bring marks of their own; they are collected with it.
        """
        part = Slice(self.next_mark())
        self._mark(1, part.mark)
        yield part
        self._mark(2, part.mark)
        part.events = self.events_of(part.mark)
        part.log = kernellog.slice_between(self.run.console_log.read_bytes(), part.mark)

    def _mark(self, kind: int, mark: int) -> None:
        rc, output = self.machine.agent.run(f"tdh mark kind={kind} id={mark}", 30.0)
        if rc:
            raise GuestError(f"the guest could not set a mark: {output.strip()[-200:]}")

    def events_of(self, mark: int) -> tuple[Event, ...]:
        """The events between the marks of this id; none for a plain VM. Raises EvidenceError."""
        if self.plan.spec.td_mode == "none":
            return ()
        return slice_between(decode(self.run.events.read_bytes()), mark)

    @contextmanager
    def _blame(self, phase: str) -> Iterator[None]:
        """Tell a guest that ended by itself from a QEMU that failed, and note which it was."""
        try:
            yield
        except GuestError as error:
            self.note_guest_failure(f"{phase}: {error.message}")
            raise
        except MachineError as error:
            if not self.machine.wait(5.0) or self.machine.exit_code != 0:
                raise
            # -no-reboot: a panic or a reboot ends QEMU in good order.
            last = self.machine.console.tail(1) or "nothing was printed"
            failure = f"the guest ended during {phase}; its last line: {last}"
            self.note_guest_failure(failure)
            raise GuestError(failure, log=self.run.console_log) from error

    def note_guest_failure(self, sentence: str) -> None:
        """Keep in run.json that the guest failed, for the judge."""
        self.facts["guest_failures"].append(sentence)

    def note_harness_error(self, error: HarnessError) -> None:
        """Keep in run.json that evidence is missing because the harness or the host failed."""
        self.facts["harness_errors"].append(error.message)

    def stop(self, *, planned: bool = True) -> None:
        """End the guest and settle the evidence; safe to call twice.

        `planned` is false when the harness was interrupted: then the run cannot pass.
        """
        if self.machine.alive():
            self._progress("stopping the guest")
        ended_by_itself = self.machine.exit_code is not None and self.machine.exit_code != 0
        live.withdraw(self.run)
        self.machine.stop()
        self.facts["timings"]["end_unix_s"] = time.time()
        if boot := user_space_s(self.run.console_log):
            self.facts["timings"]["kernel_to_user_space_s"] = boot
        self.facts["planned_stop"] = planned and not ended_by_itself
        self._write_facts()

    def _write_facts(self) -> None:
        self.run.write_json(self.run.run_json, self.facts)

    def _write_reproduce(self) -> None:
        words = shlex.join(["tdharness", *self.plan.repeat])
        self.run.reproduce.write_text(f'#!/bin/sh\n# Repeats this run.\nexec {words} "$@"\n')
        self.run.reproduce.chmod(0o755)


def user_space_s(console_log: Path) -> float | None:
    """The kernel's own time at which user space began, from the console."""
    try:
        text = console_log.read_bytes()[: 4 << 20].decode(errors="replace")
    except FileNotFoundError:
        return None
    for line in text.splitlines():
        stamp, found, _ = line.partition("] tdharness: user space")
        if found:
            try:
                return float(stamp.lstrip("[ "))
            except ValueError:
                return None
    return None


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
