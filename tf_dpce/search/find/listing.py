"""The images below a folder, and those of them that cannot be embedded, with the state of each."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import NamedTuple

from tf_dpce.search.embedding.patterns import image_entries
from tf_dpce.search.embedding.store import read_lines, write_lines


class FileState(NamedTuple):
    """By what a change of a file is noticed; `modified` is in microseconds since 1970."""

    bytes: int
    modified: int | None


def list_images(folder: Path) -> tuple[dict[str, FileState], list[str]]:
    """Returns the images below a folder by id, and the paths that cannot be read.

    A file whose name is not UTF-8 has no id.
    """
    files: dict[str, FileState] = {}
    unreadable: list[str] = []
    start = len(str(folder).rstrip("/")) + 1
    for entry in image_entries(str(folder), unreadable):
        try:
            state = entry.stat()
            entry.path.encode()
        except (OSError, UnicodeEncodeError):
            unreadable.append(entry.path)
        else:
            files[entry.path[start:]] = FileState(state.st_size, state.st_mtime_ns // 1000)
    return files, unreadable


class RejectedFiles:
    """The files that cannot be embedded, in a file of their own.

    Args:
        path: JSON Lines of id, bytes, modified and reason; there need be none yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records = {r["id"]: r for r in read_lines(path)} if path.is_file() else {}
        self._saved = dict(self._records)

    def __contains__(self, name: str) -> bool:
        return name in self._records

    def state(self, name: str) -> FileState | None:
        """Returns the state in which a file was rejected, or None."""
        record = self._records.get(name)
        return record and FileState(record["bytes"], record["modified"])

    def add(self, name: str, state: FileState, reason: str) -> None:
        """Rejects a file."""
        self._records[name] = {"id": name, **state._asdict(), "reason": reason}

    def discard(self, name: str) -> None:
        """Forgets a file."""
        self._records.pop(name, None)

    def save(self, files: Container[str]) -> None:
        """Writes the list, if it has changed, without those that are not among the files."""
        self._records = {name: r for name, r in self._records.items() if name in files}
        if self._records != self._saved:
            write_lines(self._path, self._records.values())
            self._saved = dict(self._records)
