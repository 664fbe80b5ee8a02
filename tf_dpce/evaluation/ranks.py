"""Ranks of the right items of each query, in NumPy.

Items are ranked by falling inner product; a wrong item with an equal score ranks before a right
one. Memory grows with the numbers of queries and items, never with their product.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

# Scores in a block of queries against the whole corpus: 32 MiB of float64.
_BLOCK_SCORES = 2**22
# Scores of equal vectors differ by rounding, because a matrix product adds up in another order at
# its edges. This is far above that noise, and far below the noise of float32 vectors.
_TIE = 1e-9


def hit_ranks(
    queries: np.ndarray, corpus: np.ndarray, query_ids: np.ndarray, corpus_ids: np.ndarray
) -> Iterator[np.ndarray]:
    """Yields the ranks of the hits of each query, int64, counted from 1, the best first.

    Args:
        queries: finite float `[Q, D]`.
        corpus: finite float `[N, D]`.
        query_ids: `[Q]`; each is among `corpus_ids`.
        corpus_ids: `[N]`.
    """
    columns = np.ascontiguousarray(corpus.T, dtype=np.float64)
    longest = np.sqrt(np.max(np.sum(columns**2, axis=0)))
    step = max(1, _BLOCK_SCORES // len(corpus))
    for start in range(0, len(queries), step):
        block = queries[start : start + step].astype(np.float64)
        ties = _TIE * longest * np.linalg.norm(block, axis=1)
        ids = query_ids[start : start + step]
        for scores, tie, own in zip(block @ columns, ties, ids, strict=True):
            right = corpus_ids == own
            hits = np.sort(scores[right])
            # How many of the hits, the worst first, each wrong item ranks before.
            passed = np.searchsorted(hits - tie, scores[~right], side="right")
            counts = np.bincount(passed, minlength=len(hits) + 1)
            yield np.cumsum(counts[::-1])[:-1] + np.arange(1, len(hits) + 1)
