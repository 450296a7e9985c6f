# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests for suites of tests: one boot shared by many tests, each judged by its own slice."""

import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.agent import AgentResult
from harness.errors import EvidenceError, GuestError, HarnessError, HostError, MachineError
from harness.evidence import load
from harness.hostguard import guarded
from harness.hostmce.findings import down_reasons
from harness.hosts.config import Host
from harness.judge import judge, judge_slice
from harness.plan import Plan
from harness.prepare import Request, prepare
from harness.report import html, model, text
from harness.session import Guest
from harness.shell import Shell
from harness.symbols import Symbols
from harness.verdict import Finding, Outcome, Severity, Verdict
from harness.workload import Record, Step

COMMAND_TIMEOUT_S = 60.0


def skip_reason(
    *, td_mode: str, smp: int, needs_td: bool = False, needs_stub: bool = False, min_cpus: int = 1
) -> str:
    """Why a test has no meaning on this guest; "" when it has."""
    if needs_stub and td_mode != "stub":
        return f"mode {td_mode} has no stub, and nobody else sees this"
    if needs_td and td_mode == "none":
        return "mode none is a plain VM: it converts no memory, and there is no stub to record it"
    if smp < min_cpus:
        return f"needs {min_cpus} vCPUs, the guest has {smp}: use --smp {min_cpus}"
    return ""


@dataclass(slots=True)
class Outcomes:
    """How a judged test ended: its verdict, and what to say when that is a failure."""

    verdict: Verdict | None = None
    complaint: str = ""


class TestGuest:
    """What a test sees of the guest."""

    __test__ = False

    def __init__(self, guest: Guest) -> None:
        self.session = guest
        self.records: list[Record] = []
        # of each command that sh() ran
        self.outputs: list[str] = []

    def sh(self, command: str, timeout_s: float = COMMAND_TIMEOUT_S) -> AgentResult:
        """Run a line of shell in the guest. Raises GuestError."""
        result = self.session.sh(command, timeout_s)
        self.outputs.append(result.output)
        return result

    def step(self, step: Step) -> Record:
        """Run a workload step; its own check, and its marks, count for this test."""
        record = self.session.run_step(step)
        self.records.append(record)
        return record

    def ran(self) -> list[dict[str, Any]]:
        """Steps and commands, as steps.jsonl has them."""
        commands = [{"name": "sh", "rc": 0, "output": output} for output in self.outputs]
        return [record.to_json() for record in self.records] + commands

    def ssh(self) -> Shell:
        """A new ssh connection."""
        return self.session.shell()


class GuestPool:
    """The guests of one test session.

    With a `host`, what it tells is collected around every test, which gets a guest of its own.
    """

    def __init__(
        self,
        request: Request,
        *,
        runs: Path,
        host: Host | None = None,
    ) -> None:
        self._request = request
        self._runs = runs
        self._host = host
        self._around = ExitStack()
        self._plan: Plan | None = None
        self._guest: Guest | None = None
        self._view: TestGuest | None = None
        self._failure: HarnessError | None = None
        self._symbols = Symbols()
        self.boots = 0

    def guest(self) -> TestGuest:
        """The running guest, or a fresh one. Raises HarnessError, the same for every test when
        the first boot failed."""
        if self._failure:
            raise self._failure
        if self._guest is not None and (self._host or not self._wake(self._guest)):
            self.discard()
        if self._guest is None:
            self._boot()
        assert self._view is not None
        self._view.records, self._view.outputs = [], []
        return self._view

    def _boot(self) -> None:
        first = self._plan is None
        try:
            self._plan = self._plan or prepare(self._request, _silent, scenario="pytest")
            self._guest = Guest(self._plan, self._runs, _silent)
            self._around.enter_context(guarded(self._guest, self._host))
            self._guest.boot()
            # What cannot be seen is said by the first test, not by each.
            self._guest.trace()
        except BaseException as error:
            self.discard(planned=False)
            if first and isinstance(error, HarnessError):
                self._failure = error
            raise
        self.boots += 1
        self._symbols = load(self._guest.run).symbols
        self._view = TestGuest(self._guest)

    def _pause(self, guest: Guest) -> None:
        """Stop its vCPUs: an idle guest polls, a third of a core that other tests can use."""
        # A machine that is gone is for the next test to find.
        with suppress(MachineError):
            guest.machine.qmp.execute("stop")

    def _wake(self, guest: Guest) -> bool:
        with suppress(MachineError):
            guest.machine.qmp.execute("cont")
        return guest.alive()

    def discard(self, *, planned: bool = True) -> Verdict | None:
        """End the guest and leave its run directory judged; `planned` as Guest.stop().

        Raises HostError when its host went down under it.
        """
        guest, self._guest, self._view = self._guest, None, None
        if guest is None:
            return None
        try:
            guest.stop(planned=planned)
        finally:
            self._around.close()
        evidence = load(guest.run)
        verdict = judge(guest.run, evidence=evidence)
        html.write(model.load(guest.run, verdict, evidence), guest.run.report_html)
        if reasons := down_reasons(evidence.host):
            raise HostError("; ".join(reasons), log=guest.run.host_json)
        return verdict

    def close(self) -> None:
        """End what runs."""
        self.discard()

    @contextmanager
    def judged(self, name: str, plants: Sequence[str] | None) -> Iterator[Outcomes]:
        """Judge what happens inside by its events, its kernel log and its steps.

        An exception of the test passes through, and the guest is then checked by the next test.
        """
        guest, view = self._guest, self._view
        assert guest is not None and view is not None
        outcomes = Outcomes()
        try:
            with guest.slice() as part:
                yield outcomes
        except (GuestError, MachineError, EvidenceError) as error:
            last = guest.machine.console.tail(3)
            self.discard()
            raise type(error)(
                f"{name}: {error.message}; the console's last lines:\n{last}", log=error.log
            ) from error
        self._pause(guest)
        outcomes.verdict = judge_slice(
            part.events, part.log, view.ran(), self._symbols, td_mode=self._request.td_mode
        )
        outcomes.complaint = complaint(outcomes.verdict, plants)
        if self._host and (whole := self.discard()):
            of_host = _surprising(_of_host(whole), plants)
            outcomes.complaint = outcomes.complaint or (_described(of_host) if of_host else "")
        if outcomes.complaint:
            outcomes.complaint += f"\nrun: {guest.run.path}"


def complaint(verdict: Verdict, plants: Sequence[str] | None) -> str:
    """What is wrong with a test's verdict: findings nobody planted, or planted ones not found.

    Without evidence the test is a failure, unless `plants` is given, be it empty.
    """
    if surprising := _surprising(verdict.findings, plants):
        return _described(surprising)
    missed = sorted(set(plants or ()) - {f.rule for f in verdict.findings})
    if missed:
        return f"the planted fault was not caught by {', '.join(missed)}"
    if verdict.outcome in (Outcome.ERROR, Outcome.EMPTY) and plants is None:
        return f"{verdict.outcome.value}: {verdict.reason}"
    return ""


def _surprising(findings: Sequence[Finding], plants: Sequence[str] | None) -> list[Finding]:
    return [f for f in findings if f.severity is Severity.FAIL and f.rule not in (plants or ())]


def _of_host(verdict: Verdict) -> tuple[Finding, ...]:
    """What a run's verdict says of the host, which no test's own slice holds."""
    return tuple(found for found in verdict.findings if found.rule == "host-mce")


def _described(findings: Sequence[Finding]) -> str:
    output = io.StringIO()
    text.console(output).print(text.findings_list(findings))
    return output.getvalue().rstrip()


def _silent(words: str) -> None:
    """Progress of a suite is pytest's to show."""
