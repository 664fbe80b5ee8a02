"""Hides duplicates among hits: what has the same content, or nearly the same embedding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tf_dpce.errors import UserError, shorten
from tf_dpce.search.embedding.store import IMAGES
from tf_dpce.search.interface import Found, Index

CONTENT = "content"

_BLOCK = 4096  # items whose embeddings are in memory at a time


@dataclass
class Group:
    """An item, and the ids of the duplicates that rank behind it."""

    found: Found
    duplicates: list[str] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        """The ids of all."""
        return [self.found.record["id"], *self.duplicates]


class Groups:
    """Ranked items, each behind the best one that it is a duplicate of.

    Args:
        most: number of groups that are of interest; items of others are dropped.
        column: items are duplicates if they have the same value there, unless it is not known;
            of an empty name there is none.

    Attributes:
        groups: by the rank of their best items.
        most: see above.
    """

    def __init__(self, most: int, column: str = "") -> None:
        self.groups: list[Group] = []
        self.most, self._column = most, column
        self._by_content: dict[str, Group] = {}
        self._seen: set[str] = set()

    @property
    def full(self) -> bool:
        """Whether there are as many as are of interest."""
        return len(self.groups) >= self.most

    def add(self, ranked: Iterable[Found]) -> None:
        """Takes items, best first; those that were taken before are left out."""
        new = [found for found in ranked if found.record["id"] not in self._seen]
        self._seen.update(found.record["id"] for found in new)
        self._add(new)

    def _add(self, new: Sequence[Found]) -> None:
        for found in new:
            content = found.record.get(self._column)
            if content in self._by_content:
                self._by_content[content].duplicates.append(found.record["id"])
            elif not self.full:
                self.groups.append(Group(found))
                if content is not None:
                    self._by_content[content] = self.groups[-1]


class NearEmbedding(Groups):
    """Duplicates have at least a cosine with the best item of their group."""

    def __init__(self, most: int, kind: str, index: Index, cosine: float) -> None:
        super().__init__(most)
        self._kind, self._index, self._cosine = kind, index, cosine
        self._leaders = np.empty((0, index.dimension), np.float32)

    def _add(self, new: Sequence[Found]) -> None:
        for start in range(0, len(new), _BLOCK):
            self._add_block(new[start : start + _BLOCK])

    def _add_block(self, block: Sequence[Found]) -> None:
        vectors = self._index.vectors(self._kind, [found.record["id"] for found in block])
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        rows = np.arange(len(block))
        if self.groups:
            rows = self._behind(rows, block, vectors, first=0)
        while len(rows) and not self.full:
            # The best item that is left leads a group, and takes what is near to it.
            best, first = rows[0], len(self.groups)
            self.groups.append(Group(block[best]))
            self._leaders = np.vstack([self._leaders, vectors[best]])
            rows = self._behind(rows[1:], block, vectors, first=first)

    def _behind(
        self, rows: np.ndarray, block: Sequence[Found], vectors: np.ndarray, first: int
    ) -> np.ndarray:
        """Puts rows behind the first leader, from number `first` on, that they are near to.

        Returns:
            The rows that are near to none.
        """
        near = vectors[rows] @ self._leaders[first:].T >= self._cosine
        taken = near.any(axis=1)
        for row, leader in zip(rows[taken], near[taken].argmax(axis=1), strict=True):
            self.groups[first + leader].duplicates.append(block[row].record["id"])
        return rows[~taken]


def groups_by(rule: str | float | None, most: int, kind: str, index: Index) -> Groups:
    """Returns an empty set of groups.

    Args:
        rule: "content", the least cosine of duplicates, or None if there are none.
        most: number of groups that are of interest.
        kind: kind of the items.
        index: the index that they are of.
    """
    if rule is None:
        return Groups(most)
    if rule == CONTENT:
        return Groups(most, column="content" if kind == IMAGES else "text")
    return NearEmbedding(most, kind, index, float(rule))


def check_rule(rule: str | float | None, kind: str, index: Index) -> None:
    """Makes sure that duplicates can be hidden by a rule.

    Raises:
        UserError: it is neither "content" nor a cosine in 0..1, or the contents are not known.
    """
    if rule == CONTENT and kind == IMAGES and CONTENT not in index.columns(kind).names:
        message = "the index does not know the contents of files: hide duplicates by a cosine"
        raise UserError("search.duplicates", message)
    if rule not in (None, CONTENT) and not _is_cosine(rule):
        message = f"duplicates are hidden by {CONTENT} or a cosine such as 0.97, not by"
        raise UserError("search.duplicates", f"{message} {shorten(rule, 30)}")


def _is_cosine(rule: str | float) -> bool:
    try:
        return 0 < float(rule) <= 1
    except ValueError:
        return False
