# SPDX-License-Identifier: GPL-2.0-or-later
"""A series against its base: which bugs are new, which patch brings them, which are flaky."""

from dataclasses import dataclass, field

from harness.errors import GuestError
from harness.known import KnownIssue
from harness.series.bisect import Answer, Found, answer_of, bisect, guarded
from harness.series.compare import Bug, Comparison, Rechecked, Standing, bugs, compare, recheck
from harness.series.issues import Issues
from harness.series.trial import Result, Trial
from harness.verdict import Outcome, Severity, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """A bug that a kernel has and the one before it, of those that were run, had not."""

    number: int
    bug: Bug
    # what a second run in a fresh guest said
    standing: Standing


@dataclass(slots=True, kw_only=True)
class Review:
    """All that was learned; numbers count patches, 0 is the base."""

    results: list[Result] = field(default_factory=list)
    # against the base
    comparisons: dict[int, Comparison] = field(default_factory=dict)
    news: list[News] = field(default_factory=list)
    # what would be news, but is known: with the number of the first kernel that shows it
    known: list[tuple[int, Bug, KnownIssue]] = field(default_factory=list)
    # what has to be told of known issues
    notes: list[str] = field(default_factory=list)
    # by the identity of a bug of the whole series
    searches: dict[str, Found] = field(default_factory=dict)

    @property
    def broken(self) -> list[News]:
        """What the series breaks: new bugs that fail, and are not shown to be flaky."""
        return [
            one
            for one in self.news
            if one.bug.severity is Severity.FAIL and one.standing is not Standing.FLAKY
        ]

    @property
    def unjudged(self) -> list[Result]:
        """Kernels of which nothing can be said."""
        undecided = (Outcome.ERROR, Outcome.EMPTY)
        return [r for r in self.results if r.verdict is None or r.verdict.outcome in undecided]


def review(trial: Trial, *, each: bool, search: bool, issues: Issues | None = None) -> Review:
    """Run the base and the whole series, or `each` patch; new bugs are tried again.

    Known issues are told, and are no news.

    With `search`, the patch that brings a new bug of the whole series is found by bisection.
    Raises PatchError, HarnessError when the base itself cannot be judged.
    """
    issues = issues or Issues()
    last = len(trial.patches)
    numbers = tuple(range(last + 1)) if each else (0, last)
    found = Review()
    before: Verdict | None = None
    for result in trial.results(numbers):
        found.results.append(result)
        if result.verdict is None:
            if result.number == 0 and result.error:
                raise result.error
            continue
        if before is None:
            base = before = result.verdict
            continue
        found.comparisons[result.number] = compare(base, result.verdict)
        comparison = compare(before, result.verdict)
        new = (*comparison.new, *comparison.perhaps_new)
        pairs = [(bug, issues.of(bug)) for bug in new]
        found.known += [(result.number, bug, issue) for bug, issue in pairs if issue]
        found.news += _news(trial, result, [bug for bug, issue in pairs if not issue])
        before = result.verdict
    found.notes = issues.notes(_seen(found))
    if search:
        found.searches = _searches(trial, found)
    return found


def _seen(found: Review) -> list[Bug]:
    """What any kernel showed, the base included."""
    verdicts = [result.verdict for result in found.results if result.verdict]
    return [bug for verdict in verdicts for bug in bugs(verdict.findings).values()]


def _news(trial: Trial, result: Result, new: list[Bug]) -> list[News]:
    if not new or result.verdict is None:
        return []
    trial.progress(f"{len(new)} new with {trial.name_of(result.number)}: once more, to be sure")
    again = trial.again(result.number)
    assert again.verdict is not None
    checked: tuple[Rechecked, ...] = recheck(new, result.verdict, again.verdict)
    return [News(number=result.number, bug=c.bug, standing=c.standing) for c in checked]


def _searches(trial: Trial, found: Review) -> dict[str, Found]:
    """For each bug that the whole series has and its base has not, the patch that brings it."""
    last = len(trial.patches)
    comparison = found.comparisons.get(last)
    if comparison is None:
        raise GuestError("the whole series was not run to a verdict, so there is nothing to search")
    tip = trial.result(last)

    def search(identity: str) -> Found:
        def probe(number: int) -> Answer:
            trial.progress(f"is it there with {trial.name_of(number)}?")
            return answer_of(trial.result(number), identity, tip)

        return bisect(last, guarded(probe))

    left = {one.bug.identity for one in found.news if one.standing is Standing.FLAKY}
    left |= {bug.identity for _, bug, _ in found.known}
    return {
        bug.identity: search(bug.identity)
        for bug in (*comparison.new, *comparison.perhaps_new)
        if bug.severity is Severity.FAIL and bug.identity not in left
    }
