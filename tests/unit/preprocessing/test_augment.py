"""Rotation, colour and cutout: what each does to pixels, by its draws alone."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance

from tf_dpce.config import ImageConfig
from tf_dpce.preprocessing.augment import DRAWS, augmented, is_augmented

SIZE = 12
ROTATION, SATURATION, CONTRAST, BRIGHTNESS, ROW, COLUMN = range(DRAWS)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(30, 200, (SIZE, SIZE, 3)).astype(np.float32)


def changed(pixels: np.ndarray, draws: dict[int, float], **settings: float) -> np.ndarray:
    """The result in a graph, as in tf.data, with draws of 0.5 unless they are given."""
    image, values = ImageConfig(**settings), [draws.get(column, 0.5) for column in range(DRAWS)]
    function = tf.function(lambda pixels, draws: augmented(pixels, image, draws))
    found = function(tf.constant(pixels), tf.constant(values, tf.float32))
    assert found.dtype == tf.float32 and found.shape == pixels.shape
    return found.numpy()


def test_without_settings_nothing_is_done(pixels: np.ndarray):
    assert not is_augmented(ImageConfig())
    np.testing.assert_array_equal(changed(pixels, dict.fromkeys(range(DRAWS), 0.9)), pixels)
    for name in ("rotation", "colour", "cutout"):
        assert is_augmented(ImageConfig(**{name: 0.1}))


def test_the_angle_lies_between_the_largest_on_either_side(pixels: np.ndarray):
    # A quarter of a turn is exact.
    for draw, quarters in ((0.0, -1), (0.5, 0), (1.0, 1)):
        found = changed(pixels, {ROTATION: draw}, rotation=90.0)
        np.testing.assert_array_equal(found, np.rot90(pixels, quarters))
    # Mirrored at the edge, a small turn leaves no corner black.
    assert changed(pixels, {ROTATION: 0.9}, rotation=20.0).min() >= pixels.min()


def test_colours_are_those_of_pillow(pixels: np.ndarray):
    image = Image.fromarray(pixels.astype(np.uint8))
    for column, enhance in (
        (SATURATION, ImageEnhance.Color),
        (BRIGHTNESS, ImageEnhance.Brightness),
    ):
        # 1 - 0.4 and 1 + 0.4 * 0.5.
        for draw, factor in ((0.0, 0.6), (0.75, 1.2)):
            found = changed(pixels, {column: draw}, colour=0.4)
            expected = np.asarray(enhance(image).enhance(factor), np.float32)
            # Pillow rounds grey to whole numbers first.
            assert np.abs(found - expected).max() <= 2


def test_contrast_moves_each_colour_from_its_mean(pixels: np.ndarray):
    mean = pixels.mean(axis=(0, 1))
    found = changed(pixels, {CONTRAST: 0.0}, colour=0.4)
    np.testing.assert_allclose(found, mean + 0.6 * (pixels - mean), atol=1.5)


def test_a_grey_square_lies_about_its_centre_and_may_leave_the_image(pixels: np.ndarray):
    # Half of 12 pixels: rows 3 to 8, and of columns about the left edge, 0 to 2.
    found = changed(pixels, {ROW: 0.5, COLUMN: 0.0}, cutout=0.5)
    expected = pixels.copy()
    expected[3:9, :3] = 128
    np.testing.assert_array_equal(found, expected)
