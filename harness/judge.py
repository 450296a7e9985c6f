# SPDX-License-Identifier: GPL-2.0-or-later
"""A run directory, or one slice of a run, to a verdict.

FAIL > ERROR > EMPTY > PASS > SKIP: what was proven counts most, then whether anything could be
proven at all. All but the reading of files is pure, so a saved run judged twice gives the same
verdict to the byte.
"""

import dataclasses
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import consequences, guesttrace, kernellog, vmm
from harness.conversions import StepNames, changed_owner
from harness.counts import counts_of, nothing
from harness.events import Event, Header, Kind, Stream
from harness.evidence import Evidence, load, read_object
from harness.hostmce.findings import blame_host, down_reasons, host_findings, with_history
from harness.planted import settle
from harness.rules.check import check_events
from harness.rules.context import context_of
from harness.rules.data import dma_data, failed_steps, guest_failures
from harness.rules.table import RULES
from harness.rundir import RunDir
from harness.sourcelines import add_sources
from harness.steps import Step, parse_step
from harness.symbols import Symbols
from harness.triage import bounded
from harness.verdict import Finding, Outcome, Severity, Verdict

TD_ACTIVE = "Memory Encryption Features active: Intel TDX"
MOST_PER_RULE = 50
_NO_HEADER = Header(0, 0, 0, 0)
_CUT = "the event stream is cut short: it has no trailer"


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
    kernel = read_object(run.run_json, []).get("kernel")
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
    agreed = _agreement(evidence)
    if agreed and agreed.contradictions:
        told = "; ".join(agreed.contradictions)
        broken.append(f"the guest's trace alone, not the stub's record, tells of {told}")
    broken += _untraced(evidence)
    verdict = _verdict(evidence, broken, _nothing_in_run(evidence), strict)
    both = {"conversions_traced": agreed.conversions} if agreed else {}
    return dataclasses.replace(verdict, counts={**verdict.counts, **both})


def _nothing_in_run(evidence: Evidence) -> str:
    if not kernellog.has_kernel_lines(evidence.log):
        return "the console shows no line of a kernel"
    if evidence.td_mode == "none":
        return ""
    if not kernellog.says(evidence.log, TD_ACTIVE):
        return f'the kernel never said "{TD_ACTIVE}": it did not run as a TD'
    return _never_applied(evidence) or nothing(evidence.td_mode, evidence.events, evidence.steps)


def _agreement(evidence: Evidence) -> guesttrace.Agreement | None:
    """How the guest's trace and the stub's record of the same run compare."""
    if evidence.td_mode != "stub" or not evidence.trace:
        return None
    return guesttrace.agreement(evidence.trace.events, evidence.events)


def _untraced(evidence: Evidence) -> list[str]:
    """Where a TD on hardware made more conversions, by its module's word, than its trace shows."""
    is_td = evidence.td_mode == "tdx" and kernellog.says(evidence.log, TD_ACTIVE)
    if not is_td or not evidence.trace:
        return []
    seen = sum(changed_owner(event) for event in evidence.trace.events)
    told = sum(step.conversions_told for step in evidence.steps)
    return [f"the guest told of {told} conversions and traced {seen}"] if seen < told else []


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
        "events": bool(evidence.events) and evidence.td_mode == "stub",
        "guest-trace": bool(evidence.trace and evidence.trace.events),
        "guest-kernel-log": kernellog.has_kernel_lines(evidence.log),
        "conversions-told": evidence.td_mode == "tdx"
        and any(step.conversions_told for step in evidence.steps),
        "dma-data": any(step.dma for step in evidence.steps),
        "host-mce": any(f.rule == "host-mce" for f in found),
        "guest-mce": any(f.rule == "guest-mce" for f in found),
    }
    return tuple(word for word, is_there in there.items() if is_there)
