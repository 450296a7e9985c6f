# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host told of one stretch of time: its machine checks, its end, and what nobody told."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from harness.errors import EvidenceError
from harness.hostmce.kernel import KernelTold, read_log
from harness.hostmce.merge import Merged, merge
from harness.hostmce.record import PHYS_BITS, Source, from_json
from harness.text import printable

SCHEMA = 1
MOST_SENTENCES = 200
# A clock that is further off than this is worth a word.
SKEW_S = 5.0


class HostState(StrEnum):
    """How the host was when it was asked last."""

    ALIVE = "alive"
    REBOOTED = "rebooted"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTold:
    """One host, from a test's beginning to its end. Sentences are safe to show."""

    merged: Merged = dataclasses.field(default_factory=Merged)
    state: HostState = HostState.ALIVE
    # how it was found out that the host is not what it was: one sentence, "" for a live one
    down: str = ""
    # the last lines of its serial console, of a host that went down
    last_words: tuple[str, ...] = ()
    # what its kernel panicked with
    panic: str = ""
    # memory failures, EDAC counters that moved, QEMU's events
    notes: tuple[str, ...] = ()
    # what could not be read, or was not read to its end
    gaps: tuple[str, ...] = ()
    # the sources that were read to their end
    heard: tuple[str, ...] = ()
    boot_id: str = ""
    # the host's clock less the harness's: nothing depends on it
    skew_s: float = 0.0
    phys_bits: int = PHYS_BITS
    # guest-physical addresses whose memory failed, as QEMU has them
    guest_addresses: tuple[int, ...] = ()
    # addresses of the records are guest-physical: the stub is its own host
    guest_physical: bool = False

    @property
    def sentences(self) -> tuple[str, ...]:
        """What a reader of the run has to know beside the findings."""
        skew = (
            [f"The host's clock is {self.skew_s:+.0f} s off the harness's; no time was compared."]
            if abs(self.skew_s) > SKEW_S
            else []
        )
        ends = [f"The host's last words: {line}" for line in self.last_words[-3:]]
        said = [f"The host: {note}" for note in self.notes[:20]]
        apart = [f"Sources disagree: {one}." for one in self.merged.disagreements]
        return (*ends, *apart, *(f"Not read: {gap}." for gap in self.gaps), *said, *skew)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; `read` takes it."""
        merged = self.merged
        return {
            "schema": SCHEMA,
            "state": self.state.value,
            "down": self.down,
            "last_words": list(self.last_words),
            "panic": self.panic,
            "notes": list(self.notes),
            "gaps": list(self.gaps),
            "heard": list(self.heard),
            "boot_id": self.boot_id,
            "skew_s": self.skew_s,
            "phys_bits": self.phys_bits,
            "guest_physical": self.guest_physical,
            "guest_addresses": list(self.guest_addresses),
            "records": [record.to_json() for record in merged.records],
            "total": merged.total,
            "by_grade": dict(merged.by_grade),
            "overflowed": merged.overflowed,
            "left_out": merged.left_out,
            "disagreements": list(merged.disagreements),
        }


def read(data: Mapping[str, Any]) -> HostTold:
    """What `to_json` wrote. Raises EvidenceError for anything else."""
    if data.get("schema") != SCHEMA:
        raise EvidenceError(f"the host's records have schema {data.get('schema')!r}")
    try:
        merged = Merged(
            records=tuple(from_json(record) for record in data["records"]),
            total=int(data["total"]),
            by_grade={printable(str(k), 40): int(v) for k, v in dict(data["by_grade"]).items()},
            overflowed=int(data["overflowed"]),
            left_out=int(data["left_out"]),
            disagreements=_sentences(data["disagreements"]),
        )
        return HostTold(
            merged=merged,
            state=HostState(data["state"]),
            down=printable(str(data["down"]), 400),
            last_words=_sentences(data["last_words"]),
            panic=printable(str(data["panic"])),
            notes=_sentences(data["notes"]),
            gaps=_sentences(data["gaps"]),
            heard=_sentences(data["heard"]),
            boot_id=printable(str(data["boot_id"]), 64),
            skew_s=float(data["skew_s"]),
            phys_bits=checked_bits(int(data["phys_bits"])),
            guest_physical=bool(data["guest_physical"]),
            guest_addresses=tuple(int(at) for at in list(data["guest_addresses"])[:MOST_SENTENCES]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise EvidenceError(f"the host's records have another form: {error!r}") from error


def checked_bits(bits: int) -> int:
    """A number of physical address bits. Raises ValueError for one that no CPU has."""
    if not 32 <= bits <= 64:
        raise ValueError(f"{bits} bits of a physical address")
    return bits


def _sentences(value: Any) -> tuple[str, ...]:
    return tuple(printable(str(item), 400) for item in list(value)[:MOST_SENTENCES])


def of_kernel(told: KernelTold, source: Source, **more: Any) -> HostTold:
    """What one kernel log alone tells."""
    lost = {source: told.left_out}
    merged = merge({source: told.records}, panicked=bool(told.panic), lost=lost)
    return HostTold(
        merged=merged, panic=told.panic, notes=told.note_lines(), heard=(source.value,), **more
    )


def of_stub(log: bytes) -> HostTold | None:
    """What the stub's host logged (harness.hostlog), None without any."""
    if not log:
        return None
    return of_kernel(read_log(log, Source.KERNEL_LOG), Source.KERNEL_LOG, guest_physical=True)
