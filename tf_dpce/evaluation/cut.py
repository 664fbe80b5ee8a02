"""Embeddings that are cut: their first numbers, which training with prefixes makes embeddings."""

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
