"""Paths in an object store, with the methods of `pathlib.Path` that readers of data sets call.

    open_path("flickr8k")             a `Path`
    open_path("s3://bucket/flickr8k") a `RemotePath`

Other than with `universal_pathlib`, a folder is listed once, however many of its files are then
asked about, and whatever goes wrong in a store becomes a line for the user.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from stat import S_IFREG
from typing import Any, BinaryIO, ClassVar

from tf_dpce.files import read_at_most
from tf_dpce.storage import explained, file_system, is_remote, local_file, local_path

_THREADS = 8  # more than cores, because they wait for the disk or the network
_TOGETHER = 1024  # small files whose contents are in memory at a time


class RemotePath(PurePosixPath):
    """A path in the tree of a store, such as `/bucket/name`; as text it is the address."""

    __slots__ = ()
    scheme = ""
    # What the listed folders hold, by address and name.
    listed: ClassVar[dict[str, dict[str, dict[str, Any]]]] = {}

    def __str__(self) -> str:
        path = super().__str__()
        return f"{self.scheme}:/{path}" if path.startswith("/") else path

    def resolve(self) -> RemotePath:
        """Returns the path itself."""
        return self

    def exists(self) -> bool:
        """Returns whether there is such an object or folder."""
        return self._info() is not None

    def is_file(self) -> bool:
        """Returns whether there is such an object."""
        return (self._info() or {}).get("type") == "file"

    def is_dir(self) -> bool:
        """Returns whether there is such a folder, which some object lies below."""
        return (self._info() or {}).get("type") == "directory"

    def is_symlink(self) -> bool:
        """Returns False, because a store has no links."""
        return False

    def stat(self) -> os.stat_result:
        """Returns the size and the kind of what there is, zeros of nothing; no more is known."""
        info = self._info() or {"size": 0}
        mode = S_IFREG if info.get("type") == "file" else 0
        return os.stat_result((mode, 0, 0, 0, 0, 0, info["size"], 0, 0, 0))

    def iterdir(self) -> Iterator[RemotePath]:
        """Yields what the folder holds."""
        yield from (self / name for name in self.listing())

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """Yields what matches a pattern below the folder."""
        yield from matching(self.joinpath(glob.escape(super().__str__()), pattern))

    def rglob(self, pattern: str) -> Iterator[RemotePath]:
        """Yields what matches a pattern in the folder and in those below it."""
        yield from self.glob(f"**/{pattern}")

    def open(self, mode: str = "rb", buffering: int = -1) -> BinaryIO:
        """Opens a copy on this machine, in which a reader can go back and forth."""
        with local_file(str(self)) as copy:
            # The file outlives its name, which ends with the block.
            return open(copy, mode, buffering)

    def listing(self) -> dict[str, dict[str, Any]]:
        """Returns what the folder holds, by name; nothing if there is no such folder."""
        address = str(self)
        if address not in self.listed:
            files, path = file_system(address)
            with explained(address):
                try:
                    found = files.ls(path, detail=True)
                except FileNotFoundError:
                    found = []
            named = {info["name"].removeprefix(f"{path}/"): info for info in found}
            # An empty object may stand for the folder itself.
            named.pop("", None)
            self.listed[address] = named
        return self.listed[address]

    def _info(self) -> dict[str, Any] | None:
        if str(self.parent) in self.listed:
            return self.listed[str(self.parent)].get(self.name)
        files, path = file_system(str(self))
        with explained(str(self)):
            try:
                return files.info(path)
            except FileNotFoundError:
                return None


AnyPath = Path | RemotePath


def open_path(place: str) -> AnyPath:
    """Returns the path of a place, as a store holds it now.

    Raises:
        UserError: nothing speaks with such a storage, or its package is not installed.
    """
    if is_remote(place):
        file_system(place)[0].invalidate_cache()
    return any_path(place)


def any_path(place: str) -> AnyPath:
    """Returns the path of a place."""
    if not is_remote(place):
        return local_path(place)
    scheme, _, path = place.partition("://")
    # A path that is made from another has its class, and sees the same listings: as long as it is
    # in use, and no longer.
    own = {"__slots__": (), "scheme": scheme, "listed": {}}
    return type("RemotePath", (RemotePath,), own)(f"/{path}")


def scan(folder: AnyPath) -> Iterator[os.DirEntry[str] | RemotePath]:
    """Yields what a folder holds; nothing is asked again of name, `is_dir` and `is_symlink`."""
    return folder.iterdir() if isinstance(folder, RemotePath) else os.scandir(folder)


def matching(pattern: AnyPath) -> list[AnyPath]:
    """Returns what matches a pattern, sorted."""
    if not isinstance(pattern, RemotePath):
        return [Path(name) for name in sorted(glob.glob(str(pattern), recursive=True))]
    files, path = file_system(str(pattern))
    with explained(str(pattern)):
        return [pattern.joinpath(f"/{name}") for name in files.glob(path)]


def read_part(place: str, start: int = 0, length: int | None = None) -> bytes:
    """Returns so many bytes of a file, or fewer at its end.

    Raises:
        FileNotFoundError: it does not exist.
        OSError: a local file cannot be read.
        UserError: a remote file cannot be read.
    """
    if not is_remote(place):
        with open(place, "rb") as stream:
            stream.seek(start)
            return stream.read() if length is None else read_at_most(stream, length)
    files, path = file_system(place)
    end = None if length is None else start + length
    with explained(place, passed=FileNotFoundError):
        try:
            return files.cat_file(path, start=start or None, end=end)
        except Exception:
            # S3 has no part of an empty object.
            if files.size(path):
                raise
            return b""


def read_each(paths: Sequence[AnyPath]) -> Iterator[bytes | OSError]:
    """Yields the contents of small files, or why one cannot be read; some are read at a time."""
    with ThreadPoolExecutor(_THREADS) as pool:
        for first in range(0, len(paths), _TOGETHER):
            yield from pool.map(_contents, paths[first : first + _TOGETHER])


def _contents(path: AnyPath) -> bytes | OSError:
    try:
        return read_part(str(path))
    except OSError as error:
        return error
