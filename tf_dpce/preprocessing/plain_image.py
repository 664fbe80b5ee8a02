"""Turns JPEG or PNG bytes into pixels as the exported graph does, in NumPy and Pillow."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from tf_dpce.preprocessing import status
from tf_dpce.preprocessing.convert import DAMAGE
from tf_dpce.preprocessing.file_kinds import file_kind
from tf_dpce.preprocessing.plain_jpeg import jpeg_pixels
from tf_dpce.preprocessing.plain_orientation import UPRIGHT, jpeg_orientation, png_metadata

_PNG_HEADER_BYTES = 33
_MAX_STRETCHED_ASPECT = 16
_RATIOS = (8, 4, 2)
_TRANSPOSED, _MIRRORED, _UPSIDE_DOWN = (5, 6, 7, 8), (2, 3, 6, 7), (3, 4, 7, 8)

# What is seen of each colour on white paper, by its alpha: rounded as the graph rounds it.
_ALPHA = np.arange(256, dtype=np.float32)[:, None] / 255
_ON_WHITE = np.round(255 - (255 - np.arange(256, dtype=np.float32)) * _ALPHA).astype(np.uint8)


def image_pixels(
    contents: bytes, size: int, resize: str, limits: status.Limits
) -> tuple[int, np.ndarray | None]:
    """Does for one image what `export.serving_module.decode_images` does.

    Args:
        contents: the bytes of a file.
        size: the side S of the result, in pixels.
        resize: "center_crop" or "stretch".
        limits: the largest size that is decoded.

    Returns:
        The status, and float32 RGB `[S, S, 3]` in 0..255, or None if the status is not `OK`.

    Example:
        >>> image_pixels(b"", 224, "center_crop", status.Limits())
        (1, None)
    """
    pixels = whole_pixels(contents, size, limits)
    if isinstance(pixels, int):
        return pixels, None
    aspect = _MAX_STRETCHED_ASPECT if resize == "stretch" else 1
    return status.OK, _resized(_centre(pixels, aspect * min(pixels.shape[:2])), size)


def whole_pixels(contents: bytes, shortest: int, limits: status.Limits) -> np.ndarray | int:
    """Decodes an image as training and serving do, without the crop to a square.

    Args:
        contents: the bytes of a file.
        shortest: a JPEG is halved while no side becomes shorter.
        limits: the largest size that is decoded.

    Returns:
        uint8 RGB `[H, W, 3]`, upright and on white, or the status of a file that has no pixels.
    """
    try:
        code = check(contents, limits)
        if code != status.OK:
            return code
        return _jpeg(contents, shortest) if file_kind(contents) == "JPEG" else _png(contents)
    except DAMAGE:
        return status.UNDECODABLE


def check(contents: bytes, limits: status.Limits) -> int:
    """Returns the status of an image by its length and header, see `image_header.check`.

    Raises:
        OSError: the header of a JPEG cannot be read; or another one of `convert.DAMAGE`.
    """
    if not contents:
        return status.EMPTY
    if len(contents) > limits.max_bytes:
        return status.TOO_MANY_BYTES
    kind = file_kind(contents)
    if kind not in ("JPEG", "PNG"):
        return status.WRONG_TYPE
    width, height = _jpeg_size(contents) if kind == "JPEG" else _png_size(contents)
    if width * height > limits.max_pixels:
        return status.TOO_MANY_PIXELS
    parts = scans(contents) if kind == "JPEG" else _packed_texts(contents)
    return status.OK if width * height and parts <= status.MAX_PARTS else status.UNDECODABLE


def _jpeg_size(contents: bytes) -> tuple[int, int]:
    with JpegImageFile(io.BytesIO(contents)) as image:
        return image.size


def _png_size(contents: bytes) -> tuple[int, int]:
    if len(contents) < _PNG_HEADER_BYTES:
        return 0, 0
    return int.from_bytes(contents[16:20]), int.from_bytes(contents[20:24])


def scans(contents: bytes) -> int:
    """Counts the scans of a JPEG, each of which opens with its mark and its length."""
    codes = np.frombuffer(contents, np.uint8)
    mark, kind, high, low, count = (codes[i : i - 4 or None] for i in range(5))
    found = (mark == 0xFF) & (kind == 0xDA) & (high == 0) & (low == 6 + 2 * count)
    return np.count_nonzero(found)


def _packed_texts(contents: bytes) -> int:
    return contents.count(b"TXt")


def _jpeg(contents: bytes, shortest: int) -> np.ndarray:
    """Returns uint8 `[H, W, 3]`, halved while no side becomes shorter than `shortest`."""
    with JpegImageFile(io.BytesIO(contents)) as image:
        width, height = image.size
        ratio = next((r for r in _RATIOS if min(width, height) >= r * shortest), 1)
        image.draft("YCbCr", (width // ratio, height // ratio))
        stored = jpeg_pixels(image, ratio)
    return _turned(stored, jpeg_orientation(contents))


def _png(contents: bytes) -> np.ndarray:
    """Returns uint8 `[H, W, 3]`; what is transparent lies on white."""
    orientation, transparent = png_metadata(contents)
    with PngImageFile(io.BytesIO(contents)) as image:
        image.load()
        if not transparent:
            return _turned(_opaque(image), orientation)
        if image.mode in ("LA", "P", "RGBA"):
            stored = np.asarray(image.convert("RGBA"))
            colours, alpha = stored[..., :3], stored[..., 3:]
        else:
            colours, alpha = _opaque(image), _alpha(image, depth=contents[24])
    return _turned(_ON_WHITE[alpha, colours], orientation)


def _opaque(image: PngImageFile) -> np.ndarray:
    if image.mode.startswith("I"):
        # Of 16 bits the graph drops the lower ones.
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.asarray(image.convert("RGB"))


def _alpha(image: PngImageFile, depth: int) -> np.ndarray:
    """Returns uint8 `[H, W, 1]`, 0 for the colour that a PNG without alpha may make transparent."""
    values, clear = np.asarray(image), image.info.get("transparency", -1)
    if image.mode == "1":
        values = values * 255
    elif image.mode == "L":
        # Pillow scales the grey of 2 or 4 bits, but not the one that is transparent.
        clear *= 255 // (2 ** min(depth, 8) - 1)
    elif image.mode == "RGB" and depth == 16 and clear != -1:
        # Only the upper 8 bits of each colour are there to be compared.
        clear = np.array(clear) >> 8
    same = values.reshape(*values.shape[:2], -1) == clear
    return np.where(same.all(axis=2, keepdims=True), 0, 255).astype(np.uint8)


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    if orientation == UPRIGHT:
        return pixels
    if orientation in _TRANSPOSED:
        pixels = pixels.transpose(1, 0, 2)
    rows = -1 if orientation in _UPSIDE_DOWN else 1
    return pixels[::rows, :: -1 if orientation in _MIRRORED else 1]


def _centre(pixels: np.ndarray, longest: int) -> np.ndarray:
    height, width = (min(side, longest) for side in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def _resized(pixels: np.ndarray, size: int) -> np.ndarray:
    """Returns float32 `[size, size, 3]` by TensorFlow's antialiased bicubic."""
    if pixels.shape[:2] == (size, size):
        return pixels.astype(np.float32)
    square = np.empty((size, size, 3), np.float32)
    # Of floats Pillow rounds nothing in between, and a band at a time takes little memory.
    for band in range(3):
        plane = Image.fromarray(pixels[..., band].astype(np.float32))
        square[..., band] = plane.resize((size, size), Image.Resampling.BICUBIC)
    # Bicubic weights are negative in places and overshoot at edges.
    return np.clip(square, 0, 255, out=square)
