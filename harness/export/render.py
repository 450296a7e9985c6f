# SPDX-License-Identifier: GPL-2.0-or-later
"""A night in any of the forms, as bytes to write."""

import json

from harness.export.junit import junit
from harness.export.kcidb import kcidb
from harness.export.ktap import ktap
from harness.export.mail import mail, subject
from harness.history.records import Night

FORMS = ("mail", "junit", "ktap", "kcidb")


def render(form: str, night: Night, before: Night | None, *, origin: str) -> bytes:
    """The night in one of FORMS; `before` is for the mail, `origin` for KCIDB.

    Raises ConfigError for an origin that cannot be one.
    """
    if form == "junit":
        return junit(night)
    if form == "ktap":
        return ktap(night).encode()
    if form == "kcidb":
        return (json.dumps(kcidb(night, origin), indent=2) + "\n").encode()
    return f"Subject: {subject(night, before)}\n\n{mail(night, before)}".encode()
