# SPDX-License-Identifier: GPL-2.0-or-later
"""Patch series: read and checked, their results compared, the patch that brings a bug found."""
