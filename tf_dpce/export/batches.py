"""Cuts what is to be embedded into batches, and joins the answers to them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tf_dpce.preprocessing import status

_BATCH = 64
_ITEM_COST = 16  # what an item adds to a request besides its bytes: a length, or brackets

Answer = tuple[np.ndarray, np.ndarray]


class Batches:
    """Cuts contents into batches, and joins the answers to them.

    Args:
        contents: N byte strings, read as the batches are asked for; a number instead of one is the
            status of an item that cannot be encoded.
        items: largest number of items of a batch.
        batch_bytes: largest number of bytes of several items together.
        item_bytes: largest number of bytes of an item. The status of a longer one is
            `TOO_MANY_BYTES`.

    Example:
        >>> batches = Batches([b"a", b"b", b"c"], items=2)
        >>> list(batches)
        [[b'a', b'b'], [b'c']]
    """

    def __init__(
        self,
        contents: Iterable[bytes | int],
        items: int = _BATCH,
        batch_bytes: float = math.inf,
        item_bytes: float = math.inf,
    ) -> None:
        self._contents = contents
        self._items, self._batch_bytes, self._item_bytes = items, batch_bytes, item_bytes
        self._codes: list[int] = []

    def __iter__(self) -> Iterator[list[bytes]]:
        batch, size = [], 0
        for content in self._contents:
            code = content if isinstance(content, int) else status.OK
            if not code and len(content) > self._item_bytes:
                code = status.TOO_MANY_BYTES
            self._codes.append(code)
            if code:
                # An empty string holds the row; its embedding is all zeros, too.
                content = b""
            cost = len(content) + _ITEM_COST
            if batch and (len(batch) == self._items or size + cost > self._batch_bytes):
                yield batch
                batch, size = [], 0
            batch.append(content)
            size += cost
        if batch:
            yield batch

    def join(self, answers: Sequence[Answer], dimension: int) -> Answer:
        """Returns embeddings `[N, D]` and statuses `[N]` of the answers to all batches, in order.

        What was not sent has the status that was known of it; `TOO_MANY_BYTES` if it was above the
        limit of an item.

        Args:
            answers: one for each batch; none if there are no contents.
            dimension: D.
        """
        nothing = np.empty((0, dimension), np.float32), np.empty(0, np.int32)
        embeddings, statuses = map(np.concatenate, zip(nothing, *answers, strict=True))
        known = np.array(self._codes, statuses.dtype)
        return embeddings, np.where(known == status.OK, statuses, known)


def counts_inferred(answers: Iterable[tuple[Mapping[str, Any], int]]) -> np.ndarray:
    """Returns `Encoder.count_inferred` of the outputs for batches and the sizes of these."""
    counts = [np.empty(0, np.int32)]
    for outputs, size in answers:
        counts.append(np.asarray(outputs.get("inferred", np.zeros(size)), np.int32))
    return np.concatenate(counts)
