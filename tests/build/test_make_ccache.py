# SPDX-License-Identifier: GPL-2.0-or-later
"""The real ccache behind make: what it keeps of one kernel it must not give for another."""

import re
from pathlib import Path

import pytest

from harness.kernel.make import Make
from harness.provision.toolchain import kernel_tools

# Downloads the tools that kernels are built with.
pytestmark = pytest.mark.nightly

FILES = {
    "Makefile": """\
all: piggy.S configs.c plain.c
	ccache --show-stats >stats
piggy.S configs.c plain.c: FORCE
	cd $(O) && $(CC) -Wp,-MMD,$@.d -c -o $@.o ../src/$@
FORCE:
""",
    "piggy.S": '.section .rodata\n.incbin "kernel.gz"\n',
    "configs.c": 'asm(".incbin \\"kernel.gz\\"");\n',
    "plain.c": "int plain;\n",
}


def test_an_object_that_includes_a_file_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "obj").mkdir()
    for name, text in FILES.items():
        (tmp_path / "src" / name).write_text(text)
    make = Make(kernel_tools(), tmp_path, tmp_path / "ccache", print)
    for kernel in (b"one kernel", b"two kernel"):
        (tmp_path / "obj/kernel.gz").write_bytes(kernel)
        make(("all",), "a toy", tmp_path / "log")
        assert kernel in (tmp_path / "obj/piggy.S.o").read_bytes()
        assert kernel in (tmp_path / "obj/configs.c.o").read_bytes()
    # what includes nothing so is kept
    stats = (tmp_path / "src/stats").read_text()
    assert re.search(r"Hits: +1 / +2 ", stats), stats
