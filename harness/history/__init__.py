# SPDX-License-Identifier: GPL-2.0-or-later
"""What ran in which night, and what was found: records, their storage, and trends."""
