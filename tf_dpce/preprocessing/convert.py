"""Turns images of other formats into PNG: training, exports and servers know JPEG and PNG alone.

`prepare`, `embed`, `search`, `encode_images` and the contact sheet all read files through `to_png`.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
from collections.abc import Callable

import numpy as np
from PIL import ExifTags, Image
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.file_kinds import file_kind, has_heif

# These read a header alone. `Image.open` would warn of sizes by limits of its own.
_OPENERS: dict[str | None, Callable[[io.BytesIO], Image.Image]] = {
    "AVIF": AvifImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
    "TIFF": TiffImageFile,
    "WebP": WebPImageFile,
}
# What Pillow raises for a damaged header or palette, or for pixels that are not there; and what it
# only warns of, if warnings are errors.
DAMAGE = (
    *(OSError, ValueError, LookupError, SyntaxError, TypeError, EOFError, struct.error, Warning),
    *(AttributeError, ArithmeticError, RuntimeError, Image.DecompressionBombError),
)
# It warns of damaged tags and does not name the file. Several threads convert images, so that no
# `catch_warnings` can be put around it.
warnings.filterwarnings("ignore", module=r"PIL\.")
# A PNG takes ten times the bytes of other formats. One whose shorter side has twice this length is
# halved, as a JPEG is while it is decoded; no model takes larger images than these.
_SHORTEST = 1024
_TURNS = dict(
    enumerate(
        (
            Image.Transpose.FLIP_LEFT_RIGHT,
            Image.Transpose.ROTATE_180,
            Image.Transpose.FLIP_TOP_BOTTOM,
            Image.Transpose.TRANSPOSE,
            Image.Transpose.ROTATE_270,
            Image.Transpose.TRANSVERSE,
            Image.Transpose.ROTATE_90,
        ),
        start=2,
    )
)


def to_png(contents: bytes) -> tuple[bytes, int]:
    """Turns BMP, GIF, TIFF, WebP, AVIF and, with the extra `heif`, HEIC into PNG.

    The PNG holds the first frame, upright, in 8 bits, with its transparency. Nothing is decoded
    before the header is within the limits of every image.

    Args:
        contents: the bytes of a file; those of another kind are returned as they are.

    Returns:
        The bytes to use, and a status; if it is not `OK`, the file cannot be used and the bytes
        are empty.
    """
    of_kind = opener(file_kind(contents))
    if of_kind is None:
        return contents, status.OK
    if len(contents) > status.MAX_BYTES:
        return b"", status.TOO_MANY_BYTES
    stream = io.BytesIO()
    try:
        with of_kind(io.BytesIO(contents)) as image:
            if math.prod(image.size) > status.MAX_PIXELS:
                return b"", status.TOO_MANY_PIXELS
            pixels = _colours(_upright(image))
            while min(pixels.size) >= 2 * _SHORTEST:
                pixels = pixels.reduce(2)
            # Neither a colour profile nor an orientation that is applied already.
            pixels.info.clear()
            pixels.save(stream, "PNG", compress_level=1)
    except DAMAGE:
        return b"", status.UNDECODABLE
    return stream.getvalue(), status.OK


def opener(kind: str | None) -> Callable[[io.BytesIO], Image.Image] | None:
    """Returns what reads the header of a kind of file that `to_png` turns into PNG."""
    if kind == "HEIC" and has_heif():
        from pillow_heif import HeifImageFile

        return HeifImageFile
    return _OPENERS.get(kind)


def _upright(image: Image.Image) -> Image.Image:
    """Applies the orientation of EXIF; Pillow itself has applied that of TIFF and HEIC."""
    # No viewer reads it there, but Pillow does.
    for name in ("xmp", "XML:com.adobe.xmp"):
        image.info.pop(name, None)
    image.load()
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except DAMAGE:
        return image
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _colours(image: Image.Image) -> Image.Image:
    """Returns RGB, or RGBA if there is transparency."""
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scales deeper greys; of whole or real numbers white is the usual one that holds them all."""
    values = np.asarray(image).astype(np.float32)
    whites = {"F": (1, 255, 65535), "I": (255, 65535, 2**31)}.get(image.mode, (65535,))
    white = next((white for white in whites if values.max() <= white), None)
    if white is None or not values.min() >= 0:
        raise ValueError("no greys")
    return Image.fromarray(np.round(values * (255 / white)).astype(np.uint8))
