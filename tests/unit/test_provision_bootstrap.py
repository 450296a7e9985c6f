# SPDX-License-Identifier: GPL-2.0-or-later
"""The bootstrap script, with programs of our own in $PATH."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "harness" / "bootstrap"
TOOLS = ("sh", "dirname", "cat", "cksum", "mkdir", "cp", "chmod", "basename")

# A python whose version, ability to make environments and pip are as the files beside it say.
PYTHON = """\
#!/bin/sh
case "$*" in
*version_info\\ \\<*) test ! -e "$FAKES/old" ;;
*ensurepip*) test ! -e "$FAKES/no-venv" ;;
*-venv*) echo python3.11-venv ;;
*"-m venv"*) for last; do :; done
    mkdir -p "$last/bin"; cp "$0" "$last/bin/python"; echo "venv" >>"$FAKES/calls" ;;
*"-m pip --version"*) ;;
*"-m pip install"*) echo "pip" >>"$FAKES/calls"; echo "$*" >>"$FAKES/pip"
    test ! -e "$FAKES/no-network" || exit 1
    cp "$FAKES/tool" "$(dirname "$0")/tdharness"; cp "$FAKES/tool" "$(dirname "$0")/pytest" ;;
*) exit 99 ;;
esac
"""
TOOL = """\
#!/bin/sh
echo "$(basename "$0") $*" >>"$FAKES/calls"
test "$*" != "$FAIL_ON" || exit 3
"""
APT_GET = """\
#!/bin/sh
echo "apt-get $*" >>"$FAKES/calls"
case "$*" in install*) rm -f "$FAKES/no-venv" ;; esac
"""


class Tree:
    """A checkout with the script, and the fake programs that it finds."""

    def __init__(self, base: Path) -> None:
        self.top = base / "check out"
        self.fakes = base / "fakes"
        (self.top / "harness").mkdir(parents=True)
        self.fakes.mkdir()
        shutil.copy(SCRIPT, self.top / "harness")
        (self.top / "pyproject.toml").write_text("[project]\n")
        for name in (*TOOLS, "rm"):
            (self.fakes / name).symlink_to(str(shutil.which(name)))
        self.program("python3", PYTHON)
        self.program("tool", TOOL)
        self.user(1000)

    def program(self, name: str, text: str) -> None:
        (self.fakes / name).write_text(text)
        (self.fakes / name).chmod(0o755)

    def user(self, number: int) -> None:
        self.program("id", f"#!/bin/sh\necho {number}\n")

    def mark(self, name: str) -> None:
        (self.fakes / name).touch()

    def calls(self) -> list[str]:
        path = self.fakes / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def run(self, *words: str, fail_on: str = "-") -> "subprocess.CompletedProcess[str]":
        env = {"PATH": str(self.fakes), "FAKES": str(self.fakes), "FAIL_ON": fail_on}
        argv = [str(self.top / "harness/bootstrap"), *words]
        return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_first_call_makes_the_environment_and_hands_over(tree: Tree) -> None:
    result = tree.run("run", "--smp", "2")
    assert result.returncode == 0, result.stderr
    assert tree.calls() == ["venv", "pip", "tdharness run --smp 2"]
    assert "making .venv" in result.stderr
    assert "installing the Python packages" in result.stderr


def test_second_call_only_hands_over(tree: Tree) -> None:
    tree.run("setup")
    result = tree.run("doctor")
    assert tree.calls() == ["venv", "pip", "tdharness setup", "tdharness doctor"]
    assert result.stderr == ""


def test_changed_requirements_are_installed(tree: Tree) -> None:
    tree.run("setup")
    (tree.top / "pyproject.toml").write_text("[project]\nname = 'new'\n")
    tree.run("setup")
    assert tree.calls()[3:] == ["pip", "tdharness setup"]


def test_moved_checkout_is_installed_again(tree: Tree) -> None:
    tree.run("setup")
    tree.top = tree.top.rename(tree.top.with_name("moved"))
    tree.run("setup")
    assert "pip" in tree.calls()[3:]


def test_libvirt_python_is_installed_where_it_can_be_built(tree: Tree) -> None:
    tree.run("setup")
    tree.program("pkg-config", "#!/bin/sh\n")
    tree.run("setup")
    tree.program("cc", "#!/bin/sh\n")
    tree.run("setup")
    tree.run("setup")
    assert [line.rpartition("[")[2] for line in (tree.fakes / "pip").read_text().splitlines()] == [
        "dev]",
        "dev,libvirt]",
    ]


def test_failed_install_is_tried_again(tree: Tree) -> None:
    tree.mark("no-network")
    result = tree.run("run")
    assert result.returncode == 3
    assert "pip failed" in result.stderr
    (tree.fakes / "no-network").unlink()
    assert tree.run("run").returncode == 0
    assert tree.calls()[-2:] == ["pip", "tdharness run"]


def test_suite_runs_after_the_setup_with_its_arguments(tree: Tree) -> None:
    assert tree.run("test", "-k", "conversion or dma").returncode == 0
    assert tree.calls()[-2:] == [
        "tdharness setup",
        "pytest -n auto --dist loadgroup -k conversion or dma",
    ]


def test_failed_setup_ends_the_test_command_with_its_status(tree: Tree) -> None:
    assert tree.run("test", fail_on="setup").returncode == 3
    assert tree.calls()[-1] == "tdharness setup"


def test_status_of_the_command_is_passed_on(tree: Tree) -> None:
    assert tree.run("run", fail_on="run").returncode == 3


@pytest.mark.parametrize("old", [False, True])
def test_machine_without_a_new_enough_python_is_told_the_command(tree: Tree, old: bool) -> None:
    if old:
        tree.mark("old")
    else:
        (tree.fakes / "python3").unlink()
    result = tree.run("run")
    assert result.returncode == 3
    assert "as root: apt-get install python3 python3-venv" in result.stderr
    assert tree.calls() == []


def test_newer_python_beside_an_old_one_is_found(tree: Tree) -> None:
    tree.program("python3.12", PYTHON.replace('test ! -e "$FAKES/old"', "true"))
    tree.mark("old")
    assert tree.run("run").returncode == 0


COMMAND = "apt-get install -y --no-install-recommends python3.11-venv"


def test_without_root_the_missing_package_is_named_and_nothing_done(tree: Tree) -> None:
    tree.mark("no-venv")
    tree.program("apt-get", APT_GET)
    result = tree.run("run")
    assert result.returncode == 3
    assert f"as root: {COMMAND}" in result.stderr
    assert tree.calls() == []
    assert not (tree.top / ".venv").exists()


def test_as_root_the_missing_package_is_named_and_installed(tree: Tree) -> None:
    tree.mark("no-venv")
    tree.user(0)
    tree.program("apt-get", APT_GET)
    result = tree.run("run")
    assert result.returncode == 0, result.stderr
    assert COMMAND in result.stderr
    assert tree.calls() == ["apt-get update -q", COMMAND, "venv", "pip", "tdharness run"]


def test_failed_install_of_the_package_is_an_error(tree: Tree) -> None:
    tree.mark("no-venv")
    tree.user(0)
    tree.program("apt-get", "#!/bin/sh\nexit 100\n")
    result = tree.run("run")
    assert result.returncode == 3
    assert f"{COMMAND} failed" in result.stderr


def test_help_and_usage_need_no_environment(tree: Tree) -> None:
    helped, bare = tree.run("--help"), tree.run()
    assert (helped.returncode, bare.returncode) == (0, 2)
    assert helped.stdout == bare.stderr
    assert "harness/bootstrap COMMAND" in helped.stdout
    assert not (tree.top / ".venv").exists()


def test_script_is_executable() -> None:
    assert os.access(SCRIPT, os.X_OK)
