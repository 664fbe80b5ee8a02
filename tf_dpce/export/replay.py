"""Warm-up requests, read as TF Serving's file has them, without its Python package."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from tf_dpce.export.wire import Message

# The path and the format, a TFRecord of PredictionLog, are TF Serving's own.
FILE = Path("assets.extra") / "tf_serving_warmup_requests"

# A record: its length, a checksum of that, its bytes, a checksum of these.
_LENGTH = struct.Struct("<Q4x")
_CHECKSUM_BYTES = 4

# An endpoint and its inputs by name.
Request = tuple[str, dict[str, list[bytes]]]


def read_warmup(path: Path) -> Iterator[Request]:
    """Yields each request of a warm-up file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is cut short.
        google.protobuf.message.DecodeError: it is damaged.
    """
    for record in _records(path.read_bytes()):
        # The numbers of fields are those of TF Serving's protocol: a log, its request.
        request = Message(record).message(6).message(1)
        inputs = {key: tensor.all(8) for key, tensor in request.mapping(2).items()}
        yield request.message(1).text(3), inputs


def _records(content: bytes) -> Iterator[bytes]:
    place = 0
    while place < len(content):
        start = place + _LENGTH.size
        if start > len(content):
            raise ValueError("a record is cut short")
        (length,) = _LENGTH.unpack_from(content, place)
        place = start + length + _CHECKSUM_BYTES
        if place > len(content):
            raise ValueError("a record is cut short")
        yield content[start : start + length]
