"""Augmentation beyond crop and flip: rotation, colour and cutout, each a function of its draws."""

from __future__ import annotations

import tensorflow as tf

from tf_dpce.config import ImageConfig

# One for each of rotation, saturation, contrast, brightness, and the two of a position.
DRAWS = 6
_GREY = 128.0


def is_augmented(image: ImageConfig) -> bool:
    """Returns whether a configuration asks for any of these augmentations."""
    return max(image.rotation, image.colour, image.cutout) > 0


def augmented(pixels: tf.Tensor, image: ImageConfig, draws: tf.Tensor) -> tf.Tensor:
    """Returns pixels turned, recoloured and partly covered, as the configuration says.

    Args:
        pixels: float32 RGB `[S, S, 3]` in 0..255.
        image: the largest angle, change of colour and size of the cutout.
        draws: float32 `[6]`, uniform in 0..1: all the chance there is.
    """
    # From -1 to 1.
    signed = 2 * draws - 1
    if image.rotation:
        pixels = _rotated(pixels, image.rotation * signed[0])
    if image.colour:
        pixels = _recoloured(pixels, 1 + image.colour * signed[1:4])
    return _cut_out(pixels, image.cutout, draws[4:6]) if image.cutout else pixels


def _rotated(pixels: tf.Tensor, degrees: tf.Tensor) -> tf.Tensor:
    """Turns an image about its centre; what comes in at the corners mirrors the edge."""
    # Imported where it is used, because it costs a second or two. Of `official` only operations
    # are used whose parameters are given: those that draw themselves do so from a hidden state.
    from official.vision.ops import augment

    return tf.ensure_shape(augment.rotate(pixels, degrees), pixels.shape)


def _recoloured(pixels: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Multiplies saturation, contrast and brightness by factors, float32 `[3]`."""
    from official.vision.ops import augment

    # These take and return whole numbers.
    whole = tf.cast(tf.round(pixels), tf.uint8)
    whole = augment.color(whole, factors[0])
    whole = augment.contrast(whole, factors[1])
    return tf.cast(augment.brightness(whole, factors[2]), tf.float32)


def _cut_out(pixels: tf.Tensor, share: float, draws: tf.Tensor) -> tf.Tensor:
    """Covers a grey square whose centre lies anywhere in the image.

    Args:
        pixels: float32 `[S, S, 3]`.
        share: the side of the square as a share of the image's.
        draws: float32 `[2]`, the centre as a share of either side.
    """
    # `official` has only one that draws the centre itself.
    size = pixels.shape[0]
    positions = (tf.range(size, dtype=tf.float32) + 0.5) / size
    rows, columns = (tf.abs(positions - draw) < share / 2 for draw in tf.unstack(draws))
    covered = rows[:, None] & columns[None, :]
    return tf.where(covered[..., None], _GREY, pixels)
