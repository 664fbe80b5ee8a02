"""Changes of an index: new files first, then one rename of `index.json`, then the old files go."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tf_dpce.evaluation.querybank import hubness
from tf_dpce.files import exclusive_lock, remove_stale
from tf_dpce.search.embedding.store import joined_columns
from tf_dpce.search.index.manifest import (
    MANIFEST,
    IndexManifest,
    KindEntry,
    SegmentEntry,
    is_index_file,
    manifest_bytes,
)
from tf_dpce.search.index.merging import segments_to_merge
from tf_dpce.search.index.segment_files import Unreadable, damaged
from tf_dpce.search.index.segment_writer import Batch, Plan, SegmentWriter
from tf_dpce.search.index.segments import Segment
from tf_dpce.search.index.state import State


class IndexWriter(SegmentWriter):
    """Writes into the folder of an index; nothing counts before `commit`.

    Args:
        folder: folder of the index, which this process has locked.
        manifest: what is in force, or is to be if the index is new.
    """

    def __init__(self, folder: Path, manifest: IndexManifest) -> None:
        super().__init__(folder)
        self.manifest = manifest

    def commit(self) -> None:
        """Puts in force what was written, and removes what is not in force any more."""
        self.manifest.save(self.folder)
        remove_unused(self.folder, self.manifest)

    def discard(self) -> None:
        """Removes what was written and is not in force."""
        manifest = self.folder / MANIFEST
        in_force = manifest.read_bytes() if manifest.exists() else b""
        for path in self.written:
            if path.name.encode() not in in_force:
                path.unlink(missing_ok=True)

    def set_entry(self, kind: str, entry: KindEntry) -> None:
        """Replaces what the manifest says of a kind."""
        self.manifest = replace(self.manifest, kinds={**self.manifest.kinds, kind: entry})

    def store_calibration(self, content: bytes | None) -> None:
        """Writes the file of a calibration, if there is one."""
        if content is not None:
            file = self.store("calibration", "npz", lambda stream: stream.write(content))
            self.manifest = replace(self.manifest, calibration=file)

    def add(self, kind: str, batches: Iterable[Batch], whole: bool = False) -> None:
        """Writes items into new segments; of items with one id the last stays.

        Args:
            kind: "images" or "texts".
            batches: records, and embeddings float32 `[N, D]`.
            whole: whether these are all items, so that a factory the user chose must fit them.
        """
        before = self._state(kind)
        file = before.entry.querybank
        queries = file and np.load(self.folder / file.name, allow_pickle=False)
        prepared = (
            (_with_joined(before, kind, records), _prepared(vectors, queries))
            for records, vectors in batches
        )
        for segment in self.segments(self._plan(kind, whole=whole), prepared):
            self._append(kind, segment)
        self._state(kind)  # fails if a column is of two types now

    def delete(self, kind: str, ids: pa.Array) -> int:
        """Marks the items of these ids as deleted, and returns how many there were."""
        import pyarrow.compute as pc

        entry, segments = self.manifest.entry(kind), []
        for segment in entry.segments:
            opened = self.open(kind, segment)
            segments.append(self._without(kind, opened, pc.is_in(opened.files.ids, value_set=ids)))
        after = replace(entry, segments=tuple(part for part in segments if part.alive))
        self.set_entry(kind, after)
        return entry.alive - after.alive

    def join(self, kind: str, change: Callable[[pa.Table], pa.Table]) -> None:
        """Writes the records anew, changed, and keeps the embeddings."""
        entry, segments = self.manifest.entry(kind), []
        for segment in entry.segments:
            records = self.open(kind, segment).files.columns()
            file = self.store_records(kind, [change(records)])
            segments.append(replace(segment, records=file))
        self.set_entry(kind, replace(entry, segments=tuple(segments)))
        self._state(kind)  # fails if a column is of two types now

    def merge(self, kind: str) -> bool:
        """Writes small segments, and those with many deletions, anew; returns whether it did."""
        entry = self.manifest.entry(kind)
        chosen = segments_to_merge(entry.segments)
        opened = [self.open(kind, segment) for segment in chosen]
        batches = (batch for segment in opened for batch in segment.batches())
        # What was found approximately before is so afterwards.
        near = [segment for segment in chosen if segment.approximate]
        largest = max(near, key=lambda segment: segment.rows, default=None)
        merged = list(self.segments(self._plan(kind, like=largest), batches))
        others = [segment for segment in entry.segments if segment not in chosen]
        self.set_entry(kind, replace(entry, segments=(*others, *merged)))
        return bool(chosen)

    def open(self, kind: str, segment: SegmentEntry) -> Segment:
        """Opens a segment.

        Raises:
            UserError: a file of it is missing or damaged.
        """
        dimension = self.manifest.dimension + bool(self.manifest.entry(kind).querybank)
        try:
            return Segment.open(self.folder, segment, dimension)
        except Unreadable as error:
            raise damaged(error.path) from None

    def _plan(self, kind: str, **plan: Any) -> Plan:
        querybank = self.manifest.entry(kind).querybank is not None
        return Plan(kind, self.manifest.factory, querybank, **plan)

    def _append(self, kind: str, segment: SegmentEntry) -> None:
        """Adds a segment; items with the ids of its items are deleted elsewhere."""
        opened = self.open(kind, segment)
        self.delete(kind, opened.files.ids.combine_chunks())
        segment = self._without(kind, opened, _repeated(opened.files.ids))
        entry = self.manifest.entry(kind)
        self.set_entry(kind, replace(entry, segments=(*entry.segments, segment)))

    def _state(self, kind: str) -> State:
        """Opens the items of a kind, as they will be after `commit`.

        Raises:
            UserError: a file is missing or damaged, or a column is of different types.
        """
        entry = self.manifest.entry(kind)
        segments = [self.open(kind, segment) for segment in entry.segments]
        return State.of(entry, segments, kind, self.manifest.dimension)

    def _without(self, kind: str, segment: Segment, gone: pa.ChunkedArray) -> SegmentEntry:
        """Marks rows of a segment as deleted; `gone` is bool `[rows]`."""
        before = segment.alive()
        alive = before & ~gone.to_numpy()
        count = int(np.count_nonzero(alive))
        if count == segment.entry.alive:
            return segment.entry
        file = self.store_array(kind, np.packbits(~alive))
        return replace(segment.entry, alive=count, deleted=file)


@contextmanager
def writing(folder: Path, new: IndexManifest | None = None) -> Iterator[IndexWriter]:
    """Locks the folder of an index, and removes what a block leaves that fails.

    Args:
        folder: the folder.
        new: the manifest of an index that is to replace what is there; None changes what is there.

    Raises:
        UserError: another process writes there, or there is no index.
    """
    if new is None:
        manifest_bytes(folder)
    with exclusive_lock(folder):
        remove_stale(folder)
        if new is None:
            new = IndexManifest.parse(manifest_bytes(folder), folder / MANIFEST)
            # Those of a process that was killed.
            remove_unused(folder, new)
        writer = IndexWriter(folder, new)
        try:
            yield writer
        finally:
            writer.discard()


def remove_unused(folder: Path, manifest: IndexManifest) -> None:
    """Removes the files of an index that its manifest does not name."""
    used = manifest.files
    for item in folder.iterdir():
        if item.name not in used and is_index_file(item):
            shutil.rmtree(item) if item.is_dir() else item.unlink()


def _prepared(vectors: np.ndarray, queries: np.ndarray | None) -> np.ndarray:
    if queries is None:
        return vectors
    return np.column_stack([vectors, -hubness(vectors, queries) / 2])


def _with_joined(before: State, kind: str, records: pa.Table) -> pa.Table:
    """Returns records with the columns of a joined table that the items of these ids had."""
    if names := joined_columns(kind, before.schema.names, records):
        rows = before.rows_of(records["id"].combine_chunks())
        known = rows >= 0
        former = before.records(rows[known], names)
        places = pa.array(np.cumsum(known) - 1, mask=~known)
        for name in names:
            records = records.append_column(name, former[name].take(places))
    return records


def _repeated(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns for which rows there is a later one with the same id, bool `[N]`."""
    rows = pa.table({"id": ids, "row": np.arange(len(ids))})
    last = rows.group_by("id").aggregate([("row", "max")])["row_max"].to_numpy()
    repeated = np.ones(len(ids), bool)
    repeated[last] = False
    return pa.chunked_array([repeated])
