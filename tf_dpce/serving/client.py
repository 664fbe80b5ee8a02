"""A model on a server, used like one in this process.

REST needs NumPy and httpx. gRPC is faster with images, but its protocol code comes with TensorFlow,
which takes seconds to import.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from tf_dpce.errors import UserError, shorten
from tf_dpce.export.batches import Answer
from tf_dpce.export.encoder import Encoder, Kind
from tf_dpce.serving.async_client import AsyncClient


class Client(AbstractContextManager, Encoder):
    """Embeds images and captions with a model server, TF Serving or the development server.

    Threads may share a client.

    Args:
        address: "http://HOST:8501" or "https://..." for REST, "grpc://HOST:8500" or "grpcs://..."
            for gRPC without or with TLS.
        model: the name of the model on the server.
        version: the number of a version; None lets the server use the largest one.
        label: "stable", "canary" or another label, instead of a version.
        timeout: the seconds that a request may take with all its retries, 30 by default.
        retries: the largest number of retries, 3 by default, with growing pauses. The client
            retries if no server accepts the connection or, over REST, if the model server itself
            answers 503. If TF Serving says that it is busy (all threads of gRPC, or a full queue),
            the client retries until the time is up. It does not retry otherwise, because the server
            may have computed the request, or the request may have stopped the server. Over REST, if
            a connection is lost that had answered before, the request is sent once more at once,
            because servers close idle connections.
        headers: HTTP headers of every request, for a gateway in front of the server.
        batch: the largest number of items in a request, 32 by default.
        connections: the largest number of simultaneous requests, 8 by default; further ones wait.

    Raises:
        UserError: the address is invalid, or a number is out of its range.

    Example:
        >>> with Client("http://localhost:8501", "flickr8k") as client:
        ...     embeddings = client.encode_texts(["two dogs run on the beach"])
    """

    # Only asyncio can end a request as a whole when its time is up: a timeout of blocking sockets
    # begins anew with every piece that arrives. Hence an event loop in a thread.

    def __init__(self, address: str, model: str, **options: Any) -> None:
        self._client = AsyncClient(address, model, **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    @classmethod
    def at(cls, address: str) -> Client:
        """Returns the client of a model by one text, such as a command line has.

        Args:
            address: ADDRESS#MODEL.

        Raises:
            UserError: the address is invalid, or names no model.

        Example:
            >>> client = Client.at("http://localhost:8501#flickr8k")
        """
        server, _, model = address.partition("#")
        if not model:
            message = f"{shorten(address)} names no model: write http://HOST:8501#MODEL"
            raise UserError("client.address", message)
        return cls(server, model)

    @property
    def dimension(self) -> int:
        """The width D of an embedding.

        Raises:
            ServingError: the server did not answer.
        """
        return self._run(self._client.dimension())

    def encode_with_status(self, kind: Kind, items: Sequence[str | Path | bytes]) -> Answer:
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
        return self._run(self._client.encode_with_status(kind, items))

    def count_inferred(self, captions: Sequence[str]) -> np.ndarray:
        """Returns how many words of each caption are understood by their word vectors alone.

        Args:
            captions: a list of N captions.

        Returns:
            int32 `[N]`, zeros if the model was exported without such words.

        Raises:
            ServingError: the server did not answer.
        """
        return self._run(self._client.count_inferred(captions))

    def close(self) -> None:
        """Closes the connections; the client cannot be used again."""
        if self._thread.is_alive():
            self._run(self._client.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self, coroutine: Coroutine) -> Any:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise
