"""The items of an index in one state: opened segments, and what they answer together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_dpce.search.index.manifest import KindEntry
from tf_dpce.search.index.segments import Segment
from tf_dpce.search.interface import Found

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class State:
    """The items of a kind in one state of the index."""

    entry: KindEntry
    segments: tuple[Segment, ...]
    schema: pa.Schema

    def prepared(self, queries: np.ndarray, is_normalised: bool) -> np.ndarray:
        """Returns queries as the segments take them, float32 `[Q, D]`, or `[Q, D + 1]`.

        Args:
            queries: float `[Q, D]`.
            is_normalised: whether a querybank counts: whether they are of the other kind.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        if not self.entry.queries:
            return queries
        return np.hstack([queries, np.full((len(queries), 1), is_normalised, np.float32)])


def best(state: State, parts: Sequence[tuple[np.ndarray, np.ndarray]], top: int) -> list[Found]:
    """Merges what each segment found for a query.

    Args:
        state: the segments.
        parts: scores and rows of each segment.
        top: number of items.

    Returns:
        The items with the best scores; equal scores by id.
    """
    scores = np.concatenate([np.empty(0, np.float32), *(part[0] for part in parts)])
    if not len(scores):
        return []
    least = np.partition(scores, -min(top, len(scores)))[-min(top, len(scores))]
    found = []
    for segment, (scores, rows) in zip(state.segments, parts, strict=True):
        chosen = scores >= least
        records = read_records(segment, rows[chosen], state.schema)
        found += map(Found, scores[chosen].tolist(), records)
    return sorted(found, key=lambda item: (-item.score, item.record["id"]))[:top]


def read_records(segment: Segment, rows: np.ndarray, schema: pa.Schema) -> list[dict[str, Any]]:
    """Returns the records of some rows of a segment; a column that it lacks is None."""
    if not len(rows):
        return []
    missing = dict.fromkeys(schema.names)
    return [missing | record for record in segment.files.records(rows).to_pylist()]
