"""The orientation and transparency of a file, read as the exported graph reads them.

`preprocessing.orientation` does the same in the graph, and says which parts of a file count.
"""

from __future__ import annotations

UPRIGHT = 1

_HEAD_BYTES = 2**18
_MOST_PARTS = 64
_MOST_ENTRIES = 128
_EXIF = b"Exif\0\0"
_FIRST_MARKER, _START_OF_SCAN, _APP1, _FILLED = 0xFFC0, 0xFFDA, 0xFFE1, 0xFFFF
# The tag of an orientation (0x0112), its type 3 and its count 1, by the byte order of the TIFF.
_ENTRIES = {"little": bytes((0x12, 1, 3, 0, 1, 0, 0, 0)), "big": bytes((1, 0x12, 0, 3, 0, 0, 0, 1))}


def jpeg_orientation(contents: bytes) -> int:
    """Returns the orientation of a JPEG, 1 to 8: the one in its first EXIF segment."""
    if _EXIF not in contents[:_HEAD_BYTES]:
        return UPRIGHT
    position = 2
    for _ in range(_MOST_PARTS + 1):
        marker, size = _number(contents, position, 2), _number(contents, position + 2, 2)
        if marker < _FIRST_MARKER or marker == _START_OF_SCAN:
            return UPRIGHT
        start = position + 4 + len(_EXIF)
        if marker == _APP1 and contents[position + 4 : start] == _EXIF:
            return _tiff_orientation(contents, start, position + 2 + size)
        # Any number of bytes 0xFF may stand before a marker.
        position += 1 if marker == _FILLED else 2 + size
    return UPRIGHT


def png_metadata(contents: bytes) -> tuple[int, bool]:
    """Returns the orientation of a PNG, 1 to 8, and whether it has transparency."""
    clear = contents[25:26] in (b"\4", b"\6")
    before_pixels = contents[:_HEAD_BYTES].partition(b"IDAT")[0]
    if b"eXIf" not in before_pixels and b"tRNS" not in before_pixels:
        return UPRIGHT, clear
    orientation, position = UPRIGHT, 8
    for _ in range(_MOST_PARTS + 1):
        size, name = _number(contents, position, 4), contents[position + 4 : position + 8]
        if name == b"eXIf":
            orientation = _tiff_orientation(contents, position + 8, position + 8 + size)
        clear = clear or name == b"tRNS"
        if name == b"IDAT" or size >= len(contents) - position:
            break
        position += 12 + size
    return orientation, clear


def _tiff_orientation(contents: bytes, start: int, end: int) -> int:
    orders = {b"II*\0": "little", b"MM\0*": "big"}
    order = orders.get(contents[start : start + 4])
    if order is None:
        return UPRIGHT
    directory = min(start + _number(contents, start + 4, 4, order), end)
    count = min(_number(contents, directory, 2, order), _MOST_ENTRIES)
    orientation = UPRIGHT
    for position in range(directory + 2, directory + 2 + 12 * count, 12):
        is_it = contents[position : position + 8] == _ENTRIES[order]
        if is_it and position + 12 <= end:
            orientation = _number(contents, position + 8, 2, order)
    return orientation if 1 <= orientation <= 8 else UPRIGHT


def _number(contents: bytes, position: int, length: int, order: str = "big") -> int:
    """Returns an unsigned number; zeros stand for what is beyond the end."""
    return int.from_bytes(contents[position : position + length].ljust(length, b"\0"), order)
