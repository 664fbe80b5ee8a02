"""Folders on this machine or in an object store, by one interface: whole files, published at once.

    open_folder("embeddings")             a folder on a disk
    open_folder("file:///embeddings")     the same
    open_folder("s3://bucket/embeddings") a prefix in an object store, through fsspec

A put of an object shows the whole object or nothing, like a rename on a disk. So what is written
last, a manifest, makes what was written before it count, here as there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from tf_dpce.errors import UserError, shorten
from tf_dpce.files import (
    cache_folder,
    check_writable,
    publish_bytes,
    publish_file,
    remove_stale,
    sha256_lines,
    temporary_folder,
)

# The packages that speak with each store. Only of stores of whole objects a put is atomic.
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
# What the stores call the version of an object in a listing, the surest first.
_DATES = ("LastModified", "last_modified", "mtime")
_VERSIONS = ("ETag", "etag", "md5Hash", *_DATES)
_LOCAL = "file://"
WILDCARDS = "*?["


class Folder:
    """Files by name, in a folder without folders, which need not exist yet.

    Attributes:
        place: path or address, for messages.
    """

    def __init__(self, path: Path) -> None:
        self.place, self._path = str(path), path

    def prepare(self) -> None:
        """Makes the folder, and removes what killed processes left unfinished in it."""
        self._path.mkdir(parents=True, exist_ok=True)
        remove_stale(self._path)

    def names(self) -> set[str]:
        """Returns the names of all files, by one listing."""
        return set(os.listdir(self._path)) if self._path.is_dir() else set()

    def read(self, names: Sequence[str]) -> list[bytes]:
        """Returns the contents of files, or raises `FileNotFoundError`."""
        return [(self._path / name).read_bytes() for name in names]

    def write(self, name: str, contents: bytes) -> None:
        """Writes or replaces a file, atomically."""
        publish_bytes(self._path / name, contents)

    def create(self, name: str, contents: bytes) -> None:
        """Writes a file, atomically, or raises `FileExistsError` if another process was faster."""
        publish_bytes(self._path / name, contents, create=True)

    def publish(self, name: str, file: Path) -> None:
        """Moves a finished file of this machine here, atomically."""
        with publish_file(self._path / name) as temporary:
            file.rename(temporary)

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        (self._path / name).unlink(missing_ok=True)

    def path(self, name: str) -> str:
        """Returns the path or address of a file."""
        return f"{self.place}/{name}"


class _RemoteFolder(Folder):
    """The same in an object store, where a folder is a part of names, and puts leave nothing."""

    def __init__(self, url: str) -> None:
        self.place = url.rstrip("/")
        self._files, self._root = file_system(self.place)

    def prepare(self) -> None:
        pass

    def names(self) -> set[str]:
        self._files.invalidate_cache(self._root)
        with explained(self.place):
            try:
                return {os.path.basename(path) for path in self._files.ls(self._root, detail=False)}
            except FileNotFoundError:
                return set()

    def read(self, names: Sequence[str]) -> list[bytes]:
        paths = [f"{self._root}/{name}" for name in names]
        with explained(self.place, passed=FileNotFoundError):
            # By requests that run together.
            found = self._files.cat(paths) if paths else {}
        return [found[path] for path in paths]

    def write(self, name: str, contents: bytes) -> None:
        with explained(self.path(name)):
            self._files.pipe_file(f"{self._root}/{name}", contents)

    def create(self, name: str, contents: bytes) -> None:
        with explained(self.path(name), passed=FileExistsError):
            self._files.pipe_file(f"{self._root}/{name}", contents, mode="create")

    def publish(self, name: str, file: Path) -> None:
        with explained(self.path(name)):
            self._files.put_file(str(file), f"{self._root}/{name}")

    def remove(self, name: str) -> None:
        with explained(self.path(name)), suppress(FileNotFoundError):
            self._files.rm_file(f"{self._root}/{name}")


class Found(NamedTuple):
    """A remote file.

    Attributes:
        url: its address.
        size: its bytes.
        version: what changes when its content does.
        modified: time of its last change, in nanoseconds since 1970, if the listing has it.
    """

    url: str
    size: int
    version: str
    modified: int | None


def is_remote(place: str) -> bool:
    """Returns whether a path is an address of another storage than this machine's."""
    return "://" in place and not place.startswith(_LOCAL)


def local_path(place: str) -> Path:
    """Returns the path of a place on this machine, which may be a `file://` address."""
    return Path(place.removeprefix(_LOCAL))


def rooted(place: str) -> str:
    """Returns the absolute path of a place, or of a remote one the path below its scheme."""
    return f"/{place.partition('://')[2]}" if is_remote(place) else os.path.abspath(place)


def open_folder(place: str | PurePath) -> Folder:
    """Opens a folder, which need not exist.

    Raises:
        UserError: nothing speaks with such a storage, or its package is not installed.
    """
    place = str(place)
    return _RemoteFolder(place) if is_remote(place) else Folder(local_path(place))


def check_place(place: str) -> None:
    """Refuses, before any work and without asking the network, a folder that cannot be written.

    Raises:
        UserError: as `check_writable` and `open_folder`.
    """
    if is_remote(place):
        _check_scheme(place)
    else:
        check_writable(local_path(place))


def find_files(pattern: str) -> list[Found]:
    """Lists the remote files that match a pattern, or all below a folder, without a call for each.

    Raises:
        UserError: the storage cannot be listed.
    """
    files, path = file_system(pattern)
    with explained(pattern):
        listed = files.glob if any(sign in path for sign in WILDCARDS) else files.find
        found = listed(path, detail=True)
    scheme = pattern.partition("://")[0]
    return [
        Found(f"{scheme}://{name}", info["size"], _version(info), _modified(info))
        for name, info in sorted(found.items())
        if info["type"] == "file"
    ]


@contextmanager
def local_file(place: str) -> Iterator[str]:
    """Yields the path of a file on this machine: a copy within the block if it is remote."""
    if not is_remote(place):
        yield place
        return
    files, path = file_system(place)
    with TemporaryDirectory(prefix="tf_dpce-") as folder:
        copy = os.path.join(folder, os.path.basename(path))
        with explained(place):
            files.get_file(path, copy)
        yield copy


def local_folder(place: str) -> Path:
    """Returns a folder on this machine: a copy in the user's cache if it is remote.

    It is copied once, and again when one of its files changes.

    Raises:
        UserError: the remote folder is empty, or cannot be read.
    """
    if not is_remote(place):
        return local_path(place)
    place = place.rstrip("/")
    found = find_files(place)
    if not found:
        message = f"{place} holds no files: check the bucket and the name"
        raise UserError("storage.missing", message, place)
    copy = cache_folder("remote") / sha256_lines(map(str, found))[:16] / place.rpartition("/")[2]
    if copy.is_dir():
        return copy
    with temporary_folder(copy) as temporary:
        files, root = file_system(place)
        with explained(place):
            # By requests that run together.
            files.get(f"{root}/", f"{temporary}/", recursive=True)
        # Another process may have been faster, with the same files.
        with suppress(OSError):
            os.rename(temporary, copy)
    return copy


@contextmanager
def explained(url: str, passed: type[OSError] | tuple[()] = ()) -> Iterator[None]:
    """Turns whatever the package of a storage raises within the block into a line for the user."""
    try:
        yield
    except passed:
        raise
    except FileNotFoundError as error:
        message = f"{url} does not exist ({shorten(error)}): check the bucket and the name"
        raise UserError("storage.missing", message, url) from error
    except PermissionError as error:
        message = f"{url} refuses access ({shorten(error)}): check the credentials and their rights"
        raise UserError("storage.denied", message, url) from error
    except Exception as error:
        message = f"{url} does not answer ({shorten(str(error) or repr(error))}): check its address"
        raise UserError("storage.failed", f"{message} and the credentials", url) from error


def _check_scheme(url: str) -> None:
    scheme = url.partition("://")[0]
    if scheme not in _PACKAGES:
        message = f"{shorten(url)} is no folder and in no object store ({', '.join(_PACKAGES)})"
        raise UserError("storage.scheme", f"{message}: give another", url)
    package = _PACKAGES[scheme]
    if not find_spec("fsspec") or not find_spec(package):
        message = f"{scheme}:// needs the package {package}: pip install {package}"
        raise UserError("storage.package", message, url)


def file_system(url: str) -> tuple[Any, str]:
    """Returns the file system of an address, and the path in it."""
    _check_scheme(url)
    import fsspec

    with explained(url):
        return fsspec.core.url_to_fs(url)


def _version(info: dict[str, Any]) -> str:
    return next((str(info[name]) for name in _VERSIONS if info.get(name)), "")


def _modified(info: dict[str, Any]) -> int | None:
    found = next((info[name] for name in _DATES if info.get(name)), None)
    return int(found.timestamp() * 1e6) * 1000 if isinstance(found, datetime) else None
