# SPDX-License-Identifier: GPL-2.0-or-later
"""ansible/ is clean by ansible-lint's production profile, and both inventories fit the playbook."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from harness import proc

ANSIBLE = Path(__file__).resolve().parents[2] / "ansible"
BIN = Path(sys.executable).parent


def said(home: Path, directory: Path, program: str, *words: str) -> str:
    """What one of ansible's programs has to say when it is not content; "" when it is."""
    env = {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": os.fspath(home), "LC_ALL": "C.UTF-8"}
    env |= {"ANSIBLE_NOCOLOR": "1", "NO_COLOR": "1", "ANSIBLE_HOME": os.fspath(home)}
    result = proc.run([BIN / program, *words], timeout_s=300, cwd=directory, env=env, check=False)
    return result.stdout + result.stderr if result.returncode else ""


def lint(home: Path, directory: Path) -> str:
    return said(home, directory, "ansible-lint", "--profile", "production", "--offline")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return shutil.copytree(ANSIBLE, tmp_path / "ansible", ignore=shutil.ignore_patterns(".ansible"))


def test_the_roles_are_clean(tmp_path: Path, copied: Path) -> None:
    assert not lint(tmp_path, copied)


def test_a_module_without_its_full_name_is_found(tmp_path: Path, copied: Path) -> None:
    path = copied / "roles/libvirt_host/tasks/main.yml"
    path.write_text(path.read_text().replace("ansible.builtin.apt", "apt"))
    assert "fqcn" in lint(tmp_path, copied)


@pytest.mark.parametrize("lab", ["local", "lab"])
def test_an_inventory_fits_the_playbook(lab: str, tmp_path: Path, copied: Path) -> None:
    words = ("-i", f"inventories/{lab}", "--syntax-check", "site.yml")
    assert not said(tmp_path, copied, "ansible-playbook", *words)


def test_a_broken_playbook_is_found(tmp_path: Path, copied: Path) -> None:
    path = copied / "site.yml"
    path.write_text(path.read_text().replace("role: libvirt_host", "role: no_such_role"))
    assert "no_such_role" in said(
        tmp_path, copied, "ansible-playbook", "--syntax-check", "site.yml"
    )
