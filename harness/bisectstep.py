# SPDX-License-Identifier: GPL-2.0-or-later
"""One step of `git bisect run`: build what is checked out, run it, say what it is.

Nothing but a verdict on a kernel may end with a code that git takes for an answer.
"""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.errors import BuildError, ConfigError, HarnessError, PatchError
from harness.job import carry_out
from harness.judge import judge
from harness.kernel.build import build
from harness.kernel.kconfig import config_of
from harness.kernel.origin import base_of
from harness.prepare import Request, prepare
from harness.progress import Progress
from harness.series.bisect import Answer, answer_of
from harness.series.read import read_series
from harness.verdict import Outcome, Verdict
from harness.workload import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of a kernel."""

    request: Request
    steps: Sequence[Step]
    runs: Path
    # as `answer_of` takes it
    finding: str = ""
    # the git tree whose HEAD is built; None: the request's kernel is there
    source: Path | None = None
    # a revision: what came since is built as patches on it, so that make builds what they change
    base: str = ""
    config: str = "lean"


def exit_code(ask: Callable[[], Answer], complain: Callable[[HarnessError], None]) -> int:
    """The exit code for git. Whatever goes wrong with the harness or the host stops the search."""
    try:
        return ask().value
    except HarnessError as error:
        complain(error)
    except Exception:
        # Python would exit with 1, which git takes for a bad kernel.
        traceback.print_exc()
    return Answer.HOST_FAILURE.value


def answer(question: Question, progress: Progress) -> Answer:
    """Build, run, judge. Raises what keeps a kernel from being judged, but for its own build."""
    request = question.request
    if question.source:
        try:
            request = replace(request, kernel=str(_built(question, question.source, progress)))
        except PatchError:
            raise
        except BuildError as error:
            progress.complain(error)
            return Answer.SKIP
    plan = prepare(request, progress.say, steps=question.steps)
    run = carry_out(plan, question.steps, question.runs, progress.say, progress.complain)
    verdict = judge(run)
    # A run that went to its end.
    whole = Verdict(outcome=Outcome.PASS, counts={"steps": len(question.steps)})
    found = answer_of(verdict, question.finding, whole)
    progress.say(f"{found.name.lower().replace('_', ' ')}: {verdict.outcome}, {run.path}")
    return found


def _built(question: Question, source: Path, progress: Progress) -> Path:
    config = config_of(question.config, str(source))
    with TemporaryDirectory(prefix="tdharness-bisect-") as place:
        patches: tuple[Path, ...] = ()
        base = base_of(f"{source}@HEAD")
        if question.base:
            try:
                series = read_series(f"{source}@{question.base}..HEAD")
                patches = series.write(Path(place))
                base = base_of(f"{source}@{question.base}")
            except ConfigError as error:
                progress.say(f"building all of it: {error.message}")
        return build(base, patches, config, progress.say).image
