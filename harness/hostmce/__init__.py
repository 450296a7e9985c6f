# SPDX-License-Identifier: GPL-2.0-or-later
"""Machine checks of a host: decoded, gathered from all sources, and made findings."""
