"""What training draws for images and captions, in NumPy alone: no TensorFlow is needed.

`image.crop_window` and `text.position_shift` do the same in the graph, a row at a time; a test
holds both against one another.
"""

from __future__ import annotations

import math

import numpy as np

MAX_LOG_ASPECT = math.log(4 / 3)
MIN_SIDE_SCALE_SQUARED = 0.8**2


def crop_windows(shapes: np.ndarray, draws: np.ndarray, squash: bool = False) -> np.ndarray:
    """Draws the recipe's crop of each image, as `image.crop_window` does.

    Args:
        shapes: integers `[B, 2]`: height and width of the images.
        draws: float32 `[B, 4]` or wider, uniform in 0..1.
        squash: whether the aspect is that within the image squashed to a square.

    Returns:
        int64 `[B, 4]`: top, left, height and width, all inside the image.
    """
    height, width = shapes.astype(np.float32).T
    aspect = np.exp((2 * draws[:, 0] - 1) * np.float32(MAX_LOG_ASPECT))
    if squash:
        aspect = aspect * (width / height)
    largest = np.minimum(width, height * aspect)
    shrink = np.sqrt(MIN_SIDE_SCALE_SQUARED + (1 - MIN_SIDE_SCALE_SQUARED) * draws[:, 1])
    sides = np.stack([largest / aspect * shrink, largest * shrink], axis=1)
    sides = np.clip(np.round(sides).astype(np.int64), 1, shapes)
    corners = picked(draws[:, 2:4], shapes - sides + 1)
    return np.concatenate([corners, sides], axis=1)


def shifted(ids: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Moves each caption to a uniformly drawn start, as `text.position_shift` does.

    Args:
        ids: left-aligned int32 ids `[B, T]`.
        draws: float32 `[B]`, uniform in 0..1.

    Returns:
        int32 `[B, T]`.
    """
    length = ids.shape[1]
    starts = picked(draws, length - np.count_nonzero(ids, axis=1) + 1)
    return np.take_along_axis(ids, (np.arange(length) - starts[:, None]) % length, axis=1)


def picked(draws: np.ndarray, counts: np.ndarray | int) -> np.ndarray:
    """Turns uniform draws in 0..1 into integers from 0 to `counts` - 1, as `order.pick` does.

    Example:
        >>> picked(np.array([0.0, 0.5, 0.99]), 4)
        array([0, 2, 3])
    """
    # A draw next to 1 may round up to the count itself.
    return np.minimum((draws * counts).astype(np.int64), np.asarray(counts) - 1)


def grouped(owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of each owner side by side.

    Args:
        owners: integers `[M]`, the owner of each row, numbered from 0 without a gap.

    Returns:
        The rows in the order of their owners, `[M]`, and where in it each owner's begin and the
        last one's end, `[N + 1]`.

    Example:
        >>> grouped(np.array([1, 0, 1]))
        (array([1, 0, 2]), array([0, 1, 3]))
    """
    order = np.argsort(owners, kind="stable")
    return order, np.searchsorted(owners[order], np.arange(owners.max() + 2))
