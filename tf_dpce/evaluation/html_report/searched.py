"""How the queries of a split found what they were meant to find, in NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tf_dpce.evaluation.embed import Embeddings
from tf_dpce.evaluation.embedded_split import EmbeddedSplit
from tf_dpce.evaluation.protocols import Protocol
from tf_dpce.evaluation.ranks import hit_ranks

FIRST_HITS = 10  # those whose items are counted
MOST_MISSES = 8
_BLOCK_SCORES = 2**22


class Miss(NamedTuple):
    """A query that did not find what it was meant to find: rows of the split."""

    query: int
    rank: int  # of the best right item
    first: int
    right: int


@dataclass(frozen=True)
class Searched:
    """What one direction of a protocol found.

    Attributes:
        queries: int `[Q]`, the rows of the queries.
        ranks: int `[Q]`, the rank of each query's best right item, from 1.
        corpus: number of items that each query was compared with.
        items: int `[N]`, the rows of the items.
        occurrences: int `[N]`, how many queries have the item among their first ten.
        misses: the hardest misses, at most one of an image, the worst first.
    """

    queries: np.ndarray
    ranks: np.ndarray
    corpus: int
    items: np.ndarray
    occurrences: np.ndarray
    misses: list[Miss]


def search_split(embedded: EmbeddedSplit, protocol: Protocol, direction: str) -> Searched:
    """Ranks the items of every query, block by block of a protocol.

    Args:
        embedded: the split.
        protocol: what is compared with what.
        direction: "image_to_text" or "text_to_image".
    """
    owners = embedded.counts.images
    blocks = list(protocol.blocks(owners, len(embedded.images.vectors)))
    pair, image_of = (embedded.images, embedded.texts), np.arange(len(embedded.images.vectors))
    if direction == "text_to_image":
        pair, image_of = pair[::-1], owners
        blocks = [block[::-1] for block in blocks]
    queries, items = pair
    ranks = [_best_ranks(queries.rows(rows), items.rows(columns)) for rows, columns in blocks]
    all_rows, all_columns = (np.concatenate(each) for each in zip(*blocks, strict=True))
    all_ranks = np.concatenate(ranks)
    occurrences = np.concatenate(
        [_occurrences(queries.vectors[rows], items.vectors[columns]) for rows, columns in blocks]
    )
    column_of = {int(row): columns for rows, columns in blocks for row in rows}
    misses = [
        _miss(queries, items, int(row), int(rank), column_of[int(row)])
        for row, rank in _hardest(all_rows, all_ranks, image_of)
    ]
    corpus = len(blocks[0][1])
    return Searched(all_rows, all_ranks, corpus, all_columns, occurrences, misses)


def skewness(counts: np.ndarray) -> float:
    """Returns the skewness of k-occurrences (Radovanovic et al., JMLR 2010): 0 without hubs.

    Example:
        >>> round(skewness(np.array([0, 0, 0, 4])), 3)
        1.155
    """
    spread = counts.std()
    return float(np.mean((counts - counts.mean()) ** 3) / spread**3) if spread else 0.0


def _best_ranks(queries: Embeddings, items: Embeddings) -> np.ndarray:
    return np.array([ranks[0] for ranks in hit_ranks(*queries.compared_with(items))])


def _occurrences(queries: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Returns how many queries have each item among their first ten, int64 `[N]`."""
    counts, most = np.zeros(len(items), np.int64), min(FIRST_HITS, len(items))
    columns = np.ascontiguousarray(items.T)
    step = max(1, _BLOCK_SCORES // len(items))
    for start in range(0, len(queries), step):
        scores = queries[start : start + step] @ columns
        first = np.argpartition(-scores, most - 1, axis=1)[:, :most]
        counts += np.bincount(first.ravel(), minlength=len(items))
    return counts


def _hardest(
    rows: np.ndarray, ranks: np.ndarray, image_of: np.ndarray
) -> Iterator[tuple[int, int]]:
    """Yields the rows and ranks of the worst misses, at most one of an image."""
    seen: set[int] = set()
    for place in np.argsort(-ranks, kind="stable"):
        if ranks[place] == 1 or len(seen) == MOST_MISSES:
            return
        image = int(image_of[rows[place]])
        if image not in seen:
            seen.add(image)
            yield rows[place], ranks[place]


def _miss(queries: Embeddings, items: Embeddings, row: int, rank: int, columns: np.ndarray) -> Miss:
    scores = items.vectors[columns].astype(np.float64) @ queries.vectors[row]
    right = items.instances[columns] == queries.instances[row]
    # The first hit is wrong, or this were none.
    first, best = (int(np.argmax(np.where(which, scores, -np.inf))) for which in (~right, right))
    return Miss(row, rank, int(columns[first]), int(columns[best]))
