"""Files that are whole or absent: write aside, rename; digests to tell them apart."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tf_dpce.errors import UserError

_SUFFIX = ".tmp"


@contextmanager
def publish_file(path: Path) -> Iterator[Path]:
    """Yields a temporary sibling of `path`, which becomes `path` if the block ends well.

    Example:
        >>> with publish_file(folder / "metrics.json") as temporary:
        ...     temporary.write_text("{}")
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_sibling(path)
    try:
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
        flush(path.parent)
    except OSError as error:
        # A full disk is met by `write`, which does not know the file's name.
        error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def publish_folder(path: Path) -> Iterator[Path]:
    """Yields an empty sibling folder, renamed to `path` (which must not exist) at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_sibling(path)
    temporary.mkdir()
    try:
        yield temporary
        for item in temporary.rglob("*"):
            flush(item)
        if path.exists():
            raise UserError(f"{path} exists already: choose another name or remove it")
        os.rename(temporary, path)
        flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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

    One in another container has no number here: it is known to live by its `sole_writer`.
    """
    for item in folder.glob(f".*{_SUFFIX}"):
        owner = item.name.split(".")[-2]
        if owner.isdigit() and not _alive(int(owner)) and not _has_writer(item):
            shutil.rmtree(item) if item.is_dir() else item.unlink(missing_ok=True)


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


def _has_writer(item: Path) -> bool:
    try:
        with sole_writer(item):
            return False
    except (UserError, OSError):
        return True


def _temporary_sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}{_SUFFIX}")


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
