"""A segment of an index, as it is read: mapped into memory, searched exactly or approximately."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from tf_dpce.search.index.factories import search_parameters
from tf_dpce.search.index.manifest import SegmentEntry
from tf_dpce.search.index.segment_files import SegmentFiles, read_deleted

# A filter that leaves fewer items than this part is answered exactly.
_FEW = 0.2
# Of so many times the wanted number of items, found approximately, the exact scores decide.
_RERANKED = 10
_FEWEST_RERANKED = 100
_BLOCK = 1 << 15  # rows


@dataclass(frozen=True)
class Segment:
    """A segment in one state: its files, and which of their rows are deleted.

    Attributes:
        entry: what the manifest says of it.
        files: the mapped files.
        deleted: bool `[rows]`, or None if no row is deleted.
    """

    entry: SegmentEntry
    files: SegmentFiles
    deleted: np.ndarray | None = field(default=None, compare=False)

    @classmethod
    def open(
        cls, folder: Path, entry: SegmentEntry, dimension: int, files: SegmentFiles | None = None
    ) -> Segment:
        """Opens a segment of the index in `folder`.

        Args:
            folder: folder of the index.
            entry: the segment.
            dimension: see `SegmentFiles`.
            files: those of the segment in an earlier state.

        Raises:
            Unreadable: a file is missing, cut or damaged.
        """
        files = files or SegmentFiles(folder, entry, dimension)
        return cls(entry, files, read_deleted(folder, entry))

    def alive(self) -> np.ndarray:
        """Returns which rows are not deleted, bool `[rows]`."""
        return np.ones(self.files.rows, bool) if self.deleted is None else ~self.deleted

    def rows_of(self, ids: pa.Array) -> np.ndarray:
        """Returns the row of each id, int64, -1 if the segment has no such item."""
        import pyarrow.compute as pc

        different = ids.dictionary_encode()
        places = pc.index_in(self.files.ids, value_set=different.dictionary)
        found = np.flatnonzero(pc.is_valid(places).to_numpy() & self.alive())
        rows = np.full(len(different.dictionary), -1)
        rows[places.take(pa.array(found)).to_numpy()] = found
        return rows[different.indices.to_numpy()]

    def batches(self) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """Yields the records and embeddings of the items, a block at a time."""
        alive = self.alive()
        for start in range(0, self.files.rows, _BLOCK):
            rows = start + np.flatnonzero(alive[start : start + _BLOCK])
            if len(rows):
                yield self.files.records(rows), self.files.flat.reconstruct_batch(rows)

    def search(
        self, queries: np.ndarray, top: int, allowed: np.ndarray | None, effort: int | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Finds the items with the largest inner products.

        Args:
            queries: float32 `[Q, D]`.
            top: K.
            allowed: which rows may be found, bool `[rows]`; None for all.
            effort: see `search_parameters`.

        Returns:
            Scores and rows, `[Q, K']`, best first. K' is K or more: those that tie with the K-th
            are all there if the search was exact. It is less if there are fewer items.
        """
        if self.deleted is not None:
            allowed = ~self.deleted if allowed is None else allowed & ~self.deleted
        count = self.files.rows if allowed is None else int(np.count_nonzero(allowed))
        top = min(top, count)
        if not top:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), int)
        if self.files.approximate is None or count < _FEW * self.files.rows:
            return exact(self.files.flat, queries, top, count, allowed)
        scores, rows = self._approximate(queries, top, count, allowed, effort)
        if rows[:, -1].min() < 0:
            # Too few of the lists of an inverted file were searched to find so many.
            missed = np.flatnonzero(rows[:, -1] < 0)
            found = exact(self.files.flat, queries[missed], top, count, allowed)
            scores[missed], rows[missed] = (values[:, :top] for values in found)
        return scores, rows

    def _approximate(
        self,
        queries: np.ndarray,
        top: int,
        count: int,
        allowed: np.ndarray | None,
        effort: int | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Finds candidates and ranks them by their exact scores; behind them are rows of -1."""
        wanted = min(count, max(_RERANKED * top, _FEWEST_RERANKED))
        wishes = search_parameters(self._refined, effort, _selector(allowed))
        leaves_out = allowed is None or wishes is not None
        if not leaves_out:
            # An index that cannot leave rows out finds so many more.
            wanted = min(self.files.rows, round(wanted * self.files.rows / count))
        scores, rows = self._refined.search(queries, wanted, params=wishes)
        if not leaves_out:
            rows[~allowed[rows]] = -1
            order = np.argsort(rows < 0, axis=1, kind="stable")
            scores, rows = (np.take_along_axis(each, order, 1) for each in (scores, rows))
        return scores[:, :top], rows[:, :top]

    @cached_property
    def _refined(self) -> Any:
        """The approximate index, whose candidates get their exact scores within FAISS."""
        return faiss.IndexRefine(self.files.approximate, self.files.flat)


def exact(
    index: Any, queries: np.ndarray, top: int, count: int, allowed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the best of a flat index, and all that tie with the last of them.

    Args:
        index: a flat FAISS index.
        queries: float32 `[Q, D]`.
        top: K.
        count: number of rows that may be found, at least K.
        allowed: which, bool `[rows]`; None for all.

    Returns:
        Scores and rows, `[Q, K or more]`, best first.
    """
    selector = _selector(allowed)
    wishes = None if selector is None else faiss.SearchParameters(sel=selector)
    # FAISS leaves open which of several equal ones it finds: one more shows whether any tie.
    asked = min(count, top + 1)
    while True:
        scores, rows = index.search(queries, asked, params=wishes)
        if asked == count or (scores[:, -1] < scores[:, top - 1]).all():
            return scores, rows
        asked = min(count, 2 * asked)


def _selector(allowed: np.ndarray | None) -> Any:
    if allowed is None:
        return None
    bits = np.packbits(allowed, bitorder="little")
    return faiss.IDSelectorBitmap(bits)
