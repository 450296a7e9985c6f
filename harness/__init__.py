# SPDX-License-Identifier: GPL-2.0-or-later
"""Test harness for the memory conversions of Intel TDX guests."""

__version__ = "0.1.0"
