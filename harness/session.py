# SPDX-License-Identifier: GPL-2.0-or-later
"""One guest from start to evidence: boot, slices, workload, stop."""

import base64
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import guesttrace, kernellog, live, shell
from harness.agent import AgentResult
from harness.errors import EvidenceError, GuestError, HarnessError, MachineError
from harness.events import Event, decode, slice_between
from harness.hostlog import host_log
from harness.image import offsets_of
from harness.injector import Injector
from harness.machine.base import Ending, Machine, slowness
from harness.machine.private import remove_leftovers
from harness.machine.qemu import QemuMachine
from harness.plan import Plan, first_facts, qemu_facts
from harness.rundir import RunDir, check_space, writing
from harness.text import printable
from harness.timeouts import Deadline
from harness.tracer import Tracer
from harness.workload import (
    MOST_TRANSCRIPT_BYTES,
    Agent,
    Answers,
    Record,
    Step,
    commands_of,
    marks_of,
    read_symbols,
    run_step,
)

RUN_BYTES = 256 << 20
# Of the console, for one slice; more than a guest may print at all.
MOST_LOG_BYTES = 32 << 20
USER_SPACE = "tdharness: user space"
_SSH_TIMEOUT_S = 60.0
_MARK_TIMEOUT_S = 30.0
_ALIVE_TIMEOUT_S = 10.0
_DEATH_TIMEOUT_S = 5.0
Progress = Callable[[str], None]


def _machine(plan: Plan, run: RunDir) -> Machine:
    if not plan.libvirt:
        return QemuMachine(plan.spec, plan.qemu, run)
    # Few use it, and its import takes as long as all others.
    from harness.machine.libvirt import LibvirtMachine

    return LibvirtMachine(plan.spec, plan.qemu, run, plan.libvirt)


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
        check_space(runs, RUN_BYTES)
        remove_leftovers()
        self.plan = plan
        self.run = RunDir.create(runs, plan.scenario)
        self.machine = _machine(plan, self.run)
        self._progress = progress
        self._slowness = slowness(plan.spec)
        self._next_mark = 1
        self._host_key = ""
        self._may_end = False
        self._stopped = False
        self._injector: Injector | None = None
        self._tracer = Tracer(plan.kernel.image, self.run, self._slowness) if plan.trace else None
        self.facts = first_facts(plan)

    def boot(self) -> None:
        """Start the guest and wait until its agent answers.

        Raises GuestError when it panics, hangs, floods or never reports, MachineError when QEMU
        fails, HostError.
        """
        self._write_facts()
        self._write_reproduce()
        self._progress("starting QEMU")
        deadline = Deadline(self.plan.boot_timeout_s * self._slowness)
        self.facts["timings"]["exec_unix_s"] = time.time()
        with self._blame("boot"):
            self._start()
            if self.plan.spec.vmm:
                self._injector = Injector(self.run.events, self.machine.qmp.human)
            self._progress(f"booting {self.plan.kernel.release}")
            self._greet(deadline)
            self.facts["timings"]["boot_s"] = round(deadline.elapsed_s(), 3)
        self._write_facts()

    def _start(self) -> None:
        self.machine.start()
        self.facts["qemu"] = qemu_facts(self.machine.qemu)

    def _greet(self, deadline: Deadline) -> None:
        """Wait for a kernel's user space, and learn what its guest is known by."""
        self.machine.most_silence_s = self.plan.silence_timeout_s * self._slowness
        self.machine.agent.wait_ready(deadline.left_s())
        self.machine.most_silence_s = None
        self._read_symbols(self.machine.agent)
        if self._tracer:
            self._tracer.begin(self.machine.agent)
        self._open_ssh()

    def _read_symbols(self, agent: Agent) -> None:
        self._progress("reading the guest's symbols")
        symbols = read_symbols(agent, offsets_of(self.plan.spec.initrd))
        self.run.write_json(self.run.symbols_json, symbols)

    def run_script(self, steps: Sequence[Step]) -> None:
        """Boot a guest that runs these steps by itself and powers off (harness.workload.script).

        Raises as boot() and run_steps().
        """
        self._write_facts()
        self._write_reproduce()
        self._progress("starting QEMU")
        timeout_s = self.plan.boot_timeout_s + sum(step.timeout_s for step in steps)
        deadline = Deadline(timeout_s * self._slowness)
        self.facts["timings"]["exec_unix_s"] = time.time()
        with self._blame("script"):
            self._start()
            self._progress(f"{self.plan.kernel.release} boots and works by itself")
            self._wait_for_end(deadline)
        self.let_end()
        answers = Answers(
            commands_of(steps), read_from(self.run.transcript, 0, MOST_TRANSCRIPT_BYTES)
        )
        with self._blame("script"):
            self._read_symbols(answers)
        for step, mark in zip(steps, marks_of(steps), strict=True):
            with self._blame(step.name):
                run_step(answers, step, self.run, mark=mark)

    def _wait_for_end(self, deadline: Deadline) -> None:
        while not self.machine.wait(1.0):
            self.machine.agent.check()
            written = self.run.transcript.stat().st_size
            if deadline.expired():
                raise GuestError(f"the guest did not end within {deadline.timeout_s:.0f} s")
            if written > MOST_TRANSCRIPT_BYTES or self.machine.console.size() > MOST_LOG_BYTES:
                raise GuestError("the guest flooded its console or its transcript")

    def _open_ssh(self) -> None:
        """Put the run's key into the guest, and pin the guest's."""
        key_path = self.machine.private / "key"
        with writing(key_path):
            # of a kernel before this one
            key_path.unlink(missing_ok=True)
            public = shell.make_key(key_path)
        encoded = base64.b64encode(public.encode()).decode()
        put = (
            f"echo {shlex.quote(encoded)} | base64 -d > /root/.ssh/authorized_keys"
            " && chmod 600 /root/.ssh/authorized_keys && cat /etc/dropbear/host_key.pub"
        )
        rc, output = self.machine.agent.run(put, _SSH_TIMEOUT_S * self._slowness)
        if rc:
            raise GuestError(f"the guest did not take the ssh key: {printable(output.strip())}")
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
            timeout_s=_SSH_TIMEOUT_S * self._slowness,
        )

    def alive(self) -> bool:
        """Whether the guest still answers."""
        if not self.machine.alive():
            return False
        try:
            return self.machine.agent.run("true", _ALIVE_TIMEOUT_S * self._slowness).rc == 0
        except HarnessError:
            return False

    def sh(self, command: str, timeout_s: float) -> AgentResult:
        """Run a line of shell in the guest. Raises GuestError, MachineError."""
        with self._blame(printable(command, 80)):
            return self.machine.agent.run(command, timeout_s * self._slowness)

    def next_mark(self) -> int:
        """An id for the marks around something, used once per run."""
        self._next_mark += 1
        return self._next_mark - 1

    def run_step(self, step: Step) -> Record:
        """Run one step between marks, and greet the kernel that it may start.

        Raises GuestError, MachineError.
        """
        self._progress(step.name)
        step = replace(step, timeout_s=step.timeout_s * self._slowness)
        with self._blame(step.name):
            mark = step.mark or self.next_mark()
            record = run_step(self.machine.agent, step, self.run, mark=mark)
            if step.restarts and record.ok:
                self._greet(Deadline(self.plan.boot_timeout_s * self._slowness))
            self._collect_trace()
        return record

    def _collect_trace(self) -> None:
        if self._tracer:
            self._tracer.collect(self.machine.agent)

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
        begin = self.machine.console.size()
        self._mark(1, part.mark)
        yield part
        self._mark(2, part.mark)
        self._collect_trace()
        self.machine.settle()
        part.events = self.events_of(part.mark)
        part.log = kernellog.slice_between(read_from(self.run.console_log, begin), part.mark)

    def _mark(self, kind: int, mark: int) -> None:
        rc, output = self.sh(f"tdh mark kind={kind} id={mark}", _MARK_TIMEOUT_S)
        if rc:
            raise GuestError(f"the guest could not set a mark: {printable(output.strip())}")

    def events_of(self, mark: int) -> tuple[Event, ...]:
        """The events between the marks of this id; none without the stub and without a trace.

        Raises EvidenceError.
        """
        if self.plan.spec.td_mode == "stub":
            return slice_between(decode(self.run.events.read_bytes()), mark)
        trace = self.trace()
        return slice_between(trace.stream, mark) if trace else ()

    def trace(self) -> guesttrace.Trace | None:
        """What the guest has traced so far; None where it does not.

        Raises EvidenceError where that cannot be judged.
        """
        if not self._tracer:
            return None
        trace = guesttrace.read(self.run.trace.read_text())
        if trace.unfit:
            raise EvidenceError(trace.unfit, log=self.run.trace)
        return trace

    @contextmanager
    def _blame(self, phase: str) -> Iterator[None]:
        """Tell a guest that failed from a QEMU that did, note which it was, and say so."""
        try:
            yield
        except GuestError as error:
            if self.machine.alive():
                self.run.write_text(self.run.diagnosis, self.machine.diagnose())
            raise self._guest_failed(f"{phase}: {error.message}", error) from error
        except MachineError as error:
            self.machine.wait(_DEATH_TIMEOUT_S)
            ending = self.machine.ending()
            if ending and ending.orderly:
                # -no-reboot: a panic or a reboot ends QEMU in good order.
                raise self._guest_failed(
                    f"{phase}: the guest ended by itself ({ending.words})"
                ) from error
            if ending and not error.log:
                error = MachineError(f"{phase}: {ending.words}", log=self.run.qemu_log)
            self.note_harness_error(error)
            raise error from error.__cause__

    def _guest_failed(self, what: str, error: GuestError | None = None) -> GuestError:
        """The error to raise, noted for the judge, with the console's last line."""
        last = self.machine.console.last_words() or "nothing"
        failure = f"{what}; the console said last: {last}"
        self.facts["guest_failures"].append(failure)
        return GuestError(failure, hint=error.hint if error else None, log=self.run.console_log)

    def note_harness_error(self, error: HarnessError) -> None:
        """Keep in run.json, once, why evidence is missing: the harness or the host failed."""
        if error.message not in self.facts["harness_errors"]:
            self.facts["harness_errors"].append(error.message)

    def let_end(self) -> None:
        """From now on the guest may power off by itself: a person works in it."""
        self._may_end = True

    def stop(self, *, planned: bool = True) -> None:
        """End the guest and settle the evidence; safe to call twice.

        `planned` is false when the harness was interrupted: then the run cannot pass.
        """
        if self._stopped:
            return
        ending = self.machine.ending()
        if ending is None and self.machine.alive():
            self._progress("stopping the guest")
        elif ending:
            self._note_early_end(ending)
        live.withdraw(self.run)
        if self._injector:
            self._injector.close()
            self.facts["harness_errors"] += self._injector.failures
        try:
            self.machine.stop()
        except HarnessError as error:
            # What the guest left did not come here, so the run cannot be judged.
            self.note_harness_error(error)
        self._stopped = True
        self._write_host_log()
        self.facts["timings"]["end_unix_s"] = time.time()
        if boot := user_space_s(self.run.console_log):
            self.facts["timings"]["kernel_to_user_space_s"] = boot
        self.facts["planned_stop"] = planned and (ending is None or ending.orderly)
        self._write_facts()

    def _write_host_log(self) -> None:
        """Where the stub's VMM let the TD read poison, write what its host would have logged."""
        if not self.plan.spec.vmm:
            return
        with suppress(OSError, EvidenceError):
            if text := host_log(decode(self.run.events.read_bytes()).events):
                self.run.write_text(self.run.host_log, text)

    def _note_early_end(self, ending: Ending) -> None:
        """Note an end that no one was waiting for."""
        if self.facts["guest_failures"] or self.facts["harness_errors"]:
            return
        if not ending.orderly:
            self.note_harness_error(MachineError(ending.words))
        elif not self._may_end:
            self._guest_failed(f"the guest ended by itself between two steps ({ending.words})")

    def _write_facts(self) -> None:
        self.run.write_json(self.run.run_json, self.facts)

    def _write_reproduce(self) -> None:
        words = shlex.join(["tdharness", *self.plan.repeat])
        self.run.write_text(
            self.run.reproduce, f'#!/bin/sh\n# Repeats this run.\nexec {words} "$@"\n'
        )
        self.run.reproduce.chmod(0o755)


def user_space_s(console_log: Path) -> float | None:
    """The kernel's own time at which user space began, from the console."""
    try:
        text = read_from(console_log, 0, 4 << 20).decode(errors="replace")
    except FileNotFoundError:
        return None
    for line in text.splitlines():
        stamp, found, _ = line.partition(f"] {USER_SPACE}")
        if found:
            try:
                return float(stamp.lstrip("[ "))
            except ValueError:
                return None
    return None


def read_from(path: Path, offset: int, most: int = MOST_LOG_BYTES) -> bytes:
    """At most `most` bytes of the file from `offset` on. Raises OSError."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(most)
