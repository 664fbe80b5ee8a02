"""Images and sentences in, vectors out: what a model in this process and one far off share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.preprocessing import status

_LONGEST_QUOTE = 80
_ITEM_COST = 16  # what an item adds to a request besides its bytes: a length, or brackets

Answer = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Limits:
    """How much a batch holds.

    Attributes:
        items: largest number of items.
        batch_bytes: largest number of bytes of several items together.
        item_bytes: items of more bytes are not embedded; their status is `TOO_MANY_BYTES`.
    """

    items: int
    batch_bytes: float = math.inf
    item_bytes: float = math.inf


class Embedder(ABC):
    """Embeds images and sentences in batches.

    Args:
        limits: how much a batch holds.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    @property
    @abstractmethod
    def dimension(self) -> int:
        """The numbers of a vector, D."""

    @abstractmethod
    def _embed(self, endpoint: str, contents: Sequence[bytes]) -> Answer:
        """Returns vectors `[B, D]` and statuses `[B]` of B byte strings, by an endpoint's name."""

    def encode_images(self, items: Sequence[str | Path | bytes]) -> np.ndarray:
        """Embeds images.

        Args:
            items: N files, or the bytes of JPEG or PNG files.

        Returns:
            Float32 `[N, D]`, of unit length.

        Raises:
            UserError: a file that cannot be read, or is no image.
        """
        vectors, codes = self.images(items)
        check_images(codes, items)
        return vectors

    def encode_texts(self, sentences: Sequence[str]) -> np.ndarray:
        """Embeds sentences.

        Args:
            sentences: N sentences.

        Returns:
            Float32 `[N, D]`, of unit length.

        Raises:
            UserError: a sentence that is empty, or has no word of the vocabulary.
        """
        vectors, codes = self.texts(sentences)
        check_texts(codes, sentences)
        return vectors

    def images(self, items: Sequence[str | Path | bytes]) -> Answer:
        """Embeds images, and says which could not be.

        Args:
            items: N files, or the bytes of JPEG or PNG files.

        Returns:
            Float32 `[N, D]`, all zeros where the status int32 `[N]` is not
            `tf_dpce.preprocessing.status.OK`.

        Raises:
            UserError: a file that cannot be read.
        """
        return self._all("encode_image", image_contents(items))

    def texts(self, sentences: Sequence[str]) -> Answer:
        """Embeds sentences, and says which could not be.

        Args:
            sentences: N sentences.

        Returns:
            Float32 `[N, D]`, all zeros where the status int32 `[N]` is not
            `tf_dpce.preprocessing.status.OK`.
        """
        return self._all("encode_text", text_contents(sentences))

    def _all(self, endpoint: str, contents: Iterable[bytes]) -> Answer:
        batches = Batches(contents, self.limits)
        answers = [self._embed(endpoint, batch) for batch in batches]
        if not answers:
            return empty_answer(self.dimension)
        return batches.join(answers)


class Batches:
    """Cuts contents into batches, and joins the answers to them.

    Args:
        contents: N byte strings, read as the batches are asked for.
        limits: how much a batch holds.

    Example:
        >>> batches = Batches([b"a", b"b", b"c"], Limits(items=2))
        >>> list(batches)
        [[b'a', b'b'], [b'c']]
    """

    def __init__(self, contents: Iterable[bytes], limits: Limits) -> None:
        self._contents = contents
        self._limits = limits
        self._too_large: list[bool] = []

    def __iter__(self) -> Iterator[list[bytes]]:
        batch, size = [], 0
        for content in self._contents:
            self._too_large.append(len(content) > self._limits.item_bytes)
            if self._too_large[-1]:
                # An empty string holds the row; its embedding is all zeros, too.
                content = b""
            cost = len(content) + _ITEM_COST
            full = len(batch) == self._limits.items or size + cost > self._limits.batch_bytes
            if batch and full:
                yield batch
                batch, size = [], 0
            batch.append(content)
            size += cost
        if batch:
            yield batch

    def join(self, answers: Sequence[Answer]) -> Answer:
        """Returns embeddings `[N, D]` and statuses `[N]` of the answers to all batches, in order.

        Contents above the limit of an item get the status `TOO_MANY_BYTES`.
        """
        embeddings, statuses = map(np.concatenate, zip(*answers, strict=True))
        statuses[np.flatnonzero(self._too_large)] = status.TOO_MANY_BYTES
        return embeddings, statuses


def empty_answer(dimension: int) -> Answer:
    """Returns the answer to no contents at all: float32 `[0, D]` and int32 `[0]`."""
    return np.empty((0, dimension), np.float32), np.empty(0, np.int32)


def image_contents(items: Sequence[str | Path | bytes]) -> Iterator[bytes]:
    """Returns the bytes of images, each file read when it is asked for.

    Raises:
        UserError: a file cannot be read.
    """
    return map(_content, _listed(items))


def text_contents(captions: Sequence[str]) -> Iterator[bytes]:
    """Returns captions in UTF-8."""
    return (text.encode(errors="replace") for text in _listed(captions))


def check_images(statuses: np.ndarray, items: Sequence[str | Path | bytes]) -> None:
    """Refuses images that could not be encoded.

    Raises:
        UserError: an image has another status than OK.
    """
    _refuse(statuses, lambda row: _name_image(items[row], row))


def check_texts(statuses: np.ndarray, captions: Sequence[str]) -> None:
    """Refuses captions that could not be encoded.

    Raises:
        UserError: a caption has another status than OK.
    """
    _refuse(statuses, lambda row: f"sentence {row + 1}, {captions[row][:_LONGEST_QUOTE]!r}")


def _listed(items: Sequence) -> Sequence:
    if isinstance(items, (str, bytes, Path)):
        raise TypeError(f"A list is expected, of one item at least. Received: {type(items)}")
    return items


def _content(item: str | Path | bytes) -> bytes:
    if isinstance(item, bytes):
        return item
    try:
        return Path(item).read_bytes()
    except OSError as error:
        raise UserError(f"{item} cannot be read: {error.strerror}") from None


def _name_image(item: str | Path | bytes, row: int) -> str:
    return f"image {row + 1}" if isinstance(item, bytes) else str(item)


def _refuse(codes: np.ndarray, name: Callable[[int], str]) -> None:
    bad = np.flatnonzero(codes != status.OK)
    if len(bad):
        others = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise UserError(f"{name(bad[0])}: {status.REASONS[codes[bad[0]]]}{others}")
