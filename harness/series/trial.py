# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels of a series, built and run: the base with the first so many of its patches.

What was run is kept by the hash of the patches, so that a series that is tried again, after an
interruption or with a patch more, goes on where it was.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.errors import BuildError, EvidenceError, HarnessError, PatchError
from harness.job import in_child
from harness.judge import judge
from harness.kernel.build import build
from harness.kernel.built import BuiltKernel
from harness.kernel.kconfig import Config, config_of
from harness.kernel.origin import Base, base_of
from harness.kernel.worktree import patchset_hash
from harness.pipeline import guests_at_once, pipelined
from harness.prepare import Request, prepare
from harness.rundir import RunDir, writing
from harness.series.patch import Series
from harness.session import Progress
from harness.verdict import Outcome, Verdict

RUN_TIMEOUT_S = 900.0
RESULTS = "results.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of the base with the first `number` patches."""

    number: int
    # None: it does not build, `error` says why
    verdict: Verdict | None = None
    run: Path | None = None
    # compiler warnings that the base has not
    new_warnings: tuple[str, ...] = ()
    error: HarnessError | None = None


@dataclass(slots=True, kw_only=True)
class Trial:
    """A series on a base, in one kind of guest. Make it with trial_of()."""

    series: Series
    patches: tuple[Path, ...]
    base: Base
    config: Config
    guest: Request
    workloads: tuple[str, ...]
    place: Path
    progress: Progress
    _known: dict[int, Result] = field(default_factory=dict)

    def results(self, numbers: Iterable[int]) -> Iterator[Result]:
        """The results of these kernels, in order: those that are kept, and the others in parallel.

        Raises PatchError for a patch that does not apply, and what interrupts.
        """
        wanted = list(numbers)
        missing = [number for number in wanted if number not in self._known]
        at_once = guests_at_once(self.guest.smp, self.guest.memory_mib)
        made = pipelined(missing, self._build, self._run, at_once)
        for number in wanted:
            if number not in self._known:
                _, done = next(made)
                yield self._noted(number, done)
            else:
                yield self._known[number]

    def result(self, number: int) -> Verdict:
        """The verdict of one kernel. Raises what keeps it from being built or run."""
        (found,) = self.results((number,))
        if found.verdict is None:
            assert found.error is not None
            raise found.error
        return found.verdict

    def again(self, number: int) -> Result:
        """A second run of a kernel, in a fresh guest; it is not kept in place of the first."""
        return self._run(number, self._build(number))

    def _build(self, number: int) -> BuiltKernel:
        return build(self.base, self.patches[:number], self.config, self.progress)

    def _run(self, number: int, kernel: BuiltKernel) -> Result:
        self.progress(f"running {self.name_of(number)}")
        request = replace(self.guest, kernel=str(kernel.image))
        run = in_child(request, self.workloads, self.place, RUN_TIMEOUT_S)
        return Result(
            number=number, verdict=judge(run), run=run.path, new_warnings=kernel.new_warnings
        )

    def name_of(self, number: int) -> str:
        """Words for a kernel: the base, or its last patch."""
        if not number:
            return self.base.name
        return f"{number}/{len(self.patches)} {self.series.patches[number - 1].subject}"

    def _noted(self, number: int, done: Result | HarnessError) -> Result:
        if isinstance(done, PatchError):
            raise done
        if isinstance(done, HarnessError):
            result = Result(number=number, error=done)
            # A host that failed may do better the next time; a kernel will not build then either.
            if isinstance(done, BuildError):
                self._known[number] = result
            return result
        assert done.verdict is not None
        if done.verdict.outcome is not Outcome.ERROR:
            self._known[number] = done
            self._keep(done)
        return done

    def _keep(self, result: Result) -> None:
        assert result.run is not None
        line = {
            "patches": patchset_hash(self.patches[: result.number]),
            "run": result.run.name,
            "new_warnings": list(result.new_warnings),
        }
        with writing(self.place), (self.place / RESULTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def load(self) -> None:
        """Take up what an earlier trial kept and whose run is still there."""
        kept = _lines(self.place / RESULTS)
        for number in range(len(self.patches) + 1):
            line = kept.get(patchset_hash(self.patches[:number]))
            if line is None:
                continue
            try:
                run = RunDir.open(self.place / str(line["run"]))
                verdict = judge(run)
            except (HarnessError, KeyError):
                continue
            warnings = tuple(str(word) for word in line.get("new_warnings", ()))
            self._known[number] = Result(
                number=number, verdict=verdict, run=run.path, new_warnings=warnings
            )


def trial_of(
    series: Series,
    base: str,
    config: str,
    guest: Request,
    workloads: tuple[str, ...],
    runs: Path,
    progress: Progress,
) -> Trial:
    """A trial with what an earlier one has kept; the words are those of `tdharness build`.

    Raises HarnessError.
    """
    progress(f"getting {base}")
    source, configuration = base_of(base), config_of(config, base)
    plan = prepare(guest, lambda _: None)
    plugin = plan.spec.plugin.stem if plan.spec.plugin else ""
    parts = (source.commit, configuration.digest, plugin, *guest.words(), *workloads)
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
    place = runs / f"series-{key}"
    made = Trial(
        series=series,
        patches=series.write(place / "patches" / series.digest),
        base=source,
        config=configuration,
        guest=guest,
        workloads=workloads,
        place=place,
        progress=progress,
    )
    made.load()
    return made


def _lines(path: Path) -> dict[str, dict[str, Any]]:
    """The kept results by the hash of their patches; a line that was cut short is none."""
    found: dict[str, dict[str, Any]] = {}
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise EvidenceError(f"cannot read {path}: {error}") from error
    for line in text.splitlines():
        try:
            data = json.loads(line)
            found[str(data["patches"])] = data
        except (ValueError, KeyError, TypeError):
            continue
    return found
