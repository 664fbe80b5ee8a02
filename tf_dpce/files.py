"""Files that are whole or absent: write a temporary one, rename it. And digests of files.

Locks between processes are `flock` on the folder or file itself, in this module alone. Such a lock
ends with its process, holds across containers that share a disk, and leaves no lock file behind;
`filelock`, which locks a second file, would leave one.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, BinaryIO, get_args, get_origin, get_type_hints

from tf_dpce.errors import UserError

_SUFFIX = ".tmp"
# The last part is random, because processes in two containers may have the same number.
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")

# What NumPy and zipfile raise for an archive that is none, damaged, cut short or locked.
UNREADABLE_ARCHIVE = (ValueError, OSError, EOFError, TypeError, RuntimeError, MemoryError)
UNREADABLE_ARCHIVE += (zipfile.BadZipFile, zlib.error)
# What `from_json` raises for a value of another type.
OTHER_TYPE = (KeyError, TypeError, AttributeError, ValueError)


@contextmanager
def publish_file(path: Path, create: bool = False) -> Iterator[Path]:
    """Yields an empty temporary file beside `path`, which becomes `path` if the block ends well.

    Args:
        path: the file to write or replace.
        create: refuse to replace one, by `FileExistsError`.

    Example:
        >>> with publish_file(folder / "metrics.json") as temporary:
        ...     written = temporary.write_text("{}")
    """
    try:
        with _temporary(path, lambda new: new.touch(exist_ok=False)) as temporary:
            yield temporary
            flush(temporary)
            (_link if create else os.replace)(temporary, path)
            flush(path.parent)
    except OSError as error:
        # If the disk is full, `write` fails without the file's name.
        if error.filename is None or is_temporary(Path(str(error.filename)).name):
            error.filename = str(path)
        raise


def publish_bytes(path: Path, contents: bytes, create: bool = False) -> None:
    """Writes a file, whole at once, also where several processes try it at the same time.

    Args:
        path: the file to write or replace.
        contents: what it holds then.
        create: refuse to replace one, by `FileExistsError`.
    """
    with publish_file(path, create) as temporary:
        temporary.write_bytes(contents)


@contextmanager
def publish_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder beside `path` that becomes `path` if the block ends well.

    Raises:
        UserError: `path` exists.
    """
    with temporary_folder(path) as temporary:
        yield temporary
        for item in temporary.rglob("*"):
            flush(item)
        if path.exists():
            message = f"{path} exists already: choose another name or remove it"
            raise UserError("file.exists", message, path)
        os.rename(temporary, path)
        flush(path.parent)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder beside `path`; it is removed at the end, unless it was renamed."""
    with _temporary(path, Path.mkdir) as temporary:
        yield temporary


def is_temporary(name: str) -> bool:
    """Returns whether a name is that of a temporary file or folder of this module."""
    return _TEMPORARY.fullmatch(name) is not None


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Keeps a second process from writing to `folder` during the block; ends with the process.

    Raises:
        UserError: another process is writing there.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"another process is writing to {folder}: wait for it to end"
            raise UserError("file.locked", message, folder) from None
        yield
    finally:
        os.close(descriptor)


def flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_stale(folder: Path) -> None:
    """Removes the temporary files in `folder` whose processes have ended.

    A process that lives, in whichever container, holds a lock on what it writes.
    """
    for item in folder.glob(f".*{_SUFFIX}"):
        if is_temporary(item.name):
            with suppress(UserError, OSError), exclusive_lock(item):
                _remove(item)


def check_writable(folder: Path) -> None:
    """Refuses, before any work, a folder that cannot be made or written to.

    Raises:
        UserError: a part of its path is no folder, or the nearest that exists is not writable.
    """
    nearest = next(item for item in (folder, *folder.absolute().parents) if item.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        message = f"{nearest} is no folder, or cannot be written to: choose another, or mend that"
        raise UserError("file.not_writable", message, nearest)


def read_at_most(stream: BinaryIO, most: int) -> bytes:
    """Returns what is left of a file, or so many bytes of it if there are more."""
    # Room for what is not there would take longer than reading what is. Some file systems give no
    # size.
    size = os.fstat(stream.fileno()).st_size
    return stream.read(min(size + 1, most) if size else most)


def cache_folder(name: str) -> Path:
    """Returns the folder of this name in the user's cache, by the XDG base directories.

    What lies there can be made again; it need not exist.
    """
    root = os.environ.get("XDG_CACHE_HOME", "")
    # A relative path does not count there.
    base = Path(root) if os.path.isabs(root) else Path.home() / ".cache"
    return base / "tf_dpce" / name


def sha256_file(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_lines(lines: Iterable[str]) -> str:
    """Returns the SHA-256 of lines, each closed by a newline, as hexadecimal digits."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def sha256_files(folder: Path, files: Iterable[Path]) -> str:
    """Returns the SHA-256 of what files below a folder are called and hold, in the given order."""
    return sha256_lines(
        f"{file.relative_to(folder).as_posix()} {sha256_file(file)}" for file in files
    )


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    publish_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Returns `value` as indented JSON."""
    return f"{json.dumps(value, indent=1, ensure_ascii=False)}\n".encode()


def read_json(path: Path) -> Any:
    """Returns what a JSON file holds.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError("file.missing", f"{path} does not exist", path) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        line = getattr(error, "lineno", None)
        raise UserError("file.json", f"{path} is not valid JSON: {error}", path, line) from None


def from_json(kind: Any, value: Any) -> Any:
    """Returns a JSON value as a type: a dataclass, tuple, list, mapping or plain value, or None.

    Raises:
        KeyError, TypeError, AttributeError, ValueError: it is of another type.

    Example:
        >>> from_json(dict[int, tuple[float, ...]], {"7": [0.5, 1]})
        {7: (0.5, 1)}
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        hints = _hints(kind)
        return kind(**{name: from_json(hints[name], item) for name, item in value.items()})
    if origin is UnionType:
        return None if value is None else from_json(arguments[0], value)
    if origin in (tuple, list) and type(value) is list:
        return origin(from_json(arguments[0], item) for item in value)
    if origin in (dict, Mapping):
        # JSON has no other keys than text.
        return {arguments[0](key): from_json(arguments[1], item) for key, item in value.items()}
    # No subclasses: `true` is no number.
    if type(value) is not kind and (kind, type(value)) != (float, int):
        raise TypeError(f"{value!r} is no {kind}")
    return value


_hints = cache(get_type_hints)


def _link(temporary: Path, path: Path) -> None:
    """Gives a file a second name in one step, which fails if the name is taken."""
    try:
        os.link(temporary, path)
    except OSError as error:
        # A disk without links, such as a bucket that is mounted.
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS) or path.exists():
            raise
        os.replace(temporary, path)


@contextmanager
def _temporary(path: Path, make: Callable[[Path], object]) -> Iterator[Path]:
    """Yields what `make` creates beside `path`, locked until it is renamed or removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = None
    while lock is None:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}{_SUFFIX}")
        make(temporary)
        # Before it is locked, `remove_stale` of another process may find it and remove it.
        with suppress(FileNotFoundError):
            lock = os.open(temporary, os.O_RDONLY)
            # If a file system has no locks, nothing counts as stale.
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not temporary.exists():
                os.close(lock)
                lock = None
    try:
        yield temporary
    finally:
        _remove(temporary)
        os.close(lock)


def _remove(item: Path) -> None:
    if item.is_dir():
        shutil.rmtree(item, ignore_errors=True)
    else:
        item.unlink(missing_ok=True)
