"""Files and folders that must be there, with errors that say what to give."""

from __future__ import annotations

from pathlib import Path

from tf_dpce.errors import UserError


def existing_folder(path: Path, remedy: str) -> Path:
    """Returns the absolute path of a folder.

    Raises:
        UserError: it is no folder; the message ends in `remedy`.
    """
    if not path.is_dir():
        raise UserError(f"{path} is not a folder: {remedy}")
    return path.resolve()


def existing_file(path: Path, remedy: str) -> Path:
    """Returns the path of a file.

    Raises:
        UserError: it is no file; the message ends in `remedy`.
    """
    if not path.is_file():
        raise UserError(f"{path} is not a file: {remedy}")
    return path
