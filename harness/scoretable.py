# SPDX-License-Identifier: GPL-2.0-or-later
"""How good the judge is: for each fault what was expected, what was found, and where; a table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.table import Table

from harness.conversions import TO_SHARED
from harness.mutants import Mutant
from harness.verdict import Finding, Outcome, Severity, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One fault, or one clean run (`expected` is empty then, and so must `found` be)."""

    # "stub", "guest", "vmm", "mutants", "rfc", "clean"
    group: str
    name: str
    what: str
    expected: frozenset[str]
    found: frozenset[str]
    # where the first of the expected findings is; "" for none
    place: str
    caught: bool
    # why not, or what else there is to know
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "group": self.group,
            "name": self.name,
            "what": self.what,
            "expected": sorted(self.expected),
            "found": sorted(self.found),
            "place": self.place,
            "caught": self.caught,
            "note": self.note,
        }


def place_of(finding: Finding) -> str:
    """Where a finding is, in a few words."""
    site = finding.conversion_site or finding.site
    words = [str(site)] if site else []
    if finding.gpa is not None:
        words.append(f"page {finding.gpa:#x}")
    if finding.direction:
        words.append("to shared" if finding.direction == TO_SHARED else "to private")
    if finding.vcpu is not None and finding.rule == "guest-tlb-flush":
        words.append(f"vCPU {finding.vcpu}")
    return ", ".join(words)


def _failing(verdict: Verdict) -> list[Finding]:
    return [f for f in verdict.findings if f.severity is Severity.FAIL]


def score_mutant(mutant: Mutant, verdict: Verdict) -> Row:
    """Whether a patched kernel was found out by just the rules that its patch names."""
    wanted = [f for f in verdict.findings if f.rule in mutant.trips]
    failing = _failing(verdict)
    found = frozenset(f.rule for f in (*wanted, *failing))
    note = ""
    if verdict.outcome in (Outcome.ERROR, Outcome.EMPTY):
        note = f"{verdict.outcome.value}: {verdict.reason}"
    elif found != mutant.trips:
        note = _difference(mutant.trips, found)
    elif mutant.direction and any(f.direction not in (None, mutant.direction) for f in wanted):
        note = f"found in the other direction than {mutant.direction} too"
    return Row(
        group=mutant.path.parent.name,
        name=mutant.name,
        what=mutant.title,
        expected=mutant.trips,
        found=found,
        place=place_of(wanted[0]) if wanted else "",
        caught=not note,
        note=note,
    )


def _difference(expected: frozenset[str], found: frozenset[str]) -> str:
    missed, more = sorted(expected - found), sorted(found - expected)
    words = [f"missed by {', '.join(missed)}"] if missed else []
    return "; ".join(words + ([f"also found by {', '.join(more)}"] if more else []))


def score_clean(name: str, what: str, verdicts: Sequence[Verdict]) -> Row:
    """Whether an unchanged kernel was left alone in each of its boots."""
    alarms = [f for verdict in verdicts for f in _failing(verdict)]
    unjudged = [v for v in verdicts if not _failing(v) and v.outcome is not Outcome.PASS]
    words = [f"{len(verdicts)} boots"]
    words += [f"{len(alarms)} false alarms"] if alarms else []
    words += [f"{len(unjudged)} not judged: {unjudged[0].reason}"] if unjudged else []
    return Row(
        group="clean",
        name=name,
        what=what,
        expected=frozenset(),
        found=frozenset(f.rule for f in alarms),
        place=place_of(alarms[0]) if alarms else "",
        caught=not alarms and not unjudged and bool(verdicts),
        note=", ".join(words),
    )


def summary(rows: Iterable[Row]) -> str:
    """The score in one line."""
    everything = list(rows)
    faults = [row for row in everything if row.group != "clean" and row.expected]
    quiet = [row for row in everything if row.group == "clean" or not row.expected]
    caught = sum(row.caught for row in faults)
    alarms = sum(bool(row.found) for row in quiet)
    unjudged = sum(not row.caught and not row.found for row in quiet)
    words = [f"{caught} of {len(faults)} faults caught by the right rule at the right place"]
    words.append(f"{alarms} of {len(quiet)} clean kernels with a false alarm")
    return "; ".join(words + ([f"{unjudged} could not be judged"] if unjudged else []))


def render(rows: Sequence[Row]) -> Table:
    """The table, for 100 columns: caught faults in one line each, what is wrong in full."""
    table = Table(title=summary(rows), title_justify="left", width=100)
    for name, ratio in (("fault", 3), ("expected", 3), ("found", 3), ("where", 4)):
        table.add_column(name, ratio=ratio, overflow="fold")
    table.add_column("", width=6)
    group = ""
    for row in rows:
        if row.group != group and group:
            table.add_section()
        group = row.group
        table.add_row(
            escape(row.name),
            _rules(row.expected),
            _rules(row.found),
            escape(row.note if not row.caught or row.group == "clean" else row.place),
            _word(row),
        )
    return table


def _rules(rules: frozenset[str]) -> str:
    return "\n".join(sorted(rules)) or "nothing"


def _word(row: Row) -> str:
    if row.group == "clean" or not row.expected:
        return "[green]silent" if row.caught else "[red]ALARM" if row.found else "[red]?"
    return "[green]caught" if row.caught else "[red]MISSED"
