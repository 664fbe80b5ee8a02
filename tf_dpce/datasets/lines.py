"""Text files, line by line, and their characters, with errors that name file and line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tf_dpce.errors import UserError


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the number (from 1) and text of each line that is not blank, without its end.

    Raises:
        UserError: the file is missing or a line is not UTF-8.
    """
    for number, line in read_raw_lines(path):
        if line.strip():
            yield number, line.rstrip("\r\n")


def read_raw_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the number (from 1) and text of each line with its end; a byte-order mark is dropped.

    Raises:
        UserError: the file is missing or a line is not UTF-8.
    """
    if not path.is_file():
        raise UserError(f"{path} is not a file: name one that is there")
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise UserError(f"{path} line {number} is not UTF-8: save it as UTF-8") from None


def whole_characters(text: str, where: str) -> str:
    """Returns text that UTF-8 can hold: JSON can escape half of a character.

    Raises:
        UserError: there is half a character; the message begins with `where` it stands.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise UserError(f"{where} has half a character, {half}: mend the line") from None
    return text
