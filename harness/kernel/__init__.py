# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel under test: what it is, and the test module built for it."""
