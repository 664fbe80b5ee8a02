"""A server with TF Serving's REST and gRPC surface, for development without TF Serving.

It runs the Session that TF Serving runs, but has none of its batching, scheduling, metrics or
speed, and its messages are close to TF Serving's, not equal.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tf_dpce.errors import UserError
from tf_dpce.logging import logger
from tf_dpce.serving.endpoint import MAX_REQUEST_BYTES
from tf_dpce.serving.grpc_server import grpc_server
from tf_dpce.serving.http_server import listen, serving
from tf_dpce.serving.labels import read_config
from tf_dpce.serving.rest_app import rest_app
from tf_dpce.serving.servable_manager import ServableManager

HOST = "127.0.0.1"

# How long a client waits for an answer unless it sets another time.
_GRACE_SECONDS = 30
_HTTP = {"http": "h11", "timeout_keep_alive": 30}


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
    with listen(HOST, rest_port, "serving.port") as listening, ExitStack() as ending:
        rpc = grpc_server(models, max_request_bytes)
        try:
            bound = rpc.add_insecure_port(f"{HOST}:{grpc_port}")
        except RuntimeError:
            message = f"port {grpc_port} cannot be opened: choose another"
            raise UserError("serving.port", message) from None
        app, stop = rest_app(models, max_request_bytes), threading.Event()
        polled = (models, config, stop, poll_seconds)
        polling = threading.Thread(target=_poll, args=polled, daemon=True)
        rpc.start()
        polling.start()
        # What is begun last ends first: both surfaces begin to end before either is waited for.
        ending.callback(polling.join)
        ending.callback(rpc.wait_for_termination)
        ending.enter_context(serving(app, listening, _GRACE_SECONDS, **_HTTP))
        ending.callback(rpc.stop, _GRACE_SECONDS)
        ending.callback(stop.set)
        ending.callback(setattr, app.state, "ending", True)
        yield bound, listening.getsockname()[1]


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
