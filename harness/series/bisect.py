# SPDX-License-Identifier: GPL-2.0-or-later
"""The first patch of a series that brings a bug, in log2 runs; and git bisect's exit codes.

A host failure is no answer of the kernel: it is tried again a few times, and then ends the search.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum

from harness.errors import BuildError, ConfigError, GuestError, HarnessError, PatchError
from harness.series.compare import Bug, bugs, went_as_far
from harness.triage import place_of
from harness.verdict import Outcome, Verdict

RETRIES = 2


class Answer(Enum):
    """What a kernel is; the value is what `git bisect run` makes of it.

    git takes 1 to 124 for bad, 125 for cannot be tested, and stops at 128 and above.
    """

    GOOD = 0
    BAD = 1
    SKIP = 125
    HOST_FAILURE = 128


class Ending(StrEnum):
    """How a search ended."""

    FOUND = "found"
    # between the last good and the first bad are only such as cannot be tested
    AMONG = "among"
    # the whole series is not bad, or its base is already
    NOTHING = "nothing"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The end of a search; patches count from 1, and 0 is the base."""

    ending: Ending
    # the first bad one; of AMONG all that it can be
    suspects: tuple[int, ...] = ()
    # one sentence, unless FOUND
    reason: str = ""
    # what was asked, in order, and what it was
    probes: tuple[tuple[int, Answer], ...] = ()


class _HostFailedError(Exception):
    pass


def bisect(
    count: int,
    probe: Callable[[int], Answer],
    *,
    known: Mapping[int, Answer] | None = None,
    retries: int = RETRIES,
) -> Found:
    """Find the first of `count` patches with which the kernel is bad.

    `probe(n)` builds and runs the base with the first n patches. `known` saves probes: the base is
    taken for good and the whole series for bad unless it says otherwise. Asks at most
    ceil(log2(count)) times, and once more for each that is skipped and for each host failure.
    """
    given: dict[int, Answer] = {0: Answer.GOOD, count: Answer.BAD, **(known or {})}
    if count < 1 or given[0] is not Answer.GOOD or given[count] is not Answer.BAD:
        return Found(
            ending=Ending.NOTHING, reason="the base is not good, or the whole series is not bad"
        )
    search = _Search(probe, given, retries)
    try:
        good, bad = search.narrow(count)
    except _HostFailedError as error:
        return Found(ending=Ending.ERROR, reason=str(error), probes=tuple(search.asked))
    suspects = tuple(range(good + 1, bad + 1))
    if len(suspects) == 1:
        return Found(ending=Ending.FOUND, suspects=suspects, probes=tuple(search.asked))
    reason = f"patches {good + 1} to {bad - 1} cannot be tested"
    asked = tuple(search.asked)
    return Found(ending=Ending.AMONG, suspects=suspects, reason=reason, probes=asked)


class _Search:
    def __init__(
        self, probe: Callable[[int], Answer], known: Mapping[int, Answer], retries: int
    ) -> None:
        self.probe = probe
        self.known: dict[int, Answer] = {
            n: a for n, a in known.items() if a is not Answer.HOST_FAILURE and n >= 0
        }
        self.retries = retries
        self.asked: list[tuple[int, Answer]] = []

    def narrow(self, count: int) -> tuple[int, int]:
        """The last good and the first bad that can be told."""
        while True:
            # The first bad one among what is known, and the last good one before it.
            bad = min(n for n, a in self.known.items() if a is Answer.BAD and 0 < n <= count)
            good = max(n for n, a in self.known.items() if a is Answer.GOOD and n < bad)
            untested = [n for n in range(good + 1, bad) if n not in self.known]
            if not untested:
                return good, bad
            middle = untested[len(untested) // 2]
            self.known[middle] = self._ask(middle)

    def _ask(self, number: int) -> Answer:
        for _ in range(self.retries + 1):
            answer = self.probe(number)
            self.asked.append((number, answer))
            if answer is not Answer.HOST_FAILURE:
                return answer
        raise _HostFailedError(
            f"patch {number} could not be run: the host failed {self.retries + 1} times"
        )


def answer_of(verdict: Verdict, finding: str = "", reference: Verdict | None = None) -> Answer:
    """What a run says of its kernel: about one bug, or, without `finding`, about any failure.

    `finding` is an identity (harness.triage), a rule, or RULE:FUNCTION. `reference` is a run that
    went to its end. A run that did not get as far and does not show the bug tells nothing of it.
    """
    if verdict.outcome is Outcome.ERROR:
        return Answer.HOST_FAILURE
    if finding:
        if any(finding in _names(bug) for bug in bugs(verdict.findings).values()):
            return Answer.BAD
    elif verdict.outcome is Outcome.FAIL:
        return Answer.BAD
    return Answer.GOOD if went_as_far(verdict, reference) else Answer.SKIP


def _names(bug: Bug) -> tuple[str, str, str]:
    rule = bug.finding.rule
    return bug.identity, rule, f"{rule}:{place_of(bug.finding)}"


def answer_of_error(error: Exception) -> Answer:
    """What is to be made of a probe that raised: only a build or a guest can be skipped.

    A probe keeps apart what it builds: a BuildError has to be the kernel's.
    """
    skipped = isinstance(error, BuildError | GuestError) and not isinstance(error, PatchError)
    return Answer.SKIP if skipped else Answer.HOST_FAILURE


def guarded(probe: Callable[[int], Answer]) -> Callable[[int], Answer]:
    """A probe whose errors are answers; wrong input (ConfigError, PatchError) is still raised."""

    def guard(number: int) -> Answer:
        try:
            return probe(number)
        except (ConfigError, PatchError):
            raise
        except (HarnessError, OSError) as error:
            return answer_of_error(error)

    return guard
