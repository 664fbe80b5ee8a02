"""The collections of an index in Milvus.

    NAME                      an alias of the `about` collection that is in force
    NAME_VERSION_about        the manifest, and the queries of the querybank
    NAME_VERSION_images       embeddings, and the records beside them
    NAME_VERSION_texts

A build makes new collections. Changing what NAME stands for, one step of Milvus, puts them in
force; only then are the old ones removed. So there is an index at any moment, even if the process
is killed; what a killed build leaves, the next one removes.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from tf_dpce.errors import UserError
from tf_dpce.evaluation.querybank import hubness
from tf_dpce.search.embedding_store import record_schema
from tf_dpce.search.milvus_connection import Connection
from tf_dpce.search.milvus_rows import (
    ID,
    VECTOR,
    collection_schema,
    field_name,
    schema_from_text,
    schema_to_text,
    to_rows,
)

Batches = Iterable[tuple[pa.Table, np.ndarray]]

# A search may miss changes of the last seconds, and need not wait for them.
RECENT, LATEST = {"consistency_level": "Bounded"}, {"consistency_level": "Strong"}

_MANIFEST = "manifest"
_COLUMN = "value"
_VALUE = field_name(_COLUMN)
_CHUNK = 1_000  # ids of a call


@dataclass(frozen=True)
class Manifest:
    """What `about` says of an index.

    Attributes:
        about: name of that collection.
        model: digest of the model.
        dimension: D.
        columns: by kind its columns, see `schema_to_text`.
        querybanks: by kind the number of queries that its items are normalised with. Embeddings of
            such a kind have one more number, which is multiplied by 1 for a query of the other
            kind and by 0 for one of the same kind.
        revision: changes with the contents.
    """

    about: str
    model: str
    dimension: int
    columns: dict[str, str] = field(default_factory=dict)
    querybanks: dict[str, int] = field(default_factory=dict)
    revision: str = ""

    @classmethod
    def new(cls, name: str, model: str, dimension: int, querybanks: dict[str, int]) -> Manifest:
        """Returns the manifest of a new version of an index, later than all before."""
        about = f"{name}_{time.time_ns():016x}_about"
        return cls(about, model, dimension, querybanks=querybanks)

    @property
    def version(self) -> str:
        """Part of the names of its collections; sorted as the versions were made."""
        return self.about.split("_")[-2]

    def schema(self, kind: str) -> pa.Schema:
        """Returns the columns of a kind."""
        text = self.columns.get(kind)
        return record_schema(kind) if text is None else schema_from_text(text)

    def collection(self, kind: str) -> str:
        """Returns the name of the collection of a kind."""
        return self.about.removesuffix("about") + kind

    def with_columns(self, kind: str, columns: pa.Schema) -> Manifest:
        """Returns the manifest with these columns of a kind."""
        return replace(self, columns={**self.columns, kind: schema_to_text(columns)})


def find_index(connection: Connection) -> bool:
    """Returns whether there is an index of the connection's name.

    Raises:
        UserError: the name is that of something else.
    """
    name = connection.target.name
    if not connection.call("has_collection", name):
        return False
    found = connection.call("describe_collection", name)
    fields = {field["name"] for field in found["fields"]}
    if found["collection_name"] == name or not {ID, VECTOR, _VALUE} <= fields:
        message = f"{name} at {connection.target.uri} is no index of this program: take another"
        raise UserError("milvus.foreign", f"{message} name, {connection.target.uri}#NAME")
    return True


def read_manifest(connection: Connection, level: dict[str, str]) -> Manifest:
    """Reads what is in force.

    Raises:
        UserError: there is no index, or its manifest is damaged.
    """
    options = connection.condition(f"{ID} == {{id}}", id=_MANIFEST) | level
    rows = connection.call("query", connection.target.name, output_fields=[_VALUE], **options)
    try:
        return Manifest(**json.loads(rows[0][_VALUE]))
    except (IndexError, KeyError, TypeError, ValueError):
        message = f"the manifest of {connection.target} is damaged: build the index again"
        raise UserError("index.damaged", message) from None


def save_manifest(connection: Connection, manifest: Manifest) -> Manifest:
    """Stores a manifest with a new revision, and returns it."""
    manifest = replace(manifest, revision=secrets.token_hex(8))
    empty = np.zeros(manifest.dimension, np.float32)
    row = {ID: _MANIFEST, VECTOR: empty, _VALUE: json.dumps(asdict(manifest))}
    connection.call("upsert", manifest.about, [row])
    return manifest


def create_kind(connection: Connection, manifest: Manifest, kind: str) -> None:
    """Makes the collection of a kind."""
    dimension = manifest.dimension + (kind in manifest.querybanks)
    schema = collection_schema(manifest.schema(kind), dimension)
    # The few items that Milvus Lite is made for are searched exactly.
    index = "FLAT" if connection.target.is_local else "AUTOINDEX"
    _create(connection, manifest.collection(kind), schema, index)


def load(connection: Connection) -> Manifest:
    """Makes Milvus hold ready what is in force, of no effect if it does, and returns its manifest.

    Raises:
        UserError: see `read_manifest`.
    """
    connection.call("load_collection", connection.target.name)
    manifest = read_manifest(connection, LATEST)
    for kind in manifest.columns:
        connection.call("load_collection", manifest.collection(kind))
    return manifest


def store_all(
    connection: Connection,
    manifest: Manifest,
    kind: str,
    batches: Batches,
    querybank: np.ndarray | None,
) -> Manifest:
    """Stores all items of a kind in a collection of its own."""
    for records, vectors in batches:
        if kind not in manifest.columns:
            manifest = manifest.with_columns(kind, records.schema)
            create_kind(connection, manifest, kind)
        store(connection, manifest, kind, records, vectors, querybank)
    return manifest


def store(
    connection: Connection,
    manifest: Manifest,
    kind: str,
    records: pa.Table,
    vectors: np.ndarray,
    querybank: np.ndarray | None,
) -> None:
    """Stores items of a kind, a batch at a time; those that are there are replaced."""
    # Milvus takes an id once; the last of several counts.
    last = {id_: row for row, id_ in enumerate(records[ID].to_pylist())}
    rows = sorted(last.values())
    records, vectors = records.take(rows), vectors[rows]
    if querybank is not None:
        vectors = np.column_stack([vectors, -hubness(vectors, querybank) / 2])
    for batch in to_rows(records, vectors):
        connection.call("upsert", manifest.collection(kind), batch)


def create_about(
    connection: Connection, manifest: Manifest, querybanks: dict[str, np.ndarray]
) -> None:
    """Makes the collection of the manifest and the queries of the querybank."""
    columns = pa.schema([(ID, pa.string()), (_COLUMN, pa.string())])
    _create(connection, manifest.about, collection_schema(columns, manifest.dimension), "FLAT")
    save_manifest(connection, manifest)
    for kind, queries in querybanks.items():
        ids = _query_ids(kind, len(queries))
        rows = [{ID: id_, VECTOR: query} for id_, query in zip(ids, queries, strict=True)]
        for chunk in chunks(rows):
            connection.call("upsert", manifest.about, chunk)


def read_querybank(connection: Connection, manifest: Manifest, kind: str) -> np.ndarray | None:
    """Returns the queries that items of a kind are normalised with, float32 `[Q, D]`."""
    if kind not in manifest.querybanks:
        return None
    ids = _query_ids(kind, manifest.querybanks[kind])
    rows = rows_of(connection, manifest.about, ids, [VECTOR])
    return np.asarray([rows[id_][VECTOR] for id_ in ids], np.float32)


def put_in_force(connection: Connection, manifest: Manifest) -> None:
    """Makes the index's name stand for a version whose items are all stored."""
    change = "alter_alias" if find_index(connection) else "create_alias"
    connection.call(change, manifest.about, connection.target.name)


def drop_versions(connection: Connection, chosen: Callable[[str], bool]) -> None:
    """Removes the collections of some versions; they are hexadecimal numbers of one length."""
    pattern = re.compile(rf"{connection.target.name}_([0-9a-f]{{16}})_(about|images|texts)")
    # A later build removes what could not be removed now.
    with suppress(UserError):
        for name in connection.call("list_collections"):
            found = pattern.fullmatch(name)
            if found and chosen(found[1]):
                connection.call("drop_collection", name)


def rows_of(
    connection: Connection, collection: str, ids: Sequence[str], fields: list[str]
) -> dict[str, dict[str, Any]]:
    """Returns the rows of those ids that are there, by id."""
    found = {}
    for chunk in chunks(ids):
        options = connection.condition(f"{ID} in {{ids}}", ids=list(chunk)) | LATEST
        rows = connection.call("query", collection, output_fields=[ID, *fields], **options)
        found |= {row[ID]: row for row in rows}
    return found


def chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Yields a sequence in parts that a call takes."""
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]


def _create(connection: Connection, name: str, schema: Any, index_type: str) -> None:
    from pymilvus import MilvusClient

    index = MilvusClient.prepare_index_params()
    index.add_index(VECTOR, index_type=index_type, metric_type="IP")
    connection.call("create_collection", name, schema=schema, index_params=index)


def _query_ids(kind: str, count: int) -> list[str]:
    return [f"{kind}-{number:05d}" for number in range(count)]
