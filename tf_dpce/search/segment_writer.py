"""Writes the files of an index: embeddings, records and arrays."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.files import publish_file
from tf_dpce.search.factories import (
    LARGE,
    approximate_factory,
    blocks,
    emptied_index,
    flat_factory,
    learnt_index,
    new_index,
    write_index,
)
from tf_dpce.search.index_manifest import SegmentEntry, StoredFile
from tf_dpce.search.merging import LARGEST
from tf_dpce.search.segment_files import concatenated

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP = 2048  # records that are read from the disk together
_PIECE = 1 << 16  # rows that are prepared at a time

Batch = tuple["pa.Table", np.ndarray]


@dataclass(frozen=True)
class Plan:
    """What segments are to be.

    Attributes:
        kind: "images" or "texts".
        factory: FAISS's description that the user chose, or None.
        querybank: whether the embeddings have one more number, which is that of a querybank.
        near: whether segments that are not large have an approximate index too, if the factory is
            one.
        must_learn: whether too few items for it are an error.
        like: a segment from whose approximate index is taken what FAISS learnt.
    """

    kind: str
    factory: str | None
    querybank: bool
    near: bool
    must_learn: bool
    like: SegmentEntry | None = None


class SegmentWriter:
    """Writes files that no manifest names yet.

    Args:
        folder: folder of the index.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: list[Path] = []

    def new_path(self, kind: str, ending: str) -> Path:
        """Returns a path that no file of an index ever had."""
        path = self.folder / f"{kind}-{secrets.token_hex(6)}.{ending}"
        self.written.append(path)
        return path

    def store(self, kind: str, ending: str, array: np.ndarray) -> StoredFile:
        """Writes an array."""
        path = self.new_path(kind, ending)
        with publish_file(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, array, allow_pickle=False)
        return StoredFile.of(path)

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
            flat = flat or new_index(flat_factory(plan.factory), vectors.shape[1], plan.kind)
            flat.add(np.ascontiguousarray(vectors, np.float32))
            tables.append(records)
        if flat:
            yield self._segment(plan, flat, tables)

    def _segment(self, plan: Plan, flat: Any, tables: Sequence[pa.Table]) -> SegmentEntry:
        rows, index = flat.ntotal, self.new_path(plan.kind, "faiss")
        write_index(flat, index)
        records = self.store_records(plan.kind, tables)
        factory, approximate = approximate_factory(plan.factory, rows), None
        if factory and (plan.near or rows >= LARGE):
            approximate = self._approximate(plan, flat, factory)
        return SegmentEntry(rows, rows, StoredFile.of(index), records, approximate)

    def store_records(self, kind: str, tables: Sequence[pa.Table]) -> StoredFile:
        """Writes records."""
        from pyarrow import parquet

        path = self.new_path(kind, "parquet")
        records = concatenated(tables)
        with publish_file(path) as temporary, temporary.open("wb") as stream:
            parquet.write_table(
                records,
                stream,
                row_group_size=ROW_GROUP,
                compression="zstd",
                write_page_checksum=True,
            )
        return StoredFile.of(path)

    def _approximate(self, plan: Plan, flat: Any, factory: str) -> StoredFile | None:
        what = f"{flat.ntotal} {plan.kind} of {flat.d} numbers"
        if plan.like and flat.ntotal <= 2 * plan.like.rows:
            index = emptied_index(self.folder / plan.like.approximate.name)
        else:
            try:
                index = learnt_index(factory, flat, what, plan.querybank)
            except UserError:
                if plan.must_learn:
                    raise
                return None
        for vectors in blocks(flat):
            index.add(vectors)
        path = self.new_path(plan.kind, "near.faiss")
        write_index(index, path)
        return StoredFile.of(path)


def _pieces(batches: Iterable[Batch]) -> Iterator[Batch]:
    for records, vectors in batches:
        for start in range(0, len(vectors), _PIECE):
            yield records.slice(start, _PIECE), vectors[start : start + _PIECE]
