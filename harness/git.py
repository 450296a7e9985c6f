# SPDX-License-Identifier: GPL-2.0-or-later
"""git, with the same answers for everybody: no configuration, hook or identity of the user's."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness import proc
from harness.errors import HostError

TIMEOUT_S = 900.0
# The same commit for the same content, whoever makes it and whenever.
_WHO = "tdharness"
_DATE = "@0 +0000"
_HINT = "install git"
_SETTINGS = (
    ("core.hooksPath", "/dev/null"),
    ("commit.gpgSign", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    # paths as they are, not quoted
    ("core.quotePath", "false"),
    # Hard links to its files are no change of the files.
    ("core.trustctime", "false"),
    ("checkout.workers", "0"),
    ("advice.detachedHead", "false"),
    # A repository of another user is used as it is: nothing of it is executed here.
    ("safe.directory", "*"),
)


def environment() -> dict[str, str]:
    """What git runs with."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    people = {
        f"GIT_{role}_{part}": value
        for role in ("AUTHOR", "COMMITTER")
        for part, value in (("NAME", _WHO), ("EMAIL", _WHO), ("DATE", _DATE))
    }
    files = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    files |= {"GIT_TERMINAL_PROMPT": "0", "GIT_ATTR_NOSYSTEM": "1", "LC_ALL": "C"}
    return {**kept, **people, **files}


def command(words: Sequence[str | os.PathLike[str]]) -> list[str]:
    """The argv of a git command."""
    settings = [word for name, value in _SETTINGS for word in ("-c", f"{name}={value}")]
    return ["git", *settings, *(os.fspath(word) for word in words)]


def git(
    place: Path,
    *words: str | os.PathLike[str],
    check: bool = True,
    env: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
    stdin: Path | None = None,
) -> proc.Result:
    """Run git in a directory, with a file as input if it needs one.

    Raises HostError with git's last line when it fails and `check`.
    """
    result = proc.run(
        command(["-C", place, *words]),
        timeout_s=timeout_s,
        env={**environment(), **(env or {})},
        check=False,
        hint=_HINT,
        stdin=stdin,
    )
    if check and result.returncode:
        said = (result.stderr or result.stdout).strip().splitlines() or ["no word"]
        raise HostError(f"git {words[0]} failed in {place}: {said[-1][:300]}")
    return result


def say(place: Path, *words: str | os.PathLike[str]) -> str:
    """What git prints, without the newline at the end. Raises HostError when it fails."""
    return git(place, *words).stdout.strip()


def make_repository(path: Path) -> None:
    """An empty bare repository. Raises HostError."""
    path.mkdir(parents=True, exist_ok=True)
    git(path, "init", "-q", "--bare", "--template=", "--initial-branch=base", ".")
