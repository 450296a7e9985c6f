# SPDX-License-Identifier: GPL-2.0-or-later
"""A night: what is left of its matrix is planned, built, run, judged and kept, cell by cell.

    RUNS/history.sqlite           all nights (harness.history)
    RUNS/nights/index.html        all nights, to look at; latest leads to the newest
    RUNS/nights/NUMBER/           one night: its page, its exports, and runs/ with its guests

The history alone says what was done. A night that was killed goes on with the cells that it had
not kept; each is kept in one step, with all that was found in it, as soon as it has ended.
"""

import datetime
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import ExitCode, HarnessError, HostError
from harness.history.records import Cell, CellKey, Night, busy_s, compare, merged
from harness.history.store import History
from harness.job import in_child
from harness.judge import judge
from harness.kernel.build import build
from harness.kernel.built import BuiltKernel
from harness.known import KnownIssue
from harness.nightly.cells import (
    Ran,
    cell_like,
    cell_of,
    cell_of_error,
    exit_code,
    issue_notes,
    name_of,
    new_bugs,
    seen_in,
)
from harness.nightly.config import NightConfig
from harness.nightly.pages import publish
from harness.nightly.plan import Job, Plan, Wanted, plan
from harness.nightly.sources import Sources, read_sources
from harness.pipeline import guests_at_once, pipelined
from harness.prepare import Request
from harness.rundir import writing
from harness.session import Progress
from harness.verdict import Verdict

HISTORY = "history.sqlite"
NIGHTS = "nights"
RUN_TIMEOUT_S = 900.0
# A night that was killed longer ago is over: another one begins.
RESUME_S = 18 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A night at its end."""

    night: Night
    before: Night | None
    notes: tuple[str, ...]
    page: Path
    exit_code: ExitCode


class _TooLateError(HarnessError):
    """The budget was used up before the job began."""


def was_cut_short(config: NightConfig, runs: Path) -> bool:
    """Whether run_night() would go on with a night. Raises HostError when one is running."""
    with _alone(runs / NIGHTS / "lock"), History(runs / HISTORY) as history:
        return _cut_short(history, config.name, time.time()) is not None


def run_night(config: NightConfig, runs: Path, progress: Progress) -> Ended:
    """Begin the night, or go on with the one that was cut short, until all is run or time is up.

    Raises ConfigError, HostError when another night is running, and what interrupts.
    """
    place = runs / NIGHTS
    with _alone(place / "lock"), History(runs / HISTORY) as history:
        sources = read_sources(config, place / "patches", progress)
        night = _Running(config, sources, history, place, progress)
        night.go()
        return night.end()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise HostError(
                f"another night is running in {path.parent}",
                hint="wait for it, or give this one runs of its own: --runs DIR",
            ) from None
    try:
        yield
    finally:
        lock.release()


def _cut_short(history: History, name: str, now_s: float) -> int | None:
    """The night to go on with. One that was cut short too long ago is over."""
    number = history.unfinished_night(name)
    if number is None:
        return None
    night = history.night(number)
    last_s = max((night.started_s, *(cell.ended_s for cell in night.cells)))
    if now_s - last_s < RESUME_S:
        return number
    history.end_night(number, last_s)
    return None


@dataclass(slots=True)
class _Running:
    config: NightConfig
    sources: Sources
    history: History
    place: Path
    progress: Progress
    number: int = 0
    started_s: float = 0.0
    earlier: tuple[Night, ...] = ()
    before: Night | None = None
    # tonight's cells that have ended, by key
    done: dict[CellKey, Cell] = field(default_factory=dict)
    deadline_s: float = 0.0
    # bugs that were there before, or that a second guest was tried for tonight
    tried: set[tuple[str, str, str]] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def go(self) -> None:
        """Run what is left."""
        todo = self._begin()
        while True:
            planned = self._plan(todo)
            if not planned.jobs:
                return
            minutes = planned.expected_s / 60
            self.progress(f"{len(planned.jobs)} to run, about {minutes:.0f} minutes")
            smp = max(job.first.key.vcpus for job in planned.jobs)
            at_once = guests_at_once(smp, self.config.memory_mib)
            made = pipelined(planned.jobs, self._build, self._run, at_once, in_order=False)
            # What interrupts here ends the guests before the history is closed.
            with closing(made):
                for job, found in made:
                    if not isinstance(found, _TooLateError):
                        self._told(job, found)
            todo = [one for one in todo if one.key not in self.done]

    def _begin(self) -> list[Wanted]:
        """Take up the night that was cut short, or begin one; the cells that are still to run."""
        now_s = time.time()
        number = _cut_short(self.history, self.config.name, now_s)
        if number:
            self.progress(f"going on with night {number}")
        self.number = number or self.history.start_night(self.config.name, now_s)
        night = self.history.night(self.number)
        self.started_s = night.started_s
        self.earlier = self.history.earlier(night)
        self.before = merged(self.earlier)
        wanted = self.sources.wanted(self.config)
        ordered = plan(wanted, self.earlier, 0.0).left_out
        self.history.plan(self.number, (one.key for job in ordered for one in job.cells))
        left = set(self.history.resume(self.number))
        self.done = {c.key: c for c in self.history.night(self.number).cells if c.outcome}
        self.tried = seen_in(self.before.cells if self.before else (), sure=False)
        self.tried |= seen_in(self.done.values(), sure=True)
        self.deadline_s = now_s + self.config.budget_s - busy_s(self.done.values())
        todo = [one for one in wanted if one.key in left]
        for one in todo:
            self._without_run(one, now_s)
        self._publish()
        return [one for one in todo if one.key not in self.done]

    def _without_run(self, one: Wanted, now_s: float) -> None:
        """End a cell whose kernel cannot be had, or that another one of tonight has run for it."""
        missing = self.sources.missing(one.key)
        if missing:
            self._finish(self.history, cell_of_error(one, missing, now_s))
            return
        for cell in self.done.values():
            alike = Wanted(key=cell.key, commit=cell.commit, patchset=cell.patchset)
            if alike.work == one.work and cell.run:
                self._finish(self.history, cell_like(cell, one, self._known(one), self._today()))
                return

    def _plan(self, todo: Sequence[Wanted]) -> Plan:
        left_s = self.deadline_s - time.time()
        smp = max(self.config.vcpus)
        at_once = guests_at_once(smp, self.config.memory_mib)
        ran = any(cell.run for cell in self.done.values())
        nights = (self.history.night(self.number), *self.earlier)
        kernels = {one.kernel: one.key for one in todo}
        return plan(
            todo,
            nights,
            left_s,
            at_once=at_once,
            at_least_one=not ran,
            built=[kernel for kernel, key in kernels.items() if self.sources.is_built(key)],
        )

    def _build(self, job: Job) -> BuiltKernel:
        self._check_time()
        base, patches, config = self.sources.parts(job.first.key)
        return build(base, patches, config, self.progress)

    def _run(self, job: Job, kernel: BuiltKernel) -> list[Cell]:
        """Run and keep. Errors are left to the main thread: an interruption looks like one here."""
        self._check_time()
        with History(self.history.path) as own:
            for one in job.cells:
                own.begin(self.number, one.key, time.time())
        self.progress(f"running {name_of(job.first.key)}")
        started_s = time.time()
        run, verdict = self._guest(job, kernel)
        ran = Ran(
            run=run,
            verdict=verdict,
            started_s=started_s,
            ended_s=time.time(),
            build_s=0.0 if kernel.cached else kernel.seconds,
            warnings=kernel.new_warnings,
        )
        cells = self._cells(job, self._again(job, kernel, ran))
        with History(self.history.path) as own:
            for cell in cells:
                self._finish(own, cell)
        return cells

    def _again(self, job: Job, kernel: BuiltKernel, ran: Ran) -> Ran:
        """Once more in a fresh guest, when something is new; both are kept."""
        with self.lock:
            new = new_bugs(self._cells(job, ran)) - self.tried
            self.tried |= new
        if not new:
            return ran
        self.progress(f"{len(new)} new in {name_of(job.first.key)}: once more, to be sure")
        run, verdict = self._guest(job, kernel)
        return replace(ran, ended_s=time.time(), again_run=run, again=verdict)

    def _guest(self, job: Job, kernel: BuiltKernel) -> tuple[str, Verdict]:
        key = job.first.key
        request = Request(
            kernel=str(kernel.image),
            td_mode=key.mode,
            smp=key.vcpus,
            memory_mib=self.config.memory_mib,
        )
        timeout_s = RUN_TIMEOUT_S * max(1.0, key.vcpus / 2)
        run = in_child(request, self.config.workloads, self._folder / "runs", timeout_s)
        return str(run.path), judge(run)

    def _check_time(self) -> None:
        if time.time() >= self.deadline_s and any(cell.run for cell in self.done.values()):
            raise _TooLateError("the night's budget is used up")

    def _told(self, job: Job, found: list[Cell] | HarnessError) -> None:
        if isinstance(found, HarnessError):
            now_s = time.time()
            for one in job.cells:
                self._finish(self.history, cell_of_error(one, found, now_s))
        outcome = self.done[job.first.key].outcome
        self.progress(f"{outcome.value if outcome else ''}: {name_of(job.first.key)}")
        self._publish()

    def _cells(self, job: Job, ran: Ran) -> list[Cell]:
        return [cell_of(one, ran, self._known(one), self._today()) for one in job.cells]

    def _finish(self, history: History, cell: Cell) -> None:
        history.finish(self.number, cell)
        self.done[cell.key] = cell

    def _known(self, one: Wanted) -> tuple[KnownIssue, ...]:
        return self.sources.series[one.key.series].known

    def _today(self) -> datetime.date:
        """The day on which the night began: an issue does not expire at midnight."""
        return datetime.datetime.fromtimestamp(self.started_s, datetime.UTC).date()

    @property
    def _folder(self) -> Path:
        return self.place / f"{self.number:04}"

    def _notes(self, night: Night) -> list[str]:
        known = {series.name: series.known for series in self.sources.series.values()}
        said = [note for series in self.sources.series.values() for note in series.notes]
        return [*self.sources.unread, *said, *issue_notes(known, night, self._today())]

    def _publish(self, ended_s: float = 0.0) -> Night:
        night = replace(self.history.night(self.number), ended_s=ended_s)
        notes = self._notes(night)
        nights = [night if one.number == night.number else one for one in self.history.nights()]
        publish(self.place, night, self.earlier, nights, notes, self.config.origin)
        return night

    def end(self) -> Ended:
        """Close the night, and remove the runs of nights that are long over."""
        ended_s = time.time()
        # The pages first: a night that is killed in between is ended, and told, once more.
        night = self._publish(ended_s)
        self.history.end_night(self.number, ended_s)
        for number in self.history.numbers(self.config.name)[self.config.keep_nights :]:
            shutil.rmtree(self.place / f"{number:04}/runs", ignore_errors=True)
        return Ended(
            night=night,
            before=self.before,
            notes=tuple(self._notes(night)),
            page=self._folder / "index.html",
            exit_code=exit_code(night, compare(night, self.before), self.sources.unread),
        )
