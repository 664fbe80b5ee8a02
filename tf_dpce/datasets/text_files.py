"""Text and JSON files, with errors that name the file and the place in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tf_dpce.datasets.listing import UNKNOWN_SPLIT, Origin, Rejected
from tf_dpce.errors import UserError
from tf_dpce.remote_path import AnyPath

MALFORMED = "an entry without a key, or with a value of the wrong type"

# Why an entry of a list cannot be used, by the code of the mistake in it.
_REASONS = {
    "dataset.shape": MALFORMED,
    "dataset.character": "half a character",
    "split.name": UNKNOWN_SPLIT,
}
T = TypeVar("T")


def existing_folder(path: AnyPath) -> AnyPath:
    """Returns the absolute path of a folder.

    Raises:
        UserError: it is no folder.
    """
    if not path.is_dir():
        message = f"{path} is not a folder: check --root, --images and --annotations"
        raise UserError("dataset.folder", message, path)
    return path.resolve()


def first_existing(root: AnyPath, names: Sequence[str]) -> AnyPath:
    """Returns the first of the places below a folder that exists.

    Raises:
        UserError: none does, or the folder is none.
    """
    for name in names:
        if (existing_folder(root) / name).exists():
            return root / name
    message = f"{root} holds none of {', '.join(names)}: check --root, --images and --annotations"
    raise UserError("dataset.layout", message, root)


def existing_file(path: AnyPath) -> AnyPath:
    """Returns the path of a file.

    Raises:
        UserError: it is no file.
    """
    if not path.is_file():
        message = f"{path} is not a file: check --root, --annotations and --split-file"
        raise UserError("dataset.file", message, path)
    return path


def read_lines(path: AnyPath) -> Iterator[tuple[Origin, str]]:
    """Yields the place and text of each line that is not blank, without its end.

    Raises:
        UserError: a line is not UTF-8.
    """
    for number, line in enumerate(read_raw_lines(path), start=1):
        if line.strip():
            yield Origin.of_line(path, number), line.rstrip("\r\n")


def read_raw_lines(path: AnyPath) -> Iterator[str]:
    """Yields each line with its end; a byte-order mark is dropped.

    Raises:
        UserError: a line is not UTF-8.
    """
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            try:
                yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                origin = Origin.of_line(path, number)
                raise origin.error("dataset.encoding", "not UTF-8: save it as UTF-8") from None


def whole_characters(text: str, origin: Origin) -> str:
    """Returns text without the white space around it, if UTF-8 can hold it.

    Raises:
        UserError: it holds half of a character, which JSON can escape.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise origin.error("dataset.character", f"half a character, {half}: mend it") from None
    return text.strip()


def read_json(path: AnyPath) -> Node:
    """Reads a whole file of annotations.

    Raises:
        UserError: the file is missing, not UTF-8 or not JSON.
    """
    try:
        return Node(json.loads("".join(read_raw_lines(existing_file(path)))), Origin(path))
    except (ValueError, RecursionError) as error:
        message = f"{path} is not whole JSON, {error}: fetch it again"
        raise UserError("dataset.json", message, path, getattr(error, "lineno", None)) from None


def usable_entries(entries: Node, parse: Callable[[Node], T]) -> Iterator[T | Rejected]:
    """Yields what `parse` makes of each entry of a list, or a `Rejected` if it cannot be parsed.

    Raises:
        UserError: there is no list.
    """
    for entry in entries.items():
        try:
            yield parse(entry)
        except UserError as error:
            yield Rejected(str(entry.origin), _REASONS[error.code])


@dataclass(frozen=True, slots=True)
class Node:
    """A JSON value that knows its place. All methods raise a `UserError` for another shape.

    Attributes:
        value: the value.
        origin: its file, and the keys that lead to it.
    """

    value: Any
    origin: Origin

    def __contains__(self, key: str) -> bool:
        return isinstance(self.value, dict) and key in self.value

    def __getitem__(self, key: str) -> Node:
        """Returns what an object holds under a key."""
        if key not in self:
            raise self._error(f"has no key {key!r}")
        return self._child(self.value[key], f".{key}" if self.origin.place else key)

    def items(self) -> Iterator[Node]:
        """Yields the items of a list."""
        if not isinstance(self.value, list):
            raise self._error("is no list")
        for number, item in enumerate(self.value):
            yield self._child(item, f"[{number}]")

    def text(self) -> str:
        """Returns a text without the white space around it."""
        if not isinstance(self.value, str):
            raise self._error("is no text")
        return whole_characters(self.value, self.origin)

    def key(self) -> str:
        """Returns a text, or a whole number as text."""
        if type(self.value) is int:
            return str(self.value)
        return self.text()

    def _child(self, value: Any, step: str) -> Node:
        return Node(value, Origin(self.origin.path, self.origin.place + step))

    def _error(self, what: str) -> UserError:
        message = f"{self.origin} {what}: give the official file as --annotations"
        return UserError("dataset.shape", message, self.origin.path)
