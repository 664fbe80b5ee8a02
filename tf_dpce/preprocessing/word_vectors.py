"""Word vectors from a file, to initialise the word embedding.

The name tells the form: `.npz` is a NumPy archive with the arrays `words` (strings `[N]`) and
`vectors` (floats `[N, E]`); `.bin` is word2vec's binary form; anything else is text, GloVe's or
word2vec's. A further `.gz` behind the latter two is unpacked on the way. Files are read as
streams: only the words that are asked for are in memory.
"""

from __future__ import annotations

import gzip
import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import takewhile
from pathlib import Path
from typing import IO, Any

import numpy as np

from tf_dpce.errors import UserError

_COUNTS = re.compile(rb"(\d{1,18}) (\d{1,18})")
# No word vector is wider; it keeps what a damaged header asks for within bounds.
_WIDEST = 2**16
# Bytes read at a time. A row of the widest binary vectors and a long word fit in.
_AHEAD = 2**19
# Rows of an archive read at a time: as Python's strings, words take several times their bytes.
_ROWS = 1024
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# NumPy's and zipfile's own; the last are those of a packing or a password unknown to zipfile.
_DAMAGE = (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile, zlib.error, RuntimeError)


class WordVectors:
    """A file of word vectors. Opening it reads no more than its first row or header.

    Attributes:
        path: the file.
        width: E, the number of numbers in a vector.
        doubt: once the file was read, a line on what may be missing; empty if nothing is.

    Raises:
        UserError: the file is missing or has another form.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.doubt = path, ""
        name = path.name.lower()
        self._is_text = False
        # Each reader yields E first, then the number (from 1), word and vector of every row.
        self._read = self._read_npz
        if name.endswith((".bin", ".bin.gz")):
            self._read = self._read_binary
        elif not name.endswith(".npz"):
            self._read, self._is_text = self._read_text, True
        with closing(self._read()) as reader:
            self.width: int = next(reader)

    def look_up(
        self, words: Sequence[str], lowercase: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Reads the file and returns the vectors of some words.

        A word has the vector of the file's first equal word. With `lowercase`, a word that has
        none takes that of the first word which equals it once lower-cased.

        Args:
            words: V words.
            lowercase: whether captions, and so the words, are lower-cased.

        Returns:
            float32 `[V, E]`, zeros for a word without a vector, and bool `[V]`, which have one.

        Raises:
            UserError: the file is cut short or damaged, or a vector in use is not finite numbers.

        Example:
            >>> rows, found = WordVectors(Path("glove.txt")).look_up(["dog", "qzxw"])
            >>> rows.shape, found.tolist()
            ((2, 300), [True, False])
        """
        wanted = set(words)
        exact: dict[str, np.ndarray] = {}
        lowered: dict[str, np.ndarray] = {}
        reader = self._read()
        next(reader)
        for number, word, raw in reader:
            if word in wanted and word not in exact:
                exact[word] = self._vector(number, word, raw)
            elif lowercase and (lower := word.lower()) in wanted and lower not in lowered:
                lowered[lower] = self._vector(number, word, raw)
        known = lowered | exact
        rows = np.zeros((len(words), self.width), np.float32)
        for row, word in zip(rows, words, strict=True):
            row[:] = known.get(word, 0)
        return rows, np.array([word in known for word in words], dtype=bool)

    def _vector(self, number: int, word: str, raw: Any) -> np.ndarray:
        try:
            if self._is_text:
                raw = np.array([float(field) for field in raw.split(b" ")])
            elif isinstance(raw, bytes):
                raw = np.frombuffer(raw, "<f4")
        except ValueError:
            raise self._misfit(number, self.width) from None
        # What float32 cannot hold becomes infinite, and is refused below.
        with np.errstate(over="ignore"):
            vector = raw.astype(np.float32)
        if not np.isfinite(vector).all():
            where = f"{'line' if self._is_text else 'row'} {number}"
            what = f"{where}: the vector of {word!r} is not finite: make the file again"
            raise self._error("vectors.not_finite", what, number)
        return vector

    def _read_text(self) -> Iterator[Any]:
        """Reads a word and E numbers a line, with single spaces between: GloVe's form.

        If the first line is two whole numbers, they are N and E, and N lines follow: word2vec's
        form. Words may hold spaces, as a few of GloVe 840B do, but no number behind one: such a
        line counts as one of another width.
        """
        count, width, found = None, 0, 0
        number, last, ended = 1, (1, b""), True
        with _opened(self.path) as stream:
            # No more at a time: what is no text may have no line ends.
            for number, raw in enumerate(iter(lambda: stream.readline(_AHEAD), b""), start=1):
                ended = raw.endswith(b"\n")
                # word2vec leaves a space at the end of each line.
                line = raw.rstrip(b" \r\n")
                if not line:
                    continue
                last = number, line
                if not width:
                    if counts := self._counts(line):
                        count, width = counts
                        yield width
                        continue
                    width = sum(1 for _ in takewhile(_is_number, reversed(line.split(b" ")[1:])))
                    if not width:
                        break
                    yield width
                word, _, vector = line.partition(b" ")
                if line.count(b" ") != width:
                    fields = line.rsplit(b" ", width)
                    word = fields[0]
                    if len(fields) <= width or any(map(_is_number, word.split(b" ")[1:])):
                        raise self._misfit(number, width)
                    vector = line[len(word) + 1 :]
                found += 1
                yield number, _decode(word), vector
        if not width:
            raise self._misfit(number, 0)
        if count not in (None, found):
            raise self._damaged(f"promises {count} vectors and holds {found}")
        # Such a line may be whole, as some programs leave it, or cut in its last number.
        number, line = last
        if not ended and not line[-1:].isdigit():
            raise self._damaged(f"ends within a number of line {number}", number)
        if not ended:
            self.doubt = (
                f"{self.path} has no line end behind its last line, {number}: if the file was cut "
                "there, words are missing and the last number is another: fetch it again, or "
                "compare its size with its origin's"
            )

    def _read_binary(self) -> Iterator[Any]:
        """Reads a line `N E`; then N times word, space, E little-endian float32.

        A line feed may close each row, as the original program writes it.
        """
        with _opened(self.path) as stream:
            counts = self._counts(stream.readline(100).strip())
            if not counts:
                what = "is not word2vec's binary form: it does not begin with counts"
                raise self._error(
                    "vectors.form", f"{what}: fetch it again, or name it .txt if text"
                )
            count, width = counts
            yield width
            size, ahead, start = 4 * width, b"", 0
            for number in range(1, count + 1):
                space = ahead.find(b" ", start)
                if space < 0 or len(ahead) - space <= size:
                    ahead, start = ahead[start:] + stream.read(_AHEAD), 0
                    space = ahead.find(b" ")
                    if space < 0 or len(ahead) - space <= size:
                        raise self._damaged(f"row {number} of {count} is not whole", number)
                word, start = ahead[start:space].lstrip(b"\n"), space + 1 + size
                yield number, _decode(word), ahead[space + 1 : start]
            if (ahead[start:] + stream.read(2)).strip(b"\n"):
                raise self._damaged(f"has more behind its {count} rows")

    def _read_npz(self) -> Iterator[Any]:
        try:
            with (
                _opened(self.path) as stream,
                zipfile.ZipFile(stream) as archive,
                archive.open("words.npy") as words,
                archive.open("vectors.npy") as vectors,
            ):
                (names, _, text), (shape, by_columns, floats) = _header(words), _header(vectors)
                kinds = text.kind == "U" and floats.kind == "f" and text.itemsize
                fits = len(names) == 1 and len(shape) == 2 and names == shape[:1] and shape[1]
                largest = max(text.itemsize, floats.itemsize * math.prod(shape[1:]))
                if not (kinds and fits) or by_columns or largest > _AHEAD:
                    what = f"holds {text.name} {names} and {floats.name} {shape} in place of words "
                    what += "[N], texts, and vectors [N, E], floats in C order, of up to "
                    what += f"{_AHEAD:,} bytes a row: make it again"
                    raise self._error("vectors.form", what)
                yield shape[1]
                step = max(1, min(_ROWS, _AHEAD // (2 * largest)))
                rows = _rows(words, text, names, step), _rows(vectors, floats, shape, step)
                for number, (word, row) in enumerate(zip(*rows, strict=True), start=1):
                    yield number, word, row
        except KeyError:
            what = "lacks the array words or the array vectors: make it again"
            raise self._error("vectors.form", what) from None
        except _DAMAGE:
            raise self._damaged("is no .npz, or cut short or damaged") from None

    def _counts(self, line: bytes) -> tuple[int, int] | None:
        match = _COUNTS.fullmatch(line)
        if not match:
            return None
        count, width = int(match[1]), int(match[2])
        if not count or not 0 < width <= _WIDEST:
            raise self._damaged(f"promises {count} vectors of {width} numbers")
        return count, width

    def _misfit(self, number: int, width: int) -> UserError:
        what = f"line {number} is not a word and {width or 'its'} numbers"
        return self._damaged(what, number, "vectors.line")

    def _damaged(
        self, what: str, number: int | None = None, code: str = "vectors.damaged"
    ) -> UserError:
        remedy = "fetch or make it again"
        if self._is_text:
            remedy += "; or name it .bin, if it is in word2vec's binary form"
        return self._error(code, f"{what}: {remedy}", number)

    def _error(self, code: str, what: str, number: int | None = None) -> UserError:
        return UserError(code, f"{self.path} {what}", self.path, number)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file, unpacking it on the way if its name ends in `.gz`."""
    if not path.is_file():
        message = f"{path} is no file: give a file of word vectors"
        raise UserError("vectors.file", message, path)
    packed = path.suffix.lower() == ".gz"
    with gzip.open(path) if packed else path.open("rb") as stream:
        try:
            yield stream
        except (EOFError, gzip.BadGzipFile, zlib.error):
            if not packed:
                raise
            message = f"{path} cannot be unpacked past byte {stream.tell()}: fetch it again"
            raise UserError("vectors.damaged", message, path) from None


def _header(array: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(array)
    if version not in _HEADERS:
        raise ValueError(f"unknown version {version}")
    return _HEADERS[version](array)


def _rows(
    array: IO[bytes], dtype: np.dtype, shape: tuple[int, ...], step: int
) -> Iterator[np.ndarray]:
    """Yields the rows of an array, of which no more than `step` are in memory."""
    for start in range(0, shape[0], step):
        part = (min(step, shape[0] - start), *shape[1:])
        # Of too few bytes NumPy makes another shape, or none.
        yield from np.frombuffer(array.read(math.prod(part) * dtype.itemsize), dtype).reshape(part)
    # At its end the checksum of the array is compared.
    if array.read(1):
        raise ValueError("there is more behind its rows")


def _decode(word: bytes) -> str:
    # A word that is not UTF-8, as a few of large files, equals no other.
    return word.decode(errors="surrogateescape")


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True
