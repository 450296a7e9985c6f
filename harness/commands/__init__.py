# SPDX-License-Identifier: GPL-2.0-or-later
"""What the commands of the command line do, in terms of the layers below; a module a kind.

What boots guests is imported by the commands that do: judging has to be quick.
"""
