"""The page on a port of this machine."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from tf_dpce.errors import UserError

# Open pages have a connection that never ends by itself.
_GRACE_SECONDS = 2


def listen(host: str, port: int) -> socket.socket:
    """Opens a port, before anything is loaded that takes long.

    Args:
        host: the address on which to listen, or its name.
        port: 0 takes a free one.

    Raises:
        UserError: the port cannot be opened.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        message = f"port {port} of {host} cannot be opened ({error.strerror}): choose another"
        raise UserError("web.port", message) from None
    # Otherwise a body waits 40 ms until the reader acknowledges its head.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


@contextmanager
def serving(app: ASGIApp, listening: socket.socket) -> Iterator[None]:
    """Serves a page on an open port during the block."""
    config = uvicorn.Config(
        app,
        loop="asyncio",
        log_config=None,
        log_level="critical",
        timeout_graceful_shutdown=_GRACE_SECONDS,
        proxy_headers=False,
        server_header=False,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=[[listening]], daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        thread.join()
