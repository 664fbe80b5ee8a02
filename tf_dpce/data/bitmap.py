"""BMP images, which CUHK-PEDES holds: `prepare` stores them as PNG, so that all else reads none.

Shards, training, exports and serving know JPEG and PNG alone.
"""

from __future__ import annotations

import io
import struct

from PIL import Image

from tf_dpce.preprocessing import status

_MARK = b"BM"
# Little-endian, behind the file's own header of 14 bytes: the length of the image's header, then
# width, height, planes, bits and, but in the oldest, shortest kind, the compression.
_HEADER = 14
_OLDEST = 12
_WHOLE = _HEADER + 20
# Plain, and plain with masks. Run lengths, of which a short file makes any number of pixels, are
# for drawings.
_UNCOMPRESSED = (0, 3)


def is_bitmap(contents: bytes) -> bool:
    """Returns whether the bytes of a file open as those of a BMP."""
    return contents.startswith(_MARK)


def png_of_bitmap(contents: bytes) -> tuple[bytes, int]:
    """Turns a BMP into a PNG of the same RGB pixels; alpha is dropped, as `image.decode` does.

    Args:
        contents: the bytes of a file, for which `is_bitmap` holds. Nothing is decoded before its
            header was judged by the limits of every image.

    Returns:
        The PNG and `status.OK`, or nothing and `TOO_MANY_BYTES`, `TOO_MANY_PIXELS` or
        `UNDECODABLE` (damaged, cut short, or compressed).
    """
    code = _judge(contents)
    if code != status.OK:
        return b"", code
    stream = io.BytesIO()
    try:
        with Image.open(io.BytesIO(contents), formats=("BMP",)) as image:
            image.convert("RGB").save(stream, "PNG")
    except (OSError, ValueError, IndexError, struct.error):
        # Of a damaged header or palette, or pixels that are not there.
        return b"", status.UNDECODABLE
    return stream.getvalue(), status.OK


def _judge(contents: bytes) -> int:
    if len(contents) > status.MAX_BYTES:
        return status.TOO_MANY_BYTES
    if len(contents) < _WHOLE:
        return status.UNDECODABLE
    (length,) = struct.unpack_from("<I", contents, _HEADER)
    form = "<HH" if length == _OLDEST else "<II"
    width, height = struct.unpack_from(form, contents, _HEADER + 4)
    (compression,) = struct.unpack_from("<I", contents, _HEADER + 16)
    if height >> 24 == 0xFF:
        # Negative, of an image whose rows are stored from the top.
        height = 2**32 - height
    if width * height > status.MAX_PIXELS:
        return status.TOO_MANY_PIXELS
    plain = length == _OLDEST or compression in _UNCOMPRESSED
    return status.OK if plain and width * height > 0 else status.UNDECODABLE
