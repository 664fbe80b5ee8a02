"""The files of a segment of an index, mapped into memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from tf_dpce.errors import UserError, shorten
from tf_dpce.search.index.manifest import SegmentEntry, StoredFile

if TYPE_CHECKING:
    from tf_dpce.search.queries.filters import Filter

# Ten records from the disk take 20 milliseconds, from memory a tenth of one. A command that asks
# once never reads all of them; the page, which goes on asking, soon has them in memory.
_LOOKUPS = 8
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
        self.rows, self._masks, self._lookups = entry.rows, {}, 0
        self.flat = _open_index(folder, entry.flat, (entry.rows, dimension))
        self.approximate = entry.approximate and _open_index(
            folder, entry.approximate, (entry.rows, dimension)
        )
        self._path = _whole(folder, entry.records)
        try:
            self._records = pa.memory_map(str(self._path)).read_buffer()
            self._metadata = parquet.read_metadata(pa.BufferReader(self._records))
            self.schema = self._metadata.schema.to_arrow_schema().remove_metadata()
        except (pa.ArrowException, OSError):
            raise Unreadable(self._path) from None
        if self._metadata.num_rows != entry.rows:
            raise Unreadable(self._path)

    @cached_property
    def ids(self) -> pa.ChunkedArray:
        """The id of each row."""
        return self.columns(["id"])["id"]

    def columns(self, names: Sequence[str] | None = None) -> pa.Table:
        """Returns some columns of all rows, or all; those that there are."""
        names = names and [name for name in names if name in self.schema.names]
        with self._readable():
            return self._file().read(names)

    def records(self, rows: np.ndarray, names: Sequence[str] | None = None) -> pa.Table:
        """Returns some columns of some rows, or all, in their order; those that there are."""
        known = self.schema.names
        names = known if names is None else [name for name in names if name in known]
        self._lookups += 1
        if self._lookups > _LOOKUPS:
            return pa.Table.from_batches([self._batch.select(names).take(_row_array(rows))])
        size = self._metadata.row_group(0).num_rows
        groups, places = np.unique(rows // size, return_inverse=True)
        with self._readable():
            table = self._file().read_row_groups(groups.tolist(), names, use_threads=False)
        return table.take(_row_array(places * size + rows % size))

    @cached_property
    def _batch(self) -> pa.RecordBatch:
        """All records, in memory."""
        return self.columns().combine_chunks().to_batches()[0]

    def passing(self, where: Filter, schema: pa.Schema) -> np.ndarray:
        """Returns which rows pass a filter, bool `[rows]`.

        Args:
            where: the filter.
            schema: all columns of the kind, some of which this segment may lack.
        """
        import pyarrow.dataset as ds

        key = where, schema
        # Another thread may clear what this one finds.
        passes = self._masks.get(key)
        if passes is None:
            chosen = {"passes": where.to_arrow(schema)}
            with self._readable():
                records = ds.ParquetFileFormat().make_fragment(self._records)
                table = records.scanner(schema=schema, columns=chosen).to_table()
            passes = table["passes"].to_numpy()
            if len(self._masks) >= _FILTERS:
                self._masks.clear()
            self._masks[key] = passes
        return passes

    def _file(self) -> parquet.ParquetFile:
        """Returns a reader of the records, a new one, because threads cannot share one."""
        source = pa.BufferReader(self._records)
        return parquet.ParquetFile(source, metadata=self._metadata, page_checksum_verification=True)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Names the file of the records if a block cannot read it."""
        try:
            yield
        except (pa.ArrowException, OSError):
            raise damaged(self._path) from None


def id_array(ids: Iterable[str]) -> pa.Array:
    """Returns ids as they are stored: bytes of file names that are not UTF-8 are written out."""
    return pa.array(
        (name.encode("utf-8", "backslashreplace").decode() for name in ids), pa.string()
    )


def _row_array(rows: np.ndarray) -> pa.Array:
    """Returns int64 numbers of rows as Arrow has them.

    `pa.array` would look whether they are of Pandas, which it imports for that if it is installed:
    that takes as long as a tenth of a first query.
    """
    buffer = pa.py_buffer(np.ascontiguousarray(rows, np.int64))
    return pa.Array.from_buffers(pa.int64(), len(rows), [None, buffer])


def damaged(path: Path) -> UserError:
    """Returns the error over a file of an index that cannot be read."""
    message = f"{path} is missing or damaged: build the index again"
    return UserError("index.damaged", message, path)


def unified(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """Returns the columns of all of these.

    Raises:
        UserError: a column is of different types.
    """
    with one_type():
        return pa.unify_schemas(list(schemas), promote_options="permissive")


def concatenated(tables: Sequence[pa.Table]) -> pa.Table:
    """Returns the rows of all tables, with the columns of all.

    Raises:
        UserError: a column is of different types.
    """
    with one_type():
        return pa.concat_tables(tables, promote_options="permissive")


@contextmanager
def one_type() -> Iterator[None]:
    """Turns what Arrow raises in a block over the types of a column into a `UserError`."""
    try:
        yield
    except pa.ArrowException as error:
        reason = shorten(str(error), 160)
        message = f"a column holds two types, {reason}: rename it or convert values"
        raise UserError("index.column", message) from None


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


def _open_index(folder: Path, file: StoredFile, shape: tuple[int, int]) -> Any:
    path = _whole(folder, file)
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError:
        raise Unreadable(path) from None
    if (index.ntotal, index.d, index.metric_type) != (*shape, faiss.METRIC_INNER_PRODUCT):
        raise Unreadable(path)
    return index


def _whole(folder: Path, file: StoredFile) -> Path:
    """Returns the path of a file of the index that is as it was written."""
    path = folder / file.name
    try:
        is_whole = StoredFile.of(path) == file
    except OSError:
        is_whole = False
    if not is_whole:
        raise Unreadable(path)
    return path
