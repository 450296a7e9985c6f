# SPDX-License-Identifier: GPL-2.0-or-later
"""The house rules that a machine can hold; each check also finds a planted fault."""

import ast
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from harness.proc import run

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
MODULE_LINES = 400
FUNCTION_LINES = 40
C_LINES = 300
TOP_LEVEL = {
    ".ci", ".gitignore", "LICENSE", "README.md", "ansible", "guest-images", "harness",
    "kernel-patches", "pyproject.toml", "tests",
}  # fmt: skip
# What is no source, or cannot carry a comment; guest logs are evidence and stay as they were.
WITHOUT_SPDX = re.compile(r"LICENSE$|/(passwd|group)$|\.(md|json|typed|txt|log)$|^tests/data/")
# Written so that this file does not match itself.
FORBIDDEN = re.compile(
    r"(?:deb|security|snapshot|ftp[\w.]*)\.debian\.org|archive\.ubuntu|pypi\.org|python[h]osted|npmj[s]|docker\.io|ghcr\.io"
    r"|(?<![\w.}])/(?:work|farm)/|/tm[p]/t/|/home/[a-z]+/|/root/\.(?:cache|local|pyenv|config)"
)
Check = Callable[[Path, Sequence[Path]], list[str]]


def project_files(root: Path) -> list[Path]:
    """Files that are tracked, or would be with the next `git add`."""
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = run(argv, timeout_s=30, cwd=root).stdout.split("\0")
    return sorted(path for name in set(names) if name and (path := root / name).is_file())


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def first_line(path: Path) -> str:
    return text_of(path).partition("\n")[0]


def is_shell(path: Path) -> bool:
    return bool(re.match(r"#!.*\b(ba|da)?sh\b", first_line(path)))


def tool(name: str, *words: str | Path) -> list[str]:
    """What a checker has to say; nothing when it is content."""
    result = run([BIN / name, *words], timeout_s=300, cwd=ROOT, check=False)
    return [result.stdout + result.stderr] if result.returncode else []


def suffixed(files: Sequence[Path], *suffixes: str) -> list[Path]:
    return [path for path in files if path.suffix in suffixes]


def ruff_check(root: Path, files: Sequence[Path]) -> list[str]:
    return tool("ruff", "check", "--quiet", "--config", ROOT / "pyproject.toml", root)


def ruff_format(root: Path, files: Sequence[Path]) -> list[str]:
    config = ROOT / "pyproject.toml"
    return tool("ruff", "format", "--quiet", "--check", "--config", config, root)


def mypy(root: Path, files: Sequence[Path]) -> list[str]:
    if root == ROOT:
        return tool("mypy")
    return tool("mypy", "--config-file", ROOT / "pyproject.toml", *suffixed(files, ".py"))


def clang_format(root: Path, files: Sequence[Path]) -> list[str]:
    """C for the kernel is in the kernel's style, all other C in QEMU's."""
    found = []
    for home in ("guest-images/module", "harness/stub/plugin"):
        kernel = home.startswith("guest-images")
        sources = [
            path
            for path in suffixed(files, ".c", ".h")
            if path.is_relative_to(root / "guest-images") == kernel
        ]
        style = f"--style=file:{ROOT / home / '.clang-format'}"
        if sources:
            found += tool("clang-format", "--dry-run", "-Werror", style, *sources)
    return found


def shellcheck(root: Path, files: Sequence[Path]) -> list[str]:
    scripts = [path for path in files if is_shell(path)]
    return tool("shellcheck", *scripts) if scripts else []


def licence_lines(path: Path) -> str:
    """Where a file says its licence: at its top, in a patch among the tags of its message."""
    return "".join(text_of(path).split("\n")[: 20 if path.suffix == ".patch" else 2])


def spdx(root: Path, files: Sequence[Path]) -> list[str]:
    return [
        f"{path}: no SPDX line"
        for path in files
        if not WITHOUT_SPDX.search(os.fspath(path.relative_to(root)))
        and path.stat().st_size
        and "SPDX-License-Identifier: GPL-2.0" not in licence_lines(path)
    ]


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Names of all functions and the lines of their bodies, the docstring not counted."""
    for node in ast.walk(ast.parse(text_of(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            documented = ast.get_docstring(node, clean=False) is not None
            before = node.body[0].end_lineno if documented else node.body[0].lineno - 1
            yield node.name, (node.end_lineno or 0) - (before or 0)


def lengths(root: Path, files: Sequence[Path]) -> list[str]:
    found = []
    for path in suffixed(files, ".py", ".c", ".h"):
        most = MODULE_LINES if path.suffix == ".py" else C_LINES
        count = len(text_of(path).splitlines())
        if count > most:
            found.append(f"{path}: {count} lines, more than {most}")
    for path in suffixed(files, ".py"):
        found += [
            f"{path}: {name}() is {count} lines, more than {FUNCTION_LINES}"
            for name, count in functions(path)
            if count > FUNCTION_LINES
        ]
    return found


def top_level(root: Path, files: Sequence[Path]) -> list[str]:
    entries = {path.relative_to(root).parts[0] for path in files}
    return [f"{name} does not belong at the top level" for name in sorted(entries - TOP_LEVEL)]


def places(root: Path, files: Sequence[Path]) -> list[str]:
    """Names of registries and paths of one machine."""
    found = []
    for path in files:
        for number, line in enumerate(text_of(path).splitlines(), 1):
            match = FORBIDDEN.search(line)
            if match and path.name != "LICENSE":
                found.append(f"{path}:{number}: {match.group()}")
    return found


SPDX_LINE = "# SPDX-License-Identifier: GPL-2.0-or-later\n"
C_SPDX_LINE = "/* SPDX-License-Identifier: GPL-2.0-or-later */\n"
# check, name of a file, a text in it that is at fault
PLANTED: list[tuple[Check, str, str]] = [
    (ruff_check, "a.py", "import os\n"),
    (ruff_format, "a.py", "x = {  'a':1 }\n"),
    (mypy, "a.py", "def f(x):\n    return x\n"),
    (clang_format, "a.c", "int  main( void ) { return 0; }\n"),
    (clang_format, "guest-images/a.c", "int f(void)\n{\n    return 0;\n}\n"),
    (shellcheck, "run", "#!/bin/sh\nrm $1\n"),
    (spdx, "a.py", "x = 1\n"),
    (spdx, "a.c", "int x;\n\n" + C_SPDX_LINE),
    (lengths, "a.py", "x = 1\n" * (MODULE_LINES + 1)),
    (lengths, "a.py", "def f() -> None:\n" + "    print()\n" * (FUNCTION_LINES + 1)),
    (lengths, "a.c", "int x;\n" * (C_LINES + 1)),
    (top_level, "docs/a.md", "text\n"),
    (places, "a.py", "x = 'http://deb" + ".debian.org/'\n"),
    (places, "a.py", "x = 'https://py" + "pi.org/simple'\n"),
    (places, "a.md", "see /wo" + "rk/main\n"),
    (places, "a.sh", "cp a /tm" + "p/t/a\n"),
]  # fmt: skip
CHECKS = list(dict.fromkeys(check for check, _, _ in PLANTED))
CLEAN = {
    "harness/a.py": SPDX_LINE + '"""Text."""\n\nX = 1\n',
    "harness/a.c": C_SPDX_LINE + "int f(void)\n{\n    return 0;\n}\n",
    "guest-images/a.c": C_SPDX_LINE + "int f(void)\n{\n\treturn 0;\n}\n",
    "harness/run": '#!/bin/sh\n' + SPDX_LINE + 'rm "$1"\n',
    "README.md": "Text\n",
}  # fmt: skip


def write(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("check", CHECKS)
def test_project(check: Check) -> None:
    files = project_files(ROOT)
    assert len(files) > 50
    found = check(ROOT, files)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("check", "name", "text"), PLANTED)
def test_planted_fault_is_found(check: Check, name: str, text: str, tmp_path: Path) -> None:
    assert check(tmp_path, [write(tmp_path, name, text)])


@pytest.mark.parametrize("check", CHECKS)
def test_clean_files_pass(check: Check, tmp_path: Path) -> None:
    files = [write(tmp_path, name, text) for name, text in CLEAN.items()]
    assert not check(tmp_path, files)


def test_files_of_all_kinds_are_looked_at() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in project_files(ROOT)}
    assert {"harness/events.py", "harness/stub/plugin/events.h", "pyproject.toml"} <= names
    scripts = {path.relative_to(ROOT).as_posix() for path in project_files(ROOT) if is_shell(path)}
    assert ".ci/run" in scripts
    assert not [name for name in names if name.startswith((".venv", "runs/"))]
