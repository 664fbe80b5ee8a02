"""The pixels of the runtimes are those of the exported graph, whatever people bring."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.heavy import blank_jpeg, blank_png, png_chunk
from tests.samples import encoded
from tests.unit.preprocessing.test_oddities import ODDITIES
from tf_dpce.export.serving_module import decode_images
from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.convert import to_png
from tf_dpce.preprocessing.plain_image import image_pixels

SIZE = 40
LIMITS = status.Limits(max_pixels=3_000_000)
# Of 255; sums of a thousand numbers in another order.
TOLERANCE = 0.02


def waves(width: int, height: int, kind: str, **how) -> bytes:
    """Smooth waves of colour, and noise in some places."""
    draw = np.random.default_rng(width)
    few = draw.integers(0, 256, (height // 7 + 2, width // 7 + 2, 3), np.uint8)
    smooth = Image.fromarray(few).resize((width, height), Image.Resampling.BICUBIC)
    return encoded(smooth, kind, **how)


def png(depth: int, kind: int, row: bytes, width: int, *clear: int) -> bytes:
    """A PNG of one row, in which one grey or colour is transparent."""
    header = struct.pack(">IIBBBBB", width, 1, depth, kind, 0, 0, 0)
    transparent = png_chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear)) if clear else b""
    pixels = png_chunk(b"IDAT", zlib.compress(b"\0" + row)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + transparent + pixels


SIDES = ((1, 1), (2, 90), (SIZE, SIZE), (79, 80), (81, 160), (321, 330), (1_501, 41), (64, 1_700))
IMAGES = {
    **{name: to_png(contents)[0] for name, contents in ODDITIES.items()},
    **{
        f"{width} x {height}, {name}": waves(width, height, kind, **how)
        for width, height in SIDES
        for name, kind, how in (
            ("PNG", "PNG", {}),
            ("4:4:4", "JPEG", {"subsampling": 0}),
            ("4:2:2, progressive", "JPEG", {"subsampling": 1, "progressive": True}),
            ("4:2:0", "JPEG", {"subsampling": 2}),
        )
    },
    "grey of 1 bit, one clear": png(1, 0, b"\xa5", 8, 1),
    "grey of 2 bits, one clear": png(2, 0, b"\x1b", 4, 1),
    "grey of 4 bits, one clear": png(4, 0, b"\x3c", 2, 3),
    "grey of 8 bits, one clear": png(8, 0, b"\3\x0c", 2, 3),
    "grey of 16 bits, one clear": png(16, 0, b"\3\x0c\3\x0d", 2, 0x30C),
    "colours of 8 bits, one clear": png(8, 2, b"\3\x0c\3\3\x0c\4", 2, 3, 12, 3),
    "colours of 16 bits": png(16, 2, b"\3\xff\4\0\5\xfe" * 2, 2),
    "grey and alpha of 16 bits": png(16, 4, b"\3\xfc\x80\x0c\xff\x0d\x33\x33", 2),
    "colours and alpha of 16 bits": png(16, 6, b"\3\xfc" * 4 + b"\3\x0d" * 3 + b"\x80\xff", 2),
    "nothing": b"",
    "a text": b"no image",
    "a page": b"%PDF-1.7",
    "too many pixels": blank_png(2_000, 1_501),
    "too many pixels of a JPEG": blank_jpeg(2_000, 1_501),
    "a PNG cut in its header": blank_png(9, 9)[:30],
    "a PNG cut in its pixels": waves(90, 90, "PNG")[:-200],
    "a JPEG cut in its pixels": waves(90, 90, "JPEG")[:-200],
    "a JPEG cut in its header": waves(90, 90, "JPEG")[:40],
    "the mark of a JPEG": b"\xff\xd8\xff",
    "too many scans": waves(90, 90, "JPEG")[:-2] + b"\xff\xda\0\x0c\3" * 70,
    "too many packed texts": waves(9, 9, "PNG") + b"zTXt" * 70,
}


@pytest.mark.parametrize("resize", ["center_crop", "stretch"])
def test_pixels_and_statuses_are_those_of_the_graph(resize: str):
    decode = tf.function(
        lambda rows: decode_images(rows, SIZE, resize, LIMITS),
        [tf.TensorSpec([None], tf.string)],
        autograph=False,
    )
    expected, codes = (each.numpy() for each in decode(list(IMAGES.values())))
    differ = {}
    for name, wanted, code in zip(IMAGES, expected, codes.tolist(), strict=True):
        found, pixels = image_pixels(IMAGES[name], SIZE, resize, LIMITS)
        if found != code:
            differ[name] = f"status {found}, not {code}"
        elif code == status.OK and np.abs(pixels - wanted).max() > TOLERANCE:
            differ[name] = np.abs(pixels - wanted).max()
    assert not differ
    assert set(codes.tolist()) == {0, 1, 3, 4, 5}


def test_a_file_beyond_the_limit_is_not_opened():
    contents = waves(90, 90, "JPEG")
    limits = status.Limits(max_bytes=len(contents) - 1)
    assert image_pixels(contents, SIZE, "center_crop", limits) == (status.TOO_MANY_BYTES, None)
