"""Small copies of images, from the bytes of their files."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from tf_dpce.preprocessing.convert import to_png
from tf_dpce.preprocessing.plain_image import whole_pixels
from tf_dpce.preprocessing.status import OK, TOO_MANY_BYTES, TOO_MANY_PIXELS, Limits

_SHORTEST = 400


def small_jpeg(contents: bytes, side: int) -> bytes | str:
    """Returns an image as JPEG, as the model sees it, but whole; or why it cannot be shown.

    The copy is upright, on white, and has no metadata.

    Args:
        contents: the bytes of a file of any kind that `prepare` and `embed` take.
        side: the largest width and height, in pixels; smaller images are not enlarged.

    Example:
        >>> small_jpeg(b"no image", 320)
        'cannot be shown'
    """
    image = shown_image(contents)
    if isinstance(image, str):
        return image
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def shown_image(contents: bytes) -> Image.Image | str:
    """Returns an image as the model sees it, but whole; or why it cannot be shown."""
    contents, code = to_png(contents)
    pixels = code if code != OK else whole_pixels(contents, _SHORTEST, Limits())
    if isinstance(pixels, int):
        large = pixels in (TOO_MANY_BYTES, TOO_MANY_PIXELS)
        return "too large to show" if large else "cannot be shown"
    return Image.fromarray(np.ascontiguousarray(pixels))
