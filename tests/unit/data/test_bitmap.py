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
from tf_dpce.data.input_pipeline import parse_record, records
from tf_dpce.data.prepare import prepare
from tf_dpce.data.validate_images import storable
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
        png, reason = storable(contents)
        assert reason is None, kind
        np.testing.assert_array_equal(decode(tf.constant(png)), pixels)


REJECTED = {
    "its mark alone": (b"BM", status.UNDECODABLE),
    "a header cut short": (image("BMP")[:33], status.UNDECODABLE),
    "pixels cut short": (truncated(image("BMP", size=(90, 70))), status.UNDECODABLE),
    "no header that is known": (b"BM" + b"\xff" * 60, status.UNDECODABLE),
    "no area": (bitmap_of_size(0, 9), status.UNDECODABLE),
    "run lengths": (bitmap_of_size(1, 1, compression=1), status.UNDECODABLE),
    "too wide": (bitmap_of_size(64_001, 1_000), status.TOO_MANY_PIXELS),
    "too high, from the top": (bitmap_of_size(1_000, -64_001), status.TOO_MANY_PIXELS),
    "too long": (image("BMP") + b"\0" * status.MAX_BYTES, status.TOO_MANY_BYTES),
}


def test_what_is_damaged_or_huge_is_rejected():
    for kind, (contents, code) in REJECTED.items():
        assert storable(contents) == (b"", status.REASONS[code]), kind


def test_nothing_is_decoded_before_the_header_is_within_the_limits(monkeypatch: pytest.MonkeyPatch):
    def load(self: BmpImageFile) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(BmpImageFile, "load", load)
    for kind in ("too wide", "too high, from the top", "run lengths"):
        assert storable(REJECTED[kind][0])[1]
    with pytest.raises(AssertionError, match="decoded"):
        storable(bitmap_of_size(1, 1))


def test_no_damage_of_a_header_ends_in_a_traceback():
    draw = np.random.default_rng(0)
    whole = encoded(COLOURS, "P")
    for _ in range(300):
        contents = bytearray(whole)
        for position in draw.integers(2, 60, 2):
            contents[position] = draw.integers(256)
        png, reason = storable(bytes(contents))
        assert bool(png) != bool(reason)


def test_the_images_of_viper_in_cuhk_pedes_are_in_the_shards_bit_for_bit(tmp_path: Path):
    splits, name = ("train", "val", "test"), "cam_a/{}_45.bmp"
    (tmp_path / "imgs" / "cam_a").mkdir(parents=True)
    for split in splits:
        (tmp_path / "imgs" / name.format(split)).write_bytes(encoded(COLOURS))
    people = [person_image(name.format(split), n, split) for n, split in enumerate(splits)]
    write_json(tmp_path / "reid_raw.json", people)
    prepared = prepare(read_cuhk_pedes(tmp_path), tmp_path / "out", source="cuhk_pedes")
    assert prepared.rejected == () and prepared.manifest.bitmaps == 3
    for split in splits:
        (record,) = map(parse_record, records(tmp_path / "out", split))
        assert record["path"] == str(tmp_path / "imgs" / name.format(split)).encode()
        np.testing.assert_array_equal(tf.io.decode_png(record["image"], channels=3), COLOURS)
