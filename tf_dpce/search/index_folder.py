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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_dpce.errors import UserError, shorten
from tf_dpce.files import sha256_lines
from tf_dpce.search.embedding_store import record_schema
from tf_dpce.search.index_manifest import (
    MANIFEST,
    IndexManifest,
    KindEntry,
    manifest_bytes,
)
from tf_dpce.search.index_writer import damaged, writing
from tf_dpce.search.interface import Found, check_answerable
from tf_dpce.search.segments import Segment, SegmentFiles, Unreadable, read_deleted

if TYPE_CHECKING:
    import pyarrow as pa

    from tf_dpce.search.filters import Filter


@dataclass(frozen=True)
class _State:
    """The items of a kind in one state of the index."""

    entry: KindEntry
    segments: tuple[Segment, ...]
    schema: pa.Schema


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
        content = manifest_bytes(folder)
        manifest = IndexManifest.parse(content, folder / MANIFEST)
        # Each is replaced as a whole, so that threads need no lock.
        self._read = content, manifest
        self._states: dict[str, _State] = {}
        self.model, self.dimension = manifest.model, manifest.dimension

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
        return self._in_force()[1]

    @property
    def version(self) -> str:
        """Changes with the contents."""
        return sha256_lines([manifest_bytes(self.folder).decode()])

    @property
    def counts(self) -> dict[str, int]:
        """Number of items by kind."""
        return {kind: entry.alive for kind, entry in self.manifest.kinds.items() if entry.alive}

    @property
    def factory(self) -> str | None:
        """FAISS's description that the user chose, or None."""
        return self.manifest.factory

    @property
    def querybanks(self) -> dict[str, int]:
        """By kind, the number of queries that its items were normalised with."""
        kinds = self.manifest.kinds.items()
        return {kind: entry.queries for kind, entry in kinds if entry.queries}

    def columns(self, kind: str) -> pa.Schema:
        """Returns the columns of a kind and their types."""
        return self._state(kind).schema

    def search(
        self,
        kind: str,
        queries: np.ndarray,
        top: int,
        *,
        of: str,
        where: Filter | None = None,
    ) -> list[list[Found]]:
        """Returns the best items of a kind for each query, best first; equal scores by id."""
        state = self._state(kind)
        check_answerable(self.counts, kind, top)
        queries = np.ascontiguousarray(queries, np.float32)
        if state.entry.queries:
            # Only queries of the other kind are normalised.
            factor = np.full((len(queries), 1), of != kind, np.float32)
            queries = np.hstack([queries, factor])
        parts = []
        for segment in state.segments:
            allowed = where and segment.files.passing(where, state.schema)
            parts.append(segment.search(queries, top, allowed, state.entry.effort))
        return [
            _best(state, [(scores[row], rows[row]) for scores, rows in parts], top)
            for row in range(len(queries))
        ]

    def vectors(self, kind: str, ids: Sequence[str]) -> np.ndarray:
        """Returns the embeddings of items, float32 `[N, D]`."""
        vectors = np.zeros((len(ids), self.dimension), np.float32)
        for segment, places, rows in self._places(kind, ids):
            vectors[places] = segment.files.flat.reconstruct_batch(rows)[:, : self.dimension]
        return vectors

    def records(self, kind: str, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Returns the columns of items."""
        records: list[dict[str, Any]] = [{}] * len(ids)
        schema = self._state(kind).schema
        for segment, places, rows in self._places(kind, ids):
            for place, record in zip(places, _records(segment, rows, schema), strict=True):
                records[place] = record
        return records

    def table(self, kind: str, columns: Sequence[str]) -> pa.Table:
        """Returns some columns of all items, in no certain order."""
        import pyarrow as pa

        state = self._state(kind)
        schema = pa.schema([state.schema.field(name) for name in columns])
        tables = [
            segment.files.columns(columns).filter(pa.array(segment.alive()))
            for segment in state.segments
        ]
        return pa.concat_tables([schema.empty_table(), *tables], promote_options="permissive")

    def add(self, kind: str, records: pa.Table, vectors: np.ndarray) -> None:
        """Adds N items at once, or none: an item whose id is there is replaced."""
        self._change(kind, lambda writer: writer.add(kind, [(records, vectors)]))

    def delete(self, kind: str, ids: Sequence[str]) -> int:
        """Removes items at once; returns how many there were."""
        import pyarrow as pa

        gone = pa.array(ids, pa.string())
        return self._change(kind, lambda writer: writer.delete(kind, gone))

    def _in_force(self) -> tuple[bytes, IndexManifest]:
        """Reads `index.json`; it is parsed if it changed."""
        content = manifest_bytes(self.folder)
        if content != self._read[0]:
            manifest = IndexManifest.parse(content, self.folder / MANIFEST)
            if (manifest.model, manifest.dimension) != (self.model, self.dimension):
                message = f"{self.folder} became an index of another model: open it again"
                raise UserError("search.other_model", message, self.folder)
            self._read = content, manifest
        return self._read

    def _change(self, kind: str, change: Callable[..., Any]) -> Any:
        with writing(self.folder) as writer:
            before = writer.manifest
            result = change(writer)
            if writer.manifest != before:
                writer.commit()
            while writer.merge(kind):
                writer.commit()
        return result

    def _places(
        self, kind: str, ids: Sequence[str]
    ) -> list[tuple[Segment, np.ndarray, np.ndarray]]:
        """Returns for each segment which of the ids it has, and in which rows."""
        import pyarrow as pa

        wanted, found = pa.array(ids, pa.string()), []
        missing = np.ones(len(ids), bool)
        for segment in self._state(kind).segments:
            rows = segment.rows_of(wanted)
            places = np.flatnonzero(rows >= 0)
            missing[places] = False
            found.append((segment, places, rows[places]))
        if missing.any():
            unknown = shorten(ids[int(np.argmax(missing))])
            raise UserError("index.id", f"the index holds no {kind} with the id {unknown}")
        return found

    def _state(self, kind: str) -> _State:
        """Opens the files of a kind, if they are not open."""
        while True:
            content, manifest = self._in_force()
            entry = manifest.kinds.get(kind, KindEntry())
            state = self._states.get(kind)
            if state and state.entry == entry:
                return state
            try:
                state = self._opened(kind, entry, state)
            except Unreadable as error:
                if manifest_bytes(self.folder) == content:
                    raise damaged(error.path) from None
                continue
            self._states[kind] = state
            return state

    def _opened(self, kind: str, entry: KindEntry, last: _State | None) -> _State:
        import pyarrow as pa

        dimension = self.dimension + bool(entry.queries)
        opened = {part.entry.flat: part.files for part in last.segments} if last else {}
        segments = []
        for part in entry.segments:
            files = opened.get(part.flat) or SegmentFiles(self.folder, part, dimension)
            segments.append(Segment(part, files, read_deleted(self.folder, part)))
        schemas = [segment.files.schema for segment in segments] or [record_schema(kind)]
        return _State(
            entry, tuple(segments), pa.unify_schemas(schemas, promote_options="permissive")
        )


def _best(state: _State, parts: Sequence[tuple[np.ndarray, np.ndarray]], top: int) -> list[Found]:
    """Merges what each segment found for a query: scores and rows."""
    scores = np.concatenate([np.empty(0, np.float32), *(part[0] for part in parts)])
    if not len(scores):
        return []
    least = np.partition(scores, -min(top, len(scores)))[-min(top, len(scores))]
    found = []
    for segment, (scores, rows) in zip(state.segments, parts, strict=True):
        chosen = scores >= least
        records = _records(segment, rows[chosen], state.schema)
        found += map(Found, scores[chosen].tolist(), records)
    return sorted(found, key=lambda item: (-item.score, item.record["id"]))[:top]


def _records(segment: Segment, rows: np.ndarray, schema: pa.Schema) -> list[dict[str, Any]]:
    missing = dict.fromkeys(schema.names)
    return (
        [missing | record for record in segment.files.records(rows).to_pylist()]
        if len(rows)
        else []
    )
