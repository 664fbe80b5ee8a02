"""What a name of an image may mean beside what it says: addresses, other systems' paths, ~."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import unquote

# How a name differs from that of the file, in the words of the log.
_FILE_ADDRESS = "with file://"
_SLASHES = "with \\ for / or a drive"
_PERCENT = "with %20 or the like"
_HOME = "with ~"

_FILE = re.compile(r"^file:(//[^/]*)?", re.IGNORECASE)
_DRIVE = re.compile(r"^(?=[a-z]:)", re.IGNORECASE)


def spellings(name: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yields the paths that a name may mean, the least changed first, and the kinds of change."""
    path, kinds = name.strip(), ()
    yield path, kinds
    for kind, change in (
        (_FILE_ADDRESS, lambda text: _FILE.sub("", text, count=1)),
        (_SLASHES, lambda text: _DRIVE.sub("/", text.replace("\\", "/"), count=1)),
        (_PERCENT, unquote),
        (_HOME, os.path.expanduser),
    ):
        if change(path) != path:
            path, kinds = change(path), (*kinds, kind)
            yield path, kinds
