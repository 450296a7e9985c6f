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


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone whose programs of the machine only tell how they were called."""
    top, programs, temporary = (tmp_path / name for name in ("a b", "programs", "temporary"))
    for directory in (top / ".ci", top / "harness", programs, temporary):
        directory.mkdir(parents=True)
    shutil.copy(SCRIPT, top / ".ci/run")
    program(top / "harness/bootstrap", BOOTSTRAP)
    program(programs / "pkg-config", "#!/bin/sh\nexit 0\n")
    program(programs / "apt-get", f"#!/bin/sh\necho apt-get $* >>'{tmp_path}/calls'\n")
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setenv("TMPDIR", str(temporary))
    return top


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def test_calls_the_readmes_command_and_gives_its_status(top: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    result = run([top / ".ci/run"], timeout_s=30, cwd=elsewhere, check=False)

    first, place, *arguments, given, environment = result.stdout.splitlines()
    (results,) = (tmp_path / "temporary").iterdir()
    assert first == f"JUnit results: {results}/junit.xml"
    assert place == str(top)
    assert arguments == [
        "argument test",
        "argument --tdharness-require=stub",
        "argument --tdharness-require=libvirt",
        f"argument --junitxml={results}/junit.xml",
    ]
    assert (given, environment) == ("input 0", "environment 1 1")
    assert (result.returncode, result.stderr) == (7, "")
    assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize("user", [0, 1000])
def test_what_libvirt_python_is_built_with_is_installed_by_root(
    user: int, top: Path, tmp_path: Path
) -> None:
    program(tmp_path / "programs/pkg-config", "#!/bin/sh\nexit 1\n")
    program(tmp_path / "programs/id", f"#!/bin/sh\necho {user}\n")
    assert run([top / ".ci/run"], timeout_s=30, check=False).returncode == 7
    calls = tmp_path / "calls"
    said = calls.read_text().splitlines() if calls.exists() else []
    wanted = "apt-get install -y -q --no-install-recommends libvirt-dev pkg-config gcc"
    assert said == (["apt-get update -q", wanted] if user == 0 else [])
