# SPDX-License-Identifier: GPL-2.0-or-later
"""The scores of a run in which faults were tried one by one, each between marks of its own."""

from harness import kernellog
from harness.errors import EvidenceError
from harness.events import Kind, Stream, slice_between
from harness.evidence import Evidence
from harness.faults import Injection
from harness.judge import judge_slice
from harness.score import Score, score
from harness.verdict import Verdict


def scores_of(
    evidence: Evidence, injections: tuple[Injection, ...]
) -> list[tuple[Injection, Score]]:
    """Each marked fault with its score, by its own slice of events, log and steps.

    One whose step was not run (it needs more vCPUs) is left out. Raises EvidenceError when a slice
    is cut.
    """
    if evidence.stream is None:
        raise EvidenceError("the run has no event stream, so no fault can be scored")
    begun = {e.args[1] for e in evidence.stream.events if e.kind is Kind.MARK}
    return [
        (one, _score(evidence, evidence.stream, one, one.mark))
        for one in injections
        if one.mark is not None and one.mark in begun
    ]


def _score(evidence: Evidence, stream: Stream, one: Injection, mark: int) -> Score:
    verdict = verdict_of_slice(evidence, mark)
    return score(one.fault, slice_between(stream, mark), verdict.findings)


def verdict_of_slice(evidence: Evidence, mark: int) -> Verdict:
    """The verdict of one step of a saved run, by what happened between its marks.

    Raises EvidenceError when the run has no such slice, or not the whole of it.
    """
    if evidence.stream is None:
        raise EvidenceError("the run has no event stream, so no step of it can be judged")
    return judge_slice(
        slice_between(evidence.stream, mark),
        kernellog.slice_between(evidence.log, mark),
        [step for step in evidence.steps if step.mark == mark],
        evidence.symbols,
    )
