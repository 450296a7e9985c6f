# SPDX-License-Identifier: GPL-2.0-or-later
"""Which bug a finding is: an identity that stays the same over runs, builds and addresses."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable

from harness.text import printable
from harness.verdict import Finding

PLACE_LENGTH = 100
MOST_BUGS = 500
_NAME = re.compile(r"[A-Za-z_][\w.]*")
# What the compiler adds to the names of functions that it copied, split or shrank.
_SUFFIX = re.compile(r"\.(?:isra|constprop|part|cold|llvm)\b.*")


def function_name(symbol: str) -> str:
    """`f` of `f.constprop.0+0x1c/0x80 [module]`; "" when there is no name."""
    name = _NAME.match(symbol)
    return _SUFFIX.sub("", name[0])[:PLACE_LENGTH] if name else ""


def place_of(finding: Finding) -> str:
    """The function that the finding is about, "" when it is not known.

    Of a conversion it is who asked for it, of a kernel's report the innermost frame that tells
    bugs apart.
    """
    frames = finding.extra.get("frames")
    if isinstance(frames, list | tuple) and frames:
        return function_name(str(frames[0]))
    sites = (finding.conversion_site, finding.site, finding.store_site)
    return next((function_name(s.symbol) for s in sites if s and s.symbol), "")


def title_of(finding: Finding) -> str:
    """A few words for tables: a kernel's report by its title, others by their rule and place."""
    title = finding.extra.get("title")
    if isinstance(title, str) and title:
        return printable(title, PLACE_LENGTH)
    place = place_of(finding)
    words = [f"{finding.rule} in {place}" if place else finding.rule]
    words += [f"to {finding.direction.split()[-1]}"] if finding.direction else []
    words += [finding.evidence] if finding.evidence else []
    return ", ".join(words)


def identity_of(finding: Finding) -> str:
    """16 hex digits, the same for the same bug in another run.

    A kernel's report has the fingerprint of its title and innermost frames; any other finding is
    known by its rule, place, direction and evidence.
    """
    fingerprint = finding.extra.get("fingerprint")
    if isinstance(fingerprint, str) and fingerprint:
        return printable(fingerprint, 64)
    words = (finding.rule, place_of(finding), finding.direction or "", finding.evidence or "")
    return hashlib.sha256("|".join(words).encode()).hexdigest()[:16]


def bounded(
    findings: Iterable[Finding], most_per_rule: int, most_bugs: int = MOST_BUGS
) -> tuple[list[Finding], dict[str, int]]:
    """The first findings of each rule and the first of each bug, in order; counts of the others.

    A bug that one run tells and another leaves out would look like one that was fixed.
    """
    kept: list[Finding] = []
    shown: set[str] = set()
    hidden: set[str] = set()
    of_rule: Counter[str] = Counter()
    left_out = 0
    for finding in findings:
        bug = identity_of(finding)
        of_rule[finding.rule] += 1
        if of_rule[finding.rule] <= most_per_rule or (bug not in shown and len(shown) < most_bugs):
            kept.append(finding)
            shown.add(bug)
        else:
            left_out += 1
            hidden.add(bug)
    return kept, {"findings_left_out": left_out, "bugs_left_out": len(hidden - shown)}
