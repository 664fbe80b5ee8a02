"""JPEG or PNG bytes -> pixels: checks, decoding, the centred square, and augmentation."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.samples import encoded
from tf_dpce.data.validate_images import storable
from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.image import crop_window, decode, evaluation_pixels, training_pixels
from tf_dpce.preprocessing.image_header import check


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    """Slopes, which survive JPEG nearly unchanged."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [255 * x / max(1, width - 1), 255 * y / max(1, height - 1), np.full(x.shape, 99)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def code(contents: bytes, **limits: int) -> int:
    result = check(tf.constant(contents), status.Limits(**limits))
    assert result.dtype == tf.int32 and result.shape == ()
    return int(result)


def draws(seed: int, count: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).uniform(size=count).astype(np.float32)


# --- check ----------------------------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    """The first 33 bytes of a PNG that declares a size, with a right checksum, and no pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_image_is_ok_up_to_the_limits(kind: str):
    contents = encoded(noise(20, 30), kind)
    assert code(contents) == status.OK
    assert code(contents, max_bytes=len(contents), max_pixels=600) == status.OK
    assert code(contents, max_bytes=len(contents) - 1) == status.TOO_MANY_BYTES
    assert code(contents, max_pixels=599) == status.TOO_MANY_PIXELS


def test_a_bomb_is_refused_by_its_header():
    # 33 bytes that declare 10 gigapixels; nothing behind them could be decoded.
    assert code(png_header(100_000, 100_000)) == status.TOO_MANY_PIXELS
    # The product of the largest sides does not fit into 63 bits unless they are refused or signed.
    assert code(png_header(2**31 - 1, 2**31 - 1)) == status.TOO_MANY_PIXELS
    bomb = encoded(Image.new("1", (9000, 8000)), "PNG")
    assert len(bomb) < 20_000 and code(bomb) == status.TOO_MANY_PIXELS


def test_what_is_no_image_is_known_by_its_first_bytes():
    for width, height in ((0, 5), (5, 0), (0, 0)):
        assert code(png_header(width, height)) == status.UNDECODABLE, "no area"
    for length in (8, 16, 24, 32):
        assert code(png_header(5, 5)[:length]) == status.UNDECODABLE, "cut short"
    for contents in (
        *(b"x", b"\xff", b"\xff\xd8", b"\x89PNG", bytes(100)),
        *(b"GIF89a" + bytes(50), b"BM" + bytes(60)),
        *(encoded(noise(5, 5), "GIF"), encoded(noise(5, 5), "BMP")),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    ):
        assert code(contents) == status.WRONG_TYPE, contents[:9]
    assert code(b"") == status.EMPTY


def test_parts_that_cost_time_and_hardly_a_byte_are_counted_beforehand():
    # A grey progressive JPEG of Pillow's has 6 scans; the last one may follow again and again.
    jpeg = encoded(noise(5, 5)[..., 0], "JPEG", progressive=True)
    scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    for scans, expected in ((6, status.OK), (64, status.OK), (65, status.UNDECODABLE)):
        assert code(jpeg[:-2] + (scans - 6) * scan + jpeg[-2:]) == expected
    # After the 33 bytes of its header, a PNG may hold any number of texts, a kilobyte a megabyte.
    png = encoded(noise(5, 5), "PNG")
    text = b"zTXt" + b"name\0\0" + zlib.compress(b"a" * 1000)
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    for texts, expected in ((64, status.OK), (65, status.UNDECODABLE)):
        assert code(png[:33] + texts * chunk + png[33:]) == expected
    # What follows an image may look like anything: 100 marks of a scan without its length.
    assert code(jpeg + b"\xff\xda??" * 100) == status.OK


def test_a_jpeg_header_that_cannot_be_parsed_raises_as_decode_does():
    contents = tf.constant(b"\xff\xd8\xff" + bytes(40))
    for operation in (check, decode):
        with pytest.raises(tf.errors.InvalidArgumentError):
            operation(contents)


# --- decode ---------------------------------------------------------------------------------------


def images_of_all_kinds() -> dict[str, tuple[bytes, np.ndarray]]:
    """Encoded images of one colour, and that colour as RGB."""
    red = np.array([250, 10, 20], np.uint8)
    rgb = Image.new("RGB", (7, 5), tuple(red.tolist()))
    grey = np.full(3, 90, np.uint8)
    frames = {"save_all": True, "append_images": [Image.new("RGB", (7, 5), (0, 0, 255))]}
    return {
        "jpeg": (encoded(rgb, "JPEG", quality=95), red),
        "progressive jpeg": (encoded(rgb, "JPEG", quality=95, progressive=True), red),
        "grey jpeg": (encoded(Image.new("L", (7, 5), 90), "JPEG"), grey),
        "cmyk jpeg": (encoded(Image.new("CMYK", (7, 5), (0, 255, 255, 0)), "JPEG"), [255, 0, 0]),
        "png": (encoded(rgb, "PNG"), red),
        "palette png": (encoded(rgb.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"), red),
        "grey png": (encoded(Image.new("L", (7, 5), 90), "PNG"), grey),
        # 255 - (255 - c) * 30 / 255 on white.
        "alpha png": (
            encoded(Image.new("RGBA", (7, 5), (250, 10, 20, 30)), "PNG"),
            [254, 226, 227],
        ),
        "grey alpha png": (encoded(Image.new("LA", (7, 5), (90, 40)), "PNG"), [229] * 3),
        "16 bit png": (encoded(Image.new("I;16", (7, 5), 90 * 257), "PNG"), grey),
        "black and white png": (encoded(Image.new("1", (7, 5), 1), "PNG"), [255] * 3),
        "animated png": (encoded(rgb, "PNG", **frames), red),
    }


def test_every_kind_of_image_becomes_rgb():
    for kind, (contents, colour) in images_of_all_kinds().items():
        assert storable([contents]) == [(contents, None)], kind
        pixels = decode(tf.constant(contents)).numpy()
        assert pixels.dtype == np.uint8 and pixels.shape == (5, 7, 3), kind
        assert np.abs(pixels.astype(int) - np.asarray(colour, int)).max() <= 4, kind


def test_bytes_cut_off_in_the_middle_raise():
    for kind in ("JPEG", "PNG"):
        contents = encoded(noise(40, 40), kind)[:1000]
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode(tf.constant(contents))
        # It costs no other file.
        found = storable([encoded(noise(4, 4), kind), contents, encoded(noise(4, 4), kind)])
        assert [reason for _, reason in found] == [None, "cannot be decoded", None]


# --- evaluation -----------------------------------------------------------------------------------


def test_evaluation_takes_the_largest_centred_square():
    for height, width in ((8, 8), (8, 13), (13, 8)):
        pixels = noise(height, width)
        top, left = (height - 8) // 2, (width - 8) // 2
        # 8 pixels to 8 pixels: resizing changes nothing.
        result = evaluation_pixels(tf.constant(encoded(pixels, "PNG")), 8).numpy()
        assert result.dtype == np.float32
        assert result == pytest.approx(pixels[top : top + 8, left : left + 8], abs=1e-3)


def test_a_jpeg_is_halved_while_it_is_decoded():
    # The shorter side stays 20 long, or as long as it is.
    for height, width, ratio in (
        *((39, 400, 1), (15, 90, 1), (40, 41, 2), (79, 80, 2)),
        *((400, 80, 4), (160, 161, 8), (400, 400, 8)),
    ):
        jpeg = tf.constant(encoded(smooth(height, width), "JPEG"))
        reduced = tf.io.decode_jpeg(jpeg, channels=3, ratio=ratio).numpy()
        # A PNG is decoded whole.
        expected = evaluation_pixels(tf.constant(encoded(reduced, "PNG")), 20)
        np.testing.assert_array_equal(evaluation_pixels(jpeg, 20), expected)


def test_resizing_is_antialiased_and_stays_in_range():
    # A fine chequerboard shrunk to a tenth is grey; picking single pixels would leave 0 or 255.
    board = (255 * (np.indices((80, 80)).sum(0) % 2)).astype(np.uint8)
    small = evaluation_pixels(tf.constant(encoded(Image.fromarray(board), "PNG")), 8).numpy()
    assert np.abs(small - 127.5).max() < 10
    # Bicubic overshoots at an edge; the result must not.
    edge = np.zeros((8, 8, 3), np.uint8)
    edge[:, 4:] = 255
    large = evaluation_pixels(tf.constant(encoded(edge, "PNG")), 32).numpy()
    assert large.min() == 0 and large.max() == 255


def test_stretched_images_keep_all_of_themselves():
    for height, width in ((16, 8), (8, 8), (9, 21)):
        pixels = noise(height, width)
        result = evaluation_pixels(tf.constant(encoded(pixels, "PNG")), 8, resize="stretch")
        np.testing.assert_array_equal(result, stretched(pixels, 8))


def stretched(pixels: np.ndarray, size: int) -> np.ndarray:
    if pixels.shape[0] == pixels.shape[1] == size:
        return pixels.astype(np.float32)
    resized = tf.image.resize(pixels, [size, size], method="bicubic", antialias=True)
    return np.clip(resized, 0, 255)


@pytest.mark.parametrize("turned", [False, True])
def test_of_a_stretched_banner_only_what_is_beyond_16_to_1_is_cut_off(turned: bool):
    for length, remaining in ((80, slice(0, 80)), (91, slice(5, 85))):
        banner = noise(5, length)
        part = banner[:, remaining]
        if turned:
            banner, part = banner.transpose(1, 0, 2), part.transpose(1, 0, 2)
        whole, cut = (
            tf.constant(encoded(np.ascontiguousarray(pixels), "PNG")) for pixels in (banner, part)
        )
        result = evaluation_pixels(whole, 8, resize="stretch").numpy()
        np.testing.assert_array_equal(result, stretched(part, 8))
        # Training draws its crop within the same part.
        found, expected = (
            training_pixels(contents, 8, draws(5), crop=True, flip=False, resize="stretch")
            for contents in (whole, cut)
        )
        np.testing.assert_array_equal(found, expected)
    # So it does in a JPEG, whose blocks of 8 pixels begin elsewhere.
    pixels = smooth(40, 1000)
    found, expected = (
        training_pixels(
            tf.constant(encoded(part, "JPEG", quality=95, subsampling=0)),
            *(30, draws(6), True, False, "stretch"),
        )
        for part in (pixels, pixels[:, 180:820])
    )
    np.testing.assert_allclose(found, expected, atol=4)


# 64 million pixels a file, the limit, in some 8 kilobytes: every way to a square, in both places.
BANNERS = """
import time
import tensorflow as tf
from tests.heavy import blank_png, peak_mebibytes
from tf_dpce.preprocessing.image_header import check
from tf_dpce.preprocessing.image import evaluation_pixels, training_pixels
draws = tf.fill([5], 0.5)
def run(content):
    for resize in ("stretch", "center_crop"):
        evaluation_pixels(content, 224, resize)
        training_pixels(content, 224, draws, True, False, resize)
run(tf.constant(blank_png(300, 200)))
before, start = peak_mebibytes(), time.process_time()
for sides in ((1_000_000, 64), (64, 1_000_000)):
    content = tf.constant(blank_png(*sides, grey=True))
    assert check(content) == 0
    run(content)
added, seconds = peak_mebibytes() - before, time.process_time() - start
assert added < 600, f"{added} MiB"
assert seconds < 15, f"{seconds} seconds"
"""


@pytest.mark.full
def test_a_banner_costs_no_more_than_any_image_of_as_many_pixels(run_program):
    # Decoded, it takes 183 MiB, and for some formats twice. Resized whole, it took 2.9 GB and, on
    # every core there is, 5 seconds a time or more; all twelve together take 3.
    run_program(BANNERS)


# --- the crop -------------------------------------------------------------------------------------


def plain_window(height: int, width: int, values: np.ndarray) -> list[int]:
    """The recipe's crop step by step, in Python."""
    aspect = (3 / 4) ** (1 - values[0]) * (4 / 3) ** values[0]
    crop_width = min(width, height * aspect)
    crop_height = crop_width / aspect
    side = np.sqrt(0.64 + 0.36 * values[1])
    rows = min(max(1, round(crop_height * side)), height)
    columns = min(max(1, round(crop_width * side)), width)
    top = min(int(values[2] * (height - rows + 1)), height - rows)
    left = min(int(values[3] * (width - columns + 1)), width - columns)
    return [top, left, rows, columns]


@pytest.fixture(scope="module")
def windows():
    """Windows of many rows of draws at once: (height, width, draws [N, 4]) -> [N, 4]."""

    @tf.function
    def many(height: tf.Tensor, width: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(
            lambda row: crop_window(height, width, row), values, fn_output_signature=tf.int32
        )

    return lambda height, width, values: many(
        tf.constant(height), tf.constant(width), tf.constant(values, tf.float32)
    ).numpy()


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 50), (50, 1), (2, 3), (64, 64), (300, 200), (37, 1000)]
)
def test_the_window_equals_the_plain_reference_and_is_always_inside(
    windows, height: int, width: int
):
    corners = np.array(np.meshgrid(*[[0, 0.5, 1]] * 4)).reshape(4, -1).T
    values = np.concatenate([np.random.default_rng(2).uniform(size=(200, 4)), corners])
    values = values.astype(np.float32)
    found = windows(height, width, values)
    top, left, rows, columns = found.T
    assert (top >= 0).all() and (left >= 0).all() and (rows >= 1).all() and (columns >= 1).all()
    assert (top + rows <= height).all() and (left + columns <= width).all()
    expected = np.array([plain_window(height, width, row) for row in values[:200].astype(float)])
    # float32 against float64: a side next to a half may round the other way, and its place with it.
    assert np.abs(found[:200] - expected).max() <= 1
    assert (found[:200] == expected).all(axis=1).mean() > 0.98


@pytest.mark.parametrize(("height", "width"), [(1200, 400), (300, 1200), (600, 600)])
def test_the_window_of_a_stretched_image_is_that_of_a_square_stretched_back(height, width):
    for values in np.random.default_rng(4).uniform(size=(20, 4)).astype(np.float32):
        square = np.array(plain_window(1200, 1200, values.astype(float)))
        found = crop_window(
            tf.constant(height), tf.constant(width), values, resize="stretch"
        ).numpy()
        # Of the 1200 places of the square, the image has fewer: its sides are rounded to them.
        expected = square * [height, width, height, width] / 1200
        assert np.abs(found - expected).max() <= 1.5


# --- training -------------------------------------------------------------------------------------


def augmented(contents: bytes, values: np.ndarray, crop: bool, flip: bool, size: int = 12):
    return training_pixels(tf.constant(contents), size, tf.constant(values), crop, flip).numpy()


def test_jpeg_and_png_of_the_same_pixels_give_the_same():
    """A JPEG is decoded inside the window alone; a PNG is decoded whole, then cut."""
    # Without chroma subsampling no pixel depends on neighbours outside the window.
    jpeg = encoded(smooth(60, 90), "JPEG", quality=95, subsampling=0)
    png = encoded(decode(tf.constant(jpeg)).numpy(), "PNG")
    for seed in range(4):
        # So large that no window could be halved.
        found, expected = (augmented(file, draws(seed), True, True, 40) for file in (jpeg, png))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_the_crop_shows_its_window(kind: str):
    pixels = smooth(300, 300)
    for values in (draws(0), draws(1)):
        top, left, rows, columns = crop_window(300, 300, values).numpy()
        # Sides of 0.8 * 300 * sqrt(3 / 4) = 207 at least: the JPEG is decoded at half its size.
        assert min(rows, columns) >= 2 * 60
        result = augmented(encoded(pixels, kind), values, crop=True, flip=False, size=60)
        # Slopes: red tells the column, green the row; corners show the corners of the window.
        red = pixels[0, [left, left + columns - 1], 0]
        green = pixels[[top, top + rows - 1], 0, 1]
        assert result[0, [0, -1], 0] == pytest.approx(red, abs=5)
        assert result[[0, -1], 0, 1] == pytest.approx(green, abs=5)


@pytest.mark.parametrize("crop", [True, False])
def test_the_flip_mirrors_the_lower_half_of_the_draws(crop: bool):
    contents = encoded(noise(20, 30), "PNG")
    plain = augmented(contents, np.array([0.2, 0.4, 0.6, 0.8, 0.0], np.float32), crop, flip=False)
    for value, expected in ((0.0, plain[:, ::-1]), (0.49, plain[:, ::-1]), (0.5, plain)):
        values = np.array([0.2, 0.4, 0.6, 0.8, value], np.float32)
        np.testing.assert_array_equal(augmented(contents, values, crop, flip=True), expected)


def test_without_crop_and_flip_training_sees_what_evaluation_sees():
    contents = tf.constant(encoded(noise(20, 30), "JPEG"))
    for resize in ("center_crop", "stretch"):
        plain = training_pixels(contents, 12, draws(0), crop=False, flip=False, resize=resize)
        np.testing.assert_array_equal(plain, evaluation_pixels(contents, 12, resize))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (40, 1)])
def test_the_smallest_images(height: int, width: int):
    for kind in ("JPEG", "PNG"):
        contents = encoded(np.full((height, width, 3), 77, np.uint8), kind)
        expected = pytest.approx(np.full((12, 12, 3), 77.0), abs=2)
        assert augmented(contents, draws(0), True, True) == expected
        assert evaluation_pixels(tf.constant(contents), 12).numpy() == expected
