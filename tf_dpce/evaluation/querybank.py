"""Hubs: items that are near to queries of all kinds, and would be found by too many. NumPy alone.

Among vectors of many dimensions a few are close to far more queries than their share. How close an
item is to the queries of a bank, which were put to other items, tells how much of its cosine with
a new query says nothing.
"""

from __future__ import annotations

import numpy as np

# K of the sources. Recall is flat from 1 to 100.
NEIGHBOURS = 10
# Cosines of a block of items with all of a bank: 32 MiB of float32, 64 of float64.
_BLOCK_SCORES = 2**23


def hubness(items: np.ndarray, bank: np.ndarray, neighbours: int = NEIGHBOURS) -> np.ndarray:
    """Returns how near each item is to the queries of a bank: its mean cosine with the K nearest.

    Args:
        items: float `[N, D]`, unit vectors.
        bank: float `[Q, D]`, unit vectors of queries.
        neighbours: K; all of a smaller bank are taken.

    Returns:
        `[N]`, in -1..1, of the type of `items`.

    Example:
        >>> hubness(np.eye(2), np.array([[1.0, 0.0], [0.6, 0.8]]), neighbours=2)
        array([0.8, 0.4])

    Source: Conneau et al., Word Translation Without Parallel Data, ICLR 2018 (CSLS).
    """
    columns = np.ascontiguousarray(bank.T, dtype=items.dtype)
    kept = min(neighbours, len(bank))
    step = max(1, _BLOCK_SCORES // len(bank))
    means = np.empty(len(items), items.dtype)
    for start in range(0, len(items), step):
        rows = slice(start, start + step)
        cosines = items[rows] @ columns
        means[rows] = np.mean(np.partition(cosines, -kept, axis=1)[:, -kept:], axis=1)
    return means


def discounted(
    images: np.ndarray,
    texts: np.ndarray,
    image_bank: np.ndarray,
    text_bank: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns vectors whose inner products are cosines less half the hubness of both items.

    That ranks as CSLS does, which is twice as much: 2 cos(x, y) - r(x) - r(y). Two more dimensions
    hold what is taken off, so that whatever compares by inner products takes them as they are.

    Args:
        images: float `[N, D]`, unit vectors.
        texts: float `[M, D]`, unit vectors.
        image_bank: float `[P, D]`, unit vectors of other images, as queries for sentences.
        text_bank: float `[Q, D]`, unit vectors of other sentences, as queries for images.

    Returns:
        float64 `[N, D + 2]` and `[M, D + 2]`, which are not of unit length. Float32 would tell
        equal vectors apart by rounding alone, and a collapsed model would find some of its own.

    Source: Conneau et al., ICLR 2018; a bank of training queries instead of those at hand is of
    Bogolin et al., Cross Modal Retrieval with Querybank Normalisation, CVPR 2022.
    """
    images, texts = images.astype(np.float64), texts.astype(np.float64)
    image_half, text_half = hubness(images, text_bank) / 2, hubness(texts, image_bank) / 2
    return (
        np.column_stack([images, -image_half, np.ones_like(image_half)]),
        np.column_stack([texts, np.ones_like(text_half), -text_half]),
    )
