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
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from tf_dpce.errors import UserError
from tf_dpce.evaluation.querybank import hubness
from tf_dpce.search.embedding.store import record_schema
from tf_dpce.search.milvus import rows
from tf_dpce.search.milvus.connection import Connection
from tf_dpce.search.milvus.rows import ID, VECTOR

# A search may miss changes of the last seconds, and need not wait for them.
RECENT, LATEST = {"consistency_level": "Bounded"}, {"consistency_level": "Strong"}

_MANIFEST, _COLUMN = "manifest", "value"
_VALUE = rows.field_name(_COLUMN)
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

    @property
    def version(self) -> str:
        """Part of the names of its collections; sorted as the versions were made."""
        return self.about.split("_")[-2]

    def schema(self, kind: str) -> pa.Schema:
        """Returns the columns of a kind."""
        text = self.columns.get(kind)
        return record_schema(kind) if text is None else rows.schema_from_text(text)

    def collection(self, kind: str) -> str:
        """Returns the name of the collection of a kind."""
        return self.about.removesuffix("about") + kind

    def with_columns(self, kind: str, columns: pa.Schema) -> Manifest:
        """Returns the manifest with these columns of a kind."""
        return replace(self, columns={**self.columns, kind: rows.schema_to_text(columns)})


class Storage:
    """The collections of an index, by a connection that has its name."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.call = connection, connection.call
        self._name = connection.target.name

    def exists(self) -> bool:
        """Returns whether there is an index of this name.

        Raises:
            UserError: the name is that of something else.
        """
        if not self.call("has_collection", self._name):
            return False
        found = self.call("describe_collection", self._name)
        fields = {each["name"] for each in found["fields"]}
        if found["collection_name"] == self._name or not {ID, VECTOR, _VALUE} <= fields:
            message = f"{self.connection.target} is a collection of others: take another name"
            raise UserError("milvus.foreign", message)
        return True

    def new_manifest(self, model: str, dimension: int, querybanks: dict[str, int]) -> Manifest:
        """Returns the manifest of a new version, later than all before."""
        about = f"{self._name}_{time.time_ns():016x}_about"
        return Manifest(about, model, dimension, querybanks=querybanks)

    def manifest(self, level: dict[str, str]) -> Manifest:
        """Reads what is in force.

        Raises:
            UserError: there is no index, or its manifest is damaged.
        """
        options = self.connection.condition(f"{ID} == {{id}}", id=_MANIFEST) | level
        found = self.call("query", self._name, output_fields=[_VALUE], **options)
        try:
            return Manifest(**json.loads(found[0][_VALUE]))
        except (IndexError, KeyError, TypeError, ValueError):
            message = f"the manifest of {self.connection.target} is damaged: build the index again"
            raise UserError("index.damaged", message) from None

    def load(self) -> Manifest:
        """Makes Milvus hold ready what is in force, and returns its manifest.

        Raises:
            UserError: see `manifest`.
        """
        self.call("load_collection", self._name)
        manifest = self.manifest(LATEST)
        for kind in manifest.columns:
            self.call("load_collection", manifest.collection(kind))
        return manifest

    def save(self, manifest: Manifest) -> None:
        """Stores a manifest with a new revision."""
        content = json.dumps(asdict(replace(manifest, revision=secrets.token_hex(8))))
        empty = np.zeros(manifest.dimension, np.float32)
        self.call("upsert", manifest.about, [{ID: _MANIFEST, VECTOR: empty, _VALUE: content}])

    def create_about(self, manifest: Manifest, querybanks: dict[str, np.ndarray]) -> None:
        """Makes the collection of the manifest and the queries of the querybank."""
        columns = pa.schema([(ID, pa.string()), (_COLUMN, pa.string())])
        self._create(manifest.about, columns, manifest.dimension, "FLAT")
        self.save(manifest)
        for kind, queries in querybanks.items():
            pairs = zip(_query_ids(kind, len(queries)), queries, strict=True)
            for chunk in chunks([{ID: id_, VECTOR: query} for id_, query in pairs]):
                self.call("upsert", manifest.about, chunk)

    def create_kind(self, manifest: Manifest, kind: str) -> None:
        """Makes the collection of a kind."""
        dimension = manifest.dimension + (kind in manifest.querybanks)
        # The few items that Milvus Lite is made for are searched exactly.
        index = "FLAT" if self.connection.target.is_local else "AUTOINDEX"
        self._create(manifest.collection(kind), manifest.schema(kind), dimension, index)

    def store(
        self,
        manifest: Manifest,
        kind: str,
        records: pa.Table,
        vectors: np.ndarray,
        querybank: np.ndarray | None,
    ) -> None:
        """Stores items of a kind, a batch at a time; those that are there are replaced."""
        # Milvus takes an id once; the last of several counts.
        last = {id_: row for row, id_ in enumerate(records[ID].to_pylist())}
        chosen = sorted(last.values())
        records, vectors = records.take(chosen), vectors[chosen]
        if querybank is not None:
            vectors = np.column_stack([vectors, -hubness(vectors, querybank) / 2])
        for batch in rows.to_rows(records, vectors):
            self.call("upsert", manifest.collection(kind), batch)

    def querybank(self, manifest: Manifest, kind: str) -> np.ndarray | None:
        """Returns the queries that items of a kind are normalised with, float32 `[Q, D]`."""
        if kind not in manifest.querybanks:
            return None
        ids = _query_ids(kind, manifest.querybanks[kind])
        found = self.rows(manifest.about, ids, [VECTOR])
        return np.asarray([found[id_][VECTOR] for id_ in ids], np.float32)

    def rows(
        self, collection: str, ids: Sequence[str], fields: list[str]
    ) -> dict[str, dict[str, Any]]:
        """Returns the rows of those ids that are there, by id."""
        found = {}
        for chunk in chunks(ids):
            options = self.connection.condition(f"{ID} in {{ids}}", ids=list(chunk)) | LATEST
            answer = self.call("query", collection, output_fields=[ID, *fields], **options)
            found |= {row[ID]: row for row in answer}
        return found

    def put_in_force(self, manifest: Manifest) -> None:
        """Makes the name stand for a version whose items are all stored."""
        change = "alter_alias" if self.exists() else "create_alias"
        self.call(change, manifest.about, self._name)

    def drop_versions(self, chosen: Callable[[str], bool]) -> None:
        """Removes the collections of some versions; they are hexadecimal numbers of one length."""
        pattern = re.compile(rf"{self._name}_([0-9a-f]{{16}})_(about|images|texts)")
        # A later build removes what could not be removed now.
        with suppress(UserError):
            for name in self.call("list_collections"):
                if (found := pattern.fullmatch(name)) and chosen(found[1]):
                    self.call("drop_collection", name)

    def _create(self, name: str, columns: pa.Schema, dimension: int, index_type: str) -> None:
        from pymilvus import MilvusClient

        schema = rows.collection_schema(columns, dimension)
        index = MilvusClient.prepare_index_params()
        index.add_index(VECTOR, index_type=index_type, metric_type="IP")
        self.call("create_collection", name, schema=schema, index_params=index)


def chunks(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Yields a sequence in parts that a call takes."""
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]


def _query_ids(kind: str, count: int) -> list[str]:
    return [f"{kind}-{number:05d}" for number in range(count)]
