"""Word vectors in a NumPy archive, read a few rows at a time."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, NoReturn

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.preprocessing.vector_files import AHEAD, Row, VectorFile, opened

_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# As Python's strings, words take several times the bytes that they have in the file.
_ROWS = 1024
# NumPy's and zipfile's own; the last are those of a packing or a password unknown to zipfile.
_DAMAGE = (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile, zlib.error, RuntimeError)


class _Array(NamedTuple):
    """What the header of a member of the archive says."""

    shape: tuple[int, ...]
    by_columns: bool
    dtype: np.dtype


class NpzVectors(VectorFile):
    """A NumPy archive, packed or not: the arrays `words` (strings `[N]`), `vectors` (`[N, E]`)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._members() as (words, vectors):
            self._words, self._vectors = _header(words), _header(vectors)
        self._check()
        self.width = self._vectors.shape[1]

    def rows(self) -> Iterator[Row]:
        number = 0
        with self._members() as members:
            for member in members:
                _header(member)
            for count in self._counts():
                words, vectors = (
                    _take(member, array, count)
                    for member, array in zip(members, (self._words, self._vectors), strict=True)
                )
                for word, vector in zip(words.tolist(), vectors, strict=True):
                    number += 1
                    yield Row(number, word, vector)
            # At its end a member's checksum is compared.
            if any(member.read(1) for member in members):
                self._refuse("there is more behind its rows; it is damaged: fetch or make it again")

    def vector(self, row: Row) -> np.ndarray:
        return row.raw

    def _counts(self) -> Iterator[int]:
        """Yields how many rows to take at a time, so that memory does not grow with the file."""
        size = max(array.dtype.itemsize * math.prod(array.shape[1:]) for array in self._arrays())
        left, most = self._words.shape[0], min(_ROWS, AHEAD // size)
        while left:
            yield min(left, most)
            left -= min(left, most)

    def _arrays(self) -> tuple[_Array, _Array]:
        return self._words, self._vectors

    @contextmanager
    def _members(self) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
        """Opens both arrays; what goes wrong with them in the block is told in one line."""
        with opened(self.path) as stream:
            try:
                with (
                    zipfile.ZipFile(stream) as archive,
                    archive.open("words.npy") as words,
                    archive.open("vectors.npy") as vectors,
                ):
                    yield words, vectors
            except KeyError:
                self._refuse("it needs the arrays words [N] and vectors [N, E]: make it again")
            except _DAMAGE:
                self._refuse("it is no .npz, or cut short or damaged: fetch or make it again")

    def _check(self) -> None:
        words, vectors = self._arrays()
        shapes_agree = len(words.shape) == 1 and words.shape == vectors.shape[:1]
        if not shapes_agree or words.dtype.kind != "U" or vectors.dtype.kind != "f":
            self._misfit()
        if len(vectors.shape) != 2 or not vectors.shape[1] or not words.dtype.itemsize:
            self._misfit()
        if vectors.by_columns:
            self._refuse(
                "its vectors are stored by columns: save np.ascontiguousarray(vectors) instead"
            )
        if max(words.dtype.itemsize, vectors.dtype.itemsize * vectors.shape[1]) > AHEAD:
            self._refuse(f"a row has more than {AHEAD:,} bytes: make it again")

    def _misfit(self) -> NoReturn:
        words, vectors = self._arrays()
        self._refuse(
            f"it holds {words.dtype.name} {words.shape} and {vectors.dtype.name} {vectors.shape} "
            "in place of words [N], which are text, and vectors [N, E], which are floats: make "
            "it again"
        )

    def _refuse(self, why: str) -> NoReturn:
        raise UserError(f"{self.path} is not a file of word vectors: {why}") from None


def _header(member: IO[bytes]) -> _Array:
    """Reads the header of an array and leaves the member at its first row."""
    version = np.lib.format.read_magic(member)
    if version not in _READERS:
        raise ValueError(f"unknown version {version}")
    return _Array(*_READERS[version](member))


def _take(member: IO[bytes], array: _Array, count: int) -> np.ndarray:
    """Reads the next rows."""
    shape = (count, *array.shape[1:])
    contents = member.read(math.prod(shape) * array.dtype.itemsize)
    # Of too few bytes NumPy makes another shape, or none.
    return np.frombuffer(contents, array.dtype).reshape(shape)
