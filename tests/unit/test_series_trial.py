# SPDX-License-Identifier: GPL-2.0-or-later
"""A series tried patch by patch; kernels and guests are pretended, all else is real."""

import datetime
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.console import Console

from harness.errors import BuildError, HarnessError, PatchError
from harness.kernel.built import BuiltKernel
from harness.kernel.kconfig import Config
from harness.kernel.origin import Base
from harness.known import KnownIssue
from harness.prepare import Request
from harness.rundir import RunDir
from harness.series import show, trial
from harness.series.bisect import Ending
from harness.series.compare import Standing
from harness.series.issues import Issues
from harness.series.patch import Patch, Series
from harness.series.review import Review, review
from harness.verdict import Finding, Outcome, Severity, Site, Verdict

LAST = 6
BUG = Finding(
    rule="guest-tlb-flush", severity=Severity.FAIL, summary="it was not flushed",
    conversion_site=Site(address=1, symbol="dma_direct_alloc+0x1/0x2"),
)  # fmt: skip
CLEAN = Verdict(outcome=Outcome.PASS, counts={"steps": 9})
BAD = Verdict(outcome=Outcome.FAIL, findings=(BUG,), counts={"steps": 9})
SERIES = Series(
    name="x86/mm: Flush less",
    version=2,
    cover=None,
    patches=tuple(
        Patch(
            name=f"{n:04}-p.patch", subject=f"x86/mm: Step {n}", author="A <a@example.org>",
            message_id=None, text=f"patch {n}\n".encode(), files=("f",), trailers=(),
        )
        for n in range(1, LAST + 1)
    ),
    notes=("version 2 of 2 is taken",),
)  # fmt: skip


@dataclass
class World:
    """What each kernel does: verdicts of its runs in order, the last one for ever after."""

    kernels: Mapping[int, list[Verdict | HarnessError]]
    place: Path
    runs: list[int] = field(default_factory=list)

    def build(self, base: Base, patches: tuple[Path, ...], *_: object) -> BuiltKernel:
        first = self.kernels.get(len(patches), [CLEAN])[0]
        if isinstance(first, BuildError):
            raise first
        image = self.place / str(len(patches))
        warnings = ("mm.c: unused variable",) if len(patches) == 3 else ()
        return BuiltKernel(
            image=image, vmlinux=image, system_map=image, build_tree=image, log=image, commit="",
            patchset="", warnings=(), new_warnings=warnings, missing=(), seconds=1.0, cached=False,
        )  # fmt: skip

    def in_child(self, request: Request, workloads: object, runs: Path, _: float) -> RunDir:
        number = int(Path(request.kernel).name)
        outcomes = self.kernels.get(number, [CLEAN])
        outcome = outcomes[min(self.runs.count(number), len(outcomes) - 1)]
        self.runs.append(number)
        if isinstance(outcome, HarnessError):
            raise outcome
        run = RunDir.create(runs, "fake")
        run.write_json(run.run_json, {})
        self.verdicts[run.path.name] = outcome
        return run

    verdicts: dict[str, Verdict] = field(default_factory=dict)

    def judge(self, run: RunDir) -> Verdict:
        return self.verdicts[run.path.name]


Make = Callable[..., tuple[World, trial.Trial]]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    def made(
        kernels: Mapping[int, list[Verdict | HarnessError]], before: World | None = None
    ) -> tuple[World, trial.Trial]:
        world = World(kernels, tmp_path)
        if before:
            world.verdicts = before.verdicts
        for name in ("build", "in_child", "judge"):
            monkeypatch.setattr(trial, name, getattr(world, name))
        place = tmp_path / "trial"
        one = trial.Trial(
            series=SERIES, patches=SERIES.write(place / "patches"), base=Base("b", place, "c"),
            config=Config(name="lean", target="", text="", strict=True), guest=Request(),
            workloads=("conversion",), place=place, progress=lambda _: None,
        )  # fmt: skip
        one.load()
        return world, one

    return made


def from_patch(first: int) -> dict[int, list[Verdict | HarnessError]]:
    return {n: [BAD] for n in range(first, LAST + 1)}


def printed(found: Review) -> str:
    output = io.StringIO()
    Console(file=output, width=100, markup=False).print(show.render(SERIES, found, Path("runs")))
    return output.getvalue()


def test_each_patch_is_run_and_the_first_bad_one_is_named(make: Make) -> None:
    world, one = make(from_patch(4))
    found = review(one, each=True, search=False)
    assert [r.number for r in found.results] == list(range(LAST + 1))
    assert [(n.number, n.standing) for n in found.broken] == [(4, Standing.CONFIRMED)]
    # the new one twice, the others once
    assert sorted(world.runs) == [0, 1, 2, 3, 4, 4, 5, 6]
    shown = printed(found)
    assert "1 new, the first with patch 4, x86/mm: Step 4" in shown
    assert "version 2 of 2 is taken" in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_a_search_asks_for_few(make: Make) -> None:
    world, one = make(from_patch(4))
    found = review(one, each=False, search=True)
    (search,) = found.searches.values()
    assert (search.ending, search.suspects) == (Ending.FOUND, (4,))
    # base, whole, whole again to be sure, and at most three between
    assert len(world.runs) <= 6
    assert "patch 4, x86/mm: Step 4 brings it" in printed(found)
    data = show.to_json(SERIES, found)
    assert data["searches"][search_key(found)]["suspects"] == [4]


def search_key(found: Review) -> str:
    return next(iter(found.searches))


def test_a_patch_that_does_not_build_is_passed_by(make: Make) -> None:
    kernels = {**from_patch(4), 4: [BuildError("mm.c:1: no")]}
    _, one = make(kernels)
    found = review(one, each=True, search=True)
    (search,) = found.searches.values()
    assert (search.ending, search.suspects) == (Ending.AMONG, (4, 5))
    assert [r.number for r in found.unjudged] == [4]
    assert "mm.c:1: no" in printed(found)


def test_what_a_second_run_does_not_show_is_flaky(make: Make) -> None:
    _, one = make({LAST: [BAD, CLEAN]})
    found = review(one, each=False, search=True)
    assert [n.standing for n in found.news] == [Standing.FLAKY]
    assert not found.broken
    assert not found.searches


def test_an_old_bug_is_not_news(make: Make) -> None:
    _, one = make({0: [BAD], **from_patch(1)})
    found = review(one, each=True, search=True)
    assert not found.news
    assert "nothing new" in printed(found)


def test_what_was_run_is_not_run_again(make: Make) -> None:
    first, one = make(from_patch(4))
    review(one, each=True, search=False)
    second, two = make(from_patch(4), first)
    found = review(two, each=True, search=True)
    # once more, to be sure: that belongs to each review
    assert second.runs == [4]
    assert [n.number for n in found.broken] == [4]


def test_a_run_that_went_wrong_on_the_host_is_run_again(make: Make) -> None:
    error = Verdict(outcome=Outcome.ERROR, reason="the stream was cut")
    first, one = make({LAST: [error]})
    found = review(one, each=False, search=False)
    assert [r.number for r in found.unjudged] == [LAST]
    second, two = make({}, first)
    assert not review(two, each=False, search=False).unjudged
    assert second.runs == [LAST]


def known(place: str, expires: str = "2027-03-31", base: str = "*") -> KnownIssue:
    return KnownIssue(
        rule="guest-tlb-flush", place=place, base=base, link=f"https://example.org/{place}",
        expires=datetime.date.fromisoformat(expires),
    )  # fmt: skip


def issues(*entries: KnownIssue) -> Issues:
    return Issues(issues=entries, base="linux-source-6.12", today=datetime.date(2027, 1, 1))


def test_a_known_issue_is_shown_and_is_no_news(make: Make) -> None:
    world, one = make(from_patch(4))
    found = review(one, each=True, search=True, issues=issues(known("dma_direct_alloc")))
    assert not found.news
    assert not found.searches
    assert [(number, bug.title) for number, bug, _ in found.known] == [
        (4, "guest-tlb-flush in dma_direct_alloc")
    ]
    # nothing is run again for it
    assert sorted(world.runs) == list(range(LAST + 1))
    assert "known until 2027-03-31, patch 4: guest-tlb-flush in dma_direct_alloc" in printed(found)
    assert show.to_json(SERIES, found)["known"][0]["link"] == "https://example.org/dma_direct_alloc"


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (known("another"), "https://example.org/another was not seen; is it fixed?"),
        (known("dma_direct_alloc", "2026-12-31"), "expired on 2026-12-31 and holds no longer"),
        (known("dma_direct_alloc", base="linux-source-7*"), ""),
    ],
)
def test_what_does_not_hold_hides_nothing(make: Make, entry: KnownIssue, told: str) -> None:
    _, one = make(from_patch(4))
    found = review(one, each=True, search=False, issues=issues(entry))
    assert [n.number for n in found.broken] == [4]
    assert not found.known
    assert told in " ".join(found.notes)
    assert bool(found.notes) == bool(told)


def test_a_patch_that_does_not_apply_ends_it(make: Make) -> None:
    _, one = make({LAST: [PatchError("0006 does not apply")]})
    with pytest.raises(PatchError):
        review(one, each=False, search=False)


def test_a_base_that_does_not_build_ends_it(make: Make) -> None:
    _, one = make({0: [BuildError("no compiler")]})
    with pytest.raises(BuildError):
        review(one, each=False, search=False)


def test_results_that_were_cut_short_are_passed_over(make: Make) -> None:
    first, one = make({})
    review(one, each=False, search=False)
    results = one.place / trial.RESULTS
    results.write_text(results.read_text()[:-20] + "\nnonsense\n[1]\n")
    second, two = make({}, first)
    review(two, each=False, search=False)
    assert second.runs == [LAST]
