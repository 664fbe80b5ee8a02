"""Status codes of an encoded image or caption: the table that exports promise not to change."""

from __future__ import annotations

from dataclasses import dataclass

OK = 0
EMPTY = 1
TOO_MANY_BYTES = 2
WRONG_TYPE = 3
TOO_MANY_PIXELS = 4
UNDECODABLE = 5
NO_KNOWN_WORD = 6

REASONS = {
    OK: "ok",
    EMPTY: "empty",
    TOO_MANY_BYTES: "more bytes than the limit",
    WRONG_TYPE: "neither JPEG nor PNG",
    TOO_MANY_PIXELS: "more pixels than the limit",
    UNDECODABLE: "cannot be decoded",
    NO_KNOWN_WORD: "no word of the vocabulary",
}

MAX_BYTES = 32 * 2**20
MAX_PIXELS = 64_000_000
MAX_CAPTION_BYTES = 64 * 2**10
# Scans of a JPEG, packed texts of a PNG: a few bytes each, a tenth of a second to unpack.
MAX_PARTS = 64


@dataclass(frozen=True)
class Limits:
    """Limits of an encoded image.

    Attributes:
        max_bytes: largest size of the file.
        max_pixels: largest product of the declared width and height.
    """

    max_bytes: int = MAX_BYTES
    max_pixels: int = MAX_PIXELS
