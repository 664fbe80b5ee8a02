"""The one exception that means "the user can mend this"."""

from __future__ import annotations


class UserError(Exception):
    """A mistake that the user can mend.

    The message is one line: what was wrong, which file and line, and what to do.
    Every verb prints it alone, without a traceback, and exits with status 1.
    """
