# SPDX-License-Identifier: GPL-2.0-or-later
"""Records as mcelog prints them (dump_mce in its mcelog.c), for hosts that still run it.

A record is a `CPU n BANK b` line and the words and numbers behind it, up to the next one; names of
banks may stand in the place of `BANK b`, and then the number is not known.
"""

import re
from collections.abc import Iterable

from harness.hostmce.record import MceRecord, Source, valid_address, valid_misc

MOST_RECORDS = 10_000
_HEAD = re.compile(r"(?:^|\s)CPU (\d{1,6}) (?:BANK )?(\d{1,3})(?= |$)")
_WORD = re.compile(
    r"\b(STATUS|MCGSTATUS|MCGCAP|MISC|ADDR|TSC|TIME|APICID|SOCKETID|RIP)\b(?: !INEXACT!)?"
    r" (?:[0-9a-f]{2}:)?([0-9a-f]{1,16})\b"
)


def read_mcelog(texts: Iterable[str]) -> tuple[list[MceRecord], int]:
    """The records, and how many were left out."""
    records: list[MceRecord] = []
    left_out = 0
    place: tuple[int, int, int] | None = None
    words: dict[str, str] = {}

    def end() -> None:
        nonlocal left_out
        if place is None or "STATUS" not in words:
            return
        if len(records) == MOST_RECORDS:
            left_out += 1
        else:
            records.append(_record(*place, words))

    for number, text in enumerate(texts, 1):
        head = _HEAD.search(text)
        if head:
            end()
            place, words = (int(head[1]), int(head[2]), number), {}
        if place is not None:
            for name, value in _WORD.findall(text):
                words.setdefault(name, value)
    end()
    return records, left_out


def _record(cpu: int, bank: int, line: int, words: dict[str, str]) -> MceRecord:
    def number(name: str, base: int = 16) -> int | None:
        word = words.get(name)
        return int(word, base) if word and (base == 16 or word.isdigit()) else None

    status = number("STATUS") or 0
    return MceRecord(
        bank=bank,
        status=status,
        mcgstatus=number("MCGSTATUS") or 0,
        mcgcap=number("MCGCAP"),
        cpu=cpu,
        addr=valid_address(status, number("ADDR")),
        misc=valid_misc(status, number("MISC")),
        tsc=number("TSC"),
        time_s=number("TIME", 10),
        apicid=number("APICID"),
        socket=number("SOCKETID"),
        ip=number("RIP"),
        sources=(Source.MCELOG,),
        line=line,
    )
