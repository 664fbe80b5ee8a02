"""Requests to a model server over REST, by the standard library alone."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from queue import Empty, LifoQueue
from select import POLLIN, poll
from socket import socket
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from tf_dpce.serving import errors
from tf_dpce.serving.errors import ServingError
from tf_dpce.serving.target import Target

_LONGEST_QUOTE = 200


class RestTransport:
    """A way to a model over REST, with connections that are used again.

    Args:
        target: the model; a path in its address stands before `/v1`.
    """

    def __init__(self, target: Target) -> None:
        parts = urlsplit(target.address)
        self._kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._place = (parts.hostname, parts.port)
        self._address = target.address
        self._headers = {"Content-Type": "application/json", **target.headers}
        self._idle: LifoQueue[HTTPConnection] = LifoQueue()
        self._path = f"{parts.path.rstrip('/')}/v1/models/{quote(target.model, safe='')}"
        if target.version is not None:
            self._path += f"/versions/{target.version}"
        if target.label is not None:
            self._path += f"/labels/{quote(target.label, safe='')}"

    def predict(
        self, endpoint: str, contents: Sequence[bytes], timeout: float
    ) -> Mapping[str, np.ndarray]:
        """Returns the outputs of an endpoint by name.

        Raises:
            ServingError: the server is away, or answers an error.
        """
        rows = [{"b64": base64.b64encode(content).decode()} for content in contents]
        body = json.dumps({"signature_name": endpoint, "inputs": rows}).encode()
        return self._ask("POST", f"{self._path}:predict", body, timeout, "outputs")

    def dimension(self, timeout: float) -> int:
        """Returns the width of the embeddings.

        Raises:
            ServingError: the server is away, or answers an error.
        """
        metadata = self._ask("GET", f"{self._path}/metadata", None, timeout, "metadata")
        try:
            signature = metadata["signature_def"]["signature_def"]["encode_text"]
            return int(signature["outputs"]["embedding"]["tensor_shape"]["dim"][1]["size"])
        except (KeyError, IndexError, TypeError):
            raise ServingError("INTERNAL", "the model has no endpoint encode_text") from None

    def close(self) -> None:
        """Closes the connections that are idle."""
        while (connection := self._take()) is not None:
            connection.close()

    def _ask(self, method: str, path: str, body: bytes | None, timeout: float, key: str) -> Any:
        connection = self._take() or self._kind(*self._place)
        try:
            status, content = self._send(connection, method, path, body, timeout)
        except BaseException:
            connection.close()
            raise
        self._idle.put(connection)
        answer = _parse(content)
        if status == 200 and isinstance(answer, dict) and key in answer:
            return answer[key]
        message = answer["error"] if isinstance(answer, dict) and "error" in answer else None
        quoted = content[:_LONGEST_QUOTE].decode(errors="replace").strip()
        if status == 200:
            raise ServingError("INTERNAL", f"no model server answered, but: {quoted!r}")
        raise errors.of_http(status, message or f"HTTP status {status}: {quoted!r}")

    def _send(
        self,
        connection: HTTPConnection,
        method: str,
        path: str,
        body: bytes | None,
        timeout: float,
    ) -> tuple[int, bytes]:
        connection.timeout = timeout
        if connection.sock:
            connection.sock.settimeout(timeout)
        try:
            connection.request(method, path, body, self._headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except TimeoutError:
            message = f"{self._address} did not answer in time"
            raise ServingError("DEADLINE_EXCEEDED", message) from None
        except (OSError, HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ServingError("UNAVAILABLE", f"{self._address}: {reason}") from None

    def _take(self) -> HTTPConnection | None:
        """Returns an idle connection that is still open, or None."""
        while True:
            try:
                connection = self._idle.get_nowait()
            except Empty:
                return None
            if connection.sock and not _readable(connection.sock):
                return connection
            connection.close()


def _readable(idle: socket) -> bool:
    """Tells whether there is something to read where nothing was asked: the server hung up."""
    waiting = poll()
    waiting.register(idle, POLLIN)
    return bool(waiting.poll(0))


def _parse(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None
