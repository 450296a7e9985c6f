# SPDX-License-Identifier: GPL-2.0-or-later
"""The real ccache behind make: what it keeps of one kernel it must not give for another."""

from pathlib import Path

import pytest

from harness.kernel.make import Make
from harness.provision.toolchain import kernel_tools

# Downloads the tools that kernels are built with.
pytestmark = pytest.mark.nightly

MAKEFILE = """\
all:
	cd $(O) && $(CC) -Wp,-MMD,piggy.d -c -o piggy.o ../src/piggy.S
"""


def test_an_object_that_includes_a_file_is_made_anew(tmp_path: Path) -> None:
    for name, text in {
        "Makefile": MAKEFILE,
        "piggy.S": '.section .rodata\n.incbin "kernel.gz"\n',
    }.items():
        (tmp_path / "src").mkdir(exist_ok=True)
        (tmp_path / "src" / name).write_text(text)
    (tmp_path / "obj").mkdir()
    make = Make(kernel_tools(), tmp_path, tmp_path / "ccache", print)
    for kernel in (b"one kernel", b"two kernel"):
        (tmp_path / "obj/kernel.gz").write_bytes(kernel)
        make(("all",), "a toy", tmp_path / "log")
        assert kernel in (tmp_path / "obj/piggy.o").read_bytes()
