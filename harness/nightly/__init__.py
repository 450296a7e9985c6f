# SPDX-License-Identifier: GPL-2.0-or-later
"""A matrix of kernels and guests, run within a budget night after night, and judged."""
