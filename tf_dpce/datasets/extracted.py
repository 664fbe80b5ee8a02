"""Images that lie inside another file, written into files of their own.

Training reads images in random order, and contact sheets show them by path, so that every image
needs a path. Parquet tables and tar shards hold images without one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PureWindowsPath

from tf_dpce.errors import UserError
from tf_dpce.remote_path import AnyPath, RemotePath

MARK = ".extracted"

_MARK_TEXT = "prepare extracted these images, and will replace them when it extracts here again.\n"
_LONGEST_NAME = 200  # bytes; file systems take 255
_SUFFIXES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png"}


class ExtractedImages:
    """A folder that images are extracted into, in place of those of an earlier run.

    Nothing is written before the first image. A reader calls `reserve` if it knows how much will
    follow, and then `add` for each image; the paths are a function of the images and their order.

    Args:
        folder: the folder to write.
        before: what to do before the folder is changed, such as declaring other files invalid.

    Example:
        >>> images = ExtractedImages(folder / "extracted")
        >>> images.add("photos/dog.jpg", b"...").name, images.add("dog.jpg", b"other").name
        ('dog.jpg', 'dog-2.jpg')
    """

    def __init__(self, folder: AnyPath, before: Callable[[], None] = lambda: None) -> None:
        self.folder = folder.resolve()
        self._before = before
        self._names: dict[tuple[str, bytes], str] = {}
        self._used: set[str] = set()
        self._numbers: Counter[str] = Counter()

    def reserve(self, size: int) -> None:
        """Makes sure that images of `size` bytes in all fit onto the disk.

        Raises:
            UserError: they do not.
        """
        if isinstance(self.folder, RemotePath):
            # It is not known yet whether there are images to write.
            return
        parent = next(parent for parent in self.folder.parents if parent.exists())
        free = shutil.disk_usage(parent).free
        if size > free:
            message = f"{self.folder}: the images need {size:,} bytes, but {free:,} are free"
            message = f"{message}: make room, or choose another --out"
            raise UserError("extracted.room", message, self.folder)

    def add(self, name: str, contents: bytes) -> Path:
        """Writes an image, unless the same bytes were added under the same name.

        Args:
            name: the path that the image has in its archive. Its last part becomes the name of
                the file, with a number if other bytes have that name already.
            contents: the bytes of the image.

        Returns:
            The absolute path of the file.

        Raises:
            UserError: the folder holds something that was not extracted, or is in an object store.
        """
        if not self._names:
            self._begin()
        name = _file_name(name, contents)
        key = name, hashlib.sha256(contents).digest()
        if key not in self._names:
            self._names[key] = self._unused(name)
            (self.folder / self._names[key]).write_bytes(contents)
        return self.folder / self._names[key]

    def _begin(self) -> None:
        folder_here(self.folder)
        mark = self.folder / MARK
        if self.folder.exists() and not mark.exists() and any(self.folder.iterdir()):
            message = f"{self.folder} holds files that were not extracted"
            message = f"{message}: move it, or write elsewhere"
            raise UserError("extracted.folder", message, self.folder)
        self._before()
        self.folder.mkdir(parents=True, exist_ok=True)
        # The mark goes first: whenever this process ends, the next one knows whose these are.
        mark.write_text(_MARK_TEXT)
        for path in self.folder.iterdir():
            if path != mark:
                path.unlink()

    def _unused(self, name: str) -> str:
        stem, suffix = os.path.splitext(name)
        unused = name
        while unused in self._used:
            self._numbers[name] += 1
            unused = f"{stem}-{self._numbers[name] + 1}{suffix}"
        self._used.add(unused)
        return unused


def folder_here(folder: AnyPath) -> Path:
    """Returns the absolute path of a folder that images are to be written into.

    Raises:
        UserError: it is in an object store.
    """
    if isinstance(folder, RemotePath):
        message = f"images are written into {folder} one by one, which a store is too slow for"
        remedy = "give a folder of this machine as --out, then copy it there"
        raise UserError("extracted.remote", f"{message}: {remedy}", folder)
    return folder.resolve()


def _file_name(name: str, contents: bytes) -> str:
    """Returns the last part of a path, fit to be the name of a file that is not hidden."""
    last = PureWindowsPath(name.replace("\0", "")).name.strip().lstrip(".") or "image"
    stem, suffix = os.path.splitext(last)
    if not suffix:
        suffix = next((end for start, end in _SUFFIXES.items() if contents.startswith(start)), "")
    suffix = suffix.encode(errors="replace")[:20]
    stem = stem.encode(errors="replace")[: _LONGEST_NAME - len(suffix)]
    return (stem + suffix).decode(errors="ignore")
