# SPDX-License-Identifier: GPL-2.0-or-later
"""A TD's firmware for the tests: Debian's, which starts a plain VM too."""

from pathlib import Path

from harness.provision.apt import OpenPool
from harness.provision.cache import Deb, Store
from harness.provision.packages import Recipe, provide

# In no stable release.
_RELEASE = "sid"
_PACKAGES = ("ovmf-inteltdx",)


def td_firmware(store: Store | None = None) -> Path:
    """The root directory that its descriptor and its image lie in. Raises HostError."""
    return provide(Recipe("tdvf", _RELEASE, ["1", *_PACKAGES], _resolve), store or Store()).tree


def _resolve(pool: OpenPool) -> tuple[list[Deb], dict[str, str]]:
    return pool.exact(_PACKAGES), {}
