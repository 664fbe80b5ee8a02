"""Writes the files of an index: embeddings, records and arrays."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import faiss
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from tf_dpce.errors import UserError
from tf_dpce.files import publish_file
from tf_dpce.search.index.factories import (
    LARGE,
    approximate_factory,
    fill_index,
    flat_factory,
    learnt_index,
    new_index,
)
from tf_dpce.search.index.manifest import SegmentEntry, StoredFile
from tf_dpce.search.index.merging import LARGEST
from tf_dpce.search.index.segment_files import concatenated

ROW_GROUP = 2048  # records that are read from the disk together
_PIECE = 1 << 16  # rows that are prepared at a time

Batch = tuple[pa.Table, np.ndarray]


@dataclass(frozen=True)
class Plan:
    """What segments are to be.

    Attributes:
        kind: "images" or "texts".
        factory: FAISS's description that the user chose, or None.
        querybank: whether the embeddings have one more number, which is that of a querybank.
        whole: whether these are all items: an approximate index that the user chose is made of few
            items too, and too few to learn from are an error.
        like: a segment that had an approximate index, which is made again from what FAISS learnt.
    """

    kind: str
    factory: str | None
    querybank: bool
    whole: bool = False
    like: SegmentEntry | None = None


class SegmentWriter:
    """Writes files that no manifest names yet.

    Args:
        folder: folder of the index.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: list[Path] = []

    def store(self, kind: str, ending: str, write: Callable[[BinaryIO], object]) -> StoredFile:
        """Writes a file by a name that no file of an index ever had.

        Args:
            kind: begins its name.
            ending: ends it.
            write: writes what it holds.

        Raises:
            OSError: the disk is full, or the folder cannot be written to.
        """
        path = self.folder / f"{kind}-{secrets.token_hex(6)}.{ending}"
        self.written.append(path)
        with publish_file(path) as temporary, temporary.open("wb") as stream:
            write(stream)
        return StoredFile.of(path)

    def store_array(self, kind: str, array: np.ndarray) -> StoredFile:
        """Writes an array."""
        return self.store(kind, "npy", partial(np.save, arr=array, allow_pickle=False))

    def segments(self, plan: Plan, batches: Iterable[Batch]) -> Iterator[SegmentEntry]:
        """Writes items, and yields the segments.

        Args:
            plan: what they are.
            batches: records, and embeddings with the number of a querybank.
        """
        flat, tables = None, []
        for records, vectors in _pieces(batches):
            if flat and flat.ntotal + len(vectors) > LARGEST:
                yield self._segment(plan, flat, tables)
                flat, tables = None, []
            flat = flat or new_index(flat_factory(plan.factory), vectors.shape[1])
            flat.add(np.ascontiguousarray(vectors, np.float32))
            tables.append(records)
        if flat:
            yield self._segment(plan, flat, tables)

    def _segment(self, plan: Plan, flat: Any, tables: Sequence[pa.Table]) -> SegmentEntry:
        rows, approximate = flat.ntotal, None
        index = self._store_index(plan.kind, "faiss", flat)
        records = self.store_records(plan.kind, tables)
        factory = approximate_factory(plan.factory, rows)
        if factory and (plan.whole or plan.like or rows >= LARGE):
            approximate = self._approximate(plan, flat, factory)
        return SegmentEntry(rows, rows, index, records, approximate)

    def store_records(self, kind: str, tables: Sequence[pa.Table]) -> StoredFile:
        """Writes records."""
        write = partial(
            parquet.write_table,
            concatenated(tables),
            row_group_size=ROW_GROUP,
            compression="zstd",
            write_page_checksum=True,
        )
        return self.store(kind, "parquet", write)

    def _store_index(self, kind: str, ending: str, index: Any) -> StoredFile:
        def write(stream: BinaryIO) -> None:
            # FAISS by itself does not notice that the last bytes found no room.
            faiss.write_index(index, faiss.PyCallbackIOWriter(stream.write, 1 << 20))

        return self.store(kind, ending, write)

    def _approximate(self, plan: Plan, flat: Any, factory: str) -> StoredFile | None:
        if plan.like and flat.ntotal <= 2 * plan.like.rows:
            index = faiss.read_index(str(self.folder / plan.like.approximate.name))
            index.reset()
        else:
            try:
                index = learnt_index(factory, flat, plan.querybank)
            except UserError:
                if plan.whole:
                    raise
                return None
        fill_index(index, flat)
        return self._store_index(plan.kind, "near.faiss", index)


def _pieces(batches: Iterable[Batch]) -> Iterator[Batch]:
    for records, vectors in batches:
        for start in range(0, len(vectors), _PIECE):
            yield records.slice(start, _PIECE), vectors[start : start + _PIECE]
