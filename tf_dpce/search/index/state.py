"""The items of an index in one state: opened segments, and what they answer together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from tf_dpce.search.embedding.store import record_schema
from tf_dpce.search.index.manifest import KindEntry
from tf_dpce.search.index.segment_files import concatenated, unified
from tf_dpce.search.index.segments import Segment
from tf_dpce.search.interface import Ranking

if TYPE_CHECKING:
    from tf_dpce.search.queries.filters import Filter


@dataclass(frozen=True)
class State:
    """The items of a kind in one state of the index.

    Rows count through all segments.

    Attributes:
        entry: what the manifest says of the kind.
        segments: its segments.
        schema: the columns of all of them.
        dimension: D.
    """

    entry: KindEntry
    segments: tuple[Segment, ...]
    schema: pa.Schema
    dimension: int

    @classmethod
    def of(cls, entry: KindEntry, segments: Sequence[Segment], kind: str, dimension: int) -> State:
        """Returns the state of these segments of a kind."""
        schemas = [segment.files.schema for segment in segments] or [record_schema(kind)]
        return cls(entry, tuple(segments), unified(schemas), dimension)

    @cached_property
    def _starts(self) -> np.ndarray:
        """The first row of each segment, int64 `[segments]`."""
        rows = [segment.files.rows for segment in self.segments]
        return np.cumsum([0, *rows], dtype=np.int64)[:-1]

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

    def search(self, queries: np.ndarray, top: int, where: Filter | None) -> list[Ranking]:
        """Returns the best items for each query.

        Args:
            queries: what `prepared` returned, at least one.
            top: K.
            where: only items that pass this filter are found.
        """
        parts = []
        for segment in self.segments:
            allowed = where and segment.files.passing(where, self.schema)
            parts.append(segment.search(queries, top, allowed, self.entry.effort))
        scores, rows = parts[0] if len(parts) == 1 else self._merged(parts, len(queries))
        return [self._ranking(scores, rows, top) for scores, rows in zip(scores, rows, strict=True)]

    def _merged(
        self, parts: Sequence[tuple[np.ndarray, np.ndarray]], queries: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns scores and rows of all segments, best first."""
        scores = np.hstack([np.empty((queries, 0), np.float32), *(part[0] for part in parts)])
        starts = zip(parts, self._starts, strict=True)
        rows = np.hstack([np.empty((queries, 0), int), *(part[1] + at for part, at in starts)])
        order = np.argsort(-scores, axis=1, kind="stable")
        return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)

    def _ranking(self, scores: np.ndarray, rows: np.ndarray, top: int) -> Ranking:
        """Ranks equal scores by id, and leaves out what is behind the K-th."""
        if len(set(scores.tolist())) < len(scores):
            chosen = scores >= scores[:top][-1]
            scores, rows = scores[chosen], rows[chosen]
            ids = self.records(rows, ["id"])["id"].to_pylist()
            order = sorted(range(len(ids)), key=lambda at: (-scores[at], ids[at]))
            scores, rows = scores[order], rows[order]
        return Ranking(scores[:top], _Rows(self, rows[:top]))

    def rows_of(self, ids: pa.Array) -> np.ndarray:
        """Returns the row of each id, int64, -1 if there is no such item."""
        found = np.full(len(ids), -1)
        for start, segment in zip(self._starts, self.segments, strict=True):
            rows = segment.rows_of(ids)
            found = np.where(rows >= 0, rows + start, found)
        return found

    def records(self, rows: np.ndarray, names: Sequence[str] | None = None) -> pa.Table:
        """Returns some columns, or all, of some rows, in their order."""
        if len(self.segments) == 1:
            return self.segments[0].files.records(rows, names)
        names = list(names or self.schema.names)
        # A table without any column would have no rows either.
        asked = list(dict.fromkeys([*names, "id"]))
        tables, order = [self.schema.empty_table().select(asked)], [np.empty(0, np.int64)]
        for segment, places, own in self._by_segment(rows):
            tables.append(segment.files.records(own, asked))
            order.append(places)
        return concatenated(tables).select(names).take(np.argsort(np.concatenate(order)))

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Returns the embeddings of some rows, float32 `[N, D]`."""
        vectors = np.empty((len(rows), self.dimension), np.float32)
        for segment, places, own in self._by_segment(rows):
            vectors[places] = segment.files.flat.reconstruct_batch(own)[:, : self.dimension]
        return vectors

    def _by_segment(self, rows: np.ndarray) -> Iterator[tuple[Segment, np.ndarray, np.ndarray]]:
        """Yields each segment with the places of its rows and their numbers in it."""
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(numbers).tolist():
            places = np.flatnonzero(numbers == number)
            yield self.segments[number], places, rows[places] - self._starts[number]


class _Rows(NamedTuple):
    """Some rows of a state; see `Contents`."""

    state: State
    rows: np.ndarray

    def records(self, places: np.ndarray, names: Sequence[str] | None = None) -> pa.Table:
        return self.state.records(self.rows[places], names)

    def vectors(self, places: np.ndarray) -> np.ndarray:
        return self.state.vectors(self.rows[places])
