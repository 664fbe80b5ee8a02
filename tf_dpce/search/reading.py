"""Images' bytes from disk, a chunk ahead of the encoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from tf_dpce.preprocessing.status import MAX_BYTES, REASONS, TOO_MANY_BYTES
from tf_dpce.search.inputs import Item

_CHUNK = 64  # items whose contents are in memory at a time, and as many being read
_THREADS = 8  # more than cores: they wait for the disk or the network


@dataclass(frozen=True)
class Refusal:
    """Why an item has no vector; `status` is None where its file could not even be read."""

    status: int | None
    reason: str


def read_image(path: str) -> bytes | Refusal:
    """Returns an image's bytes; a file over the limit is refused without being read whole."""
    try:
        with open(path, "rb") as stream:
            contents = stream.read(MAX_BYTES + 1)
    except OSError as error:
        return Refusal(None, f"cannot be read: {error.strerror}")
    if len(contents) > MAX_BYTES:
        return Refusal(TOO_MANY_BYTES, REASONS[TOO_MANY_BYTES])
    return contents


def read_ahead(items: Iterable[Item]) -> Iterator[tuple[list[Item], list[str | bytes | Refusal]]]:
    """Yields chunks of items with their sentences or images, reading the next meanwhile."""
    remaining = iter(items)
    with ThreadPoolExecutor(_THREADS) as pool:
        chunk = list(islice(remaining, _CHUNK))
        contents = pool.map(_contents, chunk)
        while chunk:
            following = list(islice(remaining, _CHUNK))
            next_contents = pool.map(_contents, following)
            yield chunk, list(contents)
            chunk, contents = following, next_contents


def _contents(item: Item) -> str | bytes | Refusal:
    if item.text is not None:
        return item.text
    return read_image(item.path) if item.contents is None else item.contents
