"""Which requests the page lets in: few routes, small bodies, and no other site's scripts."""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tf_dpce.logging import logger
from tf_dpce.preprocessing.status import MAX_BYTES

LOOPBACK = ("127.0.0.1", "localhost", "::1")

# Of Gradio's own routes those that the page uses. Its routes for files, uploads and proxies, and
# those for programs, are not among them.
_ROUTES = {
    "GET": re.compile(
        r"/|/thumbnail|/favicon\.ico|/manifest\.json|/theme\.css|/robots\.txt|/config"
        r"|/(?:assets|static)/[\w./-]+|/gradio_api/(?:startup-events|app_id|heartbeat/\w+)"
    ),
    "POST": re.compile(r"/query-image|/gradio_api/run/predict"),
}
_LONGEST_CALL = 64 * 2**10
# Gradio builds its page by scripts and styles that stand in it, and by templates that become code.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class _Refused(Exception):
    def __init__(
        self, status: HTTPStatus, reason: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(reason)
        self.response = PlainTextResponse(reason, status, headers)


class Guard:
    """Stands before the page and refuses what the page itself never sends.

    Args:
        app: the page.
        local: whether only this machine may ask. The name of the host must then be its own, so
            that no other site's name that leads here reads the page (DNS rebinding).
        login: NAME:PASSWORD that every request must bear, if there is one.
    """

    def __init__(self, app: ASGIApp, local: bool, login: str | None = None) -> None:
        self._app, self._local = app, local
        self._login = login and base64.b64encode(login.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close"})

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        try:
            self._check(scope, Headers(scope=scope))
            receive = await _bounded(scope, receive)
        except _Refused as refused:
            return await refused.response(scope, receive, answer)
        if scope["path"] == "/":
            # The page's script reads the address; Gradio has pages of its own, and would look for
            # the one that a link names.
            scope = {**scope, "query_string": b""}
        try:
            await self._app(scope, receive, answer)
        except Exception:
            # Starlette has answered with status 500; uvicorn would end the connection as well.
            logger.exception("a request to the page failed")

    def _check(self, scope: Scope, headers: Headers) -> None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._local and urlsplit(f"//{host}").hostname not in LOOPBACK:
            raise _Refused(HTTPStatus.MISDIRECTED_REQUEST, "this page has another name")
        if origin is not None and urlsplit(origin).netloc != host:
            raise _Refused(HTTPStatus.FORBIDDEN, "another site asks")
        if self._login is not None:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            right = secrets.compare_digest(given.strip().encode(), self._login)
            if scheme.lower() != "basic" or not right:
                challenge = {"WWW-Authenticate": 'Basic realm="search", charset="UTF-8"'}
                raise _Refused(HTTPStatus.UNAUTHORIZED, "name and password", challenge)
        routes = _ROUTES.get("GET" if scope["method"] == "HEAD" else scope["method"])
        path = scope["path"]
        if routes is None or not routes.fullmatch(path) or ".." in path.split("/"):
            raise _Refused(HTTPStatus.NOT_FOUND, "there is no such page")


async def _bounded(scope: Scope, receive: Receive) -> Receive:
    """Reads a body up to its limit, and returns what hands it on."""
    if scope["method"] != "POST":
        return receive
    call = scope["path"] != "/query-image"
    limit = _LONGEST_CALL if call else MAX_BYTES
    if int(Headers(scope=scope).get("content-length", 0)) > limit:
        raise _too_large(limit)
    body, more = bytearray(), True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > limit:
            raise _too_large(limit)
    if call and not _is_plain_call(body):
        raise _Refused(HTTPStatus.BAD_REQUEST, "a call takes texts and numbers")
    waiting = [{"type": "http.request", "body": bytes(body), "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


def _is_plain_call(body: bytearray) -> bool:
    """Whether a call of Gradio has no value in which Gradio would look for files or addresses."""
    try:
        data = json.loads(body)["data"]
        return isinstance(data, list) and not any(isinstance(x, (dict, list)) for x in data)
    except (ValueError, LookupError, TypeError, RecursionError):
        return False


def _too_large(limit: int) -> _Refused:
    return _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {limit:,} bytes")
