"""Decodes a JPEG to the very pixels that TensorFlow decodes it to, with Pillow.

Both use libjpeg-turbo. TensorFlow asks it for the fast integer transform and for smooth upsampling
of colours. Pillow either asks for the exact transform, which differs by one of 255 on average and
moves embeddings of smooth images by a cosine of 0.01, or for the fast one without smoothness. Here
it decodes in the second way, and the colours, which it has only repeated, are smoothed afterwards.
"""

from __future__ import annotations

import numpy as np
from PIL.JpegImagePlugin import JpegImageFile

# Fixed-point weights of libjpeg's colours: 16 bits behind the point, rounded.
_HALF = 1 << 15
_CENTRED = np.arange(-128, 128, dtype=np.int32)
_RED = (91_881 * _CENTRED + _HALF) >> 16
_BLUE = (116_130 * _CENTRED + _HALF) >> 16
_GREEN_OF_BLUE, _GREEN_OF_RED = -22_554 * _CENTRED + _HALF, -46_802 * _CENTRED
# What is added before numbers are divided by 4 or 16, by how often a colour is repeated.
_ROUNDING = {(1, 2): (1, 2), (2, 1): (1, 2), (2, 2): (8, 7)}
_BLOCK = 8  # a block of the transform, in pixels


def jpeg_pixels(image: JpegImageFile, ratio: int) -> np.ndarray:
    """Returns uint8 RGB `[H, W, 3]`, as they are stored.

    Args:
        image: opened, with its colours asked for as YCbCr, and not loaded yet.
        ratio: by how much it is reduced, 1, 2, 4 or 8.
    """
    # The second number of Pillow's decoder asks for the fast transform.
    image.decoderconfig = (ratio, 1)
    image.load()
    if image.mode == "CMYK":
        return _inks(image)
    if image.mode != "YCbCr":
        return np.asarray(image.convert("RGB"))
    light, *colours = np.moveaxis(np.asarray(image), 2, 0)
    blue, red = (_smoothed(plane, *_repeats(image, ratio), ratio) for plane in colours)
    green = (_GREEN_OF_BLUE[blue] + _GREEN_OF_RED[red]) >> 16
    light = light.astype(np.int32)
    rgb = np.stack([light + _RED[red], light + green, light + _BLUE[blue]], axis=-1)
    return np.clip(rgb, 0, 255).astype(np.uint8)


def _repeats(image: JpegImageFile, ratio: int) -> tuple[int, int]:
    """Returns how often each number of a colour stands in a column and in a row."""
    (_, across, down, _), (_, own_across, own_down, _) = image.layer[:2]
    # Of an image that is reduced, a colour is reduced less if that spares repeating it.
    size = own = _BLOCK // ratio
    while own < _BLOCK and not (across * size % (2 * own_across * own)) | (
        down * size % (2 * own_down * own)
    ):
        own *= 2
    return down * size // (own_down * own), across * size // (own_across * own)


def _smoothed(plane: np.ndarray, down: int, across: int, ratio: int) -> np.ndarray:
    """Weighs each number of a repeated colour with the nearest other one, 3 to 1."""
    few = plane[::down, ::across]
    too_narrow = across == 2 and few.shape[1] <= 2
    if (down, across) not in _ROUNDING or ratio == _BLOCK or too_narrow:
        return plane
    smooth, axes = few.astype(np.int32), [axis for axis, n in enumerate((down, across)) if n == 2]
    for axis in axes:
        smooth = _between(smooth, axis)
    # Numbers are rounded down and up in turns, along the last axis.
    rounding = np.resize(_ROUNDING[down, across], smooth.shape[axes[-1]])
    smooth += rounding if axes[-1] else rounding[:, None]
    return (smooth >> 2 * len(axes))[: plane.shape[0], : plane.shape[1]]


def _between(values: np.ndarray, axis: int) -> np.ndarray:
    """Returns twice as many numbers, 3 of each and 1 of its neighbour before or behind."""
    values = np.moveaxis(values, axis, 0)
    padded = np.concatenate([values[:1], values, values[-1:]])
    doubled = np.stack([3 * values + padded[:-2], 3 * values + padded[2:]], axis=1)
    return np.moveaxis(doubled.reshape(-1, *values.shape[1:]), 0, axis)


def _inks(image: JpegImageFile) -> np.ndarray:
    """Returns RGB of CMYK, rounded as TensorFlow does it."""
    inks = np.asarray(image).astype(np.uint16)
    # Pillow takes all files for Adobe's, which store the complements of inks.
    light = 255 - inks if "adobe" in image.info else inks
    return (light[..., :3] * light[..., 3:] // 255).astype(np.uint8)
