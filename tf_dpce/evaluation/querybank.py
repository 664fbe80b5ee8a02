"""Querybank normalisation: a correction for hubs, in NumPy.

In many dimensions a few items, the hubs, are close to far more queries than their share, and are
found too often. The mean cosine of an item with its nearest queries of a querybank, queries that
are not those to be answered, estimates how much of its cosine with any query says nothing. CSLS
(cross-domain similarity local scaling) takes that off.

Sources: CSLS is of Conneau et al., Word Translation Without Parallel Data, ICLR 2018; a bank of
training queries of Bogolin et al., Cross Modal Retrieval with Querybank Normalisation, CVPR 2022.
"""

from __future__ import annotations

import numpy as np

# K of the sources. Recall is flat from 1 to 100.
NEIGHBOURS = 10
# Cosines of a block of items with all of a querybank: 32 MiB of float32, 64 of float64.
_BLOCK_SCORES = 2**23


def hubness(items: np.ndarray, querybank: np.ndarray, neighbours: int = NEIGHBOURS) -> np.ndarray:
    """Returns the mean cosine of each item with its K nearest queries of a querybank.

    Args:
        items: float `[N, D]`, unit vectors.
        querybank: float `[Q, D]`, unit vectors of queries.
        neighbours: K; a smaller querybank is taken whole.

    Returns:
        `[N]`, in -1..1, of the dtype of `items`.

    Example:
        >>> hubness(np.eye(2), np.array([[1.0, 0.0], [0.6, 0.8]]), neighbours=2)
        array([0.8, 0.4])
    """
    columns = np.ascontiguousarray(querybank.T, dtype=items.dtype)
    nearest = min(neighbours, len(querybank))
    step = max(1, _BLOCK_SCORES // len(querybank))
    means = np.empty(len(items), items.dtype)
    for start in range(0, len(items), step):
        rows = slice(start, start + step)
        cosines = items[rows] @ columns
        means[rows] = np.mean(np.partition(cosines, -nearest, axis=1)[:, -nearest:], axis=1)
    return means


def querybank_normalised(
    images: np.ndarray, texts: np.ndarray, image_querybank: np.ndarray, text_querybank: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns vectors whose inner product is the cosine less half the hubness of both items.

    That ranks as CSLS does, which is twice as much: 2 cos(x, y) - r(x) - r(y). Two more dimensions
    hold what is taken off, so that everything that compares by inner products can be used.

    Args:
        images: float `[N, D]`, unit vectors.
        texts: float `[M, D]`, unit vectors of captions.
        image_querybank: float `[P, D]`, unit vectors of other images, the queries for captions.
        text_querybank: float `[Q, D]`, unit vectors of other captions, the queries for images.

    Returns:
        float64 `[N, D + 2]` and `[M, D + 2]`, not of unit length. In float32 equal vectors would
        differ by rounding, and a collapsed model would find some of its own.
    """
    images, texts = images.astype(np.float64), texts.astype(np.float64)
    image_half = hubness(images, text_querybank) / 2
    text_half = hubness(texts, image_querybank) / 2
    return (
        np.column_stack([images, -image_half, np.ones_like(image_half)]),
        np.column_stack([texts, np.ones_like(text_half), -text_half]),
    )
