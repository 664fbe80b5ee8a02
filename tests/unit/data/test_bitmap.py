"""BMP images become PNG without loss; damaged and huge ones are rejected undecoded."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile

from tests.samples import bitmap_of_size, image, person_image, truncated, write_json
from tf_dpce.data.bitmap import is_bitmap, png_of_bitmap
from tf_dpce.data.input_pipeline import parse_record, records
from tf_dpce.data.manifest import Manifest
from tf_dpce.data.prepare import prepare
from tf_dpce.datasets.cuhk_pedes import read_cuhk_pedes
from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.image import decode


def encoded(pixels: np.ndarray, mode: str | None = None) -> bytes:
    stream = io.BytesIO()
    drawn = Image.fromarray(pixels)
    (drawn.convert(mode) if mode else drawn).save(stream, "BMP")
    return stream.getvalue()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).integers(0, 256, shape, np.uint8)


def from_top(contents: bytes) -> bytes:
    """The same image, upside down: rows are stored from the top where the height is negative."""
    height = int.from_bytes(contents[22:26], "little")
    return contents[:22] + (-height).to_bytes(4, "little", signed=True) + contents[26:]


# Rows of 13 pixels are padded to 4 bytes at every depth.
COLOURS, GREYS, DEEP = noise(9, 13, 3), noise(9, 13), noise(9, 13, 4)
PALETTE = np.asarray(Image.fromarray(COLOURS).convert("P").convert("RGB"))
WHOLE = {
    "24 bits": (encoded(COLOURS), COLOURS),
    "24 bits from the top": (from_top(encoded(COLOURS)), COLOURS[::-1]),
    "32 bits": (encoded(DEEP), DEEP[:, :, :3]),
    "8 grey bits": (encoded(GREYS), np.repeat(GREYS[:, :, None], 3, axis=2)),
    "a palette": (encoded(COLOURS, "P"), PALETTE),
    "1 bit": (encoded(GREYS > 99), np.repeat((GREYS > 99)[:, :, None] * np.uint8(255), 3, axis=2)),
    "one pixel": (bitmap_of_size(1, 1), np.array([[[3, 2, 1]]], np.uint8)),
}


def test_training_decodes_the_pixels_of_the_bmp():
    for kind, (contents, pixels) in WHOLE.items():
        assert is_bitmap(contents), kind
        png, code = png_of_bitmap(contents)
        assert code == status.OK, kind
        np.testing.assert_array_equal(decode(tf.constant(png)), pixels)


REJECTED = {
    "its mark alone": (b"BM", status.UNDECODABLE),
    "a header cut short": (image("BMP")[:33], status.UNDECODABLE),
    "pixels cut short": (truncated(image("BMP", size=(90, 70))), status.UNDECODABLE),
    "no header that is known": (b"BM" + b"\xff" * 60, status.UNDECODABLE),
    "a header of another length": (
        image("BMP").replace(b"\x28\0\0\0", b"\x29\0\0\0", 1),
        status.UNDECODABLE,
    ),
    "no area": (bitmap_of_size(0, 9), status.UNDECODABLE),
    "run lengths": (bitmap_of_size(1, 1, compression=1), status.UNDECODABLE),
    "too wide": (bitmap_of_size(64_001, 1_000), status.TOO_MANY_PIXELS),
    "too high, from the top": (bitmap_of_size(1_000, -64_001), status.TOO_MANY_PIXELS),
    "a height out of reach": (bitmap_of_size(1, -(2**31)), status.TOO_MANY_PIXELS),
    "too long": (image("BMP") + b"\0" * status.MAX_BYTES, status.TOO_MANY_BYTES),
}


def test_what_is_damaged_or_huge_is_rejected():
    for kind, (contents, code) in REJECTED.items():
        assert png_of_bitmap(contents) == (b"", code), kind


def test_nothing_is_decoded_before_the_header_is_within_the_limits(monkeypatch: pytest.MonkeyPatch):
    def load(self: BmpImageFile) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(BmpImageFile, "load", load)
    for kind in ("too wide", "too high, from the top", "a height out of reach", "run lengths"):
        assert png_of_bitmap(REJECTED[kind][0])[1] != status.OK
    with pytest.raises(AssertionError, match="decoded"):
        png_of_bitmap(bitmap_of_size(1, 1))


def test_no_damage_of_a_header_ends_in_a_traceback():
    draw = np.random.default_rng(0)
    whole = encoded(COLOURS, "P")
    for _ in range(2_000):
        contents = bytearray(whole)
        for position in draw.integers(2, 60, 2):
            contents[position] = draw.integers(256)
        png, code = png_of_bitmap(bytes(contents))
        assert (code == status.OK) == bool(png)


def test_the_images_of_viper_in_cuhk_pedes_are_in_the_shards_bit_for_bit(tmp_path: Path):
    splits = ("train", "val", "test")
    names = ("cam_a/000_45.bmp", "cam_b/001_90.bmp", "cam_a/002_0.bmp")
    for number, name in enumerate(names):
        path = tmp_path / "imgs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(np.roll(COLOURS, number, axis=0)))
    people = [person_image(*item) for item in zip(names, range(3), splits, strict=True)]
    write_json(tmp_path / "reid_raw.json", people)
    prepared = prepare(read_cuhk_pedes(tmp_path), tmp_path / "out", source="cuhk_pedes")
    assert prepared.rejected == () and prepared.manifest.bitmaps == 3
    assert Manifest.load(tmp_path / "out") == prepared.manifest
    for number, split in enumerate(splits):
        (record,) = map(parse_record, records(tmp_path / "out", split))
        assert record["image_id"] == names[number].encode()
        assert record["path"] == str(tmp_path / "imgs" / names[number]).encode()
        found = tf.io.decode_png(record["image"], channels=3)
        np.testing.assert_array_equal(found, np.roll(COLOURS, number, axis=0))
