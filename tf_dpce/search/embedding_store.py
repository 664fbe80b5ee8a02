"""A folder of embeddings on disk: shards of vectors, their ids, and the book that lists them.

    OUT/embeddings.json            the book: model, dimension, and per kind what is done
    OUT/images-00000.npy           float32 [n, D], unit vectors
    OUT/images-00000.jsonl         n lines: id and path (id and text for texts)
    OUT/rejected-images.jsonl      what has no vector: id, path, status, reason

A shard counts once the book lists it, and the book is replaced in one rename.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf_dpce.errors import UserError
from tf_dpce.files import publish_file, read_json, write_json

FORMAT = 1
IMAGES = "images"
TEXTS = "texts"
KINDS = (IMAGES, TEXTS)

BOOK = "embeddings.json"
SHARD_SIZE = 4096  # inputs a shard, unless told


@dataclass(frozen=True)
class Shard:
    """One file of vectors: `taken` inputs gave `embedded` vectors, the rest was rejected."""

    name: str
    taken: int
    embedded: int


@dataclass(frozen=True)
class Progress:
    """How far the inputs of one kind are embedded.

    Args:
        inputs: digest of the inputs, so that a resumed run continues the same work.
        total: number of inputs.
        shards: the finished ones, in the order of the inputs.
    """

    inputs: str
    total: int
    shards: tuple[Shard, ...] = ()

    @property
    def taken(self) -> int:
        """Number of inputs behind us."""
        return sum(shard.taken for shard in self.shards)

    @property
    def embedded(self) -> int:
        """Number of vectors on disk."""
        return sum(shard.embedded for shard in self.shards)

    @property
    def rejected(self) -> int:
        """Number of inputs that have no vector."""
        return self.taken - self.embedded

    @property
    def complete(self) -> bool:
        """Whether every input is behind us."""
        return self.taken == self.total


@dataclass(frozen=True)
class Book:
    """What `embeddings.json` says of a folder of embeddings.

    Args:
        model: digest of the model, see `model_digest`.
        dimension: D.
        kinds: progress by kind, "images" and "texts".
    """

    model: str
    dimension: int
    kinds: dict[str, Progress]

    @classmethod
    def load(cls, folder: Path) -> Book:
        """Reads the book of a folder.

        Raises:
            UserError: there is none, or it is not one of ours.
        """
        path = folder / BOOK
        content = read_json(path)
        try:
            if content["format"] != FORMAT:
                raise UserError(f"{path} has format {content['format']}, this version {FORMAT}")
            kinds = {kind: _progress(value) for kind, value in content["kinds"].items()}
            return cls(content["model"], content["dimension"], kinds)
        except (KeyError, TypeError, AttributeError):
            raise UserError(f"{path} is not a list of embeddings: run embed again") from None

    def save(self, folder: Path) -> None:
        """Writes the book, atomically."""
        kinds = {kind: _counts(progress) for kind, progress in self.kinds.items()}
        content = {"format": FORMAT, "model": self.model, "dimension": self.dimension}
        write_json(folder / BOOK, {**content, "kinds": kinds})

    def with_progress(self, kind: str, progress: Progress) -> Book:
        """Returns the book with the progress of one kind replaced."""
        return dataclasses.replace(self, kinds={**self.kinds, kind: progress})


def has_book(folder: Path) -> bool:
    """Tells whether `folder` holds embeddings."""
    return (folder / BOOK).is_file()


def rejected_file(folder: Path, kind: str) -> Path:
    """Returns the list of the inputs of `kind` that have no vector."""
    return folder / f"rejected-{kind}.jsonl"


def write_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Writes records as JSON Lines, atomically."""
    with publish_file(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the records of a JSON Lines file that `write_lines` wrote."""
    with path.open(encoding="utf-8") as stream:
        yield from map(json.loads, stream)


def _progress(value: dict[str, Any]) -> Progress:
    shards = tuple(Shard(**shard) for shard in value["shards"])
    return Progress(value["inputs"], value["total"], shards)


def _counts(progress: Progress) -> dict[str, Any]:
    counts = {name: getattr(progress, name) for name in ("embedded", "rejected", "complete")}
    return {**dataclasses.asdict(progress), **counts}
