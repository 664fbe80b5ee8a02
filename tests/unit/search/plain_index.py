"""An index in memory: all cosines in NumPy, sorted, and filters row by row.

The slow reference of every index; and what tests of a search ask where the index does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import dataset

from tests.unit.search.plain import DIMENSION, MODEL
from tf_dpce.errors import UserError
from tf_dpce.search.embedding.store import record_schema
from tf_dpce.search.interface import Ranking
from tf_dpce.search.queries.filters import Filter


class PlainIndex:
    """See `tf_dpce.search.interface.Index`.

    Args:
        hubness: what each item's score loses for queries of the other kind, by kind.
        querybanks: the queries that it is computed from (CSLS) in place of that, by kind.
    """

    def __init__(
        self,
        model: str = MODEL,
        dimension: int = DIMENSION,
        hubness: dict[str, np.ndarray] | None = None,
        querybanks: dict[str, np.ndarray] | None = None,
    ) -> None:
        self.name, self.model, self.dimension = "plain", model, dimension
        self.whole = dimension
        self.asked: list[int] = []  # the number of items of each search
        self.items: dict[str, dict[str, tuple[dict, np.ndarray]]] = {"images": {}, "texts": {}}
        self._hubness, self._querybanks = hubness or {}, querybanks or {}
        self._schemas: dict[str, pa.Schema] = {}
        self._changes = 0

    @property
    def version(self) -> str:
        return str(self._changes)

    @property
    def counts(self) -> dict[str, int]:
        return {kind: len(items) for kind, items in self.items.items() if items}

    def columns(self, kind: str) -> pa.Schema:
        return self._schemas[kind]

    def scores(self, kind: str, query: np.ndarray, of: str, test=None) -> dict[str, float]:
        """By id, the score of each item whose record passes."""
        found = {}
        for row, (id_, (record, vector)) in enumerate(self.items[kind].items()):
            if test is None or test(record):
                # Unlike a product of matrices this gives equal rows equal scores.
                found[id_] = float((vector * query).sum())
                if of != kind and kind in self._hubness:
                    found[id_] -= self._hubness[kind][row] / 2
                elif of != kind and kind in self._querybanks:
                    # Half the mean of the ten largest cosines.
                    nearest = sorted(self._querybanks[kind] @ vector)[-10:]
                    found[id_] -= sum(nearest) / len(nearest) / 2
        return found

    def search(
        self, kind: str, queries: np.ndarray, top: int, *, of: str, where: Filter | None = None
    ) -> list[Ranking]:
        self.asked.append(top)
        passing, answers = self.items[kind].keys(), []
        if where is not None:
            chosen = {"id": pc.field("id"), "passes": where.to_arrow(self._schemas[kind])}
            table = dataset.dataset(self.table(kind)).to_table(columns=chosen)
            passing = {row["id"] for row in table.to_pylist() if row["passes"]}
        for query in queries:
            found = self.scores(kind, query, of, lambda record: record["id"] in passing)
            order = sorted(found, key=lambda id_: (-found[id_], id_))[:top]
            scores = np.array([found[id_] for id_ in order], np.float32)
            answers.append(Ranking(scores, Items(self, kind, self.table(kind, order))))
        return answers

    def table(self, kind: str, ids: Sequence[str] | None = None) -> pa.Table:
        chosen = self.items[kind] if ids is None else ids
        rows = [self.items[kind][id_][0] for id_ in chosen]
        return pa.Table.from_pylist(rows, self._schemas.get(kind))

    def vectors(self, kind: str, ids: Sequence[str]) -> np.ndarray:
        self._check(kind, ids)
        return np.stack([self.items[kind][id_][1] for id_ in ids])

    def records(self, kind: str, ids: Sequence[str]) -> list[dict[str, Any]]:
        self._check(kind, ids)
        return self.table(kind, ids).to_pylist()

    def missing(self, kind: str, ids: Sequence[str]) -> list[str]:
        return [id_ for id_ in ids if id_ not in self.items[kind]]

    def add(self, kind: str, records: pa.Table, vectors: np.ndarray) -> None:
        schemas = [self._schemas[kind]] if kind in self._schemas else []
        self._schemas[kind] = pa.unify_schemas([*schemas, records.schema])
        for record, vector in zip(records.to_pylist(), vectors, strict=True):
            former, _ = self.items[kind].pop(record["id"], ({}, None))
            own = record_schema(kind).names
            joined = {name: former[name] for name in former if name not in own}
            self.items[kind][record["id"]] = joined | record, vector
        self._changes += 1

    def delete(self, kind: str, ids: Sequence[str]) -> int:
        gone = [self.items[kind].pop(id_, None) for id_ in ids]
        self._changes += 1
        return len(gone) - gone.count(None)

    def _check(self, kind: str, ids: Sequence[str]) -> None:
        if missing := self.missing(kind, ids):
            raise UserError("index.id", f"there is no {missing[0]} in the index")


class Items(NamedTuple):
    """Records as they were found, and embeddings as they are now: as a database has them."""

    index: PlainIndex
    kind: str
    table: pa.Table

    def records(self, places: np.ndarray, names: Sequence[str] | None = None) -> pa.Table:
        return self.table.select(names or self.table.column_names).take(places)

    def vectors(self, places: np.ndarray) -> np.ndarray:
        return self.index.vectors(self.kind, self.records(places)["id"].to_pylist())


def image_records(ids: list[str], contents: list[str | None] | None = None) -> pa.Table:
    """Records of images with a few facts; the width of every fifth is not known."""
    rows = [
        {
            "id": id,
            "path": f"/none/{id}",
            "folder": "dogs" if number % 3 else "cats",
            "width": number * 10 if number % 5 else None,
            "content": contents[number] if contents else id,
        }
        for number, id in enumerate(ids)
    ]
    return pa.Table.from_pylist(rows)


def names(rows: Iterable[int]) -> list[str]:
    """The ids of an index's images, in this order."""
    return [f"{row:04d}.jpg" for row in rows]


def index_of(vectors: np.ndarray, contents: list | None = None, **options) -> PlainIndex:
    """An index of images `0000.jpg`, `0001.jpg`, ... with these embeddings."""
    index = PlainIndex(**options)
    records = image_records(names(range(len(vectors))), contents)
    index.add("images", records, vectors.astype(np.float32))
    return index
