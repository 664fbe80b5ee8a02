"""Word vectors from a file, to initialise the word embedding.

The name tells the form: `.npz` is a NumPy archive with the arrays `words` (strings `[N]`) and
`vectors` (floats `[N, E]`); `.bin` is word2vec's binary form; anything else is text, GloVe's or
word2vec's. A further `.gz` behind the latter two is unpacked on the way. These two are read as
streams: only the words that are asked for are in memory.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import IO, Any

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.files import UNREADABLE_ARCHIVE
from tf_dpce.logging import logger, tracked

# No word vector is wider; it keeps what a damaged header asks for within bounds.
_COUNTS = re.compile(rb"([1-9]\d{0,17}) ([1-9]\d{0,4})")
# Bytes read at a time. A row of the widest binary vectors and a long word fit in.
_AHEAD = 2**19


def check_vectors(path: Path) -> None:
    """Makes sure, before any work, that there is a file of word vectors."""
    if not path.is_file():
        message = f"{path} is no file: give a file of word vectors"
        raise UserError("vectors.file", message, path)


def look_up_vectors(
    path: Path, words: Sequence[str], lowercase: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Reads a file and returns the vectors of some words.

    A word has the vector of the file's first equal word. With `lowercase`, a word that has none
    takes that of the first word which equals it once lower-cased.

    Args:
        path: a file of word vectors.
        words: V words.
        lowercase: whether captions, and so the words, are lower-cased.

    Returns:
        float32 `[V, E]`, zeros for a word without a vector, and bool `[V]`, which have one.

    Raises:
        UserError: the file is missing, has another form, is cut short or damaged, or a vector in
            use is not finite numbers.

    Example:
        >>> rows, found = look_up_vectors(Path("glove.txt"), ["dog", "qzxw"])
        >>> rows.shape, found.tolist()
        ((2, 300), [True, False])
    """
    reader, wanted = _reader(path), set(words)
    rows = np.zeros((len(words), next(reader)), np.float32)
    exact: dict[str, np.ndarray] = {}
    lowered: dict[str, np.ndarray] = {}
    for number, word, raw in tracked(reader, "word vectors read"):
        if word in wanted and word not in exact:
            exact[word] = _vector(path, number, word, raw)
        elif lowercase and (lower := word.lower()) in wanted and lower not in lowered:
            lowered[lower] = _vector(path, number, word, raw)
    known = lowered | exact
    for row, word in zip(rows, words, strict=True):
        row[:] = known.get(word, 0)
    return rows, np.array([word in known for word in words], dtype=bool)


def words_of_vectors(path: Path) -> Iterator[str]:
    """Yields the words of a file of word vectors in their order, which mostly is by frequency.

    Raises:
        UserError: the file is missing, has another form, is cut short or damaged.

    Example:
        >>> next(words_of_vectors(Path("glove.txt")))
        'dog'
    """
    reader = _reader(path)
    next(reader)
    for _, word, _ in reader:
        yield word


def _reader(path: Path) -> Iterator[Any]:
    """Returns an iterator over E, then the number (from 1), word and vector of every row."""
    check_vectors(path)
    name, read = path.name.lower(), _read_text
    if name.endswith((".bin", ".bin.gz")):
        read = _read_binary
    elif name.endswith(".npz"):
        read = _read_npz
    return read(path)


def _vector(path: Path, number: int, word: str, raw: Any) -> np.ndarray:
    try:
        # What float32 cannot hold becomes infinite, and is refused below.
        with np.errstate(over="ignore"):
            vector = np.asarray(raw, np.float64).astype(np.float32)
    except ValueError:
        raise _no_row(path, number, len(raw)) from None
    if not np.isfinite(vector).all():
        message = (
            f"{path} line or row {number}: the vector of {word!r} is not finite: make it again"
        )
        raise UserError("vectors.not_finite", message, path, number)
    return vector


def _read_text(path: Path) -> Iterator[Any]:
    """Reads a word and E numbers a line, with single spaces between: GloVe's form.

    If the first line is two whole numbers, they are N and E, and N lines follow: word2vec's form.
    Words may hold spaces, as a few of GloVe 840B do, but no number behind one: such a line counts
    as one of another width. The vector is a list of bytes, one for each number.
    """
    count, width, found, ended = None, 0, 0, True
    with _opened(path) as stream:
        # No more at a time: what is no text may have no line ends.
        for number, raw in enumerate(iter(lambda: stream.readline(_AHEAD), b""), start=1):
            ended = raw.endswith(b"\n")
            # word2vec leaves a space at the end of each line.
            line = raw.rstrip(b" \r\n")
            if not line:
                continue
            if not width:
                if counts := _COUNTS.fullmatch(line):
                    count, width = map(int, counts.groups())
                    yield width
                    continue
                width = sum(1 for _ in takewhile(_is_number, reversed(line.split(b" ")[1:])))
                if not width:
                    raise _no_row(path, number, width)
                yield width
            word, *vector = line.rsplit(b" ", width)
            if len(vector) < width or any(map(_is_number, word.split(b" ")[1:])):
                raise _no_row(path, number, width)
            found += 1
            yield number, _decode(word), vector
    if not width:
        raise _no_row(path, 1, width)
    if count not in (None, found):
        raise _damaged(path, f"promises {count} vectors and holds {found}")
    if not ended:
        logger.warning(
            f"{path} has no line end behind its last line: if the file was cut there, words are "
            "missing and the last number is another: compare its size with its origin's"
        )


def _read_binary(path: Path) -> Iterator[Any]:
    """Reads a line `N E`; then N times word, space, E little-endian float32.

    A line feed may close each row, as the original program writes it.
    """
    with _opened(path) as stream:
        counts = _COUNTS.fullmatch(stream.readline(100).strip())
        if not counts:
            message = f"{path} is not word2vec's binary form: it does not begin with counts: fetch "
            raise UserError("vectors.form", f"{message}it again, or name it .txt if text", path)
        count, width = map(int, counts.groups())
        yield width
        size, ahead, start = 4 * width, b"", 0
        for number in range(1, count + 1):
            space = ahead.find(b" ", start)
            if space < 0 or len(ahead) - space <= size:
                ahead, start = ahead[start:] + stream.read(_AHEAD), 0
                space = ahead.find(b" ")
                if space < 0 or len(ahead) - space <= size:
                    raise _damaged(path, f"row {number} of {count} is not whole", number)
            word, start = ahead[start:space].lstrip(b"\n"), space + 1 + size
            yield number, _decode(word), np.frombuffer(ahead[space + 1 : start], "<f4")
        if (ahead[start:] + stream.read(2)).strip(b"\n"):
            raise _damaged(path, f"has more behind its {count} rows")


def _read_npz(path: Path) -> Iterator[Any]:
    try:
        # NumPy leaves a file open that is none of its archives.
        with path.open("rb") as stream, np.load(stream) as archive:
            words, vectors = archive["words"], archive["vectors"]
    except KeyError:
        message = f"{path} lacks the array words or the array vectors: make it again"
        raise UserError("vectors.form", message, path) from None
    except UNREADABLE_ARCHIVE as error:
        raise _damaged(path, f"is no .npz that can be read, {error}") from None
    kinds = words.dtype.kind, vectors.dtype.kind
    if (
        kinds != ("U", "f")
        or vectors.ndim != 2
        or words.shape != vectors.shape[:1]
        or 0 in vectors.shape
    ):
        message = f"{path} holds {words.dtype} {words.shape} and {vectors.dtype} {vectors.shape} "
        message += "in place of words [N], texts, and vectors [N, E], floats: make it again"
        raise UserError("vectors.form", message, path)
    yield vectors.shape[1]
    for number, (word, vector) in enumerate(zip(words.tolist(), vectors, strict=True), start=1):
        yield number, word, vector


def _no_row(path: Path, number: int, width: int) -> UserError:
    what = f"line {number} is not a word and {width or 'its'} numbers"
    return _damaged(path, what, number, "vectors.line")


def _damaged(
    path: Path, what: str, number: int | None = None, code: str = "vectors.damaged"
) -> UserError:
    remedy = "fetch or make it again; or name it .bin if it is in word2vec's binary form"
    return UserError(code, f"{path} {what}: {remedy}", path, number)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file, unpacking it on the way if its name ends in `.gz`."""
    packed = path.suffix.lower() == ".gz"
    with gzip.open(path) if packed else path.open("rb") as stream:
        try:
            yield stream
        except (EOFError, gzip.BadGzipFile, zlib.error):
            message = f"{path} cannot be unpacked past byte {stream.tell()}: fetch it again"
            raise UserError("vectors.damaged", message, path) from None


def _decode(word: bytes) -> str:
    # A word that is not UTF-8, as a few of large files, equals no other.
    return word.decode(errors="surrogateescape")


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True
