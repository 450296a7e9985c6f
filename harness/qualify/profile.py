# SPDX-License-Identifier: GPL-2.0-or-later
"""What a qualification asks of a host, as plain data: a list of items for each profile."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from harness.clean import SIZES
from harness.hosts.config import Host
from harness.pipeline import BESIDE_MIB
from harness.report.words import plural


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
    """One requirement. Guests have `vcpus` and `memory_mib`; `count` of them, or `minutes` long.

    One that is `left_out` is not asked of the host, for that reason.
    """

    kind: Kind
    requirement: str
    vcpus: int = 0
    memory_mib: int = 0
    count: int = 1
    minutes: float = 0.0
    left_out: str = ""

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


def _room_mib(host: Host, available_mib: int) -> int:
    """What guests may take of a host's memory: what is free, or the limit of hosts.toml."""
    return min(available_mib, host.memory_mib or available_mib)


def guests_at_once(host: Host, available_mib: int, most: int) -> int:
    """How many guests a host is asked to run at once: its KeyIDs, its limits or its memory say."""
    room = _room_mib(host, available_mib) // (_GUEST_MIB + BESIDE_MIB)
    limits = [limit for limit in (host.guests, host.key_ids, most) if limit]
    return max(1, min([room, *limits]))


def items_of(profile: Profile, host: Host, available_mib: int) -> list[Item]:
    """All items in their order. Sizes that the host has no memory for are left out, but the first,
    without which nothing would be asked of it; all but the suite have the second, if there is room.
    """
    room = _room_mib(host, available_mib)
    sizes = [_suite(vcpus, mib, room) for vcpus, mib in profile.sizes]
    sizes[0] = replace(sizes[0], left_out="")
    usual = [item for item in sizes if not item.left_out][:2][-1]
    many = guests_at_once(host, available_mib, profile.guests)
    stress = f"convert for {profile.stress_minutes:g} minutes, no machine check or memory error"
    return [
        Item(kind=Kind.PREFLIGHT, requirement="has what it needs"),
        Item(
            kind=Kind.BOOTS,
            requirement=f"boots {plural(many, 'guest')} at once",
            vcpus=1,
            memory_mib=_GUEST_MIB,
            count=many,
        ),
        *sizes,
        replace(usual, kind=Kind.STRESS, requirement=stress, minutes=profile.stress_minutes),
        replace(
            usual,
            kind=Kind.KEXEC,
            requirement=f"a second kernel in the guest, {plural(profile.kexecs, 'time')}",
            count=profile.kexecs,
        ),
        replace(
            usual,
            kind=Kind.REBOOTS,
            requirement=f"{plural(profile.reboots, 'boot')} after each other",
            count=profile.reboots,
        ),
    ]


def _suite(vcpus: int, mib: int, room: int) -> Item:
    needed = mib + BESIDE_MIB
    why = f"needs {needed} MiB of memory, and guests may take {room}"
    return Item(
        kind=Kind.SUITE,
        requirement=f"all workloads, {plural(vcpus, 'vCPU')}, {mib} MiB",
        vcpus=vcpus,
        memory_mib=mib,
        left_out=why if needed > room else "",
    )
