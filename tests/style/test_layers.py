# SPDX-License-Identifier: GPL-2.0-or-later
"""The layers of harness/: imports go down only, nothing goes round, one module starts processes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

HARNESS = Path(__file__).resolve().parents[2] / "harness"
# Lowest first. What stands in one row may not import each other, except inside a package; a name
# stands for the module or package of that name, and all in it unless listed by itself.
LAYERS = (
    # 0: words that everything else is said in
    ("text",),
    ("errors", "timeouts"),
    ("events", "verdict", "steps", "tomltable"),
    # 1: pure, from events or text to findings
    ("vmlinux", "rules.table", "kernellog_patterns", "cpio"),
    ("functions", "kernellog_lines", "triage", "vmm"),
    ("hostmce.codes", "hostmce.edac", "hostmce.qmp"),
    ("hostmce.status",),
    ("hostmce.record",),
    ("hostmce.kernel", "hostmce.merge", "hostmce.rasdaemon", "hostmce.trace"),
    ("hostmce.mcelog",),
    ("hostmce.told",),
    ("hostmce.paste", "hostmce.table"),
    ("compare", "callchain", "kallsyms", "kernellog", "known", "sourcelines", "hostlog"),
    ("series.diff", "series.patch", "series.compare"),
    ("series.bisect",),
    ("symbols",),
    ("conversions",),
    ("guesttrace",),
    ("rules", "planted", "faults", "mutants", "consequences", "counts"),
    ("score", "history.records", "hostmce", "qualify.result"),
    ("history.trend",),
    ("export",),
    # 2: one outside thing each
    ("proc", "rundir", "progress", "history"),
    ("pump", "remote"),
    ("sshchannel",),
    ("hostmce.ask", "hostmce.journal", "hostmce.console"),
    ("hostmce.watch",),
    ("hostmce.collect",),
    ("git", "hosts.lease", "hosts.config"),
    ("hosts",),
    ("series",),
    ("provision", "live", "qmplog"),
    ("qmp", "console", "shell", "agent", "stub", "injector"),
    # 3: compose
    ("kernel",),
    ("image", "machine", "workload"),
    ("labhost", "secondkernel", "plan"),
    # 4: one run; a run directory to a verdict
    ("evidence",),
    ("judge",),
    ("injected",),
    ("report",),
    ("tracer",),
    ("conclude", "session"),
    ("prepare", "pipeline", "hostguard"),
    ("job",),
    # 5: arguments, fixtures, exit codes
    ("bench", "bisectstep", "clean", "suite"),
    ("scoretable",),
    ("mutate", "series.trial"),
    ("series.review",),
    ("series.show", "nightly", "qualify"),
    ("options",),
    ("commands", "arguments"),
    ("cli", "pytest_plugin"),
    ("__main__",),
    # fakes for tests: they may use all, and nothing may use them
    ("testing",),
)
# Only these start processes.
PROCESS_MODULES = {"proc"}
STARTS = re.compile(
    r"subprocess\.(run|Popen|call|check_call|check_output|getoutput|getstatusoutput)"
    r"|os\.(system|popen|fork|forkpty|exec\w+|spawn\w+|posix_spawnp?)|pty\.\w+"
    r"|asyncio\.create_subprocess_\w+|pexpect\.(spawn|run)"
)


def ranks(layers: tuple[tuple[str, ...], ...] = LAYERS) -> dict[str, int]:
    return {name: rank for rank, row in enumerate(layers) for name in row}


def module_name(root: Path, path: Path) -> str:
    """`rules.cache` of <root>/rules/cache.py; "" for the package itself."""
    parts = list(path.relative_to(root).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST, names: set[str]) -> Iterator[str]:
    """Modules of the package that are imported anywhere in a file, functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            full = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            full = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in full:
            if name.startswith("harness."):
                module = name.removeprefix("harness.")
                yield module if module in names else module.rpartition(".")[0]


def graph(root: Path) -> dict[str, set[str]]:
    """Modules and what they import."""
    paths = {module_name(root, path): path for path in sorted(root.rglob("*.py"))}
    names = set(paths)
    return {
        name: {target for target in imported(ast.parse(path.read_text()), names) if target}
        for name, path in paths.items()
        if name
    }


def entry(module: str, table: dict[str, int]) -> str | None:
    """The longest name of the table that covers the module."""
    while module and module not in table:
        module = module.rpartition(".")[0]
    return module or None


def upward(root: Path) -> list[str]:
    """Imports that do not go down, and modules without a layer."""
    table, found = ranks(), []
    for module, targets in graph(root).items():
        home = entry(module, table)
        if home is None:
            found.append(f"{module} has no layer: add it to LAYERS")
            continue
        for target in sorted(targets):
            there = entry(target, table)
            if there is None or (there != home and table[there] >= table[home]):
                found.append(f"{module} imports {target}, which is not below it")
    return found


def cycles(root: Path) -> list[str]:
    """Modules that import each other, also within one package."""
    edges, done, found = graph(root), set[str](), []

    def visit(module: str, trail: tuple[str, ...]) -> None:
        if module in trail:
            found.append(" -> ".join((*trail[trail.index(module) :], module)))
        elif module not in done:
            for target in sorted(edges.get(module, ())):
                visit(target, (*trail, module))
            done.add(module)

    for module in edges:
        visit(module, ())
    return found


def faults_of(node: ast.AST) -> set[str]:
    """Calls that start a process, and imports that would hide one or that `imported` skips."""
    if isinstance(node, ast.ImportFrom):
        return ({node.module or ""} & {"subprocess", "pty"}) | ({"."} if node.level else set())
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        called = ast.unparse(node.func)
        return {called} if STARTS.fullmatch(called) else set()
    return set()


def starters(root: Path) -> list[str]:
    """Where processes are started, or relative imports are used."""
    return [
        f"{module_name(root, path)}: {fault}"
        for path in sorted(root.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        for fault in sorted(faults_of(node))
        if module_name(root, path) not in PROCESS_MODULES
    ]


def test_imports_go_down() -> None:
    assert len(graph(HARNESS)) > 20
    found = upward(HARNESS)
    assert not found, "\n".join(found)


def test_nothing_goes_round() -> None:
    found = cycles(HARNESS)
    assert not found, "\n".join(found)


def test_one_module_starts_processes() -> None:
    found = starters(HARNESS)
    assert not found, "\n".join(found)


def test_no_name_has_two_layers() -> None:
    names = [name for row in LAYERS for name in row]
    assert len(names) == len(set(names))


def plant(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("errors", "from harness.verdict import Finding\n"),
        ("events", "import harness.verdict\n"),
        ("rules__cache", "def f():\n    from harness import proc\n"),
        ("rules__table", "from harness.rules import cache\n"),
        ("judge", "from harness.report.text import console\n"),
        ("session", "from harness.testing.events import StreamBuilder\n"),
        ("novelty", ""),
        ("errors", "from harness.novelty import x\n"),
    ],
)
def test_an_upward_import_is_found(name: str, text: str, tmp_path: Path) -> None:
    plant(tmp_path, verdict="", proc="", rules__cache="", report__text="", testing__events="")
    assert not upward(tmp_path)
    assert upward(plant(tmp_path, **{name: text}))


def test_a_downward_import_is_none(tmp_path: Path) -> None:
    plant(tmp_path, errors="", verdict="from harness.errors import X\n")
    plant(tmp_path, report__text="from harness.report import words\n", report__words="")
    plant(tmp_path, judge="import os\nfrom harness import verdict\n")
    assert not upward(tmp_path)
    assert not cycles(tmp_path)
    assert graph(tmp_path)["judge"] == {"verdict"}


def test_a_cycle_is_found(tmp_path: Path) -> None:
    plant(tmp_path, report__a="from harness.report import b\n")
    plant(tmp_path, report__b="import harness.report.a\n")
    assert cycles(tmp_path) == ["report.a -> report.b -> report.a"]


@pytest.mark.parametrize(
    "text",
    ["subprocess.run(['x'])\n", "from subprocess import Popen\n", "os.system('x')\n",
     "def f():\n    os.execvp('x', [])\n", "pexpect.spawn('x')\n", "from . import proc\n"],
)  # fmt: skip
def test_a_started_process_is_found(text: str, tmp_path: Path) -> None:
    assert starters(plant(tmp_path, judge=text))
    assert not starters(plant(tmp_path / "allowed", proc=text))


def test_the_words_of_subprocess_are_free(tmp_path: Path) -> None:
    text = "import subprocess\nX = subprocess.DEVNULL\ndef f(c: subprocess.Popen): c.wait()\n"
    assert not starters(plant(tmp_path, judge=text))
