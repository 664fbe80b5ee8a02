"""BMP images, which CUHK-PEDES holds: `prepare` stores them as PNG, so that all else reads none.

Shards, training, exports and serving know JPEG and PNG alone.
"""

from __future__ import annotations

import io
import math
import struct

from PIL.BmpImagePlugin import BmpImageFile

from tf_dpce.preprocessing import status

# Plain, and plain with masks. Run lengths, of which a short file makes any number of pixels, are
# for drawings.
_UNCOMPRESSED = (0, 3)
# What Pillow raises for a damaged header or palette, or for pixels that are not there.
_DAMAGE = (OSError, ValueError, IndexError, SyntaxError, struct.error)


def is_bitmap(contents: bytes) -> bool:
    """Returns whether the bytes of a file begin as those of a BMP."""
    return contents.startswith(b"BM")


def png_of_bitmap(contents: bytes) -> tuple[bytes, int]:
    """Turns a BMP into a PNG of the same RGB pixels; alpha is dropped, as `image.decode` does.

    Args:
        contents: the bytes of a file, for which `is_bitmap` holds. Nothing is decoded before its
            header is within the limits of every image.

    Returns:
        The PNG and `status.OK`, or no bytes and `TOO_MANY_BYTES`, `TOO_MANY_PIXELS` or
        `UNDECODABLE` (damaged, cut short, or compressed).
    """
    if len(contents) > status.MAX_BYTES:
        return b"", status.TOO_MANY_BYTES
    stream = io.BytesIO()
    try:
        # This reads the header alone. `Image.open` would warn of sizes by limits of its own.
        with BmpImageFile(io.BytesIO(contents)) as image:
            if math.prod(image.size) > status.MAX_PIXELS:
                return b"", status.TOO_MANY_PIXELS
            if image.info["compression"] not in _UNCOMPRESSED:
                return b"", status.UNDECODABLE
            image.convert("RGB").save(stream, "PNG")
    except _DAMAGE:
        return b"", status.UNDECODABLE
    return stream.getvalue(), status.OK
