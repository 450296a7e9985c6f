# SPDX-License-Identifier: GPL-2.0-or-later
"""The pytest plugin: options and fixtures of the suites that boot guests."""
