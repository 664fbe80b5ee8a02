"""JSON files of annotations, with errors that name file, key and remedy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tf_dpce.datasets.lines import whole_characters
from tf_dpce.datasets.paths import existing_file
from tf_dpce.errors import UserError


def read_annotations(path: Path, remedy: str) -> Node:
    """Reads a file of annotations whole.

    Args:
        path: the file.
        remedy: what to give instead of a file that is missing or of another shape, for messages.

    Raises:
        UserError: the file is missing, not UTF-8 or not JSON.
    """
    try:
        with existing_file(path, remedy).open(encoding="utf-8-sig") as stream:
            return Node(json.load(stream), path, remedy)
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8: save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not whole JSON, {error}: fetch it again") from None


@dataclass(frozen=True, slots=True)
class Node:
    """A JSON value that knows where it stands.

    Attributes:
        value: the value.
        file: the file it is from.
        remedy: what to do where the file is of another shape.
        place: the keys that lead to it, such as `images[3].split`; empty for the whole file.
    """

    value: Any
    file: Path
    remedy: str
    place: str = ""

    @property
    def where(self) -> str:
        """File and place, for messages."""
        return f"{self.file} {self.place}" if self.place else str(self.file)

    def __contains__(self, key: str) -> bool:
        return isinstance(self.value, dict) and key in self.value

    def __getitem__(self, key: str) -> Node:
        """Returns what an object holds under a key.

        Raises:
            UserError: this is no object, or has no such key.
        """
        if key not in self:
            self._refuse(f"has no key {key!r}")
        place = f"{self.place}.{key}" if self.place else key
        return Node(self.value[key], self.file, self.remedy, place)

    def items(self) -> Iterator[Node]:
        """Yields the items of a list.

        Raises:
            UserError: this is no list.
        """
        if not isinstance(self.value, list):
            self._refuse("is no list")
        for number, item in enumerate(self.value):
            yield Node(item, self.file, self.remedy, f"{self.place}[{number}]")

    def text(self) -> str:
        """Returns a text without the white space around it.

        Raises:
            UserError: this is no text, or holds half a character.
        """
        if not isinstance(self.value, str):
            self._refuse("is no text")
        return whole_characters(self.value.strip(), self.where)

    def key(self) -> str:
        """Returns a whole number, or a text, as text.

        Raises:
            UserError: this is neither.
        """
        if isinstance(self.value, bool) or not isinstance(self.value, str | int):
            self._refuse("is neither a whole number nor a text")
        return str(self.value) if isinstance(self.value, int) else self.text()

    def _refuse(self, what: str) -> NoReturn:
        raise UserError(f"{self.where} {what}: {self.remedy}")
