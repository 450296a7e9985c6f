# SPDX-License-Identifier: GPL-2.0-or-later
"""A compiler and kernel headers of Debian, unpacked, and commands run in them.

The headers name each other by absolute paths below /usr, so a command sees the unpacked tree as its
root directory, in a mount namespace of its own; nothing is written to the tree.
"""

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import proc
from harness.errors import HostError
from harness.provision.apt import OpenPool, dependencies
from harness.provision.cache import Deb
from harness.provision.packages import Recipe

_TRIAL_TIMEOUT_S = 10.0
_DEFAULT_TIMEOUT_S = 600.0

# A root with an empty package database: what Debian calls essential has to be named as well.
_TOOLS = (
    *("bash", "binutils", "coreutils", "dash", "diffutils", "findutils", "gcc", "grep", "gzip"),
    *("libc6-dev", "libglib2.0-0", "make", "mawk", "perl-base", "sed", "tar", "xz-utils"),
)
# glib's headers, for the plugin, without what their package depends on: a Python and the headers of
# ten libraries. The plugin is built on the older release, so that its libc is old enough for both.
_HEADERS_ALONE = {"bookworm": ("libglib2.0-dev",)}

_MOUNT_POINT = "mnt"
# Arguments: the empty directory to build the root in, the tree, pairs of host and inside paths,
# "--", the command.
_ENTER = """
set -eu
# not in the PATH of every user
PATH=$PATH:/usr/sbin:/sbin
new=$1 tree=$2
shift 2
mount -t tmpfs -o mode=0755 tdharness "$new"
cp -P "$tree/bin" "$tree/sbin" "$tree/lib" "$tree/lib64" "$new"
for name in etc usr var; do
    mkdir "$new/$name"
    mount --bind "$tree/$name" "$new/$name"
    mount -o remount,bind,ro "$new/$name"
done
mkdir -p "$new/dev" "$new/proc" "$new/tmp"
mount --rbind /dev "$new/dev"
# Its own processes; where a container's masks forbid that, those of the host.
mount -t proc proc "$new/proc" 2>/dev/null || mount --rbind /proc "$new/proc"
while [ "$1" != -- ]; do
    mkdir -p "$new$2"
    mount --rbind "$1" "$new$2"
    shift 2
done
shift
cd /
exec chroot "$new" "$@"
"""


@dataclass(frozen=True, slots=True)
class BuildRoot:
    """An unpacked Debian with compilers."""

    path: Path

    def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        binds: Mapping[Path, Path],
        cwd: Path,
        timeout_s: float = _DEFAULT_TIMEOUT_S,
        log_path: Path | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> proc.Result:
        """Run a command with the tree as its root directory.

        `binds` maps directories of the host to where the command sees them, which must not be
        below a directory of the tree; `cwd` is seen from inside. /tmp is empty, the environment
        is `env` and little else. Raises as proc.run(), and HostError without namespaces.
        """
        words = self.command(argv, binds=binds, cwd=cwd, env=env)
        return proc.run(words, timeout_s=timeout_s, log_path=log_path, check=check)

    def command(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        binds: Mapping[Path, Path],
        cwd: Path,
        env: Mapping[str, str] | None = None,
    ) -> list[str]:
        """What run() runs. Raises HostError without namespaces."""
        inside = {"PATH": "/usr/sbin:/usr/bin", "HOME": "/tmp", "LC_ALL": "C", **(env or {})}
        pairs = [os.fspath(path) for pair in binds.items() for path in pair]
        command = ["/usr/bin/env", "-i", f"--chdir={cwd}"]
        command += [f"{name}={value}" for name, value in inside.items()]
        places = [os.fspath(self.path / _MOUNT_POINT), os.fspath(self.path)]
        enter = [*namespaces(), "/bin/sh", "-c", _ENTER, "enter", *places]
        return [*enter, *pairs, "--", *command, *(os.fspath(word) for word in argv)]


@functools.cache
def namespaces() -> tuple[str, ...]:
    """The command that gives its child mounts and processes of its own, which end with it.

    Raises HostError when none works.
    """
    # A make that is killed leaves makes of its own; the namespace of processes takes them along.
    apart = ("--mount", "--pid", "--fork", "--kill-child")
    ways: list[tuple[str, ...]] = [("unshare", "--map-root-user", *apart)]
    if os.geteuid() == 0:
        ways.insert(0, ("unshare", *apart))
    words = ""
    for way in ways:
        argv = [*way, "mount", "-t", "tmpfs", "none", "/tmp"]
        result = proc.run(argv, timeout_s=_TRIAL_TIMEOUT_S, check=False, hint="install util-linux")
        if result.returncode == 0:
            return way
        # root's own way comes first, and its failure says more than that of the way round it
        words = words or (result.stderr.strip().splitlines() or ["no word"])[-1]
    raise HostError(f"no mount namespace, so nothing can be built: {words}", hint=mend())


def mend(sysctl: Path = Path("/proc/sys")) -> str:
    """What makes user namespaces work here: the first setting that forbids them."""
    settings = (
        ("kernel/unprivileged_userns_clone", "0", "1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
        ("user/max_user_namespaces", "0", "10000"),
    )
    for name, bad, good in settings:
        path = sysctl / name
        if path.exists() and path.read_text().strip() == bad:
            return f"as root: sysctl -w {name.replace('/', '.')}={good}"
    return "run tdharness as root, in a container with --privileged"


def recipe(release: str, kernel_release: str) -> Recipe:
    """The build root of a Debian release, with the headers of a kernel from its backports."""

    def resolve(pool: OpenPool) -> tuple[list[Deb], dict[str, str]]:
        wanted = f"linux-headers-{kernel_release}"
        if not pool.has(wanted):
            raise HostError(
                f"Debian has no headers of Linux {kernel_release} any more",
                hint="tdharness setup --refresh takes its successor, headers included",
            )
        headers, needed = header_packages(pool, wanted)
        alone = pool.exact(headers, backports=True)
        if release in _HEADERS_ALONE:
            alone += pool.exact(_HEADERS_ALONE[release])
        debs = {deb.name: deb for deb in [*pool.closure([*_TOOLS, *needed]), *alone]}
        return list(debs.values()), {}

    inputs = ["2", kernel_release, *_TOOLS]
    return Recipe(f"buildroot-{release}", release, inputs, resolve, finish)


def header_packages(pool: OpenPool, name: str) -> tuple[list[str], list[str]]:
    """The packages with a kernel's headers, and those with the tools that the headers use.

    The kernel itself and what belongs to installing one are left out.
    """
    headers, tools = [name], []
    for package in headers:
        for needed in dependencies(pool.show(package, backports=True)):
            if needed.startswith(("linux-headers-", "linux-kbuild-")):
                if needed not in headers:
                    headers.append(needed)
            elif not needed.startswith("linux-"):
                tools.append(needed)
    return headers, tools


def finish(tree: Path) -> None:
    """What Debian's maintainer scripts would have done, as far as builds need it."""
    for link, target in (("sh", "dash"), ("awk", "mawk"), ("cc", "gcc")):
        path = tree / "usr/bin" / link
        if not (path.exists() or path.is_symlink()):
            path.symlink_to(target)
    (tree / _MOUNT_POINT).mkdir(exist_ok=True)
