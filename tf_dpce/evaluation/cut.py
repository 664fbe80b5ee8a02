"""Embeddings that are cut: their first numbers, along axes that make these say most."""

from __future__ import annotations

import numpy as np


def cut(vectors: np.ndarray, dimension: int) -> np.ndarray:
    """Returns the first numbers of embeddings `[N, D]`, brought to unit length.

    Example:
        >>> cut(np.float32([[0.6, 0.0, 0.8]]), 2).tolist()
        [[1.0, 0.0]]
    """
    first = np.asarray(vectors[:, :dimension], np.float32)
    return first / np.maximum(np.linalg.norm(first, axis=1, keepdims=True), 1e-12)


def principal_axes(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Returns axes along which embeddings can be cut, as far as a linear map allows.

    The first axis is the direction that holds most of the embeddings' squares, and so on; images
    and texts count alike, however many there are. Nothing is subtracted, so that inner products
    along all axes are those that they were.

    Args:
        images: float `[N, D]`, embeddings.
        texts: float `[M, D]`, embeddings.

    Returns:
        float32 `[D, D]`, an orthogonal matrix; each column is an axis.

    Example:
        >>> axes = principal_axes(np.float32([[0, 0, 1]]), np.float32([[0, 0.6, 0.8]]))
        >>> np.abs(np.float32([[0, 0.6, 0.8]]) @ axes).round(2)
        array([[0.95, 0.32, 0.  ]], dtype=float32)
    """
    moments = sum(each.T.astype(np.float64) @ each / len(each) for each in (images, texts))
    return np.linalg.eigh(moments)[1][:, ::-1].astype(np.float32)
