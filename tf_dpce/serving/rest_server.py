"""TF Serving's REST surface over the models of a development server."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from google.protobuf.json_format import MessageToDict
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.model_pb2 import ModelSpec

from tf_dpce.export import DEFAULT_SIGNATURE
from tf_dpce.export.versions import LARGEST_NUMBER
from tf_dpce.serving import answers
from tf_dpce.serving.errors import STATUSES, TOO_LARGE, ServingError
from tf_dpce.serving.json_tensors import (
    ROWS,
    answer_json,
    parse_body,
    parse_inputs,
)
from tf_dpce.serving.models import Models

HEALTH = "/healthz"

_SURFACE = "/v1/"
_MODEL = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_PREDICT = re.compile(f"{_MODEL}:(?P<method>classify|regress|predict)", re.IGNORECASE)
_LOOK = re.compile(f"{_MODEL}(?P<metadata>/metadata)?", re.IGNORECASE)
_IDLE_SECONDS = 30
_PIECE = 2**16
_MOST_DIGITS = len(str(LARGEST_NUMBER))


class RestServer(ThreadingHTTPServer):
    """Answers REST requests, each connection in a thread of its own.

    Args:
        address: host and port; port 0 takes a free one.
        models: what answers.
        max_request_bytes: larger bodies are refused.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], models: Models, max_request_bytes: int) -> None:
        super().__init__(address, _Handler)
        self.models = models
        self.max_request_bytes = max_request_bytes
        self.draining = False
        self._under_way = 0
        self._changed = threading.Condition()

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Counts a request from its head to the end of its answer."""
        with self._changed:
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def drain(self, seconds: float) -> None:
        """Waits until the requests under way are answered; their connections are then closed."""
        self.draining = True
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way, seconds)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Passes over a connection that the client broke: there is nobody to tell."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "tf_dpce-development"
    timeout = _IDLE_SECONDS
    # Head and body leave together, but where the body is larger than the buffer: then it must not
    # wait until the head is acknowledged, which a client puts off for 40 ms.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: RestServer

    def do_POST(self) -> None:
        with self.server.under_way():
            self._receive()
            self.wfile.flush()

    # TF Serving knows GET and POST. Others are requests as well, with bodies to be read.
    do_GET = do_HEAD = do_PUT = do_DELETE = do_POST

    def _receive(self) -> None:
        length = self._length()
        if length is None:
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "a Content-Length is required")
        elif length > self.server.max_request_bytes:
            self._drop(length)
            limit = self.server.max_request_bytes
            self._refuse(TOO_LARGE, f"the body has {length} bytes, the limit is {limit}")
        else:
            body = self.rfile.read(length)
            self._try(lambda: self._route(body))

    def handle_expect_100(self) -> bool:
        """Lets a client send its body only if that is not too large."""
        if (self._length() or 0) <= self.server.max_request_bytes:
            super().handle_expect_100()
            self.wfile.flush()
            return True
        self._refuse(TOO_LARGE, f"the limit is {self.server.max_request_bytes} bytes")
        return False

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keeps silent: the library does not print."""

    def send_error(self, code: int, message: str | None = None, explain: Any = None) -> None:
        """Answers what is no request at all in JSON, like the rest."""
        self._refuse(code, message or HTTPStatus(code).phrase)

    def _route(self, body: bytes) -> tuple[int, dict[str, Any]]:
        path = self.path.partition("?")[0]
        if path == HEALTH and self.command in ("GET", "HEAD"):
            return self._health()
        if not path.lower().startswith(_SURFACE):
            return HTTPStatus.NOT_FOUND, {"error": f"Not found: {self.command} {path}"}
        if self.command == "GET" and (found := _LOOK.fullmatch(path)):
            return HTTPStatus.OK, self._look(found)
        if self.command == "POST" and (found := _PREDICT.fullmatch(path)):
            return HTTPStatus.OK, self._predict(found, body)
        message = f"Malformed request: {self.command} {self.path}"
        raise ServingError("INVALID_ARGUMENT", message)

    def _health(self) -> tuple[int, dict[str, Any]]:
        absent = self.server.models.absent()
        if not absent:
            return HTTPStatus.OK, {"status": "ok"}
        faults = [f"{name} {fault}" for name, fault in absent.items() if fault]
        said = {"status": "failed", "error": "; ".join(faults)} if faults else {"status": "loading"}
        return HTTPStatus.SERVICE_UNAVAILABLE, said

    def _look(self, found: re.Match[str]) -> dict[str, Any]:
        if found["metadata"]:
            return answers.metadata_json(self.server.models, _spec(found))
        request = GetModelStatusRequest(model_spec=_spec(found))
        status = answers.model_status(self.server.models, request)
        return MessageToDict(
            status, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )

    def _predict(self, found: re.Match[str], body: bytes) -> dict[str, Any]:
        if found["method"].lower() != "predict":
            raise ServingError("UNIMPLEMENTED", "the development server knows predict alone")
        request = parse_body(body)
        signature = request.get("signature_name") or DEFAULT_SIGNATURE
        with self.server.models.use(_spec(found)) as version:
            if signature not in version.signatures:
                message = f'Serving signature name: "{signature}" not found in signature def'
                raise ServingError("INVALID_ARGUMENT", message)
            inputs = parse_inputs(request, version.signature(signature).inputs)
            return answer_json(version.predict(signature, inputs), rows=ROWS in request)

    def _try(self, work: Callable[[], tuple[int, dict[str, Any]]]) -> None:
        try:
            self._answer(*work())
        except ServingError as error:
            self._answer(STATUSES[error.status][1], {"error": error.detail})
        except Exception:
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "the server failed"})
            raise

    def _refuse(self, status: int, message: str) -> None:
        # What was not read would be taken for the next request.
        self.close_connection = True
        self._answer(status, {"error": message})

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.close_connection = self.close_connection or self.server.draining
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _length(self) -> int | None:
        """Returns the bytes of the body, None where that is not told."""
        if "Transfer-Encoding" in self.headers:
            return None
        text = self.headers.get("Content-Length", "" if self.command == "POST" else "0")
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None

    def _drop(self, length: int) -> None:
        # Unread, the body would keep the client from reading the answer.
        while length > 0 and (piece := self.rfile.read(min(_PIECE, length))):
            length -= len(piece)


def _spec(found: re.Match[str]) -> ModelSpec:
    spec = ModelSpec(name=unquote(found["name"]))
    if found["version"]:
        # By its length first: Python itself refuses to convert thousands of digits.
        digits = found["version"].lstrip("0") or "0"
        if len(digits) > _MOST_DIGITS or int(digits) > LARGEST_NUMBER:
            message = f"Failed to convert version: {found['version']} to numeric."
            raise ServingError("INVALID_ARGUMENT", message)
        spec.version.value = int(digits)
    if found["label"]:
        spec.version_label = unquote(found["label"])
    return spec
