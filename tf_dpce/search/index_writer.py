"""Changes of an index: new files first, then one rename of `index.json`, then the old files go."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.evaluation.querybank import hubness
from tf_dpce.files import exclusive_lock, publish_file, remove_stale
from tf_dpce.search.factories import (
    LARGE,
    approximate_factory,
    blocks,
    flat_factory,
    learnt_index,
    new_index,
    write_index,
)
from tf_dpce.search.index_manifest import (
    MANIFEST,
    IndexManifest,
    KindEntry,
    SegmentEntry,
    StoredFile,
    is_index_file,
    manifest_bytes,
)
from tf_dpce.search.merging import LARGEST, segments_to_merge
from tf_dpce.search.segments import ROW_GROUP, Segment, SegmentFiles, Unreadable, read_deleted

if TYPE_CHECKING:
    import pyarrow as pa


_PIECE = 1 << 16  # rows that are prepared at a time

Batch = tuple["pa.Table", np.ndarray]


class IndexWriter:
    """Writes into the folder of an index; nothing counts before `commit`.

    Args:
        folder: folder of the index, which this process has locked.
        manifest: what is in force, or is to be if the index is new.
    """

    def __init__(self, folder: Path, manifest: IndexManifest) -> None:
        self.folder, self.manifest = folder, manifest
        self._written: list[Path] = []

    def commit(self) -> None:
        """Puts in force what was written, and removes what is not in force any more."""
        self.manifest.save(self.folder)
        remove_unused(self.folder, self.manifest)

    def discard(self) -> None:
        """Removes what was written and is not in force."""
        path = self.folder / MANIFEST
        in_force = path.read_text() if path.exists() else ""
        for path in self._written:
            if path.name not in in_force:
                path.unlink(missing_ok=True)

    def entry(self, kind: str) -> KindEntry:
        """Returns what the manifest says of a kind."""
        return self.manifest.kinds.get(kind, KindEntry())

    def set_entry(self, kind: str, entry: KindEntry) -> None:
        """Replaces what the manifest says of a kind."""
        self.manifest = replace(self.manifest, kinds={**self.manifest.kinds, kind: entry})

    def store(self, kind: str, ending: str, array: np.ndarray) -> StoredFile:
        """Writes an array."""
        path = self.new_path(kind, ending)
        with publish_file(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, array, allow_pickle=False)
        return StoredFile.of(path)

    def store_calibration(self, content: bytes | None) -> None:
        """Writes the file of a calibration, if there is one."""
        if content is None:
            return
        path = self.new_path("calibration", "npz")
        with publish_file(path) as temporary:
            temporary.write_bytes(content)
        self.manifest = replace(self.manifest, calibration=StoredFile.of(path))

    def add(self, kind: str, batches: Iterable[Batch], whole: bool = False) -> None:
        """Writes items into new segments; of items with one id the last stays.

        Args:
            kind: "images" or "texts".
            batches: records, and embeddings float32 `[N, D]`.
            whole: whether these are all items, so that a factory the user chose must fit them.
        """
        bank = self.entry(kind).querybank
        queries = bank and np.load(self.folder / bank.name, allow_pickle=False)
        prepared = ((records, _prepared(vectors, queries)) for records, vectors in batches)
        for segment in self._segments(kind, prepared, whole, whole):
            self._append(kind, segment)

    def delete(self, kind: str, ids: pa.Array) -> int:
        """Marks the items of these ids as deleted, and returns how many there were."""
        import pyarrow.compute as pc

        entry, segments = self.entry(kind), []
        for segment in entry.segments:
            opened = self.open(kind, segment)
            segments.append(self._without(kind, opened, pc.is_in(opened.files.ids, value_set=ids)))
        after = replace(entry, segments=tuple(part for part in segments if part.alive))
        self.set_entry(kind, after)
        return entry.alive - after.alive

    def merge(self, kind: str) -> bool:
        """Writes small segments, and those with many deletions, anew; returns whether it did."""
        entry = self.entry(kind)
        chosen = segments_to_merge(entry.segments)
        opened = [self.open(kind, segment) for segment in chosen]
        batches = (batch for segment in opened for batch in segment.batches())
        # What was found approximately before is so afterwards.
        near = any(segment.approximate for segment in chosen)
        merged = list(self._segments(kind, batches, near, must_learn=False))
        others = [segment for segment in entry.segments if segment not in chosen]
        self.set_entry(kind, replace(entry, segments=(*others, *merged)))
        return bool(chosen)

    def open(self, kind: str, segment: SegmentEntry) -> Segment:
        """Opens a segment.

        Raises:
            UserError: a file of it is missing or damaged.
        """
        dimension = self.manifest.dimension + bool(self.entry(kind).querybank)
        try:
            files = SegmentFiles(self.folder, segment, dimension)
            return Segment(segment, files, read_deleted(self.folder, segment))
        except Unreadable as error:
            raise damaged(error.path) from None

    def new_path(self, kind: str, ending: str) -> Path:
        """Returns a path that no file of an index ever had."""
        path = self.folder / f"{kind}-{secrets.token_hex(6)}.{ending}"
        self._written.append(path)
        return path

    def _append(self, kind: str, segment: SegmentEntry) -> None:
        """Adds a segment; items with the ids of its items are deleted elsewhere."""
        opened = self.open(kind, segment)
        self.delete(kind, opened.files.ids.combine_chunks())
        segment = self._without(kind, opened, _repeated(opened.files.ids))
        entry = self.entry(kind)
        self.set_entry(kind, replace(entry, segments=(*entry.segments, segment)))

    def _without(self, kind: str, segment: Segment, gone: pa.ChunkedArray) -> SegmentEntry:
        """Marks rows of a segment as deleted; `gone` is bool `[rows]`."""
        before = segment.alive()
        alive = before & ~gone.to_numpy()
        count = int(np.count_nonzero(alive))
        if count == segment.entry.alive:
            return segment.entry
        file = self.store(kind, "npy", np.packbits(~alive))
        return replace(segment.entry, alive=count, deleted=file)

    def _segments(
        self, kind: str, batches: Iterable[Batch], near: bool, must_learn: bool
    ) -> Iterator[SegmentEntry]:
        """Writes items, with the number of a querybank, and yields the segments.

        Args:
            kind: "images" or "texts".
            batches: records and embeddings.
            near: whether segments that are not large have an approximate index too, if the factory
                is one.
            must_learn: whether too few items for it are an error.
        """
        flat, tables = None, []
        for records, vectors in _pieces(batches):
            if flat and flat.ntotal + len(vectors) > LARGEST:
                yield self._segment(kind, flat, tables, near, must_learn)
                flat, tables = None, []
            flat = flat or new_index(flat_factory(self.manifest.factory), vectors.shape[1], kind)
            flat.add(np.ascontiguousarray(vectors, np.float32))
            tables.append(records)
        if flat:
            yield self._segment(kind, flat, tables, near, must_learn)

    def _segment(
        self, kind: str, flat: Any, tables: list[pa.Table], near: bool, must_learn: bool
    ) -> SegmentEntry:
        index, records = self.new_path(kind, "faiss"), self.new_path(kind, "parquet")
        write_index(flat, index)
        _write_records(tables, records)
        rows, approximate = flat.ntotal, None
        factory = approximate_factory(self.manifest.factory, rows)
        if factory and (near or rows >= LARGE):
            approximate = self._approximate(kind, flat, factory, must_learn)
        return SegmentEntry(rows, rows, StoredFile.of(index), StoredFile.of(records), approximate)

    def _approximate(
        self, kind: str, flat: Any, factory: str, must_learn: bool
    ) -> StoredFile | None:
        querybank = self.entry(kind).querybank is not None
        what = f"{flat.ntotal} {kind} of {flat.d} numbers"
        try:
            index = learnt_index(factory, flat, what, querybank)
        except UserError:
            if must_learn:
                raise
            return None
        for vectors in blocks(flat):
            index.add(vectors)
        path = self.new_path(kind, "near.faiss")
        write_index(index, path)
        return StoredFile.of(path)


@contextmanager
def writing(folder: Path, new: IndexManifest | None = None) -> Iterator[IndexWriter]:
    """Locks the folder of an index, and removes what a block leaves that fails.

    Args:
        folder: the folder.
        new: the manifest of an index that is to replace what is there; None changes what is there.

    Raises:
        UserError: another process writes there, or there is no index.
    """
    content = new is None and manifest_bytes(folder)
    with exclusive_lock(folder):
        remove_stale(folder)
        if content:
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
        if is_index_file(item.name) and item.name not in used:
            shutil.rmtree(item) if item.is_dir() else item.unlink()


def damaged(path: Path) -> UserError:
    """Returns the error over a file of an index that cannot be read."""
    message = f"{path} is missing or damaged: build the index again"
    return UserError("index.damaged", message, path)


def _prepared(vectors: np.ndarray, queries: np.ndarray | None) -> np.ndarray:
    if queries is None:
        return vectors
    return np.column_stack([vectors, -hubness(vectors, queries) / 2])


def _pieces(batches: Iterable[Batch]) -> Iterator[Batch]:
    for records, vectors in batches:
        for start in range(0, len(vectors), _PIECE):
            yield records.slice(start, _PIECE), vectors[start : start + _PIECE]


def _write_records(tables: Sequence[pa.Table], path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    records = pa.concat_tables(tables, promote_options="permissive")
    with publish_file(path) as temporary, temporary.open("wb") as stream:
        parquet.write_table(records, stream, row_group_size=ROW_GROUP, compression="zstd")


def _repeated(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns for which rows there is a later one with the same id, bool `[N]`."""
    import pyarrow as pa

    rows = pa.table({"id": ids, "row": np.arange(len(ids))})
    last = rows.group_by("id").aggregate([("row", "max")])["row_max"].to_numpy()
    repeated = np.ones(len(ids), bool)
    repeated[last] = False
    return pa.chunked_array([repeated])
