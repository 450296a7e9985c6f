# SPDX-License-Identifier: GPL-2.0-or-later
"""The text of `mce:mce_record` trace events, as tracefs, trace-cmd and perf print it.

The form is TP_printk of include/trace/events/mce.h; IPID and SYND are AMD's, PPIN, microcode and
what follows came later and may be missing.
"""

import re
from collections.abc import Iterable

from harness.hostmce.record import MceRecord, Source, valid_address, valid_misc

MOST_RECORDS = 10_000
_EVENT = re.compile(
    r"(?:\s(?P<uptime>\d{1,10}\.\d{6}):\s+)?(?:mce:)?mce_record:\s+CPU: (?P<cpu>\d{1,6}), "
    r"MCGc/s: (?P<mcgcap>[0-9a-f]{1,16})/(?P<mcgstatus>[0-9a-f]{1,16}), "
    r"MC(?P<bank>\d{1,3}): (?P<status>[0-9a-f]{1,16}), (?P<rest>.*)"
)
_FIELD = re.compile(r"([A-Za-z/]+): (?:[0-9a-f]{2}:<)?([0-9a-f]{1,16})>?(?:, |\s*$)")
_LOST = re.compile(r"\[LOST (\d{1,12}) EVENTS\]")
# The head of tracefs' text: a full buffer drops its oldest, and says so here alone.
_WRITTEN = re.compile(r"# entries-in-buffer/entries-written: (\d{1,12})/(\d{1,12})\s")


def read_trace(texts: Iterable[str], boot_id: str = "") -> tuple[list[MceRecord], int]:
    """The records of a trace buffer, and how many events it lost or were left out."""
    records: list[MceRecord] = []
    lost = 0
    for number, text in enumerate(texts, 1):
        if gap := _LOST.search(text):
            lost += int(gap[1])
        elif head := _WRITTEN.match(text):
            lost += max(0, int(head[2]) - int(head[1]))
        elif event := _EVENT.search(text):
            if len(records) == MOST_RECORDS:
                lost += 1
            else:
                records.append(_record(event, boot_id, number))
    return records, lost


def _record(event: re.Match[str], boot_id: str, line: int) -> MceRecord:
    rest = dict(_FIELD.findall(event["rest"]))

    def number(name: str, base: int) -> int | None:
        word = rest.get(name)
        return int(word, base) if word and (base == 16 or word.isdigit()) else None

    status, uptime = int(event["status"], 16), event["uptime"]
    return MceRecord(
        bank=int(event["bank"]),
        status=status,
        mcgstatus=int(event["mcgstatus"], 16),
        mcgcap=int(event["mcgcap"], 16),
        cpu=int(event["cpu"]),
        addr=valid_address(status, number("ADDR", 16)),
        misc=valid_misc(status, number("MISC", 16)),
        ip=number("RIP", 16) or None,
        tsc=number("TSC", 16),
        ppin=number("PPIN", 16) or None,
        cpuid=number("CPUID", 16),
        time_s=number("time", 10),
        uptime_s=float(uptime) if uptime else None,
        socket=number("socket", 10),
        apicid=number("APIC", 16),
        microcode=number("microcode", 16),
        boot_id=boot_id,
        sources=(Source.TRACE,),
        line=line,
    )
