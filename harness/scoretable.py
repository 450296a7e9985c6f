# SPDX-License-Identifier: GPL-2.0-or-later
"""How good the judge is: for each fault what was expected, what was found, and where; a table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from harness.clean import Boot, Cell
from harness.conversions import TO_SHARED
from harness.faults import Fault
from harness.mutants import Mutant
from harness.score import Score
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
    words = [str(site).partition("+")[0]] if site else []
    if finding.gpa is not None:
        words.append(f"{finding.gpa:#x}")
    if finding.direction:
        words.append("to shared" if finding.direction == TO_SHARED else "to private")
    if finding.vcpu is not None and finding.rule == "guest-tlb-flush":
        words.append(f"vCPU {finding.vcpu}")
    return ", ".join(words)


def _failing(verdict: Verdict) -> list[Finding]:
    return [f for f in verdict.findings if f.severity is Severity.FAIL]


def row_of_mutant(mutant: Mutant, verdict: Verdict) -> Row:
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
        group=mutant.group,
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


def row_of_fault(fault: Fault, score: Score) -> Row:
    """A fault that the stub made: `score` holds the place against where it was planted."""
    expected, found = frozenset(score.expected), frozenset(score.found)
    note = "" if score.caught else _difference(expected, found) or f"found at {score.place}"
    if score.stray and not score.caught:
        note = f"elsewhere: {place_of(score.stray[0])}"
    return Row(
        group="stub",
        name=fault.name,
        what=fault.what,
        expected=expected,
        found=found,
        place=score.place,
        caught=score.caught,
        note=note,
    )


def row_of_step(group: str, step: str, expected: frozenset[str], verdict: Verdict) -> Row:
    """A step that plants a fault, judged by its own slice."""
    wanted = [f for f in verdict.findings if f.rule in expected]
    found = frozenset(f.rule for f in (*wanted, *_failing(verdict)))
    note = _difference(expected, found)
    return Row(
        group=group,
        name=step,
        what="",
        expected=expected,
        found=found,
        place=place_of(wanted[0]) if wanted else "",
        caught=not note,
        note=note,
    )


def row_of_rest(group: str, verdict: Verdict) -> Row:
    """What was found in a run outside of all steps: nothing was planted there."""
    alarms = [f for f in _failing(verdict) if not f.extra.get("step")]
    return Row(
        group="clean",
        name=f"{group}, outside its steps",
        what="",
        expected=frozenset(),
        found=frozenset(f.rule for f in alarms),
        place=place_of(alarms[0]) if alarms else "",
        caught=not alarms,
        note=alarms[0].summary if alarms else "",
    )


def row_untried(group: str, name: str, expected: frozenset[str], why: str) -> Row:
    """A fault that could not be tried; that is no catch."""
    return Row(
        group=group, name=name, what="", expected=expected, found=frozenset(), place="",
        caught=False, note=f"not tried: {why}",
    )  # fmt: skip


def row_of_clean(cell: Cell, boots: Sequence[Boot]) -> Row:
    """Whether an unchanged kernel was left alone in each of its boots."""
    alarms = [boot for boot in boots if boot.failures]
    unjudged = [b for b in boots if not b.failures and b.outcome != Outcome.PASS.value]
    words = [f"{len(boots)} boots, {sum(b.counts['conversions'] for b in boots):,} conversions"]
    words += [f"{len(alarms)} with an alarm: {alarms[0].failures[0]}"] if alarms else []
    words += [f"{len(unjudged)} not judged: {unjudged[0].reason}"] if unjudged else []
    kinds = {kind for boot in alarms for kind in boot.findings if kind.endswith(" fail")}
    return Row(
        group="clean",
        name=f"{cell.release}, {cell.smp} vCPUs, {cell.memory_mib} MiB",
        what="",
        expected=frozenset(),
        found=frozenset(kind.split()[0] for kind in kinds),
        place="",
        caught=bool(boots) and not alarms and not unjudged,
        note="; ".join(words),
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
    words.append(f"{alarms} false alarms in {len(quiet)} that break no rule")
    return "; ".join(words + ([f"{unjudged} could not be judged"] if unjudged else []))


def render(rows: Sequence[Row]) -> Table:
    """The table, for 100 columns: caught faults in one line each, what is wrong in full."""
    table = Table(title=summary(rows), title_justify="left", box=None, padding=(0, 1, 0, 0))
    widths = (("fault", 25), ("expected", 24), ("found", 17), ("where", 22), ("", 7))
    for name, width in widths:
        table.add_column(name, width=width, overflow="fold")
    group = ""
    for row in rows:
        if row.group != group and group:
            table.add_row()
        group = row.group
        cells = (
            row.name,
            _rules(row.expected),
            "the same" if row.found == row.expected else _rules(row.found),
            row.note if not row.caught or row.group == "clean" else row.place,
            word_of(row),
        )
        # Text, not markup: names and places come from kernels.
        table.add_row(*map(Text, cells), style="" if row.caught else "red")
    return table


def _rules(rules: frozenset[str]) -> str:
    return "\n".join(sorted(rules)) or "nothing"


def word_of(row: Row) -> str:
    """How a row ended, in a word."""
    if row.expected:
        return "caught" if row.caught else "MISSED"
    return "silent" if row.caught else "ALARM" if row.found else "unclear"
