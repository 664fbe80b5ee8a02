"""A model on a server, used like one in this process.

REST needs NumPy and httpx. gRPC is faster with images, but its protocol code comes with TensorFlow,
which takes seconds to import.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tf_dpce.export.encoder import (
    ENDPOINT_OF,
    Answer,
    Batches,
    Encoder,
    Kind,
    Limits,
    check_statuses,
    contents_of,
    empty_answer,
)
from tf_dpce.serving.endpoint import BATCH, RETRIES, TIMEOUT, Endpoint
from tf_dpce.serving.errors import Refused, ServingError
from tf_dpce.serving.rest_transport import RestTransport

_BATCH_BYTES = 16 * 2**20
_CONNECTIONS = 8
_FIRST_WAIT = 0.1

Result = TypeVar("Result")


class Client(Encoder):
    """Embeds images and captions by a model server, TF Serving or the development server.

    Threads may share a client.

    Args:
        address: "http://HOST:8501" or "https://..." for REST, "grpc://HOST:8500" or "grpcs://..."
            for gRPC without or with TLS.
        model: its name on the server.
        version: number of a version; None leaves the choice to the server, which takes the largest.
        label: "stable", "canary" or another label, instead of a version.
        timeout: seconds for a request, all its repetitions included.
        retries: how often a request is repeated, after growing waits, if nobody accepted the
            connection or, over REST, the model server itself answers 503. Nothing else is sent
            twice, since it may have been computed, or be what stopped the server. Over REST, what
            ended a connection that had answered before is sent once more, at once: most often the
            server was closing it.
        headers: sent with every request, for a gateway in front of the server.
        batch: largest number of items of a request.

    Raises:
        UserError: the address is none, or a number is out of its range.

    Example:
        >>> with Client("http://localhost:8501", "flickr8k") as client:
        ...     embeddings = client.encode_texts(["two dogs run on the beach"])
    """

    def __init__(
        self,
        address: str,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
        headers: Mapping[str, str] | None = None,
        batch: int = BATCH,
    ) -> None:
        self._requests = _Requests(
            Endpoint(address, model, version, label, timeout, retries, headers, batch)
        )
        super().__init__(self._requests.limits)
        self._loop = _LoopThread()

    @property
    def dimension(self) -> int:
        """The width D of an embedding.

        Raises:
            ServingError: the server did not answer.
        """
        return self._loop.run(self._requests.dimension())

    def close(self) -> None:
        """Closes the connections; the client cannot be used again."""
        self._loop.close(self._requests.transport.close)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _embed(self, endpoint: str, contents: Sequence[bytes]) -> Answer:
        return self._loop.run(self._requests.embed(endpoint, contents))


class AsyncClient:
    """The same for asyncio: the methods of `Client`, to be awaited.

    Args:
        address: see `Client`.
        model: see `Client`.
        connections: largest number of requests that are under way at a time; further ones wait.
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

    def __init__(
        self, address: str, model: str, *, connections: int = _CONNECTIONS, **options: Any
    ) -> None:
        self._requests = _Requests(Endpoint(address, model, **options))
        self._slots = asyncio.Semaphore(connections)

    async def encode_images(self, items: Sequence[str | Path | bytes]) -> np.ndarray:
        """See `Client.encode_images`."""
        embeddings, statuses = await self.encode_with_status("images", items)
        check_statuses("images", statuses, items)
        return embeddings

    async def encode_texts(self, captions: Sequence[str]) -> np.ndarray:
        """See `Client.encode_texts`."""
        embeddings, statuses = await self.encode_with_status("texts", captions)
        check_statuses("texts", statuses, captions)
        return embeddings

    async def encode_with_status(self, kind: Kind, items: Sequence[str | Path | bytes]) -> Answer:
        """See `Client.encode_with_status`."""
        batches = Batches(contents_of(kind, items), self._requests.limits)
        answers, rest = [], iter(batches)
        # In a thread, because it reads files.
        while batch := await asyncio.to_thread(next, rest, None):
            async with self._slots:
                answers.append(await self._requests.embed(ENDPOINT_OF[kind], batch))
        if not answers:
            return empty_answer(await self._requests.dimension())
        return batches.join(answers)

    async def close(self) -> None:
        """Closes the connections."""
        await self._requests.transport.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


class _Requests:
    """What both clients send, and when they send it again."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.transport = _transport(endpoint)
        self.limits = Limits(endpoint.batch, _BATCH_BYTES, self.transport.max_item_bytes)
        self._timeout = endpoint.timeout
        self._retries = endpoint.retries
        self._random = random.Random()
        self._dimension: int | None = None

    async def dimension(self) -> int:
        """Returns the width D of an embedding."""
        if self._dimension is None:
            # A prediction shows it. A gateway may let no other request through.
            await self.embed("encode_text", [b""])
        return self._dimension

    async def embed(self, signature: str, contents: Sequence[bytes]) -> Answer:
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

    async def _predict(self, signature: str, contents: Sequence[bytes]) -> Mapping[str, np.ndarray]:
        end = time.monotonic() + self._timeout
        for attempt in count():
            try:
                left = max(end - time.monotonic(), 1e-3)
                return await self.transport.predict(signature, contents, left)
            except Refused:
                # A random share keeps many clients from coming back at the same moment.
                wait = _FIRST_WAIT * 2**attempt * self._random.uniform(0.5, 1)
                if attempt == self._retries or time.monotonic() + wait >= end:
                    raise
                await asyncio.sleep(wait)


class _LoopThread:
    """Runs coroutines for callers without an event loop.

    Only asyncio can end a request as a whole when its time is up. A timeout of blocking sockets
    begins anew with every piece that arrives.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Returns what a coroutine returns, or raises what it raises."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def close(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs a last coroutine, then ends the thread; nothing happens the second time."""
        if self._thread.is_alive():
            self.run(last())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


def _transport(endpoint: Endpoint) -> Any:
    if endpoint.url.scheme in ("http", "https"):
        return RestTransport(endpoint)
    # Imported here, so that REST needs no TensorFlow.
    from tf_dpce.serving.grpc_transport import GrpcTransport

    return GrpcTransport(endpoint)
