"""Files of word vectors, row by row: what all have in common, and word2vec's binary form."""

from __future__ import annotations

import gzip
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from tf_dpce.errors import UserError

_COUNTS = re.compile(rb"(\d{1,18}) (\d{1,18})")
# No word vector is wider; it keeps what a damaged header asks for within bounds.
_WIDEST = 2**16
# Bytes read at a time. A row of the widest binary vectors and a long word fit in.
AHEAD = 2**19


class Row(NamedTuple):
    """A word and its vector, as it stands in the file; `number` counts from 1."""

    number: int
    word: str
    raw: Any


class VectorFile(ABC):
    """A file of word vectors; reading its rows keeps none of them.

    Attributes:
        path: of the file.
        width: E, the number of numbers in a vector.
        unit: what `Row.number` counts.
        doubt: once all rows were read, a line on what may be missing; empty where nothing is.
    """

    path: Path
    width: int
    unit = "row"
    doubt = ""

    @abstractmethod
    def rows(self) -> Iterator[Row]:
        """Yields all rows, from the first.

        Raises:
            UserError: the file is cut short or damaged.
        """

    @abstractmethod
    def vector(self, row: Row) -> np.ndarray:
        """Returns the floats `[E]` of a row, finite or not.

        Raises:
            UserError: they are no numbers.
        """


class BinaryVectors(VectorFile):
    """word2vec's binary form: a line `N E`; then N times word, space, E little-endian float32.

    A line feed may close each row, as the original program writes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with opened(path) as stream:
            counts = read_counts(path, stream.readline(100).strip())
        if not counts:
            raise UserError(
                f"{path} is not word2vec's binary form: it does not begin with counts: fetch it "
                "again, or name it .txt if it is text"
            )
        self._count, self.width = counts

    def rows(self) -> Iterator[Row]:
        size = 4 * self.width
        with opened(self.path) as stream:
            stream.readline()
            ahead, place = b"", 0
            for number in range(1, self._count + 1):
                space = ahead.find(b" ", place)
                if space < 0 or len(ahead) - space <= size:
                    ahead, place = ahead[place:] + stream.read(AHEAD), 0
                    space = ahead.find(b" ")
                    if space < 0 or len(ahead) - space <= size:
                        raise self._damage(f"row {number} of {self._count} is not whole")
                word = ahead[place:space].lstrip(b"\n")
                place = space + 1 + size
                yield Row(number, decode_word(word), ahead[space + 1 : place])
            if (ahead[place:] + stream.read(2)).strip(b"\n"):
                raise self._damage(f"there is more behind its {self._count} rows")

    def vector(self, row: Row) -> np.ndarray:
        return np.frombuffer(row.raw, "<f4")

    def _damage(self, what: str) -> UserError:
        return UserError(
            f"{self.path} is cut short, or not word2vec's binary form: {what}: fetch it again"
        )


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Opens a file, unpacking it on the way where its name ends in `.gz`.

    Raises:
        UserError: it is missing, a folder, or, during the block, cannot be unpacked.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist: give a file of word vectors")
    if path.is_dir():
        raise UserError(f"{path} is not a file of word vectors: it is a folder")
    packed = path.suffix.lower() == ".gz"
    with gzip.open(path) if packed else path.open("rb") as stream:
        try:
            yield stream
        except (EOFError, gzip.BadGzipFile, zlib.error):
            if not packed:
                raise
            raise UserError(
                f"{path} cannot be unpacked past byte {stream.tell()} of its contents: "
                "it is cut short, or not packed by gzip: fetch it again"
            ) from None


def read_counts(path: Path, line: bytes) -> tuple[int, int] | None:
    """Returns N and E where they are all that a first line, without its end, says.

    Raises:
        UserError: they cannot be those of word vectors.
    """
    match = _COUNTS.fullmatch(line)
    if not match:
        return None
    count, width = int(match[1]), int(match[2])
    if not count or not 0 < width <= _WIDEST:
        raise UserError(f"{path} promises {count} vectors of {width} numbers: fetch it again")
    return count, width


def decode_word(word: bytes) -> str:
    """Returns a word; one that is not UTF-8, as a few of large files, equals no other."""
    return word.decode(errors="surrogateescape")
