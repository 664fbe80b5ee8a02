"""A server with TF Serving's REST and gRPC surface, for development without TF Serving.

It runs the Session that TF Serving runs, but has none of its batching, scheduling, metrics or
speed, and its messages are close to TF Serving's, not equal.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from tf_dpce.errors import UserError
from tf_dpce.logging import logger
from tf_dpce.serving.endpoint import MAX_REQUEST_BYTES
from tf_dpce.serving.grpc_server import grpc_server
from tf_dpce.serving.labels import read_config
from tf_dpce.serving.rest_app import rest_app
from tf_dpce.serving.servable_manager import ServableManager

HOST = "127.0.0.1"

# How long a client waits for an answer unless it sets another time.
_GRACE_SECONDS = 30
_IDLE_SECONDS = 30


@contextmanager
def development_server(
    config: Path,
    grpc_port: int = 0,
    rest_port: int = 0,
    max_request_bytes: int = MAX_REQUEST_BYTES,
    poll_seconds: float = 1.0,
) -> Iterator[tuple[int, int]]:
    """Serves models on this machine's loopback address during the block.

    At its end it answers requests that are under way, for 30 seconds at most.

    Args:
        config: a `models.config` with paths of this machine. It is read again and again, and so
            are the folders that it names.
        grpc_port: port of gRPC; 0 takes a free one.
        rest_port: port of REST; 0 takes a free one.
        max_request_bytes: larger requests are refused.
        poll_seconds: seconds between two readings of the configuration and the folders.

    Yields:
        The ports of gRPC and REST, once the models are loaded.

    Raises:
        UserError: the configuration cannot be read, or a port cannot be opened.
    """
    models = ServableManager()
    models.configure(read_config(config))
    models.refresh()
    with _listen(rest_port) as listening:
        rpc = grpc_server(models, max_request_bytes)
        try:
            bound = rpc.add_insecure_port(f"{HOST}:{grpc_port}")
        except RuntimeError:
            raise _closed_port(grpc_port) from None
        app = rest_app(models, max_request_bytes)
        rest, stop = _uvicorn(app), threading.Event()
        threads = [
            threading.Thread(target=rest.run, args=[[listening]], daemon=True),
            threading.Thread(target=_poll, args=[models, config, stop, poll_seconds], daemon=True),
        ]
        rpc.start()
        for thread in threads:
            thread.start()
        try:
            while not rest.started:
                time.sleep(0.01)
            yield bound, listening.getsockname()[1]
        finally:
            # Without waiting in between, so that both surfaces end at the same time.
            app.state.ending = rest.should_exit = True
            stop.set()
            rpc.stop(_GRACE_SECONDS).wait()
            for thread in threads:
                thread.join()


def _listen(port: int) -> socket.socket:
    try:
        listening = socket.create_server((HOST, port))
    except OSError:
        raise _closed_port(port) from None
    # Connections inherit it. Without it a body waits 40 ms until the client acknowledges its head.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _closed_port(port: int) -> UserError:
    return UserError("serving.port", f"port {port} cannot be opened: choose another")


def _uvicorn(app: Callable) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        # Broken requests of clients are none of the operator's business.
        log_config=None,
        log_level="critical",
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    return uvicorn.Server(config)


def _poll(
    models: ServableManager, config: Path, stop: threading.Event, poll_seconds: float
) -> None:
    faults: set[str] = set()
    while not stop.wait(poll_seconds):
        before, faults = faults, set()
        for step in (lambda: models.configure(read_config(config)), models.refresh):
            # A configuration that cannot be taken over yet is tried again: the version that it
            # waits for is loaded by `refresh`. Files and folders may go at any moment.
            try:
                step()
            except (UserError, OSError) as error:
                faults.add(str(error))
        for fault in faults - before:
            logger.warning(fault)
