# SPDX-License-Identifier: GPL-2.0-or-later
"""Known issues, from a TOML file in the repository of the series: carried over, never hidden.

    [[issue]]
    fingerprint = "8c1f0a2b3c4d5e6f"            # or: rule and place, for what is no kernel report
    base = "linux-source-6.12"                  # a shell pattern; left out: every base
    link = "https://lore.kernel.org/..."
    expires = 2027-03-31
    note = "fixed in 6.13, not backported"

An entry stands for one bug: a kernel's report is only known by its fingerprint, since another one
in the same function is another bug. After its expiry an entry holds no longer, and is told.
"""

import datetime
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from harness.errors import ConfigError
from harness.kernellog_patterns import KERNEL_LOG
from harness.text import printable
from harness.triage import identity_of, place_of
from harness.verdict import Finding

MOST_BYTES = 1 << 20
_TEXTS = ("fingerprint", "rule", "place", "base", "link", "note")
_HINT = "see the beginning of harness/known.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownIssue:
    """One entry of the file; empty words were not given."""

    fingerprint: str = ""
    rule: str = ""
    place: str = ""
    base: str = "*"
    link: str
    # the last day on which it holds
    expires: datetime.date
    note: str = ""

    def matches(self, finding: Finding, base: str) -> bool:
        """Whether the finding, on this base, is the issue; the expiry is not looked at."""
        return self.names(identity_of(finding), finding.rule, place_of(finding), base)

    def names(self, identity: str, rule: str, place: str, base: str) -> bool:
        """The same of a finding of which these are known (harness.triage)."""
        if not fnmatchcase(base, self.base):
            return False
        asked = ((self.fingerprint, identity), (self.rule, rule), (self.place, place))
        return all(word in ("", found) for word, found in asked)

    def remark(self, today: datetime.date, *, seen: bool) -> str:
        """What a person has to be told of it: it expired, or it was not `seen`; or nothing."""
        name = f"the known issue {printable(self.link, 120)}"
        if self.expired(today):
            return f"{name} expired on {self.expires} and holds no longer"
        return "" if seen else f"{name} was not seen; is it fixed?"

    def expired(self, today: datetime.date) -> bool:
        """Whether it holds no longer."""
        return today > self.expires


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorted:
    """Findings by what is known of them; every finding is in exactly one of the first two."""

    new: tuple[Finding, ...]
    known: tuple[tuple[Finding, KnownIssue], ...]
    # entries past their day, those that would have held for a new finding included
    expired: tuple[KnownIssue, ...]
    # entries for this base that hold and were not seen: perhaps fixed
    unseen: tuple[KnownIssue, ...]


def sort_out(
    findings: Iterable[Finding],
    issues: Sequence[KnownIssue],
    *,
    base: str,
    today: datetime.date,
) -> Sorted:
    """Tell new findings from known ones."""
    holding = [issue for issue in issues if not issue.expired(today)]
    new: list[Finding] = []
    known: list[tuple[Finding, KnownIssue]] = []
    for finding in findings:
        issue = next((issue for issue in holding if issue.matches(finding, base)), None)
        if issue:
            known.append((finding, issue))
        else:
            new.append(finding)
    seen = {id(issue) for _, issue in known}
    return Sorted(
        new=tuple(new),
        known=tuple(known),
        expired=tuple(issue for issue in issues if issue.expired(today)),
        unseen=tuple(i for i in holding if id(i) not in seen and fnmatchcase(base, i.base)),
    )


def parse_known(data: bytes, name: str) -> tuple[KnownIssue, ...]:
    """The entries of a file called `name`. Raises ConfigError that names the entry."""
    if len(data) > MOST_BYTES:
        raise ConfigError(f"{name} is larger than {MOST_BYTES >> 20} MiB", hint=_HINT)
    try:
        table = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{name} is no TOML: {printable(str(error))}", hint=_HINT) from error
    entries = table.pop("issue", [])
    if table or not isinstance(entries, list):
        word = printable(next(iter(table), "issue"), 40)
        raise ConfigError(f"{name}: only [[issue]] tables are known, not {word}", hint=_HINT)
    return tuple(_entry(entry, f"{name}: issue {n}") for n, entry in enumerate(entries, 1))


def _entry(entry: object, where: str) -> KnownIssue:
    if not isinstance(entry, dict):
        raise ConfigError(f"{where} is no table", hint=_HINT)
    for key, value in entry.items():
        if key not in (*_TEXTS, "expires"):
            raise ConfigError(f"{where}: {printable(key, 40)} is no word of it", hint=_HINT)
        if key != "expires" and not (isinstance(value, str) and value):
            raise ConfigError(f"{where}: {key} has to be a text", hint=_HINT)
    expires = entry.get("expires")
    if not isinstance(expires, datetime.date) or isinstance(expires, datetime.datetime):
        raise ConfigError(f"{where}: expires has to be a date, such as 2027-03-31", hint=_HINT)
    if "link" not in entry:
        raise ConfigError(f"{where} has no link to what is known of it", hint=_HINT)
    one_bug = "rule" in entry and "place" in entry and entry["rule"] != KERNEL_LOG
    if "fingerprint" not in entry and not one_bug:
        raise ConfigError(
            f"{where} does not stand for one bug",
            hint="give its fingerprint, or rule and place where the rule is not kernel-log",
        )
    texts = {key: printable(entry[key]) for key in _TEXTS if key in entry}
    return KnownIssue(expires=expires, **texts)
