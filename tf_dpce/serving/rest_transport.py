"""Requests to a model server over REST."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np

from tf_dpce.errors import shorten
from tf_dpce.serving.endpoint import MAX_ITEM_BYTES, Endpoint
from tf_dpce.serving.errors import Refused, ServingError, answered_error, http_status_name

_OPENS = "connection.connect_tcp.started"
_ANSWERS = "http11.receive_response_headers.complete"


class RestTransport:
    """Asks a model over REST, and uses connections again.

    Args:
        endpoint: the model; a path in its address stands before `/v1`.

    Attributes:
        max_item_bytes: largest size of an item.
    """

    max_item_bytes = MAX_ITEM_BYTES * 3 // 4  # base64 makes four bytes of three

    def __init__(self, endpoint: Endpoint) -> None:
        self._address = endpoint.address
        url = endpoint.url
        path = f"{url.path.rstrip('/')}/v1/models/{quote(endpoint.model, safe='')}"
        if endpoint.version is not None:
            path += f"/versions/{endpoint.version}"
        if endpoint.label is not None:
            path += f"/labels/{quote(endpoint.label, safe='')}"
        self._url = f"{url.scheme}://{url.netloc}{path}:predict"
        self._http = httpx.AsyncClient(
            headers={"Content-Type": "application/json", **(endpoint.headers or {})},
            # Authorities that this machine trusts. Without TLS, loading them is time for nothing.
            verify=ssl.create_default_context() if url.scheme == "https" else False,
            # A model server is not asked through the proxy that the environment names.
            trust_env=False,
            timeout=None,
            limits=httpx.Limits(),
        )

    async def predict(
        self, signature: str, contents: Sequence[bytes], timeout: float
    ) -> Mapping[str, np.ndarray]:
        """Returns the outputs of a signature by name.

        Raises:
            ServingError: the server is away, answers an error, or not within `timeout` seconds.
        """
        rows = [{"b64": base64.b64encode(content).decode()} for content in contents]
        body = json.dumps({"signature_name": signature, "inputs": rows}).encode()
        try:
            # httpx's own timeouts begin anew with every piece that arrives.
            async with asyncio.timeout(timeout):
                answer = await self._post(body)
        except TimeoutError:
            message = f"{self._address} did not answer in time"
            raise ServingError("DEADLINE_EXCEEDED", message) from None
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise self._unavailable(error) from None
        return self._outputs(answer)

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def _post(self, body: bytes) -> httpx.Response:
        events = set()

        async def trace(event: str, details: Mapping[str, Any]) -> None:
            events.add(event)

        try:
            return await self._http.post(self._url, content=body, extensions={"trace": trace})
        except (httpx.NetworkError, httpx.RemoteProtocolError):
            if _OPENS in events or _ANSWERS in events:
                raise
            # A connection that had answered before broke off. Most often the server was closing
            # it while the request was on its way, so that nobody read it.
            return await self._http.post(self._url, content=body)

    def _unavailable(self, error: Exception) -> ServingError:
        cause = error
        while inner := cause.__cause__ or cause.__context__:
            cause = inner
        # A name that nobody knows, or TLS that fails, will be the same next time.
        lasting = isinstance(cause, (socket.gaierror, ssl.SSLError))
        refused = isinstance(error, httpx.ConnectError) and not lasting
        reason = str(cause) or type(cause).__name__
        # The parser of HTTP calls illegal what is none, and quotes it.
        if isinstance(error, httpx.RemoteProtocolError) and reason.startswith("illegal"):
            reason = "it answers no HTTP: is this the gRPC port?"
        message = f"{self._address}: {shorten(reason)}"
        return (Refused if refused else ServingError)("UNAVAILABLE", message)

    def _outputs(self, answer: httpx.Response) -> Mapping[str, Any]:
        try:
            content = json.loads(answer.content)
        except (ValueError, RecursionError):
            content = {}
        if not isinstance(content, dict):
            content = {}
        if answer.status_code == HTTPStatus.OK and "outputs" in content:
            return content["outputs"]
        if answer.status_code == HTTPStatus.OK:
            raise ServingError("INTERNAL", f"{self._address} answers, but is no model server")
        status = http_status_name(answer.status_code)
        if not content.get("error"):
            raise ServingError(status, f"{self._address} answers HTTP status {answer.status_code}")
        error = answered_error(status, str(content["error"]))
        if answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE and not isinstance(error, Refused):
            # The server's own words, so it lives. A gateway's 502 or 503 may mean that it died.
            error = Refused(status, error.detail)
        raise error
