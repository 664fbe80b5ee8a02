"""Word vectors as text: GloVe's form, and word2vec's."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.preprocessing.vector_files import (
    AHEAD,
    Row,
    VectorFile,
    decode_word,
    opened,
    read_counts,
)


class TextVectors(VectorFile):
    """A word and E numbers a line, with single spaces between: GloVe's form.

    Where the first line is two whole numbers, they are N and E, and N lines follow: word2vec's
    form. Words may hold spaces, as a few of GloVe 840B do, but no number of their own behind one:
    such a line counts as one of another width.

    A last line without a line end may be whole, as some programs leave it, or cut in its last
    number. It is refused where this number ends in no digit, and told as a `doubt` elsewhere.
    """

    unit = "line"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._unended = False
        number, first = next(self._lines(), (1, b""))
        self._count: int | None = None
        if counts := read_counts(path, first):
            self._count, self.width = counts
        else:
            numbers = takewhile(_is_number, reversed(first.split(b" ")[1:]))
            self.width = sum(1 for _ in numbers)
            self._split(number, first)

    def rows(self) -> Iterator[Row]:
        lines, found = self._lines(), 0
        if self._count is not None:
            next(lines)
        for number, line in lines:
            found += 1
            yield self._split(number, line)
        if self._count not in (None, found):
            raise self._damage(f"promises {self._count} vectors and holds {found}")
        if self._unended:
            if not line[-1:].isdigit():
                raise self._damage(f"ends within a number of line {number}")
            self.doubt = (
                f"{self.path} has no line end behind its last line, {number}: if the file was cut "
                "there, words are missing and the last number is another: fetch it again, or "
                "compare its size with its origin's"
            )

    def vector(self, row: Row) -> np.ndarray:
        try:
            return np.array([float(number) for number in row.raw.split(b" ")])
        except ValueError:
            raise self._misfit(row.number) from None

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with opened(self.path) as stream:
            # No more at a time: what is no text may have no line ends.
            lines = iter(lambda: stream.readline(AHEAD), b"")
            for number, line in enumerate(lines, start=1):
                self._unended = not line.endswith(b"\n")
                # word2vec leaves a space at the end of each line.
                if line := line.rstrip(b" \r\n"):
                    yield number, line

    def _split(self, number: int, line: bytes) -> Row:
        word, _, raw = line.partition(b" ")
        if not self.width or line.count(b" ") != self.width:
            fields = line.rsplit(b" ", self.width)
            word = fields[0]
            spaced = any(map(_is_number, word.split(b" ")[1:]))
            if not self.width or len(fields) <= self.width or spaced:
                raise self._misfit(number)
            raw = line[len(word) + 1 :]
        return Row(number, decode_word(word), raw)

    def _misfit(self, number: int) -> UserError:
        return self._damage(f"line {number} is not a word and {self.width or 'its'} numbers")

    def _damage(self, what: str) -> UserError:
        return UserError(
            f"{self.path} {what}: it is cut short or damaged: fetch it again; or it is in "
            "word2vec's binary form, which is known by the ending .bin: name it so"
        )


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True
