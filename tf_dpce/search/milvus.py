"""An index in Milvus, a database of embeddings for what one machine cannot hold.

`add` and `delete` change the collections in force, a thousand items at a time. If they are
interrupted, the same call completes the work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa

from tf_dpce.errors import UserError, shorten
from tf_dpce.search.interface import Found, check_answerable
from tf_dpce.search.milvus_collections import (
    LATEST,
    RECENT,
    Batches,
    Manifest,
    chunks,
    create_about,
    create_kind,
    drop_versions,
    find_index,
    load,
    put_in_force,
    read_manifest,
    read_querybank,
    rows_of,
    save_manifest,
    store,
    store_all,
)
from tf_dpce.search.milvus_connection import Connection, Target
from tf_dpce.search.milvus_rows import (
    ID,
    VECTOR,
    field_name,
    from_rows,
    merge_columns,
)

if TYPE_CHECKING:
    from tf_dpce.search.filters import Filter

Answer = TypeVar("Answer")

_MOST = 16_384  # results of a call, Milvus's limit


class MilvusIndex:
    """An index in Milvus; `search.interface.Index` says what its methods promise."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self.name = connection, str(connection.target)
        manifest = load(connection)
        self.model, self.dimension = manifest.model, manifest.dimension

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
        connection = Connection(Target.parse(target))
        if not find_index(connection):
            name = connection.target
            raise UserError("index.missing", f"there is no index {name}: build one with index")
        return cls(connection)

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
        connection = Connection(Target.parse(target), create=True)
        find_index(connection)
        querybanks = dict(querybanks or {})
        counts = {kind: len(queries) for kind, queries in querybanks.items()}
        manifest = Manifest.new(connection.target.name, model, dimension, counts)
        try:
            for kind, batches in items.items():
                manifest = store_all(connection, manifest, kind, batches, querybanks.get(kind))
            create_about(connection, manifest, querybanks)
        except BaseException:
            drop_versions(connection, lambda version: version == manifest.version)
            raise
        # If the answer is lost, this version may be in force: nothing is removed.
        put_in_force(connection, manifest)
        drop_versions(connection, lambda version: version < manifest.version)
        return cls(connection)

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
        self,
        kind: str,
        queries: np.ndarray,
        top: int,
        *,
        of: str,
        where: Filter | None = None,
    ) -> list[list[Found]]:
        if top > _MOST:
            raise UserError("milvus.top", f"Milvus returns at most {_MOST:,} results, not {top:,}")
        return self._read(lambda manifest: self._search(manifest, kind, queries, top, of, where))

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
            return from_rows(self._items(manifest, kind, ids, names), schema)

        return self._read(ask)

    def add(self, kind: str, records: pa.Table, vectors: np.ndarray) -> None:
        if not len(records):
            return
        connection, manifest = self._connection, self._own(load(self._connection))
        if kind in manifest.columns:
            columns, records = merge_columns(manifest.schema(kind), records)
            manifest = manifest.with_columns(kind, columns)
        else:
            manifest = manifest.with_columns(kind, records.schema)
            create_kind(connection, manifest, kind)
        # Before and after, so that what is read meanwhile is not taken for the final state.
        save_manifest(connection, manifest)
        querybank = read_querybank(connection, manifest, kind)
        store(connection, manifest, kind, records, vectors, querybank)
        save_manifest(connection, manifest)

    def delete(self, kind: str, ids: Sequence[str]) -> int:
        connection, manifest = self._connection, self._own(load(self._connection))
        if kind not in manifest.columns:
            return 0
        collection = manifest.collection(kind)
        found = list(rows_of(connection, collection, list(dict.fromkeys(ids)), []))
        for chunk in chunks(found):
            condition = connection.condition(f"{ID} in {{ids}}", ids=list(chunk))
            connection.call("delete", collection, **condition)
        if found:
            save_manifest(connection, manifest)
        return len(found)

    def _read(self, ask: Callable[[Manifest], Answer]) -> Answer:
        """Asks what is in force; again if it was replaced or Milvus started again."""
        try:
            return ask(self._own(read_manifest(self._connection, RECENT)))
        except UserError as error:
            if error.code != "index.missing":
                raise
        return ask(self._own(load(self._connection)))

    def _own(self, manifest: Manifest) -> Manifest:
        if manifest.model != self.model:
            message = f"{self._connection.target} was built again with another model: open it anew"
            raise UserError("search.other_model", message)
        return manifest

    def _count(self, manifest: Manifest, kind: str) -> int:
        rows = self._connection.call(
            "query", manifest.collection(kind), output_fields=["count(*)"], **LATEST
        )
        return rows[0]["count(*)"]

    def _items(
        self, manifest: Manifest, kind: str, ids: Sequence[str], fields: list[str]
    ) -> list[dict[str, Any]]:
        rows = {}
        if kind in manifest.columns:
            rows = rows_of(self._connection, manifest.collection(kind), ids, fields)
        if missing := [id_ for id_ in ids if id_ not in rows]:
            message = f"the index holds no {kind} with the id {shorten(missing[0])}"
            raise UserError("index.id", message)
        return [rows[id_] for id_ in ids]

    def _search(
        self,
        manifest: Manifest,
        kind: str,
        queries: np.ndarray,
        top: int,
        of: str,
        where: Filter | None,
    ) -> list[list[Found]]:
        check_answerable(manifest.columns, kind, top)
        schema = manifest.schema(kind)
        if kind in manifest.querybanks:
            # Only queries of the other kind are normalised.
            factor = np.full((len(queries), 1), of != kind, np.float32)
            queries = np.hstack([queries, factor])
        options = {"output_fields": [field_name(name) for name in schema.names], **RECENT}
        if where is not None:
            expression, parameters = where.to_milvus(schema)
            options |= self._connection.condition(expression, **parameters)
        found = []
        for start in range(0, len(queries), size := max(1, _MOST // top)):
            part = queries[start : start + size]
            for hits in self._nearest(manifest.collection(kind), part, top, options):
                records = from_rows([{**hit["entity"], ID: hit[ID]} for hit in hits], schema)
                scores = [hit["distance"] for hit in hits]
                found.append([Found(*pair) for pair in zip(scores, records, strict=True)])
        return found

    def _nearest(
        self, collection: str, queries: np.ndarray, top: int, options: dict[str, Any]
    ) -> list[list[dict[str, Any]]]:
        """Returns the best hits of each query; of equal scores at the end those of the first ids.

        Milvus chooses among these as it likes. So it is asked for more until it has given them all.
        """
        limit = min(top + 1, _MOST)
        while True:
            answers = self._connection.call(
                "search", collection, list(queries), limit=limit, **options
            )
            full = [hits for hits in answers if len(hits) == limit]
            cut = any(hits[-1]["distance"] == hits[top - 1]["distance"] for hits in full)
            if limit == _MOST or not cut:
                return [sorted(hits, key=_by_score)[:top] for hits in answers]
            limit = min(4 * limit, _MOST)


def _by_score(hit: Mapping[str, Any]) -> tuple[float, str]:
    return -hit["distance"], hit[ID]
