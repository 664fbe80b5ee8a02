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


def best_ranks(
    queries: np.ndarray, corpus: np.ndarray, query_ids: np.ndarray, corpus_ids: np.ndarray
) -> np.ndarray:
    """Returns the 0-based rank of each query's best hit, int64 `[Q]`.

    Args:
        queries: finite float `[Q, D]`.
        corpus: finite float `[N, D]`.
        query_ids: `[Q]`; each is among `corpus_ids`.
        corpus_ids: `[N]`.
    """
    ranks = np.empty(len(queries), np.int64)
    for rows, scores, right, tie in _blocks(queries, corpus, query_ids, corpus_ids):
        best = np.max(scores, axis=1, where=right, initial=-np.inf, keepdims=True)
        ranks[rows] = np.sum((scores >= best - tie) & ~right, axis=1)
    return ranks


def hit_ranks(
    queries: np.ndarray, corpus: np.ndarray, query_ids: np.ndarray, corpus_ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns what the ranks of all hits of each query say; the arguments are `best_ranks`'s.

    Returns:
        int64 `[Q]`, the 0-based rank of the best hit; float64 `[Q]`, in 0..1, the mean of the
        precision at each hit, which is h / r for the h-th hit at rank r, counted from 1; and
        float64 `[Q]`, in 0..1, the number of hits over the rank of the last one.
    """
    best = np.empty(len(queries), np.int64)
    average_precision, inverse_penalty = np.empty((2, len(queries)))
    for rows, scores, right, tie in _blocks(queries, corpus, query_ids, corpus_ids):
        for query, *row in zip(range(rows.start, rows.stop), scores, right, tie, strict=True):
            ranks = _ranks_of_hits(*row)
            numbers = np.arange(1, len(ranks) + 1)
            best[query] = ranks[0] - 1
            average_precision[query] = np.mean(numbers / ranks)
            inverse_penalty[query] = len(ranks) / ranks[-1]
    return best, average_precision, inverse_penalty


def _ranks_of_hits(scores: np.ndarray, right: np.ndarray, tie: np.ndarray) -> np.ndarray:
    """Returns the ranks of one query's hits, counted from 1, the best first."""
    hits, wrong = np.sort(scores[right])[::-1], np.sort(scores[~right])
    before = len(wrong) - np.searchsorted(wrong, hits - tie)
    return before + np.arange(1, len(hits) + 1)


def _blocks(
    queries: np.ndarray, corpus: np.ndarray, query_ids: np.ndarray, corpus_ids: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray]]:
    """Yields blocks of R queries.

    A block is the slice of its queries, their scores float64 `[R, N]`, whether items are right
    bool `[R, N]`, and the distance at which a lower score counts as equal, float64 `[R, 1]`.
    """
    columns = np.ascontiguousarray(corpus.T, dtype=np.float64)
    longest = np.sqrt(np.max(np.sum(columns**2, axis=0)))
    step = max(1, _BLOCK_SCORES // len(corpus))
    for start in range(0, len(queries), step):
        rows = slice(start, min(start + step, len(queries)))
        block = queries[rows].astype(np.float64)
        right = query_ids[rows, np.newaxis] == corpus_ids
        tie = _TIE * longest * np.linalg.norm(block, axis=1, keepdims=True)
        yield rows, block @ columns, right, tie
