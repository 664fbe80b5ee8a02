"""Whether a model uses the order of words: true captions against the same words rearranged."""

from __future__ import annotations

from collections.abc import Sequence

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
    return 100 * float(np.mean(_preferred(images, captions, rearranged)))


def word_order_by_kind(
    images: np.ndarray, captions: np.ndarray, rearranged: np.ndarray, kinds: Sequence[str]
) -> dict[str, tuple[float, int]]:
    """Returns the word-order accuracy of each kind of change.

    Args:
        images: float `[M, D]`, the image of each caption.
        captions: float `[M, D]`, true captions.
        rearranged: float `[M, D]`, the captions as they were changed.
        kinds: what was changed in each of the M captions, such as "colour".

    Returns:
        For each kind, in alphabetical order, percent and the number of its captions.

    Example:
        >>> kinds = ["size", "size", "count"]
        >>> word_order_by_kind(np.eye(3), np.eye(3), np.eye(3)[[1, 0, 2]], kinds)
        {'count': (0.0, 1), 'size': (100.0, 2)}
    """
    preferred, of_kind = _preferred(images, captions, rearranged), np.array(kinds)
    chosen = {kind: preferred[of_kind == kind] for kind in sorted(set(kinds))}
    return {kind: (100 * float(hits.mean()), len(hits)) for kind, hits in chosen.items()}


def _preferred(images: np.ndarray, captions: np.ndarray, rearranged: np.ndarray) -> np.ndarray:
    """Returns bool `[M]`: whether the true caption scores above the other."""
    return np.sum(images * captions, axis=1) > np.sum(images * rearranged, axis=1)
