# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest traces of its own conversions, and what can be told from that; pure."""

from harness.guesttrace.agree import Agreement, agreement
from harness.guesttrace.model import Trace, read

__all__ = ["Agreement", "Trace", "agreement", "read"]
