"""Files that are whole or absent: write aside, rename; digests to tell them apart."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tf_dpce.errors import UserError

_SUFFIX = ".tmp"
# The name of what is written aside: the last part is random, since processes in two containers may
# have the same number. An earlier version put the number there.
_ASIDE = re.compile(r"\..+\.[0-9a-f]+\.tmp")


@contextmanager
def publish_file(path: Path) -> Iterator[Path]:
    """Yields a temporary sibling of `path`, an empty file, which becomes `path` if all ends well.

    Example:
        >>> with publish_file(folder / "metrics.json") as temporary:
        ...     temporary.write_text("{}")
    """
    try:
        with _aside(path, _make_file) as temporary:
            yield temporary
            flush(temporary)
            os.replace(temporary, path)
            flush(path.parent)
    except OSError as error:
        # A full disk is met by `write`, which does not know the file's name.
        if error.filename is None or is_aside(Path(str(error.filename)).name):
            error.filename = str(path)
        raise


@contextmanager
def publish_folder(path: Path) -> Iterator[Path]:
    """Yields an empty sibling folder, renamed to `path` (which must not exist) at the end."""
    with folder_aside(path) as temporary:
        yield temporary
        for item in temporary.rglob("*"):
            flush(item)
        if path.exists():
            raise UserError(f"{path} exists already: choose another name or remove it")
        os.rename(temporary, path)
        flush(path.parent)


@contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """Yields an empty sibling folder of `path`; what still has its name at the end is removed."""
    with _aside(path, Path.mkdir) as temporary:
        yield temporary


def is_aside(name: str) -> bool:
    """Returns whether a name is of what is being written, or was when its process was killed."""
    return _ASIDE.fullmatch(name) is not None


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keeps a second process from writing to `folder` during the block; ends with the process.

    Raises:
        UserError: another process is writing there.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor, folder)
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
    """Removes what processes that no longer live left aside in `folder`.

    One that lives, in whichever container, holds what it writes locked.
    """
    for item in folder.glob(f".*{_SUFFIX}"):
        if is_aside(item.name):
            with suppress(UserError, OSError), sole_writer(item):
                _remove(item)


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


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    with publish_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Returns what a JSON file holds.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from None


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"another process is writing to {folder}: wait for it to end") from None


@contextmanager
def _aside(path: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """Yields what `make` has made beside `path`, locked until it is renamed or removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, lock = _claim(path, make)
    try:
        yield temporary
    finally:
        _remove(temporary)
        os.close(lock)


def _claim(path: Path, make: Callable[[Path], None]) -> tuple[Path, int]:
    """Returns what `make` has made, and the descriptor that holds it locked."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}{_SUFFIX}")
        make(temporary)
        # `remove_stale` of another process may find it before it is locked, and remove it.
        with suppress(FileNotFoundError):
            lock = os.open(temporary, os.O_RDONLY)
            # Where a file system has no locks, nothing counts as stale.
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            if temporary.exists():
                return temporary, lock
            os.close(lock)


def _make_file(path: Path) -> None:
    path.touch(exist_ok=False)


def _remove(item: Path) -> None:
    if item.is_dir():
        shutil.rmtree(item, ignore_errors=True)
    else:
        item.unlink(missing_ok=True)
