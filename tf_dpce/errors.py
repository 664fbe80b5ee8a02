"""The exceptions that are no bugs: "the user can mend this", and "stopped as asked"."""

from __future__ import annotations


class UserError(Exception):
    """A mistake that the user can mend.

    The message is one line: what was wrong, which file and line, and what to do.
    Every verb prints it alone, without a traceback, and exits with status 1.
    """


class Stopped(Exception):
    """Work that was asked to stop, has kept what was done, and can go on later.

    The message is one line: where it stopped, and how to go on.
    """
