# SPDX-License-Identifier: GPL-2.0-or-later
"""Which packages make a stock kernel, its headers and the root to build in."""

import time
from pathlib import Path
from typing import cast

import pytest

from harness import proc
from harness.errors import BuildError, ConfigError, HostError
from harness.provision import buildroot, kernels
from harness.provision.apt import OpenPool
from harness.provision.buildroot import BuildRoot
from harness.provision.cache import Store

# The dependencies of Debian's packages, of two layouts.
ARCHIVE = {
    "meta-6.12": "linux-image-6.12.95+deb12-cloud-amd64 (= 6.12.95-1)",
    "linux-image-6.12.95+deb12-cloud-amd64": "linux-base (>= 4.12~), kmod, initramfs-tools",
    "linux-headers-6.12.95+deb12-cloud-amd64": (
        "linux-base (>= 4.12~), linux-headers-6.12.95+deb12-common (= 6.12.95-1), "
        "linux-image-6.12.95+deb12-cloud-amd64 | linux-image-6.12.95+deb12-cloud-amd64-unsigned, "
        "linux-kbuild-6.12.95+deb12, gcc-12"
    ),
    "linux-headers-6.12.95+deb12-common": "",
    "linux-kbuild-6.12.95+deb12": "libc6 (>= 2.34), libelf1 (>= 0.144), pahole",
    "meta-7": "linux-base-cloud-amd64 (= 7.3.4-1), linux-image-7.3.4+deb13-cloud-amd64 (= 7.3.4-1)",
    "linux-image-7.3.4+deb13-cloud-amd64": (
        "dracut | initramfs-tools, linux-base-7.3.4+deb13-cloud-amd64, "
        "linux-binary-7.3.4+deb13-cloud-amd64, linux-modules-7.3.4+deb13-cloud-amd64"
    ),
    "linux-base-7.3.4+deb13-cloud-amd64": "",
    "linux-binary-7.3.4+deb13-cloud-amd64": "linux-base-7.3.4+deb13-cloud-amd64",
    "linux-modules-7.3.4+deb13-cloud-amd64": "kmod, linux-base-7.3.4+deb13-cloud-amd64",
    "meta-nothing": "libc6",
}


class FakePool:
    def show(self, name: str, *, backports: bool = False) -> dict[str, str]:
        assert backports
        return {"Package": name, "Depends": ARCHIVE[name]}


POOL = cast(OpenPool, FakePool())


def test_older_layout_is_one_package() -> None:
    names = kernels.kernel_packages(POOL, "meta-6.12")
    assert names == ["linux-image-6.12.95+deb12-cloud-amd64"]


def test_newer_layout_is_image_base_binary_and_modules() -> None:
    names = kernels.kernel_packages(POOL, "meta-7")
    assert names[0] == "linux-image-7.3.4+deb13-cloud-amd64"
    assert sorted(names[1:]) == [
        f"linux-{part}-7.3.4+deb13-cloud-amd64" for part in ("base", "binary", "modules")
    ]


def test_meta_package_without_a_kernel_is_an_error() -> None:
    with pytest.raises(HostError, match="meta-nothing depends on no kernel image"):
        kernels.kernel_packages(POOL, "meta-nothing")


def test_headers_come_with_their_tools_and_without_the_kernel() -> None:
    headers, tools = buildroot.header_packages(POOL, "linux-headers-6.12.95+deb12-cloud-amd64")
    assert headers == [
        "linux-headers-6.12.95+deb12-cloud-amd64",
        "linux-headers-6.12.95+deb12-common",
        "linux-kbuild-6.12.95+deb12",
    ]
    assert tools == ["gcc-12", "libc6", "libelf1", "pahole"]


def test_unknown_series_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no stock kernel of series '5\.10'") as caught:
        kernels.stock("5.10", Store(tmp_path))
    assert "6.12, 7" in str(caught.value)


def test_nothing_is_found_in_an_empty_cache(tmp_path: Path) -> None:
    assert kernels.find("6.12", Store(tmp_path)) is None


class PoolWithoutHeaders(FakePool):
    def has(self, name: str) -> bool:
        return False


def test_headers_that_left_the_archive_name_the_way_on() -> None:
    recipe = buildroot.recipe("bookworm", "6.12.1-cloud-amd64")
    with pytest.raises(HostError, match=r"no headers of Linux 6\.12\.1-cloud-amd64") as caught:
        recipe.resolve(cast(OpenPool, PoolWithoutHeaders()))
    assert "setup --refresh" in str(caught.value)


def test_root_of_another_kernel_is_another_recipe() -> None:
    one = buildroot.recipe("bookworm", "6.12.1")
    assert one.digest() != buildroot.recipe("bookworm", "6.12.2").digest()
    assert one.digest() == buildroot.recipe("bookworm", "6.12.1").digest()


def test_links_of_maintainer_scripts_are_made_where_missing(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/sh").symlink_to("bash")
    buildroot.finish(tmp_path)
    links = {name: (tmp_path / "usr/bin" / name).readlink() for name in ("sh", "awk", "cc")}
    assert links == {"sh": Path("bash"), "awk": Path("mawk"), "cc": Path("gcc")}


def test_mend_names_the_setting_that_forbids_namespaces(tmp_path: Path) -> None:
    assert "root" in buildroot.mend(tmp_path)
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel/unprivileged_userns_clone").write_text("1\n")
    assert "sysctl" not in buildroot.mend(tmp_path)
    (tmp_path / "kernel/unprivileged_userns_clone").write_text("0\n")
    wanted = "as root: sysctl -w kernel.unprivileged_userns_clone=1"
    assert buildroot.mend(tmp_path) == wanted


def test_machine_without_namespaces_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "unshare"
    fake.write_text(
        "#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    buildroot.namespaces.cache_clear()
    try:
        with pytest.raises(HostError, match=r"no mount namespace.*not permitted"):
            buildroot.namespaces()
    finally:
        buildroot.namespaces.cache_clear()


def test_command_sees_the_root_its_binds_and_its_environment(
    buildroot: BuildRoot, tmp_path: Path
) -> None:
    (tmp_path / "in").write_text("text")
    result = buildroot.run(
        ["sh", "-c", 'cat in; echo "$WORD:$HOME"; gcc --version; cp in out; ls /tmp'],
        binds={tmp_path: Path("/build")},
        cwd=Path("/build"),
        timeout_s=60,
        env={"WORD": "word"},
        log_path=tmp_path / "log",
    )
    lines = result.stdout.splitlines()
    assert lines[0] == "textword:/tmp"
    assert lines[1].startswith("gcc (Debian 12")
    assert (tmp_path / "out").read_text() == "text"
    assert "textword:/tmp" in (tmp_path / "log").read_text()


def test_command_cannot_change_the_root(buildroot: BuildRoot, tmp_path: Path) -> None:
    words = ["sh", "-c", "touch /usr/bin/new"]
    result = buildroot.run(words, binds={}, cwd=Path("/"), timeout_s=60, check=False)
    assert result.returncode != 0
    assert not (buildroot.path / "usr/bin/new").exists()


def test_failed_command_is_a_build_error_with_its_log(buildroot: BuildRoot, tmp_path: Path) -> None:
    log = tmp_path / "log"
    words = ["sh", "-c", "echo 'no such header' >&2; exit 3"]
    with pytest.raises(BuildError, match=r"failed with 3.*no such header") as caught:
        buildroot.run(words, binds={}, cwd=Path("/"), timeout_s=60, log_path=log)
    assert caught.value.log == log


def test_command_that_hangs_is_ended(buildroot: BuildRoot) -> None:
    with pytest.raises(HostError, match="still running after"):
        buildroot.run(["sleep", "60"], binds={}, cwd=Path("/"), timeout_s=1)


def test_what_a_command_leaves_behind_ends_with_it(buildroot: BuildRoot, tmp_path: Path) -> None:
    # As a make that is killed leaves the makes and compilers that it started.
    left = "setsid sleep 600 & echo started > /inside/started; exec sleep 600"
    argv = buildroot.command(
        ["sh", "-c", left], binds={tmp_path: Path("/inside")}, cwd=Path("/inside")
    )
    with (tmp_path / "log").open("wb") as output:
        child = proc.spawn(argv, stdout=output)
        while not (tmp_path / "started").exists():
            time.sleep(0.01)
        below = _children_of(child.pid)
        child.kill()
        child.wait()
    assert below
    end_s = time.monotonic() + 30.0
    while any(Path(f"/proc/{pid}").exists() for pid in below):
        assert time.monotonic() < end_s
        time.sleep(0.01)


def _children_of(pid: int) -> list[int]:
    """Processes below one, their own included."""
    below = [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return below + [grand for child in below for grand in _children_of(child)]
