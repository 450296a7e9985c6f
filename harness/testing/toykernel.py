# SPDX-License-Identifier: GPL-2.0-or-later
"""A tree with the targets of a kernel that is built in no time, and patches for it."""

from pathlib import Path

from harness.git import git, say

# The tree's gcc, not $(CC): the build root of the unit tests has no ccache.
_MAKEFILE = """\
O ?= .
tinyconfig:
	printf 'CONFIG_TINY=y\\nCONFIG_64BIT=n\\n' >$(O)/.config
olddefconfig:
	sed -i '/CONFIG_\\(REFUSED\\|GONE\\)=/d' $(O)/.config
bzImage: $(O)/vmlinux
	mkdir -p $(O)/arch/x86/boot $(O)/include/generated $(O)/scripts
	cp $(O)/vmlinux $(O)/arch/x86/boot/bzImage
	touch $(O)/System.map $(O)/include/generated/autoconf.h
	echo program >$(O)/scripts/fixdep
	touch $(O)/scripts/fixdep.o
modules:
	touch $(O)/Module.symvers
modules_install:
	mkdir -p $(INSTALL_MOD_PATH)/lib/modules/toy/kernel
	cp one.c $(INSTALL_MOD_PATH)/lib/modules/toy/kernel/one.ko
$(O)/%.o: %.c include/toy.h
	@echo '  CC      $*.o'
	@gcc -Wall -Iinclude -c $*.c -o $@
$(O)/vmlinux: $(O)/one.o $(O)/two.o
	cat one.c two.c include/toy.h $(O)/.config >$@
"""
FILES = {
    "Makefile": _MAKEFILE,
    "Kconfig": 'mainmenu "toy"\n\nconfig REFUSED\n\tbool "refused"\n',
    "one.c": '#include "toy.h"\n\nint one(void)\n{\n\treturn TOY;\n}\n',
    "two.c": "int two(void)\n{\n\tint unused;\n\n\treturn 2;\n}\n",
    "include/toy.h": "#define TOY 1\n",
    "arch/x86/Makefile": "# of x86\n",
    "arch/x86/include/asm/toy.h": "\n",
    "scripts/sorttable.c": "int main(void)\n{\n\treturn 0;\n}\n",
    ".gitignore": "*.o\n/built\n",
}


_FILE = {"toy_h": "include/toy.h", "kconfig": "Kconfig", "makefile": "Makefile"}


def write_tree(path: Path) -> Path:
    """The tree, unpacked."""
    for name, text in FILES.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return path


class ToyKernel:
    """A git tree of it, and patches made in it."""

    def __init__(self, path: Path) -> None:
        self.path = write_tree(path / "toy")
        self.patches = path / "patches"
        git(self.path, "init", "-q", "-b", "main")
        git(self.path, "add", "--all")
        git(self.path, "commit", "-q", "-m", "toy")

    def patch(self, name: str, **changes: tuple[str, str]) -> Path:
        """A patch on the base that replaces text; `one` stands for one.c, `toy_h` for its header.

        It goes on top of the patches before it since the last reset().
        """
        for file, (old, new) in changes.items():
            path = self.path / _FILE.get(file, f"{file}.c")
            text = path.read_text()
            assert old in text
            path.write_text(text.replace(old, new))
        git(self.path, "commit", "-q", "-a", "-m", name)
        made = say(self.path, "format-patch", "-1", "--no-numbered", "-o", self.patches / name)
        return Path(made)

    def reset(self) -> None:
        """Back to the base."""
        git(
            self.path,
            "reset",
            "-q",
            "--hard",
            say(self.path, "rev-list", "--max-parents=0", "HEAD"),
        )
