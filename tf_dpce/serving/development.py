"""A server with TF Serving's REST and gRPC surface, for development where that is not installed.

It runs the same Session that TF Serving runs, but has none of its batching, scheduling, metrics
or speed, and its messages are close to TF Serving's, not equal.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc

from tf_dpce.errors import UserError
from tf_dpce.serving.endpoint import MAX_REQUEST_BYTES
from tf_dpce.serving.errors import ServingError
from tf_dpce.serving.grpc_server import grpc_server
from tf_dpce.serving.model_config import read_config
from tf_dpce.serving.models import Models
from tf_dpce.serving.rest_server import RestServer

HOST = "127.0.0.1"
POLL_SECONDS = 1.0

# As long as a client waits for an answer, unless it asks for another time.
_GRACE_SECONDS = 30


@contextmanager
def development_server(
    config: Path,
    grpc_port: int = 0,
    rest_port: int = 0,
    max_request_bytes: int = MAX_REQUEST_BYTES,
    poll_seconds: float = POLL_SECONDS,
    report: Callable[[str], None] = lambda line: None,
) -> Iterator[tuple[int, int]]:
    """Serves models on this machine's loopback address during the block.

    Args:
        config: a `models.config` with paths of this machine; it is read again and again, and
            so are the folders that it names.
        grpc_port: 0 takes a free one.
        rest_port: 0 takes a free one.
        max_request_bytes: larger requests are refused.
        poll_seconds: between two looks at the configuration and the folders.
        report: called with one line about each version that comes or goes.

    Yields:
        The ports of gRPC and REST, once the models are loaded.

    Raises:
        UserError: the configuration cannot be read, or a port is taken.
    """
    models = Models(report)
    models.configure(read_config(config))
    models.refresh()
    stop = threading.Event()
    try:
        with _grpc(models, grpc_port, max_request_bytes) as (server, bound):
            with _rest(models, rest_port, max_request_bytes) as rest:
                try:
                    with _thread(lambda: _poll(models, config, stop, poll_seconds), stop.set):
                        yield bound, rest.server_port
                finally:
                    # Without waiting, so that both ends have the same time.
                    server.stop(_GRACE_SECONDS)
    finally:
        models.close()


@contextmanager
def _grpc(models: Models, port: int, max_request_bytes: int) -> Iterator[tuple[grpc.Server, int]]:
    server = grpc_server(models, max_request_bytes)
    try:
        bound = server.add_insecure_port(f"{HOST}:{port}")
    except RuntimeError:
        raise _taken(port) from None
    server.start()
    try:
        yield server, bound
    finally:
        server.stop(_GRACE_SECONDS).wait()


@contextmanager
def _rest(models: Models, port: int, max_request_bytes: int) -> Iterator[RestServer]:
    try:
        server = RestServer((HOST, port), models, max_request_bytes)
    except OSError:
        raise _taken(port) from None
    try:
        # Closed first: who comes now is not to wait for nothing.
        with server, _thread(server.serve_forever, server.shutdown):
            yield server
    finally:
        server.drain(_GRACE_SECONDS)


@contextmanager
def _thread(work: Callable[[], None], stop: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop()
        thread.join()


def _poll(models: Models, config: Path, stop: threading.Event, seconds: float) -> None:
    while not stop.wait(seconds):
        # A configuration that cannot be taken over yet is tried again: what it waits for, a
        # version that loads, is found by the look at the folders. Those may go meanwhile.
        with suppress(ServingError, UserError, OSError):
            models.configure(read_config(config))
        with suppress(OSError):
            models.refresh()


def _taken(port: int) -> UserError:
    return UserError(f"port {port} cannot be opened, another server may have it: choose another")
