"""Named arrays in one file that knows when it is damaged: an `.npz` sealed with its checksum.

The seal is the comment at the end of the archive, `sha256` and 64 digits: the digest of every
byte before the digits, taken as they are written. NumPy and `unzip` read the file as any other.
"""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.files import flush, publish_file

_DIGITS = 64
_SEAL = re.compile(rb"sha256 [0-9a-f]{64}")
_CHUNK = 1 << 20


class Damaged(UserError):
    """A file that is not what was written: cut short, altered, or of another kind."""


class _Sealing:
    """Writes on to a stream, and digests all but the last 64 bytes.

    It cannot seek, so that `zipfile` never goes back to what has been digested.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self._last = b""

    def write(self, data: bytes) -> int:
        held = self._last + data
        self._digest.update(memoryview(held)[:-_DIGITS])
        self._last = held[-_DIGITS:]
        return self._stream.write(data)

    def flush(self) -> None:
        self._stream.flush()

    def seal(self) -> None:
        """Puts the digest in the place of the last 64 bytes."""
        self._stream.seek(-_DIGITS, os.SEEK_END)
        self._stream.write(self._digest.hexdigest().encode())


def write_arrays(
    path: Path, arrays: Iterable[tuple[str, np.ndarray]], previous: Path | None = None
) -> None:
    """Writes arrays to a sealed file; atomically.

    Args:
        path: of the file.
        arrays: names and values; each is taken when the one before is written.
        previous: where the file that is replaced, if there is one, is kept. A kill at the wrong
            moment leaves it there with nothing at `path` yet.
    """
    with publish_file(path) as temporary:
        with temporary.open("wb") as stream:
            sealing = _Sealing(stream)
            _write(sealing, arrays)
            sealing.seal()
        if previous is not None and path.exists():
            # A disk that is full may say so only now.
            flush(temporary)
            os.replace(path, previous)


@contextmanager
def opened_arrays(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """Yields the arrays of a file whose seal is whole; they are read as they are asked for.

    What an earlier version wrote without a seal is trusted as far as the archive's own sums go.

    Raises:
        FileNotFoundError: there is none.
        Damaged: the file is not what was written.
    """
    # Opened here, because np.load leaves a damaged file open.
    with path.open("rb") as stream:
        _check_seal(path, stream)
        try:
            with np.load(stream, allow_pickle=False) as arrays:
                yield arrays
        except (zipfile.BadZipFile, KeyError, EOFError, ValueError, TypeError) as error:
            raise Damaged(f"{path} is damaged: {error}") from None


def _write(stream: _Sealing, arrays: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes an archive as `np.savez` does, which wants all arrays at once and copies each."""
    with zipfile.ZipFile(stream, "w") as archive:
        archive.comment = b"sha256 " + b"0" * _DIGITS
        for name, array in arrays:
            array = np.asarray(array, order="C")
            header = np.lib.format.header_data_from_array_1_0(array)
            pieces = array.reshape(-1).view(np.uint8)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array_header_1_0(entry, header)
                for first in range(0, len(pieces), _CHUNK):
                    entry.write(pieces[first : first + _CHUNK])


def _check_seal(path: Path, stream: BinaryIO) -> None:
    try:
        with zipfile.ZipFile(stream) as archive:
            seal = archive.comment
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise Damaged(f"{path} is damaged: {error}") from None
    if seal and not (_SEAL.fullmatch(seal) and seal.endswith(_digest(stream))):
        raise Damaged(f"{path} is damaged: its checksum is another")
    stream.seek(0)


def _digest(stream: BinaryIO) -> bytes:
    """Returns the digits that belong at the end of a file."""
    left = stream.seek(-_DIGITS, os.SEEK_END)
    stream.seek(0)
    digest = hashlib.sha256()
    while left:
        chunk = stream.read(min(left, _CHUNK))
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest().encode()
