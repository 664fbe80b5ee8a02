"""Arrays in an `.npz` file that notices when it is damaged.

The last bytes of a file, the comment of the archive, are `sha256` and the digest of all bytes
before the digest. A file is written beside its place and renamed when it is whole.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.files import publish_file

_SEAL = b"sha256 "
_DIGITS = 64
_CHUNK = 1 << 20


class DamagedCheckpoint(UserError):
    """A file that is not what was written: cut short, altered, or of another kind."""

    def __init__(self, path: Path) -> None:
        message = (
            f"{path} is damaged, its checksum does not match: put a copy of it back, evaluate and "
            "export with --checkpoint last, or train again with another --run"
        )
        super().__init__("checkpoint.damaged", message, path)


def write_arrays(path: Path, arrays: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes arrays to a sealed file; atomically.

    Args:
        path: file to write.
        arrays: names and values; each is asked for when the one before is written.
    """
    with publish_file(path) as temporary:
        # Not by `np.savez`, which wants all arrays at once.
        with zipfile.ZipFile(temporary, "w") as archive:
            archive.comment = _SEAL + b"0" * _DIGITS
            for name, array in arrays:
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.asarray(array, order="C"))
        with temporary.open("r+b") as stream:
            digest = _digest(stream)
            stream.seek(-_DIGITS, os.SEEK_END)
            stream.write(digest)


@contextmanager
def open_arrays(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """Yields the arrays of a sealed file; each is read when it is asked for.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        raise missing_checkpoint(path) from None
    with stream:
        digest = _digest(stream)
        stream.seek(-min(len(_SEAL) + _DIGITS, path.stat().st_size), os.SEEK_END)
        if stream.read() != _SEAL + digest:
            raise DamagedCheckpoint(path)
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as arrays:
            yield arrays


def _digest(stream: BinaryIO) -> bytes:
    """Returns the digits that belong at the end of a file."""
    left = max(0, stream.seek(0, os.SEEK_END) - _DIGITS)
    stream.seek(0)
    digest = hashlib.sha256()
    while left and (chunk := stream.read(min(left, _CHUNK))):
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest().encode()


def missing_checkpoint(path: Path) -> UserError:
    """Returns the error for a checkpoint that does not exist."""
    message = (
        f"{path} does not exist or holds no checkpoint: train the run on with --resume, or put a "
        "copy of the file back"
    )
    return UserError("checkpoint.missing", message, path)
