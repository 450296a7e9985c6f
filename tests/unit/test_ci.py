# SPDX-License-Identifier: GPL-2.0-or-later
"""`.ci/run` with a bootstrap that only tells how it was called."""

import shutil
from pathlib import Path

import pytest

from harness.proc import run

SCRIPT = Path(__file__).resolve().parents[2] / ".ci" / "run"
BOOTSTRAP = """#!/bin/sh
pwd
printf 'argument %s\\n' "$@"
echo "input $(wc -c)"
echo "environment $CI $NO_COLOR"
exit 7
"""


def test_calls_the_readmes_command_and_gives_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top, elsewhere, temporary = (tmp_path / name for name in ("a b", "elsewhere", "temporary"))
    for directory in (top / ".ci", top / "harness", elsewhere, temporary):
        directory.mkdir(parents=True)
    shutil.copy(SCRIPT, top / ".ci/run")
    bootstrap = top / "harness/bootstrap"
    bootstrap.write_text(BOOTSTRAP)
    bootstrap.chmod(0o755)
    monkeypatch.setenv("TMPDIR", str(temporary))

    result = run([top / ".ci/run"], timeout_s=30, cwd=elsewhere, check=False)

    first, place, *arguments, given, environment = result.stdout.splitlines()
    (results,) = temporary.iterdir()
    assert first == f"JUnit results: {results}/junit.xml"
    assert place == str(top)
    assert arguments == [
        "argument test",
        "argument --tdharness-require=stub",
        f"argument --junitxml={results}/junit.xml",
    ]
    assert (given, environment) == ("input 0", "environment 1 1")
    assert (result.returncode, result.stderr) == (7, "")
