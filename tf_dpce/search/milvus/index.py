"""What a search asks of an index in Milvus.

`add` and `delete` change the collections in force, a thousand items at a time. If they are
interrupted, the same call completes the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from tf_dpce.errors import UserError, shorten
from tf_dpce.search.embedding.store import joined_columns
from tf_dpce.search.interface import Ranking, check_answerable
from tf_dpce.search.milvus.connection import Connection, Target
from tf_dpce.search.milvus.rows import ID, VECTOR, field_name, from_rows, merge_columns
from tf_dpce.search.milvus.storage import LATEST, RECENT, Manifest, Storage, chunks

if TYPE_CHECKING:
    from tf_dpce.search.queries.filters import Filter

Batches = Iterable[tuple[pa.Table, np.ndarray]]
Answer = TypeVar("Answer")

_MOST = 16_384  # results of a call, Milvus's limit


class MilvusIndex:
    """An index in Milvus; `search.interface.Index` says what its methods promise."""

    def __init__(self, storage: Storage) -> None:
        self._storage, self.name = storage, str(storage.connection.target)
        manifest = storage.load()
        self.model, self.dimension = manifest.model, manifest.dimension
        self.whole = self.dimension

    @classmethod
    def open(cls, target: Path | str) -> MilvusIndex:
        """Opens an index.

        Args:
            target: `http(s)://HOST:PORT[#NAME]`, or the path of a database of Milvus Lite,
                `PATH.db[#NAME]`. The environment variable MILVUS_TOKEN has the credentials.

        Raises:
            UserError: Milvus does not answer or refuses the credentials, there is no such index,
                or the name is that of something else.
        """
        storage = Storage(Connection(Target.parse(target)))
        if not storage.exists():
            name = storage.connection.target
            raise UserError("index.missing", f"there is no index {name}: build one with index")
        return cls(storage)

    @classmethod
    def build(
        cls,
        target: Path | str,
        model: str,
        dimension: int,
        items: Mapping[str, Batches],
        querybanks: Mapping[str, np.ndarray] | None = None,
    ) -> MilvusIndex:
        """Builds an index, or replaces the one of this name once all is stored.

        Args:
            target: see `open`.
            model: digest of the model.
            dimension: D.
            items: for each kind batches of records, all of the same columns, and their embeddings,
                float32 `[N, D]`.
            querybanks: for each kind that is to be normalised the queries, float32 `[Q, D]`.

        Raises:
            UserError: see `open`; or a column cannot be stored.
        """
        storage = Storage(Connection(Target.parse(target), create=True))
        storage.exists()
        querybanks = dict(querybanks or {})
        counts = {kind: len(queries) for kind, queries in querybanks.items()}
        manifest = storage.new_manifest(model, dimension, counts)
        try:
            for kind, batches in items.items():
                for records, vectors in batches:
                    if kind not in manifest.columns:
                        manifest = manifest.with_columns(kind, records.schema)
                        storage.create_kind(manifest, kind)
                    storage.store(manifest, kind, records, vectors, querybanks.get(kind))
            storage.create_about(manifest, querybanks)
        except BaseException:
            storage.drop_versions(lambda version: version == manifest.version)
            raise
        # If the answer is lost, this version may be in force: nothing is removed.
        storage.put_in_force(manifest)
        storage.drop_versions(lambda version: version < manifest.version)
        return cls(storage)

    @property
    def version(self) -> str:
        return self._read(lambda manifest: manifest.revision)

    @property
    def counts(self) -> dict[str, int]:
        def ask(manifest: Manifest) -> dict[str, int]:
            counts = {kind: self._count(manifest, kind) for kind in manifest.columns}
            return {kind: count for kind, count in counts.items() if count}

        return self._read(ask)

    @property
    def querybanks(self) -> dict[str, int]:
        """By kind, the number of queries that its items were normalised with."""
        return self._read(lambda manifest: manifest.querybanks)

    def columns(self, kind: str) -> pa.Schema:
        return self._read(lambda manifest: manifest.schema(kind))

    def search(
        self, kind: str, queries: np.ndarray, top: int, *, of: str, where: Filter | None = None
    ) -> list[Ranking]:
        if top > _MOST:
            raise UserError("milvus.top", f"Milvus returns at most {_MOST:,} results, not {top:,}")

        def ask(manifest: Manifest) -> list[Ranking]:
            check_answerable(manifest.columns, kind, top)
            schema, asked = manifest.schema(kind), queries
            if kind in manifest.querybanks:
                # Only queries of the other kind are normalised.
                factor = np.full((len(queries), 1), of != kind, np.float32)
                asked = np.hstack([queries, factor])
            options = {"output_fields": [field_name(name) for name in schema.names], **RECENT}
            if where is not None:
                expression, parameters = where.to_milvus(schema)
                options |= self._storage.connection.condition(expression, **parameters)
            size, answers = max(1, _MOST // top), []
            for start in range(0, len(asked), size):
                part, collection = asked[start : start + size], manifest.collection(kind)
                answers += self._nearest(collection, part, top, options)
            return [self._ranking(kind, hits, schema) for hits in answers]

        return self._read(ask)

    def vectors(self, kind: str, ids: Sequence[str]) -> np.ndarray:
        def ask(manifest: Manifest) -> np.ndarray:
            # Without the querybank's number.
            rows = self._items(manifest, kind, ids, [VECTOR])
            vectors = [row[VECTOR][: manifest.dimension] for row in rows]
            return np.asarray(vectors, np.float32).reshape(-1, manifest.dimension)

        return self._read(ask)

    def records(self, kind: str, ids: Sequence[str]) -> list[dict[str, Any]]:
        def ask(manifest: Manifest) -> list[dict[str, Any]]:
            schema = manifest.schema(kind)
            names = [field_name(name) for name in schema.names]
            return from_rows(self._items(manifest, kind, ids, names), schema).to_pylist()

        return self._read(ask)

    def missing(self, kind: str, ids: Sequence[str]) -> list[str]:
        def ask(manifest: Manifest) -> list[str]:
            found = self._rows(manifest, kind, ids, [])
            return [id_ for id_ in ids if id_ not in found]

        return self._read(ask)

    def add(self, kind: str, records: pa.Table, vectors: np.ndarray) -> None:
        if not len(records):
            return
        storage, manifest = self._storage, self._own(self._storage.load())
        if kind in manifest.columns:
            records = self._with_joined(manifest, kind, records)
            columns, records = merge_columns(manifest.schema(kind), records)
            manifest = manifest.with_columns(kind, columns)
        else:
            manifest = manifest.with_columns(kind, records.schema)
            storage.create_kind(manifest, kind)
        # Before and after, so that what is read meanwhile is not taken for the final state.
        storage.save(manifest)
        storage.store(manifest, kind, records, vectors, storage.querybank(manifest, kind))
        storage.save(manifest)

    def delete(self, kind: str, ids: Sequence[str]) -> int:
        storage, manifest = self._storage, self._own(self._storage.load())
        if kind not in manifest.columns:
            return 0
        collection = manifest.collection(kind)
        found = list(storage.rows(collection, list(dict.fromkeys(ids)), []))
        for chunk in chunks(found):
            condition = storage.connection.condition(f"{ID} in {{ids}}", ids=list(chunk))
            storage.call("delete", collection, **condition)
        if found:
            storage.save(manifest)
        return len(found)

    def _read(self, ask: Callable[[Manifest], Answer]) -> Answer:
        """Asks what is in force; again if it was replaced or Milvus started again."""
        try:
            return ask(self._own(self._storage.manifest(RECENT)))
        except UserError as error:
            if error.code != "index.missing":
                raise
        return ask(self._own(self._storage.load()))

    def _own(self, manifest: Manifest) -> Manifest:
        if manifest.model != self.model:
            message = f"{self.name} was built again with another model: open it anew"
            raise UserError("search.other_model", message)
        return manifest

    def _count(self, manifest: Manifest, kind: str) -> int:
        options = {"output_fields": ["count(*)"], **LATEST}
        return self._storage.call("query", manifest.collection(kind), **options)[0]["count(*)"]

    def _rows(
        self, manifest: Manifest, kind: str, ids: Sequence[str], fields: list[str]
    ) -> dict[str, dict[str, Any]]:
        if kind not in manifest.columns:
            return {}
        return self._storage.rows(manifest.collection(kind), ids, fields)

    def _with_joined(self, manifest: Manifest, kind: str, records: pa.Table) -> pa.Table:
        """Returns records with the columns of a joined table that those of these ids have."""
        schema = manifest.schema(kind)
        names = joined_columns(kind, schema.names, records)
        columns = pa.schema([schema.field(name) for name in names])
        if len(columns):
            ids = records[ID].to_pylist()
            rows = self._rows(manifest, kind, ids, [field_name(name) for name in names])
            former = from_rows([rows.get(id_, {}) for id_ in ids], columns)
            for name in names:
                records = records.append_column(name, former[name])
        return records

    def _items(
        self, manifest: Manifest, kind: str, ids: Sequence[str], fields: list[str]
    ) -> list[dict[str, Any]]:
        rows = self._rows(manifest, kind, ids, fields)
        if missing := [id_ for id_ in ids if id_ not in rows]:
            message = f"the index holds no {kind} with the id {shorten(missing[0])}"
            raise UserError("index.id", message)
        return [rows[id_] for id_ in ids]

    def _ranking(self, kind: str, hits: Sequence[Mapping[str, Any]], columns: pa.Schema) -> Ranking:
        records = from_rows([{**hit["entity"], ID: hit[ID]} for hit in hits], columns)
        scores = np.array([hit["distance"] for hit in hits], np.float32)
        return Ranking(scores, _Hits(self, kind, records))

    def _nearest(
        self, collection: str, queries: np.ndarray, top: int, options: dict[str, Any]
    ) -> list[list[dict[str, Any]]]:
        """Returns the best hits of each query; of equal scores at the end those of the first ids.

        Milvus chooses among these as it likes. So it is asked for more until it has given them all.
        """
        limit = min(top + 1, _MOST)
        while True:
            options["limit"] = limit
            answers = self._storage.call("search", collection, list(queries), **options)
            full = [hits for hits in answers if len(hits) == limit]
            cut = any(hits[-1]["distance"] == hits[top - 1]["distance"] for hits in full)
            if limit == _MOST or not cut:
                return [sorted(hits, key=_by_score)[:top] for hits in answers]
            limit = min(4 * limit, _MOST)


def _by_score(hit: Mapping[str, Any]) -> tuple[float, str]:
    return -hit["distance"], hit[ID]


class _Hits(NamedTuple):
    """What Milvus returned with its hits; see `search.interface.Contents`."""

    index: MilvusIndex
    kind: str
    table: pa.Table

    def records(self, places: np.ndarray, names: Sequence[str] | None = None) -> pa.Table:
        return self.table.select(names or self.table.column_names).take(places)

    def vectors(self, places: np.ndarray) -> np.ndarray:
        return self.index.vectors(self.kind, self.records(places)[ID].to_pylist())
