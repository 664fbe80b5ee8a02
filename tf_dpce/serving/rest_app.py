"""TF Serving's REST surface over the models of a development server.

Every signature of an export takes one batch of strings and returns batches of numbers, so nothing
else is converted here.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import numpy as np
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from tensorflow_serving.apis.model_pb2 import ModelSpec

from tf_dpce.errors import shorten
from tf_dpce.export import DEFAULT_SIGNATURE
from tf_dpce.logging import logger
from tf_dpce.serving.errors import STATUSES, TOO_LARGE, ServingError
from tf_dpce.serving.servable_manager import SIGNATURE_FIELD, ServableManager

# Like TF Serving: words before the model's name in any case, the method's name as it is, and a
# query for a part of the path.
_MODEL = r"(?i:/v1/models)/(?P<name>[^/:]+)"
_MODEL += r"(?:(?i:/versions)/(?P<version>\d+)|(?i:/labels)/(?P<label>[^/:]+))?"
_PREDICT = re.compile(_MODEL + ":predict")
_STATUS = re.compile(_MODEL + "(?P<metadata>(?i:/metadata))?")
_METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]
_NOT_FOUND = "<HTML><HEAD><TITLE>404 Not Found</TITLE></HEAD><BODY>Not Found</BODY></HTML>"

# Of two equal keys the first one counts.
_JSON = json.JSONDecoder(object_pairs_hook=lambda pairs: dict(reversed(pairs)))


def rest_app(models: ServableManager, max_request_bytes: int) -> Starlette:
    """Returns the application.

    Its `state.ending` is false at first; once it is true, each response closes its connection.

    Args:
        models: the models that it serves.
        max_request_bytes: larger bodies are refused with status 413.
    """

    async def surface(request: Request) -> Response:
        body = await _read(request, max_request_bytes)
        content = await run_in_threadpool(_answer, models, request, body, max_request_bytes)
        return _response(request, HTTPStatus.OK, json.dumps(content))

    app = Starlette(
        routes=[Route("/{path:path}", surface, methods=_METHODS)],
        exception_handlers={
            ServingError: _serving_error,
            HTTPException: _http_error,
            ClientDisconnect: _http_error,
            Exception: _bug,
        },
    )
    app.state.ending = False
    return app


def _answer(models: ServableManager, request: Request, body: bytes, limit: int) -> dict[str, Any]:
    path = _target(request)
    if not path.lower().startswith("/v1/"):
        raise HTTPException(HTTPStatus.NOT_FOUND)
    if request.method == "GET" and (found := _STATUS.fullmatch(path)):
        if found["metadata"] != "/metadata":
            return _json(models.status(_spec(found)))
        answer = _json(models.metadata(_spec(found)))
        del answer["metadata"][SIGNATURE_FIELD]["@type"]
        return answer
    if request.method == "POST" and (found := _PREDICT.fullmatch(path)):
        if "gzip" in request.headers.get("Content-Encoding", "").lower():
            body = _unpacked(body, limit)
        return _predict(models, _spec(found), body)
    raise _invalid(f"Malformed request: {request.method} {shorten(path)}")


def _predict(models: ServableManager, spec: ModelSpec, body: bytes) -> dict[str, Any]:
    request = _parse(body)
    name = request.get("signature_name") or DEFAULT_SIGNATURE
    servable = models.find(spec)
    key = servable.input_name(name)
    column = _column if "inputs" in request else _rows
    strings = column(request.get("inputs", request.get("instances")), key)
    outputs = servable.predict(name, {key: np.array(strings, object)})
    if "inputs" in request:
        return {"outputs": {output: value.tolist() for output, value in outputs.items()}}
    rows = zip(*(value.tolist() for value in outputs.values()), strict=True)
    return {"predictions": [dict(zip(outputs, row, strict=True)) for row in rows]}


def _parse(body: bytes) -> dict[str, Any]:
    """Returns the JSON object in a request's body."""
    try:
        # Bytes that are not UTF-8 go through a string as they are. What follows the object does
        # not count.
        text = body.decode(errors="surrogateescape").removeprefix("\ufeff").lstrip(" \t\r\n")
        request, _ = _JSON.raw_decode(text)
    except (ValueError, RecursionError) as error:
        raise _invalid(f"JSON Parse error: {error}") from None
    if not isinstance(request, dict):
        raise _invalid("JSON Value is not object")
    if not isinstance(request.get("signature_name", ""), str):
        raise _invalid("'signature_name' key must be a string value.")
    if len(request.keys() & {"instances", "inputs"}) != 1:
        raise _invalid("expecting exactly one of 'inputs' or 'instances' keys")
    return request


def _column(value: Any, key: str) -> list[bytes]:
    """Returns the strings `[B]` of `inputs`: a list, or an object of such a list by its name."""
    if isinstance(value, dict) and not _is_base64(value):
        if key not in value:
            raise _invalid(f"Missing named input: {key} in 'inputs' object.")
        value = value[key]
    if not isinstance(value, list):
        raise _invalid(f"{key} takes a list of strings")
    return [_string(item) for item in value]


def _rows(rows: Any, key: str) -> list[bytes]:
    """Returns the strings `[B]` of `instances`, all of them in objects by their name, or none."""
    if not isinstance(rows, list) or not rows:
        raise _invalid("'instances' is expected to be a list with values")
    if any(isinstance(row, dict) and not _is_base64(row) for row in rows):
        if not all(isinstance(row, dict) and list(row) == [key] for row in rows):
            raise _invalid(f"elements of 'instances': keys must be equal to: {key}")
        rows = [row[key] for row in rows]
    return [_string(row) for row in rows]


def _string(value: Any) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode(errors="surrogateescape")
        except UnicodeEncodeError:
            raise _invalid("JSON Parse error: a surrogate pair in a string is invalid") from None
    if not _is_base64(value):
        raise _invalid(f"JSON Value of type {type(value).__name__} is not of expected type: string")
    try:
        return _decoded(value["b64"])
    except ValueError:
        raise _invalid("Unable to base64 decode") from None


def _decoded(text: str) -> bytes:
    """Decodes base64 like TF Serving: with white space anywhere, and with or without padding."""
    text = re.sub(r"[\t-\r ]+", "", text)
    letters = text.rstrip("=.")
    padding = -len(letters) % 4
    if len(text) - len(letters) not in (0, padding):
        raise ValueError("there is too much or too little padding")
    return base64.b64decode(letters + "=" * padding, validate=True)


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


def _json(message: Message) -> dict[str, Any]:
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


async def _read(request: Request, limit: int) -> bytes:
    """Returns the body, unless it is larger than a limit."""
    # What is announced as too large is not read, nor even sent if the client asks before.
    if int(request.headers.get("Content-Length", 0)) > limit:
        raise _too_large(limit)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


def _unpacked(body: bytes, limit: int) -> bytes:
    """Returns what gzip compressed, unless it is larger than a limit; nothing of another body."""
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        content = stream.decompress(body, limit + 1)
    except zlib.error:
        return b""
    if len(content) > limit:
        raise _too_large(limit)
    return content if stream.eof else b""


def _too_large(limit: int) -> HTTPException:
    return HTTPException(TOO_LARGE, f"the body is larger than the limit of {limit} bytes")


def _target(request: Request) -> str:
    """Returns the path as it was sent, with escapes and query."""
    query = request.scope["query_string"].decode()
    return request.scope["raw_path"].decode() + (f"?{query}" if query else "")


def _spec(found: re.Match[str]) -> ModelSpec:
    spec = ModelSpec(name=unquote(found["name"]))
    if found["version"]:
        try:
            spec.version.value = int(found["version"])
        except ValueError:  # It is beyond int64, or has thousands of digits; nothing is said of it.
            raise _invalid("") from None
    if found["label"]:
        spec.version_label = unquote(found["label"])
    return spec


def _invalid(message: str) -> ServingError:
    return ServingError("INVALID_ARGUMENT", message)


def _serving_error(request: Request, error: ServingError) -> Response:
    content = json.dumps({"error": error.detail}) if error.detail else ""
    return _response(request, STATUSES[error.status][1], content)


def _http_error(request: Request, error: Exception) -> Response:
    # Of a client that is gone nobody reads the response.
    status = getattr(error, "status_code", HTTPStatus.BAD_REQUEST)
    if status == HTTPStatus.NOT_FOUND:
        return _response(request, status, _NOT_FOUND, "text/html")
    return _response(request, status, json.dumps({"error": getattr(error, "detail", "")}))


def _bug(request: Request, error: Exception) -> Response:
    logger.error(f"{request.method} {_target(request)} failed", exc_info=error)
    content = json.dumps({"error": "the server failed"})
    return _response(request, HTTPStatus.INTERNAL_SERVER_ERROR, content)


def _response(
    request: Request, status: int, content: str, media_type: str = "application/json"
) -> Response:
    headers = {"Connection": "close"} if request.app.state.ending else None
    return Response(content, status, headers, media_type)
