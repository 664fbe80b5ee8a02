"""The model sees what a person sees: images upright, what is transparent on white."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from tests.samples import encoded
from tf_dpce.preprocessing.image import decode, evaluation_pixels, training_pixels
from tf_dpce.preprocessing.orientation import jpeg_orientation, png_metadata

STRING = [tf.TensorSpec([], tf.string)]
decoded = tf.function(decode, STRING, autograph=False)
of_jpeg = tf.function(jpeg_orientation, STRING, autograph=False)
of_png = tf.function(png_metadata, STRING, autograph=False)


def smooth(width: int = 70, height: int = 50, mode: str = "RGB") -> Image.Image:
    draw = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    image = Image.fromarray(draw).resize((width, height), Image.Resampling.BICUBIC)
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return image.convert(mode)


def tiff(orientation: int, order: str = "<", kind: int = 3, count: int = 1, offset: int = 8):
    """The content of EXIF: a camera's name, the orientation, and a thumbnail's tag of 8."""
    mark, value = (b"II*\0", order + "HHIHH") if order == "<" else (b"MM\0*", order + "HHIHH")
    entries = struct.pack(order + "HHII", 0x010F, 2, 4, 0)
    entries += struct.pack(value, 0x0112, kind, count, orientation, 0)
    thumbnail = struct.pack(order + "H", 1) + struct.pack(value, 0x0112, 3, 1, 8, 0)
    first = struct.pack(order + "H", 2) + entries
    after = struct.pack(order + "I", offset + len(first) + 4)
    return mark + struct.pack(order + "I", offset) + bytes(offset - 8) + first + after + thumbnail


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2) + content


def exif(content: bytes) -> bytes:
    return segment(0xE1, b"Exif\0\0" + content)


JPEG = encoded(smooth(), "JPEG", quality=95)
# It opens with its mark of 2 bytes and a JFIF segment of 18.
JFIF, REST = JPEG[:20], JPEG[20:]
PACKET = b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='6'/>"
SEVEN = tiff(7)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation_is_applied_as_pillow_does(orientation: int, order: str):
    tag = tiff(orientation, order)
    for contents in (JFIF + exif(tag) + REST, encoded(smooth(), "PNG", exif=b"Exif\0\0" + tag)):
        with Image.open(io.BytesIO(contents)) as image:
            expected = np.asarray(ImageOps.exif_transpose(image)).astype(int)
        pixels = decoded(contents).numpy()
        assert pixels.shape == expected.shape == ((50, 70, 3), (70, 50, 3))[orientation > 4]
        # The two decoders round differently.
        assert np.abs(pixels - expected).mean() < 2


# What surrounds the EXIF of orientation 7, and the orientation that counts.
SURROUNDED = {
    "no JFIF before it": (JFIF[:2] + exif(SEVEN) + REST, 7),
    "other metadata before it": (JFIF + segment(0xE1, PACKET) + exif(SEVEN) + REST, 7),
    "a profile of 60 KB before it": (JFIF + segment(0xE2, bytes(60_000)) + exif(SEVEN) + REST, 7),
    "tables before it": (JFIF + REST[:69] + exif(SEVEN) + REST[69:], 7),
    "a comment before it": (JFIF + segment(0xFE, b"Exif\0\0" + tiff(3)) + exif(SEVEN) + REST, 7),
    "filling bytes before it": (JFIF + b"\xff" * 9 + exif(SEVEN) + REST, 7),
    "a second one": (JFIF + exif(SEVEN) + exif(tiff(3)) + REST, 7),
    "its directory far behind": (JFIF + exif(tiff(7, offset=40_000)) + REST, 7),
    "it stands behind the pixels": (JPEG + exif(SEVEN), 1),
    "only other metadata": (JFIF + segment(0xE1, PACKET) + REST, 1),
    "nothing": (JPEG, 1),
}


@pytest.mark.parametrize("kind", SURROUNDED)
def test_the_exif_segment_is_found_by_its_place(kind: str):
    contents, expected = SURROUNDED[kind]
    assert int(of_jpeg(contents)) == expected


GARBAGE = {
    "orientation 0": tiff(0),
    "orientation 9": tiff(9),
    "orientation 65535": tiff(65535, ">"),
    "a type of four bytes": tiff(6, kind=4),
    "two values": tiff(6, count=2),
    "no byte order": b"XX" + tiff(6)[2:],
    "the wrong byte order": b"MM\0*" + tiff(6)[4:],
    "a directory before the start": tiff(6)[:4] + b"\xff\xff\xff\xff" + tiff(6)[8:],
    "a directory beyond the end": tiff(6)[:4] + b"\x00\xff\x00\x00" + tiff(6)[8:],
    "no entries": tiff(6)[:8] + b"\0\0" + tiff(6)[10:],
    # After 8 bytes and the count of 2, the second entry ends at 8 + 2 + 24.
    "cut within its entry": tiff(6)[:33],
    "nothing": b"",
    "zeros": bytes(200),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_damaged_exif_turns_nothing(kind: str):
    jpeg = JFIF + exif(GARBAGE[kind]) + REST
    assert int(of_jpeg(jpeg)) == 1
    np.testing.assert_array_equal(decoded(jpeg), decoded(JPEG))


def test_what_is_cut_or_random_has_an_orientation_and_no_error():
    draw = np.random.default_rng(0)
    jpeg, png = JFIF + exif(SEVEN) + REST, encoded(smooth(), "PNG", exif=b"Exif\0\0" + SEVEN)
    assert int(of_jpeg(jpeg)) == int(of_png(png)[0]) == 7
    for whole, find in ((jpeg, of_jpeg), (png, lambda contents: of_png(contents)[0])):
        for length in (*range(3, 120), 400):
            assert 1 <= int(find(whole[:length])) <= 8
        for _ in range(150):
            damaged = bytearray(whole[:300])
            for position in draw.integers(3, 120, 3):
                damaged[position] = draw.integers(256)
            assert 1 <= int(find(bytes(damaged))) <= 8
    # As many segments as there may be.
    assert int(of_jpeg(JFIF + segment(0xE2, b"") * 100_000 + exif(SEVEN))) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_evaluation_and_training_see_the_upright_image(orientation: int):
    """Turned as it is stored, an image gives the same: whole, cropped, and reduced by decoding."""
    # Whole blocks of 8 pixels, even after two halvings, and slopes: nothing depends on how JPEG
    # cuts blocks.
    upright = smooth(320, 256)
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's, each that undoes the tag's
    stored = upright.transpose(turns[orientation]) if orientation > 1 else upright
    how = {"quality": 98, "subsampling": 0}
    draws = tf.constant([0.9, 0.3, 0.2, 0.7, 0.9])
    for size in (200, 60):
        for resize in ("center_crop", "stretch"):
            found, expected = (
                (
                    evaluation_pixels(tf.constant(contents), size, resize),
                    training_pixels(tf.constant(contents), size, draws, True, False, resize),
                )
                for contents in (
                    encoded(stored, "JPEG", exif=b"Exif\0\0" + tiff(orientation), **how),
                    encoded(upright, "JPEG", **how),
                )
            )
            for one, other in zip(found, expected, strict=True):
                assert np.abs(one.numpy() - other.numpy()).mean() < 1


def on_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Each colour's share and white's share, one after the other."""
    share = alpha[..., None] / 255
    return np.round(pixels * share + 255 * (1 - share))


def clear_images() -> dict[str, tuple[bytes, np.ndarray]]:
    """PNGs with transparency, and how they look on white paper."""
    draw = np.random.default_rng(3)
    deep = draw.integers(0, 256, (50, 70, 4), np.uint8)
    grey = np.repeat(deep[..., :1], 3, axis=2)
    clear = on_white(deep[..., :3], deep[..., 3])
    palette = smooth().quantize(16)
    levels = bytes(range(0, 256, 17))
    indices = np.asarray(palette)
    colours = np.asarray(palette.convert("RGB"))
    keyed = np.asarray(smooth()).copy()
    keyed[:25] = (1, 2, 3)
    black = np.where((keyed == (1, 2, 3)).all(axis=2), 0, 255)
    image = Image.fromarray(deep)
    pair = Image.merge("LA", (Image.fromarray(deep[..., 0]), Image.fromarray(deep[..., 3])))
    return {
        "RGBA": (encoded(image, "PNG"), clear),
        "grey and alpha": (encoded(pair, "PNG"), on_white(grey, deep[..., 3])),
        "16 bits and alpha": (wide_png(deep), clear),
        "palette": (encoded(palette, "PNG", transparency=levels), on_white(colours, indices * 17)),
        "a clear colour": (
            encoded(Image.fromarray(keyed), "PNG", transparency=(1, 2, 3)),
            on_white(keyed, black),
        ),
        "turned": (encoded(image, "PNG", exif=b"Exif\0\0" + tiff(6)), np.rot90(clear, -1)),
    }


def wide_png(pixels: np.ndarray) -> bytes:
    """16 bits a channel, which Pillow cannot write."""
    wide = pixels.astype(np.uint16) * 257
    return tf.io.encode_png(tf.constant(wide)).numpy()


def test_what_is_transparent_lies_on_white():
    for kind, (contents, expected) in clear_images().items():
        pixels = decoded(contents).numpy()
        assert pixels.shape == expected.shape, kind
        assert np.abs(pixels - expected).max() <= 1, kind


def test_logos_in_black_on_a_clear_ground_are_not_black_squares():
    # The colours below alpha 0 are black as well: without alpha, nothing would be seen.
    clear = Image.new("RGBA", (40, 40))
    clear.paste((0, 0, 0, 255), (10, 10, 30, 30))
    paper = Image.new("RGB", (40, 40), "white")
    paper.paste((0, 0, 0), (10, 10, 30, 30))
    draws = tf.fill([5], 0.5)
    for see in (
        lambda png: evaluation_pixels(png, 20),
        lambda png: training_pixels(png, 20, draws, crop=True, flip=False),
    ):
        found, expected = (see(tf.constant(encoded(i, "PNG"))) for i in (clear, paper))
        np.testing.assert_array_equal(found, expected)


def test_strips_of_a_large_clear_image_fit_together():
    # 1,500 rows of 1,001 pixels are two strips of at most 2**20, the second one shorter.
    alpha = np.tile(np.arange(1500, dtype=np.uint16)[:, None] % 256, (1, 1001)).astype(np.uint8)
    png = encoded(Image.merge("LA", (Image.new("L", (1001, 1500)), Image.fromarray(alpha))), "PNG")
    np.testing.assert_array_equal(decoded(png)[..., 0], 255 - alpha)
