"""An index in memory: all cosines in NumPy, sorted, and filters row by row.

The slow reference of every index; and what tests of a search ask where the index does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import dataset

from tests.unit.search.plain import DIMENSION, MODEL
from tf_dpce.errors import UserError
from tf_dpce.search.interface import Found
from tf_dpce.search.queries.filters import Filter


class PlainIndex:
    """See `tf_dpce.search.interface.Index`.

    Args:
        hubness: what each item's score loses for queries of the other kind, by kind.
    """

    def __init__(
        self,
        model: str = MODEL,
        dimension: int = DIMENSION,
        hubness: dict[str, np.ndarray] | None = None,
    ) -> None:
        self.name, self.model, self.dimension = "plain", model, dimension
        self.asked: list[int] = []  # the number of items of each search
        self._hubness = hubness or {}
        self._records: dict[str, pa.Table] = {}
        self._vectors: dict[str, np.ndarray] = {}
        self._changes = 0

    @property
    def version(self) -> str:
        return str(self._changes)

    @property
    def counts(self) -> dict[str, int]:
        return {kind: len(records) for kind, records in self._records.items() if len(records)}

    def columns(self, kind: str) -> pa.Schema:
        return self._records[kind].schema

    def search(
        self, kind: str, queries: np.ndarray, top: int, *, of: str, where: Filter | None = None
    ) -> list[list[Found]]:
        self.asked.append(top)
        records = self._records[kind]
        passes = np.ones(len(records), bool)
        if where is not None:
            mask = {"m": where.to_arrow(records.schema)}
            passes = np.array(dataset.dataset(records).to_table(columns=mask)["m"].to_pylist())
        rows = records.to_pylist()
        answers = []
        for query in queries:
            # Unlike a product of matrices this gives equal rows equal scores.
            scores = (self._vectors[kind] * query).sum(axis=1)
            if of != kind and kind in self._hubness:
                scores = scores - self._hubness[kind] / 2
            order = sorted(np.flatnonzero(passes), key=lambda row: (-scores[row], rows[row]["id"]))
            answers.append([Found(float(scores[row]), rows[row]) for row in order[:top]])
        return answers

    def vectors(self, kind: str, ids: Sequence[str]) -> np.ndarray:
        return self._vectors[kind][self._rows(kind, ids)]

    def records(self, kind: str, ids: Sequence[str]) -> list[dict[str, Any]]:
        return self._records[kind].take(self._rows(kind, ids)).to_pylist()

    def add(self, kind: str, records: pa.Table, vectors: np.ndarray) -> None:
        self.delete(kind, records["id"].to_pylist())
        if kind in self._records:
            records = pa.concat_tables([self._records[kind], records], promote_options="default")
            vectors = np.concatenate([self._vectors[kind], vectors])
        self._records[kind], self._vectors[kind] = records, vectors
        self._changes += 1

    def delete(self, kind: str, ids: Sequence[str]) -> int:
        if kind not in self._records:
            return 0
        stays = ~np.isin(self._records[kind]["id"].to_pylist(), list(ids))
        self._records[kind] = self._records[kind].filter(pa.array(stays))
        self._vectors[kind] = self._vectors[kind][stays]
        self._changes += 1
        return int((~stays).sum())

    def _rows(self, kind: str, ids: Sequence[str]) -> list[int]:
        rows = {id: row for row, id in enumerate(self._records[kind]["id"].to_pylist())}
        if missing := [id for id in ids if id not in rows]:
            raise UserError("index.id", f"there is no {missing[0]} in the index")
        return [rows[id] for id in ids]


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
