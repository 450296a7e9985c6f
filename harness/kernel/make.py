# SPDX-License-Identifier: GPL-2.0-or-later
"""make of a kernel, out of tree, in the build root, through ccache.

Every tree is seen at the same place, /kernel, with one compiler, and time, user and host are fixed:
what one tree compiled another one finds in ccache, and the same input gives the same kernel.
"""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import proc
from harness.errors import BuildError, HostError
from harness.kernel.buildlog import failing_line
from harness.provision.toolchain import Toolchain
from harness.timeouts import Deadline

TIMEOUT_S = 4 * 3600.0
CCACHE_LIMIT = "5G"
SAY_EVERY_S = 30.0
_POLL_S = 0.02
_PLACE = Path("/kernel")
_CCACHE = Path("/ccache")
_CC = Path(__file__).with_name("cc")
_VARIABLES = (
    *("ARCH=x86_64", f"CC={_PLACE}/cc", f"HOSTCC={_PLACE}/cc", "LOCALVERSION="),
    *(f"INSTALL_MOD_PATH={_PLACE}/obj", "INSTALL_MOD_STRIP=1"),
)
# No CCACHE_BASEDIR: all trees have the same paths already, and it would make __FILE__, so the
# places in a kernel's warnings, begin with ../src/.
_ENVIRONMENT = {
    "CCACHE_DIR": str(_CCACHE),
    # takes what a file includes from the compiler, so a miss costs no run of the preprocessor
    "CCACHE_DEPEND": "1",
    # leaves behind what was kept before cc looked for .incbin
    "CCACHE_NAMESPACE": "2",
    "CCACHE_COMPILERCHECK": "content",
    "CCACHE_MAXSIZE": CCACHE_LIMIT,
    "KBUILD_BUILD_TIMESTAMP": "1970-01-01",
    "KBUILD_BUILD_USER": "tdharness",
    "KBUILD_BUILD_HOST": "tdharness",
    "KBUILD_BUILD_VERSION": "1",
}


@dataclass(frozen=True, slots=True)
class Make:
    """make in a directory with the source in src/ and the objects in obj/."""

    toolchain: Toolchain
    place: Path
    ccache: Path
    progress: Callable[[str], None]

    def __call__(self, targets: Sequence[str], what: str, log: Path) -> str:
        """Make targets; what make prints is kept in `log` and returned.

        Says from time to time how far it is. Raises BuildError with the failing line, HostError
        when it takes too long.
        """
        self.ccache.mkdir(parents=True, exist_ok=True)
        shutil.copy(_CC, self.place / _CC.name)
        words = ["make", "-C", f"{_PLACE}/src", f"O={_PLACE}/obj", f"-j{os.cpu_count() or 1}"]
        argv = self.toolchain.root.command(
            [*words, "--output-sync=target", *_VARIABLES, *targets],
            binds={self.place: _PLACE, self.ccache: _CCACHE},
            cwd=_PLACE,
            env=_ENVIRONMENT,
        )
        deadline = Deadline(TIMEOUT_S)
        with log.open("wb") as output:
            child = proc.spawn(argv, stdout=output)
            try:
                with proc.awaited(child):
                    self._watch(child.poll, deadline, what, log)
            finally:
                proc.kill_group(child)
        text = log.read_text(errors="replace")
        if deadline.expired():
            raise HostError(f"{what} took over {deadline.timeout_s:.0f} s", log=log)
        if child.returncode:
            raise BuildError(f"{what} failed: {failing_line(text)}", log=log)
        return text

    def _watch(
        self, poll: Callable[[], int | None], deadline: Deadline, what: str, log: Path
    ) -> None:
        said_s = 0.0
        while poll() is None and not deadline.expired():
            time.sleep(_POLL_S)
            if deadline.elapsed_s() - said_s > SAY_EVERY_S:
                said_s = deadline.elapsed_s()
                files = log.read_bytes().count(b"  CC ")
                self.progress(f"{what}: {files} files compiled")
