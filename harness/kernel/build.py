# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels from source: a base, patches, a configuration; the same one never built twice.

One tree per base and configuration holds the objects of the last build. It is moved from patch set
to patch set, so that make builds what a patch changes; before the first one the base itself is
built in it, whose warnings the others' are compared with.

Plain make and not tuxmake's library, for these reasons: tuxmake keeps its own idea of a toolchain
(a container image, or whatever the host has), of configuration targets (downloaded names, no check
of what olddefconfig dropped) and of build directories (a clean one per build unless told, no moving
of a tree between patches); its runtime without containers would have to be led into the build root
by a wrapper. What is left, the argv of make and the copying of artefacts, is shorter here than its
adaption would be.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import BuildError, ConfigError, HostError
from harness.kernel import kconfig
from harness.kernel.buildlog import new_warnings, warnings
from harness.kernel.built import IMAGE, BuiltKernel, Shelf, lock_of, note_size, note_use
from harness.kernel.kconfig import Config
from harness.kernel.make import Make
from harness.kernel.module import HEADERS_MARK
from harness.kernel.origin import Base
from harness.kernel.worktree import WorkTree, patchset_hash
from harness.provision.cache import Store, locked, remove_tree, require_space
from harness.provision.source import kernels_dir
from harness.provision.toolchain import Toolchain, kernel_tools
from harness.vmlinux import carries

# Changes when what was built before is of no use any more.
_SCHEMA = 2
_LOCK_TIMEOUT_S = 6 * 3600.0
# Measured: 1.7 GB of source, 0.2 GB of objects of the lean configuration.
_TREE_BYTES = 3 * 10**9
_TARGETS = ("bzImage", "modules")

Progress = Callable[[str], None]


def build(
    base: Base,
    patches: Sequence[Path],
    config: Config,
    progress: Progress,
    *,
    store: Store | None = None,
    toolchain: Toolchain | None = None,
) -> BuiltKernel:
    """The kernel of a base with patches on it, from the cache or built.

    Concurrent calls share trees and results. Raises PatchError when a patch does not apply,
    BuildError with the failing line when the kernel does not build or does not take a symbol of
    the configuration, ConfigError for files that cannot be read, HostError.
    """
    work = _work(base, config, progress, store, toolchain)
    key = work.key(patches)
    found = work.shelf.find(key)
    if found:
        return found
    work.place.mkdir(parents=True, exist_ok=True)
    with locked(lock_of(work.place), f"{base.name} {config.name}", timeout_s=_LOCK_TIMEOUT_S):
        kernel = work.shelf.find(key) or work.build(patches)
        gone = work.shelf.clean_up(frozenset({kernel.build_tree, work.place}))
    if gone:
        progress(f"removed {len(gone)} kernels and trees that were not used for long")
    return kernel


def is_built(
    base: Base,
    patches: Sequence[Path],
    config: Config,
    *,
    store: Store | None = None,
    toolchain: Toolchain | None = None,
) -> bool:
    """Whether build() would find the kernel in the cache. Raises ConfigError, HostError."""
    work = _work(base, config, lambda _: None, store, toolchain)
    return work.shelf.find(work.key(patches)) is not None


def _work(
    base: Base,
    config: Config,
    progress: Progress,
    store: Store | None,
    toolchain: Toolchain | None,
) -> "_Work":
    store = store or Store()
    home = kernels_dir(store)
    tools = toolchain or kernel_tools(store)
    return _Work(base, config, Shelf(home), tools, home / "ccache", progress)


@dataclass(frozen=True, slots=True)
class _Work:
    """The builds of one base and configuration; whoever builds holds the lock of `place`."""

    base: Base
    config: Config
    shelf: Shelf
    toolchain: Toolchain
    ccache: Path
    progress: Progress

    def key(self, patches: Sequence[Path]) -> str:
        """Names the kernel with these patches."""
        return self._digest(patchset_hash(patches))

    def _digest(self, *more: str) -> str:
        parts = (str(_SCHEMA), self.base.commit, self.config.digest, self.toolchain.version, *more)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]

    @property
    def place(self) -> Path:
        """Holds src/, obj/ and what is known about them."""
        return self.shelf.trees / self._digest("tree")

    @property
    def _log(self) -> Path:
        return self.place / "build.log"

    @property
    def _state(self) -> Path:
        """What the build of the base said; there when obj/ goes back to a whole one."""
        return self.place / "base.json"

    @property
    def _building(self) -> Path:
        """There while make runs: a make that was killed leaves objects that look finished."""
        return self.place / "building"

    def build(self, patches: Sequence[Path]) -> BuiltKernel:
        """Build, the base before its first patch, and put it on the shelf."""
        start_s = time.monotonic()
        if not (self.place / "src").exists():
            require_space(self.place, _TREE_BYTES, f"a tree of {self.base.name}")
            self.progress(f"checking out {self.base.name}")
        note_use(self.place)
        tree = WorkTree(self.base, self.place / "src")
        tree.prepare()
        if self._building.exists() or not (self._state.exists() and self._dot_config.exists()):
            self._state.unlink(missing_ok=True)
            kernel = self._build_base(tree, start_s)
            if not patches:
                return kernel
            start_s = time.monotonic()
        state = json.loads(self._state.read_text())
        commit = tree.checkout(patches)
        what = f"building {self.base.name} {self.config.name}"
        what += f" with {patches[-1].name}" if patches else ""
        missing = state["missing"]
        with _marked(self._building):
            if self._config_moves(patches):
                missing = self._configure((self.place / "base.config").read_text(), what)
            said = self._make_kernel(what)
        found = warnings(said) if patches else state["warnings"]
        new = new_warnings(found, state["warnings"])
        facts = {"commit": commit, "warnings": found, "new_warnings": new, "missing": missing}
        return self._publish(tree, patches, facts, start_s)

    def _build_base(self, tree: WorkTree, start_s: float) -> BuiltKernel:
        """Into an empty obj/, so that what the compiler says is said of every file."""
        what = f"building {self.base.name} {self.config.name}"
        commit = tree.checkout(())
        remove_tree(self.place / "obj")
        (self.place / "obj").mkdir()
        with _marked(self._building):
            if self.config.target:
                self._make((self.config.target,), what)
                begun = self._dot_config.read_text()
            else:
                begun = ""
            missing = self._configure(kconfig.merged(begun, self.config.text), what)
            (self.place / "base.config").write_text(self._dot_config.read_text())
            found = warnings(self._make_kernel(what))
        state = {"warnings": found, "missing": missing}
        facts = {"commit": commit, "new_warnings": [], **state}
        # Somebody may be using the one that is there.
        kernel = self.shelf.find(self.key(())) or self._publish(tree, (), facts, start_s)
        note_size(self.place)
        written = self._state.with_suffix(".new")
        written.write_text(json.dumps(state))
        written.replace(self._state)
        return kernel

    @property
    def _dot_config(self) -> Path:
        return self.place / "obj" / ".config"

    def _make(self, targets: Sequence[str], what: str, log: Path | None = None) -> str:
        make = Make(self.toolchain, self.place, self.ccache, self.progress)
        return make(targets, what, log or self._log)

    def _make_kernel(self, what: str) -> str:
        """Raises HostError when the image that was made is not of the kernel that was made."""
        said = self._make(_TARGETS, what)
        made = self.place / "obj"
        if carries((made / IMAGE).read_bytes(), (made / "vmlinux").read_bytes()) is False:
            raise HostError(
                f"{what}: the image holds another kernel than the vmlinux it was made of",
                hint=f"remove {self.ccache} and build again",
                log=self._log,
            )
        self._install_modules(made, what)
        return said

    def _install_modules(self, made: Path, what: str) -> None:
        """Have the configuration's modules, if it has any, where an installed kernel has them."""
        remove_tree(made / "lib")
        if "=m\n" in self._dot_config.read_text():
            # In a log of its own: that of the build goes with the kernel.
            self._make(("modules_install",), f"{what}: modules", self.place / "install.log")

    def _config_moves(self, patches: Sequence[Path]) -> bool:
        """Whether olddefconfig has to run: for these patches, or since the ones before them."""
        if any(b"Kconfig" in patch.read_bytes() for patch in patches):
            return True
        return self._dot_config.read_text() != (self.place / "base.config").read_text()

    def _configure(self, text: str, what: str) -> list[str]:
        """Have the configuration in obj/; returns what of it this kernel does not have.

        Raises ConfigError, when the configuration is strict, for symbols that it has and refuses.
        """
        self._dot_config.write_text(text)
        self._make(("olddefconfig",), what)
        wanted = kconfig.parse(self.config.text)
        got = kconfig.parse(self._dot_config.read_text())
        lost = kconfig.missing(wanted, got)
        if lost and self.config.strict:
            files = sorted((self.place / "src").rglob("Kconfig*"))
            texts = (file.read_text(errors="replace") for file in files if file.is_file())
            refused = sorted(kconfig.known(lost, texts))
            if refused:
                raise ConfigError(
                    f"{self.base.name} does not take {_named(refused, wanted)} of the "
                    f"configuration {self.config.name}",
                    hint="set what they depend on as well; see their `depends on` in Kconfig",
                )
        if lost:
            self.progress(f"{self.base.name} has no {_named(lost, wanted)}")
        return lost

    def _publish(
        self, tree: WorkTree, patches: Sequence[Path], facts: dict[str, Any], start_s: float
    ) -> BuiltKernel:
        told = {
            "base": self.base.name,
            "base_commit": self.base.commit,
            "patchset": patchset_hash(patches),
            "patches": [patch.name for patch in patches],
            "config": self.config.name,
            "config_digest": self.config.digest,
            "toolchain": self.toolchain.version,
            "seconds": round(time.monotonic() - start_s, 1),
            **facts,
        }
        headers = {HEADERS_MARK: tree.headers_digest()}
        return self.shelf.publish(self.key(patches), self.place, told, headers)


@contextmanager
def _marked(marker: Path) -> Iterator[None]:
    """Have the marker there meanwhile, and afterwards unless the work was cut short."""
    marker.touch()
    try:
        yield
    except (BuildError, ConfigError):
        marker.unlink()
        raise
    marker.unlink()


def _named(symbols: Sequence[str], wanted: Mapping[str, str]) -> str:
    words = [f"CONFIG_{symbol}={wanted[symbol]}" for symbol in symbols[:20]]
    more = [f"and {len(symbols) - 20} more"] if len(symbols) > 20 else []
    return ", ".join([*words, *more])
