"""What a search asks of an index, whether it lies in a folder or in a database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tf_dpce.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

    from tf_dpce.search.queries.filters import Filter


@dataclass(frozen=True)
class Found:
    """An item that an index found.

    Attributes:
        score: what it was ranked by: the cosine with the query (approximate if the index is), less
            half of the item's hubness if the index has a querybank and the query is of the other
            kind.
        record: the item's columns by name: `id`, for images `path` and the facts of
            `search.embedding.facts`, for texts `text`, and those of a table that was joined. A
            value that is not known is None.
    """

    score: float
    record: dict[str, Any]


class Contents(Protocol):
    """What an index knows of the items of a ranking."""

    def records(self, places: np.ndarray, names: Sequence[str] | None = None) -> pa.Table:
        """Returns some columns, or all, of the items at some places."""

    def vectors(self, places: np.ndarray) -> np.ndarray:
        """Returns the embeddings of the items at some places, float32 `[N, D]`, of unit length up
        to rounding.
        """


@dataclass(frozen=True, eq=False)
class Ranking:
    """The items that an index found for a query, best first; equal scores by id.

    What is known of them is read when it is asked for. Iterating yields each as `Found`.

    Attributes:
        scores: float32 `[K]`, see `Found`.
        contents: what the index knows of the K items.
    """

    scores: np.ndarray
    contents: Contents

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Found]:
        records = self.contents.records(np.arange(len(self)))
        return map(Found, self.scores.tolist(), records.to_pylist())

    def column(self, name: str, places: np.ndarray | None = None) -> pa.ChunkedArray:
        """Returns a column of the items at some places, or of all."""
        places = np.arange(len(self)) if places is None else places
        return self.contents.records(places, [name])[name]


class Index(Protocol):
    """An index of images, texts or both, by the embeddings of one model.

    A writer is alone; readers go on beside it, and each call of a reader answers from one state.

    Attributes:
        name: what messages call it: its folder or its address.
        model: digest of the model, see `model_digest`.
        dimension: D.
        whole: how many numbers the model's embeddings have; the index holds the first D of them.

    Example:
        >>> index = open_index("index")
        >>> index.counts, len(index.vectors("images", ["7.jpg"]))
        ({'images': 50}, 1)
        >>> index.missing("images", ["7.jpg", "77.jpg"])
        ['77.jpg']
    """

    name: str
    model: str
    dimension: int
    whole: int

    @property
    def version(self) -> str:
        """What changes with the contents, so that a cache knows when it is old."""

    @property
    def counts(self) -> dict[str, int]:
        """Number of items by kind, "images" and "texts"."""

    def columns(self, kind: str) -> pa.Schema:
        """Returns the columns of a kind and their types; by these a filter is checked.

        Args:
            kind: "images" or "texts".
        """

    def search(
        self, kind: str, queries: np.ndarray, top: int, *, of: str, where: Filter | None = None
    ) -> list[Ranking]:
        """Returns the best items of a kind for each query.

        Args:
            kind: what to find, "images" or "texts".
            queries: float32 `[Q, D]`, unit vectors.
            top: K; fewer are returned if there are fewer.
            of: the kind of the queries. A querybank normalises those of the other kind alone.
            where: only items that pass this filter are found.
        """

    def vectors(self, kind: str, ids: Sequence[str]) -> np.ndarray:
        """Returns the embeddings of items, float32 `[N, D]`, of unit length up to rounding.

        Args:
            kind: "images" or "texts".
            ids: N ids.

        Raises:
            UserError: there is no such item.
        """

    def records(self, kind: str, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Returns the columns of items, as `Found.record` has them.

        Args:
            kind: "images" or "texts".
            ids: ids of items.

        Raises:
            UserError: there is no such item.
        """

    def missing(self, kind: str, ids: Sequence[str]) -> list[str]:
        """Returns those of some ids that no item has.

        Args:
            kind: "images" or "texts".
            ids: any ids.
        """

    def add(self, kind: str, records: pa.Table, vectors: np.ndarray) -> None:
        """Adds N items at once, or none: an item whose id is there is replaced.

        It has the columns of a joined table still, unless `records` have them.

        Args:
            kind: "images" or "texts".
            records: N rows; `id` is a column. A column that the index lacks is added to it, empty
                for the items that are there.
            vectors: float32 `[N, D]`, unit vectors.
        """

    def delete(self, kind: str, ids: Sequence[str]) -> int:
        """Removes items at once; unknown ids are ignored.

        Args:
            kind: "images" or "texts".
            ids: ids of items.

        Returns:
            How many there were.
        """


def check_answerable(counts: Mapping[str, int], kind: str, top: int) -> None:
    """Makes sure that a query for the best `top` of `kind` can be answered.

    Args:
        counts: number of items of the index by kind.
        kind: "images" or "texts".
        top: K.

    Raises:
        UserError: `top` is below 1, or the index does not hold `kind`.
    """
    if top < 1:
        message = f"the number of results must be at least 1, not {top}"
        raise UserError("search.top", message)
    if kind not in counts:
        held = ", ".join(counts) or "nothing"
        raise UserError("search.kind", f"the index holds no {kind}, only {held}")
