"""Requests to a model server over REST, by the standard library alone."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from http.client import HTTPException
from queue import Empty, LifoQueue
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from tf_dpce.serving import errors
from tf_dpce.serving.connection import Connection, Deadline, tls_context
from tf_dpce.serving.errors import Refused, ServingError
from tf_dpce.serving.target import ITEM_BYTES, Target

_LONGEST_QUOTE = 200


class RestTransport:
    """A way to a model over REST, with connections that are used again.

    Args:
        target: the model; a path in its address stands before `/v1`.

    Attributes:
        item_bytes: the most that an item may have.
    """

    item_bytes = ITEM_BYTES * 3 // 4  # in base64, four thirds of its bytes are sent

    def __init__(self, target: Target) -> None:
        parts = urlsplit(target.address)
        self._place = (parts.hostname, parts.port)
        self._tls = tls_context() if parts.scheme == "https" else None
        self._address = target.address
        self._headers = {"Content-Type": "application/json", **target.headers}
        self._idle: LifoQueue[Connection] = LifoQueue()
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
        deadline = Deadline(timeout)
        rows = [{"b64": base64.b64encode(content).decode()} for content in contents]
        body = json.dumps({"signature_name": endpoint, "inputs": rows}).encode()
        status, content = self._send(f"{self._path}:predict", body, deadline)
        answer = _parse(content)
        if status == HTTPStatus.OK and "outputs" in answer:
            return answer["outputs"]
        quoted = content[:_LONGEST_QUOTE].decode(errors="replace").strip()
        if status == HTTPStatus.OK:
            raise ServingError("INTERNAL", f"no model server answered, but: {quoted!r}")
        if status == HTTPStatus.SERVICE_UNAVAILABLE and "error" in answer:
            # Its own words: it lives. A gateway's 502 or 503 may be the sign that it died of this.
            raise Refused("UNAVAILABLE", answer["error"])
        raise errors.of_http(status, answer.get("error") or f"HTTP status {status}: {quoted!r}")

    def close(self) -> None:
        """Closes the connections that are idle."""
        while (connection := self._take()) is not None:
            connection.close()

    def _send(self, path: str, body: bytes, deadline: Deadline) -> tuple[int, bytes]:
        try:
            connection, answer = self._post(path, body, deadline)
        except TimeoutError:
            message = f"{self._address} did not answer in time"
            raise ServingError("DEADLINE_EXCEEDED", message) from None
        except Refused as error:
            raise Refused(error.code, f"{self._address}: {error.message}") from None
        except (OSError, HTTPException, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ServingError("UNAVAILABLE", f"{self._address}: {reason}") from None
        self._idle.put(connection)
        return answer

    def _post(
        self, path: str, body: bytes, deadline: Deadline
    ) -> tuple[Connection, tuple[int, bytes]]:
        if (kept := self._take()) is not None:
            try:
                return kept, kept.post(path, body, self._headers, deadline)
            except ConnectionError:
                # Most often the server's farewell crossed the request, which nobody read. Where it
                # was read, a request more is all that it costs: the second one finds out.
                pass
        fresh = Connection(*self._place, self._tls)
        return fresh, fresh.post(path, body, self._headers, deadline)

    def _take(self) -> Connection | None:
        """Returns an idle connection that is still open, or None."""
        while True:
            try:
                connection = self._idle.get_nowait()
            except Empty:
                return None
            if connection.is_quiet():
                return connection
            connection.close()


def _parse(content: bytes) -> dict[str, Any]:
    """Returns the object of an answer's body, an empty one where there is none."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}
