# SPDX-License-Identifier: GPL-2.0-or-later
"""A night as other tools and people read it: JUnit, KTAP, KCIDB, mail; pure functions."""
