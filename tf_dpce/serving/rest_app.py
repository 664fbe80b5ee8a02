"""TF Serving's REST surface over the models of a development server."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from tensorflow_serving.apis.model_pb2 import ModelSpec

from tf_dpce.export import DEFAULT_SIGNATURE
from tf_dpce.export.versions import LARGEST_NUMBER
from tf_dpce.logging import logger
from tf_dpce.serving.errors import STATUSES, TOO_LARGE, ServingError
from tf_dpce.serving.json_tensors import ROWS, parse_body, parse_inputs, response_json
from tf_dpce.serving.responses import metadata_json, status_json
from tf_dpce.serving.servable_manager import ServableManager

# Like TF Serving: words before the model's name in any case, the method's name as it is.
_MODEL = r"(?i:/v1/models)/(?P<name>[^/:]+)"
_MODEL += r"(?:(?i:/versions)/(?P<version>\d+)|(?i:/labels)/(?P<label>[^/:]+))?"
_PREDICT = re.compile(_MODEL + ":(?P<method>classify|regress|predict)")
_STATUS = re.compile(_MODEL + "(?P<metadata>/metadata)?")
_METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]
_MOST_DIGITS = len(str(LARGEST_NUMBER))


def rest_app(models: ServableManager, max_request_bytes: int) -> Starlette:
    """Returns the application.

    Its `state.ending` is false at first; once it is true, each response closes its connection.

    Args:
        models: the models that it serves.
        max_request_bytes: larger bodies are refused with status 413.
    """

    async def health(request: Request) -> Response:
        faults = models.unavailable()
        if not faults:
            return _response(request, HTTPStatus.OK, {"status": "ok"})
        errors = "; ".join(f"{name} {error}" for name, error in faults.items() if error)
        content = {"status": "failed", "error": errors} if errors else {"status": "loading"}
        return _response(request, HTTPStatus.SERVICE_UNAVAILABLE, content)

    async def surface(request: Request) -> Response:
        body = await _read(request, max_request_bytes)
        content = await run_in_threadpool(_answer, models, request, body)
        return _response(request, HTTPStatus.OK, content)

    app = Starlette(
        routes=[Route("/healthz", health), Route("/{path:path}", surface, methods=_METHODS)],
        exception_handlers={
            ServingError: _serving_error,
            HTTPException: _http_error,
            ClientDisconnect: _http_error,
            Exception: _bug,
        },
    )
    app.state.ending = False
    return app


def _answer(models: ServableManager, request: Request, body: bytes) -> dict[str, Any]:
    path = _target(request)
    if not path.lower().startswith("/v1/"):
        raise HTTPException(HTTPStatus.NOT_FOUND, f"Not found: {request.method} {path}")
    if request.method == "GET" and (found := _STATUS.fullmatch(path)):
        return (metadata_json if found["metadata"] else status_json)(models, _spec(found))
    if request.method == "POST" and (found := _PREDICT.fullmatch(path)):
        if found["method"] != "predict":
            raise ServingError("UNIMPLEMENTED", "the development server only has predict")
        return _predict(models, _spec(found), body)
    raise ServingError("INVALID_ARGUMENT", f"Malformed request: {request.method} {path}")


def _predict(models: ServableManager, spec: ModelSpec, body: bytes) -> dict[str, Any]:
    request = parse_body(body)
    signature = request.get("signature_name") or DEFAULT_SIGNATURE
    with models.use(spec) as servable:
        if signature not in servable.signatures:
            message = f'Serving signature name: "{signature}" not found in signature def'
            raise ServingError("INVALID_ARGUMENT", message)
        inputs = parse_inputs(request, servable.signature(signature).inputs)
        return response_json(servable.predict(signature, inputs), rows=ROWS in request)


async def _read(request: Request, limit: int) -> bytes:
    """Returns the body, unless it is larger than a limit."""
    # What is announced as too large is not read, nor even sent if the client asks before.
    size, body = int(request.headers.get("Content-Length", 0)), bytearray()
    if size <= limit:
        async for piece in request.stream():
            body += piece
            if len(body) > limit:
                break
        size = len(body)
    if size > limit:
        message = f"the body has {size} bytes or more, the limit is {limit}"
        raise HTTPException(TOO_LARGE, message)
    return bytes(body)


def _target(request: Request) -> str:
    """Returns the path as it was sent, with escapes and query."""
    query = request.scope["query_string"].decode()
    return request.scope["raw_path"].decode() + (f"?{query}" if query else "")


def _spec(found: re.Match[str]) -> ModelSpec:
    spec = ModelSpec(name=unquote(found["name"]))
    if found["version"]:
        # By its length first, because Python refuses to convert thousands of digits.
        digits = found["version"].lstrip("0") or "0"
        if len(digits) > _MOST_DIGITS or int(digits) > LARGEST_NUMBER:
            message = f"Failed to convert version: {found['version']} to numeric."
            raise ServingError("INVALID_ARGUMENT", message)
        spec.version.value = int(digits)
    if found["label"]:
        spec.version_label = unquote(found["label"])
    return spec


def _serving_error(request: Request, error: ServingError) -> Response:
    return _response(request, STATUSES[error.status][1], {"error": error.detail})


def _http_error(request: Request, error: Exception) -> Response:
    # Of a client that is gone nobody reads the response.
    status = getattr(error, "status_code", HTTPStatus.BAD_REQUEST)
    return _response(request, status, {"error": getattr(error, "detail", "")})


def _bug(request: Request, error: Exception) -> Response:
    logger.error(f"{request.method} {_target(request)} failed", exc_info=error)
    return _response(request, HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "the server failed"})


def _response(request: Request, status: int, content: dict[str, Any]) -> Response:
    headers = {"Connection": "close"} if request.app.state.ending else None
    return Response(json.dumps(content), status, headers, media_type="application/json")
