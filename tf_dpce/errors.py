"""Exceptions that are not bugs: a mistake that the user can mend, and work that was stopped."""

from __future__ import annotations

from pathlib import Path


class UserError(Exception):
    """A mistake that the user can mend.

    Every verb prints the message in one line, without a traceback, and exits with status 1.
    `docs/troubleshooting.md` lists every code with its cause and its remedy.

    Args:
        code: stable name of the mistake, `AREA.WHAT`, such as "config.batch_size". Programs and
            tests rely on it; the message may change.
        message: one line that says what was wrong and what to do.
        path: the file or folder that is wrong.
        line: line of that file, counted from 1.

    Example:
        >>> error = UserError("table.columns", "pairs.csv has no column caption", "pairs.csv", 1)
        >>> error.code, str(error), error.line
        ('table.columns', 'pairs.csv has no column caption', 1)
    """

    def __init__(
        self,
        code: str,
        message: str | None = None,
        path: Path | str | None = None,
        line: int | None = None,
    ) -> None:
        # For raise statements that name no code yet; gone once all do.
        if message is None:
            code, message = "unknown", code
        super().__init__(message)
        self.code = code
        self.message = message
        self.path = None if path is None else Path(path)
        self.line = line


class Stopped(Exception):
    """Work that was asked to stop, saved what it had done, and can be resumed.

    The message is one line: where it stopped, and how to resume.
    """
