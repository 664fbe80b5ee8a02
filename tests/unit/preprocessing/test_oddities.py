"""Whatever people bring: prepare, training, serving and the contact sheet see the same pixels.

Pillow, asked as a person sees it, is the judge: upright, and on white where it is transparent.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import tensorflow as tf
from PIL import Image, ImageCms, ImageOps

from tests.samples import encoded
from tf_dpce.data.validate_images import storable
from tf_dpce.drawing.contact_sheet import fit
from tf_dpce.drawing.thumbnails import shown_image
from tf_dpce.export.serving_module import decode_images
from tf_dpce.preprocessing.convert import to_png
from tf_dpce.preprocessing.image import decode, evaluation_pixels

pillow_heif.register_heif_opener()

# What public reports saw between the two JPEG decoders, of 255.
MOST = 1.1

STRING = [tf.TensorSpec([], tf.string)]
decoded = tf.function(decode, STRING, autograph=False)
evaluation = tf.function(lambda c: evaluation_pixels(c, 32), STRING, autograph=False)
serving = tf.function(
    lambda rows: decode_images(rows, 32), [tf.TensorSpec([None], tf.string)], autograph=False
)


def drawn(mode: str = "RGB", seed: int = 0) -> Image.Image:
    draw = np.random.default_rng(seed).integers(40, 216, (3, 4, 4), np.uint8)
    image = Image.fromarray(draw).resize((120, 90), Image.Resampling.BICUBIC)
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return image if mode == "RGBA" else image.convert("RGB").convert(mode)


def tagged(orientation: int, order: str = "<") -> Image.Exif:
    exif = Image.Exif()
    exif.endian = order
    exif[0x0112] = orientation
    return exif


def ycck() -> bytes:
    """A CMYK JPEG of Adobe's: its colours, not its inks, are in YCC by the last byte of APP14."""
    contents = encoded(drawn("CMYK"), "JPEG", quality=95)
    place = contents.index(b"Adobe") + 11
    return contents[:place] + b"\2" + contents[place + 1 :]


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
FRAMES = {"save_all": True, "append_images": [drawn(seed=1)]}
JPEG = {"quality": 95}
ODDITIES = {
    **{
        f"{kind}, orientation {n}, {order}": encoded(drawn(), kind, exif=tagged(n, order), **how)
        for n in (1, 3, 6, 8)
        for order in "<>"
        for kind, how in (("JPEG", JPEG), ("PNG", {}))
    },
    "progressive": encoded(drawn(), "JPEG", progressive=True, **JPEG),
    "no subsampling": encoded(drawn(), "JPEG", subsampling=0, **JPEG),
    "CMYK": encoded(drawn("CMYK"), "JPEG", **JPEG),
    "YCCK": ycck(),
    "grey": encoded(drawn("L"), "JPEG", **JPEG),
    "MPO": encoded(drawn(), "MPO", **FRAMES, **JPEG),
    "ICC": encoded(drawn(), "JPEG", icc_profile=PROFILE, **JPEG),
    "bytes behind the end": encoded(drawn(), "JPEG", **JPEG) + b"behind" * 99,
    "one pixel": encoded(Image.new("RGB", (1, 1), (9, 99, 199)), "JPEG", **JPEG),
    **{
        f"PNG {mode}": encoded(drawn(mode), "PNG") for mode in ("1", "L", "P", "LA", "RGBA", "I;16")
    },
    "PNG, clear palette": encoded(
        drawn().quantize(9), "PNG", transparency=bytes(range(0, 225, 25))
    ),
    "PNG, clear index": encoded(drawn().quantize(9), "PNG", transparency=4),
    "APNG": encoded(drawn(), "PNG", **FRAMES),
    "PNG behind the end": encoded(drawn("RGBA"), "PNG") + b"behind" * 99,
    "PNG, one pixel": encoded(Image.new("RGBA", (1, 1), (9, 99, 199, 99)), "PNG"),
    **{f"BMP {mode}": encoded(drawn(mode), "BMP") for mode in ("1", "L", "P", "RGB")},
    **{f"GIF {mode}": encoded(drawn(mode), "GIF") for mode in ("L", "P", "RGBA")},
    "GIF, animated": encoded(drawn(), "GIF", **FRAMES),
    **{f"TIFF {mode}": encoded(drawn(mode), "TIFF") for mode in ("1", "L", "RGB", "CMYK", "RGBA")},
    "TIFF, turned": encoded(drawn(), "TIFF", exif=tagged(6)),
    **{f"WebP {mode}": encoded(drawn(mode), "WEBP") for mode in ("RGB", "RGBA")},
    "WebP, turned": encoded(drawn(), "WEBP", exif=tagged(8)),
    "WebP, animated": encoded(drawn(), "WEBP", **FRAMES),
    "AVIF": encoded(drawn("RGBA"), "AVIF"),
    "HEIC": encoded(drawn(), "HEIF"),
}


def seen(contents: bytes) -> np.ndarray:
    """What a person sees, by Pillow."""
    with Image.open(io.BytesIO(contents)) as image:
        image.load()
        upright = ImageOps.exif_transpose(image)
    if upright.mode == "I;16":
        return np.repeat(np.asarray(upright)[..., None] / 257, 3, axis=2)
    clear = upright.convert("RGBA")
    paper = Image.new("RGBA", clear.size, "white")
    return np.asarray(Image.alpha_composite(paper, clear).convert("RGB")).astype(float)


@pytest.mark.parametrize("kind", ODDITIES)
def test_it_is_seen_as_a_person_sees_it(kind: str, tmp_path: Path):
    contents, expected = ODDITIES[kind], seen(ODDITIES[kind])
    ((stored, reason),) = storable([contents])
    assert reason is None
    pixels = decoded(stored).numpy()
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).mean() <= MOST
    # Serving gets the same bytes, the sheet the file.
    assert to_png(contents)[0] == stored
    np.testing.assert_array_equal(shown_image(contents), pixels)
    served, codes = serving([stored])
    assert codes.numpy().tolist() == [0]
    np.testing.assert_array_equal(served[0], evaluation(stored))
    (tmp_path / "file.jpg").write_bytes(contents)
    height, width = pixels.shape[:2]
    np.testing.assert_array_equal(fit(tmp_path / "file.jpg", width, height), pixels)
