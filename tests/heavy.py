"""Images that are small as files and large as pixels, and what a process held at its peak."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from PIL import Image

from tests.samples import encoded


def blank_png(width: int, height: int, grey: bool = False, interlaced: bool = False) -> bytes:
    """Returns a black PNG, of one bit a pixel or of 8 bits a colour, in a thousandth of that."""
    kind = (8, 2) if not grey else (1, 0)
    bits = width * (24 if not grey else 1)
    # Each line begins with its filter. An interlaced image has some lines more, each shorter.
    rows = bytes(((bits + 7) // 8 + 1) * height * (5 if interlaced else 4) // 4)
    header = struct.pack(">IIBBBBB", width, height, *kind, 0, 0, interlaced)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(rows, 9), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*item) for item in chunks.items())


def blank_jpeg(width: int, height: int, mode: str = "RGB", progressive: bool = False) -> bytes:
    """Returns a JPEG of one colour, without chroma subsampling."""
    image = Image.new(mode, (width, height))
    return encoded(image, "JPEG", progressive=progressive, subsampling=0)


def peak_mebibytes(process: int | str = "self") -> int:
    """Returns the most memory that a process, by its number, ever held."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) // 1024
    raise OSError(f"/proc/{process}/status has no VmHWM")


def png_chunk(name: bytes, content: bytes) -> bytes:
    """Returns a chunk of a PNG, with its length and its checksum."""
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum
