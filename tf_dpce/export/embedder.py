"""Images and sentences in, vectors out: what a model in this process and one far off share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.preprocessing import status

_LONGEST_QUOTE = 80
_ITEM_COST = 16  # what an item adds to a request besides its bytes: a length, or brackets

Answer = tuple[np.ndarray, np.ndarray]


class Embedder(ABC):
    """Embeds images and sentences in batches.

    Args:
        batch_items: the most items of a batch.
        batch_bytes: the most bytes of a batch of several items.
        item_bytes: items of more bytes are not embedded; their status is `TOO_MANY_BYTES`.
    """

    def __init__(
        self, batch_items: int, batch_bytes: float = math.inf, item_bytes: float = math.inf
    ) -> None:
        self._batch_items = batch_items
        self._batch_bytes = batch_bytes
        self._item_bytes = item_bytes

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
        _refuse(codes, lambda row: _name_image(items[row], row))
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
        _refuse(codes, lambda row: f"sentence {row + 1}, {sentences[row][:_LONGEST_QUOTE]!r}")
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
        return self._all("encode_image", map(_content, _listed(items)))

    def texts(self, sentences: Sequence[str]) -> Answer:
        """Embeds sentences, and says which could not be.

        Args:
            sentences: N sentences.

        Returns:
            Float32 `[N, D]`, all zeros where the status int32 `[N]` is not
            `tf_dpce.preprocessing.status.OK`.
        """
        contents = (text.encode(errors="replace") for text in _listed(sentences))
        return self._all("encode_text", contents)

    def _all(self, endpoint: str, contents: Iterable[bytes]) -> Answer:
        too_large = []

        def embeddable() -> Iterator[bytes]:
            for content in contents:
                too_large.append(len(content) > self._item_bytes)
                # One of no bytes holds its row: a vector of zeros as well.
                yield b"" if too_large[-1] else content

        answers = [self._embed(endpoint, batch) for batch in self._batches(embeddable())]
        if not answers:
            return np.empty((0, self.dimension), np.float32), np.empty(0, np.int32)
        vectors, codes = map(np.concatenate, zip(*answers, strict=True))
        codes[np.flatnonzero(too_large)] = status.TOO_MANY_BYTES
        return vectors, codes

    def _batches(self, contents: Iterable[bytes]) -> Iterator[list[bytes]]:
        batch, size = [], 0
        for content in contents:
            cost = len(content) + _ITEM_COST
            if batch and (len(batch) == self._batch_items or size + cost > self._batch_bytes):
                yield batch
                batch, size = [], 0
            batch.append(content)
            size += cost
        if batch:
            yield batch


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
