# SPDX-License-Identifier: GPL-2.0-or-later
"""What a qualification asks of a host, as plain data: a list of items for each profile."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from harness.clean import SIZES
from harness.hosts.config import Host
from harness.pipeline import BESIDE_MIB


class Kind(StrEnum):
    """What an item does."""

    PREFLIGHT = "preflight"
    BOOTS = "boots"
    SUITE = "suite"
    STRESS = "stress"
    KEXEC = "kexec"
    REBOOTS = "reboots"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One requirement. Guests have `vcpus` and `memory_mib`; `count` of them, or `minutes` long."""

    kind: Kind
    requirement: str
    vcpus: int = 2
    memory_mib: int = 1024
    count: int = 1
    minutes: float = 0.0

    @property
    def id(self) -> str:
        """The same in each qualification that asks for the same."""
        if self.kind is Kind.PREFLIGHT:
            return str(self.kind)
        return f"{self.kind}-{self.vcpus}x{self.memory_mib}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How much of it."""

    # vCPUs and MiB
    sizes: tuple[tuple[int, int], ...]
    stress_minutes: float
    kexecs: int
    reboots: int
    # at once, where the host has room for them; 0: as many as it has room for
    guests: int


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "quick": Profile(sizes=SIZES[:2], stress_minutes=0.5, kexecs=1, reboots=2, guests=2),
        "full": Profile(
            sizes=SIZES,
            stress_minutes=30.0,
            kexecs=3,
            reboots=20,
            guests=0,
        ),
        "soak": Profile(
            sizes=SIZES,
            stress_minutes=8 * 60.0,
            kexecs=10,
            reboots=200,
            guests=0,
        ),
    }
)
_GUEST_MIB = 512


def guests_at_once(host: Host, available_mib: int, most: int) -> int:
    """How many guests a host is asked to run at once: its KeyIDs, its limits or its memory say."""
    room = min(available_mib, host.memory_mib or available_mib) // (_GUEST_MIB + BESIDE_MIB)
    limits = [limit for limit in (host.guests, host.key_ids, most) if limit]
    return max(1, min([room, *limits]))


def items_of(profile: Profile, host: Host, available_mib: int) -> list[Item]:
    """All items in their order; sizes that the host has no memory for are left out."""
    room = min(available_mib, host.memory_mib or available_mib)
    sizes = [(vcpus, mib) for vcpus, mib in profile.sizes if mib + BESIDE_MIB <= room]
    many = guests_at_once(host, available_mib, profile.guests)
    stress = f"convert for {profile.stress_minutes:g} minutes, no machine check or memory error"
    return [
        Item(kind=Kind.PREFLIGHT, requirement="has what it needs"),
        Item(
            kind=Kind.BOOTS,
            requirement=f"boots {many} guests at once",
            vcpus=1,
            memory_mib=_GUEST_MIB,
            count=many,
        ),
        *(
            Item(
                kind=Kind.SUITE,
                requirement=f"all workloads, {vcpus} vCPUs, {mib} MiB",
                vcpus=vcpus,
                memory_mib=mib,
            )
            for vcpus, mib in sizes
        ),
        Item(kind=Kind.STRESS, requirement=stress, minutes=profile.stress_minutes),
        Item(
            kind=Kind.KEXEC,
            requirement=f"a second kernel in the guest, {profile.kexecs} times",
            count=profile.kexecs,
        ),
        Item(
            kind=Kind.REBOOTS,
            requirement=f"{profile.reboots} boots after each other",
            count=profile.reboots,
        ),
    ]
