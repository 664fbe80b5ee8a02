"""Whether a model hears the order of words: true captions against the same words rearranged."""

from __future__ import annotations

import numpy as np


def told_apart(images: np.ndarray, captions: np.ndarray, rearranged: np.ndarray) -> float:
    """Returns the share of captions that a model scores above their rearranged twins.

    Args:
        images: float `[M, D]`, for each caption the image that it is true of.
        captions: float `[M, D]`.
        rearranged: float `[M, D]`, the same words in an order that makes them false.

    Returns:
        Percent, 0 to 100. An equal score does not count: a model that is blind to order has 0.

    Example:
        >>> told_apart(np.eye(2), np.eye(2), np.eye(2)[::-1])
        100.0
    """
    true = np.sum(images * captions, axis=1)
    false = np.sum(images * rearranged, axis=1)
    return 100 * float(np.mean(true > false))
