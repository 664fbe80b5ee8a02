"""A model on a server, used like one in this process.

REST needs numpy and the standard library. gRPC is faster with images, but its protocol code
comes with TensorFlow, which takes seconds to import.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import numpy as np

from tf_dpce.errors import UserError
from tf_dpce.export.embedder import Answer, Embedder
from tf_dpce.serving.errors import Refused, ServingError
from tf_dpce.serving.rest_transport import RestTransport
from tf_dpce.serving.target import Target

_BATCH = 32
_BATCH_BYTES = 16 * 2**20
_CONNECTIONS = 8
_FIRST_WAIT = 0.1
_LONGEST_TIMEOUT = 86_400

Result = TypeVar("Result")


class Transport(Protocol):
    """A way to a server.

    Attributes:
        item_bytes: the most that an item may have.
    """

    item_bytes: int

    def predict(
        self, endpoint: str, contents: Sequence[bytes], timeout: float
    ) -> Mapping[str, np.ndarray]:
        """Returns the outputs of an endpoint by name."""

    def close(self) -> None:
        """Gives the connections up."""


class Client(Embedder):
    """Embeds images and sentences by a model server, TF Serving or the development server.

    Threads may share a client.

    Args:
        address: "http://HOST:8501" or "https://..." for REST, "grpc://HOST:8500" or "grpcs://..."
            for gRPC without or with TLS.
        model: its name on the server.
        version: which of its versions; None leaves that to the server, which takes the largest.
        label: "stable", "canary" or another label, instead of a version.
        timeout: seconds for a request, with all its repetitions. Over REST, the search for the
            address of a host that has a name is not counted.
        retries: how often a request is repeated, after growing waits, where nobody accepted the
            connection or, over REST, the model server itself answers 503. Nothing else is sent
            twice, since it may have been done, or be what stopped the server; but over REST once
            more, at once, what ended a connection that had answered before: most often the server
            was closing it.
        headers: sent with every request, for what stands in front of the server.
        batch: the most items of a request.

    Raises:
        UserError: the address is none, or a number is out of its range.

    Example:
        >>> with Client("http://localhost:8501", "flickr8k") as client:
        ...     vectors = client.encode_texts(["two dogs run on the beach"])
    """

    def __init__(
        self,
        address: str,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        timeout: float = 30.0,
        retries: int = 3,
        headers: Mapping[str, str] | None = None,
        batch: int = _BATCH,
    ) -> None:
        if version is not None and label is not None:
            raise UserError("a request has a version or a label, not both: leave one out")
        if not (batch >= 1 and retries >= 0 and 0 < timeout <= _LONGEST_TIMEOUT):
            raise UserError(
                f"batch={batch}, retries={retries}, timeout={timeout}: expected is a batch of 1 "
                f"or more, 0 retries or more, and above 0 to {_LONGEST_TIMEOUT} seconds"
            )
        target = Target(address, model, version, label, dict(headers or {}))
        self._transport = _transport(target)
        super().__init__(batch, _BATCH_BYTES, self._transport.item_bytes)
        self._timeout = timeout
        self._retries = retries
        self._draws = random.Random()
        self._dimension: int | None = None

    @property
    def dimension(self) -> int:
        """The numbers of a vector, D, of which any answer tells.

        Raises:
            ServingError: the server did not answer.
        """
        if self._dimension is None:
            # A gateway may let nothing but predictions through.
            self._embed("encode_text", [b""])
        return self._dimension

    def close(self) -> None:
        """Gives the connections up."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _embed(self, endpoint: str, contents: Sequence[bytes]) -> Answer:
        outputs = self._predict(endpoint, contents)
        try:
            vectors = np.asarray(outputs["embedding"], np.float32)
            codes = np.asarray(outputs["status"], np.int32)
        except (KeyError, TypeError, ValueError):
            vectors = codes = np.empty(0)
        if vectors.ndim != 2 or not (len(vectors),) == codes.shape == (len(contents),):
            raise ServingError("INTERNAL", f"the answer to {endpoint} is not that of an export")
        self._dimension = vectors.shape[1]
        return vectors, codes

    def _predict(self, endpoint: str, contents: Sequence[bytes]) -> Mapping[str, np.ndarray]:
        """Sends a request until somebody takes it, or the patience ends."""
        end = time.monotonic() + self._timeout
        for attempt in count():
            try:
                left = max(end - time.monotonic(), 1e-3)
                return self._transport.predict(endpoint, contents, left)
            except Refused:
                # A random share keeps many clients from coming back at the same moment.
                wait = _FIRST_WAIT * 2**attempt * self._draws.uniform(0.5, 1)
                if attempt == self._retries or time.monotonic() + wait >= end:
                    raise
                time.sleep(wait)


class AsyncClient:
    """The same for asyncio: what `Client` has, to be awaited.

    Args:
        address: see `Client`.
        model: see `Client`.
        connections: requests that are under way at a time; further ones wait.
        **options: see `Client`.

    Example:
        >>> async with AsyncClient("http://localhost:8501", "flickr8k") as client:
        ...     one, other = await asyncio.gather(
        ...         client.encode_texts(["two dogs"]), client.encode_images(["dog.jpg"])
        ...     )
    """

    def __init__(
        self, address: str, model: str, *, connections: int = _CONNECTIONS, **options: Any
    ) -> None:
        self._client = Client(address, model, **options)
        self._threads = ThreadPoolExecutor(connections)

    async def encode_images(self, items: Sequence[str | Path | bytes]) -> np.ndarray:
        """See `Client.encode_images`."""
        return await self._run(self._client.encode_images, items)

    async def encode_texts(self, sentences: Sequence[str]) -> np.ndarray:
        """See `Client.encode_texts`."""
        return await self._run(self._client.encode_texts, sentences)

    async def images(self, items: Sequence[str | Path | bytes]) -> Answer:
        """See `Client.images`."""
        return await self._run(self._client.images, items)

    async def texts(self, sentences: Sequence[str]) -> Answer:
        """See `Client.texts`."""
        return await self._run(self._client.texts, sentences)

    async def close(self) -> None:
        """Waits for what is under way, then gives the connections up."""
        await asyncio.to_thread(self._threads.shutdown)
        self._client.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def _run(self, work: Callable[[Sequence], Result], items: Sequence) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, items)


def _transport(target: Target) -> Transport:
    try:
        parts = urlsplit(target.address)
        scheme = parts.scheme if parts.hostname and parts.port != 0 else ""
    except ValueError:  # a port beyond 65535, a bracket that is not closed
        scheme = ""
    if scheme in ("http", "https"):
        return RestTransport(target)
    if scheme in ("grpc", "grpcs"):
        # Here, so that REST needs no TensorFlow.
        from tf_dpce.serving.grpc_transport import GrpcTransport

        return GrpcTransport(target)
    raise UserError(
        f"{target.address} is no address of a model server: "
        "write http://HOST:8501 for REST or grpc://HOST:8500 for gRPC"
    )
