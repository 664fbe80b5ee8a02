"""Unit vectors for the tests of losses, and losses as NumPy."""

from __future__ import annotations

import keras
import numpy as np

EAST, NORTH, WEST = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]


def unit(*vectors: list[float]) -> np.ndarray:
    return np.array(vectors, np.float32)


def random_units(draw: np.random.Generator, rows: int, width: int = 5) -> np.ndarray:
    vectors = draw.normal(size=(rows, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def random_batch(draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Instance ids, some of them equal, and as many images and captions: 1 to 11 of each."""
    rows = int(draw.integers(1, 12))
    return draw.integers(0, rows, rows), random_units(draw, rows), random_units(draw, rows)


def value(loss: object) -> np.ndarray:
    return keras.ops.convert_to_numpy(loss)


def through_its_configuration(loss: keras.losses.Loss) -> keras.losses.Loss:
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is type(loss) and again.get_config() == loss.get_config()
    return again
