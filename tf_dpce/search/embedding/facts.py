"""What is known of an image besides its pixels: its place, size and dates, and its content.

Only headers are read, by Pillow, which decodes no pixel for it.
"""

from __future__ import annotations

import hashlib
import io
import re
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from tf_dpce.preprocessing.convert import DAMAGE, opener
from tf_dpce.preprocessing.file_kinds import file_kind

_EPOCH = datetime(1970, 1, 1)
# Cameras differ in what stands between the numbers; an unset clock writes zeros or blanks.
_TAKEN = re.compile(r"(\d{4})\D(\d\d)\D(\d\d)\D(\d\d)\D(\d\d)\D(\d\d)(?!\d)", re.ASCII)
_SIDEWAYS = (5, 6, 7, 8)  # orientations of EXIF that exchange width and height


def image_facts(
    item_id: str, contents: bytes, modified_ns: int | None = None
) -> dict[str, str | int | datetime | None]:
    """Returns the columns of an image that filters can ask for.

    Nothing that is wrong with a file is an error: what cannot be found out is None.

    Args:
        item_id: id of the image: its path below the folder of the collection.
        contents: the bytes of its file, as they are.
        modified_ns: time of the file's last change, in nanoseconds since 1970.

    Returns:
        `folder` (of the id; empty for the top one) and `name`; `width` and `height` in pixels, of
        the upright image; `bytes`; `modified`, in UTC, in whole microseconds; `taken`, EXIF's
        DateTimeOriginal, in the camera's time; `content`, the SHA-256 of the bytes.

    Example:
        >>> facts = image_facts("pets/dog.jpg", Path("dog.jpg").read_bytes())
        >>> facts["folder"], facts["name"], facts["width"], facts["taken"]
        ('pets', 'dog.jpg', 80, None)
    """
    folder, _, name = item_id.rpartition("/")
    width, height, taken = _header_facts(contents)
    return {
        "folder": folder,
        "name": name,
        "width": width,
        "height": height,
        "bytes": len(contents),
        "modified": _moment(modified_ns),
        "taken": taken,
        "content": hashlib.sha256(contents).hexdigest(),
    }


def image_schema() -> pa.Schema:
    """Returns the columns of an image's record: `id`, `path` and its facts."""
    moment = pa.timestamp("us")
    kinds = {"width": pa.int32(), "height": pa.int32(), "bytes": pa.int64()}
    kinds |= {"modified": moment, "taken": moment}
    names = ("id", "path", *image_facts("", b""))
    return pa.schema([(name, kinds.get(name, pa.string())) for name in names])


def _header_facts(contents: bytes) -> tuple[int | None, int | None, datetime | None]:
    """Returns width, height and date of a file's header."""
    kind = file_kind(contents)
    of_kind = {"JPEG": JpegImageFile, "PNG": PngImageFile}.get(kind or "") or opener(kind)
    if of_kind is None:
        return None, None, None
    try:
        with of_kind(io.BytesIO(contents)) as image:
            width, height = image.size
            turned, taken = _exif_facts(image)
    except DAMAGE:
        return None, None, None
    # Pillow itself exchanges the sides of a TIFF.
    return (height, width, taken) if turned and kind != "TIFF" else (width, height, taken)


def _exif_facts(image: Image.Image) -> tuple[bool, datetime | None]:
    """Returns whether the image lies on its side, and when it was taken."""
    try:
        # Not a PNG's own method, which decodes the pixels to look behind them.
        exif: Any = Image.Image.getexif(image)
        turned = exif.get(ExifTags.Base.Orientation) in _SIDEWAYS
    except DAMAGE:
        return False, None
    try:
        value = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)
        found = _TAKEN.match(value if isinstance(value, str) else "")
        return turned, datetime(*map(int, found.groups())) if found else None
    except DAMAGE:
        return turned, None


def _moment(nanoseconds: int | None) -> datetime | None:
    if nanoseconds is None:
        return None
    try:
        return _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return None
