# SPDX-License-Identifier: GPL-2.0-or-later
"""The machines of a lab: which there are, how each is reached, and who has it now."""
