"""An index in a folder: embeddings of images, texts or both, which grows while it is searched.

    INDEX/index.json            what is in force: the model, and the files of each segment
    INDEX/images-N.faiss        embeddings of a segment, whose inner products are cosines
    INDEX/images-N.near.faiss   an approximate index of a large segment
    INDEX/images-N.parquet      the columns of its items
    INDEX/images-N.npy          which of its items are deleted; or the queries of a querybank

N is a random number. A change writes new files, replaces `index.json` by one rename, and removes
what is not in force any more. So there is an index at any moment, even if the process is killed.
A reader that misses a file, because the index changed, reads `index.json` again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tf_dpce.errors import UserError, shorten
from tf_dpce.logging import logger
from tf_dpce.search.index.manifest import (
    MANIFEST,
    IndexManifest,
    KindEntry,
    Reading,
    manifest_stamp,
)
from tf_dpce.search.index.segment_files import Unreadable, concatenated, damaged, id_array
from tf_dpce.search.index.segments import Segment
from tf_dpce.search.index.state import State
from tf_dpce.search.index.writer import Batch, IndexWriter, writing
from tf_dpce.search.interface import Ranking, check_answerable

if TYPE_CHECKING:
    from tf_dpce.search.queries.filters import Filter


class FolderIndex:
    """An index in a folder; see `Index` for its methods.

    It notices when another process changes the folder, and may be used from several threads. It
    writes nothing unless it is asked to add or delete.

    Args:
        folder: the folder.

    Raises:
        UserError: there is no index, or it is damaged.

    Example:
        >>> index = FolderIndex(Path("index"))
        >>> index.counts
        {'images': 50}
        >>> index.delete("images", ["7.jpg"])
        1
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, str(folder)
        self._path = str(folder / MANIFEST)
        # Each is replaced as a whole, so that threads need no lock.
        self._read = Reading.of(folder, stamp=None)
        self._states: dict[str, State] = {}
        manifest = self._read.manifest
        self.model, self.dimension = manifest.model, manifest.dimension
        self.whole = manifest.whole or manifest.dimension

    @classmethod
    def create(cls, folder: Path, model: str, dimension: int) -> FolderIndex:
        """Makes an index without items.

        Args:
            folder: the folder, which is created if it does not exist.
            model: digest of the model of the embeddings to come, see `model_digest`.
            dimension: D.

        Raises:
            UserError: another process writes there.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with writing(folder, IndexManifest(model, dimension)) as writer:
            writer.commit()
        return cls(folder)

    @property
    def manifest(self) -> IndexManifest:
        """What is in force.

        Raises:
            UserError: the folder holds no index any more, or one of another model.
        """
        return self._in_force().manifest

    @property
    def version(self) -> str:
        """Changes with the contents."""
        return self._in_force().version

    @property
    def counts(self) -> dict[str, int]:
        """Number of items by kind."""
        return {kind: entry.alive for kind, entry in self.manifest.kinds.items() if entry.alive}

    @property
    def querybanks(self) -> dict[str, int]:
        """By kind, the number of queries that its items were normalised with."""
        kinds = self.manifest.kinds.items()
        return {kind: entry.queries for kind, entry in kinds if entry.queries}

    def columns(self, kind: str) -> pa.Schema:
        """Returns the columns of a kind and their types."""
        return self.state(kind).schema

    def search(
        self, kind: str, queries: np.ndarray, top: int, *, of: str, where: Filter | None = None
    ) -> list[Ranking]:
        """Returns the best items of a kind for each query."""
        state = self.state(kind)
        if top < 1 or not state.segments:
            check_answerable(self.counts, kind, top)
        return state.search(state.prepared(queries, is_normalised=of != kind), top, where)

    def vectors(self, kind: str, ids: Sequence[str]) -> np.ndarray:
        """Returns the embeddings of items, float32 `[N, D]`."""
        state = self.state(kind)
        return state.vectors(_rows(state, kind, ids))

    def records(self, kind: str, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Returns the columns of items."""
        state = self.state(kind)
        return state.records(_rows(state, kind, ids)).to_pylist()

    def missing(self, kind: str, ids: Sequence[str]) -> list[str]:
        """Returns those of some ids that no item has."""
        rows = self.state(kind).rows_of(id_array(ids)).tolist()
        return [name for name, row in zip(ids, rows, strict=True) if row < 0]

    def table(self, kind: str, columns: Sequence[str]) -> pa.Table:
        """Returns some columns of all items, in no certain order."""
        state = self.state(kind)
        schema = pa.schema([state.schema.field(name) for name in columns])
        tables = [
            segment.files.columns(columns).filter(pa.array(segment.alive()))
            for segment in state.segments
        ]
        return concatenated([schema.empty_table(), *tables])

    def add(self, kind: str, records: pa.Table, vectors: np.ndarray) -> None:
        """Adds N items at once, or none: an item whose id is there is replaced."""
        self.add_all({kind: [(records, vectors)]})

    def add_all(self, items: Mapping[str, Iterable[Batch]]) -> None:
        """Adds items of several kinds at once, or none.

        Args:
            items: by kind, records and embeddings, which are not all in memory at a time.
        """
        with self._changing() as writer:
            for kind, batches in items.items():
                writer.add(kind, batches)

    def delete(self, kind: str, ids: Sequence[str]) -> int:
        """Removes items at once; returns how many there were."""
        with self._changing() as writer:
            return writer.delete(kind, id_array(ids))

    def join(self, kind: str, change: Callable[[pa.Table], pa.Table]) -> None:
        """Changes the columns of all items at once, but not their ids or embeddings.

        Args:
            kind: "images" or "texts".
            change: returns a table of the same rows.
        """
        with self._changing() as writer:
            writer.join(kind, change)

    def set_effort(self, kind: str, effort: int) -> None:
        """Sets how many lists of an inverted file a query searches, or `efSearch` of HNSW.

        Raises:
            UserError: all items are compared with each query, so that there is nothing to set.
        """
        with self._changing() as writer:
            if not any(segment.approximate for segment in writer.manifest.entry(kind).segments):
                message = f"{self.folder} has no approximate index of {kind} to set"
                raise UserError("index.options", message, self.folder)
            writer.set_entry(kind, replace(writer.manifest.entry(kind), effort=effort))

    def _in_force(self) -> Reading:
        """Reads `index.json` if it was replaced."""
        stamp = manifest_stamp(self._path)
        if stamp is None or stamp != self._read.stamp:
            read = Reading.of(self.folder, stamp)
            if (read.manifest.model, read.manifest.dimension) != (self.model, self.dimension):
                message = f"{self.folder} became an index of another model: open it again"
                raise UserError("search.other_model", message, self.folder)
            self._read = read
        return self._read

    @contextmanager
    def _changing(self) -> Iterator[IndexWriter]:
        """Locks the folder; puts in force what a block changed, and merges segments."""
        with writing(self.folder) as writer:
            before = writer.manifest
            yield writer
            if writer.manifest != before:
                writer.commit()
            try:
                for kind in writer.manifest.kinds:
                    while writer.merge(kind):
                        writer.commit()
            except OSError as error:
                # Nothing is lost: the next change merges them.
                logger.warning(f"{self.folder}: small segments stay: {error.strerror}")

    def state(self, kind: str) -> State:
        """Returns the items of a kind as they are now; their files are opened if they are not."""
        while True:
            read = self._in_force()
            entry = read.manifest.entry(kind)
            state = self._states.get(kind)
            if state and state.entry == entry:
                return state
            try:
                state = self._opened(kind, entry, state)
            except Unreadable as error:
                if self._in_force().version == read.version:
                    raise damaged(error.path) from None
                continue
            self._states[kind] = state
            return state

    def _opened(self, kind: str, entry: KindEntry, last: State | None) -> State:
        dimension = self.dimension + bool(entry.queries)
        last_segments = last.segments if last else ()
        # What changes of a segment is which rows are deleted, not its files.
        opened = {(part.entry.flat, part.entry.records): part.files for part in last_segments}
        segments = [
            Segment.open(self.folder, part, dimension, opened.get((part.flat, part.records)))
            for part in entry.segments
        ]
        return State.of(entry, segments, kind, self.dimension)


def _rows(state: State, kind: str, ids: Sequence[str]) -> np.ndarray:
    """Returns the rows of items.

    Raises:
        UserError: there is no such item.
    """
    rows = state.rows_of(id_array(ids))
    if (rows < 0).any():
        unknown = shorten(ids[int(np.argmin(rows))])
        raise UserError("index.id", f"the index holds no {kind} with the id {unknown}")
    return rows
