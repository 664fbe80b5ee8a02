"""The unit of bulk work, the input shard: consecutive images or texts, described by plain data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from tf_dpce.errors import UserError
from tf_dpce.search.embedding.records import clean, records

_ANY = 4096


@dataclass(frozen=True, slots=True)
class Item:
    """An image or a text.

    Attributes:
        id: name of the item in results.
        path: file of the image, or its address.
        text: the text.
        contents: bytes of the image if a shard holds them; else they are in the file.
        size: bytes of a remote file.
        modified: time of the last change of a remote file, in nanoseconds since 1970.
    """

    id: str
    path: str | None = None
    text: str | None = None
    contents: bytes | None = None
    size: int = 0
    modified: int | None = None


@dataclass(frozen=True, slots=True)
class ListedShard:
    """Files or texts.

    Attributes:
        number: its place among the input shards, from 0.
        items: what it consists of.
    """

    number: int
    items: tuple[Item, ...]

    @property
    def count(self) -> int:
        """Number of its inputs."""
        return len(self.items)

    @property
    def source(self) -> str:
        """What it is made of, for messages."""
        return f"{self.count} inputs from {self.items[0].path or self.items[0].id}"

    def walk(self) -> Iterator[Item]:
        """Yields its inputs."""
        yield from self.items


@dataclass(frozen=True, slots=True)
class RecordShard:
    """Images of a prepared shard; one of them is in memory at a time.

    Attributes:
        number: its place among the input shards, from 0.
        source: the file, or its address.
        prefix: what the ids of its images begin with.
        first: place of the first record in the file.
        count: number of records.
    """

    number: int
    source: str
    prefix: str
    first: int
    count: int

    def walk(self) -> Iterator[Item]:
        """Yields its inputs.

        Raises:
            UserError: the file is damaged.
        """
        for record in islice(records(self.source, self.first), self.count):
            path = clean(os.path.abspath(os.fsdecode(record.path)))
            yield Item(self.prefix + record.image_id, path, contents=record.image)


InputShard = ListedShard | RecordShard


@dataclass(frozen=True)
class Inputs:
    """A list of items that can be walked again from its start and is never in memory as a whole.

    Attributes:
        kind: "images" or "texts".
        digest: SHA-256 of the list.
        groups: numbers of items; no input shard lies in two groups.
        shards: function that cuts the list into input shards of at most so many items.
    """

    kind: str
    digest: str
    groups: tuple[int, ...]
    shards: Callable[[int], Iterator[InputShard]]

    @property
    def total(self) -> int:
        """Number of items."""
        return sum(self.groups)

    def items(self) -> Iterator[Item]:
        """Yields all items."""
        for shard in self.shards(_ANY):
            yield from shard.walk()

    def counts(self, shard_size: int) -> list[int]:
        """Returns the number of items of each input shard."""
        starts = ((group, start) for group in self.groups for start in range(0, group, shard_size))
        return [min(shard_size, group - start) for group, start in starts]

    def check_part(self, number: int, count: int) -> None:
        """Makes sure that the `number`-th, from 1, of `count` parts is one.

        Raises:
            UserError: there are fewer items than parts, or no part of this number.
        """
        if not number <= count <= self.total:
            message = f"{self.total} {self.kind} have no part {number} of {count}: take another"
            raise UserError("inputs.parts", message)


def listed_shards(items: Callable[[], Iterator[Item]], shard_size: int) -> Iterator[ListedShard]:
    """Cuts a walk over items into input shards."""
    remaining, number = items(), 0
    while chosen := tuple(islice(remaining, shard_size)):
        yield ListedShard(number, chosen)
        number += 1
