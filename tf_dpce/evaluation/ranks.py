"""Ranks of the right items of each query, in NumPy.

Items are ranked by falling inner product; a wrong item with an equal score ranks before a right
one. Memory grows with the numbers of queries and items, never with their product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

# Scores in a block of queries against the whole corpus: 32 MiB of float64.
_BLOCK_SCORES = 2**22
# Scores of equal vectors differ by rounding, because a matrix product adds up in another order at
# its edges. This is far above that noise, and far below the noise of float32 vectors.
_TIE = 1e-9
# So many scores of a block are computed again pair by pair; for more a whole product is faster.
_MOST_PAIRS = 1 / 256

Exact = Callable[[np.ndarray, np.ndarray], np.ndarray]


def best_ranks(
    left: np.ndarray, right: np.ndarray, left_ids: np.ndarray, right_ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rank of the best hit of each item among those of the other side, from 1.

    It is the first of `hit_ranks`, in both directions, by one product of all items. The product is
    of float32; scores that it cannot tell from that of the hit are computed again in float64.

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
        right_ranks, left_ranks = best_ranks(right, left, right_ids, left_ids)
        return left_ranks, right_ranks
    order, first, last = _hits(left_ids, right_ids)
    ranks = np.ones(len(left), np.int64), np.ones(len(right), np.int64)
    (rows, row_power), (columns, column_power) = _scaled(left), _scaled(right)
    of_rows, of_columns = _limits(left, right, left_ids, right_ids, row_power * column_power)
    step = max(1, _BLOCK_SCORES // len(right))
    for start in range(0, len(left), step):
        block = slice(start, start + step)
        scores = rows[block] @ columns.T
        # What ranks before a hit is a wrong item.
        scores[_pairs(order, first[block], last[block])] = -np.inf
        exact = partial(_exact, left[block], right)
        for side, axis, limits in ((0, 1, of_rows[:, block, None]), (1, 0, of_columns[:, None])):
            passed = _passing(scores, limits, exact)
            ranks[side][block if axis else slice(None)] += np.sum(passed, axis, dtype=np.uint32)
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


def _limits(
    left: np.ndarray, right: np.ndarray, left_ids: np.ndarray, right_ids: np.ndarray, power: float
) -> list[np.ndarray]:
    """Returns what a wrong item must reach to rank before the best hit, for either direction.

    Args:
        left: float `[N, D]`.
        right: float `[M, D]`.
        left_ids: `[N]`.
        right_ids: `[M]`.
        power: what a score is divided by in the product of float32.

    Returns:
        float64 `[3, N]` and `[3, M]`: the score, then a number in the product of float32 below
        which it is surely not reached, and one above which it surely is.
    """
    # A sum of D products, added up in any order, of factors that are rounded themselves, is off by
    # at most (D + 2) u / (1 - (D + 2) u) of |x| |y|, where u is 2^-24 (Higham, Accuracy and
    # Stability of Numerical Algorithms, chapter 3). What underflows is less than the least normal
    # number in each product, and in each factor, of which the other is below 2.
    dimension = left.shape[1]
    relative = 1.01 * (dimension + 2) * 2.0**-24
    lost = 8 * dimension * float(np.finfo(np.float32).tiny) * power
    sides = left, right
    lengths = [np.sqrt(np.einsum("nd,nd->n", side, side, dtype=np.float64)) for side in sides]
    limits = []
    for best, own, other in zip(
        _best_scores(*sides, left_ids, right_ids), lengths, lengths[::-1], strict=True
    ):
        product = own * np.max(other)
        score, error = best - _TIE * product, relative * product + lost
        limits.append(np.stack([score, (score - error) / power, (score + error) / power]))
    return limits


def _scaled(side: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns a side divided by a power of two, float32 with a largest number below 2, and that."""
    largest = max(np.max(side, initial=0), -np.min(side, initial=0))
    power = 2.0 ** (math.frexp(largest)[1] - 1)
    return (side / power).astype(np.float32, copy=False), power


def _passing(scores: np.ndarray, limits: np.ndarray, exact: Exact) -> np.ndarray:
    """Returns which scores reach their limit, bool `[R, M]`.

    Args:
        scores: float32 `[R, M]`.
        limits: of `_limits`, `[3, R, 1]` or `[3, 1, M]`.
        exact: returns the scores of rows and columns in float64.
    """
    low, high = limits[1:].astype(np.float32)
    # Rounding may have moved either towards the other.
    passed = scores > np.nextafter(high, np.float32(np.inf))
    possible = scores > np.nextafter(low, np.float32(-np.inf))
    near = np.divmod(np.flatnonzero(passed != possible), scores.shape[1])
    if len(near[0]):
        passed[near] = exact(*near) >= np.broadcast_to(limits[0], scores.shape)[near]
    return passed


def _exact(
    left: np.ndarray, right: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Returns the scores of rows of one side with rows of the other, in float64."""
    if len(rows) > _MOST_PAIRS * len(left) * len(right):
        return (left.astype(np.float64) @ right.T.astype(np.float64))[rows, columns]
    found = np.empty(len(rows))
    step = max(1, _BLOCK_SCORES // max(1, left.shape[1]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        pairs = left[rows[part]], right[columns[part]]
        found[part] = np.einsum("pd,pd->p", *pairs, dtype=np.float64)
    return found


def _best_scores(
    rows: np.ndarray, columns: np.ndarray, row_ids: np.ndarray, column_ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the score of the best hit of each row and of each column, `[N]` and `[M]`."""
    of_rows, of_columns = np.full(len(rows), -np.inf), np.empty(len(columns))
    order, first, last = _hits(column_ids, row_ids)
    for column, (start, stop) in enumerate(zip(first, last, strict=True)):
        own = order[start:stop]
        scores = rows[own].astype(np.float64) @ columns[column].astype(np.float64)
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
