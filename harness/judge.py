# SPDX-License-Identifier: GPL-2.0-or-later
"""A run directory, or one slice of a run, to a verdict.

FAIL > ERROR > EMPTY > PASS > SKIP: what was proven counts most, then whether anything could be
proven at all. All but the reading of files is pure, so a saved run judged twice gives the same
verdict to the byte.
"""

import dataclasses
import json
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from harness import consequences, kernellog, vmm
from harness.conversions import StepNames
from harness.counts import counts_of, nothing
from harness.errors import ConfigError, EvidenceError
from harness.events import Event, Header, Kind, Stream, decode
from harness.faults import Injection
from harness.faults import parse as parse_injections
from harness.hostmce import told as host_told
from harness.hostmce.findings import blame_host, down_reasons, host_findings, with_history
from harness.hostmce.told import HostTold
from harness.planted import settle
from harness.rules.check import check_events
from harness.rules.context import context_of
from harness.rules.data import dma_data, failed_steps, guest_failures
from harness.rules.table import RULES
from harness.rundir import RunDir
from harness.sourcelines import add_sources
from harness.steps import Step, parse_step, parse_steps
from harness.symbols import Symbols, parse_guest_symbols, read_kernel, slide_of
from harness.text import printable
from harness.triage import bounded
from harness.verdict import Finding, Outcome, Severity, Verdict

Asked = TypeVar("Asked")
TD_ACTIVE = "Memory Encryption Features active: Intel TDX"
MOST_PER_RULE = 50
_MOST_FILE_BYTES = 512 << 20
_MOST_JSON_BYTES = 64 << 20
_NO_HEADER = Header(0, 0, 0, 0)
_CUT = "the event stream is cut short: it has no trailer"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that a verdict is made from."""

    # MachineSpec.td_mode
    td_mode: str
    # None without a readable stream
    stream: Stream | None = None
    log: bytes = b""
    # what the host told of itself; None where nobody asked it
    host: HostTold | None = None
    steps: tuple[Step, ...] = ()
    symbols: Symbols = dataclasses.field(default_factory=Symbols)
    # what the session saw the guest fail at: one sentence each, of its own words
    guest_failures: tuple[str, ...] = ()
    # what the stub was told to ignore, by the numbers of the FAULT events, from 1
    injections: tuple[Injection, ...] = ()
    # ways in which the VMM was asked to misbehave
    misbehaviours: tuple[vmm.Misbehaviour, ...] = ()
    # one sentence for each piece of evidence that should be there and is not, or is broken
    broken: tuple[str, ...] = ()
    # the harness or the host failed, and `broken` says how: a cut stream, or a step without an
    # end, is no more than what follows from it
    harness_failed: bool = False

    @property
    def events(self) -> tuple[Event, ...]:
        """The events, as many as there are."""
        return self.stream.events if self.stream else ()


def judge(
    run: RunDir, strict: bool = False, evidence: Evidence | None = None, *, write: bool = True
) -> Verdict:
    """The verdict of a run; writes verdict.json.

    `evidence` saves loading it again. With `strict`, rules that only report make the run fail.
    Never raises for anything that the run holds: broken evidence is the outcome ERROR.
    """
    evidence = evidence or load(run)
    verdict = _with_sources(verdict_of(evidence, strict), run)
    if write:
        run.write_json(run.verdict_json, verdict.to_json())
    return verdict


def _with_sources(verdict: Verdict, run: RunDir) -> Verdict:
    kernel = _read_object(run.run_json, []).get("kernel")
    image = kernel.get("image") if isinstance(kernel, Mapping) else None
    if not isinstance(image, str) or "\0" in image:
        return verdict
    return dataclasses.replace(verdict, findings=add_sources(verdict.findings, Path(image)))


def judge_slice(
    events: Sequence[Event],
    log_text: str | bytes,
    steps: Sequence[Step | Mapping[str, Any]] = (),
    symbols: Symbols | None = None,
    *,
    strict: bool = False,
    td_mode: str = "stub",
) -> Verdict:
    """The verdict of one test: its part of the events and of the kernel log, and its own steps.

    That the stream as a whole was not cut is the caller's to know, at the end of the run.
    """
    parsed = [s if isinstance(s, Step) else parse_step(s) for s in steps]
    log = log_text.encode("utf-8", "replace") if isinstance(log_text, str) else log_text
    evidence = Evidence(
        td_mode=td_mode,
        stream=Stream(_NO_HEADER, tuple(events), True),
        log=log,
        steps=tuple(parsed),
        symbols=symbols or Symbols(),
    )
    return _verdict(evidence, [], nothing(td_mode, events, parsed), strict)


def verdict_of(evidence: Evidence, strict: bool = False) -> Verdict:
    """The verdict of a whole run."""
    broken = list(evidence.broken)
    if evidence.stream and not evidence.stream.complete and not evidence.harness_failed:
        broken.append(_CUT)
    return _verdict(evidence, broken, _nothing_in_run(evidence), strict)


def _nothing_in_run(evidence: Evidence) -> str:
    if not kernellog.has_kernel_lines(evidence.log):
        return "the console shows no line of a kernel"
    if evidence.td_mode == "none":
        return ""
    if not kernellog.says(evidence.log, TD_ACTIVE):
        return f'the kernel never said "{TD_ACTIVE}": it did not run as a TD'
    return _never_applied(evidence) or nothing(evidence.td_mode, evidence.events, evidence.steps)


def _never_applied(evidence: Evidence) -> str:
    """Which faults of a run picked nothing; those whose own step was not run are not asked for."""
    applied = {event.args[0] for event in evidence.events if event.kind is Kind.FAULT}
    begun = {event.args[1] for event in evidence.events if event.kind is Kind.MARK}
    names = [
        one.fault.name
        for number, one in enumerate(evidence.injections, 1)
        if number not in applied and (one.mark is None or one.mark in begun)
    ]
    names += vmm.never_shown(evidence.misbehaviours, evidence.events)
    return f"never applied, for no conversion was picked: {', '.join(names)}" if names else ""


def _verdict(evidence: Evidence, broken: list[str], empty: str, strict: bool) -> Verdict:
    events, steps = evidence.events, evidence.steps
    firmware = kernellog.firmware_ranges(evidence.log)
    context = context_of(events, evidence.symbols, steps, firmware)
    found = [
        *check_events(events, context, steps),
        *dma_data(steps),
        *with_history(_log_findings(evidence.log, steps), context),
        *(host_findings(evidence.host, context) if evidence.host else ()),
    ]
    explained = {str(f.extra["step"]) for f in found if f.severity is Severity.FAIL}
    ended = [step for step in steps if step.rc is not None or not evidence.harness_failed]
    found += failed_steps(ended, frozenset(explained))
    found += guest_failures(evidence.guest_failures, steps)
    found = blame_host(consequences.settle(found, events, steps), evidence.host)
    found, missed = settle(found, steps)
    if strict:
        found = [_strictly(f) for f in found]
    kept, left_out = bounded(sorted(found, key=_order), MOST_PER_RULE)
    reasons = [*down_reasons(evidence.host), *broken, *missed]
    counts = counts_of(evidence.td_mode, events, steps, list(context.conversions.values()))
    return Verdict(
        outcome=_outcome(found, reasons, empty),
        findings=tuple(kept),
        reason="; ".join(reasons or [empty]),
        evidence=_evidence_words(evidence, found),
        counts={**counts, **left_out},
        misbehaved=vmm.told(evidence.misbehaviours, events),
    )


def _outcome(found: Sequence[Finding], reasons: Sequence[str], empty: str) -> Outcome:
    if any(f.severity is Severity.FAIL for f in found):
        return Outcome.FAIL
    if reasons:
        return Outcome.ERROR
    return Outcome.EMPTY if empty else Outcome.PASS


def _log_findings(log: bytes, steps: Sequence[Step]) -> list[Finding]:
    """The log's findings, each with the step at work when it was printed."""
    names = StepNames(steps)
    marks = [(line, names.mark(begins, mark)) for line, begins, mark in kernellog.marks(log)]
    found = []
    for finding in kernellog.scan(log):
        index = bisect_right(marks, finding.seq or 0, key=lambda mark: mark[0]) - 1
        step = marks[index][1] if index >= 0 else ""
        found.append(dataclasses.replace(finding, extra={**finding.extra, "step": step}))
    return found


def _strictly(finding: Finding) -> Finding:
    if finding.extra.get("expected"):
        return finding
    return dataclasses.replace(finding, severity=Severity.FAIL)


def _order(finding: Finding) -> tuple[bool, int, int]:
    """What fails first, then by rule, then by time."""
    return (
        finding.severity is not Severity.FAIL,
        list(RULES).index(finding.rule),
        finding.seq or 0,
    )


def _evidence_words(evidence: Evidence, found: Sequence[Finding]) -> tuple[str, ...]:
    there = {
        "events": bool(evidence.events),
        "guest-kernel-log": kernellog.has_kernel_lines(evidence.log),
        "conversions-told": evidence.td_mode == "tdx"
        and any(step.conversions_told for step in evidence.steps),
        "dma-data": any(step.dma for step in evidence.steps),
        "host-mce": any(f.rule == "host-mce" for f in found),
        "guest-mce": any(f.rule == "guest-mce" for f in found),
    }
    return tuple(word for word, is_there in there.items() if is_there)


def load(run: RunDir) -> Evidence:
    """Read a run's evidence; what is missing or broken becomes a sentence in `broken`."""
    broken: list[str] = []
    facts = _read_object(run.run_json, broken)
    td_mode = str(facts.get("td_mode", "stub"))
    stream = _read_stream(run, broken) if td_mode == "stub" else None
    log = _read(run.console_log, broken) or b""
    steps = _read_steps(run, broken)
    errors = _sentences(facts.get("harness_errors"))
    failures = _sentences(facts.get("guest_failures"))
    injections = _parsed(parse_injections, facts, "fault", broken)
    misbehaviours = _parsed(vmm.parse, facts, "vmm", broken)
    broken = [*errors, *broken]
    if facts.get("planned_stop") is False and not failures and not errors:
        broken.append("the machine stopped before the harness told it to")
    return Evidence(
        td_mode=td_mode,
        stream=stream,
        log=log,
        host=_read_host(run, broken),
        steps=steps,
        symbols=symbols_of(run, facts, stream) if stream else Symbols(),
        guest_failures=failures,
        injections=injections,
        misbehaviours=misbehaviours,
        broken=tuple(broken),
        harness_failed=bool(errors),
    )


def _read(path: Path, broken: list[str], most: int = _MOST_FILE_BYTES) -> bytes | None:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as error:
        # ValueError: run.json may name a path that no file system knows.
        why = error.strerror if isinstance(error, OSError) else "its name is no path"
        broken.append(f"the run's {path.name} cannot be read: {why}")
        return None
    if len(data) > most:
        broken.append(f"the run's {path.name} is larger than {most >> 20} MiB: its end is not read")
        data = data[:most]
    return data


def _read_object(path: Path, broken: list[str]) -> dict[str, Any]:
    data = _read(path, broken, _MOST_JSON_BYTES)
    if data is None:
        return {}
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        broken.append(f"the run's {path.name} holds no JSON object")
        return {}
    return parsed


def _sentences(value: object) -> tuple[str, ...]:
    """A list of sentences out of run.json, made safe to show."""
    return tuple(printable(str(item), 400) for item in value) if isinstance(value, list) else ()


def _parsed(
    parse: Callable[[str], tuple[Asked, ...]], facts: Mapping[str, Any], key: str, broken: list[str]
) -> tuple[Asked, ...]:
    """What run.json says that the stub was asked to do wrong."""
    try:
        return parse(str(facts.get(key) or ""))
    except ConfigError as error:
        broken.append(f"the run's {key} cannot be read: {error.message}")
        return ()


def _read_stream(run: RunDir, broken: list[str]) -> Stream | None:
    data = _read(run.events, broken)
    if data is None:
        return None
    try:
        return decode(data)
    except EvidenceError as error:
        broken.append(error.message)
        return None


def _read_host(run: RunDir, broken: list[str]) -> HostTold | None:
    """What was collected from a host, or else what the stub's host logged."""
    if not run.host_json.exists():
        log = _read(run.host_log, broken) if run.host_log.exists() else None
        return host_told.of_stub(log or b"")
    try:
        return host_told.read(_read_object(run.host_json, broken))
    except EvidenceError as error:
        broken.append(error.message)
        return None


def _read_steps(run: RunDir, broken: list[str]) -> tuple[Step, ...]:
    if not run.steps.exists():
        # A run that ended before its first step has none.
        return ()
    data = _read(run.steps, broken) or b""
    try:
        return parse_steps(data.decode("utf-8", "replace").splitlines())
    except EvidenceError as error:
        broken.append(error.message)
        return ()


def symbols_of(
    run: RunDir, facts: Mapping[str, Any] | None = None, stream: Stream | None = None
) -> Symbols:
    """The symbols of a run, which may still be going on; `facts` saves reading run.json.

    `stream` helps where the guest did not live to tell its addresses. Symbols are a comfort:
    whatever cannot be read leaves bare addresses.
    """
    files = (_read_object(run.run_json, []) if facts is None else facts).get("kernel")
    if not isinstance(files, Mapping):
        return Symbols()
    system_map = _comfort(files.get("system_map"))
    kernel = read_kernel(_comfort(files.get("image")), (system_map or b"").decode("latin-1"))
    try:
        guest = parse_guest_symbols(json.loads(_comfort(run.symbols_json) or b"null"))
    except (ValueError, RecursionError):
        guest = parse_guest_symbols(None)
    calls = (Kind.TDCALL, Kind.VMCALL, Kind.CONVERT, Kind.ACCEPT)
    pcs = {event.pc for event in stream.events if event.kind in calls} if stream else set[int]()
    return Symbols(kernel=kernel, slide=slide_of(kernel, guest, pcs), modules=guest.modules)


def _comfort(path: object) -> bytes | None:
    return _read(Path(path), []) if isinstance(path, str | Path) and str(path) else None
