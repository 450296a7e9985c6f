# SPDX-License-Identifier: GPL-2.0-or-later
import datetime

import pytest

from harness.errors import ConfigError
from harness.kernellog import scan
from harness.known import KnownIssue, Sorted, parse_known, sort_out
from harness.triage import function_name, identity_of, place_of, title_of
from harness.verdict import Finding, Severity, Site

TODAY = datetime.date(2026, 11, 23)
BASE = "linux-source-6.12"
LOG = b"[    2.000010] WARNING: CPU: 0 PID: 80 at kernel/dma/direct.c:%d %s+0x%x/0x90\n"
(WARNING,) = scan(LOG % (333, b"dma_direct_free", 0x5C))


def cache_flush(caller: str, *, address: int = 16, page: int = 4096) -> Finding:
    return Finding(
        rule="guest-cache-flush",
        severity=Severity.FAIL,
        summary="dirty",
        gpa=page,
        direction="private to shared",
        site=Site(address=address, symbol="__tdcall+0x4/0x9"),
        conversion_site=Site(address=address + 1, symbol=f"{caller}+{address:#x}/0x100"),
    )


def entry(**words: str) -> bytes:
    words = {"link": "https://example.org/1", **words}
    body = "".join(f'{key} = "{value}"\n' for key, value in words.items())
    return f"[[issue]]\n{body}expires = 2026-12-31\n".encode()


def sort(findings: list[Finding], *files: bytes, today: datetime.date = TODAY) -> Sorted:
    return sort_out(findings, parse_known(b"".join(files), "known.toml"), base=BASE, today=today)


def test_the_same_bug_elsewhere_in_memory_is_the_same() -> None:
    here, there = cache_flush("f.constprop.0"), cache_flush("f", address=99, page=8192)
    assert identity_of(here) == identity_of(there)
    assert identity_of(here) != identity_of(cache_flush("g"))
    assert place_of(here) == "f"
    assert title_of(here) == "guest-cache-flush in f, to shared"


def test_a_kernels_report_is_known_by_its_fingerprint() -> None:
    (moved,) = scan(LOG % (340, b"dma_direct_free.isra.0", 0x66))
    (other,) = scan(LOG % (333, b"dma_direct_alloc", 0x5C))
    assert identity_of(moved) == identity_of(WARNING) == WARNING.extra["fingerprint"]
    assert identity_of(other) != identity_of(WARNING)
    assert place_of(WARNING) == "dma_direct_free"
    assert title_of(WARNING) == "WARNING in dma_direct_free"


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("f.isra.0.cold+0x1/0x2 [m]", "f"),
        ("__pi_f+0x1/0x2", "__pi_f"),
        ("f.part.0", "f"),
        ("0xffff", ""),
        ("", ""),
    ],
)
def test_function_name(symbol: str, name: str) -> None:
    assert function_name(symbol) == name


def test_what_is_known_is_carried_over_and_the_rest_is_new() -> None:
    findings = [WARNING, cache_flush("f"), cache_flush("g")]
    known = entry(rule="guest-cache-flush", place="f", note="since 6.9")
    found = sort(findings, known, entry(fingerprint=identity_of(WARNING)))
    assert found.new == (findings[2],)
    assert [(finding, issue.note) for finding, issue in found.known] == [
        (WARNING, ""),
        (findings[1], "since 6.9"),
    ]
    assert not found.expired
    assert not found.unseen


def test_an_entry_holds_for_its_base_only() -> None:
    known = entry(rule="guest-cache-flush", place="f", base="linux-source-7*")
    found = sort([cache_flush("f")], known)
    assert len(found.new) == 1
    assert not found.unseen
    assert not sort([cache_flush("f")], known.replace(b"7*", b"6.*")).new


def test_all_that_an_entry_says_has_to_fit() -> None:
    known = entry(fingerprint=identity_of(cache_flush("f")), place="g")
    assert len(sort([cache_flush("f")], known).new) == 1


def test_an_expired_entry_hides_nothing_and_is_told() -> None:
    known = entry(rule="guest-cache-flush", place="f")
    last = datetime.date(2026, 12, 31)
    assert not sort([cache_flush("f")], known, today=last).new
    found = sort([cache_flush("f")], known, today=last + datetime.timedelta(days=1))
    assert len(found.new) == 1
    assert len(found.expired) == 1
    assert not found.unseen


def test_an_entry_that_was_not_seen_is_told() -> None:
    found = sort([], entry(rule="guest-cache-flush", place="f"))
    assert [issue.place for issue in found.unseen] == ["f"]


def test_an_empty_file_knows_nothing() -> None:
    assert parse_known(b"", "known.toml") == ()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[[issue]\n", "no TOML"),
        (b"\xff", "no TOML"),
        (b"a = " + b"[" * 5000, "no TOML"),
        (b"[[bug]]\n", "not bug"),
        (b"issue = 3\n", "not issue"),
        (b"issue = [3]\n", "issue 1 is no table"),
        (entry(fingerprint="a", fingerprnt="b"), "fingerprnt is no word"),
        (entry(fingerprint=""), "fingerprint has to be a text"),
        (entry(rule="guest-cache-flush"), "does not stand for one bug"),
        (entry(rule="kernel-log", place="f"), "does not stand for one bug"),
        (entry(fingerprint="a") + entry(place="f"), "issue 2 does not stand for one bug"),
        (b'[[issue]]\nfingerprint="a"\nlink="b"\n', "expires has to be a date"),
        (b'[[issue]]\nfingerprint="a"\nlink="b"\nexpires="soon"\n', "expires has to be a date"),
        (b'[[issue]]\nfingerprint="a"\nexpires=2026-12-31\n', "has no link"),
        (b" " * (2 << 20), "larger than 1 MiB"),
    ],
)
def test_what_is_wrong_with_the_file_is_said(data: bytes, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_known(data, "known.toml")


def test_text_of_the_file_is_escaped() -> None:
    (issue,) = parse_known(entry(fingerprint="a", note="x\\u001b[31m"), "known.toml")
    assert isinstance(issue, KnownIssue)
    assert issue.note == "x\\x1b[31m"
