"""Text files, line by line, with errors that name file and line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tf_dpce.errors import UserError


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the number (from 1) and text of each line that is not blank.

    A byte-order mark and the ends of lines are taken off.

    Raises:
        UserError: the file is missing or a line is not UTF-8.
    """
    try:
        with path.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                line = decode_line(path, number, raw)
                if line.strip():
                    yield number, line
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{path} is not a file") from None


def decode_line(path: Path, number: int, raw: bytes) -> str:
    """Returns a line without its end; `number` counts from 1.

    Raises:
        UserError: the bytes are not UTF-8.
    """
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise UserError(f"{path} line {number} is not UTF-8: save the file as UTF-8") from None
