# SPDX-License-Identifier: GPL-2.0-or-later
"""One mail to one patch: decoded by git itself, so that what is checked is what is applied."""

import re
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.errors import ConfigError
from harness.git import git
from harness.series.diff import touched
from harness.series.patch import Numbers, Patch, numbers, title, trailers
from harness.text import printable

MOST_MAIL_BYTES = 8 << 20
MOST_MAILS = 1000
_SHOWN = 200
_BEGIN = b"From git@z Thu Jan  1 00:00:00 1970\n"
_ID = re.compile(r"<([^<>\s]{1,400})>")


@dataclass(frozen=True, slots=True)
class Decoded:
    """A mail as `git am` sees it; the subject has its brackets."""

    subject: str
    # "" without one
    author: str
    message_id: str | None
    message: str
    patch: bytes


def read_patch(text: bytes, name: str) -> tuple[Numbers, Patch]:
    """The patch in a mail, and its numbers. `name` is for errors and becomes the patch's.

    Raises ConfigError with the reason when it is none, or one that is refused.
    """
    if not text.startswith((b"From ", b"From: ")):
        # Else `git am` guesses a format, and one of them names other files to be read.
        text = _BEGIN + text
    mail = decode(text, name)
    try:
        if not mail.author:
            raise ConfigError("it has no sender, so it is no mail of git format-patch")
        files = touched(mail.patch)
    except ConfigError as error:
        raise ConfigError(f"{name} is refused: {error.message}", hint=error.hint) from error
    patch = Patch(
        name=name,
        subject=title(mail.subject),
        author=mail.author,
        message_id=mail.message_id,
        text=text,
        files=files,
        trailers=trailers(mail.message),
    )
    return numbers(mail.subject) or Numbers(), patch


def decode(text: bytes, name: str) -> Decoded:
    """What git makes of a mail. Raises ConfigError."""
    if len(text) > MOST_MAIL_BYTES:
        raise ConfigError(f"{name} is refused: it is larger than {MOST_MAIL_BYTES >> 20} MiB")
    if b"\0" in text:
        raise ConfigError(f"{name} is refused: it holds NUL bytes, so it is no mail")
    with TemporaryDirectory(prefix="tdharness-mail-") as place:
        return _decode(text, name, Path(place))


def _decode(text: bytes, name: str, place: Path) -> Decoded:
    mail, message, patch = (place / part for part in ("mail", "message", "patch"))
    mail.write_bytes(text)
    # `git am` splits first: what was decoded as one mail must not become two there.
    if len(split(mail, place / "split")) != 1:
        raise ConfigError(f"{name} is refused: it holds a line that begins another mail")
    words = ("mailinfo", "-k", "--no-scissors", message, patch)
    result = git(place, *words, check=False, stdin=mail)
    if result.returncode:
        said = result.stderr.strip().splitlines()[-1:] or ["no word"]
        raise ConfigError(f"{name} is refused: git cannot decode it: {printable(said[0], _SHOWN)}")
    facts = dict(line.partition(": ")[::2] for line in result.stdout.splitlines())
    found = BytesHeaderParser().parsebytes(text[: 1 << 16]).get("Message-Id", "")
    identity = _ID.search(str(found))
    author = f"{facts.get('Author', '')} <{facts['Email']}>" if facts.get("Email") else ""
    return Decoded(
        printable(facts.get("Subject", ""), 1000),
        printable(author, _SHOWN),
        printable(identity[1], 400) if identity else None,
        message.read_text(errors="replace"),
        patch.read_bytes(),
    )


def split(mbox: Path, place: Path) -> list[Path]:
    """The mails of a file as git tells them apart. Raises ConfigError when they are too many."""
    place.mkdir()
    result = git(mbox.parent, "mailsplit", "-b", "-d6", f"-o{place}", mbox, check=False)
    if result.returncode:
        said = result.stderr.strip().splitlines()[-1:] or ["no word"]
        raise ConfigError(f"{mbox.name} is no mailbox: {printable(said[0], _SHOWN)}")
    found = sorted(place.iterdir())
    if len(found) > MOST_MAILS:
        raise ConfigError(f"{mbox.name} holds {len(found)} mails, more than {MOST_MAILS}")
    return found
