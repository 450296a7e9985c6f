# SPDX-License-Identifier: GPL-2.0-or-later
"""Threads as a list archive has them: b4 finds the patches and the trailers of the replies.

The command, not the library: its options are documented and b4 keeps them, while its classes have
changed with nearly every release; and what a hostile mail does to it (a crash, a flood, no end)
happens to a process that is watched. It runs without the network, unless asked to fetch, and
without the configuration of the user and of the directory.
"""

import re
import sys
from collections import Counter
from email.header import decode_header, make_header
from email.parser import BytesHeaderParser
from itertools import pairwise
from pathlib import Path

from harness import proc
from harness.errors import ConfigError, HostError
from harness.git import environment
from harness.series.mail import MOST_MAIL_BYTES, MOST_MAILS, decode
from harness.series.patch import numbers, title
from harness.text import printable

READ_TIMEOUT_S = 120.0
FETCH_TIMEOUT_S = 120.0
_MOST_HEAD = 1 << 16
_MOST_NOTES = 20
# b4 makes a file name of it.
_MOST_SUBJECT = 240
_BEGINS = re.compile(rb"(?m)^From \S")
_OFFLINE = ("--offline-mode",)
_HINT = "pip install b4"
_HINT_FETCH = "download the thread's mailbox from the list's archive, and name the file"
# What a person has to know of what b4 did, among what it says of its work.
_WARNING = re.compile(r"\s*(?:WARNING|ERROR|CRITICAL): (.*)")
_LEFT_OUT = re.compile(r"\s*! Trailer: (.*)")


def versions(mbox: bytes, name: str) -> dict[int, int]:
    """How many mails of each version of the series a thread has, by subjects that are no replies.

    In order of the versions. Raises ConfigError when the thread is too long, or one of its mails
    or subjects too large.
    """
    starts = [match.start() for match in _BEGINS.finditer(mbox)]
    if len(starts) > MOST_MAILS:
        raise ConfigError(f"{name} is refused: it holds {len(starts)} mails, over {MOST_MAILS}")
    found: Counter[int] = Counter()
    for start, end in pairwise([*starts, len(mbox)]):
        if end - start > MOST_MAIL_BYTES:
            most = MOST_MAIL_BYTES >> 20
            raise ConfigError(f"{name} is refused: one of its mails is larger than {most} MiB")
        text = subject(mbox[start:end].partition(b"\n")[2])
        if said := numbers(text):
            found[said.version] += 1
            if len(text.encode(errors="replace")) > _MOST_SUBJECT:
                raise ConfigError(f"{name} is refused: a subject is over {_MOST_SUBJECT} bytes")
    return dict(sorted(found.items()))


def subject(mail: bytes) -> str:
    """The subject of a mail, decoded."""
    raw = str(BytesHeaderParser().parsebytes(mail[:_MOST_HEAD]).get("Subject", ""))
    try:
        return str(make_header(decode_header(raw)))
    except (LookupError, ValueError):
        return raw


def patches(mbox: Path, version: int, name: str) -> tuple[list[bytes], str | None, list[str]]:
    """The patches of one version, with the trailers of the replies; its cover letter; notes.

    The mailbox's directory is b4's to write in; `name` is for errors. Raises ConfigError when b4
    finds none, HostError without b4.
    """
    place = mbox.parent
    words = ("am", "-m", mbox, "-v", str(version), "--save-as-maildir", "-o", place / "out")
    result = _b4(*_OFFLINE, *words, "--mbox-name", "series", place=place, timeout_s=READ_TIMEOUT_S)
    found = sorted((place / "out/series.maildir/new").glob("*"))
    if result.returncode or not found:
        raise ConfigError(f"b4 finds no patches of v{version} in {name}: {_why(result)}")
    cover = place / "out/series.cover"
    letter = cover_letter(cover.read_bytes()) if cover.is_file() else None
    return [path.read_bytes() for path in found], letter, _notes(result.stderr + result.stdout)


def _notes(said: str) -> list[str]:
    notes = []
    for line in said.splitlines():
        if match := _WARNING.match(line):
            notes.append(f"b4 warns: {printable(match[1], 200)}")
        elif match := _LEFT_OUT.match(line):
            what = printable(match[1], 200)
            notes.append(f"left out, for somebody else sent it: {what}")
    return notes[:_MOST_NOTES]


def fetch(identity: str, place: Path) -> Path:
    """The thread of a message id, as b4 downloads it. Raises HostError when it cannot."""
    words = ("mbox", "-o", place, "--mbox-name", "thread.mbox", identity)
    what = f"cannot fetch the thread of {printable(identity)}"
    try:
        result = _b4(*words, place=place, timeout_s=FETCH_TIMEOUT_S)
    except HostError as error:
        raise HostError(f"{what}: {error.message}", hint=error.hint or _HINT_FETCH) from error
    found = place / "thread.mbox"
    if result.returncode or not found.is_file():
        raise HostError(f"{what}: b4 said: {_why(result)}", hint=_HINT_FETCH)
    return found


def _b4(*words: str | Path, place: Path, timeout_s: float) -> proc.Result:
    home = place / "home"
    home.mkdir(exist_ok=True)
    own = {f"XDG_{kind}_HOME": str(home) for kind in ("CONFIG", "DATA", "CACHE", "STATE")}
    env = {**environment(), **own, "HOME": str(home), "GIT_CEILING_DIRECTORIES": str(place.parent)}
    # Keys and DNS are asked for nothing here: who signed a patch is not what is tested.
    settings = ("--no-interactive", "--no-stdin", "-c", "b4.attestation-policy=off")
    # -P: a mail's directory is no place for modules.
    argv = (sys.executable, "-P", "-m", "b4.command", *settings, *words)
    result = proc.run(argv, timeout_s=timeout_s, cwd=place, env=env, check=False, hint=_HINT)
    if result.returncode and "No module named b4" in result.stderr:
        raise HostError("b4 is not installed", hint=_HINT)
    return result


def _why(result: proc.Result) -> str:
    """What b4 warned of first, or said last."""
    lines = [line.strip() for line in (result.stdout + result.stderr).splitlines()]
    said = [line for line in lines if line.strip("-") and not line.startswith("Running in OFFLINE")]
    warned = [match[1] for line in said if (match := _WARNING.match(line))]
    return printable([*warned, *said[-1:], "it said nothing"][0], 300)


def cover_letter(text: bytes) -> str:
    """The subject and the text of a cover letter. Raises ConfigError when it is no mail."""
    mail = decode(text, "the cover letter")
    return f"{title(mail.subject)}\n\n{mail.message.strip()}"
