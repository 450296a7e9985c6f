# SPDX-License-Identifier: GPL-2.0-or-later
"""A lease by a lab's labgrid: its coordinator says who has a place, and labgrid-client asks it.

A place has no end of its own and no queue: who waits asks again, and what a killed harness had
acquired stays so until someone releases it.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HostError
from harness.hosts.config import Host
from harness.hosts.lease import Holding, Lease
from harness.remote import Answer, LocalRemote, Remote
from harness.text import printable

_ASK_TIMEOUT_S = 40.0
_ACQUIRED = re.compile(r"^ {2}acquired: (.+)$", re.MULTILINE)
_TAKEN = ("is already acquired by", "already acquired place")
_NOT_OURS = ("is not acquired", "is acquired by a different user")


@dataclass(slots=True)
class PlaceLease(Lease):
    """A lease on the place `place` of a coordinator; `remote` is where labgrid-client runs."""

    coordinator: str = ""
    # what labgrid calls us, once we had it
    us: str = ""

    def ask(self, act: str) -> Holding:
        if act == "take":
            return self._take()
        if act == "keep":
            shown = self._show()
            return Holding(held=shown.owner == self.us, owner=shown.owner)
        if act in ("drop", "clear"):
            # Ours only, or whoever has it.
            self._client("release", *(["--kick"] if act == "clear" else []), but=_NOT_OURS)
            return Holding(held=False)
        return self._show()

    def _take(self) -> Holding:
        got = not self._client("acquire", but=_TAKEN).exit_code
        shown = self._show()
        if got:
            self.us = shown.owner
        return Holding(held=got, owner=shown.owner)

    def _show(self) -> Holding:
        found = _ACQUIRED.search(self._client("show").stdout.decode(errors="replace"))
        owner = printable(found[1], 120) if found and found[1] != "None" else ""
        return Holding(held=bool(owner), owner=owner)

    def _client(self, *words: str, but: tuple[str, ...] = ()) -> Answer:
        """Run it; what it says of a failure has to hold one of `but`. Raises HostError."""
        there = ["--coordinator", self.coordinator] if self.coordinator else []
        argv = [_program(), *there, "--place", self.place, *words]
        answer = self.remote.run(argv, timeout_s=_ASK_TIMEOUT_S)
        said = answer.stderr.decode(errors="replace").strip()
        if answer.exit_code and not any(word in said for word in but):
            last = printable(said.splitlines()[-1] if said else "no word", 300)
            raise HostError(
                f"labgrid did not {words[0]} {self.place}: {last}",
                hint=f"labgrid-client --place {self.place} show tells more; is the coordinator up?",
            )
        return answer


def _program() -> str:
    """labgrid-client, beside this Python or on the path. It comes with the extra `labgrid`."""
    beside = Path(sys.executable).with_name("labgrid-client")
    return str(beside) if beside.exists() else beside.name


def lease_of(host: Host, remote: Remote) -> Lease:
    """How a host is leased: by its labgrid place where it has one, or else on the host itself."""
    if not host.labgrid:
        return Lease(remote)
    return PlaceLease(LocalRemote(), place=host.labgrid, coordinator=host.coordinator)
