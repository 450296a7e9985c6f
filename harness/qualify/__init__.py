# SPDX-License-Identifier: GPL-2.0-or-later
"""The qualification of a host: what it has to do before guests of the lab are trusted to it."""
