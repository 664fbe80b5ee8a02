"""Whether a model uses the order of words: true captions against the same words rearranged."""

from __future__ import annotations

import numpy as np


def word_order_accuracy(images: np.ndarray, captions: np.ndarray, rearranged: np.ndarray) -> float:
    """Returns the share of captions that score above the same caption with its words rearranged.

    Args:
        images: float `[M, D]`, the image of each caption.
        captions: float `[M, D]`, true captions.
        rearranged: float `[M, D]`, the same words in an order that makes them false.

    Returns:
        Percent, 0 to 100. Equal scores count as failures, so that a model that ignores the order
        has 0.

    Example:
        >>> word_order_accuracy(np.eye(2), np.eye(2), np.eye(2)[::-1])
        100.0
    """
    true = np.sum(images * captions, axis=1)
    false = np.sum(images * rearranged, axis=1)
    return 100 * float(np.mean(true > false))
