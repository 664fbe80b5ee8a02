"""Exceptions that are not bugs: a mistake that the user can mend, and work that was stopped."""

from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path, PurePath


class UserError(Exception):
    """A mistake that the user can mend.

    Every verb prints the message in one line, without a traceback, and exits with status 1.
    `docs/troubleshooting.md` lists every code with its cause and its remedy.

    Args:
        code: stable name of the mistake, `AREA.WHAT`, such as "config.batch_size". Programs and
            tests rely on it; the message may change.
        message: one line that says what was wrong and what to do.
        path: the file or folder that is wrong, or its address.
        line: line of that file, counted from 1.

    Example:
        >>> error = UserError("table.columns", "pairs.csv has no column caption", "pairs.csv", 1)
        >>> error.code, str(error), error.line
        ('table.columns', 'pairs.csv has no column caption', 1)
    """

    def __init__(
        self, code: str, message: str, path: PurePath | str | None = None, line: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        # A `Path` would make one slash of the two in an address.
        here = path is not None and "://" not in str(path)
        self.path = Path(path) if here else path and str(path)
        self.line = line


class Stopped(Exception):
    """Work that was asked to stop, saved what it had done, and can be resumed.

    The message is one line: where it stopped, and how to resume.
    """


def shorten(text: object, limit: int = 80) -> str:
    """Returns a foreign text in one line, fit to stand in a message.

    A message must not flood a terminal or steer it: control characters, line ends and halves of
    characters are escaped, and the end of a long text is dropped.

    Args:
        text: any value; what is no text is shown as `repr` shows it.
        limit: the largest number of characters that are returned.

    Example:
        >>> shorten("two\\nlines"), shorten("a" * 99, limit=8)
        ('two\\\\nlines', 'aaaaa...')
    """
    # Escapes make a text longer and never shorter, so that no more of it is needed.
    text = text[: limit + 1] if isinstance(text, str) else repr(text)
    text = "".join(map(_escape, text[: limit + 1]))
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _escape(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode()


# Faults of the machine or of a path, and their remedies. Any other `OSError` is a bug.
_ROOM, _RIGHT = "make room there", "change its permissions"
_SYSTEM_FAULTS = {
    errno.EACCES: _RIGHT,
    errno.EADDRINUSE: "choose another port",
    errno.EDQUOT: _ROOM,
    errno.EEXIST: "choose another name",
    errno.EFBIG: "raise the limit of a file's size",
    errno.EIO: "check the disk",
    errno.EISDIR: "name a file",
    errno.EMFILE: "raise the limit of open files",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "check the name",
    errno.ENOSPC: _ROOM,
    errno.ENOTDIR: "name a folder",
    errno.EPERM: _RIGHT,
    errno.EROFS: _RIGHT,
}
_GRAPH_NOTES = re.compile(r"\{\{.*?\}\} | \[Op:\w+\]")  # TensorFlow's names of its own nodes


def explain_system_error(error: Exception, then: str = "") -> UserError | None:
    """Turns a fault of the machine or of a path into a line for the user.

    TensorFlow raises errors of its own for a full disk or a read-only folder, with the words of
    the system in them.

    Args:
        error: an exception of any kind.
        then: what to do once the fault is mended.

    Returns:
        The mistake with its remedy, or None if the exception is a bug.

    Example:
        >>> error = OSError(errno.ENOSPC, "No space left on device", "a.npz")
        >>> str(explain_system_error(error, "run the command again"))
        'a.npz: No space left on device: make room there, then run the command again'
    """
    tensorflow = sys.modules.get("tensorflow")
    path, number = None, None
    if isinstance(error, OSError):
        path, number = error.filename, error.errno
        line = f"{path}: {error.strerror}" if path else error.strerror
    elif tensorflow is not None and isinstance(error, tensorflow.errors.OpError):
        line = _GRAPH_NOTES.sub("", " ".join(error.message.split()))
        number = next((n for n in _SYSTEM_FAULTS if os.strerror(n) in line), None)
    if number not in _SYSTEM_FAULTS:
        return None
    steps = ", then ".join(filter(None, (_SYSTEM_FAULTS[number], then)))
    return UserError("system.file", f"{line}: {steps}", path)
