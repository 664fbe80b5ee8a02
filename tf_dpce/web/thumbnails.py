"""Small copies of indexed images: made when they are first asked for, and stored in a cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

from tf_dpce.drawing import thumbnails
from tf_dpce.errors import UserError
from tf_dpce.files import cache_folder, publish_bytes, read_at_most
from tf_dpce.logging import logger
from tf_dpce.preprocessing.convert import to_png
from tf_dpce.preprocessing.status import MAX_BYTES

SMALL, LARGE = 320, 1600  # longest sides, in pixels

_AT_ONCE = 2  # large images that are decoded at the same time, each of hundreds of megabytes


class Thumbnails:
    """Makes and stores small copies of the images of an index.

    A copy is named by the digest of the image's file, so that it is made once for all indexes, and
    what has taken the place of an indexed image is not shown. For that the index must know digests.

    Args:
        folder: where they are stored (default: `thumbnails` in the user's cache folder).
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or cache_folder("thumbnails")
        self._slots = BoundedSemaphore(_AT_ONCE)

    def jpeg(self, record: Mapping[str, Any], side: int) -> bytes:
        """Returns the copy of an image as JPEG: upright, on white, without any metadata.

        Args:
            record: columns of the image; `path` and `content` count.
            side: the largest width and height, in pixels; smaller images are not enlarged.

        Raises:
            UserError: the file is missing, cannot be shown or has changed, or its digest is not
                known.
        """
        path, digest = Path(record["path"]), record.get("content")
        if digest is None:
            raise _unshown("of unknown content: embed and index again", path)
        stored = self._folder / digest[:2] / f"{digest}-{side}.jpg"
        try:
            return stored.read_bytes()
        except OSError:
            pass
        with self._slots:
            made = small_jpeg(_contents(path, digest), side)
        self._store(stored, made)
        return made

    def _store(self, path: Path, made: bytes) -> None:
        try:
            publish_bytes(path, made)
        except OSError as error:
            # A full disk costs time, not the image.
            logger.warning(f"a thumbnail could not be stored: {error.strerror}")


def small_jpeg(contents: bytes, side: int) -> bytes:
    """Returns an image as JPEG, as the model sees it, but whole.

    Args:
        contents: the bytes of a file of any kind that `embed` takes.
        side: see `Thumbnails.jpeg`.

    Raises:
        UserError: the image is too large or cannot be decoded.
    """
    made = thumbnails.small_jpeg(contents, side)
    if isinstance(made, str):
        raise _unshown(made)
    return made


def _contents(path: Path, digest: str) -> bytes:
    """Returns the bytes of a file, if it is the one that was indexed."""
    try:
        # Without waiting for the other end, if somebody has put a pipe there.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, "rb") as stream:
            contents = read_at_most(stream, MAX_BYTES + 1)
    except FileNotFoundError:
        raise _unshown("missing", path) from None
    except OSError:
        raise _unshown("cannot be read", path) from None
    # Of a prepared image the digest is that of the PNG in its shard.
    forms = (lambda: contents, lambda: to_png(contents)[0])
    if all(digest != hashlib.sha256(form()).hexdigest() for form in forms):
        raise _unshown("changed since it was indexed", path)
    return contents


def _unshown(reason: str, path: Path | None = None) -> UserError:
    return UserError("web.image", reason, path)
