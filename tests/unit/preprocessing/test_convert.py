"""Images of other formats become PNG as a person sees them; what is damaged or huge does not."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageOps
from PIL.BmpImagePlugin import BmpImageFile

from tests.samples import bitmap_of_size, image, person_image, truncated, write_json
from tf_dpce.data.input_pipeline import parse_record, records
from tf_dpce.data.prepare import prepare
from tf_dpce.datasets.cuhk_pedes import read_cuhk_pedes
from tf_dpce.preprocessing import file_kinds, status
from tf_dpce.preprocessing.convert import to_png
from tf_dpce.preprocessing.file_kinds import explain, file_kind

pillow_heif.register_heif_opener()


def encoded(pixels: np.ndarray | Image.Image, kind: str = "BMP", mode: str = "", **how) -> bytes:
    drawn = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    stream = io.BytesIO()
    (drawn.convert(mode) if mode else drawn).save(stream, kind, **how)
    return stream.getvalue()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).integers(0, 256, shape, np.uint8)


def from_top(contents: bytes) -> bytes:
    """The same image, upside down: rows are stored from the top where the height is negative."""
    height = int.from_bytes(contents[22:26], "little")
    return contents[:22] + (-height).to_bytes(4, "little", signed=True) + contents[26:]


def tagged(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def converted(contents: bytes) -> np.ndarray:
    png, code = to_png(contents)
    assert code == status.OK
    with Image.open(io.BytesIO(png)) as found:
        assert found.format == "PNG" and not found.getexif()
        return np.asarray(found)


# Rows of 13 pixels are padded to 4 bytes at every depth.
COLOURS, GREYS, DEEP = noise(9, 13, 3), noise(9, 13), noise(9, 13, 4)
PALETTE = np.asarray(Image.fromarray(COLOURS).convert("P").convert("RGB"))
INK = np.asarray(Image.fromarray(COLOURS).convert("CMYK").convert("RGB"))


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[:, :, None], 3, axis=2)


# Each with the pixels that it holds, derived without Pillow's reader of the format.
EXACT = {
    "BMP, 24 bits": (encoded(COLOURS), COLOURS),
    "BMP from the top": (from_top(encoded(COLOURS)), COLOURS[::-1]),
    "BMP, 32 bits": (encoded(DEEP), DEEP[:, :, :3]),
    "BMP, 8 grey bits": (encoded(GREYS), grey(GREYS)),
    "BMP, a palette": (encoded(COLOURS, mode="P"), PALETTE),
    "BMP, 1 bit": (encoded(GREYS > 99), grey((GREYS > 99) * np.uint8(255))),
    "BMP, one pixel": (bitmap_of_size(1, 1), np.array([[[3, 2, 1]]], np.uint8)),
    "GIF": (encoded(Image.fromarray(COLOURS).convert("P"), "GIF"), PALETTE),
    "TIFF": (encoded(COLOURS, "TIFF"), COLOURS),
    "TIFF, LZW": (encoded(COLOURS, "TIFF", compression="tiff_lzw"), COLOURS),
    "TIFF, alpha": (encoded(DEEP, "TIFF"), DEEP),
    "TIFF, CMYK": (encoded(COLOURS, "TIFF", "CMYK"), INK),
    # 16 bits become 8 by 255 / 65535 = 1 / 257; real numbers from 0 to 1 by 255.
    "TIFF, 16 bits": (encoded(GREYS.astype(np.uint16) * 257, "TIFF"), grey(GREYS)),
    "TIFF, 32 bits": (encoded(GREYS.astype(np.int32) * 257, "TIFF"), grey(GREYS)),
    "TIFF, real numbers": (encoded(GREYS.astype(np.float32) / 255, "TIFF"), grey(GREYS)),
    "WebP": (encoded(COLOURS, "WEBP", lossless=True), COLOURS),
    "WebP, alpha": (encoded(DEEP, "WEBP", lossless=True, exact=True), DEEP),
}


@pytest.mark.parametrize("kind", EXACT)
def test_the_png_holds_the_pixels(kind: str):
    contents, pixels = EXACT[kind]
    np.testing.assert_array_equal(converted(contents), pixels)


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "TIFF", "HEIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_upright_as_pillow_turns_it(kind: str, orientation: int):
    smooth = Image.fromarray(noise(3, 5, 3)).resize((90, 60), Image.Resampling.BICUBIC)
    contents = encoded(smooth, kind, exif=tagged(orientation))
    with Image.open(io.BytesIO(contents)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(converted(contents), expected)


def test_a_tag_outside_of_exif_turns_nothing():
    # Pillow takes the orientation of XMP, which no viewer does.
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    contents = encoded(COLOURS, "WEBP", lossless=True, xmp=packet)
    np.testing.assert_array_equal(converted(contents), COLOURS)
    garbage = encoded(COLOURS, "WEBP", lossless=True, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    np.testing.assert_array_equal(converted(garbage), COLOURS)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "AVIF"])
def test_the_first_frame_counts(kind: str):
    frames = [Image.new("RGB", (40, 30), colour) for colour in ((250, 0, 0), (0, 0, 250))]
    pixels = converted(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert pixels.shape == (30, 40, 3)
    assert np.abs(pixels.astype(int) - [250, 0, 0]).max() <= 6


def test_the_clear_colour_of_a_gif_stays_clear():
    drawn = Image.new("RGBA", (6, 4), (9, 9, 9, 0))
    drawn.paste((200, 0, 0, 255), (0, 0, 3, 4))
    alpha = converted(encoded(drawn, "GIF"))[..., 3]
    np.testing.assert_array_equal(alpha, np.tile(np.repeat(np.uint8([255, 0]), 3), (4, 1)))


def test_a_large_image_is_halved_and_a_long_one_is_not():
    for sides, expected in (((2047, 2100), (2047, 2100)), ((2048, 4100), (1024, 2050))):
        pixels = converted(encoded(Image.new("RGB", sides[::-1], (5, 6, 7)), "BMP"))
        assert pixels.shape == (*expected, 3) and (pixels == [5, 6, 7]).all()
    assert converted(encoded(Image.new("1", (9000, 1000)), "TIFF")).shape[:2] == (1000, 9000)


def test_other_bytes_stay_as_they_are():
    for contents in (image(), image("PNG"), b"", b"text", b"%PDF-1.7"):
        assert to_png(contents) == (contents, status.OK)


# A screen of 65,535 x 65,535 with a frame of one pixel.
VAST_GIF = b"GIF89a" + b"\xff" * 4 + bytes(3) + b",\0\0\0\0\1\0\1\0\0\2" + bytes(9)
REJECTED = {
    "its mark alone": (b"BM", status.UNDECODABLE),
    "a header cut short": (image("BMP")[:33], status.UNDECODABLE),
    "pixels cut short": (truncated(image("BMP", size=(90, 70))), status.UNDECODABLE),
    "no header that is known": (b"BM" + b"\xff" * 60, status.UNDECODABLE),
    "no area": (bitmap_of_size(0, 9), status.UNDECODABLE),
    "too wide": (bitmap_of_size(64_001, 1_000), status.TOO_MANY_PIXELS),
    "too high, from the top": (bitmap_of_size(1_000, -64_001), status.TOO_MANY_PIXELS),
    "too long": (image("BMP") + b"\0" * status.MAX_BYTES, status.TOO_MANY_BYTES),
    "GIF, too large": (VAST_GIF, status.TOO_MANY_PIXELS),
    **{
        f"{kind}, cut": (truncated(image(kind, size=(90, 70))), status.UNDECODABLE)
        for kind in ("TIFF", "WEBP", "AVIF", "HEIF")
    },
    "TIFF, no number": (encoded(np.full((3, 3), np.nan, np.float32), "TIFF"), status.UNDECODABLE),
    "TIFF, negative": (encoded(np.full((3, 3), -1, np.int32), "TIFF"), status.UNDECODABLE),
}


@pytest.mark.parametrize("kind", REJECTED)
def test_what_is_damaged_or_huge_is_rejected(kind: str):
    contents, code = REJECTED[kind]
    assert to_png(contents) == (b"", code)


def test_nothing_is_decoded_before_the_header_is_within_the_limits(monkeypatch: pytest.MonkeyPatch):
    def load(self: BmpImageFile) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(BmpImageFile, "load", load)
    for kind in ("too wide", "too high, from the top"):
        assert to_png(REJECTED[kind][0])[1]
    with pytest.raises(AssertionError, match="decoded"):
        to_png(bitmap_of_size(1, 1))


@pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF", "WEBP", "AVIF", "HEIF"])
def test_no_damage_ends_in_a_traceback(kind: str):
    draw = np.random.default_rng(0)
    whole = encoded(COLOURS, kind, "P" if kind in ("BMP", "GIF") else "", exif=tagged(6))
    for _ in range(150):
        contents = bytearray(whole)
        for position in draw.integers(4, len(whole), 3):
            contents[position] = draw.integers(256)
        png, code = to_png(bytes(contents))
        assert bool(png) == (code == status.OK)


def test_the_images_of_viper_in_cuhk_pedes_are_in_the_shards_bit_for_bit(tmp_path: Path):
    splits, name = ("train", "val", "test"), "cam_a/{}_45.bmp"
    (tmp_path / "imgs" / "cam_a").mkdir(parents=True)
    for split in splits:
        (tmp_path / "imgs" / name.format(split)).write_bytes(encoded(COLOURS))
    people = [person_image(name.format(split), n, split) for n, split in enumerate(splits)]
    write_json(tmp_path / "reid_raw.json", people)
    prepared = prepare(read_cuhk_pedes(tmp_path), tmp_path / "out", source="cuhk_pedes")
    assert prepared.rejected == () and prepared.manifest.converted == 3
    for split in splits:
        (record,) = map(parse_record, records(tmp_path / "out", split))
        assert record["path"] == str(tmp_path / "imgs" / name.format(split)).encode()
        with Image.open(io.BytesIO(record["image"].numpy())) as stored:
            np.testing.assert_array_equal(stored, COLOURS)


def brands(*names: bytes) -> bytes:
    body = names[0] + bytes(4) + b"".join(names[1:])
    return (8 + len(body)).to_bytes(4) + b"ftyp" + body


NAMED = {
    "JPEG": image(),
    "PNG": image("PNG"),
    "GIF": image("GIF"),
    "BMP": image("BMP"),
    "TIFF": image("TIFF"),
    "WebP": image("WEBP"),
    "AVIF": image("AVIF"),
    "HEIC": image("HEIF"),
    "JPEG 2000": image("JPEG2000"),
    "PNM": image("PPM"),
    "icon": image("ICO"),
    "PDF": image("PDF"),
    "MP4 or another film": brands(b"isom", b"mp42"),
    "zip archive": b"PK\3\4",
    "gzip file": b"\x1f\x8b\x08",
    "HTML page": b"\xef\xbb\xbf\n <!-- gone --><HTML lang=en>",
    "SVG": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg">',
    "XML": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    "JSON": b'{"error": "rate limit"}',
    "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n",
    "text": "Zugriff verweigert, n\u00e4mlich".encode() * 99,
    None: b"\x00\x01\x02",
}


def test_what_the_bytes_are_is_named():
    assert {file_kind(contents): kind for kind, contents in NAMED.items()} == {k: k for k in NAMED}
    assert file_kind(brands(b"mif1", b"avif", b"heic")) == "AVIF"
    assert file_kind(b"") is None
    for contents in (b"\0\0\0\x08ftyp", b"RIFF", b"RIFF\0\0\0\0WAVE", brands(b"mif1")[:12]):
        file_kind(contents)


def test_a_reason_names_the_kind_and_the_extra_that_is_missing(monkeypatch: pytest.MonkeyPatch):
    for kind in ("PDF", "HTML page", "Git LFS pointer"):
        assert explain(status.WRONG_TYPE, NAMED[kind]) == f"{kind}, neither JPEG nor PNG"
    assert explain(status.WRONG_TYPE, NAMED[None]) == "neither JPEG nor PNG"
    assert explain(status.UNDECODABLE, NAMED["HEIC"]) == "HEIC, cannot be decoded"
    assert explain(status.UNDECODABLE, NAMED["JPEG"]) == "cannot be decoded"
    assert explain(status.EMPTY, "a caption") == "empty"
    monkeypatch.setattr(file_kinds, "has_heif", lambda: False)
    monkeypatch.setattr("tf_dpce.preprocessing.convert.has_heif", lambda: False)
    assert to_png(NAMED["HEIC"]) == (NAMED["HEIC"], status.OK)
    assert "extra heif" in explain(status.WRONG_TYPE, NAMED["HEIC"])
