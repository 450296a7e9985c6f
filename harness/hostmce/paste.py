# SPDX-License-Identifier: GPL-2.0-or-later
"""Machine checks out of what a person has at hand: a log, a trace, mcelog's words, a database."""

import re
from collections.abc import Iterable

from harness.hostmce import kernel, mcelog, rasdaemon, trace
from harness.hostmce.merge import merge
from harness.hostmce.record import PHYS_BITS, MceRecord, Source
from harness.hostmce.told import HostTold

SQLITE = b"SQLite format 3\0"
MOST_LINE = 4000
# Of lines that may belong to a record; a log may have any number of others.
MOST_LINES = 500_000
_STATUS = re.compile(r"(?:0x)?[0-9a-f]{9,16}", re.I)
_MATTERS = re.compile(
    "|".join(kernel.WORDS) + r"|Machine Check|mce_record|\[LOST |CPU \d+ (?:BANK )?\d|"
    r"\b(?:STATUS|MISC|ADDR|TIME|MCGCAP|APICID) [0-9a-f]"
)


def of_lines(lines: Iterable[bytes], phys_bits: int = PHYS_BITS) -> HostTold:
    """What a text tells, whichever forms it mixes; of any length, as it is read line by line."""
    texts: list[str] = []
    dropped = 0
    for line in lines:
        text = line[:MOST_LINE].decode("utf-8", "replace").rstrip("\r\n")
        if not _MATTERS.search(text):
            continue
        if len(texts) < MOST_LINES:
            texts.append(text)
        else:
            dropped += 1
    told = kernel.read_lines(kernel.pasted_lines(texts), Source.KERNEL_LOG)
    traced, lost = trace.read_trace(texts)
    logged, left_out = mcelog.read_mcelog(texts)
    said = {Source.KERNEL_LOG: told.records, Source.TRACE: traced, Source.MCELOG: logged}
    beyond = {
        Source.KERNEL_LOG: told.left_out,
        Source.TRACE: lost,
        Source.MCELOG: left_out,
    }
    # Not all that a machine has was pasted: what a source lacks is no contradiction.
    merged = merge(
        {source: records for source, records in said.items() if records},
        panicked=True,
        lost=beyond,
    )
    gaps = (f"{dropped:,} lines behind the first {MOST_LINES:,} that matter",) if dropped else ()
    return HostTold(
        merged=merged, panic=told.panic, notes=told.note_lines(), gaps=gaps, phys_bits=phys_bits
    )


def of_database(data: bytes, phys_bits: int = PHYS_BITS) -> HostTold:
    """What a copy of rasdaemon's database tells. Raises EvidenceError."""
    told = rasdaemon.read_database({"": data}, {})
    merged = merge({Source.RASDAEMON: told.records}, lost={Source.RASDAEMON: told.left_out})
    return HostTold(merged=merged, notes=tuple(told.notes), phys_bits=phys_bits)


def of_status(word: str) -> HostTold | None:
    """One MCi_STATUS by its number alone; None for a word that is none."""
    if not _STATUS.fullmatch(word):
        return None
    return HostTold(merged=merge({Source.KERNEL_LOG: [MceRecord(bank=0, status=int(word, 16))]}))
