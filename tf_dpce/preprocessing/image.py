"""Turns JPEG or PNG bytes into pixels, in the graph: the same way in training and serving."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import tensorflow as tf

from tf_dpce.config import Resize
from tf_dpce.preprocessing.image_header import is_jpeg
from tf_dpce.preprocessing.orientation import (
    apart,
    jpeg_orientation,
    png_metadata,
    stored_window,
    turned,
    upright_sides,
)

# The recipe's crop: its aspect is 3/4 to 4/3, its longer side 0.8 to 1 of the largest that fits.
_MAX_LOG_ASPECT = math.log(4 / 3)
_MIN_SIDE_SCALE_SQUARED = 0.8**2
# Largest aspect of an image to be stretched. Resizing holds the size of the result times the
# image's width as floats: a PNG of a few kilobytes and a million columns would take gigabytes.
_MAX_STRETCHED_ASPECT = 16
# How often a JPEG can be halved while it is decoded.
_HALVINGS = 3
_STRIP_PIXELS = 2**20


def decode(contents: tf.Tensor, shortest: int | None = None) -> tf.Tensor:
    """Decodes JPEG or PNG bytes into what a person sees, uint8 RGB `[H, W, 3]`.

    The orientation of EXIF is applied, and what is transparent lies on white. Grey images are
    repeated over three channels, CMYK is converted, 16 bits become 8, and an animated PNG gives its
    first frame.

    Args:
        contents: scalar string, the bytes of a file.
        shortest: a JPEG is halved, once or several times, while it is decoded, if no side becomes
            shorter than this.

    Raises:
        tf.errors.InvalidArgumentError: the bytes cannot be decoded.
    """

    def jpeg() -> tf.Tensor:
        halvings = tf.constant(0)
        if shortest:
            halvings = _halvings(tf.io.extract_jpeg_shape(contents)[:2], shortest)
        pixels = _at_ratio(halvings, lambda ratio: tf.io.decode_jpeg(contents, 3, ratio))
        return turned(pixels, jpeg_orientation(contents))

    return tf.cond(is_jpeg(contents), jpeg, lambda: _decode_png(contents))


def evaluation_pixels(contents: tf.Tensor, size: int, resize: Resize = "center_crop") -> tf.Tensor:
    """Returns the largest centred square of what `decode` returns, float32 `[size, size, 3]`.

    A JPEG whose shorter side is twice `size` or more is halved, once or several times, while it is
    decoded, which costs a fraction of decoding it whole.

    Args:
        contents: scalar string, the bytes of a file that `check` accepts.
        size: the side of the result, in pixels.
        resize: "stretch" returns all of the image, stretched to a square, instead. Only the ends
            of an image longer than 16 times its shorter side are cut off.
    """
    pixels = decode(contents, shortest=size)
    aspect = _MAX_STRETCHED_ASPECT if resize == "stretch" else 1
    return _resize(_centre(pixels, aspect * tf.reduce_min(tf.shape(pixels)[:2])), size)


def training_pixels(
    contents: tf.Tensor,
    size: int,
    draws: tf.Tensor,
    crop: bool,
    flip: bool,
    resize: Resize = "center_crop",
) -> tf.Tensor:
    """Returns augmented float32 RGB `[size, size, 3]` in 0..255 (the authors' code).

    Args:
        contents: scalar string, the bytes of a file that `check` accepts.
        size: the side of the result, in pixels.
        draws: float32 `[5]`, uniform in 0..1: all the chance there is.
        crop: whether to take a random rectangle (aspect 3/4 to 4/3, side 0.8 to 1) instead of
            the centred square. Only the rectangle is decoded if the image is a JPEG, and
            reduced like a whole one.
        flip: whether to mirror half of the images.
        resize: "stretch" stretches the image to a square before either.
    """
    pixels = (
        _resize(_decode_window(contents, size, draws, resize), size)
        if crop
        else evaluation_pixels(contents, size, resize)
    )
    return _flip_half(pixels, draws[4]) if flip else pixels


def crop_window(
    height: tf.Tensor, width: tf.Tensor, draws: tf.Tensor, resize: Resize = "center_crop"
) -> tf.Tensor:
    """Draws the recipe's crop.

    The aspect (width by height) is log-uniform between 3/4 and 4/3; the largest such rectangle
    inside the image is shrunk on both sides by the root of a uniform draw from 0.64 to 1; its
    position is uniform over all where it fits.

    Args:
        height: int32 scalar, of the image.
        width: int32 scalar, of the image.
        draws: float32 `[4]` or longer, uniform in 0..1.
        resize: "stretch" draws the aspect within the image stretched to a square.

    Returns:
        int32 `[4]`: top, left, height and width of the crop, all inside the image.
    """
    aspect = tf.exp((2 * draws[0] - 1) * _MAX_LOG_ASPECT)
    full_height, full_width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    if resize == "stretch":
        aspect *= full_width / full_height
    largest_width = tf.minimum(full_width, full_height * aspect)
    shrink = tf.sqrt(_MIN_SIDE_SCALE_SQUARED + (1 - _MIN_SIDE_SCALE_SQUARED) * draws[1])
    crop_width = tf.clip_by_value(tf.cast(tf.round(largest_width * shrink), tf.int32), 1, width)
    crop_height = tf.clip_by_value(
        tf.cast(tf.round(largest_width / aspect * shrink), tf.int32), 1, height
    )
    top = _uniform_integer(draws[2], height - crop_height)
    left = _uniform_integer(draws[3], width - crop_width)
    return tf.stack([top, left, crop_height, crop_width])


@apart
def _decode_png(contents: tf.Tensor) -> tf.Tensor:
    orientation, transparent = png_metadata(contents)
    pixels = tf.cond(
        transparent,
        lambda: _on_white(tf.io.decode_png(contents, channels=4)),
        lambda: tf.io.decode_png(contents, channels=3),
    )
    return turned(pixels, orientation)


@apart
def _on_white(pixels: tf.Tensor) -> tf.Tensor:
    """Lays pixels with alpha, uint8 `[H, W, 4]`, on white.

    It takes strips of a million pixels, because numbers in between take four times the memory.
    """
    height, width = tf.unstack(tf.shape(pixels)[:2])
    rows = tf.maximum(1, _STRIP_PIXELS // width)
    count = -(-height // rows)

    def blend(number: tf.Tensor, strips: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        strip = tf.cast(pixels[number * rows : (number + 1) * rows], tf.float32)
        ink, alpha = 255 - strip[..., :3], strip[..., 3:] / 255
        blended = tf.cast(tf.round(255 - ink * alpha), tf.uint8)
        return number + 1, strips.write(number, blended)

    strips = tf.TensorArray(tf.uint8, count, infer_shape=False, element_shape=[None, None, 3])
    _, strips = tf.while_loop(
        lambda number, _: number < count, blend, (tf.constant(0), strips), parallel_iterations=1
    )
    return tf.ensure_shape(strips.concat(), [None, None, 3])


def _halvings(sides: tf.Tensor, size: int) -> tf.Tensor:
    """Returns how often sides int32 `[2]` can be halved and stay `size` long."""
    doubled = size * tf.constant([2**count for count in range(1, _HALVINGS + 1)])
    return tf.reduce_sum(tf.cast(tf.reduce_min(sides) >= doubled, tf.int32))


def _at_ratio(halvings: tf.Tensor, decode_at: Callable[[int], tf.Tensor]) -> tf.Tensor:
    # A decoder's ratio is a constant of the graph.
    ratios = [2**count for count in range(_HALVINGS + 1)]
    return tf.switch_case(halvings, [partial(decode_at, ratio) for ratio in ratios])


def _decode_window(contents: tf.Tensor, size: int, draws: tf.Tensor, resize: Resize) -> tf.Tensor:
    def jpeg() -> tf.Tensor:
        orientation = jpeg_orientation(contents)
        sides = upright_sides(tf.io.extract_jpeg_shape(contents)[:2], orientation)
        window = stored_window(_drawn_window(sides, draws, resize), sides, orientation)

        def decode_at(ratio: int) -> tf.Tensor:
            # Of the reduced image, all that shows a part of the window.
            first, last = window[:2] // ratio, -(-(window[:2] + window[2:]) // ratio)
            reduced = tf.concat([first, last - first], axis=0)
            return tf.io.decode_and_crop_jpeg(contents, reduced, 3, ratio)

        return turned(_at_ratio(_halvings(window[2:], size), decode_at), orientation)

    def png() -> tf.Tensor:
        pixels = _decode_png(contents)
        window = _drawn_window(tf.shape(pixels)[:2], draws, resize)
        top, left, height, width = tf.unstack(window)
        return pixels[top : top + height, left : left + width]

    return tf.cond(is_jpeg(contents), jpeg, png)


def _drawn_window(sides: tf.Tensor, draws: tf.Tensor, resize: Resize) -> tf.Tensor:
    """Draws a crop of an image of sides int32 `[2]`; of one to be stretched, within its part."""
    if resize != "stretch":
        return crop_window(sides[0], sides[1], draws)
    part = tf.minimum(sides, _MAX_STRETCHED_ASPECT * tf.reduce_min(sides))
    window = crop_window(part[0], part[1], draws, resize)
    return window + tf.concat([(sides - part) // 2, [0, 0]], axis=0)


def _flip_half(pixels: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
    # Imported where it is used: it costs a second or two, and serving never flips.
    from official.vision.ops.preprocess_ops import horizontal_flip_image

    return tf.cond(draw < 0.5, lambda: horizontal_flip_image(pixels), lambda: pixels)


def _centre(pixels: tf.Tensor, longest: tf.Tensor) -> tf.Tensor:
    """Cuts off what is beyond a longest side, as much at either end."""
    height, width = tf.unstack(tf.minimum(tf.shape(pixels)[:2], longest))
    top, left = tf.unstack((tf.shape(pixels)[:2] - [height, width]) // 2)
    return pixels[top : top + height, left : left + width]


def _resize(pixels: tf.Tensor, size: int) -> tf.Tensor:
    def resized() -> tf.Tensor:
        # The operation adds rows as a whole, but columns number by number. Columns that lie as rows
        # take half the time, and give the same bits, because the order of each sum is the same.
        width = tf.shape(pixels)[1]
        rows = tf.reshape(_resize_rows(pixels, size), [size, -1])
        columns = _resize_rows(tf.reshape(tf.transpose(rows), [width, -1]), size)
        bicubic = tf.transpose(tf.reshape(columns, [-1, size]))
        # Bicubic weights are negative in places and overshoot at edges.
        return tf.clip_by_value(tf.reshape(bicubic, [size, size, 3]), 0.0, 255.0)

    # To its own size an image would be resized into itself, at the same cost.
    same = tf.reduce_all(tf.shape(pixels)[:2] == size)
    square = tf.cond(same, lambda: tf.cast(pixels, tf.float32), resized)
    return tf.ensure_shape(square, [size, size, 3])


def _resize_rows(rows: tf.Tensor, size: int) -> tf.Tensor:
    lines = tf.reshape(rows, [1, tf.shape(rows)[0], 1, -1])
    return tf.image.resize(lines, [size, 1], method="bicubic", antialias=True)


def _uniform_integer(draw: tf.Tensor, largest: tf.Tensor) -> tf.Tensor:
    scaled = tf.cast(draw * tf.cast(largest + 1, tf.float32), tf.int32)
    return tf.minimum(scaled, largest)
