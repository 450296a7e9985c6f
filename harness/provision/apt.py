# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian packages through an apt root of our own: no privilege, no change to the system.

One pool per distribution and its backports. apt checks the signatures of the package lists and the
hashes of what it downloads; the machine's mirror and proxy settings are taken from its own apt.
"""

import contextlib
import getpass
import os
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from harness import proc
from harness.errors import HostError
from harness.provision.cache import Deb, locked, megabytes, require_space, sha256_of
from harness.provision.progress import shown
from harness.timeouts import Deadline

MIRROR_VARIABLE = "TDHARNESS_MIRROR"
LISTS_MAX_AGE_S = 24 * 3600.0
LISTS_BYTES = 250_000_000
_UPDATE_TIMEOUT_S = 600.0
_DOWNLOAD_TIMEOUT_S = 3600.0
_RESOLVE_TIMEOUT_S = 120.0

_KEYRINGS = ("debian-archive-keyring.pgp", "debian-archive-keyring.gpg")
_KEYRING_DIRECTORY = Path("/usr/share/keyrings")

# Releases whose archive also has the suites used here. Names, not the "Origin" of the lists: a
# fresh machine has no lists yet.
_DEBIAN_RELEASES = frozenset(
    {
        *("bullseye", "bookworm", "trixie", "forky", "duke", "sid"),
        *("oldoldstable", "oldstable", "stable", "testing", "unstable"),
    }
)
_WITHOUT_BACKPORTS = ("sid", "unstable")
_SCHEMES = ("http", "https", "ftp", "file", "copy", "mirror", "tor+http", "tor+https")

# The hooks of the machine's own configuration (they clean its cache, refresh desktop databases)
# are not for this root.
_CONFIG = """\
#clear APT::Update;
#clear DPkg;
#clear APT::Default-Release;
Dir::State "{root}/state";
Dir::State::status "{root}/status";
Dir::Cache "{root}/cache";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
Dir::Etc::SourceList "{root}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; }};
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Sandbox::User "{user}";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::ForceHash "SHA256";
Acquire::Retries "3";
Acquire::http::Timeout "60";
Acquire::https::Timeout "60";
"""


def mirror() -> str:
    """The Debian archive that this machine uses, from its apt configuration.

    Raises HostError when it has none; $TDHARNESS_MIRROR goes before it.
    """
    named = os.environ.get(MIRROR_VARIABLE)
    if named:
        return named
    fields = "$(REPO_URI) $(RELEASE) $(COMPONENT)"
    # A fresh machine has no package lists yet, and without the option apt leaves out what it has
    # no list of.
    words = ["indextargets", "--no-release-info", "--format", fields, "Identifier: Packages"]
    targets = proc.run(
        ["apt-get", *words],
        timeout_s=_RESOLVE_TIMEOUT_S,
        check=False,
        hint="the stock kernel and QEMU come as Debian packages: use a Debian machine",
    )
    return choose_mirror(targets.stdout)


def choose_mirror(targets: str) -> str:
    """The first archive with Debian's main, from lines `URI RELEASE COMPONENT`."""
    for line in targets.splitlines():
        words = line.split()
        if len(words) != 3:
            continue
        uri, release, component = words
        scheme = urllib.parse.urlsplit(uri).scheme
        usable = scheme in _SCHEMES or scheme.startswith("mirror+")
        if component == "main" and release in _DEBIAN_RELEASES and usable:
            return uri
    raise HostError(
        "apt on this machine knows no Debian archive (component main of a Debian release)",
        hint=f"add one to /etc/apt/sources.list, or name its address in ${MIRROR_VARIABLE}",
    )


def keyring() -> Path:
    """Debian's archive keys. Raises HostError when they are not installed."""
    for name in _KEYRINGS:
        path = _KEYRING_DIRECTORY / name
        if path.exists():
            return path
    raise HostError(
        f"Debian's archive keys are not in {_KEYRING_DIRECTORY}: packages cannot be verified",
        hint="apt-get install debian-archive-keyring",
    )


class Pool:
    """The packages of one Debian release ("bookworm") and its backports."""

    def __init__(self, release: str, cache_root: Path) -> None:
        self.release = release
        self.root = cache_root / "apt" / release

    @contextlib.contextmanager
    def opened(self, *, refresh: bool = False) -> Iterator["OpenPool"]:
        """Lock the pool and bring its package lists up to date (older than a day, or `refresh`)."""
        with locked(self.root / "lock", f"the package lists of {self.release}"):
            opened = OpenPool(self)
            if refresh or self._age_s() > LISTS_MAX_AGE_S:
                self._configure()
                opened.update()
                self._updated.touch()
            yield opened

    @property
    def _updated(self) -> Path:
        return self.root / "updated"

    def _age_s(self) -> float:
        try:
            return time.time() - self._updated.stat().st_mtime
        except FileNotFoundError:
            return float("inf")

    def _configure(self) -> None:
        for directory in ("state/lists/partial", "cache/archives/partial"):
            (self.root / directory).mkdir(parents=True, exist_ok=True)
        options = f"arch=amd64 signed-by={keyring()} target=Packages lang=none"
        uri = mirror()
        suites = [self.release]
        if self.release not in _WITHOUT_BACKPORTS:
            suites.append(f"{self.release}-backports")
        lines = "".join(f"deb [{options}] {uri} {suite} main\n" for suite in suites)
        (self.root / "status").touch()
        (self.root / "sources.list").write_text(lines)
        (self.root / "apt.conf").write_text(_CONFIG.format(root=self.root, user=getpass.getuser()))


class OpenPool:
    """What can be asked of a pool while its lock is held."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._log = pool.root / "apt.log"

    def update(self) -> None:
        """Fetch the package lists. Raises HostError with apt's words."""
        require_space(self._pool.root, LISTS_BYTES, "package lists")
        with shown(f"reading the package lists of Debian {self._pool.release}", 1) as done:
            self._apt("apt-get", ["update"], _UPDATE_TIMEOUT_S, "update the package lists")
            done(1)

    def show(self, name: str, *, backports: bool = False) -> dict[str, str]:
        """The control fields of the package's candidate. Raises HostError when there is none."""
        words = [*self._target(backports), "show", "--no-all-versions", name]
        output = self._apt("apt-cache", words, _RESOLVE_TIMEOUT_S, f"find the package {name}")
        return parse_control(output)

    def has(self, name: str) -> bool:
        """Whether the archive has the package."""
        words = ["policy", name]
        output = self._apt("apt-cache", words, _RESOLVE_TIMEOUT_S, f"look for the package {name}")
        return "Candidate:" in output and "Candidate: (none)" not in output

    def closure(self, names: Sequence[str], *, backports: bool = False) -> list[Deb]:
        """The packages and all that they depend on, nothing taken as installed."""
        words = [*self._target(backports), "install", "-y", "--print-uris", *names]
        return self._uris(words, names)

    def exact(self, names: Sequence[str], *, backports: bool = False) -> list[Deb]:
        """The packages alone."""
        return self._uris([*self._target(backports), "download", "--print-uris", *names], names)

    def _uris(self, words: list[str], names: Sequence[str]) -> list[Deb]:
        what = f"find {', '.join(names)} in Debian {self._pool.release}"
        return parse_uris(self._apt("apt-get", words, _RESOLVE_TIMEOUT_S, what))

    def fetch(self, debs: Sequence[Deb], directory: Path, what: str) -> None:
        """Have each package in `directory`, whole and with the right hash.

        What an earlier try left is kept if its hash is right. Raises HostError.
        """
        missing = [deb for deb in debs if not intact(deb, directory)]
        if not missing:
            return
        size = sum(deb.size for deb in missing)
        require_space(directory, size, f"downloading {what}")
        title = f"downloading {what}: {len(missing)} packages, {megabytes(size)}"
        with shown(title, size, in_bytes=True) as done:
            self._download(missing, directory, done)
        for deb in missing:
            if not intact(deb, directory):
                raise HostError(
                    f"{deb.file} is not what the signed package list says after the download",
                    hint="a proxy may have changed it; run tdharness setup again",
                    log=self._log,
                )

    def _download(self, debs: Sequence[Deb], directory: Path, done: Callable[[int], None]) -> None:
        argv = ["apt-get", "-c", os.fspath(self._pool.root / "apt.conf"), "-q", "download"]
        argv += [f"{deb.name}={deb.version}" for deb in debs]
        deadline = Deadline(_DOWNLOAD_TIMEOUT_S)
        with self._log.open("wb") as output:
            child = proc.spawn(argv, stdout=output, env=_environment(), cwd=directory)
            try:
                while child.poll() is None and not deadline.expired():
                    time.sleep(0.05)
                    done(sum(_size(directory / deb.file) for deb in debs))
            finally:
                proc.kill_group(child)
        if child.returncode:
            words = self._log.read_text(errors="replace")
            raise HostError(
                f"the download failed after {deadline.elapsed_s():.0f} s: {first_error(words)}",
                hint="run the same command again: what is complete is kept",
                log=self._log,
            )

    def _apt(self, tool: str, words: Sequence[str], timeout_s: float, what: str) -> str:
        argv = [tool, "-c", str(self._pool.root / "apt.conf"), *words]
        result = proc.run(
            argv, timeout_s=timeout_s, env=_environment(), check=False, log_path=self._log
        )
        if result.returncode:
            raise HostError(
                f"cannot {what}: {first_error(result.stderr)}",
                hint="look at the network, the mirror and the proxy of apt; tdharness doctor helps",
                log=self._log,
            )
        return result.stdout

    def _target(self, backports: bool) -> list[str]:
        return ["-t", f"{self._pool.release}-backports"] if backports else []


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def intact(deb: Deb, directory: Path) -> bool:
    """Whether the file is there with the right hash; one with a wrong hash is removed.

    A short one may be the begin of a download that was cut: apt goes on with it.
    """
    path = directory / deb.file
    size = _size(path)
    if size == deb.size and sha256_of(path) == deb.sha256:
        return True
    if size >= deb.size:
        path.unlink()
    return False


_URI_LINE = re.compile(r"'[^']+' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})")


def parse_uris(output: str) -> list[Deb]:
    """The packages in the output of `apt-get --print-uris`.

    Raises HostError for a line without a SHA256: it could not be verified.
    """
    debs = []
    for line in output.splitlines():
        if not line.startswith("'"):
            continue
        match = _URI_LINE.fullmatch(line.rstrip())
        parts = match["file"].removesuffix(".deb").split("_") if match else []
        if match is None or len(parts) != 3 or "/" in match["file"]:
            raise HostError(f"apt printed an address without file, size and SHA256: {line[:200]}")
        version = urllib.parse.unquote(parts[1])
        debs.append(Deb(parts[0], version, match["file"], int(match["size"]), match["sha256"]))
    return debs


def parse_control(text: str) -> dict[str, str]:
    """The fields of the first paragraph of a control file, continuation lines left out."""
    fields = {}
    for line in text.split("\n\n", 1)[0].splitlines():
        name, colon, value = line.partition(":")
        if colon and not line[0].isspace():
            fields[name] = value.strip()
    return fields


def dependencies(fields: Mapping[str, str]) -> list[str]:
    """The names a package depends on, the first of alternatives, without versions."""
    text = ", ".join(fields[key] for key in ("Pre-Depends", "Depends") if fields.get(key))
    alternatives = (part.split("|")[0] for part in text.split(",") if part.strip())
    return [re.split(r"[\s(:]", name.strip(), maxsplit=1)[0] for name in alternatives]


def first_error(output: str) -> str:
    """The first error line of apt's output (those after it follow from it), else the last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("E: ") for line in lines if line.startswith("E: ")]
    return (errors or lines[-1:] or ["no word from apt"])[0]
