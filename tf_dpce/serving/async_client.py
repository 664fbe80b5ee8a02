"""A model on a server, used like one in this process, by coroutines."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from tf_dpce.export.batches import Answer, Batches, counts_inferred
from tf_dpce.export.encoder import ENDPOINT_OF, Kind, all_usable, contents_of
from tf_dpce.serving.endpoint import Endpoint
from tf_dpce.serving.errors import Busy, Refused, ServingError
from tf_dpce.serving.rest_transport import RestTransport

_BATCH_BYTES = 16 * 2**20
_FIRST_WAIT = 0.1
_DOUBLINGS = 5


class AsyncClient(AbstractAsyncContextManager):
    """Embeds images and captions with a model server; its methods are coroutines.

    Args:
        address: see `Client`.
        model: see `Client`.
        **options: see `Client`.

    Raises:
        UserError: see `Client`.

    Example:
        >>> async def encode():
        ...     async with AsyncClient("http://localhost:8501", "flickr8k") as client:
        ...         return await asyncio.gather(
        ...             client.encode_texts(["two dogs"]), client.encode_images(["dog.jpg"])
        ...         )
        >>> texts, images = asyncio.run(encode())
    """

    def __init__(self, address: str, model: str, **options: Any) -> None:
        self._endpoint = Endpoint(address, model, **options)
        self._transport = _transport(self._endpoint)
        self._slots = asyncio.Semaphore(self._endpoint.connections)
        self._dimension: int | None = None

    async def encode_images(self, items: Sequence[str | Path | bytes]) -> np.ndarray:
        """Embeds images.

        Args:
            items: a list of N paths, or of the bytes of files, of images.

        Returns:
            Float32 `[N, D]`, rows of unit length.

        Raises:
            UserError: a file cannot be read, or is no image that can be encoded.
            ServingError: the server did not answer.
        """
        return all_usable("images", items, await self.encode_with_status("images", items))

    async def encode_texts(self, captions: Sequence[str]) -> np.ndarray:
        """Embeds captions.

        Args:
            captions: a list of N captions or text queries.

        Returns:
            Float32 `[N, D]`, rows of unit length.

        Raises:
            UserError: a caption is empty or too long, or has no word of the vocabulary.
            ServingError: the server did not answer.
        """
        return all_usable("texts", captions, await self.encode_with_status("texts", captions))

    async def encode_with_status(self, kind: Kind, items: Sequence[str | Path | bytes]) -> Answer:
        """Embeds images or captions, and returns a status for each row instead of an error.

        Args:
            kind: "images" or "texts".
            items: a list of N paths or bytes of images, or of N captions.

        Returns:
            Embeddings, float32 `[N, D]`, and statuses, int32 `[N]`; see `Encoder`.

        Raises:
            UserError: a file cannot be read.
            ServingError: the server did not answer, or not as an export does.
        """
        batches = self._batches(kind, items)
        answers, rest = [], iter(batches)
        # In a thread, because it reads files.
        while batch := await asyncio.to_thread(next, rest, None):
            async with self._slots:
                answers.append(await self._embed(ENDPOINT_OF[kind], batch))
        return batches.join(answers, await self.dimension())

    async def count_inferred(self, captions: Sequence[str]) -> np.ndarray:
        """Returns how many words of each caption are understood by their word vectors alone.

        Args:
            captions: a list of N captions.

        Returns:
            int32 `[N]`, zeros if the model was exported without such words.

        Raises:
            ServingError: the server did not answer.
        """
        batches = self._batches("texts", captions)
        return counts_inferred(
            [(await self._predict("encode_text", batch), len(batch)) for batch in batches]
        )

    async def dimension(self) -> int:
        """Returns D, the width of an embedding.

        Raises:
            ServingError: the server did not answer.
        """
        if self._dimension is None:
            # A prediction shows it. A gateway may let no other request through.
            await self._embed("encode_text", [b""])
        return self._dimension

    async def close(self) -> None:
        """Closes the connections."""
        await self._transport.close()

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def _batches(self, kind: Kind, items: Sequence[str | Path | bytes]) -> Batches:
        return Batches(
            contents_of(kind, items),
            self._endpoint.batch,
            _BATCH_BYTES,
            self._transport.max_item_bytes,
        )

    async def _embed(self, signature: str, contents: Sequence[bytes]) -> Answer:
        """Returns embeddings `[B, D]` and statuses `[B]` of B byte strings."""
        outputs = await self._predict(signature, contents)
        try:
            embeddings = np.asarray(outputs["embedding"], np.float32)
            statuses = np.asarray(outputs["status"], np.int32)
        except (KeyError, TypeError, ValueError):
            embeddings = statuses = np.empty(0)
        if embeddings.ndim != 2 or not (len(embeddings),) == statuses.shape == (len(contents),):
            raise ServingError("INTERNAL", f"the answer to {signature} is not that of an export")
        self._dimension = embeddings.shape[1]
        return embeddings, statuses

    async def _predict(self, signature: str, contents: Sequence[bytes]) -> Mapping[str, Any]:
        end = time.monotonic() + self._endpoint.timeout
        for attempt in count():
            try:
                left = max(end - time.monotonic(), 1e-3)
                return await self._transport.predict(signature, contents, left)
            except Refused as error:
                # A busy server answers soon, so only the time limits how often it is asked.
                last = attempt >= self._endpoint.retries and not isinstance(error, Busy)
                # A random share keeps many clients from coming back at the same moment.
                wait = _FIRST_WAIT * 2 ** min(attempt, _DOUBLINGS) * random.Random().uniform(0.5, 1)
                if last or time.monotonic() + wait >= end:
                    raise
                await asyncio.sleep(wait)


def _transport(endpoint: Endpoint) -> Any:
    if endpoint.url.scheme in ("http", "https"):
        return RestTransport(endpoint)
    # Imported here, so that REST needs no TensorFlow.
    from tf_dpce.serving.grpc_transport import GrpcTransport

    return GrpcTransport(endpoint)
