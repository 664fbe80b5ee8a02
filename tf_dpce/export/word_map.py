"""A linear map from word vectors to the rows that training learnt, fitted by ridge regression.

Kiros et al. (2015) gave skip-thoughts words that it was never trained on by such a map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_HELD_OUT = 0.1
_SEED = 0
# Factors of the mean eigenvalue: from nearly no regularisation to nearly nothing but the mean.
_STRENGTHS = np.logspace(-5, 3, 17)


@dataclass(frozen=True)
class WordMap:
    """A map from word vectors to learnt rows.

    Attributes:
        matrix: float64 `[E, D]`.
        vector: float64 `[E]`, the mean of the vectors that it was fitted on.
        row: float64 `[D]`, the mean of the rows.
        longest: the length of the longest of these rows.
        strength: the regularisation that was chosen, as a factor of the mean eigenvalue.
        explained: the share of the variance of held-out rows that it explains; at most 1, and
            below 0 if it is worse than their mean.
    """

    matrix: np.ndarray
    vector: np.ndarray
    row: np.ndarray
    longest: float
    strength: float
    explained: float

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Returns rows `[N, D]` of word vectors `[N, E]`, none longer than the longest learnt one.

        A word whose vector is far from those of the vocabulary must not drown the others.
        """
        rows = (vectors.astype(np.float64) - self.vector) @ self.matrix + self.row
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows * np.minimum(1, self.longest / np.maximum(lengths, 1e-9))


def fit_word_map(vectors: np.ndarray, rows: np.ndarray) -> WordMap:
    """Fits a map on the words that have both; a tenth of them, drawn, chooses the regularisation.

    If vectors and rows have the same width, a map that regularises towards the vectors themselves
    is tried too, because training begins there; the better one on the held-out words is taken.

    Args:
        vectors: float `[N, E]`, N at least 2.
        rows: float `[N, D]`, what training made of the same words.

    Example:
        >>> vectors = np.random.default_rng(0).normal(size=(500, 8))
        >>> word_map = fit_word_map(vectors, 2 * vectors[:, :3] + 1)
        >>> round(word_map.explained, 3)
        1.0
    """
    order = np.random.default_rng(_SEED).permutation(len(rows))
    held, fitted = np.split(order, [max(1, round(_HELD_OUT * len(rows)))])
    starts = [np.zeros((vectors.shape[1], rows.shape[1]))]
    if vectors.shape[1] == rows.shape[1]:
        starts.append(np.eye(rows.shape[1]))
    trials = [
        (_error(*fit, vectors[held], rows[held]), strength, start)
        for start in starts
        for strength, fit in _ridge(vectors[fitted], rows[fitted], start, _STRENGTHS)
    ]
    error, strength, start = min(trials, key=lambda trial: trial[0])
    spread = np.square(rows[held] - rows[fitted].mean(axis=0)).sum()
    ((_, (matrix, vector, row)),) = _ridge(vectors, rows, start, [strength])
    longest = float(np.linalg.norm(rows, axis=1).max())
    return WordMap(matrix, vector, row, longest, float(strength), float(1 - error / (spread or 1)))


def _ridge(
    vectors: np.ndarray, rows: np.ndarray, start: np.ndarray, strengths: Sequence[float]
) -> Iterator[tuple[float, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """Yields each strength with the matrix nearest to `start` that it leads to, and the means."""
    vector, row = vectors.mean(axis=0, dtype=np.float64), rows.mean(axis=0, dtype=np.float64)
    x = vectors.astype(np.float64) - vector
    missing = rows - row - x @ start
    values, axes = np.linalg.eigh(x.T @ x)
    projected = axes.T @ (x.T @ missing)
    for strength in strengths:
        weights = np.maximum(values, 0) + strength * (values.mean() or 1.0)
        yield strength, (start + axes @ (projected / weights[:, None]), vector, row)


def _error(
    matrix: np.ndarray, vector: np.ndarray, row: np.ndarray, vectors: np.ndarray, rows: np.ndarray
) -> float:
    return float(np.square((vectors - vector) @ matrix + row - rows).sum())
