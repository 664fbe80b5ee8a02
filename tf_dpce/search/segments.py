"""A segment of an index, as it is read: mapped into memory, searched exactly or approximately."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_dpce.search.factories import search_parameters
from tf_dpce.search.index_manifest import SegmentEntry, StoredFile

if TYPE_CHECKING:
    import pyarrow as pa

    from tf_dpce.search.filters import Filter

ROW_GROUP = 2048  # records that are read from the disk together
# A filter that leaves fewer items than this part is answered exactly.
_FEW = 0.2
# Of so many times the wanted number of items, found approximately, the exact scores decide.
_RERANKED = 10
_FEWEST_RERANKED = 100
_FILTERS = 8  # answers of filters that are kept for the next page


class Unreadable(Exception):
    """A file of an index is missing, cut or damaged, perhaps because the index changed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path


class SegmentFiles:
    """The files of a segment that never change, mapped into memory.

    A map outlives the name of its file, so that an index may change while it is in use.

    Args:
        folder: folder of the index.
        entry: the segment.
        dimension: number of numbers of an embedding, with the one of a querybank.

    Raises:
        Unreadable: a file is missing, cut or damaged.
    """

    def __init__(self, folder: Path, entry: SegmentEntry, dimension: int) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        self.rows, self._masks = entry.rows, {}
        self.flat = _open_index(folder, entry.flat, (entry.rows, dimension))
        self.approximate = entry.approximate and _open_index(
            folder, entry.approximate, (entry.rows, dimension)
        )
        path = _whole(folder, entry.records)
        try:
            self._records = pa.memory_map(str(path)).read_buffer()
            self._metadata = parquet.read_metadata(pa.BufferReader(self._records))
            self.schema = self._metadata.schema.to_arrow_schema().remove_metadata()
        except (pa.ArrowException, OSError):
            raise Unreadable(path) from None
        if self._metadata.num_rows != entry.rows:
            raise Unreadable(path)

    @cached_property
    def ids(self) -> pa.ChunkedArray:
        """The id of each row."""
        return self._file().read(["id"])["id"]

    def column(self, name: str) -> pa.ChunkedArray:
        """Returns a column of all rows."""
        return self._file().read([name])[name]

    def records(self, rows: np.ndarray) -> pa.Table:
        """Returns the records of some rows, in their order."""
        groups, places = np.unique(rows // ROW_GROUP, return_inverse=True)
        table = self._file().read_row_groups(groups.tolist(), use_threads=False)
        return table.take(places * ROW_GROUP + rows % ROW_GROUP)

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Returns some columns of all rows; those that there are."""
        return self._file().read([name for name in names if name in self.schema.names])

    def passing(self, where: Filter, schema: pa.Schema) -> np.ndarray:
        """Returns which rows pass a filter, bool `[rows]`.

        Args:
            where: the filter.
            schema: all columns of the kind, some of which this segment may lack.
        """
        import pyarrow.dataset as ds

        key = where, schema
        if key not in self._masks:
            records = ds.ParquetFileFormat().make_fragment(self._records)
            chosen = {"passes": where.to_arrow(schema)}
            passes = records.scanner(schema=schema, columns=chosen).to_table()["passes"]
            if len(self._masks) >= _FILTERS:
                self._masks.clear()
            self._masks[key] = passes.to_numpy()
        return self._masks[key]

    def _file(self) -> Any:
        import pyarrow as pa
        from pyarrow import parquet

        # A new reader each time, because one is not safe to use from several threads.
        return parquet.ParquetFile(pa.BufferReader(self._records), metadata=self._metadata)


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

    def alive(self) -> np.ndarray:
        """Returns which rows are not deleted, bool `[rows]`."""
        return np.ones(self.files.rows, bool) if self.deleted is None else ~self.deleted

    def rows_of(self, ids: pa.Array) -> np.ndarray:
        """Returns the row of each id, int64, -1 if the segment has no such item."""
        import pyarrow as pa
        import pyarrow.compute as pc

        places = pc.index_in(self.files.ids, value_set=ids)
        where = pc.is_valid(places).to_numpy() & self.alive()
        rows = np.full(len(ids), -1)
        found = np.flatnonzero(where)
        rows[places.take(pa.array(found)).to_numpy()] = found
        return rows

    def batches(self) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """Yields the records and embeddings of the items, in blocks of many row groups."""
        alive, block = self.alive(), 16 * ROW_GROUP
        for start in range(0, self.files.rows, block):
            rows = start + np.flatnonzero(alive[start : start + block])
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
        if self.files.approximate is not None and count >= _FEW * self.files.rows:
            answer = self._approximate(queries, top, count, allowed, effort)
            if answer is not None:
                return answer
        return exact(self.files.flat, queries, top, count, allowed)

    def _approximate(
        self,
        queries: np.ndarray,
        top: int,
        count: int,
        allowed: np.ndarray | None,
        effort: int | None,
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Finds candidates and ranks them by their exact scores; None if they are too few."""
        index, selector = self.files.approximate, _selector(allowed)
        wanted = min(count, max(_RERANKED * top, _FEWEST_RERANKED))
        wishes = search_parameters(index, effort, selector)
        if wishes is None and allowed is not None:
            # An index that cannot leave rows out finds so many more.
            wanted = min(self.files.rows, round(wanted * self.files.rows / count))
        rows = index.search(queries, wanted, params=wishes)[1]
        found = rows >= 0
        if allowed is not None:
            found &= allowed[rows]
        if (found.sum(axis=1) < top).any():
            return None
        vectors = self.files.flat.reconstruct_batch(np.maximum(rows, 0).ravel())
        scores = np.einsum("qkd,qd->qk", vectors.reshape(*rows.shape, -1), queries)
        scores[~found] = -np.inf
        best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        return np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)


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
    import faiss

    selector = _selector(allowed)
    wishes = None if selector is None else faiss.SearchParameters(sel=selector)
    asked = top
    while True:
        # FAISS leaves open which of several equal ones it finds.
        asked = min(count, 2 * asked)
        scores, rows = index.search(queries, asked, params=wishes)
        if asked == count or (scores[:, -1] < scores[:, top - 1]).all():
            return scores, rows


def read_deleted(folder: Path, entry: SegmentEntry) -> np.ndarray | None:
    """Returns which rows of a segment are deleted, bool `[rows]`, or None if none is.

    Raises:
        Unreadable: the file is missing or damaged.
    """
    if entry.deleted is None:
        return None
    path = _whole(folder, entry.deleted)
    try:
        bits = np.load(path, allow_pickle=False)
        deleted = np.unpackbits(bits, count=entry.rows).astype(bool)
    except (ValueError, TypeError, OSError):
        raise Unreadable(path) from None
    if entry.rows - np.count_nonzero(deleted) != entry.alive:
        raise Unreadable(path)
    return deleted


def _selector(allowed: np.ndarray | None) -> Any:
    import faiss

    if allowed is None:
        return None
    bits = np.packbits(allowed, bitorder="little")
    return faiss.IDSelectorBitmap(bits)


def _open_index(folder: Path, file: StoredFile, shape: tuple[int, int]) -> Any:
    import faiss

    path = _whole(folder, file)
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError:
        raise Unreadable(path) from None
    if (index.ntotal, index.d) != shape:
        raise Unreadable(path)
    return index


def _whole(folder: Path, file: StoredFile) -> Path:
    """Returns the path of a file of the index that has its size."""
    path = folder / file.name
    if not path.is_file() or path.stat().st_size != file.size:
        raise Unreadable(path)
    return path
