# SPDX-License-Identifier: GPL-2.0-or-later
"""A checked out kernel that is moved from patch set to patch set.

Git writes only the files that differ, so make builds only what a patch changes. Each patched
commit keeps a name in the repository, `refs/patched/BASE/PATCHSET`: a series that goes on with what
was applied before starts from there.
"""

import contextlib
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from harness.errors import ConfigError, PatchError
from harness.git import git, say
from harness.kernel.origin import Base
from harness.provision.cache import remove_tree
from harness.text import printable

MOST_PATCH_BYTES = 20_000_000
_FAILED = re.compile(r"(?m)^error: patch failed: (?P<file>.+):(?P<line>\d+)$")
_REASONS = (
    re.compile(r"(?m)^error: (.+: does not exist in index)$"),
    re.compile(r"(?m)^error: (.+: already exists in (?:index|working directory))$"),
    re.compile(r"(?m)^error: ((?:invalid path|corrupt patch|affected file).*)$"),
    re.compile(r"(?m)^(Patch format detection failed)\.$"),
    re.compile(r"(?m)^(?:error|fatal): (.*)$"),
)
_BOUND = 300


def patchset_hash(patches: Sequence[Path]) -> str:
    """The hash of a patch set as KCIDB has it; "" for no patches.

    SHA-256 over the patches' own SHA-256, each in hex with a newline, in order. Raises ConfigError
    for a file that cannot be read or is too large for a patch.
    """
    if not patches:
        return ""
    lines = "".join(f"{hashlib.sha256(_content(patch)).hexdigest()}\n" for patch in patches)
    return hashlib.sha256(lines.encode()).hexdigest()


def _content(patch: Path) -> bytes:
    try:
        with patch.open("rb") as file:
            content = file.read(MOST_PATCH_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the patch {patch}: {error.strerror or error}") from error
    if len(content) > MOST_PATCH_BYTES:
        raise ConfigError(f"{patch} is no patch: it is over {MOST_PATCH_BYTES // 10**6} MB")
    return content


class WorkTree:
    """A worktree of a base; the caller holds the lock of its directory."""

    def __init__(self, base: Base, path: Path) -> None:
        self.base = base
        self.path = path

    def prepare(self) -> None:
        """Have it there, without what a process that was killed left. Raises HostError."""
        found = git(self.path, "rev-parse", "--absolute-git-dir", check=False)
        place = Path(found.stdout.strip() or "/")
        if found.returncode or not place.is_relative_to(self.base.repository.resolve()):
            self._make()
            return
        for lock in place.glob("*.lock"):
            lock.unlink()
        self._clean()

    def _make(self) -> None:
        remove_tree(self.path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        git(self.base.repository, "worktree", "prune")
        words = ("worktree", "add", "--quiet", "--force", "--detach", self.path, self.base.commit)
        git(self.base.repository, *words)

    def _clean(self) -> None:
        git(self.path, "am", "--quit", check=False)
        git(self.path, "reset", "--quiet", "--hard")
        git(self.path, "clean", "-ffdqx")

    def checkout(self, patches: Sequence[Path]) -> str:
        """The base with the patches on it; returns the commit.

        Raises PatchError naming the file and the hunk when one does not apply; the worktree is
        then at the last one that does.
        """
        names = [self._name(patches[:count]) for count in range(len(patches) + 1)]
        done, commit = 0, self.base.commit
        for count in range(len(patches), 0, -1):
            known = git(self.path, "rev-parse", "--verify", "--quiet", names[count], check=False)
            if known.returncode == 0:
                done, commit = count, known.stdout.strip()
                break
        git(self.path, "checkout", "--quiet", "--detach", commit)
        for count in range(done, len(patches)):
            self._apply(patches[count], count)
            git(self.path, "update-ref", names[count + 1], "HEAD")
        return say(self.path, "rev-parse", "HEAD")

    def _name(self, patches: Sequence[Path]) -> str:
        return f"refs/patched/{self.base.commit}/{patchset_hash(patches) or 'none'}"

    def _apply(self, patch: Path, before: int) -> None:
        file = patch.resolve()
        result = git(self.path, "am", "--quiet", "--3way", file, check=False)
        if result.returncode == 0:
            return
        with contextlib.ExitStack() as stack:
            stack.callback(self._clean)
            stack.callback(git, self.path, "am", "--abort", check=False)
        output = git(self.path, "apply", "--check", "--index", file, check=False).stderr
        where = describe(result.stderr + result.stdout + output, _content(patch))
        upon = f"{self.base.name} and {before} patches" if before else self.base.name
        raise PatchError(
            f"{patch.name} does not apply to {upon}: {where}",
            hint="make it with git format-patch from a tree at this base",
        )

    def headers_digest(self) -> str:
        """Identifies the headers that modules of this kernel are built with."""
        words = ("HEAD:include", "HEAD:arch/x86/include")
        found = [git(self.path, "rev-parse", "--verify", "--quiet", w, check=False) for w in words]
        return hashlib.sha256("".join(each.stdout for each in found).encode()).hexdigest()


def describe(output: str, patch: bytes) -> str:
    """Why git did not apply a patch: file and hunk where it says so."""
    if failed := _FAILED.search(output):
        file, line = failed["file"], int(failed["line"])
        return printable(f"{file}, {hunk_at(patch, file, line) or f'line {line}'}", _BOUND)
    for reason in _REASONS:
        if match := reason.search(output):
            return printable(match[1], _BOUND)
    return "git says no more"


def hunk_at(patch: bytes, file: str, line: int) -> str | None:
    """The head of the hunk of a patch that begins at a line of the old file."""
    head = re.compile(rf"@@ -{line}(,\d+)? \+\d+(,\d+)? @@.*")
    here = False
    for text in patch.decode(errors="replace").splitlines():
        if text.startswith("--- "):
            here = text.split("/", 1)[-1].split("\t")[0] == file
        elif here and head.match(text):
            return f"hunk {text}"
    return None
