# SPDX-License-Identifier: GPL-2.0-or-later
"""What can go wrong outside the kernel under test; one branch per thing the caller can do.

A kernel bug is never an exception: it is a `harness.verdict.Finding`.
"""

from enum import IntEnum
from pathlib import Path

from harness.text import harmless, without_password


class ExitCode(IntEnum):
    """Exit codes of every `tdharness` command; documented in the README, stable."""

    PASS = 0
    FINDINGS = 1
    USAGE = 2
    HOST = 3
    CANNOT_JUDGE = 4
    INTERRUPTED = 130


class HarnessError(Exception):
    """Root of all errors; `hint` says what to try, `log` is the file to read."""

    exit_code = ExitCode.HOST

    def __init__(self, message: str, *, hint: str | None = None, log: Path | None = None) -> None:
        super().__init__(without_password(message))
        # A mirror or a repository may be named with one.
        self.message = without_password(message)
        self.hint = without_password(hint) if hint else hint
        self.log = log

    def __str__(self) -> str:
        parts = [self.message]
        if self.hint:
            parts.append(f"hint: {self.hint}")
        if self.log:
            parts.append(f"log: {self.log}")
        # A compiler, git and ssh repeat what patches and hosts are called; this goes to terminals.
        return harmless("\n".join(parts))


class ConfigError(HarnessError):
    """The input is wrong and its author can mend it."""

    exit_code = ExitCode.USAGE


class HostError(HarnessError):
    """This machine lacks something: a tool, space, a privilege, an accelerator."""


class BuildError(HarnessError):
    """A plugin, module, image or kernel did not build; `log` has the compiler's words."""


class PatchError(BuildError):
    """A patch does not apply to its base; nothing of it was left behind."""


class MachineError(HarnessError):
    """The VM process failed to start, was lost, or broke a protocol."""


class GuestError(HarnessError):
    """The guest did not do as told: no boot, no report, a command failed or timed out."""

    exit_code = ExitCode.FINDINGS


class EvidenceError(HarnessError):
    """The evidence is missing, cut short or of another schema: nothing can be judged."""

    exit_code = ExitCode.CANNOT_JUDGE
