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
    left: np.ndarray, right: np.ndarray, left_ids: np.ndarray, right_ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rank of the best hit of each item among those of the other side, from 1.

    It is the first of `hit_ranks`, in both directions, by one product of all items.

    Args:
        left: finite float `[N, D]`.
        right: finite float `[M, D]`.
        left_ids: `[N]`; each is among `right_ids`.
        right_ids: `[M]`; each is among `left_ids`.

    Returns:
        int64 `[N]` and int64 `[M]`.
    """
    if len(left) < len(right):
        # Many rows at a time with few columns: the columns are copied for each block.
        shown, said = best_ranks(right, left, right_ids, left_ids)
        return said, shown
    rows, columns = (np.ascontiguousarray(side, dtype=np.float64) for side in (left, right))
    of_rows, of_columns = _best_scores(rows, columns, left_ids, right_ids)
    lengths = [np.sqrt(np.einsum("nd,nd->n", side, side)) for side in (rows, columns)]
    of_rows -= _TIE * np.max(lengths[1]) * lengths[0]
    of_columns -= _TIE * np.max(lengths[0]) * lengths[1]
    order, first, last = _hits(left_ids, right_ids)
    ranks = np.ones(len(rows), np.int64), np.ones(len(columns), np.int64)
    step = max(1, _BLOCK_SCORES // len(columns))
    for start in range(0, len(rows), step):
        block = slice(start, start + step)
        scores = rows[block] @ columns.T
        # What ranks before a hit is a wrong item.
        scores[_pairs(order, first[block], last[block])] = -np.inf
        ranks[0][block] += np.sum(scores >= of_rows[block, None], axis=1)
        ranks[1][:] += np.sum(scores >= of_columns, axis=0)
    return ranks


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


def _best_scores(
    rows: np.ndarray, columns: np.ndarray, row_ids: np.ndarray, column_ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the score of the best hit of each row and of each column, `[N]` and `[M]`."""
    of_rows, of_columns = np.full(len(rows), -np.inf), np.empty(len(columns))
    order, first, last = _hits(column_ids, row_ids)
    for column, (start, stop) in enumerate(zip(first, last, strict=True)):
        own = order[start:stop]
        scores = rows[own] @ columns[column]
        of_columns[column] = np.max(scores)
        of_rows[own] = np.maximum(of_rows[own], scores)
    return of_rows, of_columns


def _hits(ids: np.ndarray, other_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns an order of the others, and where in it the hits of each item begin and end."""
    order = np.argsort(other_ids, kind="stable")
    first, last = (np.searchsorted(other_ids, ids, side, order) for side in ("left", "right"))
    return order, first, last


def _pairs(order: np.ndarray, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows and the columns of all hits, where those of a row are order[first:last]."""
    counts = last - first
    rows = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rows, order[np.repeat(first, counts) + within]
