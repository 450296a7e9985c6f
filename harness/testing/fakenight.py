# SPDX-License-Identifier: GPL-2.0-or-later
"""Nights whose kernels and guests are pretended; planning, keeping and pages are real.

python -m harness.testing.fakenight FILE RUNS [HANG]: `tdharness nightly FILE --runs RUNS` that says
`build N` and `guest N`, and hangs before the action HANG, such as `guest 2`, unless it did so once.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from harness import cli, proc
from harness.errors import HarnessError
from harness.kernel.built import BuiltKernel
from harness.kernel.kconfig import Config
from harness.kernel.origin import Base
from harness.nightly import night, sources
from harness.prepare import Request
from harness.rundir import RunDir
from harness.verdict import Finding, Outcome, Severity, Site, Verdict

CLEAN = Verdict(outcome=Outcome.PASS, counts={"steps": 9})
PATCH = """\
From 0123456789abcdef0123456789abcdef01234567 Mon Sep 17 00:00:00 2001
From: Ada Example <ada@example.org>
Date: Thu, 1 Jan 2026 00:00:00 +0000
Subject: [PATCH] {subject}

---
 mm/a{number}.c | 2 +-
 1 file changed, 1 insertion(+), 1 deletion(-)

diff --git a/mm/a{number}.c b/mm/a{number}.c
--- a/mm/a{number}.c
+++ b/mm/a{number}.c
@@ -1 +1 @@
-old
+{subject}
"""


def bug(place: str = "dma_direct_alloc") -> Finding:
    """A finding that counts."""
    return Finding(
        rule="guest-cache-flush",
        severity=Severity.FAIL,
        summary=f"64 lines were still dirty when {place} made the page shared",
        direction="private to shared",
        conversion_site=Site(address=1, symbol=f"{place}+0x1/0x2"),
    )


def bad(*places: str) -> Verdict:
    """A run that went to its end and found something."""
    return Verdict(outcome=Outcome.FAIL, findings=tuple(map(bug, places)), counts={"steps": 9})


def write_series(directory: Path, *subjects: str) -> Path:
    """Patches as git format-patch writes them."""
    directory.mkdir(parents=True, exist_ok=True)
    for number, subject in enumerate(subjects, 1):
        text = PATCH.format(number=number, subject=subject)
        (directory / f"{number:04}-p.patch").write_text(text)
    return directory


# What a kernel does, by how many patches it has: verdicts of its runs in order, the last for ever.
Kernels = Mapping[int, Sequence[Verdict | HarnessError]]


class FakeWorld:
    """Builds and guests that take no time; `told` is called before each, and may raise."""

    def __init__(self, kernels: Kernels, told: Callable[[str], None] = lambda _: None) -> None:
        self.kernels = kernels
        self.told = told
        self.at_once = 1
        self.builds: list[int] = []
        # the number of patches and the vCPUs of each guest
        self.guests: list[tuple[int, int]] = []
        self._verdicts: dict[str, Verdict] = {}

    def build(self, base: Base, patches: Sequence[Path], *_: object) -> BuiltKernel:
        number = len(patches)
        self.told(f"build {number}")
        first = self.kernels.get(number, (CLEAN,))[0]
        if isinstance(first, HarnessError):
            raise first
        cached = number in self.builds
        self.builds.append(number)
        image = Path(str(number))
        return BuiltKernel(
            image=image, vmlinux=image, system_map=image, build_tree=image, log=image, commit="",
            patchset="", warnings=(), new_warnings=(), missing=(), seconds=2.0, cached=cached,
        )  # fmt: skip

    def in_child(
        self, request: Request, workloads: Sequence[str], runs: Path, timeout_s: float
    ) -> RunDir:
        number = int(request.kernel)
        self.told(f"guest {number}")
        outcomes = self.kernels.get(number, (CLEAN,))
        before = sum(guest[0] == number for guest in self.guests)
        outcome = outcomes[min(before, len(outcomes) - 1)]
        self.guests.append((number, request.smp))
        if isinstance(outcome, HarnessError):
            raise outcome
        run = RunDir.create(runs, "fake")
        self._verdicts[run.path.name] = outcome
        return run

    def judge(self, run: RunDir) -> Verdict:
        return self._verdicts[run.path.name]

    @contextmanager
    def instead(self) -> Iterator["FakeWorld"]:
        """Nights are run in this world meanwhile."""
        with (
            mock.patch.multiple(
                night,
                build=self.build,
                in_child=self.in_child,
                judge=self.judge,
                # The same order on every machine.
                guests_at_once=lambda *_: self.at_once,
            ),
            mock.patch.multiple(
                sources,
                base_of=self.base_of,
                config_of=self.config_of,
                is_built=self.is_built,
            ),
        ):
            yield self

    def is_built(self, base: Base, patches: Sequence[Path], config: Config) -> bool:
        return len(patches) in self.builds

    def base_of(self, word: str) -> Base:
        return Base(word, Path(word), hashlib.sha1(word.encode()).hexdigest())

    def config_of(self, word: str, base: str) -> Config:
        return Config(name=word, target="", text="", strict=True)


def main() -> int:
    """`tdharness nightly`, for tests that kill it."""
    file, runs, *hang = sys.argv[1:]
    struck = Path(runs) / "struck"

    def told(what: str) -> None:
        print(what, flush=True)
        if what in hang and not struck.exists():
            struck.touch()
            proc.run(["sleep", "600"], timeout_s=700.0)

    with FakeWorld({2: (bad("f"),)}, told).instead():
        return cli.main(["nightly", file, "--runs", runs])


if __name__ == "__main__":
    sys.exit(main())
