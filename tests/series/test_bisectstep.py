# SPDX-License-Identifier: GPL-2.0-or-later
"""git bisect run over a tree: its answers, and that nothing else is taken for one."""

import sys
from pathlib import Path

import pytest

from harness import bisectstep, proc
from harness.bisectstep import Question, answer, exit_code
from harness.cli import GIT_STOPS
from harness.errors import BuildError, ConfigError, GuestError, HarnessError, HostError, PatchError
from harness.git import command, git, say
from harness.kernel.built import BuiltKernel
from harness.kernel.origin import Base
from harness.prepare import Request
from harness.progress import Progress
from harness.rundir import RunDir
from harness.series.bisect import Answer
from harness.testing.toykernel import ToyKernel
from harness.verdict import Finding, Outcome, Severity, Verdict


@pytest.mark.parametrize("found", list(Answer))
def test_the_code_of_an_answer(found: Answer) -> None:
    assert exit_code(lambda: found, lambda _: None) == found.value
    assert Answer.HOST_FAILURE.value == GIT_STOPS


@pytest.mark.parametrize(
    "error",
    [HostError("x"), PatchError("x"), ConfigError("x"), GuestError("x"), OSError("x"), KeyError()],
)
def test_what_goes_wrong_stops_the_search(error: Exception) -> None:
    told: list[HarnessError] = []

    def fail() -> Answer:
        raise error

    assert exit_code(fail, told.append) == GIT_STOPS
    assert told == ([error] if isinstance(error, HarnessError) else [])


def test_an_interruption_stays_one() -> None:
    def stop() -> Answer:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exit_code(stop, lambda _: None)


class Machine:
    """What builds and runs, replaced: the file one.c says how it goes."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.toy = ToyKernel(path)
        self.path = path
        self.built: list[tuple[str, int]] = []
        monkeypatch.setenv("TDHARNESS_CACHE", str(path / "cache"))
        monkeypatch.setattr(bisectstep, "build", self.build)
        monkeypatch.setattr(bisectstep, "prepare", lambda request, say, steps: request)
        monkeypatch.setattr(bisectstep, "carry_out", lambda *_: RunDir(path))
        monkeypatch.setattr(bisectstep, "judge", self.judge)

    @property
    def text(self) -> str:
        return (self.toy.path / "one.c").read_text()

    def build(self, base: Base, patches: tuple[Path, ...], *_: object) -> BuiltKernel:
        self.built.append((base.commit, len(patches)))
        assert all(patch.is_file() for patch in patches)
        if "BROKEN" in self.text:
            raise BuildError("one.c does not compile")
        if "GONE" in self.text:
            raise PatchError("does not apply")
        return BuiltKernel(
            image=self.path, vmlinux=self.path, system_map=self.path, build_tree=self.path,
            log=self.path, commit="", patchset="", warnings=(), new_warnings=(), missing=(),
            seconds=1.0, cached=False,
        )  # fmt: skip

    def judge(self, run: RunDir) -> Verdict:
        if "BAD" not in self.text:
            return Verdict(outcome=Outcome.PASS)
        found = Finding(rule="guest-tlb-flush", severity=Severity.FAIL, summary="s")
        return Verdict(outcome=Outcome.FAIL, findings=(found,))

    def ask(self, **words: str) -> Answer:
        runs = self.path / "runs"
        question = Question(request=Request(), steps=(), runs=runs, source=self.toy.path, **words)
        return answer(question, Progress())


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_a_kernel_is_what_its_run_says(machine: Machine) -> None:
    assert machine.ask() is Answer.GOOD
    machine.toy.patch("bad", one=("TOY", "BAD"))
    assert machine.ask(finding="guest-tlb-flush") is Answer.BAD
    assert machine.ask(finding="dma-data") is Answer.GOOD
    machine.toy.patch("broken", one=("BAD", "BROKEN"))
    assert machine.ask() is Answer.SKIP
    machine.toy.patch("gone", one=("BROKEN", "GONE"))
    with pytest.raises(PatchError):
        machine.ask()


def test_a_base_saves_building_all(machine: Machine) -> None:
    first = say(machine.toy.path, "rev-parse", "HEAD")
    machine.toy.patch("one", one=("TOY", "TOY + 1"))
    machine.toy.patch("two", two=("return 2", "return 3"))
    last = say(machine.toy.path, "rev-parse", "HEAD")
    machine.ask()
    machine.ask(base=first)
    # No patches from here on: all of it is built.
    git(machine.toy.path, "checkout", "-q", first)
    machine.ask(base=last)
    assert machine.built == [(last, 0), (first, 2), (first, 0)]


def test_git_finds_the_first_bad_commit_with_these_codes(tmp_path: Path) -> None:
    toy = ToyKernel(tmp_path)
    for number in range(2, 9):
        toy.patch(str(number), two=(f"return {number}", f"return {number + 1}"))
    script = tmp_path / "step.py"
    script.write_text(
        "import pathlib, re, sys\n"
        "from harness.bisectstep import exit_code\n"
        "from harness.series.bisect import Answer\n"
        "n = int(re.search('return ([0-9]+)', pathlib.Path('two.c').read_text())[1])\n"
        "found = Answer.SKIP if n in (4, 5) else Answer.BAD if n > 6 else Answer.GOOD\n"
        "sys.exit(exit_code(lambda: found, print))\n"
    )
    git(toy.path, "bisect", "start", "HEAD", "HEAD~7")
    argv = command(["-C", toy.path, "bisect", "run", sys.executable, script])
    result = proc.run(argv, timeout_s=60)
    bad = say(toy.path, "log", "-1", "--format=%s", "refs/bisect/bad")
    assert "is the first bad commit" in result.stdout and bad == "6"
