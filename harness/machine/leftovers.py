# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains whose harness has died: found by the owner in their metadata, and removed."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.hosts.ssh import SshRemote, host_of
from harness.machine.away import remove_home
from harness.machine.domain import PREFIX, Owner, owner_of
from harness.machine.libvirt import boot_id, destroy
from harness.machine.libvirtlink import Link, library


class Fate(Enum):
    """What is to happen to a domain, in words for a table."""

    REMOVED = "its harness has ended: removed"
    KEPT_RUNNING = "its harness runs: left alone"
    KEPT_ELSEWHERE = "of another machine or container, or an earlier boot: left alone"
    KEPT_NAMELESS = "names no owner: left alone"
    KEPT_FAILED = "its harness has ended, and libvirt cannot remove it"


@dataclass(frozen=True, slots=True)
class Found:
    """A domain with our prefix, and what became of it."""

    name: str
    owner: Owner | None
    fate: Fate


def fate_of(owner: Owner | None, boot: str) -> Fate:
    """What the owner of a domain says about it, on a machine with this boot id."""
    if owner is None:
        return Fate.KEPT_NAMELESS
    if owner.boot_id != boot or not owner.process.known():
        return Fate.KEPT_ELSEWHERE
    return Fate.KEPT_RUNNING if owner.process.runs() else Fate.REMOVED


def clean(uri: str) -> Iterator[Found]:
    """Remove what dead harnesses of this machine left at a libvirt. Raises HostError."""
    link = Link(uri)
    try:
        for name, xml in link.call(_ours, "a list of the guests"):
            owner = owner_of(xml)
            fate = fate_of(owner, boot_id())
            if fate is Fate.REMOVED:
                try:
                    destroy(link, name)
                    _sweep(uri, xml)
                except HarnessError:
                    fate = Fate.KEPT_FAILED
            yield Found(name, owner, fate)
    finally:
        link.close()


def _sweep(uri: str, xml: str) -> None:
    """Take away the files of a guest of another machine. Raises HarnessError."""
    if host := host_of(uri):
        with SshRemote(host) as remote:
            remove_home(remote, Path(ET.fromstring(xml).findtext("os/kernel") or "/"))


def _ours(connection: Any) -> list[tuple[str, str]]:
    """Names and XML of the running domains with our prefix."""
    found = []
    for domain in connection.listAllDomains(library().VIR_CONNECT_LIST_DOMAINS_ACTIVE):
        if not domain.name().startswith(PREFIX):
            continue
        try:
            found.append((domain.name(), domain.XMLDesc()))
        except library().libvirtError:
            # It has ended in between.
            continue
    return found
